"""How long a silence must last until a turn is over: by the words, their completeness and the speaker's own pace.

It hears no sound and asks nobody: verdicts are brought to it, or not. The rule, in the order of what is known:

- no verdict (it has not come, or the engine is away): the plain silence of the settings, longer for a slow talker;
- a verdict: between `least` (surely complete) and `most` (surely not), evenly on the logarithm of the time, times the
  talker's pace; at least `spelled` behind digits or letters, long behind words after which something follows;
- never longer than `most`, whatever is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voiceagent.core.events import Eagerness, ServerVad
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
SURE, OPEN = 0.9, 0.2  #: at and above, words count as surely complete; at and below, as surely not
CAPS = {Tail.LEANING: 0.45, Tail.HANGING: 0.1}  #: however complete the model thinks words are that end so


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds of silence: behind a complete sentence, behind something spelled, at most."""

    least: int
    spelled: int
    most: int


WAITS: dict[Eagerness, Waits] = {
    "low": Waits(600, 2000, 8000),
    "medium": Waits(256, 1200, 4000),
    "high": Waits(160, 700, 2000),
}


class Patience:
    """The patience with one person.

    Args:
        vad: settings; without an eagerness only the plain silence counts.

    Attributes:
        pace: how the person speaks.
        wait: samples at 16 kHz of silence that end the turn, by what is known now.
        reason: why a turn is over that ends by it.
    """

    def __init__(self, vad: ServerVad) -> None:
        self.pace = Pace()
        self._words: tuple[Tail, float] | None = None  # how they end, and how likely they are complete
        self.configure(vad)

    def configure(self, vad: ServerVad) -> None:
        """Other settings from now on; what is known of the person stays."""
        self._plain = vad.silence_duration_ms
        self._waits = None if vad.eagerness is None else WAITS[vad.eagerness]
        self._decide()

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
        self._words = end, min(complete if complete >= 0.0 else 0.0, CAPS.get(end, 1.0))
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

    def _weigh(self, waits: Waits, end: Tail, complete: float) -> tuple[float, EndReason]:
        sure = min(max((complete - OPEN) / (SURE - OPEN), 0.0), 1.0)
        wait = waits.least**sure * waits.most ** (1.0 - sure)
        reason: EndReason = "complete" if sure == 1.0 else "incomplete"
        if end is Tail.SPELLED and wait < waits.spelled:
            wait, reason = waits.spelled, "spelled"
        return wait * self.pace.factor, reason
