"""What speech at another speed costs: processor time for a second of what is heard, on one core."""

from __future__ import annotations

import argparse
import time
import wave
from pathlib import Path

import numpy as np

from voiceagent.audio.tempo import Tempo
from voiceagent.units import VOICE_RATE

VOICE = Path(__file__).resolve().parents[2] / "voiceagent" / "assets" / "pocket" / "default_female.wav"
CHUNK = VOICE_RATE  #: the vocoder hands over about this much at a time


def main() -> None:
    """Prints a line for every speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of speech that is stretched for each speed")
    seconds = parser.parse_args().seconds
    with wave.open(str(VOICE)) as file:
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    speech = np.resize(voice, seconds * VOICE_RATE)
    for speed in (0.25, 0.5, 0.8, 1.0, 1.25, 1.5, 4.0):
        tempo, began = Tempo(speed), time.process_time()
        for start in range(0, len(speech), CHUNK):
            tempo.push(speech[start : start + CHUNK])
        tempo.finish()
        took = time.process_time() - began
        print(f"speed {speed:4}: {1000 * took * VOICE_RATE / tempo.given:5.1f} ms a second of what is heard")


if __name__ == "__main__":
    main()
