"""What tells the vocoder how its samples differ from a recording: spectra at four resolutions, and eight critics.

The critics are those of HiFi-GAN (the wave folded by prime periods) and of UnivNet (log spectrograms), made narrow.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATE = 24_000
_RESOLUTIONS = ((256, 32), (512, 64), (1024, 80), (2048, 128))  # transform size, bands
_PERIODS = (2, 3, 5, 7, 11)
_SPECTRA = (512, 1024, 2048)


def spectral_loss(made: Tensor, real: Tensor) -> Tensor:
    """Mean over the resolutions of log-band L1 plus half the relative spectral distance; (B, L) each."""
    total = made.new_zeros(())
    for size, bands in _RESOLUTIONS:
        ours, theirs = spectrum(made, size), spectrum(real, size)
        table = _bands(size, bands, made.device)
        distance = (ours - theirs).norm() / theirs.norm().clamp_min(1e-6)
        logs = [(table @ part).clamp_min(1e-5).log() for part in (ours, theirs)]
        total = total + F.l1_loss(logs[0], logs[1]) + 0.5 * distance
    return total / len(_RESOLUTIONS)


def spectrum(wave: Tensor, size: int) -> Tensor:
    """(B, L) to magnitudes (B, size/2 + 1, frames), four frames to the size."""
    parts = torch.stft(wave, size, size // 4, window=_window(size, wave.device), return_complex=True)
    return (parts.real.square() + parts.imag.square() + 1e-9).sqrt()


@lru_cache(maxsize=16)
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=16)
def _bands(size: int, bands: int, device: torch.device) -> Tensor:
    """(bands, size/2 + 1) triangles of unit sum, equally spaced on the mel scale 2595 lg(1 + f/700) up to 12 kHz."""
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = np.linspace(0, RATE / 2, size // 2 + 1)
    spacing = RATE / size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (hertz - low) / np.maximum(centre - low, spacing)
    falling = (high - hertz) / np.maximum(high - centre, spacing)
    table = np.maximum(0.0, np.minimum(rising, falling))
    table[table.sum(1) == 0, 0] = 1.0
    return torch.from_numpy(table / table.sum(1, keepdims=True)).float().to(device)


class PeriodCritic(nn.Module):
    """Looks at every `period`-th sample side by side."""

    def __init__(self, period: int, channels: tuple[int, ...] = (16, 64, 128, 256)) -> None:
        super().__init__()
        self.period = period
        pairs = zip((1, *channels), channels, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, (5, 1), (3, 1), (2, 0)) for i, o in pairs)
        self.out = nn.Conv2d(channels[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, L) to scores and the layers' outputs."""
        folded = F.pad(wave, (0, -wave.shape[1] % self.period)).view(len(wave), 1, -1, self.period)
        return _layers(folded, self.convs, self.out)


class SpectrumCritic(nn.Module):
    """Looks at a log spectrogram."""

    def __init__(self, size: int, channels: int = 32) -> None:
        super().__init__()
        self.size = size
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if i else 1, channels, (3, 9), (1, 2 if i in (1, 2, 3) else 1), (1, 4))
            for i in range(5)
        )
        self.out = nn.Conv2d(channels, 1, 3, 1, 1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, L) to scores and the layers' outputs."""
        image = spectrum(wave, self.size).clamp_min(1e-5).log().transpose(1, 2)[:, None]
        return _layers(image, self.convs, self.out)


class Critics(nn.Module):
    """All of them."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ModuleList([PeriodCritic(p) for p in _PERIODS] + [SpectrumCritic(n) for n in _SPECTRA])

    def forward(self, wave: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """(B, L) to each critic's scores and layers' outputs."""
        return [critic(wave) for critic in self.all]


def _layers(x: Tensor, convs: nn.ModuleList, out: nn.Module) -> tuple[Tensor, list[Tensor]]:
    seen = []
    for conv in convs:
        x = F.leaky_relu(conv(x), 0.1)
        seen.append(x)
    return out(x), seen


def critic_loss(judged: list[tuple[Tensor, list[Tensor]]], rows: int) -> Tensor:
    """Least squares: the first `rows` are recordings (1), the others made (0)."""
    parts = [
        (1 - score[:rows].float()).square().mean() + score[rows:].float().square().mean()
        for score, _ in judged
    ]
    return torch.stack(parts).sum()


def maker_loss(judged: list[tuple[Tensor, list[Tensor]]], rows: int) -> Tensor:
    """Least squares towards 1 for what was made, plus twice the distance of the layers' outputs."""
    parts = []
    for score, seen in judged:
        parts.append((1 - score[rows:].float()).square().mean())
        parts += [2 * (x[rows:].float() - x[:rows].float().detach()).abs().mean() for x in seen]
    return torch.stack(parts).sum()
