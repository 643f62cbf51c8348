"""A streaming resampler over soxr that accounts for every sample; it knows rates, not what the audio is for."""

from __future__ import annotations

import numpy as np
import soxr

from voiceagent.audio.pcm import Float
from voiceagent.errors import InputError


def output_samples(samples: int, *, source: int, target: int) -> int:
    """How many samples `samples` at `source` Hz become at `target` Hz: the nearest whole number, halves up."""
    return (2 * samples * target + source) // (2 * source)


def check_rates(*, source: int, target: int) -> None:
    """Raises InputError unless both rates are positive; `param` names the other."""
    for name, rate in (("source", source), ("target", target)):
        if rate <= 0:
            raise InputError(
                f"The {name} sample rate is {rate} Hz.", remedy="Use a positive rate.", param=name
            )


class ResampleStream:
    """Converts one mono float32 stream from `source` to `target` Hz, in chunks of any size.

    `push` returns what is ready (soxr works in blocks and holds back up to 42 ms, 120 ms from 8 kHz), `finish`
    the rest. After `finish` exactly `output_samples(pushed)` samples came out in all, however the input was cut.
    The stream cannot be used again.

    Raises:
        InputError: a rate that is not a positive number.
    """

    def __init__(self, *, source: int, target: int) -> None:
        check_rates(source=source, target=target)
        self.source = source
        self.target = target
        self.pushed = 0  #: samples taken in, at `source` Hz
        self.produced = 0  #: samples given out, at `target` Hz
        self._stream = None if source == target else soxr.ResampleStream(source, target, 1, dtype="float32")

    def push(self, samples: Float) -> Float:
        """Take a chunk (n,) and return what is ready (m,), m >= 0."""
        self.pushed += len(samples)
        if self._stream is None:
            return self._count(np.asarray(samples, dtype=np.float32))
        if not len(samples):
            return np.zeros(0, np.float32)
        return self._count(self._stream.resample_chunk(np.ascontiguousarray(samples, dtype=np.float32)))

    def finish(self) -> Float:
        """Return what the filter still holds, so that the total is exact."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        tail = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        missing = output_samples(self.pushed, source=self.source, target=self.target) - self.produced
        if len(tail) < missing:  # a stream shorter than one output sample: soxr returns nothing
            tail = np.concatenate([tail, np.zeros(missing - len(tail), np.float32)])
        return self._count(tail[:missing])

    def _count(self, samples: Float) -> Float:
        self.produced += len(samples)
        return samples


def resample(samples: Float, *, source: int, target: int) -> Float:
    """A whole mono float32 signal (n,) at another rate, `output_samples(n)` long."""
    stream = ResampleStream(source=source, target=target)
    return np.concatenate([stream.push(samples), stream.finish()])
