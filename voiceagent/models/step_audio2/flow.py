"""Token2Wav's flow: 25 Hz speech tokens to a 50 Hz mel in a prompt's voice, whole utterances or live streams.

It owns guidance, the ODE, noise and the state of a stream. It knows nothing of waveforms, files of voices or clocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.checkpoint import load_strictly
from voiceagent.models.step_audio2.flow_config import MEL_BANDS, FlowConfig
from voiceagent.models.step_audio2.flow_net import FlowNet, read_weights
from voiceagent.models.step_audio2.t2w_dit import ChunkSolver
from voiceagent.models.step_audio2.t2w_encoder import ChunkEncoder
from voiceagent.models.step_audio2.t2w_graphs import BUCKETS, Recorded, on
from voiceagent.models.step_audio2.t2w_noise import frame_noise
from voiceagent.models.step_audio2.t2w_noise import noise as stream_noise
from voiceagent.models.step_audio2.t2w_pool import (
    COLUMNS,
    RECENT_FRAMES,
    RECENT_TOKENS,
    FlowPool,
    Lease,
    Place,
    Places,
)

__all__ = [
    "ODE_STEPS",
    "RECENT_FRAMES",
    "RECENT_TOKENS",
    "Flow",
    "FlowChunk",
    "FlowNet",
    "FlowPrompt",
    "FlowState",
    "frame_noise",
]

ODE_STEPS = 10
SLOTS = 16
"""How many streams a flow has room for by default."""
PROMPT_TOKENS = 1500
"""How many tokens of voices' prompts a flow has room for by default: 60 s."""

_PROMPT_SEED = 0
_PROMPT_AHEAD = 150  # tokens: recorded passes take prompts of 6 s at least
_LANE = 1


class VoicePrompt(Protocol):
    """What the flow needs of a voice: an utterance as tokens and as mel, and who speaks it."""

    @property
    def tokens(self) -> Tensor | NDArray[Any]:
        """(T,) integers"""

    @property
    def mel(self) -> Tensor | NDArray[Any]:
        """(2 T, 80) natural-log mel"""

    @property
    def speaker(self) -> Tensor | NDArray[Any]:
        """(192,)"""


@dataclass(frozen=True, slots=True)
class FlowPrompt:
    """A voice as the networks remember it: made once, shared by all its streams, never written again.

    Attributes:
        tokens: of the prompt.
        speaker: (80,)
        room: where the pool keeps its keys and values; it comes back when the last stream has gone.
        tails: what the convolutions see before the first chunk of a stream.
    """

    tokens: int
    speaker: Tensor
    room: Lease
    tails: tuple[Tensor, ...]


@dataclass(slots=True)
class FlowState:
    """One stream. It belongs to whoever called `open`; `Flow.step` changes it in place, so fork to keep the old one.

    Attributes:
        prompt: the voice; shared.
        pool: where the history is.
        slot: the stream's place there; it comes back at the end of the stream, by `close`, or with the last reference.
        seed: of the noise, a function of the seed and a frame's position alone.
        frames: mel frames made so far.
        finished: the last chunk has been made.
    """

    prompt: FlowPrompt
    pool: FlowPool
    slot: Lease
    seed: int
    frames: int = 0
    finished: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that this stream holds: those of its slot, however long it grows."""
        return self.pool.slot_size

    @torch.inference_mode()
    def fork(self) -> FlowState:
        """A stream with the same past and a future of its own.

        Raises:
            CapacityError: the pool is full.
        """
        if self.finished:
            return replace(self)
        slot = self.pool.take()
        if self.frames:
            self.pool.copy(self.slot.start, slot.start)
        return replace(self, slot=slot)

    def close(self) -> None:
        """Gives the memory back; the stream cannot go on. Closing twice does nothing."""
        self.finished = True
        self.slot.close()


@dataclass(frozen=True, slots=True)
class FlowChunk:
    """One stream's part of `Flow.advance`: the arguments of `Flow.step`."""

    tokens: Tensor | Sequence[int]
    state: FlowState
    last: bool
    noise: Tensor | None = None


