#!/usr/bin/env python3
"""How well the server takes its own voice out of what comes in, in simulated rooms, and what that costs.

Our voice is recorded questions, one behind the other; it comes back by way of a room (150 ms of fading echoes), later
and weaker, with noise at -70 dB, in wide band or as a telephone carries it (8 kHz mu-law). Somebody speaks over it for
a while. Prints a table and what it means.

    python3 scripts/bench/echo.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from voiceagent.audio.g711 import mulaw_decode, mulaw_encode  # noqa: E402
from voiceagent.core.echo import BLOCK, EchoCanceller  # noqa: E402

RATE = 16_000
Samples = npt.NDArray[np.float64]
LINES = [
    (80, -24, False),
    (180, -12, False),
    (180, -12, True),
    (300, -6, False),
    (700, -12, False),
    (180, 0, True),
]
LEARNT_S = 4  # from here on figures count
NEAR_S = 20  # when somebody speaks


def voice(*names: str) -> Samples:
    """Recorded sentences, at -20 dB."""
    folder = ROOT / "tests" / "data" / "questions"
    whole = np.concatenate([soundfile.read(folder / f"{name}.flac")[0] for name in names])
    return np.asarray(whole * 0.1 / whole.std())


def room(delay_ms: int, random: np.random.Generator) -> Samples:
    """An impulse response of power 1."""
    tail = 0.35 * random.normal(size=2400) * np.exp(-np.arange(2400) / 480)
    tail[0] = 1.0
    return np.concatenate([np.zeros(delay_ms * RATE // 1000), tail / np.sqrt(np.sum(tail**2))])


def telephone(sound: Samples) -> Samples:
    """8 kHz mu-law and back."""
    narrow = np.round(np.clip(soxr.resample(sound, RATE, 8000), -1, 1) * 32767).astype(np.int16)
    back = soxr.resample(mulaw_decode(mulaw_encode(narrow)) / 32768, 8000, RATE)
    return np.asarray(np.pad(back, (0, len(sound)))[: len(sound)])


def level(sound: Samples) -> float:
    """Decibels."""
    return float(10 * np.log10(np.mean(sound**2) + 1e-12))


def measure(delay_ms: int, level_db: float, phone: bool, *, seed: int) -> str:
    """One row of the table."""
    random = np.random.default_rng(seed)
    ours = np.tile(voice("book", "count", "hours", "name", "order"), 4)
    theirs = voice("price", "order")
    near = np.zeros(len(ours))
    near[NEAR_S * RATE : NEAR_S * RATE + len(theirs)] = theirs
    echo = np.convolve(ours, room(delay_ms, random))[: len(ours)] * 10 ** (level_db / 20)
    heard = echo + near + random.normal(0, 3e-4, len(ours))
    heard = telephone(heard) if phone else heard
    canceller, made, voices = EchoCanceller(), [], []
    began = time.process_time()
    for at in range(0, len(ours), BLOCK):
        canceller.played.write(at, ours[at : at + BLOCK].astype(np.float32))
        made.append(canceller.hear(heard[at : at + BLOCK].astype(np.float32)))
        voices.append(not canceller.ours)
    cost = (time.process_time() - began) / (len(ours) / RATE)
    left = np.concatenate([*made, canceller.flush()]).astype(np.float64)
    alone = np.ones(len(left), bool)
    alone[: LEARNT_S * RATE] = alone[(NEAR_S - 1) * RATE : (NEAR_S + 1) * RATE + len(theirs)] = False
    blocks = alone[: len(voices) * BLOCK : BLOCK]
    false = float(np.mean(np.array(voices)[: len(blocks)][blocks]))
    during = slice(NEAR_S * RATE, NEAR_S * RATE + len(theirs))
    kept = level(left[during]) - level(telephone(near)[during] if phone else near[during])
    found = canceller.report.delay_ms
    weaker = level(heard[alone]) - level(left[alone])
    return (
        f"| {'telephone' if phone else 'wide band'} | {delay_ms} ms | {level_db} dB | {found} ms "
        f"| {weaker:.0f} dB | {100 * false:.1f} % | {kept:+.1f} dB | {100 * cost:.1f} % |"
    )


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of rooms and noise")
    seed = parser.parse_args().seed
    print(
        "| line | delay | echo | found | weaker by | taken for a voice | their voice over ours | of a core |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for delay_ms, level_db, phone in LINES:
        print(measure(delay_ms, level_db, phone, seed=seed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
