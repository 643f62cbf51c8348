"""What the model holds of one conversation: encoded audio, and the slots whose keys and values are in the pages.

It knows no reply, no sampling and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from voiceagent.core.history import Piece
from voiceagent.errors import EngineError, InputError
from voiceagent.models.step_audio2.kv import KvPool
from voiceagent.models.step_audio2.lm import Chunk
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.prompt import AudioRow, Slot
from voiceagent.models.step_audio2.read import SIZES, Reader


class Context:
    """One conversation. `slots` and the pages always agree, also after an error.

    Not for two threads at once. `close` it at the end.

    Args:
        network: the model.
        pool: keys and values of all conversations.
        reader: the pass over new positions.
        patch: id of `<audio_patch>`, which stands under the rows of heard audio.

    Attributes:
        version: grows whenever the slots become those of another prompt; an older reply must not go on.
        sequence: the pages.
    """

    def __init__(self, network: StepAudio2, pool: KvPool, *, reader: Reader, patch: int) -> None:
        self.version = 0
        self.sequence = pool.open()
        self._network, self._pool, self._reader, self._patch = network, pool, reader, patch
        self._rows: dict[int, Tensor] = {}
        self._slots: list[Slot] = []
        self._early: int | None = None  # where that begins which was read ahead of its prompt

    def __del__(self) -> None:
        self.sequence.free()  # a conversation that was dropped without `close` must not keep its pages

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The positions that are held."""
        return tuple(self._slots)

    @property
    def max_positions(self) -> int:
        """Prompt and reply together may not be longer than this."""
        return self._network.config.text.max_position_embeddings

    # --- heard audio --------------------------------------------------------------------------------------------

    def holds(self, piece_id: int) -> bool:
        """Whether a piece is encoded."""
        return piece_id in self._rows

    @torch.inference_mode()
    def encode(self, piece: Piece) -> None:
        """Encodes a piece, once; cheap to call again. `LanguageModel.encode` does many at once.

        Raises:
            InputError: the piece is longer than 25 s.
        """
        if not self.holds(piece.id):
            self.put(piece.id, self._network.encode_audio(torch.tensor(piece.audio)))

    def put(self, piece_id: int, rows: Tensor) -> None:
        """Takes the rows of an encoded piece."""
        self._rows[piece_id] = rows

    def discard(self, piece_id: int) -> None:
        """Frees the rows of a piece that no prompt will name again."""
        self._rows.pop(piece_id, None)

    # --- positions ----------------------------------------------------------------------------------------------

    def read_prefix(self, slots: Sequence[Slot], *, positions: int | None = None) -> bool:
        """Makes the context hold the beginning of `slots`, and nothing else; cheap if it does already.

        May be called early with the beginning of a prompt, so that less is left to do when the person stops talking;
        a reply in the making is superseded.

        Args:
            slots: what a prompt will begin with.
            positions: compute so many at most; None for all.

        Returns:
            Whether all of them are held.

        Raises:
            InputError: there are more slots than the model has positions (code "context_full").
            EngineError: an audio row's piece was not encoded, or there is no slot.
            CapacityError: the pages do not suffice (code "kv_full").
        """
        kept = self.begin(slots, keep=len(slots))
        self._early = kept if self._early is None else self._early
        self.read(slots, positions=len(slots) if positions is None else positions)
        return len(self._slots) == len(slots)

    def begin(self, slots: Sequence[Slot], *, keep: int) -> int:
        """Keeps up to `keep` positions that `slots` begins with, drops the rest, and reserves pages for all slots.

        Returns:
            The number of positions kept.

        Raises:
            InputError, EngineError, CapacityError: as `read_prefix`.
        """
        if len(slots) >= self.max_positions:
            raise InputError(
                f"The conversation takes {len(slots)} positions and the model has {self.max_positions}.",
                code="context_full",
                remedy="Delete older items or start a new session.",
            )
        missing = {slot.piece for slot in slots if isinstance(slot, AudioRow)} - self._rows.keys()
        if missing or not slots:
            raise EngineError(
                f"The audio pieces {sorted(missing)} were not encoded."
                if missing
                else "The prompt is empty.",
                code="bad_prompt",
            )
        self.version += 1
        self.truncate(min(_common(self._slots, slots), keep))
        self.sequence.reserve(len(slots))
        return len(self._slots)

    def take_early(self) -> int:
        """How many of the positions held were read ahead, since the last prompt; the next call begins to count anew."""
        early, self._early = self._early, None
        return 0 if early is None else max(0, len(self._slots) - early)

    @torch.inference_mode()
    def read(self, slots: Sequence[Slot], *, positions: int) -> None:
        """Computes up to `positions` more of the slots that `begin` was called with; those held are its first ones."""
        stop = min(len(slots), len(self._slots) + positions)
        while len(self._slots) < stop:
            part = slots[len(self._slots) : min(stop, len(self._slots) + SIZES[-1])]
            self.sequence.reserve(len(self._slots) + len(part))
            embeds = self._embed(part)
            self._reader.read(embeds, self.sequence)
            self._slots += part

    @torch.inference_mode()
    def scores(self, slots: Sequence[Slot], *, last: int) -> Tensor:
        """(last, vocabulary) scores of what follows each of the last of these slots, all of which it holds then.

        Raises:
            InputError, EngineError, CapacityError: as `read_prefix`.
        """
        self.begin(slots, keep=len(slots) - last)
        self.read(slots[:-last], positions=len(slots))
        model = self._network.model
        self.sequence.reserve(len(slots))
        new = Chunk.after(self.sequence, last, pool=self._pool, rotary=model.tables)
        states = model.extend(self._embed(slots[-last:]), new)
        self.hold(slots[-last:])
        return self._network.scores(states)

    def hold(self, slots: Sequence[Slot]) -> None:
        """Counts slots whose keys and values have been written."""
        self.sequence.advance(len(slots))
        self._slots += slots

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on.

        Raises:
            ValueError: `length` is negative or beyond what is held.
        """
        self.sequence.truncate(length)
        del self._slots[length:]
        if self._early is not None:
            self._early = min(self._early, length)

    # --- other contexts -----------------------------------------------------------------------------------------

    def fork(self) -> Context:
        """An independent context that holds the same; nothing is copied until one of the two goes on."""
        twin = self.blank()
        twin.sequence = self.sequence.fork()
        twin._slots, twin.version = list(self._slots), self.version
        return twin

    def blank(self) -> Context:
        """An empty context that has the same audio encoded."""
        twin = Context(self._network, self._pool, reader=self._reader, patch=self._patch)
        twin._rows = dict(self._rows)
        return twin

    def close(self) -> None:
        """Frees everything; a reply in the making is superseded. May be called again."""
        self.version += 1
        self.truncate(0)
        self._rows.clear()

    def _embed(self, slots: Sequence[Slot]) -> Tensor:
        """(n, hidden) input embeddings: token embeddings, overwritten by the rows of heard audio."""
        ids = [self._patch if isinstance(slot, AudioRow) else slot for slot in slots]
        weight = self._network.lm_head.weight
        numbers = torch.tensor(ids)
        # An id outside the table would be a device-side assert on a GPU, which ends the process.
        if int(numbers.min()) < 0 or int(numbers.max()) >= weight.shape[0]:
            raise InputError(
                f"The prompt holds a token id outside 0 to {weight.shape[0] - 1}.",
                code="token_out_of_range",
                param="items",
            )
        embeds = self._network.embed(numbers.to(weight.device, non_blocking=True))
        heard = [(at, slot) for at, slot in enumerate(slots) if isinstance(slot, AudioRow)]
        for (piece, row_behind), run in groupby(
            heard, key=lambda pair: (pair[1].piece, pair[1].row - pair[0])
        ):
            first, *rest = (at for at, _ in run)
            stop = first + len(rest) + 1
            embeds[first:stop] = self._rows[piece][first + row_behind : stop + row_behind]
        return embeds


def _common(held: Sequence[Slot], wanted: Sequence[Slot]) -> int:
    """Length of the common beginning."""
    for at, (left, right) in enumerate(zip(held, wanted, strict=False)):
        if left != right:
            return at
    return min(len(held), len(wanted))
