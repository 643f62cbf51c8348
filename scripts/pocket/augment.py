"""What a voice goes through before we hear it, for whole batches on the training device: pace, body, room, noise, line.

Everything is drawn row by row from one generator. It knows waves and log-mels, neither files nor networks. Rows marked
gentle keep what a caption may tell: speed, pitch, sex and what sounds in the background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

RATE = 16_000
MELS = 128
PACKET = 320
HELD_OUT_SLOPES = (0.5, 0.66)  # of noise: gen_data.py's `noisy` test bank lies within
_ROUND = 8000  # widths are multiples of half a second, so that few FFT plans exist


# ---------------------------------------------------------------------------------------------------- pace and place


@dataclass(frozen=True, slots=True)
class Placement:
    """How each utterance of a batch is set.

    Attributes:
        speed: factor of pitch and tempo; lead: samples of silence before it; speech: its own samples; total: all.
        depth, pulse, phase: it runs ahead and falls behind by `depth` samples, `pulse` times a second.
    """

    speed: NDArray[np.float64]
    lead: NDArray[np.int64]
    speech: NDArray[np.int64]
    total: NDArray[np.int64]
    depth: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    pulse: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    phase: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def take(self, index: NDArray[np.int64]) -> Placement:
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return replace(self, **{name: values[index] for name, values in fields.items() if len(values)})


def placement(
    lengths: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    augmented: bool,
    gentle: NDArray[np.bool_] | None = None,
    cut: NDArray[np.bool_] | None = None,
) -> Placement:
    """Draws speed 0.8-1.3 and a wandering pace (3 of 4 rows each), up to 0.4 s of silence before and 0.8 s after.

    Args:
        gentle: rows whose speed stays within 3 %, without wandering.
        cut: rows behind which no silence may follow.
    """
    n = len(lengths)
    if not augmented:
        return Placement(np.ones(n), np.zeros(n, np.int64), lengths, lengths)
    gentle = np.zeros(n, bool) if gentle is None else gentle
    cut = np.zeros(n, bool) if cut is None else cut
    speed = np.exp(rng.uniform(math.log(0.8), math.log(1.3), n))
    speed = np.where(rng.random(n) < 0.75, speed, 1.0)
    speed = np.where(gentle, rng.uniform(0.97, 1.03, n), speed)
    lead = (rng.uniform(0, 0.4 * RATE, n) * (rng.random(n) < 0.7)).astype(np.int64)
    tail = (rng.uniform(0, 0.8 * RATE, n) * (rng.random(n) < 0.7) * ~cut).astype(np.int64)
    speech = np.maximum(1, (lengths / speed).astype(np.int64))
    pulse = rng.uniform(0.4, 2.5, n)
    bend = rng.uniform(0.0, 0.08, n) * (rng.random(n) < 0.75) * ~gentle  # of pitch and tempo
    phase = rng.uniform(0, 2 * math.pi, n)
    return Placement(
        speed, lead, speech, lead + speech + tail, bend * RATE / (2 * math.pi * pulse), pulse, phase
    )


def wander(where: Tensor, place: Placement) -> Tensor:
    """Samples by which the recording runs ahead at `where` (B, L) samples after its start; none at its ends."""

    def put(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(where.device)[:, None]

    middle = torch.sin(math.pi * (where / put(place.speech)).clamp(0, 1))
    swing = torch.sin(2 * math.pi / RATE * put(place.pulse) * where + put(place.phase))
    return put(place.depth) * middle * swing


# --------------------------------------------------------------------------------------------------- what is between


@dataclass(frozen=True, slots=True)
class Dice:
    """Random draws for the rows of one batch."""

    rows: int
    device: torch.device
    generator: torch.Generator | None

    def uniform(self, low: float, high: float, columns: int = 1) -> Tensor:
        draw = torch.rand(self.rows, columns, device=self.device, generator=self.generator)
        return low + (high - low) * draw

    def chance(self, probability: float) -> Tensor:
        """(rows, 1) bool"""
        return self.uniform(0.0, 1.0) < probability

    def normal(self, columns: int) -> Tensor:
        return torch.randn(self.rows, columns, device=self.device, generator=self.generator)


def augment(
    waves: Tensor,
    lengths: Tensor,
    *,
    generator: torch.Generator | None = None,
    gentle: Tensor | None = None,
) -> Tensor:
    """What lies between a mouth and us: tone, room, overload, noise, babble, telephone with losses, gain, mu-law.

    Args:
        waves: (B, L) float in [-1, 1], 16 kHz; lengths: (B,). Rows of a batch serve as each other's babble.
        gentle: (B,) bool: rows with little noise and no babble.

    Returns:
        (B, L) in [-1, 1], zero beyond each row's length. Shape and timing stay as they were.
    """
    dice = Dice(len(waves), waves.device, generator)
    width = waves.shape[1]
    size = -(-(width + 6400) // _ROUND) * _ROUND
    hertz = torch.linspace(0.0, RATE / 2, size // 2 + 1, device=waves.device)
    inside = torch.arange(width, device=waves.device) < lengths[:, None]
    spectrum = torch.fft.rfft(waves, size) * _tone(dice, hertz) * torch.fft.rfft(_room(dice), size)
    heard = torch.fft.irfft(spectrum, size)[:, :width] * inside
    level = (heard.square().sum(1, keepdim=True) / lengths[:, None]).sqrt()
    loud = level.clamp_min(1e-3)
    limit = loud * dice.uniform(1.5, 4.0)
    heard = torch.where(dice.chance(0.06), heard.clamp(-limit, limit), heard)  # an overdriven microphone
    soft = torch.zeros_like(level) if gentle is None else gentle[:, None].float()
    noise = _noise(dice, size)[:, :width] * 10 ** (-12.0 * soft / 20) + _babble(dice, waves) * (1 - soft)
    heard = heard + loud * noise
    phone = torch.fft.irfft(torch.fft.rfft(heard, size) * _telephone(dice, hertz), size)[:, :width]
    on_phone = dice.chance(0.3)
    phone = torch.where(dice.chance(0.5), _mu_law(phone, loud), phone)
    heard = torch.where(on_phone, _losses(dice, phone), heard)
    gain = torch.exp(dice.uniform(math.log(0.01), math.log(0.25))) / loud
    heard = (heard * torch.where(level < 1e-3, 1.0, gain)).clamp(-1.0, 1.0)
    return heard * inside


def _tone(dice: Dice, hertz: Tensor) -> Tensor:
    """(B, bins) random equaliser of +-9 dB over 10 bands (7 of 10 rows); tilt of +-4 dB per octave (half of them).

    The tilt stands for another source in the throat: a pressed voice is bright, a soft one dark.
    """
    bands = dice.uniform(-9.0, 9.0, 10) * dice.chance(0.7)
    decibel = F.interpolate(bands[:, None], len(hertz), mode="linear", align_corners=True)[:, 0]
    octaves = torch.log2(hertz.clamp(100.0, 8000.0) / 1000.0)
    return 10 ** ((decibel + octaves * dice.uniform(-4.0, 4.0) * dice.chance(0.5)) / 20)


def _telephone(dice: Dice, hertz: Tensor) -> Tensor:
    low, high = dice.uniform(50.0, 350.0), dice.uniform(3200.0, 4000.0)
    return torch.sigmoid((high - hertz) / 60.0) * torch.sigmoid((hertz - low) / 20.0)


def _losses(dice: Dice, waves: Tensor) -> Tensor:
    """Half of the rows lose up to 12 % of their 20 ms packets, often two at a time; the packet before stands in."""
    width = waves.shape[1]
    count = -(-width // PACKET)
    packets = F.pad(waves, (0, count * PACKET - width)).view(dice.rows, count, PACKET)
    gone = dice.uniform(0.0, 1.0, count) < dice.uniform(0.0, 0.09) * dice.chance(0.5)
    gone = gone | (gone.roll(1, 1) & (dice.uniform(0.0, 1.0, count) < 0.35))
    gone[:, 0] = False
    stand_in = packets.roll(1, 1) * dice.uniform(0.0, 0.9)[:, :, None]  # 0: nothing but silence
    return torch.where(gone[:, :, None], stand_in, packets).flatten(1)[:, :width]


def _room(dice: Dice, size: int = 6400) -> Tensor:
    """(B, size) impulse responses: the direct sound, and for half of the rows early echoes and a decaying tail."""
    seconds = torch.arange(size, device=dice.device) / RATE
    decay = torch.exp(-6.9 * seconds / dice.uniform(0.05, 0.5))  # 60 dB in 0.05-0.5 s
    response = dice.normal(size) * decay * dice.uniform(0.0, 0.1) * dice.chance(0.5)
    response[:, :16] = 0.0
    echoes = (dice.uniform(24.0, 480.0, 3)).long()
    response.scatter_add_(1, echoes, dice.uniform(-0.35, 0.35, 3) * dice.chance(0.4))
    response[:, 0] = 1.0
    return response


def _noise(dice: Dice, size: int) -> Tensor:
    """(B, size) white to brown noise at 2-42 dB below 1, a third of it swelling and fading; none for 1 row of 7."""
    spectrum = torch.fft.rfft(dice.normal(size))
    shape = torch.linspace(1e-3, 1.0, spectrum.shape[1], device=dice.device)
    low, high = HELD_OUT_SLOPES
    slope = dice.uniform(0.0, 1.2 - (high - low))
    slope = slope + (high - low) * (slope >= low)
    noise = torch.fft.irfft(spectrum * shape**-slope, size)
    swell = F.interpolate(dice.uniform(0.0, 1.0, max(2, size // 4000))[:, None], size, mode="linear")[:, 0]
    noise = torch.where(dice.chance(0.33), noise * swell, noise)
    noise = noise / noise.square().mean(1, keepdim=True).sqrt().clamp_min(1e-9)
    return noise * 10 ** (-dice.uniform(2.0, 42.0) / 20) * dice.chance(0.86)


def _babble(dice: Dice, waves: Tensor) -> Tensor:
    """(B, L) the other rows of the batch talking at 10-30 dB below 1, for 1 row of 7."""
    crowd = sum((waves.roll(1 + 7 * k, dims=0) for k in range(3)), start=torch.zeros_like(waves))
    crowd = crowd / crowd.square().mean(1, keepdim=True).sqrt().clamp_min(1e-3)
    return crowd * 10 ** (-dice.uniform(10.0, 30.0) / 20) * dice.chance(0.14)


def _mu_law(waves: Tensor, loud: Tensor) -> Tensor:
    """Eight bits of G.711's mu-law and back, at the level of speech on a line."""
    scaled = (waves * (0.1 / loud)).clamp(-1, 1)
    code = torch.round(scaled.sign() * torch.log1p(255.0 * scaled.abs()) / math.log(256.0) * 127.0) / 127.0
    return code.sign() * torch.expm1(code.abs() * math.log(256.0)) / 255.0 * (loud / 0.1)


