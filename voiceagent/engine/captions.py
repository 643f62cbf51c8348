"""Writes down what was said, phrase by phrase; when there is time for it is the scheduler's business."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from voiceagent.core.history import Piece
from voiceagent.core.segments import phrases_of
from voiceagent.engine import api
from voiceagent.engine.background import Background, Caption
from voiceagent.engine.mapping import find_pieces
from voiceagent.engine.protocol import Runner, Written
from voiceagent.engine.scheduler import ListenStep
from voiceagent.engine.slots import Slot
from voiceagent.errors import VoiceAgentError

log = logging.getLogger(__name__)


class Captions:
    """The captions that are being written, and what is told of them.

    Args:
        runner: what reads and writes.
        background: where they are kept.
        emit: takes each reply.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        runner: Runner,
        background: Background,
        *,
        emit: Callable[[api.Reply], None],
        clock: Callable[[], float],
    ) -> None:
        self._runner, self._captions = runner, background.captions
        self._emit, self._clock = emit, clock

    def take(self, command: api.Write, slot: Slot) -> None:
        """Pieces to write down, behind those of the same item that are not written yet."""
        try:
            pieces = find_pieces(command.pieces, slot.pieces)
        except VoiceAgentError as error:
            self._fail(command.session, command.item_id, error)
            return
        key = (command.session, command.item_id)
        caption = self._captions.get(key)
        if caption is None or not caption.more:
            self._drop(*key)
            caption = self._captions[key] = Caption(deque(), self._clock())
        if not caption.pieces:
            caption.arrived = self._clock()
        caption.pieces += [phrase for piece in pieces for phrase in _phrases(piece)]
        caption.more, caption.how = command.more, command.how
        self._end_if_written(*key, caption)

    def listen(self, step: ListenStep) -> None:
        """Read on in the prompt of a caption's first piece; a fault fails the caption, device loss is raised."""
        caption = self._captions[step.session, step.item_id]
        try:
            if caption.job is None:
                how, piece = caption.how, caption.pieces[0]
                caption.job = self._runner.listen(step.session, (piece,), how=how, kept=how.scores)
            caption.read = self._runner.read(caption.job, step.positions)
        except Exception as error:  # no caption is better than no engine
            self._fail(step.session, step.item_id, error)

    def write(self, session: int, item_id: str, outcome: Written | Exception) -> None:
        """What a decoding step brought to a caption; device loss is raised."""
        if isinstance(outcome, Exception):
            self._fail(session, item_id, outcome)
            return
        caption = self._captions[session, item_id]
        text = caption.take(outcome.text)
        if text:
            self._emit(api.Writing(session, item_id, text))
        if outcome.ended is None:
            return
        try:
            caption.scores += self._runner.scores(caption.job) if caption.how.scores else ()
        except Exception as error:  # no caption is better than no engine
            self._fail(session, item_id, error)
            return
        self._runner.finish(caption.job)
        caption.next_piece()
        self._end_if_written(session, item_id, caption)

    def _end_if_written(self, session: int, item_id: str, caption: Caption) -> None:
        if not caption.pieces and not caption.more:
            self._drop(session, item_id)
            self._emit(api.Wrote(session, item_id, caption.text, caption.scores))

    def _fail(self, session: int, item_id: str, error: Exception) -> None:
        if self._runner.is_device_loss(error):
            raise error
        self._drop(session, item_id)
        if isinstance(error, VoiceAgentError):
            code, message = error.code, str(error)
        else:
            log.error("transcribing for session %d failed", session, exc_info=error)
            code, message = "internal_error", f"The engine failed on this audio ({type(error).__name__})."
        self._emit(api.Unwritten(session, item_id, code, message))

    def _drop(self, session: int, item_id: str) -> None:
        caption = self._captions.pop((session, item_id), None)
        if caption is not None and caption.job is not None:
            self._runner.finish(caption.job)


def _phrases(piece: Piece) -> list[Piece]:
    """A piece as it is best written down: phrase by phrase, as models are taught to, each encoded for itself.

    Of one phrase it stays what it is: encoded already.
    """
    phrases = phrases_of(piece.audio)
    return [piece] if len(phrases) == 1 else [Piece(-1, phrase) for phrase in phrases]