class Flow:
    """A loaded flow: weights, the ODE schedule, and the memory of a fixed number of streams.

    Args:
        net: the weights; device and dtype are theirs.
        steps: of the ODE.
        slots: how many streams may be open at once.
        prompt_tokens: how many tokens the prompts of all voices may have together.
    """

    def __init__(
        self, net: FlowNet, *, steps: int = ODE_STEPS, slots: int = SLOTS, prompt_tokens: int = PROMPT_TOKENS
    ) -> None:
        self.net = net.requires_grad_(False).eval()
        self.steps = steps
        self.dtype = net.encoder_proj.weight.dtype
        self.device = net.encoder_proj.weight.device
        # Cosine schedule: t_k = 1 - cos(pi k / 2 N), fine steps first.
        times = 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=self.device) * (0.5 * math.pi))
        self._spans: list[float] = times.diff().tolist()
        self.pool = FlowPool(
            net.config,
            steps=steps,
            slots=slots,
            prompt_tokens=prompt_tokens,
            device=self.device,
            dtype=self.dtype,
        )
        self._recorded: dict[tuple[int, int], Recorded[Tensor]] = {}  # by batch and chunk size
        self._sizes: tuple[int, ...] = ()  # of the recorded chunks, rising
        self._span = 0  # history that they reach, tokens
        with torch.inference_mode():
            self._modulation = net.decoder.estimator.modulation(times[:-1])
            self._encoder = ChunkEncoder(net.encoder, self.pool)
            self._solver = ChunkSolver(
                net.decoder.estimator, self.pool, times=times, guidance=net.config.guidance
            )

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        steps: int = ODE_STEPS,
        slots: int = SLOTS,
        prompt_tokens: int = PROMPT_TOKENS,
    ) -> Flow:
        """Reads flow.yaml and flow.pt of a token2wav folder; nothing in either is executed.

        Raises:
            CheckpointError: a file is missing or damaged, or a size or a tensor is not as it must be.
        """
        folder = Path(folder)
        net = FlowNet(FlowConfig.from_file(folder / "flow.yaml"))
        load_strictly(net, read_weights(folder / "flow.pt"), source=str(folder / "flow.pt"))
        return cls(net.to(device=device, dtype=dtype), steps=steps, slots=slots, prompt_tokens=prompt_tokens)

    @property
    def lookahead(self) -> int:
        """Tokens at the end of every chunk but the last that are only looked at."""
        return self.net.config.encoder.lookahead

    @property
    def stride(self) -> int:
        """Mel frames per token."""
        return self.net.config.encoder.stride

    @torch.inference_mode()
    def prepare(self, voice: VoicePrompt) -> FlowPrompt:
        """Runs a voice's prompt through the networks: about as much work as speaking it. Do it once per voice.

        Raises:
            InputError: the prompt is shorter than the look-ahead, or its mel does not fit its tokens.
        """
        tokens = self._tokens(voice.tokens)
        count = tokens.shape[1]
        if count < self.lookahead:
            raise InputError(
                f"a voice prompt of {count} tokens is too short.",
                code="audio_too_short",
                remedy="Use a prompt recording of at least one second.",
            )
        mel = self._prompt_mel(voice, count)
        # What follows the prompt is not known yet; its own beginning stands in for the look-ahead, as in the reference.
        ahead = torch.cat([tokens, tokens[:, : self.lookahead]], dim=1)
        speaker = self.net.speaker(self._vector(voice))
        room, desk = self.pool.take_prompt(count), self.pool.desk
        self.pool.clear(desk)
        self.pool.speakers[desk] = speaker[0]
        place = Place(desk, 0, count, ahead.shape[1], count, room.start, is_prompt=True)
        packed = torch.tensor([(*place.row(self.pool), *ahead[0].tolist())]).to(self.device)
        noise = frame_noise(_PROMPT_SEED, 0, len(mel))[None].to(self.device)
        self._compute(packed, span=0, noise=noise, condition=mel[None])
        tails = self.pool.tails_of(desk)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # others may read it on streams of their own
        return FlowPrompt(count, speaker[0], room, tails)

    @torch.inference_mode()
    def open(self, voice: VoicePrompt | FlowPrompt, *, seed: int = 0) -> FlowState:
        """A new stream. Given a prepared prompt it costs nothing yet; given a voice it prepares it first.

        Raises:
            CapacityError: as many streams are open as there is room for.
        """
        prompt = voice if isinstance(voice, FlowPrompt) else self.prepare(voice)
        return FlowState(prompt, self.pool, self.pool.take(), seed)

    def step(
        self, tokens: Tensor | Sequence[int], state: FlowState, *, last: bool, noise: Tensor | None = None
    ) -> tuple[Tensor, FlowState]:
        """The next mel frames of a stream.

        A chunk that is not the last holds n new tokens and then `lookahead` more, which give no frames now and must be
        the first of the next call: with a look-ahead of 3, feed tokens[0:28], then [25:53], ... Chunks may differ in
        size. The last chunk is all that remains, any number, and needs no look-ahead.

        Args:
            tokens: (n + lookahead,) integers, or (n,) for the last chunk.
            state: of this stream; changed in place.
            last: no more tokens follow; the stream gives its memory back.
            noise: (2 n, 80) to use instead of the stream's own.

        Returns:
            mel (80, 2 n) float32, and the state.

        Raises:
            InputError: a token outside the vocabulary, too few tokens, or the stream has ended.
        """
        return self.advance([FlowChunk(tokens, state, last, noise)])[0], state

    @torch.inference_mode()
    def advance(self, chunks: Sequence[FlowChunk]) -> list[Tensor]:
        """The next mel frames of several streams, none of them twice, in as few passes as their sizes allow.

        Returns:
            (80, 2 n) float32 for every chunk; see `step`.

        Raises:
            InputError: as of `step`, for any of them, and then no stream has moved.
        """
        checked = [(chunk, *self._check(chunk)) for chunk in chunks]
        mels = [torch.zeros(MEL_BANDS, 0, device=self.device) for _ in chunks]
        passes: dict[int, list[int]] = {}
        largest = max((self._size(*it) for it in checked), default=0)
        for i, it in enumerate(checked):
            if it[2]:
                # Filling up costs less than another pass.
                passes.setdefault(largest if self._size(*it) else it[2], []).append(i)
        for size, members in passes.items():
            for first in range(0, len(members), BUCKETS[-1]):
                group = members[first : first + BUCKETS[-1]]
                made = self._pass([checked[i] for i in group], size)
                for i, mel in zip(group, made, strict=True):
                    mels[i] = mel[: self.stride * checked[i][2]].T
        for chunk in chunks:
            if chunk.last:
                chunk.state.close()
        return mels

    @torch.inference_mode()
    def record(self, sizes: Sequence[int], *, buckets: Sequence[int] = BUCKETS) -> None:
        """Records passes over chunks of up to so many tokens as CUDA graphs, for the longest prompt known by now.

        A chunk then takes part in the pass of the next larger size. Chunks with noise of their own, larger ones, and
        those after longer prompts are still computed, launch by launch; so is everything where the flow does not run
        on kernels of ours (in float32, or at widths that they do not know).
        """
        if not self._solver.recordable:
            return
        top = max(sizes) + self.lookahead  # what a last chunk may hold
        self._sizes = tuple(sorted({*sizes, top}))
        self._span = RECENT_TOKENS + max(self.pool.longest_prompt, _PROMPT_AHEAD)
        with on(self.device):
            memory = torch.cuda.graph_pool_handle()
            for size in reversed(self._sizes):
                span = self._span + -(self._span + size) % 8  # attention wants keys in eights
                for batch in sorted(buckets, reverse=True):
                    inputs = torch.tensor([self._idle(size)] * batch).to(self.device)
                    compute = partial(self._compute, span=span)
                    self._recorded[batch, size] = Recorded(compute, [inputs], memory)
            torch.cuda.empty_cache()  # what choosing algorithms took

    def _size(self, chunk: FlowChunk, _: Sequence[int], new: int) -> int:
        """The recorded size that a chunk of `new` tokens fits into; 0: none."""
        if chunk.noise is not None or chunk.state.prompt.tokens + RECENT_TOKENS > self._span:
            return 0
        return next((size for size in self._sizes if size >= new), 0)

    def _idle(self, size: int) -> tuple[int, ...]:
        """A row that fills up a batch: a chunk of nobody's."""
        place = Place(self.pool.nobody, 0, size, size, 0, 0)
        return *place.row(self.pool), *[0] * (size + self.lookahead)

    def _check(self, chunk: FlowChunk) -> tuple[list[int], int]:
        """The chunk's tokens, n or n + lookahead, and n; raises what `step` raises."""
        if chunk.state.finished:
            raise InputError("this speech stream has ended.", remedy="Open a new one.")
        tokens = self._ids(chunk.tokens)
        new = len(tokens) - (0 if chunk.last else self.lookahead)
        if new < (0 if chunk.last else 1):
            raise InputError(f"a chunk that is not the last needs more than {self.lookahead} tokens.")
        return tokens, new

    def _pass(self, parts: Sequence[tuple[FlowChunk, list[int], int]], size: int) -> Tensor:
        """(B, 2 size, 80) mel of streams whose chunks have up to `size` new tokens."""
        rows, noises = [], []
        for chunk, tokens, new in parts:
            state, prompt, made = chunk.state, chunk.state.prompt, chunk.state.frames // self.stride
            if not made:  # here, so that it happens on the stream of the device on which the rest happens
                self.pool.begin(state.slot.start, prompt.tails, prompt.speaker)
            place = Place(
                state.slot.start, made, new, len(tokens), prompt.tokens, prompt.room.start, state.seed
            )
            rows.append((*place.row(self.pool), *tokens, *[0] * (size + self.lookahead - len(tokens))))
            if chunk.noise is not None:
                noises.append(chunk.noise)
            elif self.device.type == "cpu":
                start = prompt.tokens * self.stride + state.frames
                noises.append(frame_noise(state.seed, start, self.stride * size))
        batch = min((b for b, s in self._recorded if s == size and b >= len(rows)), default=0)
        if batch and not noises:
            recorded = self._recorded[batch, size]
            rows += [self._idle(size)] * (batch - len(rows))
            recorded.inputs[0].copy_(torch.tensor(rows).pin_memory(), non_blocking=True)
            with on(self.device):
                mel = recorded()[: len(parts)].clone()
        else:
            span = max(
                c.state.prompt.tokens + min(c.state.frames // self.stride, RECENT_TOKENS) for c, _, _ in parts
            )
            noise = torch.stack(noises).to(self.device, torch.float32) if noises else None
            mel = self._compute(torch.tensor(rows).to(self.device), span=span, noise=noise)
        for chunk, _, new in parts:
            chunk.state.frames += self.stride * new
        return mel

    def _compute(
        self, packed: Tensor, *, span: int, noise: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """One pass.

        Args:
            packed: (B, 12 + n + lookahead) int64 the places' rows and the tokens.
            span: longest history, in tokens.
            noise: (B, 2 n, 80); made on the device if not given.
            condition: (B, 2 n, 80); zero if not given.

        Returns:
            (B, 2 n, 80) mel.
        """
        with on(self.device):
            return self._computed(packed, span, noise, condition)

    def _computed(self, packed: Tensor, span: int, noise: Tensor | None, condition: Tensor | None) -> Tensor:
        columns = len(COLUMNS)
        places, tokens = Places(packed[:, :columns].contiguous(), self.stride), packed[:, columns:]
        mu = self.net.encoder_proj(self._encoder(self.net.input_embedding(tokens), places, span=span))
        speakers = self.pool.speakers[places.column("slot")][:, None].expand_as(mu)
        known = torch.cat([mu, speakers, torch.zeros_like(mu) if condition is None else condition], dim=2)
        if noise is None:
            first = (places.column("prompt") + places.column("made")) * (self.stride * MEL_BANDS)
            noise = stream_noise(places.column("seed"), first, mu[0].numel(), lane=_LANE).view(mu.shape)
        return self._solver(known, noise, places)

    @torch.inference_mode()
    def infer(
        self,
        tokens: Tensor | Sequence[int],
        voice: VoicePrompt,
        *,
        seed: int = 0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """A whole utterance at once: every frame sees every other. Differs a little from the same tokens streamed.

        Args:
            tokens: (n,) integers.
            voice: the prompt that the utterance continues.
            seed: of the noise; the same frames get the same noise as in a stream with this seed.
            noise: (2 (prompt + n), 80) to use instead.

        Returns:
            mel (80, 2 n) float32.

        Raises:
            InputError: a token outside the vocabulary, or the prompt's mel does not fit its tokens.
        """
        prompt = self._tokens(voice.tokens)
        chunk = self._tokens(tokens)
        if chunk.shape[1] == 0:
            return torch.zeros(MEL_BANDS, 0, device=self.device)
        mu, _ = self.net.mu(torch.cat([prompt, chunk], dim=1))
        condition = torch.zeros_like(mu[0])
        mel = self._prompt_mel(voice, prompt.shape[1])
        start = mel.shape[0]
        condition[:start] = mel
        if noise is None:
            noise = torch.cat(
                [frame_noise(_PROMPT_SEED, 0, start), frame_noise(seed, start, mu.shape[1] - start)]
            )
        speaker = self.net.speaker(self._vector(voice))[0]
        return self._solve(mu[0], speaker, condition, noise)[start:].T

    def _solve(self, mu: Tensor, speaker: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """A whole utterance: all (T, 80) but speaker (80,). Returns mel (T, 80) float32."""
        frames, guidance = mu.shape[0], self.net.config.guidance
        # Row 0 knows mu, speaker and condition; row 1 sees zeros in their place.
        inputs = mu.new_zeros(2, frames, 4 * MEL_BANDS)
        inputs[0, :, MEL_BANDS:] = torch.cat([mu, speaker.expand_as(mu), condition], dim=1)
        x = noise.to(device=self.device, dtype=torch.float32)
        for k, span in enumerate(self._spans):
            inputs[:, :, :MEL_BANDS] = x
            velocity = self.net.decoder.estimator(inputs, self._modulation.row(k)).float()
            x = x + span * ((1 + guidance) * velocity[0] - guidance * velocity[1])
        return x

    def _tokens(self, tokens: Tensor | Sequence[int] | NDArray[Any]) -> Tensor:
        """(n,) -> (1, n) int64 on our device."""
        return torch.tensor([self._ids(tokens)], dtype=torch.int64).to(self.device)

    def _ids(self, tokens: Tensor | Sequence[int] | NDArray[Any]) -> list[int]:
        """(n,) as numbers, all of which the table has."""
        ids = tokens.tolist() if isinstance(tokens, Tensor | np.ndarray) else list(tokens)
        vocabulary = self.net.config.vocab_size
        # An id outside the table would be a device-side assert on a GPU, which ends the process.
        if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InputError(f"a speech token is outside 0 to {vocabulary - 1}.", param="tokens")
        return [int(i) for i in ids]

    def _prompt_mel(self, voice: VoicePrompt, tokens: int) -> Tensor:
        mel = torch.as_tensor(voice.mel)
        if tuple(mel.shape) != (tokens * self.stride, MEL_BANDS):
            raise InputError(
                f"the voice's mel has the shape {tuple(mel.shape)}, not ({tokens * self.stride}, {MEL_BANDS}).",
                param="voice",
            )
        return mel.to(device=self.device, dtype=self.dtype)

    def _vector(self, voice: VoicePrompt) -> Tensor:
        """(1, 192)"""
        vector = torch.as_tensor(voice.speaker).to(device=self.device, dtype=self.dtype)
        if tuple(vector.shape) != (self.net.config.speaker_size,):
            raise InputError(
                f"the voice's speaker vector has the shape {tuple(vector.shape)}.", param="voice"
            )
        return vector[None]