# ------------------------------------------------------------------------------------------------- body, in the mel


def warp_mel(mel: Tensor, factor: Tensor) -> Tensor:
    """Another length of the vocal tract: the frequency axis read at `factor` times its frequency.

    Linear up to 4.8 kHz, then bent so that 8 kHz stays (vocal tract length perturbation, Jaitly and Hinton 2013).

    Args:
        mel: (B, 128, T) on Slaney's scale; factor: (B,) about 0.8-1.25.
    """
    top = RATE / 2
    scale = torch.arange(1, MELS + 1, device=mel.device) * (_to_mel(torch.tensor(top)).item() / (MELS + 1))
    hertz = torch.where(scale < 15, scale * 200 / 3, 1000 * torch.exp((scale - 15) * math.log(6.4) / 27))
    factor = factor[:, None].float()
    knee = 4800.0 * factor.clamp_max(1.0)
    bend = knee / factor
    source = torch.where(
        hertz <= bend, hertz * factor, top - (top - knee) / (top - bend) * (top - hertz)
    )  # (B, 128)
    position = _to_mel(source) * ((MELS + 1) / _to_mel(torch.tensor(top)).item()) - 1
    position = position.clamp(0, MELS - 1)
    bins = torch.arange(MELS, device=mel.device)
    weights = (1 - (position[:, :, None] - bins).abs()).clamp_min(0.0)
    return weights @ mel


def _to_mel(hertz: Tensor) -> Tensor:
    bent = 15 + 27 * torch.log(hertz.clamp_min(1000.0) / 1000.0) / math.log(6.4)
    return torch.where(hertz < 1000, hertz * 3 / 200, bent)


def voiced_mel(mel: Tensor, depth: Tensor) -> Tensor:
    """Another source in the throat: the ripple of the harmonics made shallower (a breathy voice) or deeper.

    Args:
        mel: (B, 128, T) log-mel; depth: (B,) 1 = as it was, 0 = no harmonics.
    """
    smooth = F.avg_pool1d(F.pad(mel.transpose(1, 2), (4, 4), mode="replicate"), 9, 1).transpose(1, 2)
    return torch.lerp(smooth, mel, depth[:, None, None].float())
