"""A recorded call once more through the controller, as it was or with other settings; what would be different?

Everything that came from outside comes at its recorded time. What the engine and the player made of a turn comes as
long after the turn's beginning as it did in the recording: a turn that begins earlier is heard earlier. The engine is
not asked again, so the words stay those of the recording.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.journal import Entry, Opened
from voiceagent.errors import InputError

OfTurn = (
    ev.TurnStarted
    | ev.ThoughtOut
    | ev.TextOut
    | ev.AudioOut
    | ev.ToolCalled
    | ev.TurnEnded
    | ev.TurnFailed
    | ev.Played
)
Change = Callable[[opt.SessionConfig], opt.SessionConfig]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and when.

    Attributes:
        time: seconds on the clock of the call.
        action: of the controller.
        what: in words, without times; two runs are compared by it.
    """

    time: float
    action: act.Action
    what: str


def replay(opened: Opened, entries: Sequence[Entry], change: Change | None = None) -> list[Decision]:
    """The decisions of a call; `change`: with these settings instead of its own."""
    controller = Controller(opened.config, id_prefix=opened.id_prefix, audio_budget=opened.audio_budget)
    found: list[Decision] = []
    for entry in entries:
        if entry.event is None:
            actions = controller.handle_timeout(entry.time)
        else:
            actions = controller.handle(entry.event, entry.time)
        found += (Decision(entry.time, action, describe(action)) for action in actions)
    if change is None:
        return found
    guessed = {d.action.turn for d in found if isinstance(d.action, act.StartTurn) and d.action.guess}
    guessed -= {d.action.turn for d in found if isinstance(d.action, act.ConfirmTurn)}
    told = [
        entry for entry in entries if not (isinstance(entry.event, OfTurn) and entry.event.turn in guessed)
    ]
    begun = {turn: time for turn, time in _begun(found).items() if turn not in guessed}
    return _Run(opened, told, change, begun).decisions()


def changed(settings: dict[str, Any]) -> Change:
    """A change of settings by name: of `SessionConfig`, or of its turn detection.

    Raises:
        InputError: there is no such setting; `param` names it.
    """
    of_session = {f.name for f in fields(opt.SessionConfig)}
    of_vad = {f.name for f in fields(opt.ServerVad)}
    for name in settings:
        if name not in of_session | of_vad:
            known = ", ".join(sorted(of_session | of_vad))
            raise InputError(f"There is no setting {name!r}.", remedy=f"There are: {known}.", param=name)

    def change(config: opt.SessionConfig) -> opt.SessionConfig:
        vad = config.turn_detection
        if vad is not None:
            vad = replace(vad, **{name: value for name, value in settings.items() if name in of_vad})
            config = replace(config, turn_detection=vad)
        return replace(config, **{name: value for name, value in settings.items() if name in of_session})

    return change


def _begun(decisions: Sequence[Decision]) -> dict[int, float]:
    """When each turn began."""
    return {d.action.turn: d.time for d in decisions if isinstance(d.action, act.StartTurn)}


class _Run:
    """One pass over the recording with other settings; `begun`: when each turn began in it, in this order.

    The turns of the recording are made again in their order. A guess is made of the next one, which is there again when
    the guess was wrong; of the recording's own wrong guesses nothing is known here.
    """

    def __init__(
        self, opened: Opened, entries: Sequence[Entry], change: Change, begun: dict[int, float]
    ) -> None:
        self._controller = Controller(
            change(opened.config), id_prefix=opened.id_prefix, audio_budget=opened.audio_budget
        )
        self._change = change
        self._made: list[Decision] = []
        self._queue: list[tuple[float, int, ev.Event]] = []
        self._pushed = 0
        self._end = max((entry.time for entry in entries), default=0.0)
        self._parts: dict[
            int, list[tuple[float, OfTurn]]
        ] = {}  # of each turn, and how long after its beginning
        self._order = list(begun)
        self._guessed: dict[int, int] = {}  # open guesses: what they were made of
        for entry in entries:
            event = entry.event
            if isinstance(event, OfTurn) and event.turn in begun:
                if isinstance(event, ev.TurnEnded) and event.reason == "cancelled":
                    event = replace(
                        event, reason="stop"
                    )  # by us, which may not happen now; more there is not
                self._parts.setdefault(event.turn, []).append((entry.time - begun[event.turn], event))
            elif event is not None:
                self._push(entry.time, event)

    def decisions(self) -> list[Decision]:
        """Runs to the end of the recording."""
        while True:
            due = self._controller.next_deadline()
            if due is not None and due < (self._queue[0][0] if self._queue else self._end):
                self._take(due, self._controller.handle_timeout(due))
                continue
            if not self._queue:
                return self._made
            time, _, event = heapq.heappop(self._queue)
            if isinstance(event, ev.Configure):
                event = replace(event, config=self._change(event.config))
            self._take(time, self._controller.handle(event, time))

    def _take(self, time: float, actions: Sequence[act.Action]) -> None:
        for action in actions:
            self._made.append(Decision(time, action, describe(action)))
            match action:
                case act.StartTurn(turn, guess=guess) if self._order:
                    recorded = self._order.pop(0)
                    if guess:
                        self._guessed[turn] = recorded
                    for behind, event in self._parts.get(recorded, ()):
                        self._push(time + behind, replace(event, turn=turn))
                case act.ConfirmTurn(turn):
                    self._guessed.pop(turn, None)
                case act.CancelTurn(turn) | notices.GuessOver(turn) if turn in self._guessed:
                    self._order.insert(0, self._guessed.pop(turn))
                case _:
                    pass

    def _push(self, time: float, event: ev.Event) -> None:
        self._pushed += 1
        heapq.heappush(self._queue, (time, self._pushed, event))


def describe(action: act.Action) -> str:
    """A decision in words; empty for what is no decision (sound, text, notices that follow from others)."""
    match action:
        case notices.SpeechStarted():
            return "somebody speaks"
        case notices.Interruption(turn, "pending"):
            return f"a voice over reply {turn} is weighed"
        case notices.Interruption(turn, "confirmed", why):
            return f"it interrupts reply {turn} ({why})"
        case notices.Interruption(turn, _, why):
            return f"it does not interrupt reply {turn} ({why})"
        case notices.SpeechStopped(reason=reason):
            return "they have finished" + ("" if reason == "silence" else f" ({reason})")
        case notices.IdleTimedOut():
            return "nobody spoke for long"
        case act.StartTurn() if action.options.sums_up:
            return "old turns are to be summed up"
        case notices.Condensed(form, reason, item_ids):
            return f"{len(item_ids)} old items are read as {form} ({reason})"
        case act.StartTurn(turn, guess=guess):
            return f"reply {turn} begins" + (" on a guess" if guess else "")
        case act.ConfirmTurn(turn):
            return f"reply {turn} was rightly guessed"
        case notices.GuessOver(turn, outcome) if outcome != "right":
            return f"reply {turn} was a wrong guess ({outcome})"
        case act.Flush(turn):
            return f"reply {turn} is cut off"
        case notices.TurnClosed(turn=turn, status=status, reason=reason):
            return f"reply {turn} is {status}" + (f" ({reason})" if reason else "")
        case notices.TurnTool(turn=turn, name=name):
            return f"reply {turn} calls {name}"
        case notices.Error(code):
            return f"a request is refused ({code})"
        case _:
            return ""
