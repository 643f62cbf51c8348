"""Finds out whether what a person said so far is complete, while they are silent; an answer too late is none.

It writes the words down as a caption is written, and then asks the runner. When there is time for it is the
scheduler's business. A fault is no answer: the person's turn then ends by its silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from voiceagent.core.history import Piece
from voiceagent.engine import api
from voiceagent.engine.background import Judgement
from voiceagent.engine.protocol import Runner, Written
from voiceagent.engine.scheduler import JudgeStep

log = logging.getLogger(__name__)


class Judgements:
    """The questions that are open, one of a session at most.

    Args:
        runner: what reads, writes and judges.
        open: where they are kept, by session.
        emit: takes each answer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        runner: Runner,
        open: dict[int, Judgement],
        *,
        emit: Callable[[api.Reply], None],
        clock: Callable[[], float],
    ) -> None:
        self._runner, self._open, self._emit, self._clock = runner, open, emit, clock

    def take(self, command: api.Judge, piece: Piece) -> None:
        """A question; an older one of the session is of no use any more."""
        self.drop(command.session)
        self._open[command.session] = Judgement(piece, command.at, self._clock())

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Audio is gone: nobody waits for what was to be said of it."""
        judgement = self._open.get(session)
        if judgement is not None and judgement.piece.id in pieces:
            self.drop(session)

    def listen(self, step: JudgeStep) -> None:
        """Read on in the prompt; device loss is raised."""
        judgement = self._open[step.session]
        try:
            if judgement.job is None:
                judgement.job = self._runner.listen(step.session, (judgement.piece,), kept=True)
            judgement.read = self._runner.read(judgement.job, step.positions)
        except Exception as error:  # the turn ends by its silence
            self._give_up(step.session, error)

    def write(self, session: int, outcome: Written | Exception) -> None:
        """What a decoding step brought; device loss is raised."""
        if isinstance(outcome, Exception):
            self._give_up(session, outcome)
            return
        judgement = self._open[session]
        judgement.text += outcome.text
        if outcome.ended is None:
            return
        try:
            complete = self._runner.completeness(judgement.job, (judgement.piece,))
        except Exception as error:  # as above
            self._give_up(session, error)
            return
        self.drop(session)
        self._emit(api.Judged(session, judgement.at, judgement.text, complete))

    def drop(self, session: int) -> None:
        """The question is over."""
        judgement = self._open.pop(session, None)
        if judgement is not None and judgement.job is not None:
            self._runner.finish(judgement.job)

    def _give_up(self, session: int, error: Exception) -> None:
        if self._runner.is_device_loss(error):
            raise error
        log.info("no verdict for session %d: %s", session, error)
        self.drop(session)
