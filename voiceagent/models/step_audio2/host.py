"""One new position of each of a few sequences, on the CPU; it knows no weights.

There, a small network's pass costs as much for calling operations as for computing. So everything that layers have in
common is prepared once: the views of all pages that will be read and written, and the rotation of every head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.models.step_audio2.kernels import paged
from voiceagent.models.step_audio2.kernels.sums import Sums
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence


class HostStep:
    """Stands where `lm.Step` stands on a GPU, for the same places of the same pool.

    Args:
        new: sequences and the position of each that is new; what lies before is held or was begun.
        pool: the pages, on the CPU.
        rotary: tables of cosines and signed sines, (positions, head_dim).
        heads: of the queries.
    """

    def __init__(
        self,
        new: Sequence[tuple[KvSequence, int]],
        pool: KvPool,
        *,
        rotary: tuple[Tensor, Tensor],
        heads: int,
    ) -> None:
        places = pool.tensor.flatten(2, 3)  # (layers, 2, places, kv_heads, head_dim)
        count, kv_heads, width = places.shape[2:]
        self._pool, self._shape, self._heads = (
            pool.tensor,
            (len(new), heads + 2 * kv_heads, width),
            heads,
        )
        self._groups = (1, kv_heads, heads // kv_heads, width)
        self._cos, self._sin = self._rotation(
            rotary, torch.tensor([at for _, at in new]), turned=heads + kv_heads
        )
        at = torch.tensor([sequence.place(position) for sequence, position in new])
        self._at = (torch.stack([at, at + count], dim=1),)  # (N, 2): where keys and values go
        self._layers = places.flatten(1, 2).unbind(0)
        self._histories = [self._history(sequence, places, position + 1) for sequence, position in new]

    def _rotation(
        self, rotary: tuple[Tensor, Tensor], positions: Tensor, *, turned: int
    ) -> tuple[Tensor, Tensor]:
        """Cosine and sine of every head; the values' heads are turned by nothing."""
        cos, sin = torch.ones(self._shape), torch.zeros(self._shape)
        cos[:, :turned] = rotary[0][positions][:, None]
        sin[:, :turned] = rotary[1][positions][:, None]
        return cos, sin

    @staticmethod
    def _history(
        sequence: KvSequence, places: Tensor, length: int
    ) -> tuple[Tensor, ...] | tuple[Tensor, int]:
        """Views of keys and values of all layers; or, of pages that do not follow each other, their numbers."""
        pages = sequence.pages[: -(-length // PAGE)]
        if pages != list(range(pages[0], pages[0] + len(pages))):
            return torch.tensor(pages), length
        held = places[:, :, None, pages[0] * PAGE : pages[0] * PAGE + length].transpose(3, 4)
        return held.flatten(0, 1).unbind(0)

    def rotate(self, qkv: Tensor | Sums, layer: int) -> Tensor:
        """Turns queries and keys and stores keys and values; (N, heads, head_dim) queries."""
        assert isinstance(qkv, Tensor), "products come whole on a CPU"
        split = qkv.view(self._shape)
        turned = torch.addcmul(split * self._cos, split.roll(self._shape[2] // 2, -1), self._sin)
        keys_values = turned[:, self._heads :].view(len(turned), 2, -1, self._shape[2])
        self._layers[layer].index_put_(self._at, keys_values.to(self._pool.dtype))
        return turned[:, : self._heads]

    def attend(self, q: Tensor, layer: int) -> Tensor:
        """(N, heads, head_dim) queries to (N, heads * head_dim) mixed values."""
        mixed = []
        for one, history in zip(q.to(self._pool.dtype).unbind(0), self._histories, strict=True):
            if isinstance(history[1], int):
                keys, values = (
                    part[None] for part in paged.gather(self._pool, layer, history[0], history[1])
                )
            else:
                keys, values = history[2 * layer], history[2 * layer + 1]
            # The query heads of a group stand in for query positions: no key has to be repeated.
            mixed.append(F.scaled_dot_product_attention(one.view(self._groups), keys, values).flatten(1))
        return mixed[0].view(1, -1) if len(mixed) == 1 else torch.cat(mixed).view(len(mixed), -1)
