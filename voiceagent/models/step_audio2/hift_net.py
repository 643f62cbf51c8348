"""The vocoder's network: mel frames and an excitation in, samples out; no state, no files but its optional widths.

A small network guesses the pitch of every frame; sines at the pitch and its overtones, or noise where there is none,
excite a convolutional network that writes a short-time spectrum (HiFTNet, Li et al. 2023, in CosyVoice 2's form).
Inside, a signal is an image of height 1, (B, C, 1, T): with channels last, a CPU convolves that a third faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.errors import CheckpointError
from voiceagent.units import VOICE_RATE

MELS = 80
HOP = 480
"""Samples per mel frame at 24 kHz."""
HARMONICS = 9
"""The fundamental and eight overtones."""

_RATES = (8, 5, 3)
_KERNELS = (16, 11, 7)
_RES_KERNELS = (3, 7, 11)
_SOURCE_KERNELS = (7, 7, 11)
_DILATIONS = (1, 3, 5)
_FFT, _FFT_HOP = 16, 4
_BINS = _FFT // 2 + 1
_SINE, _SINE_NOISE, _VOICED_HZ = 0.1, 0.003, 10.0
_ALONE = 4  # rows
_LEAST_ENERGY = 0.5  # of the windows over a sample; within a signal it is 1.2 at least
_REMEDY = "Download or export the checkpoint folder again."


@dataclass(frozen=True, slots=True)
class HiftConfig:
    """Widths of the network; the defaults are the reference's, which its files do not state."""

    base_channels: int = 512
    f0_channels: int = 512

    @classmethod
    def from_folder(cls, folder: Path) -> HiftConfig:
        """From `hift.yaml` in `folder`, if there is one.

        Raises:
            CheckpointError: the file has an unknown field or a width that is not a multiple of 8.
        """
        path = folder / "hift.yaml"
        if not path.is_file():
            return cls()
        import yaml

        try:
            fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as cause:
            raise CheckpointError(f"{path} is not YAML: {cause}.", remedy=_REMEDY) from cause
        known = set(cls.__slots__)
        if not isinstance(fields, dict) or not set(fields) <= known:
            raise CheckpointError(f"{path} must hold only {' and '.join(sorted(known))}.", remedy=_REMEDY)
        for name, value in fields.items():
            if type(value) is not int or value <= 0 or value % 8:
                raise CheckpointError(
                    f"{path}: {name} is {value!r}, not a positive multiple of 8.", remedy=_REMEDY
                )
        return cls(**fields)


# ------------------------------------------------------------------------------------------------------ the network


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha per channel (Liu et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1, T) to the same."""
        alpha = self.alpha[:, None, None]
        return torch.addcmul(x, torch.sin(x * alpha).square(), 1.0 / (alpha + 1e-9))


class ResBlock(nn.Module):
    """Three residual steps of a dilated and a plain convolution, each behind a Snake."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, channels, kernel, dilation=d) for d in _DILATIONS)
        self.convs2 = nn.ModuleList(_conv(channels, channels, kernel) for _ in _DILATIONS)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in _DILATIONS)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in _DILATIONS)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """(B, C, 1, T) to the same; `inside` as of `_inside`, where x must be 0 outside already."""
        steps = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        if x.is_cuda and torch.is_inference_mode_enabled():
            return self._fused(x, inside)
        for snake1, conv1, snake2, conv2 in steps:
            x = x + _only(conv2(snake2(_only(conv1(snake1(x)), inside))), inside)
        return x

    def _fused(self, x: Tensor, inside: Tensor | None) -> Tensor:
        """The same in two launches for every convolution: what lies between two of them is one."""
        from voiceagent.models.step_audio2.t2w_triton_speech import snake

        before = bias = None
        steps: Any = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for first, conv1, second, conv2 in steps:
            x, y = snake(x, bias, before, first.alpha)
            if bias is not None:
                x, y = _only(x, inside), _only(y, inside)
            y = _without_bias(conv1, y)
            _, y = snake(y, conv1.bias, None, second.alpha)
            before, x, bias = x, _without_bias(conv2, _only(y, inside)), conv2.bias
        total, _ = snake(x, bias, before, None)
        return _only(total, inside)


class PitchNet(nn.Module):
    """Fundamental frequency of every mel frame, from five frames to either side; about 0 where there is no voice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [_conv(channels if i else MELS, channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """(B, 80, T) to (B, T) Hz; row b ends after `frames[b]`, and is 0 from there on. Its mel must be, too."""
        inside = _inside(frames, 1, mel.shape[2], mel.dtype)
        hidden = mel[:, :, None]
        for layer in self.condnet:
            hidden = layer(hidden) if isinstance(layer, nn.ELU) else _only(layer(hidden), inside)
        hertz: Tensor = self.classifier(hidden[:, :, 0].transpose(1, 2))
        f0 = hertz[..., 0].abs()
        return f0 if inside is None else f0 * inside[:, 0, 0]


class Source(nn.Module):
    """Holds the mix of the sines; `Hift.excite` makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.l_linear = nn.Linear(HARMONICS, 1)


