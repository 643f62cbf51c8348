"""How long a silence must last until a turn is over: by the words, their completeness and the speaker's own pace.

It hears no sound and asks nobody: verdicts are brought to it, or not. The rule, in the order of what is known:

- no verdict (it has not come, or the engine is away): the plain silence of the settings, longer for a slow talker;
- a verdict: the words' completeness and the fall of the voice make one evidence. By it the silence lies between `least`
  (surely complete) and `most` (surely not), evenly on the logarithm of the time, and the less sure it is, the more the
  talker's pace counts. Behind digits or letters `spelled` is the least; behind words after which something follows no
  evidence is sure;
- never longer than `most`, whatever is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

from voiceagent.core.cadence import Cadence
from voiceagent.core.options import Eagerness, ServerVad
from voiceagent.core.pace import Pace
from voiceagent.core.wording import Tail, tail
from voiceagent.units import MODEL_RATE, ms_to_samples

EndReason = Literal[
    "silence", "complete", "incomplete", "spelled", "longest_wait", "no_input", "too_long", "committed"
]
"""Why a turn of a person's was over: the plain silence was long enough; their words were judged complete, or were not
and the silence was long enough even so; also behind digits or letters; the longest wait was over; no input came any
more; nobody speaks that long; the client said so."""

SILENCE: EndReason = "silence"
FALL_DB, PER_DB = 2.5, 0.6  #: an ordinary fall of the voice at an end, and how much evidence each decibel is
FALLS_DB = (-2.0, 7.0)  #: evidence is in what lies between
KNOWN = 3.5  #: words alone are not surer than this (log odds: 0.97)
SURE, OPEN = 3.0, 0.0  #: log odds at and above which words count as surely complete, and below as surely not
SPELLED = 3.0  #: added where something is spelled: no model knows how long a number is
CAPS = {Tail.LEANING: 0.8, Tail.HANGING: -3.0}  #: log odds at most, whatever model and voice say


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds of silence: behind a complete sentence, behind something spelled, at most."""

    least: int
    spelled: int
    most: int


WAITS: dict[Eagerness, Waits] = {
    "low": Waits(600, 2000, 8000),
    "medium": Waits(192, 1200, 4000),
    "high": Waits(160, 700, 2000),
}


class Patience:
    """The patience with one person.

    Args:
        vad: settings; without an eagerness only the plain silence counts.

    Attributes:
        pace: how the person speaks.
        cadence: how their voice falls.
        wait: samples at 16 kHz of silence that end the turn, by what is known now.
        reason: why a turn is over that ends by it.
    """

    def __init__(self, vad: ServerVad) -> None:
        self.pace, self.cadence = Pace(), Cadence()
        self._words: tuple[Tail, float] | None = None  # how they end, and the evidence that they are complete
        self.configure(vad)

    def configure(self, vad: ServerVad) -> None:
        """Other settings from now on; what is known of the person stays."""
        self._plain = vad.silence_duration_ms
        self._waits = None if vad.eagerness is None else WAITS[vad.eagerness]
        self._decide()

    def voiced(self, seconds: float, level: float | None) -> None:
        """A window of speech, and its level in decibels if that is known."""
        self.pace.voiced(seconds, level)
        self.cadence.hear(level)

    def paused(self) -> None:
        """The person has stopped speaking, for how long nobody knows."""
        self._words = None
        self._decide()

    def resumed(self, silence: int, *, cut: bool) -> None:
        """They go on after so many samples of silence; `cut`: we had taken that for an end, and were wrong."""
        self.pace.paused(silence, weight=2.0 if cut else 1.0)

    def told(self, text: str, complete: float) -> None:
        """A verdict: what they said so far, and how likely it is that nothing follows; NaN counts as 0."""
        end = tail(text)
        self._words = end, min(_evidence(complete, self.cadence.fall_db), CAPS.get(end, KNOWN + SPELLED))
        self._decide()

    def _decide(self) -> None:
        wait, reason = float(self._plain), SILENCE
        if self._waits is not None:
            wait *= max(self.pace.factor, 1.0)
            if self._words is not None:
                wait, reason = self._weigh(self._waits, *self._words)
            if wait >= self._waits.most:
                wait, reason = float(self._waits.most), "longest_wait"
        self.wait, self.reason = ms_to_samples(wait, rate=MODEL_RATE), reason

    def _weigh(self, waits: Waits, end: Tail, evidence: float) -> tuple[float, EndReason]:
        spelled = end is Tail.SPELLED
        sure = min(max((evidence + SPELLED * spelled - OPEN) / (SURE - OPEN), 0.0), 1.0)
        least = waits.spelled if spelled else waits.least
        reason: EndReason = "spelled" if spelled else "complete" if sure == 1.0 else "incomplete"
        # Who has surely finished need not be given time, however slow they speak.
        pace = self.pace.factor if spelled else self.pace.factor ** (1.0 - sure)
        return float(least**sure * waits.most ** (1.0 - sure) * pace), reason


def _evidence(complete: float, fall_db: float | None) -> float:
    """Log odds that they have finished: by the words, and by how the voice falls. NaN counts as 0."""
    likely = min(max(complete, 1e-3), 1.0 - 1e-3) if complete >= 0.0 else 1e-3
    words = min(log(likely / (1.0 - likely)), KNOWN)
    if fall_db is None:
        return words
    return words + PER_DB * (min(max(fall_db, FALLS_DB[0]), FALLS_DB[1]) - FALL_DB)
