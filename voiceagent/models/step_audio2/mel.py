"""Turns waveforms into the three spectral features that the networks read, and counts frames and placeholders.

It knows the formulas and nothing of networks, files or sample-rate conversion.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import InputError

HOP_16K = 160
"""Samples per log-mel frame at 16 kHz (100 frames a second)."""
TAIL_PAD = 479
"""Zeros that the encoder's front end appends to every piece before the transform."""

_FFT_16K = 400
_FFT_24K = 1920
_HOP_24K = 480
_FBANK_WINDOW = 400
_FBANK_FFT = 512


def frame_count(samples: int, *, pad: int = TAIL_PAD) -> int:
    """Log-mel frames of a piece of `samples` samples at 16 kHz."""
    return (samples + pad) // HOP_16K


def encoder_rows(frames: int) -> int:
    """25 Hz encoder rows for `frames` log-mel frames; two frames are counted as padding."""
    return max(0, (frames - 1) // 2 // 2)


def adapter_rows(encoder: int) -> int:
    """12.5 Hz adapter rows for `encoder` encoder rows."""
    return (encoder - 1) // 2 + 1


def placeholder_count(samples: int) -> int:
    """`<audio_patch>` positions that a piece of `samples` samples at 16 kHz takes in a prompt: 12.5 a second."""
    return adapter_rows(encoder_rows(frame_count(samples)))


def log_mel(waves: Tensor, lengths: Tensor, *, pad: int = TAIL_PAD) -> tuple[Tensor, Tensor]:
    """Whisper-style log-mel spectrogram, each row exactly as if it were computed alone.

    Hann 400 / hop 160 power spectrum of the reflect-padded signal, 128 Slaney mel bands, log10 with a floor 8 below
    the row's own maximum, then (x + 4) / 4.

    Args:
        waves: (B, L) float, 16 kHz; what lies beyond a row's length is ignored.
        lengths: (B,) integer sample counts.
        pad: zeros appended first; 479 for the encoder, 0 for the speech tokenizer.

    Returns:
        mel: (B, 128, F) float32, zero beyond a row's frames.
        frames: (B,) int64, (length + pad) // 160 each.

    Raises:
        InputError: a row is too short to be reflected at its edges.
    """
    device, half = waves.device, _FFT_16K // 2
    lengths = lengths.to(device=device, dtype=torch.int64)
    if waves.shape[0] == 0 or int(lengths.min()) + pad <= half:
        raise InputError(
            f"audio of {half - pad} samples or fewer is too short for a spectrum.", code="audio_too_short"
        )
    frames = (lengths + pad) // HOP_16K
    width = int(frames.max())
    signal = _reflected(waves.float(), lengths, pad=pad, margin=half, width=(width - 1) * HOP_16K + _FFT_16K)
    spectrum = torch.stft(
        signal, _FFT_16K, HOP_16K, window=_hann(_FFT_16K, device), center=False, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    mel = (_slaney(_FFT_16K, 16_000, 128, device) @ power).clamp_min(1e-10).log10()
    valid = (torch.arange(width, device=device) < frames[:, None])[:, None]
    peak = mel.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    mel = (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0
    return mel.masked_fill(~valid, 0.0), frames


def _reflected(waves: Tensor, lengths: Tensor, *, pad: int, margin: int, width: int) -> Tensor:
    """(B, width): each row zero-padded by `pad`, then reflected by `margin` samples at both of its own edges."""
    where = torch.arange(-margin, width - margin, device=waves.device).abs()
    last = (lengths + pad - 1)[:, None]
    where = last - (where - last).abs()  # mirrors what passes a row's end
    inside = (where < lengths[:, None]) & (where >= 0)
    return waves.gather(1, where.clamp(0, waves.shape[1] - 1)) * inside


def mel_24k(wave: Tensor) -> Tensor:
    """Natural-log magnitude mel of Token2Wav: n_fft 1920, hop 480, 80 Slaney bands from 0 to 8 kHz, 50 frames a second.

    Args:
        wave: (B, L) float, 24 kHz.

    Returns:
        (B, 80, L // 480) float32.

    Raises:
        InputError: 720 samples or fewer.
    """
    margin = (_FFT_24K - _HOP_24K) // 2
    if wave.shape[-1] <= margin:
        raise InputError(
            f"audio of {margin} samples or fewer is too short for a spectrum.", code="audio_too_short"
        )
    signal = F.pad(wave.float()[:, None], (margin, margin), mode="reflect")[:, 0]
    window = _hann(_FFT_24K, wave.device)
    spectrum = torch.stft(signal, _FFT_24K, _HOP_24K, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    return (_slaney(_FFT_24K, 24_000, 80, wave.device) @ magnitude).clamp_min(1e-5).log()


def kaldi_fbank(wave: Tensor) -> Tensor:
    """Kaldi's log filter bank with its defaults and no dither: 25 ms povey frames every 10 ms, edges snipped.

    Per frame: minus its mean, pre-emphasis 0.97 (the first sample against itself), window, 512-point power spectrum,
    80 triangles on the 1127 ln(1 + f/700) scale between 20 Hz and 8 kHz, natural log floored at float32 epsilon.

    Args:
        wave: (L,) float in [-1, 1], 16 kHz.

    Returns:
        (T, 80) float32 with T = 1 + (L - 400) // 160.

    Raises:
        InputError: fewer than 400 samples.
    """
    if wave.shape[0] < _FBANK_WINDOW:
        raise InputError("audio of less than 25 ms has no filter-bank frame.", code="audio_too_short")
    frames = wave.float().unfold(0, _FBANK_WINDOW, HOP_16K)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    windowed = (frames - 0.97 * previous) * _povey(wave.device)
    power = torch.fft.rfft(windowed, _FBANK_FFT).abs().square()
    bands: Tensor = power @ _kaldi_bands(wave.device).T
    return bands.clamp_min(torch.finfo(torch.float32).eps).log()


@lru_cache(maxsize=16)
def _hann(size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a cached inference tensor would break a later training step
        window: Tensor = torch.hann_window(size, device=device)
    return window


def _table(values: NDArray[np.float64], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(values).float().to(device)


@lru_cache(maxsize=4)
def _povey(device: torch.device) -> Tensor:
    hann = np.hanning(_FBANK_WINDOW)  # symmetric
    return _table(hann**0.85, device)


@lru_cache(maxsize=16)
def _slaney(fft: int, rate: int, bands: int, device: torch.device) -> Tensor:
    """(bands, fft/2 + 1) area-normalised triangles from 0 to 8 kHz on Slaney's scale (linear below 1 kHz)."""
    edges = _slaney_to_hz(np.linspace(0.0, _hz_to_slaney(8000.0), bands + 2))
    bins = np.linspace(0.0, rate / 2, fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return _table(weights, device)


def _hz_to_slaney(hz: float) -> float:
    linear = hz * 3.0 / 200.0
    return linear if hz < 1000.0 else 15.0 + 27.0 * float(np.log(hz / 1000.0) / np.log(6.4))


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@lru_cache(maxsize=4)
def _kaldi_bands(device: torch.device) -> Tensor:
    """(80, 257) triangles that are linear on Kaldi's mel scale; the Nyquist bin gets nothing."""
    low, high = (1127.0 * np.log1p(hz / 700.0) for hz in (20.0, 8000.0))
    edges = np.linspace(low, high, 82)
    bins = 1127.0 * np.log1p(np.arange(_FBANK_FFT // 2) * (16_000 / _FBANK_FFT) / 700.0)
    step = edges[1] - edges[0]
    rising = (bins - edges[:-2, None]) / step
    falling = (edges[2:, None] - bins) / step
    weights = np.pad(np.maximum(0.0, np.minimum(rising, falling)), ((0, 0), (0, 1)))
    return _table(weights, device)
