"""The memory of live speech streams: one slot for each, and rooms that the prompts of the voices share with them.

It hands out places, counts them and copies them; it knows the shapes of what is kept there, not what it means.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voiceagent.errors import CapacityError, CheckpointError
from voiceagent.models.step_audio2.flow_config import MEL_BANDS, FlowConfig

RECENT_TOKENS = 250
"""How many tokens before a chunk the encoder still attends to, besides the prompt: 10 s."""
RECENT_FRAMES = 100
"""How many mel frames before a chunk the DiT still attends to, besides the prompt: 2 s."""
TAIL = 2
"""Left context of the causal convolutions with three taps, frames or tokens."""

_FIRST_ROOM = 1  # token row 0 stays zero: it stands for what is not there


class Lease:
    """A place in a pool. It comes back when `close` is called or the last reference goes, whichever is first."""

    def __init__(self, start: int, size: int, give_back: Callable[[int], None]) -> None:
        self.start, self.size = start, size
        self._finalizer = weakref.finalize(self, give_back, start)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Gives the place back; a second call does nothing."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        """Whether the place has been given back."""
        return not self._finalizer.alive


class FlowPool:
    """What the flow remembers of all streams and voices; every tensor has its final size from the start.

    A frame row holds one frame's keys or values of both guidance rows; a token row those of one token. The rows of a
    stream are rings, because neither network minds the order in memory.

    Attributes:
        kv: (steps, depth, 2, frame rows, 2 guidance, heads, head size) keys and values of the DiT.
        tails: (steps, depth, 2 convolutions, slots + 2, 2 guidance, 2, width); the last two slots are `nobody` and
            `desk`.
        low: (blocks, 2, token rows, width) keys and values of the encoder at the token rate; row 0 is zero.
        up: (up blocks, 2, stride x token rows, width) the same at the frame rate.
        lookahead: (slots + 2, width, 2) input tails of the encoder's second look-ahead convolution.
        upsample: (slots + 2, width, 2 x stride) input tails of its up-sampling convolution.
        speakers: (slots + 2, 80)
        slots: how many streams there is room for.
        slot_size: bytes of one.
        prompt_tokens: how many tokens of prompts there is room for.
    """

    def __init__(
        self,
        config: FlowConfig,
        *,
        steps: int,
        slots: int,
        prompt_tokens: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        def empty(*shape: int) -> Tensor:
            return torch.empty(shape, device=device, dtype=dtype)  # untouched memory costs nothing on a CPU

        dit, encoder, stride = config.dit, config.encoder, config.encoder.stride
        if stride < TAIL:  # a chunk of one token must fill the convolutions' tails
            raise CheckpointError(f"flow.yaml: flow.encoder.up_stride must be at least {TAIL}, not {stride}.")
        self.slots, self.prompt_tokens, self.stride = slots, prompt_tokens, stride
        self.frame_prompts = (slots + 1) * RECENT_FRAMES
        self.token_prompts = _FIRST_ROOM + (slots + 1) * RECENT_TOKENS
        frames = self.frame_prompts + stride * prompt_tokens
        tokens = self.token_prompts + prompt_tokens
        self.kv = empty(steps, dit.depth, 2, frames, 2, dit.heads, dit.head_size)
        self.tails = empty(steps, dit.depth, 2, slots + 2, 2, TAIL, dit.width)
        self.low = empty(encoder.blocks, 2, tokens, encoder.width)
        self.up = empty(encoder.up_blocks, 2, stride * tokens, encoder.width)
        self.low[:, :, :_FIRST_ROOM] = 0
        self.up[:, :, : stride * _FIRST_ROOM] = 0
        self.lookahead = empty(slots + 2, encoder.width, TAIL)
        self.upsample = empty(slots + 2, encoder.width, 2 * stride)
        self.speakers = torch.zeros(slots + 2, MEL_BANDS, device=device, dtype=dtype)
        self.slot_size = self.slot_bytes(config, steps=steps, dtype=dtype)
        self._free = list(range(slots - 1, -1, -1))
        self._rooms: dict[int, int] = {}  # start of every prompt's room, and its size, in tokens

    @staticmethod
    def slot_bytes(config: FlowConfig, *, steps: int, dtype: torch.dtype) -> int:
        """Bytes that one stream takes."""
        dit, encoder = config.dit, config.encoder
        frame = 2 * 2 * dit.heads * dit.head_size
        tails = 2 * 2 * TAIL * dit.width
        token = 2 * encoder.width * (encoder.blocks + encoder.stride * encoder.up_blocks)
        small = encoder.width * (TAIL + 2 * encoder.stride) + MEL_BANDS
        values = steps * dit.depth * (RECENT_FRAMES * frame + tails) + RECENT_TOKENS * token + small
        return values * dtype.itemsize

    @staticmethod
    def token_bytes(config: FlowConfig, *, steps: int, dtype: torch.dtype) -> int:
        """Bytes that one token of a voice's prompt takes."""
        dit, encoder = config.dit, config.encoder
        frames = steps * dit.depth * 2 * 2 * dit.heads * dit.head_size * encoder.stride
        return (
            frames + 2 * encoder.width * (encoder.blocks + encoder.stride * encoder.up_blocks)
        ) * dtype.itemsize

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    @property
    def nobody(self) -> int:
        """The slot that belongs to no stream: rows that only fill up a batch read and write it."""
        return self.slots

    @property
    def desk(self) -> int:
        """A slot with tails and a speaker only: where a voice's prompt is made, while `nobody` may be busy."""
        return self.slots + 1

    def take(self) -> Lease:
        """A slot.

        Raises:
            CapacityError: all are taken.
        """
        if not self._free:
            raise CapacityError(
                f"all {self.slots} speech streams are taken.",
                code="speech_full",
                remedy="Try again when a reply has ended, or raise engine.speech_memory_mb.",
            )
        return Lease(self._free.pop(), 1, self._free.append)

    def take_prompt(self, tokens: int) -> Lease:
        """Room for the prompt of a voice; `start` counts tokens from the beginning of the prompts' region.

        Raises:
            CapacityError: no gap is long enough.
        """
        start = 0
        for taken in sorted(self._rooms):
            if taken - start >= tokens:
                break
            start = taken + self._rooms[taken]
        if start + tokens > self.prompt_tokens:
            raise CapacityError(
                f"no room for the {tokens} tokens of another voice's prompt: "
                f"{sum(self._rooms.values())} of {self.prompt_tokens} are taken.",
                code="speech_full",
                remedy="Use a shorter recording or one of the voices in use, or raise engine.speech_memory_mb.",
            )
        self._rooms[start] = tokens
        return Lease(start, tokens, self._leave)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that has a room."""
        return max(self._rooms.values(), default=0)

    def _leave(self, start: int) -> None:
        del self._rooms[start]

    def clear(self, slot: int) -> None:
        """Zeroes the tails of a slot: nothing came before."""
        for tensor, axis in self._tails():
            tensor.select(axis, slot).zero_()

    def tails_of(self, slot: int) -> tuple[Tensor, ...]:
        """Copies of the tails of a slot, for `begin`."""
        return tuple(tensor.select(axis, slot).clone() for tensor, axis in self._tails())

    def begin(self, slot: int, tails: Sequence[Tensor], speaker: Tensor) -> None:
        """Makes a slot the beginning of a stream that follows a prompt with these tails."""
        for (tensor, axis), tail in zip(self._tails(), tails, strict=True):
            tensor.select(axis, slot).copy_(tail)
        self.speakers[slot] = speaker

    def copy(self, source: int, target: int) -> None:
        """Copies all that a slot holds."""
        for tensor, axis in (*self._tails(), (self.speakers, 0)):
            tensor.select(axis, target).copy_(tensor.select(axis, source))
        for tensor, first, size in (
            (self.kv[:, :], 0, RECENT_FRAMES),
            (self.low[None], _FIRST_ROOM, RECENT_TOKENS),
            (self.up[None], self.stride * _FIRST_ROOM, self.stride * RECENT_TOKENS),
        ):
            from_, to = (first + slot * size for slot in (source, target))
            tensor[:, :, :, to : to + size] = tensor[:, :, :, from_ : from_ + size]

    def _tails(self) -> tuple[tuple[Tensor, int], ...]:
        return (self.tails, 3), (self.lookahead, 0), (self.upsample, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one stream stands in the pool, all in tokens: what its chunk sees, and where it goes.

    Attributes:
        slot: of its tails.
        made: tokens before the chunk, the prompt not counted.
        new: tokens of the chunk.
        known: tokens given, `new` and those looked ahead to.
        prompt: tokens of the voice's prompt.
        prompt_at: its start among the prompts.
        seed: of the stream's noise.
        is_prompt: the chunk itself is the prompt, which goes to `prompt_at`; nothing comes before it.
    """

    slot: int
    made: int
    new: int
    known: int
    prompt: int
    prompt_at: int
    seed: int = 0
    is_prompt: bool = False

    def row(self, pool: FlowPool) -> tuple[int, ...]:
        """The numbers of `Places.table`."""
        tokens, frames = (
            pool.token_prompts + self.prompt_at,
            pool.frame_prompts + pool.stride * self.prompt_at,
        )
        if self.is_prompt:
            rings = (tokens, self.prompt, frames, pool.stride * self.prompt)
        else:
            rings = (
                _FIRST_ROOM + self.slot * RECENT_TOKENS,
                RECENT_TOKENS,
                self.slot * RECENT_FRAMES,
                RECENT_FRAMES,
            )
        prompt = 0 if self.is_prompt else self.prompt
        seed = self.seed % 2**63
        return self.slot, self.made, self.new, self.known, prompt, tokens, frames, *rings, seed


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a batch, on its device, so that a captured graph can be replayed for other streams.

    Attributes:
        table: (B, 12) int64: slot, made, new, known, prompt, its first token row and frame row, then the first row and
            the length of the ring that the chunk is written to, of tokens and of frames; seed.
        stride: frames per token.
    """

    table: Tensor
    stride: int

    def column(self, name: str) -> Tensor:
        """(B,) one number of every stream."""
        return self.table[:, COLUMNS[name]]

    def history(self, span: int) -> Tensor:
        """(B, span) the token rows that the chunk sees before itself, the newest last; 0 where there is nothing."""
        age = torch.arange(span - 1, -1, -1, device=self.table.device)
        made, prompt = (self.column(name)[:, None] for name in ("made", "prompt"))
        recent = made.clamp(max=RECENT_TOKENS)
        ring = self.column("token_ring")[:, None] + (made - 1 - age) % RECENT_TOKENS
        older = prompt - 1 - (age - recent)
        rows = torch.where(age < recent, ring, self.column("token_prompt")[:, None] + older)
        return torch.where(age < recent + prompt, rows, 0)

    def token_targets(self, tokens: int) -> Tensor:
        """(B, tokens) the token rows that the chunk goes to; what is not to be kept goes to nobody's last row."""
        return self._targets(tokens, 1, "token_ring", "token_room")

    def frame_targets(self, frames: int) -> Tensor:
        """(B, frames) the frame rows that the chunk goes to; -1: not kept."""
        return self._targets(frames, self.stride, "frame_ring", "frame_room")

    def _targets(self, count: int, stride: int, ring: str, room: str) -> Tensor:
        i = torch.arange(count, device=self.table.device)
        new, size = (stride * self.column("new"))[:, None], self.column(room)[:, None]
        rows = self.column(ring)[:, None] + (stride * self.column("made")[:, None] + i) % size
        return torch.where((i < new) & (i >= new - size), rows, -1)


COLUMNS = {
    name: i
    for i, name in enumerate(
        (
            "slot",
            "made",
            "new",
            "known",
            "prompt",
            "token_prompt",
            "frame_prompt",
            "token_ring",
            "token_room",
            "frame_ring",
            "frame_room",
            "seed",
        )
    )
}
