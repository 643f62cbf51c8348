"""What could run now: the table of sessions as the scheduler sees it. It chooses nothing and changes nothing."""

from __future__ import annotations

from voiceagent.engine.background import Background
from voiceagent.engine.guesses import Guesses, far_enough
from voiceagent.engine.lane import Lane
from voiceagent.engine.protocol import Runner
from voiceagent.engine.scheduler import Step, TurnView, may_rest, may_wait, plan, without_idlers
from voiceagent.engine.slots import SlotTable, Stage, Turn
from voiceagent.engine.voices import Desk


class Planner:
    """Asks the scheduler for the next step.

    Args:
        table: the sessions and their turns.
        background: what no turn waits for.
        runner: what executes the steps.
        lane: where speech is decoded while the language model goes on; None = in turn.
        voices: those that are being made.
        guesses: when replies on a guess may go on.
    """

    def __init__(
        self,
        table: SlotTable,
        background: Background,
        runner: Runner,
        *,
        lane: Lane | None,
        voices: Desk,
        guesses: Guesses,
    ) -> None:
        self._table, self._background, self._runner = table, background, runner
        self._lane, self._voices, self._guesses = lane, voices, guesses

    def next(self, now: float, *, reads: int) -> Step | None:
        """The most urgent step; None when there is nothing to do.

        Args:
            now: seconds, on the clock of the deadlines.
            reads: steps of the language model since its last token.
        """
        lane_free, limits = self._lane is None or not self._lane.busy, self._runner.limits
        turns = [turn for slot in self._table for turn in (*slot.talk()[:1], *slot.asides())]
        if any(turn.guess for turn in turns) and not self._guesses.may_run(turns, now):
            turns = [turn for turn in turns if not turn.guess]
        views = [self._view(turn, lane_free) for turn in turns if self._may_run(turn, lane_free)]
        views = without_idlers(views, now)
        if self._lane is not None:  # language goes on beside it
            speaking = [view for view in views if view.may_speak]
            views = [view for view in views if not view.may_speak]
            if speaking and not may_wait(speaking, views, now, limits=limits):
                return plan(speaking, (), now, limits=limits)
            if speaking:  # who waits for company is written on meanwhile
                unspoken = [self._view(turn, False) for turn in turns if self._may_run(turn, False)]
                views = without_idlers(unspoken, now)
            if limits.shared and may_rest(views, now):
                return None  # the vocoder's end wakes us
        return plan(views, self._background.chores(self._table), now, limits=limits, reads=reads)

    def _view(self, turn: Turn, lane_free: bool) -> TurnView:
        may_speak = lane_free and not turn.vocoding and turn.stage in (Stage.DECODING, Stage.DRAINING)
        slot = self._table.get(turn.session)
        waiting = turn.stage is Stage.WAITING and slot is not None
        return TurnView(
            session=turn.session,
            turn=turn.turn,
            stage=turn.stage,
            deadline=turn.deadline(),
            need=turn.need(),
            sounding=turn.beside or turn.guess or turn.sounding,
            missing=slot.missing(turn.items) if waiting and slot is not None else (),
            ready_ids=len(turn.waiting_ids) if may_speak else 0,
            wanted_ids=max(1, self._runner.wanted(turn.job)) if may_speak else 1,
            vocoding=turn.vocoding,
            beside=turn.beside,
            guess=turn.guess,
        )

    def _may_run(self, turn: Turn, lane_free: bool) -> bool:
        """All but a turn that only waits for the speech decoder, while that is at work, or for its voice."""
        if far_enough(turn) or (turn.stage is Stage.WAITING and self._voices.coming(turn.options.voice)):
            return False
        return turn.stage is not Stage.DRAINING or (lane_free and not turn.vocoding)
