"""One token for each of many replies in one pass; it knows no prompt, no limit and no stop.

Everything that a pass reads from the host is packed into one tensor, and everything that it says comes back in one.
On CUDA the pass is captured as a graph for a few batch sizes, and a batch takes the next larger graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.graphs import Captured, capture
from voiceagent.models.step_audio2.host import HostStep
from voiceagent.models.step_audio2.kernels import sample
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence
from voiceagent.models.step_audio2.lm import New, Step
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.sampling import Sampling

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128)
"""Batch sizes for which a graph is captured."""

_REPLIES = 512  # open at the same time, whether or not they are written in the same pass

# Rows of the packed input: one number per sequence each, the last four as bits of float32. Pages follow.
_ID, _POSITION, _PLACE, _LENGTH, _ROW, _ALLOWED, _TOP_K, _TEMPERATURE, _TOP_P, _PENALTY, _UNIFORM = range(11)
_FIELDS = 11
_IDLE = {_PLACE: -1, _TOP_P: 0x3F800000, _PENALTY: 0x3F800000}  # 1.0 as bits


@dataclass(frozen=True, slots=True)
class Next:
    """What one sequence contributes to a pass.

    Attributes:
        row: from `Decoder.open`.
        sequence: its past; room for the new position is reserved.
        position: the new position: the sequence's length, or one more where a pass that was begun comes first.
        token: the id at the new position; None for what that pass chooses.
        uniform: random number in [0, 1) for the choice of what follows.
        allowed: which of the masks holds for that choice.
    """

    row: int
    sequence: KvSequence
    position: int
    token: int | None
    uniform: float
    allowed: int


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured pass and its input."""

    replay: Captured
    host: NDArray[np.int32]  #: page-locked memory that is copied to `inputs`
    pinned: Tensor  #: the same memory
    inputs: Tensor
    sent: torch.cuda.Event  #: comes after the last copy


@dataclass(slots=True)
class Flight:
    """A pass that was begun: where its ids come to lie on the host, and what tells that they are there."""

    chosen: Tensor
    done: torch.cuda.Event | None
    ids: list[int] | None = None

    def wait(self) -> list[int]:
        """The ids of all rows; -1 where the scores are not numbers."""
        if self.ids is None:
            if self.done is not None:
                self.done.synchronize()
            self.ids = self.chosen.tolist()
        return self.ids


@dataclass(frozen=True, slots=True)
class Ticket:
    """One sequence's place in a pass that was begun."""

    flight: Flight
    at: int

    def token(self) -> int | None:
        """Waits for the pass: the chosen id, or None where the scores are not numbers."""
        token = self.flight.wait()[self.at]
        return None if token < 0 else token


