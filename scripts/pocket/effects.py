"""What happens to a voice between the synthesiser and us, for one recording: body, breath, drift, noise, telephone.

All in numpy on 16 kHz int16; what training does to whole batches on the device is in features.py. It chooses no words.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt
from engines import RATE, Spoken, Wave
from voices import Voice

Signal = npt.NDArray[np.float64]
FRAME, HOP, ORDER, BINS = 512, 128, 18, 257


def before_warp(voice: Voice) -> Voice:
    """What the engine must make so that the tempo is right behind the warp."""
    return voice if voice.warp == 1.0 else replace(voice, rate=voice.rate / voice.warp)


def warped(spoken: Spoken, warp: float) -> Spoken:
    """Formants and pitch `warp` times higher, and the whole so much shorter."""
    if warp == 1.0 or not len(spoken.samples):
        return spoken
    count = max(1, int(len(spoken.samples) / warp))
    samples = np.interp(np.arange(count) * warp, np.arange(len(spoken.samples)), spoken.samples)
    return Spoken(samples.astype(np.int16), tuple((place, int(at / warp)) for place, at in spoken.ends))


def whispered(samples: Wave, *, breath: float = 1.0, seed: int = 0) -> Wave:
    """The same mouth without, or with less, voice: noise through the filter that linear prediction finds.

    Args:
        breath: 1 = a whisper; between 0 and 1 a breathy voice, the share of the noise.
    """
    if len(samples) < FRAME:
        return samples
    signal = np.pad(samples.astype(np.float64), (FRAME, FRAME))
    window = np.hanning(FRAME + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::HOP] * window
    power = np.abs(np.fft.rfft(frames, 2 * FRAME)) ** 2
    correlation = np.fft.irfft(power)[:, : ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * 1.0005 + 1.0
    lags = np.abs(np.subtract.outer(np.arange(ORDER), np.arange(ORDER)))
    predictor = np.linalg.solve(correlation[:, lags], correlation[:, 1:, None])[..., 0]
    residual = np.maximum(correlation[:, 0] - (predictor * correlation[:, 1:]).sum(1), 1e-3)
    inverse = np.fft.rfft(np.pad(-predictor, ((0, 0), (1, 0))) + np.eye(1, ORDER + 1), FRAME)
    envelope = np.sqrt(residual)[:, None] / np.maximum(np.abs(inverse), 1e-4)
    hertz = np.linspace(0, RATE / 2, BINS)
    envelope *= hertz / (hertz + 500.0)  # no voice: little below the first formant
    noise = np.random.default_rng(seed + len(samples)).standard_normal(len(signal))
    spectrum = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(noise, FRAME)[::HOP] * window)
    rows = np.fft.irfft(spectrum / np.sqrt(FRAME) * envelope / np.sqrt(1.5), FRAME) * window
    made = np.zeros(len(signal))
    for row, start in zip(rows, range(0, len(signal), HOP), strict=False):
        made[start : start + FRAME] += row
    made = made[FRAME:-FRAME]
    if breath < 1.0:
        made = (1 - breath) * samples + breath * made * 2.0
    else:
        made *= 0.5 * _level(samples.astype(np.float64)) / max(1.0, _level(made))
    return _clipped(made)


def human(samples: Wave, rng: Random) -> Wave:
    """Farther from a machine: pitch and tempo drift, breath in the voice, its loudness wanders, a room around it."""
    if len(samples) < FRAME:
        return samples
    breathy = whispered(samples, breath=rng.uniform(0.05, 0.3), seed=rng.randrange(1 << 20))
    drifted = drift(breathy.astype(np.float64), rng, depth=0.07)
    swell = np.interp(
        np.arange(len(drifted)),
        np.linspace(0, len(drifted), 7),
        [10 ** (rng.uniform(-4, 4) / 20) for _ in range(7)],
    )
    return _clipped(noisy(room(drifted * swell, rng), rng, decibel=rng.uniform(18, 30)))


def drift(signal: Signal, rng: Random, *, depth: float) -> Signal:
    """Played a little faster here and slower there, which moves pitch and tempo by at most `depth`."""
    knots = max(3, len(signal) // 4000)
    pace = np.interp(
        np.arange(len(signal)),
        np.linspace(0, len(signal), knots),
        [1 + rng.uniform(-depth, depth) for _ in range(knots)],
    )
    places = np.cumsum(pace)
    return np.interp(np.arange(0, places[-1]), places, signal)


def room(signal: Signal, rng: Random) -> Signal:
    """A few early echoes and a decaying tail, 0.15 to 0.4 s."""
    size = int(rng.uniform(0.15, 0.4) * RATE)
    source = np.random.default_rng(rng.randrange(1 << 32))
    tail = source.standard_normal(size) * np.exp(-6.9 * np.arange(size) / size) * rng.uniform(0.02, 0.06)
    tail[:32] = 0.0
    tail[0] = 1.0
    for _ in range(4):
        tail[rng.randrange(40, 480)] += rng.uniform(-0.35, 0.35)
    whole = len(signal) + size
    return np.fft.irfft(np.fft.rfft(signal, whole) * np.fft.rfft(tail, whole), whole)[: len(signal)]


def noisy(signal: Signal, rng: Random, *, decibel: float, noise: Signal | None = None) -> Signal:
    """With noise `decibel` below the speech; without `noise`, pink."""
    if noise is None:
        shape = np.maximum(np.fft.rfftfreq(len(signal), 1 / RATE), 40.0) ** -0.5
        white = np.random.default_rng(rng.randrange(1 << 32)).standard_normal(len(signal))
        noise = np.fft.irfft(np.fft.rfft(white) * shape, len(signal))
    return signal + noise / (_level(noise) + 1e-9) * loudness(signal) * 10 ** (-decibel / 20)


def loudness(signal: Signal) -> float:
    """Root of the mean power where somebody speaks: of the 20 ms blocks within 25 dB of the loudest."""
    blocks = np.sqrt((signal[: len(signal) // 320 * 320].reshape(-1, 320) ** 2).mean(1) + 1e-9)
    if not len(blocks):
        return _level(signal)
    return float(np.sqrt((blocks[blocks > blocks.max() * 0.056] ** 2).mean()))


def telephone(samples: Wave, rng: Random, *, loss: float) -> Wave:
    """300 to 3400 Hz, G.711 (mu-law), and `loss` of the 20 ms packets gone, filled with the last one, fading."""
    signal = samples.astype(np.float64)
    size = -(-len(signal) // 8000) * 8000 + 8000
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    band = 1 / (1 + np.exp((hertz - 3400) / 60)) / (1 + np.exp((280 - hertz) / 25))
    narrow = np.fft.irfft(np.fft.rfft(signal, size) * band, size)[: len(signal)]
    scaled = np.clip(narrow / 32768, -1, 1)
    code = np.round(np.sign(scaled) * np.log1p(255 * np.abs(scaled)) / np.log(256) * 127) / 127
    heard = np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255 * 32768
    packets = len(heard) // 320
    faded = 0.0
    for packet in range(1, packets):
        if rng.random() < (loss if not faded else 0.35):  # losses come in bursts
            faded = faded * 0.6 if faded else 0.8
            at = packet * 320
            heard[at : at + 320] = heard[at - 320 : at] * faded
        else:
            faded = 0.0
    return _clipped(heard)


def _level(signal: Signal) -> float:
    return float(np.sqrt(np.mean(signal**2))) if len(signal) else 0.0


def _clipped(signal: Signal) -> Wave:
    return np.clip(signal, -32768, 32767).astype(np.int16)
