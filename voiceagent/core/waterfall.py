"""Where the time of an answer went, from a person's last word to the first of the answer that was sent. No clock."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Literal

Cause = Literal["speech", "request"]
"""What an answer's time is counted from: a person's last word, or a client's request."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The parts of one answer's latency, whole microseconds one after the other; they add up to `total` exactly.

    Attributes:
        turn: number of the answer.
        cause: what began it.
        endpoint: silence until it was clear that the person had finished; 0 of a request.
        waiting: an earlier answer was still being made.
        queue: other work of the engine, and the way there.
        encode: the engine read the person's last audio.
        prefill: the prompt was read, up to the first token.
        thought: the model thought, up to the first token of the answer.
        speech: from there to the first sound: the tokens of the first chunk, and the vocoder; 0 of a written answer.
        pacing: the sound was there and was not sent yet.
        saved: no part of it: how much earlier it was there because it was begun on a guess.
        sent: when the first of it was sent, seconds of the call's clock; no part of it either.
    """

    turn: int
    cause: Cause
    endpoint: int = 0
    waiting: int = 0
    queue: int = 0
    encode: int = 0
    prefill: int = 0
    thought: int = 0
    speech: int = 0
    pacing: int = 0
    saved: int = 0
    sent: float = field(default=0.0, compare=False)

    @property
    def parts(self) -> dict[str, int]:
        """Microseconds by name, in the order in which they passed."""
        return {each.name: getattr(self, each.name) for each in fields(self)[2:-2]}

    @property
    def total(self) -> int:
        """Microseconds from the last word, or the request, to the first sound or text that was sent."""
        return sum(self.parts.values())

    def milliseconds(self) -> dict[str, int]:
        """The parts in whole milliseconds; they add up to the total in whole milliseconds, rounded."""
        shown, passed = {}, 0
        for name, part in self.parts.items():
            shown[name] = _rounded(passed + part) - _rounded(passed)
            passed += part
        return shown


def _rounded(microseconds: int) -> int:
    return (microseconds + 500) // 1000


@dataclass(slots=True)
class Stopwatch:
    """When things happened to one answer, seconds of any clock; None = not, or not yet.

    Attributes:
        begun: the last word, or the request.
        decided: the person had finished.
        asked: the engine was asked.
        started: the engine began with it.
        encoded: seconds of its work on the person's audio, before it began.
        token: the first token came, of a thought or of the answer.
        said: the first token of the answer came.
        sound: the first sound came.
        spoken: it is an answer of speech.
        saved: microseconds by which a guess was ahead.
    """

    turn: int
    cause: Cause
    begun: float
    decided: float
    asked: float
    started: float | None = None
    encoded: float = 0.0
    token: float | None = None
    said: float | None = None
    sound: float | None = None
    spoken: bool = True
    saved: int = 0

    def sent(self, now: float) -> Waterfall:
        """The first of the answer is sent now. What was never noted takes no time; no part is negative."""
        marks = [self.begun, self.decided, self.asked, self.started, self.token, self.said, self.sound, now]
        passed = [0]
        for mark in marks[1:]:
            since = 0 if mark is None else round((mark - self.begun) * 1e6)
            passed.append(max(passed[-1], since))
        endpoint, waiting, reaching, prefill, thought, speech, pacing = (
            later - earlier for earlier, later in pairwise(passed)
        )
        encode = min(reaching, max(0, round(self.encoded * 1e6)))
        queue = reaching - encode
        return Waterfall(
            self.turn,
            self.cause,
            endpoint,
            waiting,
            queue,
            encode,
            prefill,
            thought,
            speech,
            pacing,
            saved=self.saved,
            sent=now,
        )