class Decoder:
    """The batched decoding pass of one model, with what it keeps of each reply on the device.

    Args:
        network: the model.
        pool: keys and values of all conversations.
        masks: (n, vocabulary) bool on the device, sets of ids that may be chosen.
        rows: replies that may be open at the same time.
        largest: sequences of one pass at most.

    Attributes:
        ahead: whether passes run beside the host, so that it pays to begin the next one before one has ended.
    """

    def __init__(
        self,
        network: StepAudio2,
        pool: KvPool,
        masks: Tensor,
        *,
        rows: int = _REPLIES,
        largest: int = BUCKETS[-1],
    ) -> None:
        self._network, self._pool, self._masks = network, pool, masks
        self.largest, self.ahead = largest, False
        self._device = masks.device
        self._pages = -(-network.config.text.max_position_embeddings // PAGE)
        self._free = list(range(rows, 0, -1))  # row 0 is for idle places of a batch
        self._seen = torch.zeros(rows + 1, masks.shape[1], dtype=torch.bool, device=self._device)
        self._last = torch.zeros(rows + 1, dtype=torch.int64, device=self._device)  # what each row was given
        self._true = torch.ones((), dtype=torch.bool, device=self._device)
        self._settings: NDArray[np.int32] = np.zeros((rows + 1, _FIELDS), np.int32)
        for field, value in _IDLE.items():
            self._settings[:, field] = value
        self._tables: NDArray[np.int32] = np.zeros((rows + 1, self._pages), np.int32)
        self._changes = [-1] * (rows + 1)  # of the sequence's pages, when the row's table was written
        self._graphs: dict[int, _Graph] = {}

    # --- replies ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def open(self, sampling: Sampling, *, seen: Iterable[int]) -> int:
        """A row for a reply; `close` it at the end.

        Args:
            sampling: how to choose.
            seen: ids that the repetition penalty counts from the start.

        Raises:
            CapacityError: as many replies are open as there may be (code "replies_full").
        """
        row = self._take()
        settings = self._settings[row]
        settings[_ROW], settings[_TOP_K] = row, min(sampling.top_k, 2**31 - 1)
        settings[[_TEMPERATURE, _TOP_P, _PENALTY]] = np.array(
            [sampling.temperature, sampling.top_p, sampling.repetition_penalty], np.float32
        ).view(np.int32)
        self._seen[row] = False
        if sampling.repetition_penalty != 1.0:
            ids = torch.tensor(sorted(set(seen)), dtype=torch.int64).to(self._device, non_blocking=True)
            self._seen[row].index_fill_(0, ids, True)
        return row

    def close(self, row: int) -> None:
        """Gives a row back."""
        self._free.append(row)

    def _take(self) -> int:
        if not self._free:
            raise CapacityError(
                f"{len(self._seen) - 1} replies are being written at the same time.",
                code="replies_full",
                remedy="Try again when another reply has ended.",
            )
        row = self._free.pop()
        self._changes[row] = -1
        return row

    # --- passes -------------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[Next]) -> list[int | None]:
        """The chosen id of each sequence; None where its scores are not numbers.

        Keys and values are written; the caller advances the sequences.
        """
        return [ticket.token() for ticket in self.launch(batch)]

    @torch.inference_mode()
    def launch(self, batch: Sequence[Next]) -> list[Ticket]:
        """Begins `step` and does not wait for it; what is called later on the same stream comes after it."""
        tickets: list[Ticket] = []
        for start in range(0, len(batch), self.largest):
            part = batch[start : start + self.largest]
            flight = self._run(part)
            tickets += (Ticket(flight, at) for at in range(len(part)))
        return tickets

    def _run(self, batch: Sequence[Next]) -> Flight:
        size = next((size for size in sorted(self._graphs) if size >= len(batch)), None)
        if size is None:
            pages = max(one.position // PAGE + 1 for one in batch)
            packed: NDArray[np.int32] = np.empty(len(batch) * (_FIELDS + pages), np.int32)
            self._pack(batch, packed, size=len(batch))
            inputs = torch.from_numpy(packed).to(self._device)
            return Flight(self._compute(inputs, len(batch), self._host_step(batch)), None)
        captured = self._graphs[size]
        captured.sent.synchronize()  # the last copy out of the page-locked memory has been made
        self._pack(batch, captured.host, size=size)
        captured.inputs.copy_(captured.pinned, non_blocking=True)
        captured.sent.record()
        chosen = torch.empty(size, dtype=torch.int32, pin_memory=True)
        chosen.copy_(captured.replay(), non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return Flight(chosen, done)

    def _host_step(self, batch: Sequence[Next]) -> HostStep | None:
        if self._device.type != "cpu":
            return None
        model = self._network.model
        heads = model.config.num_attention_heads
        places = [(one.sequence, one.position) for one in batch]
        return HostStep(places, self._pool, rotary=model.tables, heads=heads)

    def _pack(self, batch: Sequence[Next], packed: NDArray[np.int32], *, size: int) -> None:
        """Writes `size` numbers of each field, then as many pages of each sequence as there is room for."""
        fields, tables = packed[: _FIELDS * size].reshape(_FIELDS, size), packed[_FIELDS * size :]
        count, rows = len(batch), [one.row for one in batch]
        for one in batch:
            if one.sequence.changes != self._changes[one.row]:
                pages = one.sequence.pages[: self._pages]
                self._tables[one.row, : len(pages)] = pages
                self._changes[one.row] = one.sequence.changes
        tables = tables.reshape(size, -1)
        tables[:count] = self._tables[rows, : tables.shape[1]]
        fields[:, :count] = self._settings[rows].T
        fields[:, count:] = self._settings[0][:, None]
        fields[_ID, :count] = [-1 if one.token is None else one.token for one in batch]
        fields[_POSITION, :count] = [one.position for one in batch]
        fields[_LENGTH, :count] = fields[_POSITION, :count] + 1
        fields[_PLACE, :count] = [one.sequence.place(one.position) for one in batch]
        fields[_ALLOWED, :count] = [one.allowed for one in batch]
        fields[_UNIFORM, :count] = np.array([one.uniform for one in batch], np.float32).view(np.int32)

    def _compute(self, packed: Tensor, size: int, new: HostStep | None = None) -> Tensor:
        """(size,) int32 chosen ids, -1 where the scores are not numbers; `new` is None where `packed` says it all."""
        rows, ids, ok = self._choose(packed, size, new)
        self._seen.index_put_((rows, ids), self._true)
        self._last.index_put_((rows,), ids)
        return torch.where(ok, ids, -1).int()

    def _choose(
        self, packed: Tensor, size: int, new: HostStep | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, ids and whether the scores are numbers, (size,) each."""
        numbers = packed[: _FIELDS * size].view(_FIELDS, size)
        wide = numbers[: _ROW + 1].long()
        real = numbers[_TEMPERATURE:].view(torch.float32)
        network, rows = self._network, wide[_ROW]
        given = torch.where(wide[_ID] < 0, self._last[rows], wide[_ID])
        where: New = new or Step(
            positions=wide[_POSITION],
            places=wide[_PLACE],
            tables=packed[_FIELDS * size :].view(size, -1),
            lengths=numbers[_LENGTH],
            pool=self._pool.tensor,
            rotary=network.model.tables,
        )
        scores = network.scores(network.model.extend(network.embed(given), where))
        ids, ok = sample.choose(
            scores,
            temperature=real[0],
            top_p=real[1],
            top_k=numbers[_TOP_K],
            penalty=real[2],
            seen=self._seen,
            owners=rows,
            masks=self._masks,
            allowed=numbers[_ALLOWED],
            uniform=real[3],
        )
        return rows, ids, ok

    # --- graphs -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def capture(self, sizes: Iterable[int] = BUCKETS, *, told: Callable[[], None] = lambda: None) -> Captured:
        """Captures the pass for some batch sizes, on CUDA; batches beyond the largest are split.

        `told` is called after each.

        Returns:
            One of the captures, whose memory others may share.
        """
        self._graphs.clear()
        share: Captured | None = None
        packed = {size: self._idle(size) for size in sorted(sizes, reverse=True)}
        from voiceagent.models.step_audio2.kernels.gpu import language

        language.compile_ahead(
            lambda: [self._choose(pinned.to(self._device), size) for size, pinned in packed.items()]
        )
        for size, pinned in packed.items():
            inputs = pinned.to(self._device)

            def work(inputs: Tensor = inputs, size: int = size) -> Tensor:
                return self._compute(inputs, size)

            share = capture(work, device=self._device, share=share)
            sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._graphs[size] = _Graph(share, pinned.numpy(), pinned, inputs, sent)
            told()
        assert share is not None, "there is a batch size"
        self.largest, self.ahead = max(self._graphs), True
        return share

    def _idle(self, size: int) -> Tensor:
        """The page-locked input of a pass in which no place is taken."""
        pinned = torch.zeros(size * (_FIELDS + self._pages), dtype=torch.int32, pin_memory=True)
        self._pack((), pinned.numpy(), size=size)
        return pinned
