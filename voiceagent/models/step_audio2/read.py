"""Reads new positions of one conversation into the pages; it knows no slot and no reply.

On CUDA, passes over few positions are captured as graphs: there, calling the operations one by one takes longer than
computing them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.models.step_audio2.graphs import Captured, capture
from voiceagent.models.step_audio2.kernels import fused
from voiceagent.models.step_audio2.kernels.chunk import chunk_attention
from voiceagent.models.step_audio2.kernels.sums import Sums
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence
from voiceagent.models.step_audio2.lm import Chunk
from voiceagent.models.step_audio2.model import StepAudio2

SIZES = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Numbers of new positions for which a graph is captured; a pass is padded to the next larger one."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """As `lm.Chunk`, with nothing that the host must know: (N,) positions and places, (pages,) table, (N,) lengths."""

    positions: Tensor
    places: Tensor
    table: Tensor
    lengths: Tensor
    pool: Tensor
    rotary: tuple[Tensor, Tensor]

    def rotate(self, qkv: Tensor | Sums, layer: int) -> Tensor:
        return fused.rotate_and_write(qkv, *self.rotary, self.positions, self.pool, layer, self.places)

    def attend(self, q: Tensor, layer: int) -> Tensor:
        return chunk_attention(q, self.pool, layer, self.table, self.lengths).flatten(1)


class Reader:
    """The pass over new positions of one sequence.

    Args:
        network: the model.
        pool: keys and values of all conversations.
    """

    def __init__(self, network: StepAudio2, pool: KvPool) -> None:
        self._network, self._pool = network, pool
        self._device = pool.tensor.device
        self._pages = -(-network.config.text.max_position_embeddings // PAGE)
        self._graphs: dict[int, tuple[Captured, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def read(self, embeds: Tensor, sequence: KvSequence) -> None:
        """Stores keys and values of (N, hidden) embeddings behind what the sequence holds, and advances it.

        Room for them must be reserved.
        """
        for part in torch.split(embeds, SIZES[-1]):
            count = len(part)
            if self._graphs:
                size = next(size for size in SIZES if size >= count)
                graph, inputs, numbers = self._graphs[size]
                inputs[:count].copy_(part)
                # From memory that is not page-locked it is read before the call returns.
                numbers.copy_(torch.from_numpy(self._pack(sequence, count, size=size)), non_blocking=True)
                graph()
            else:
                model = self._network.model
                model.fill(part, Chunk.after(sequence, count, pool=self._pool, rotary=model.tables))
            sequence.advance(count)

    @torch.inference_mode()
    def capture(self, *, share: Captured | None = None, told: Callable[[], None] = lambda: None) -> None:
        """Captures the pass for all `SIZES`, on CUDA; `share` as in `graphs.capture`, `told` is called after each."""
        self._graphs.clear()
        weight = self._network.lm_head.weight
        found = {}
        fed = {
            size: (
                torch.zeros(size, weight.shape[1], dtype=weight.dtype, device=self._device),
                torch.from_numpy(self._pack(None, 0, size=size)).to(self._device),
            )
            for size in reversed(SIZES)
        }
        from voiceagent.models.step_audio2.kernels.gpu import language

        language.compile_ahead(lambda: [self._compute(*both) for both in fed.values()])
        for size, (inputs, numbers) in fed.items():

            def work(inputs: Tensor = inputs, numbers: Tensor = numbers) -> Tensor:
                return self._compute(inputs, numbers)

            share = capture(work, device=self._device, share=share)
            found[size] = (share, inputs, numbers)
            told()
        self._graphs = found

    def _compute(self, embeds: Tensor, numbers: Tensor) -> Tensor:
        size, model = len(embeds), self._network.model
        positions, places, lengths = numbers[: 3 * size].view(3, size)
        new = _Slice(
            positions.long(), places.long(), numbers[3 * size :], lengths, self._pool.tensor, model.tables
        )
        model.fill(embeds, new)
        return embeds

    def _pack(self, sequence: KvSequence | None, count: int, *, size: int) -> NDArray[np.int32]:
        """Positions, places and lengths of `size` rows, of which `count` are real, and the pages."""
        packed: NDArray[np.int32] = np.zeros(3 * size + self._pages, np.int32)
        positions, places, lengths = packed[: 3 * size].reshape(3, size)
        places[:] = -1
        if sequence is not None:
            past = sequence.length
            positions[:count] = np.arange(past, past + count)
            places[:count] = sequence.places(past, past + count)
            lengths[:count] = positions[:count] + 1
            pages = sequence.pages[: self._pages]
            packed[3 * size : 3 * size + len(pages)] = pages
        return packed