class HiftNet(nn.Module):
    """The weights and what they compute, without state; weight norm is folded into plain convolutions."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        base = config.base_channels
        widths = [base >> (i + 1) for i in range(len(_RATES))]
        self.config = config
        self.m_source = Source()
        self.conv_pre = _conv(MELS, base, 7)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(2 * c, c, (1, k), (1, r), padding=(0, (k - r) // 2))
            for c, k, r in zip(widths, _KERNELS, _RATES, strict=True)
        )
        strides = [math.prod(_RATES[i + 1 :]) for i in range(len(_RATES))]  # 15, 3, 1
        self.source_downs = nn.ModuleList(
            nn.Conv2d(2 * _BINS, c, (1, 2 * s if s > 1 else 1), (1, s), padding=(0, s // 2))
            for c, s in zip(widths, strides, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(c, k) for c, k in zip(widths, _SOURCE_KERNELS, strict=True)
        )
        self.resblocks = nn.ModuleList(ResBlock(c, k) for c in widths for k in _RES_KERNELS)
        self.conv_post = _conv(widths[-1], 2 * _BINS, 7)
        self.f0_predictor = PitchNet(config.f0_channels)

    def excite(self, f0: Tensor, noise: Tensor, *, phase: Tensor) -> Tensor:
        """The excitation signal.

        The phase runs linearly between the centres of the frames. All overtones start with the fundamental, as they
        do in the reference: its random start is lost in its own interpolation.

        Args:
            f0: (B, T) Hz per frame, 10 or less = no voice.
            noise: (B, 480 T) unit normal. One draw stands for the nine of the reference, one for each sine: a mix
                of independent normals is a normal of the mix's norm.
            phase: (B,) float64, cycles of the fundamental up to the centre of the frame before the first.

        Returns:
            (B, 1, 480 T) in (-1, 1).
        """
        cycles = (f0.double() * (HOP / VOICE_RATE)).cumsum(1) + phase[:, None]
        edges = torch.cat([phase[:, None], cycles, cycles[:, -1:]], dim=1)
        between = (torch.arange(HOP, device=f0.device, dtype=torch.float64) + 0.5) / HOP
        runs = edges[:, :-1, None] + (edges[:, 1:] - edges[:, :-1])[..., None] * between
        fundamental = runs.flatten(1)[:, HOP // 2 : -HOP // 2].frac()
        orders = torch.arange(1, HARMONICS + 1, device=f0.device)
        sines = torch.sin(fundamental.to(noise.dtype)[:, None] * (orders[:, None] * (2 * math.pi)))
        weight, bias = self.m_source.l_linear.weight, self.m_source.l_linear.bias
        voiced = (f0 > _VOICED_HZ).to(noise.dtype).repeat_interleave(HOP, dim=1)[:, None]
        hiss = (_SINE_NOISE * voiced + _SINE / 3 * (1 - voiced)) * noise[:, None]
        return torch.tanh(_SINE * voiced * (weight @ sines) + weight.norm() * hiss + bias[:, None])

    def decode(self, mel: Tensor, source: Tensor, *, frames: Tensor | None = None) -> Tensor:
        """Mel (B, 80, T) and excitation (B, 1, 480 T) to samples (B, 480 T) in [-0.99, 0.99].

        Given `frames` (B,), row b ends after so many, as if it were alone and no longer: a computation of one shape
        then serves ends of all lengths. Its mel must be 0 from there on, and its samples mean nothing there.
        """
        per_frame = HOP // _FFT_HOP
        ending = _inside(frames, per_frame, per_frame * mel.shape[2] + 1, mel.dtype, more=1)
        spectrum = _only(_analyse(source if frames is None else _mirrored(source, HOP * frames)), ending)
        x = self.conv_pre(mel[:, :, None])
        inside = _inside(frames, 1, mel.shape[2], mel.dtype)
        for i, (up, down, refine) in enumerate(
            zip(self.ups, self.source_downs, self.source_resblocks, strict=True)
        ):
            x = up(F.leaky_relu(_only(x, inside), 0.1))
            rate = math.prod(_RATES[: i + 1])
            inside = _inside(frames, rate, x.shape[3], x.dtype)
            if i == len(self.ups) - 1:
                x, inside = torch.cat([x[..., 1:2], x], dim=3), ending
            x = _only(x, inside) + refine(_only(down(spectrum), inside), inside)
            blocks = list(self.resblocks)[len(_RES_KERNELS) * i : len(_RES_KERNELS) * (i + 1)]
            small, middle, large = _side_by_side(blocks, x, inside)
            x = (small + middle + large) / len(_RES_KERNELS)
        x = self.conv_post(F.leaky_relu(x, 0.01))[:, :, 0]
        magnitude = x[:, :_BINS].clamp(max=math.log(100.0)).exp()  # clamped first: no infinite gradient
        ends = None if ending is None else ending[:, 0, 0]
        return _synthesise(magnitude, torch.sin(x[:, _BINS:]), ends).clamp(-0.99, 0.99)


def _without_bias(conv: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, conv.weight, None, 1, conv.padding, conv.dilation)


def _inside(
    frames: Tensor | None, rate: int, size: int, dtype: torch.dtype, *, more: int = 0
) -> Tensor | None:
    """(B, 1, 1, size) 1 within a row's signal, which has rate x frames + more places, 0 behind it; None: all is."""
    if frames is None:
        return None
    at = torch.arange(size, device=frames.device)
    return (at < (rate * frames + more)[:, None]).to(dtype)[:, None, None]


