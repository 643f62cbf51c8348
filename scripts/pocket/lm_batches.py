"""Puts the language model's samples together to batches of similar length. Knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scripts.pocket.features import log
from scripts.pocket.lm_scribe import Sample


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of similar length, right-padded with id 0. Places count through the flattened batch.

    Attributes:
        ids: (B, T) int32.
        learned: (L,) int64 places whose next id is learned; weights: (L,) float32 of that id.
        patches: (P,) int64 places of `<audio_patch>`.
        audio: (N,) int64 numbers of what is heard, in order of appearance; each has its run of patches.
    """

    ids: torch.Tensor
    learned: torch.Tensor
    weights: torch.Tensor
    patches: torch.Tensor
    audio: torch.Tensor

    def pin_memory(self) -> Batch:
        """A copy that the GPU can fetch while the CPU goes on."""
        return Batch(*(getattr(self, name).pin_memory() for name in self.__slots__))


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Endless batches of samples of similar length, at most `tokens` padded tokens each.

    Args:
        draw: one sample, of a generator and the progress of the training (0 to 1).
        patch: id of `<audio_patch>`.
        pool: samples that are drawn at once and sorted by length.
        progress: shared tensor of one number, which the training process moves from 0 to 1.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator, float], Sample],
        *,
        patch: int,
        tokens: int,
        pool: int = 2500,
        seed: int = 0,
        progress: torch.Tensor | None = None,
    ) -> None:
        self.draw, self.patch, self.tokens, self.pool, self.seed = draw, patch, tokens, pool, seed
        self.progress = torch.zeros(1) if progress is None else progress

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            progress = min(1.0, float(self.progress[0]))
            drawn = self._drawn(rng, progress)
            drawn.sort(key=lambda sample: len(sample.ids) + 8 * rng.random())
            groups = self._groups(drawn)
            for k in rng.permutation(len(groups)):
                yield collate(groups[k], patch=self.patch)

    def _drawn(self, rng: np.random.Generator, progress: float) -> list[Sample]:
        """A pool of samples. One in a thousand may be faulty: it is told, and does not end a run of half an hour.

        Raises:
            ValueError, KeyError: more are.
        """
        drawn: list[Sample] = []
        faults = 0
        while len(drawn) < self.pool:
            try:
                drawn.append(self.draw(rng, progress))
            except (ValueError, KeyError) as fault:
                faults += 1
                if faults > self.pool / 1000:
                    raise
                log(f"a sample is left out: {fault!r}")
        return drawn

    def _groups(self, drawn: list[Sample]) -> list[list[Sample]]:
        """Neighbours, as many as fit into a batch."""
        groups, start = [], 0
        while start < len(drawn):
            stop = start + 1
            longest = len(drawn[start].ids)
            while stop < len(drawn) and stop - start < 512:
                longest = max(longest, len(drawn[stop].ids))
                if (stop + 1 - start) * longest > self.tokens:
                    break
                stop += 1
            groups.append(drawn[start:stop])
            start = stop
        return groups


def collate(samples: Sequence[Sample], *, patch: int) -> Batch:
    """One batch; everything that hangs on the values is looked up here, so that the GPU need not be asked."""
    width = -(-max(len(sample.ids) for sample in samples) // 8) * 8
    ids = np.zeros((len(samples), width), np.int32)
    weights = np.zeros((len(samples), width), np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, : len(sample.ids)] = sample.weights
    following = weights.reshape(-1)
    learned = np.flatnonzero(following[1:])  # no row begins with a weight, so none reaches into the next row
    audio = np.array([number for sample in samples for number in sample.audio], np.int64)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(learned),
        torch.from_numpy(following[learned + 1]),
        torch.from_numpy(np.flatnonzero(ids == patch)),
        torch.from_numpy(audio),
    )
