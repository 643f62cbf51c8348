"""What may be heard behind a voice or alone: a bell, a siren, rain, a bark, music; made of sums, 16 kHz.

Every sound is a recipe with a few numbers. Training draws each from its range without the middle fifth, examinations
from the middle fifth: `between` decides. Nothing here speaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt

RATE = 16_000
Signal = npt.NDArray[np.float64]
HELD_OUT = (0.4, 0.6)  # of every range, on a logarithmic scale


def between(rng: Random, low: float, high: float, *, held_out: bool) -> float:
    """A value of low..high (> 0): from the held-out middle fifth, or from anywhere else."""
    first, last = HELD_OUT
    if held_out:
        share = rng.uniform(first, last)
    else:
        share = rng.random() * (1 - (last - first))
        share += (last - first) * (share >= first)
    return low * (high / low) ** share


def make(name: str, rng: Random, count: int, *, held_out: bool) -> Signal:
    """(count,) of unit power where it sounds. Raises KeyError for an unknown name."""
    signal = RECIPES[name](rng, count, held_out)
    blocks = np.sqrt((signal[: count // 160 * 160].reshape(-1, 160) ** 2).mean(1) + 1e-12)
    loud = blocks[blocks > 0.1 * blocks.max(initial=1e-6)]
    return signal / (np.sqrt((loud**2).mean()) if len(loud) else 1.0)


def bell(rng: Random, count: int, held_out: bool) -> Signal:
    """Strokes of a door bell, a desk bell or a telephone: partials that are no overtones and die away one by one."""
    tone = between(rng, 380, 2200, held_out=held_out)
    decay = between(rng, 0.12, 0.9, held_out=held_out)
    pause = between(rng, 0.09, 1.2, held_out=held_out)
    ratios = (1.0, 2.0, 2.76, 4.07, 5.4)
    second = rng.choice((1.0, 0.8, 1.26))  # ding-dong
    signal, start, number = np.zeros(count), rng.uniform(0, 0.3), 0
    while start < count / RATE:
        at = int(start * RATE)
        time = np.arange(count - at) / RATE
        root = tone * (second if number % 2 else 1.0)
        for order, ratio in enumerate(ratios):
            if root * ratio < 7600:
                signal[at:] += (
                    np.exp(-time * (1 + order) / decay)
                    * np.sin(2 * np.pi * root * ratio * time)
                    / (1 + order)
                )
        start, number = start + pause * rng.uniform(0.95, 1.05), number + 1
    return signal


def siren(rng: Random, count: int, held_out: bool) -> Signal:
    """A tone that wails up and down, or changes between two pitches."""
    time = np.arange(count) / RATE
    low, span = between(rng, 420, 800, held_out=held_out), between(rng, 1.35, 2.4, held_out=held_out)
    period = between(rng, 0.35, 5.0, held_out=held_out)
    phase = rng.random()
    swing = (time / period + phase) % 1.0
    shape = rng.choice(("wail", "yelp", "two"))
    if shape == "two":
        height = (swing < 0.5).astype(float)
    else:
        height = 0.5 - 0.5 * np.cos(2 * np.pi * swing) if shape == "wail" else 1 - np.abs(2 * swing - 1)
    angle = 2 * np.pi * np.cumsum(low * span**height) / RATE
    return np.sin(angle) + 0.4 * np.sin(2 * angle) + 0.25 * np.sin(3 * angle)


def rain(rng: Random, count: int, held_out: bool) -> Signal:
    """A steady hiss and very many small drops."""
    source = np.random.default_rng(rng.randrange(1 << 32))
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    corner = between(rng, 500, 2500, held_out=held_out)
    band = hertz / (hertz + corner) / (1 + (hertz / 6500) ** 4)
    hiss = np.fft.irfft(np.fft.rfft(source.standard_normal(count)) * band, count)
    drops = np.zeros(count)
    number = int(count / RATE * between(rng, 60, 900, held_out=held_out))
    np.add.at(drops, source.integers(0, count, number), source.exponential(1.0, number))
    length = between(rng, 12, 90, held_out=held_out)
    grain = np.exp(-np.arange(400) / length) * np.sin(
        np.arange(400) * 2 * np.pi * between(rng, 0.08, 0.3, held_out=held_out)
    )
    drops = np.convolve(drops, grain)[:count]
    return hiss / (hiss.std() + 1e-9) + rng.uniform(0.5, 1.5) * drops / (drops.std() + 1e-9)


def bark(rng: Random, count: int, held_out: bool) -> Signal:
    """A dog-like bark: short, harsh, falling in pitch, in groups."""
    pitch = between(rng, 160, 520, held_out=held_out)
    length = between(rng, 0.09, 0.26, held_out=held_out)
    pause = between(rng, 0.22, 0.8, held_out=held_out)
    centre = between(rng, 600, 1500, held_out=held_out)
    source = np.random.default_rng(rng.randrange(1 << 32))
    signal, start = np.zeros(count), rng.uniform(0.02, 0.3)
    while start < count / RATE:
        size = int(length * rng.uniform(0.85, 1.15) * RATE)
        time = np.arange(size) / size
        fall = pitch * (1.15 - 0.5 * (time - 0.25) ** 2 * 3) * (1 + 0.05 * source.standard_normal())
        angle = 2 * np.pi * np.cumsum(np.maximum(fall, 60)) / RATE
        voice = sum(np.sin(k * angle) for k in range(1, 14)) + 1.5 * source.standard_normal(size)
        hertz = np.fft.rfftfreq(size, 1 / RATE)
        mouth = 1 / (1 + ((hertz - centre) / (0.6 * centre)) ** 2)
        hit = np.fft.irfft(np.fft.rfft(voice) * mouth, size) * np.sin(np.pi * time**0.5) ** 2
        at = int(start * RATE)
        signal[at : at + size] += hit[: count - at]
        start += pause * rng.choice((1, 1, 1, 2.5)) * rng.uniform(0.9, 1.1) + length
    return signal


def music(rng: Random, count: int, held_out: bool) -> Signal:
    """A tune over chords: plucked or sustained notes on a beat, overtones as of strings, reeds or a music box."""
    time = np.arange(count) / RATE
    beat = between(rng, 0.18, 0.7, held_out=held_out)
    root = 110 * 2 ** math.log2(between(rng, 1.0, 2.6, held_out=held_out))
    slope = between(rng, 0.6, 2.2, held_out=held_out)
    sustain = between(rng, 0.1, 1.2, held_out=held_out)
    scale = rng.choice(((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9)))
    overtones = [(k, k**-slope) for k in range(1, 8)]
    signal, step, degree = np.zeros(count), 0, 0
    while step * beat < count / RATE:
        at = int(step * beat * RATE)
        after = time[: count - at]
        envelope = np.exp(-after / sustain) * np.minimum(1, after * 200)
        degree = max(-3, min(8, degree + rng.choice((-2, -1, 1, 2, 3))))
        notes = [(degree, 12, 1.0)]
        if step % 4 == 0:
            bass = rng.choice((0, 3, 4, 5))
            notes += [(bass, 0, 0.8), (bass + 2, 0, 0.5), (bass + 4, 0, 0.5)]
        for number, octave, loud in notes:
            octaves, place = divmod(number, len(scale))
            tone = root * 2 ** ((scale[place] + 12 * octaves + octave) / 12)
            for k, weight in overtones:
                if tone * k < 7500:
                    signal[at:] += loud * weight * envelope * np.sin(2 * np.pi * tone * k * after)
        step += 1
    return signal


RECIPES: dict[str, Callable[[Random, int, bool], Signal]] = {
    "bell": bell,
    "siren": siren,
    "rain": rain,
    "bark": bark,
    "music": music,
}
