"""Speech made faster or slower at the same pitch, as it streams; it knows samples, nothing of tokens or voices.

Waveform similarity overlap-add (Verhelst and Roelands, 1993): the output is laid in blocks, each faded over from what
naturally follows the block before to a stretch of the input near its due place, so near that the two swing alike.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from voiceagent.audio.pcm import Int16
from voiceagent.units import spoken_at, unhurried

BLOCK = 360  #: samples of output at a time: 15 ms at 24 kHz, more than a period of a deep voice
REACH = 240  #: samples to either side of its due place in which a stretch is looked for: 10 ms

_RISE = np.sin(np.pi / 2 * (np.arange(BLOCK) + 0.5) / BLOCK) ** 2
_FALL = 1.0 - _RISE
_STEP = 4


class Tempo:
    """One stream. All samples together are `units.spoken_at(taken, speed)`, and what was at place t of the input is
    within `REACH` + `BLOCK` samples of t / speed in the output, however it was cut on its way in.

    At a speed of 1 it hands every sample on as it is.

    Args:
        speed: above 0; 2 = twice as fast.
    """

    def __init__(self, speed: float) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ValueError(f"a speed must be above 0, not {speed!r}")
        self._speed = speed
        self._input: Int16 = np.zeros(0, np.int16)  # what may still be needed
        self._from = 0  # place of its first sample
        self._blocks = 0  # blocks made
        self._at = 0  # place of the stretch that the last block faded to
        self.taken = self.given = 0  #: samples in and out so far

    def push(self, samples: Int16) -> Int16:
        """Takes (n,) samples; returns those that are ready."""
        self.taken += len(samples)
        if self._speed == 1.0:
            self.given += len(samples)
            return samples
        self._input = np.concatenate([self._input, samples])
        made = []
        while self._needed() <= self.taken:
            made.append(self._block())
        self._forget()
        return self._out(made, self.given + BLOCK * len(made))

    def finish(self) -> Int16:
        """What is left; the stream is over."""
        if self._speed == 1.0:
            return np.zeros(0, np.int16)
        total = spoken_at(self.taken, self._speed)
        made: list[Int16] = []
        # A stretch that runs into the end would break off in the middle of a swing: it begins before, or turns round.
        last = max(0, self.taken - 2 * BLOCK)
        if total:
            self._input = np.pad(self._input, (0, 2 * BLOCK), "symmetric")
        while self.given + BLOCK * len(made) < total:
            made.append(self._block(last))
        return self._out(made, total)

    def _out(self, made: list[Int16], total: int) -> Int16:
        out = np.concatenate([np.zeros(0, np.int16), *made])[: total - self.given]
        self.given += len(out)
        return out

    def _needed(self) -> int:
        """How many samples must have come for the next block; enough that no more are given than are due."""
        natural = self._at + 2 * BLOCK if self._blocks else BLOCK
        return max(natural, self._due(self._blocks) + REACH + BLOCK, self._due(self._blocks + 1) + 1)

    def _due(self, block: int) -> int:
        """Where in the input a block should begin."""
        return unhurried(block * BLOCK, self._speed)

    def _block(self, last: int | None = None) -> Int16:
        """The next one, of a stretch that begins at `last` at the latest."""
        self._blocks += 1
        if self._blocks == 1:
            return self._input[:BLOCK]
        natural = self._take(self._at + BLOCK, self._at + 2 * BLOCK)
        due = self._due(self._blocks - 1)
        first, end = max(0, due - REACH), due + REACH
        if last is not None:
            first = max(min(first, last), self._from)
            end = max(min(end, last), first)
        middle = min(max(first, due), end)
        self._at = first + _most_alike(natural, self._take(first, end + BLOCK), middle - first)
        mixed = _FALL * natural + _RISE * self._take(self._at, self._at + BLOCK)
        block: Int16 = np.rint(mixed).astype(np.int16)
        return block

    def _take(self, start: int, end: int) -> npt.NDArray[np.float64]:
        return self._input[start - self._from : end - self._from].astype(np.float64)

    def _forget(self) -> None:
        keep = min(self._at + BLOCK, max(0, self._due(self._blocks) - REACH)) if self._blocks else 0
        self._input = self._input[max(0, keep - self._from) :]
        self._from = max(self._from, keep)


def _most_alike(wanted: npt.NDArray[np.float64], among: npt.NDArray[np.float64], middle: int) -> int:
    """Where in `among` a stretch swings like `wanted`; the middle if nothing swings. Roughly first, then exactly."""
    if not wanted.any() or len(among) < len(wanted) + _STEP:
        return middle
    rough = _STEP * _best(_thinned(wanted), _thinned(among))
    first, last = max(0, rough - _STEP), min(rough + _STEP, len(among) - len(wanted))
    return first + _best(wanted, among[first : last + len(wanted)])


def _best(wanted: npt.NDArray[np.float64], among: npt.NDArray[np.float64]) -> int:
    """Place of the highest normalised correlation."""
    alike = np.correlate(among, wanted, "valid")
    squares = np.concatenate([[0.0], np.cumsum(among * among)])
    strength = squares[len(wanted) :] - squares[: len(alike)]
    return int(np.argmax(alike / np.sqrt(np.maximum(strength, 1.0))))


def _thinned(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of `_STEP` samples each."""
    whole = len(samples) // _STEP * _STEP
    means: npt.NDArray[np.float64] = samples[:whole].reshape(-1, _STEP).mean(axis=1)
    return means
