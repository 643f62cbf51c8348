"""Listens to the training speech by numbers: are styles, backgrounds and channels what they are called?

    TTS_ROOT=/tmp/tts PYTHONPATH=. python3 scripts/pocket/listen.py [--count N] [--bank caller] [--wav DIR]

Prints, for every style, background and channel, medians over N recordings: seconds, pitch of women and of men (Hz),
its range (semitones between the 10th and the 90th percentile), voiced share, harmonics over noise (dB, of the voiced
frames) and level (dB of full scale, of the 20 ms that are within 25 dB of the loudest). Judges no words.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

import effects
import gen_data
import synth
from task import BACKGROUNDS, STYLES, Sound

from scripts.pocket.hift_data import track_pitch

SENTENCES = (
    "i would like to book a table for two on sunday",
    "what time does the restaurant open tomorrow morning",
    "my sister lives in a small village near the river",
    "please tell me the price of the blue lamp",
)
COLUMNS = ("seconds", "women Hz", "men Hz", "range", "voiced", "harmonic", "level")


def numbers(samples: synth.Wave, sex: str) -> dict[str, float]:
    """The columns of one recording."""
    signal = samples.astype(np.float32) / 32768
    pitch = track_pitch(torch.from_numpy(signal)[None])[0].numpy()
    voiced = pitch[pitch > 0]
    found = {"seconds": len(samples) / synth.RATE, "voiced": len(voiced) / max(1, len(pitch))}
    found["level"] = 20 * np.log10(effects.loudness(signal.astype(np.float64)) + 1e-6)
    if len(voiced) > 10:
        low, middle, high = np.percentile(voiced, (10, 50, 90))
        found |= {
            "women Hz" if sex == "female" else "men Hz": float(middle),
            "range": 12 * np.log2(high / low),
        }
        found["harmonic"] = float(np.median([harmonic(signal, at, hertz) for at, hertz in _frames(pitch)]))
    return {name: float(value) for name, value in found.items()}


def _frames(pitch: NDArray[np.float32]) -> list[tuple[int, float]]:
    return [(int(i) * 320 + 160, float(pitch[i])) for i in np.flatnonzero(pitch > 0)]


def harmonic(signal: NDArray[np.float32], at: int, hertz: float) -> float:
    """dB of what repeats after one period over what does not, in 40 ms around sample `at` (Boersma 1993)."""
    lag = round(synth.RATE / hertz)
    part = signal[max(0, at - 320) : at + 320 + lag + 2].astype(np.float64)
    if len(part) <= lag + 322:
        return 0.0
    best = 0.0
    for step in (lag - 1, lag, lag + 1):
        a, b = part[: len(part) - step], part[step:]
        best = max(best, float(a @ b / (np.sqrt((a @ a) * (b @ b)) + 1e-9)))
    best = min(0.9999, max(1e-4, best))
    return 10 * float(np.log10(best / (1 - best)))


def row(name: str, items: list[gen_data.Item], folder: Path | None) -> None:
    """One line of the table."""
    seen: dict[str, list[float]] = defaultdict(list)
    for number, item in enumerate(items):
        samples, _, _ = gen_data.make_marked(item)
        for column, value in numbers(samples, item.voice.sex).items():
            seen[column].append(value)
        if folder and number < 2:
            write(folder / f"{name.replace(' ', '_')}_{number}.wav", samples)
    cells = [f"{np.median(seen[column]):9.2f}" if seen[column] else f"{'-':>9s}" for column in COLUMNS]
    print(f"{name:18s}" + "".join(cells), flush=True)


def write(path: Path, samples: synth.Wave) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, synth.RATE, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=24, help="recordings per line")
    parser.add_argument("--bank", default="caller", help="whose voices say the styles")
    parser.add_argument("--wav", type=Path, help="folder for two recordings of each line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.wav:
        args.wav.mkdir(parents=True, exist_ok=True)

    def sounds(**fields: str) -> list[Sound]:
        return [
            Sound(SENTENCES[i % len(SENTENCES)], sex=("female", "male")[i % 2], **fields)
            for i in range(args.count)
        ]

    print(f"{'':18s}" + "".join(f"{column:>9s}" for column in COLUMNS))
    for style in STYLES:
        row(style, gen_data.heard_items(sounds(style=style), args.bank), args.wav)
    for background in BACKGROUNDS:
        row(f"with {background}", gen_data.heard_items(sounds(background=background), args.bank), args.wav)
        alone = [Sound("", kind="silence", background=background) for _ in range(args.count)]
        row(f"{background} alone", gen_data.heard_items(alone, args.bank), args.wav)
    for bank in gen_data.TESTS:
        row(bank, gen_data.heard_items(sounds(), bank), args.wav)
    return 0


if __name__ == "__main__":
    sys.exit(main())
