"""A resampler for live audio: a linear-phase FIR filter that holds back a fixed 3 to 7 ms and works in no blocks.

soxr gives more of the band for whole recordings (resample.py), but returns a live stream in bursts of up to 120 ms.
This one knows rates and samples only. Meant for rates whose ratio is one of small numbers.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

from voiceagent.audio.pcm import Float, Int16
from voiceagent.audio.resample import check_rates, output_samples

ZEROS = 48  #: zero crossings of the sinc on each side: as wide as the filter reaches, in samples of the lower rate
ROLLOFF = 0.94  #: middle of its slope, relative to the lower rate's Nyquist frequency; -6 dB there
BETA = 9.0  #: of the Kaiser window: 90 dB beside the slope (Kaiser 1974: A = BETA / 0.1102 + 8.7)
BLOCK_S = 0.001  #: about so much is filtered at once: a product of matrices costs least in this shape
AT_ONCE = 256  #: blocks in one product


class LiveResampler:
    """Converts one mono stream from `source` to `target` Hz, in chunks of any size, to float32.

    Output sample n is the input at time n / target: the filter's delay is compensated, so the stream has to wait for
    `ZEROS` samples of the lower rate. After `finish` exactly `output_samples(pushed)` samples came out in all, however
    the input was cut. The stream cannot be used again.

    Args:
        source, target: Hz.
        gain: factor on what comes out, for integer samples whose full scale is not 1.

    Raises:
        InputError: a rate that is not a positive number.
    """

    def __init__(self, *, source: int, target: int, gain: float = 1.0) -> None:
        check_rates(source=source, target=target)
        self.source = source
        self.target = target
        self._gain = gain
        self.pushed = 0  #: samples taken in, at `source` Hz
        self.produced = 0  #: samples given out, at `target` Hz
        if source != target:
            self._matrix, self._block, self._reach = _filter(source, target, gain)
            self._pending: Float = np.zeros(self._reach, np.float32)  # before the beginning there is silence

    def push(self, samples: Float | Int16) -> Float:
        """Takes a chunk (n,) and returns what is ready (m,), m >= 0."""
        self.pushed += len(samples)
        if self.source == self.target:
            self.produced += len(samples)
            if self._gain == 1.0:
                return np.asarray(samples, dtype=np.float32)
            return np.multiply(samples, np.float32(self._gain), dtype=np.float32)
        made = self._convolve(np.concatenate((self._pending, samples), dtype=np.float32))
        self.produced += len(made)
        return made

    def finish(self) -> Float:
        """Returns what the filter still waits to complete: behind the end there is silence."""
        if self.source == self.target:
            return np.zeros(0, np.float32)
        silence = np.zeros(self._reach + self._block, np.float32)
        tail = self._convolve(np.concatenate((self._pending, silence)))
        tail = tail[: output_samples(self.pushed, source=self.source, target=self.target) - self.produced]
        self.produced += len(tail)
        return tail

    def _convolve(self, samples: Float) -> Float:
        """All whole blocks of `samples`, which begin `_reach` before the first block and must go on as far behind."""
        width = len(self._matrix)
        blocks = max(0, len(samples) - 2 * self._reach) // self._block
        self._pending = samples[blocks * self._block :]
        # Overlapping windows, one per block, without copying.
        windows = np.ndarray((blocks, width), np.float32, samples, 0, (4 * self._block, 4))
        if blocks <= AT_ONCE:
            made: Float = windows.dot(self._matrix)
        else:  # the product copies its windows: of a long chunk they would be many times its size
            made = np.empty((blocks, self._matrix.shape[1]), np.float32)
            for at in range(0, blocks, AT_ONCE):
                made[at : at + AT_ONCE] = windows[at : at + AT_ONCE].dot(self._matrix)
        return made.reshape(-1)


@lru_cache(maxsize=16)
def _filter(source: int, target: int, gain: float) -> tuple[npt.NDArray[np.float32], int, int]:
    """(matrix, block, reach): a block of input with `reach` samples on each side, times the matrix, is its output.

    Windowed sinc (Smith, "Digital Audio Resampling"): y(t) = sum of x[m] h(t - m), with t and m in input samples.
    """
    step = source // gcd(
        source, target
    )  # input samples from one whole position of the output grid to the next
    block = step * max(1, round(BLOCK_S * source / step))
    ratio = min(1.0, target / source)
    reach = int(np.ceil(ZEROS / ratio))
    times = np.arange(block * target // source) * (source / target)
    distance = times[None, :] - np.arange(-reach, block + reach)[:, None]
    inside = np.clip(1.0 - np.square(distance / reach), 0.0, None)
    window = np.where(np.abs(distance) <= reach, np.i0(BETA * np.sqrt(inside)) / np.i0(BETA), 0.0)
    cutoff = ROLLOFF * ratio  # relative to the input's Nyquist frequency
    taps = cutoff * np.sinc(cutoff * distance) * window
    taps *= gain / taps.sum(axis=0)  # every output sample of a constant is that constant, times `gain`
    return np.ascontiguousarray(taps, dtype=np.float32), block, reach
