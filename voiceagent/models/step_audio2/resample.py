"""Brings a voice's recording to another sample rate, sample for sample as the reference does; it knows nothing else.

Not for streams, and no better than it need be: a voice's ids hang on the last decibels near the band's edge, so what
counts is that they are the ones that the model was trained with.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_CROSSINGS = 6  # of the windowed sinc to either side
_ROLLOFF = 0.99  # of the lower of the two Nyquist frequencies


def resample(samples: npt.NDArray[np.float32], *, source: int, target: int) -> npt.NDArray[np.float32]:
    """(L,) at another rate: ceil(L x target / source) samples.

    A sinc that ends at 0.99 of the lower band, under a squared cosine of six zero crossings: torchaudio's default.
    """
    if source == target:
        return samples
    common = math.gcd(source, target)
    up, down = target // common, source // common
    kernels, margin = _kernels(up, down)
    padded = F.pad(torch.from_numpy(samples)[None, None], (margin, margin + down))
    phases = F.conv1d(padded, kernels[:, None], stride=down)[0]
    wave = phases.T.flatten()[: -(-len(samples) * up // down)]
    out: npt.NDArray[np.float32] = wave.contiguous().numpy()
    return out


@lru_cache(maxsize=8)
def _kernels(up: int, down: int) -> tuple[Tensor, int]:
    """One filter for each of the `up` places between samples (up, taps), and how far they reach back."""
    band = _ROLLOFF * min(up, down)
    margin = math.ceil(_CROSSINGS * down / band)
    places = np.arange(-margin, margin + down) / down - np.arange(up)[:, None] / up
    crossings = np.clip(places * band, -_CROSSINGS, _CROSSINGS)
    window = np.cos(crossings * (np.pi / 2 / _CROSSINGS)) ** 2
    return torch.from_numpy(np.sinc(crossings) * window * (band / down)).float(), margin
