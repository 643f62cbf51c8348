"""Looks on at one call and says what is worth counting, in records that cannot hold what anybody said. No clock.

Only what comes once or a few times a turn is looked at; sound and words on their way are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.core.waterfall import Waterfall

KEPT = 16  #: turns that are remembered after they have closed, for what is told of them later


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the assistant is over.

    Attributes:
        status, reason, output: as in `TurnClosed` and `TurnOptions`; a completed one has the reason "none".
        began: its first part began: the person's last word, the request, or else when it was opened.
        closed: it is over. Both are seconds of the call's clock.
        latency: the parts of the time to its first audio or text; None if nothing was sent.
        error: code of what made it fail; empty if nothing did.
        tokens_read, tokens_made: of the model.
        tools: calls in it.
    """

    status: notices.TurnStatus
    reason: str
    output: Literal["audio", "text"]
    began: float
    closed: float
    latency: Waterfall | None
    error: str
    tokens_read: int
    tokens_made: int
    tools: int


@dataclass(frozen=True, slots=True)
class PersonFinished:
    """A person's turn is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A voice over ours was weighed."""

    outcome: Literal["confirmed", "dismissed"]
    reason: str
    voice_s: float


@dataclass(frozen=True, slots=True)
class Guessed:
    """A reply on a guess is decided; `wasted_s` is work of the engine."""

    outcome: notices.GuessOutcome
    saved_s: float
    wasted_s: float
    wasted_tokens: int


@dataclass(frozen=True, slots=True)
class Heard:
    """A spoken reply was heard to its end, or cut: how much of what was made never reached the ear.

    Attributes:
        acknowledged: by the player's word.
        corrected_s: it was told before, and the player's word moves it by so much; None = it was not.
    """

    drift_s: float
    drift_words: int
    acknowledged: bool
    corrected_s: float | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model called a tool, which the client or the server is to run."""

    runs: Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool of the server's has returned; "later" = it has only said that its result is still to come."""

    outcome: Literal["ok", "failed", "later"]


Record = Answer | PersonFinished | Interrupted | Guessed | Heard | ToolCall | ToolResult

_NOTED = (
    notices.TurnOpened,
    notices.TurnClosed,
    notices.TurnHeard,
    notices.TurnTool,
    notices.ToolAnswered,
    notices.SpeechStopped,
    notices.Interruption,
    notices.GuessOver,
)


@dataclass(slots=True)
class _Open:
    output: Literal["audio", "text"]
    opened: float
    tools: int = 0


class Observer:
    """The records of one call."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._heard_ms: dict[int, int] = {}  # of the last turns, as it was told

    def looks_at(self, action: act.Action) -> bool:
        """Whether an action is looked at at all."""
        return isinstance(action, _NOTED)

    def see(self, action: act.Action, now: float) -> Record | None:
        """An action that is carried out now, and what there is to be counted."""
        match action:
            case notices.TurnOpened(turn, _, options):
                self._open[turn] = _Open(options.modalities, now)
            case notices.TurnClosed(turn) if turn in self._open:
                return _answer(action, self._open.pop(turn), now)
            case notices.TurnHeard():
                return self._heard(action)
            case notices.TurnTool(turn):
                if turn in self._open:
                    self._open[turn].tools += 1
                return ToolCall("client" if action.server is None else "server")
            case notices.ToolAnswered():
                return ToolResult("later" if action.more else "failed" if action.failed else "ok")
            case notices.SpeechStopped():
                return PersonFinished(action.reason)
            case notices.Interruption(_, "confirmed" | "dismissed" as outcome, reason, voice_ms):
                return Interrupted(outcome, reason or "none", voice_ms / 1000)
            case notices.GuessOver():
                return Guessed(action.outcome, action.saved / 1e6, action.work / 1e6, action.tokens)
            case _:
                pass
        return None

    def _heard(self, told: notices.TurnHeard) -> Heard:
        before = self._heard_ms.pop(told.turn, None)
        self._heard_ms[told.turn] = told.heard_ms
        while len(self._heard_ms) > KEPT:
            del self._heard_ms[next(iter(self._heard_ms))]
        return Heard(
            drift_s=max(0, told.generated_ms - told.heard_ms) / 1000,
            drift_words=max(0, told.words - told.heard_words),
            acknowledged=told.acknowledged,
            corrected_s=None if before is None else abs(told.heard_ms - before) / 1000,
        )


def _answer(closed: notices.TurnClosed, opened: _Open, now: float) -> Answer:
    latency, used = closed.latency, closed.usage
    began = opened.opened if latency is None else latency.sent - latency.total / 1e6
    return Answer(
        status=closed.status,
        reason=closed.reason or "none",
        output=opened.output,
        began=began,
        closed=now,
        latency=latency,
        error="" if closed.error is None else closed.error.code,
        tokens_read=0 if used is None else used.input_text + used.input_audio,
        tokens_made=0 if used is None else used.output_text + used.output_audio,
        tools=opened.tools,
    )
