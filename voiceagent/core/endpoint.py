"""From speech probabilities to voice on and voice off: hysteresis and minimum lengths, on the clock of the samples.

It knows nothing of turns; what an onset or a pause means is the controller's decision.
"""

from __future__ import annotations

from dataclasses import dataclass

from voiceagent.units import MODEL_RATE

WINDOW = 512  #: samples at 16 kHz per probability (32 ms)
ONSET_WINDOWS = 3  #: consecutive speech windows that make an onset (96 ms): a click or a key press is shorter
HYSTERESIS = (
    0.15  #: once on, speech ends below threshold - HYSTERESIS, so that a weak syllable does not cut it
)


@dataclass(frozen=True, slots=True)
class VoiceOn:
    """Speech began at sample `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class VoiceOff:
    """Speech ended at sample `at`; a pause or the end, time will tell."""

    at: int


class Endpointer:
    """Turns probabilities of 32 ms windows into onsets and pauses."""

    def __init__(self, threshold: float) -> None:
        self._on_at = threshold
        self._off_at = max(0.01, threshold - HYSTERESIS)
        self._run = 0
        self._run_start = 0
        self.speaking = False
        self.speech_end = 0  #: last sample that belonged to speech

    def push(self, at: int, probability: float) -> VoiceOn | VoiceOff | None:
        """One window that ends at sample `at`."""
        if self.speaking:
            if probability >= self._off_at:
                self.speech_end = at
                return None
            self.speaking = False
            self._run = 0
            return VoiceOff(self.speech_end)
        if probability < self._on_at:
            self._run = 0
            return None
        if self._run == 0:
            self._run_start = max(0, at - WINDOW)
        self._run += 1
        if self._run < ONSET_WINDOWS:
            return None
        self.speaking = True
        self.speech_end = at
        return VoiceOn(self._run_start)


def ms(milliseconds: int) -> int:
    """Milliseconds as 16 kHz samples."""
    return milliseconds * MODEL_RATE // 1000