def _only(x: Tensor, inside: Tensor | None) -> Tensor:
    """x, and 0 behind the end of each row: what a convolution sees behind the end of its input."""
    return x if inside is None else x * inside


def _mirrored(wave: Tensor, ends: Tensor) -> Tensor:
    """Wave (B, 1, L), each row mirrored at its end (B,): what `_analyse` sees behind the end of its input."""
    at = torch.arange(wave.shape[2], device=wave.device)
    ends = ends[:, None]
    places = torch.where(at < ends, at, (2 * ends - 2 - at).clamp(min=0))
    return wave.gather(2, places[:, None])


def _side_by_side(parts: Sequence[nn.Module], x: Tensor, inside: Tensor | None) -> list[Tensor]:
    """Every part's output for x; at the same time in a CUDA graph of few rows, where one cannot fill the device."""
    if not x.is_cuda or x.shape[0] > _ALONE or not torch.cuda.is_current_stream_capturing():
        return [part(x, inside) for part in parts]
    main = torch.cuda.current_stream()
    outputs = []
    for part in parts:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs.append(part(x, inside))
        main.wait_stream(side)
    return outputs


def _conv(inputs: int, outputs: int, kernel: int, *, dilation: int = 1) -> nn.Conv2d:
    padding = (0, dilation * (kernel - 1) // 2)
    return nn.Conv2d(inputs, outputs, (1, kernel), padding=padding, dilation=(1, dilation))


@lru_cache(maxsize=16)
def _transforms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Windowed DFT (18, 1, 1, 16), its inverse (18, 16), squared window (16,); at 16 points faster than an FFT."""
    with torch.inference_mode(False):
        n = np.arange(_FFT)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / _FFT)
        angle = 2 * np.pi * np.arange(_BINS)[:, None] * n / _FFT
        forward = np.concatenate([np.cos(angle), -np.sin(angle)]) * window
        share = np.full((_BINS, 1), 2.0 / _FFT)
        share[[0, -1]] = 1.0 / _FFT
        inverse = np.concatenate([np.cos(angle) * share, -np.sin(angle) * share]) * window
        tables = (forward[:, None, None], inverse, window**2)
        first, second, third = (torch.from_numpy(table).to(device, dtype) for table in tables)
        return first, second, third


def _analyse(wave: Tensor) -> Tensor:
    """(B, 1, L) to real and imaginary parts (B, 18, 1, L/4 + 1) of the centred 16-point transform."""
    forward, _, _ = _transforms(wave.device, wave.dtype)
    padded = F.pad(wave, (_FFT // 2, _FFT // 2), mode="reflect")
    return F.conv2d(padded[:, :, None], forward, stride=(1, _FFT_HOP))


def _synthesise(magnitude: Tensor, phase: Tensor, inside: Tensor | None = None) -> Tensor:
    """Magnitude and phase (B, 9, N) to samples (B, 4 (N - 1)): windowed overlap-add, divided by the windows' energy.

    Of row b only what is `inside` (B, N) counts.
    """
    _, inverse, energy = _transforms(magnitude.device, magnitude.dtype)
    parts = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)
    frames = parts.transpose(1, 2) @ inverse
    within = slice(_FFT // 2, -_FFT // 2)  # at the very ends the windows' energy is zero
    windows = energy.expand(1, frames.shape[1], _FFT)
    if inside is not None:
        frames, windows = frames * inside[..., None], windows * inside[..., None]
    total = _overlap_add(windows)[:, within].clamp(min=_LEAST_ENERGY)
    return _overlap_add(frames)[:, within] / total


def _overlap_add(frames: Tensor) -> Tensor:
    """(B, N, 16) at a hop of 4 to (B, 4 N + 12)."""
    quarters = frames.reshape(*frames.shape[:2], _FFT // _FFT_HOP, _FFT_HOP)
    steps = _FFT // _FFT_HOP - 1
    shifted = [F.pad(quarters[:, :, k], (0, 0, k, steps - k)) for k in range(steps + 1)]
    return torch.stack(shifted).sum(0).flatten(1)
