"""Takes the time of every answer of a call, by looking on: events that came, actions that were taken."""

from __future__ import annotations

from dataclasses import replace

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core.waterfall import Stopwatch, Waterfall


class Latency:
    """The stopwatches of a call's answers."""

    def __init__(self) -> None:
        self._spoken: tuple[float, float] | None = None  # a last word to be answered, and when it was known
        self._running: dict[int, Stopwatch] = {}
        self._taken: dict[int, Waterfall] = {}  # of answers that are not closed
        self._guesses = notices.Guesses()

    def finished(self, last_word: float, now: float) -> None:
        """The person has finished, and the next turn answers that."""
        self._spoken = last_word, now

    def observe(self, event: ev.Event | None, made: list[act.Action], now: float) -> list[act.Action]:
        """The actions that an event caused; of a turn that is closed the latency is added."""
        if event is not None:
            self._note(event, now)
        return [self._follow(event, action, now) for action in made]

    def _note(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.TurnStarted(turn=turn, encoded=encoded) if turn in self._running:
                watch = self._running[turn]
                watch.started, watch.encoded = now, encoded
            case ev.ThoughtOut(turn) if turn in self._running:
                watch = self._running[turn]
                watch.token = now if watch.token is None else watch.token
            case ev.TextOut(turn) | ev.AudioOut(turn) if turn in self._running:
                watch = self._running[turn]
                watch.token = now if watch.token is None else watch.token
                watch.said = now if watch.said is None else watch.said
                if isinstance(event, ev.AudioOut) and watch.sound is None and len(event.pcm):
                    watch.sound = now
            case _:
                pass

    def _follow(self, event: ev.Event | None, action: act.Action, now: float) -> act.Action:
        match action:
            case act.StartTurn() if action.options.sums_up:
                pass  # nobody waits for it
            case act.StartTurn(turn):
                self._running[turn] = self._start(action, event, now)
            case act.ConfirmTurn(turn) if turn in self._running:
                self._settle(self._running[turn], now)
            case notices.GuessOver(turn):
                self._count(action)
            case act.SendAudio(turn) if turn in self._running:
                self._taken[turn] = self._running.pop(turn).sent(now)
            case notices.TurnText(turn) if turn in self._running and not self._running[turn].spoken:
                self._taken[turn] = self._running.pop(turn).sent(now)
            case notices.TurnClosed(turn):
                self._running.pop(turn, None)
                guesses = self._guesses if self._guesses.made else None
                return replace(action, latency=self._taken.pop(turn, None), guesses=guesses)
            case _:
                pass
        return action

    def _start(self, action: act.StartTurn, event: ev.Event | None, now: float) -> Stopwatch:
        spoken = action.options.modalities == "audio"
        if action.guess:
            self._guesses = replace(self._guesses, made=self._guesses.made + 1)
            return Stopwatch(action.turn, "speech", now, now, now, spoken=spoken)
        if self._spoken is None or isinstance(event, ev.Respond):
            return Stopwatch(action.turn, "request", now, now, now, spoken=spoken)
        last_word, decided = self._spoken
        self._spoken = None
        return Stopwatch(action.turn, "speech", last_word, decided, now, spoken=spoken)

    def _settle(self, watch: Stopwatch, now: float) -> None:
        """What was begun on a guess is the answer to the last word that was said."""
        watch.begun, watch.decided = self._spoken or (now, now)
        self._spoken = None

    def _count(self, over: notices.GuessOver) -> None:
        known, right = self._guesses, over.outcome == "right"
        self._guesses = notices.Guesses(
            known.made,
            known.right + right,
            known.saved + over.saved,
            known.tokens + over.tokens,
            known.work + over.work,
        )
        if right and over.turn in self._running:
            self._running[over.turn].saved = over.saved
        elif not right:
            self._running.pop(over.turn, None)
