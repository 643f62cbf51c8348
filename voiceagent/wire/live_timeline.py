"""The one timeline of a Live session: milliseconds since it started, for what is heard, said and appended.

It knows a clock and how many samples went each way; it knows no message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from voiceagent.units import MODEL_RATE, VOICE_RATE, samples_to_ms

JITTER_MS = 40  #: audio that comes later than before by no more than this came on time
BREAKS = 64  #: pauses of the input that are remembered; transcripts come within a few seconds


class Timeline:
    """Places on the timeline.

    Audio takes as long as it sounds: what comes faster than it sounds (a file) stands where it would have been heard,
    what comes after a pause stands behind the pause.

    Args:
        clock: seconds on any clock that does not go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._breaks: deque[tuple[int, int]] = deque(
            [(0, 0)], maxlen=BREAKS
        )  # (input ms, ms later than that)
        self._said = 0  # end of what was said

    @property
    def now(self) -> int:
        """Where we are."""
        return max(0, int((self._clock() - self._start) * 1000))

    def hear(self, at: int, samples: int) -> None:
        """Input of so many samples at 16 kHz has arrived, the first of which is `at`."""
        late = self.now - samples_to_ms(at + samples, rate=MODEL_RATE)
        if late > self._breaks[-1][1] + JITTER_MS:
            self._breaks.append((samples_to_ms(at, rate=MODEL_RATE), late))

    def heard(self, input_ms: int) -> int:
        """Where that place of the input is, which counts the audio alone."""
        for start, late in reversed(self._breaks):
            if input_ms >= start:
                return input_ms + late
        return input_ms

    def say(self, samples: int) -> tuple[int, int]:
        """Output of so many samples at 24 kHz goes out now: where it begins and ends."""
        start = max(self.now, self._said)
        self._said = start + samples_to_ms(samples, rate=VOICE_RATE)
        return start, self._said

    def hush(self) -> None:
        """What was to be said from now on is not."""
        self._said = min(self._said, self.now)
