"""How a person paces their speech: how long they pause before they go on, how fast the syllables come.

It counts samples and levels; what follows from it is for others to say. Nothing is ever forgotten at once: each new
pause moves the averages a little, and before the first they are those of an ordinary talker.
"""

from __future__ import annotations

from math import exp, log

from voiceagent.units import MODEL_RATE, samples_to_ms

SHORTEST_MS = 90  #: what is shorter is the closure of a consonant
PAUSE_MS = 300.0  #: an ordinary pause in the midst of a sentence,
SPREAD = 0.5  #: and how far pauses are from it, as the logarithm of their ratio
WEIGHT = 4.0  #: so many pauses weigh as much as what is believed beforehand,
MEMORY = 12.0  #: and more than so many are not remembered
SYLLABLES_S = 3.6  #: syllables in a second of an ordinary voice, as `Pace` counts them
SWING_DB = 4.0  #: by so much the level falls and rises between two syllables
SLOWEST, FASTEST = 2.0, 0.75  #: limits of `Pace.factor`


class Pace:
    """The running statistics of one person."""

    def __init__(self) -> None:
        self._usual, self._spread, self._pauses = log(PAUSE_MS), SPREAD, WEIGHT
        self._peaks, self._voiced = SYLLABLES_S * WEIGHT, WEIGHT  # syllables, and the seconds that they took
        self._low = self._high = 0.0
        self._rising = False

    @property
    def usual_ms(self) -> float:
        """A pause after which this person goes on, as a rule."""
        return exp(self._usual)

    @property
    def factor(self) -> float:
        """How much slower than an ordinary talker this person is, 0.75 to 2: by pauses and by syllables."""
        pauses = exp(self._usual + self._spread - log(PAUSE_MS) - SPREAD)
        syllables = SYLLABLES_S * self._voiced / max(self._peaks, 0.1)
        return min(max(pauses * min(max(syllables, 0.8), 1.25), FASTEST), SLOWEST)

    def paused(self, samples: int, *, weight: float = 1.0) -> None:
        """The person went on after a silence of so many samples at 16 kHz."""
        ms = samples_to_ms(samples, rate=MODEL_RATE)
        if ms < SHORTEST_MS:
            return
        self._pauses = min(self._pauses + weight, MEMORY)
        step = weight / self._pauses
        off = log(ms) - self._usual
        self._usual += step * off
        self._spread += step * (abs(off) - self._spread)

    def voiced(self, seconds: float, level: float | None) -> None:
        """A window of speech, and its level in decibels. A syllable is a rise and a fall of the level."""
        if level is None:
            return
        self._voiced += seconds
        if self._rising:
            self._high = max(self._high, level)
            if level < self._high - SWING_DB:
                self._rising, self._low = False, level
                self._peaks += 1.0
        else:
            self._low = min(self._low, level)
            if level > self._low + SWING_DB:
                self._rising, self._high = True, level
        if self._voiced > 2 * MEMORY:  # the past counts half
            self._voiced, self._peaks = self._voiced / 2, self._peaks / 2
