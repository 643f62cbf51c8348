"""The compute loop's mind: takes commands, asks the scheduler what is next, has the runner do it, emits replies.

It owns the slot table. It knows no pipe, no thread and no tensor, so tests drive it call by call; the clock and the
way out are given to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, assert_never

import numpy as np
import numpy.typing as npt

from voiceagent.core.events import Usage
from voiceagent.core.history import Piece
from voiceagent.engine import api
from voiceagent.engine.lane import Lane
from voiceagent.engine.mapping import find_pieces, item_from_wire, piece_from_bytes
from voiceagent.engine.scheduler import (
    Chore,
    DecodeStep,
    EncodeStep,
    PrefillStep,
    TranscribeStep,
    TurnView,
    VocodeStep,
    plan,
)
from voiceagent.engine.slots import MAX_WAITING_TURNS, Slot, SlotTable, Stage, Turn, item_pieces
from voiceagent.errors import CapacityError, VoiceAgentError

LANE_STUCK_S = 3.0  #: a speech step takes some 0.3 s; after this long the heartbeat is withheld
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that the model wrote; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Written:
    """What one decoding step brought."""

    text: str = ""
    text_ids: tuple[int, ...] = ()
    audio_ids: tuple[int, ...] = ()  #: 0-based, pads dropped
    calls: tuple[ToolUse, ...] = ()
    ended: Literal["stop", "max_tokens"] | None = None  #: once the model is done
    thought: str = ""  #: what it thinks before it answers


@dataclass(frozen=True, slots=True)
class Summary:
    """What a turn cost and wrote so far."""

    usage: Usage
    raw_ids: tuple[int, ...]


class Runner(Protocol):
    """Executes single steps. A step that raises loses its turn; `is_device_loss` says when it loses everything."""

    def encode(self, session: int, piece: Piece) -> None:
        """Make and keep the embeddings of a piece."""

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Drop the embeddings of these pieces."""

    def begin(self, turn: Turn) -> Any:
        """Read the prompt of `turn.items`; returns the job that the next four take."""

    def decode(self, job: Any) -> Written:
        """Generate one token."""

    def wanted(self, job: Any) -> int:
        """How many speech ids the next vocoding step wants."""

    def vocode(self, job: Any, ids: list[int], *, last: bool) -> npt.NDArray[np.int16]:
        """Speak ids: the 24 kHz samples that are ready."""

    def summary(self, job: Any) -> Summary:
        """Usage and ids so far."""

    def listen(self, session: int, pieces: tuple[Piece, ...]) -> Any:
        """Begin to transcribe; returns the job that `write` takes."""

    def write(self, job: Any) -> str | None:
        """Generate one token of a transcript; the whole text once it is done."""

    def close(self, session: int) -> None:
        """Drop everything of a session; also called after a step of it failed."""

    def is_device_loss(self, error: BaseException) -> bool:
        """Whether the device is gone, so that the process must end."""


@dataclass(slots=True)
class _Writing:
    """A transcription: what it is about, and the runner's state once it has begun."""

    pieces: tuple[Piece, ...]
    job: Any = None


class Loop:
    """One engine: sessions, turns, chores.

    Args:
        runner: what executes the steps.
        max_sessions: how many sessions may be open.
        emit: takes each reply, in order.
        clock: seconds, monotonic.
        lane: where speech is decoded while the language model goes on; None = here, in turn.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_sessions: int,
        emit: Callable[[api.Reply], None],
        clock: Callable[[], float],
        lane: Lane | None = None,
    ) -> None:
        self._runner = runner
        self._table = SlotTable(max_sessions)
        self._emit = emit
        self._clock = clock
        self._lane = lane
        self._chores: list[Chore] = []
        self._writes: dict[tuple[int, str], _Writing] = {}

    def command(self, command: api.Command) -> None:
        """Take one command; never blocks on work."""
        match command:
            case api.OpenSession():
                self._open(command.session)
            case api.Encode():
                self._take_piece(command)
            case api.Forget():
                self._forget(command)
            case api.Begin():
                self._take_turn(command)
            case api.Cancel():
                self._cancel(command)
            case api.Write():
                self._take_write(command)
            case api.CloseSession():
                self._close(command.session)
            case api.Ping():
                if self._lane is None or not self._lane.stuck(LANE_STUCK_S):
                    self._emit(api.Pong(command.number))
            case api.Audio() | api.Shutdown():
                pass  # the worker's own: voice activity has its thread, and the end of the process its main
            case _:
                assert_never(command)

    def step(self) -> bool:
        """Do the most urgent step; False when there is nothing to do. Raises only when the device is lost."""
        views = [
            self._view(slot, slot.turns[0])
            for slot in self._table
            if slot.turns and self._may_run(slot.turns[0])
        ]
        speaking = [view for view in views if view.may_speak]
        if self._lane is not None and speaking:  # the lane is free, and language goes on beside it
            step = plan(speaking, (), self._clock())
        else:
            step = plan(views, self._chores, self._clock())
        match step:
            case None:
                return False
            case EncodeStep():
                self._encode(step)
            case TranscribeStep():
                self._transcribe(step)
            case PrefillStep() | DecodeStep() | VocodeStep():
                self._advance(step)
            case _:
                assert_never(step)
        return True

    # --- commands -----------------------------------------------------------------------------------------------

    def _open(self, session: int) -> None:
        try:
            self._table.open(session)
        except CapacityError as error:
            self._emit(api.Refused(session, error.code, error.message))

    def _close(self, session: int) -> None:
        self._table.close(session)
        self._runner.close(session)
        self._chores = [chore for chore in self._chores if chore.session != session]
        self._writes = {key: writing for key, writing in self._writes.items() if key[0] != session}

    def _take_piece(self, command: api.Encode) -> None:
        slot = self._table.get(command.session)
        if slot is None or command.piece in slot.pieces:
            return
        slot.pieces[command.piece] = piece_from_bytes(command.piece, command.pcm)
        self._chores.append(Chore("encode", command.session, command.piece, self._clock()))

    def _forget(self, command: api.Forget) -> None:
        slot = self._table.get(command.session)
        if slot is None:
            return
        for piece in command.pieces:
            slot.pieces.pop(piece, None)
            slot.encoded.discard(piece)
            self._drop_chore("encode", command.session, piece)
        self._runner.forget(command.session, command.pieces)

    def _take_turn(self, command: api.Begin) -> None:
        slot = self._table.get(command.session)
        try:
            if slot is None:
                raise CapacityError("The engine has no slot for this session.")
            if len(slot.turns) >= MAX_WAITING_TURNS:
                raise CapacityError(f"{len(slot.turns)} turns of this session are waiting already.")
            items = tuple(item_from_wire(item, slot.pieces) for item in command.items)
        except VoiceAgentError as error:
            self._emit(api.Failed(command.session, command.turn, error.code, str(error)))
            return
        slot.turns.append(Turn(command.session, command.turn, items, command.options, self._clock()))

    def _cancel(self, command: api.Cancel) -> None:
        slot, turn = self._find(command.session, command.turn)
        if slot is not None and turn is not None:
            slot.turns.remove(turn)
            self._end(turn, "cancelled")

    def _take_write(self, command: api.Write) -> None:
        slot = self._table.get(command.session)
        if slot is None:
            return
        try:
            pieces = find_pieces(command.pieces, slot.pieces)
        except VoiceAgentError:
            self._emit(api.Wrote(command.session, command.item_id, ""))
            return
        self._drop_chore("transcribe", command.session, command.item_id)
        self._writes[command.session, command.item_id] = _Writing(pieces)
        self._chores.append(Chore("transcribe", command.session, command.item_id, self._clock()))

    # --- steps --------------------------------------------------------------------------------------------------

    def _view(self, slot: Slot, turn: Turn) -> TurnView:
        may_speak = turn.job is not None and not self._speech_is_busy()
        return TurnView(
            session=turn.session,
            turn=turn.turn,
            stage=turn.stage,
            deadline=turn.deadline(),
            sounding=turn.playing_until is not None or (turn.quiet_tokens > 0 and not turn.options.spoken),
            missing_piece=next(iter(slot.missing(turn)), None) if turn.stage is Stage.WAITING else None,
            ready_ids=len(turn.waiting_ids) if may_speak else 0,
            wanted_ids=max(1, self._runner.wanted(turn.job)) if may_speak else 1,
        )

    def _speech_is_busy(self) -> bool:
        return self._lane is not None and self._lane.busy

    def _may_run(self, turn: Turn) -> bool:
        """All but a turn that only waits for the speech decoder, while that is at work."""
        return turn.stage is not Stage.DRAINING or not self._speech_is_busy()

    def _encode(self, step: EncodeStep) -> None:
        self._drop_chore("encode", step.session, step.piece)
        slot = self._table.get(step.session)
        if slot is None or step.piece in slot.encoded:
            return
        piece = slot.pieces.get(step.piece)
        if piece is None:  # forgotten while a waiting turn still named it: the turn holds the samples itself
            piece = next(p for p in _turn_pieces(slot) if p.id == step.piece)
        try:
            self._runner.encode(step.session, piece)
            slot.encoded.add(step.piece)
        except (
            Exception
        ) as error:  # one session's bad piece must not end the others; device loss is told apart
            self._raise_if_lost(error)
            log.exception("encoding a piece of session %d failed", step.session)
            slot.pieces.pop(step.piece, None)
            for turn in [t for t in slot.turns if step.piece in slot.missing(t)]:
                slot.turns.remove(turn)
                self._fail(turn, error)

    def _transcribe(self, step: TranscribeStep) -> None:
        writing = self._writes[step.session, step.item_id]
        text: str | None = ""
        try:
            if writing.job is None:
                writing.job = self._runner.listen(step.session, writing.pieces)
            text = self._runner.write(writing.job)
        except Exception as error:  # as above: no caption is better than no engine
            self._raise_if_lost(error)
            log.exception("transcribing for session %d failed", step.session)
        if text is None:
            return
        self._drop_chore("transcribe", step.session, step.item_id)
        del self._writes[step.session, step.item_id]
        self._emit(api.Wrote(step.session, step.item_id, text))

    def _advance(self, step: PrefillStep | DecodeStep | VocodeStep) -> None:
        slot, turn = self._find(step.session, step.turn)
        assert slot is not None
        assert turn is not None, "planned from the table a moment ago"
        try:
            match step:
                case PrefillStep():
                    self._prefill(turn)
                case DecodeStep():
                    self._decode(turn)
                case VocodeStep():
                    self._vocode(turn, step)
        except Exception as error:  # the turn fails, the other sessions go on; device loss is told apart
            self._lose(slot, turn, error)
        else:
            self._end_if_done(slot, turn)

    def _prefill(self, turn: Turn) -> None:
        self._emit(api.Started(turn.session, turn.turn))
        turn.job = self._runner.begin(turn)
        turn.stage = Stage.DECODING

    def _decode(self, turn: Turn) -> None:
        written = self._runner.decode(turn.job)
        turn.quiet_tokens += 1
        if written.thought:
            self._emit(api.Thought(turn.session, turn.turn, written.thought))
        if written.text or written.text_ids:
            self._emit(api.Spoke(turn.session, turn.turn, written.text, written.text_ids))
        turn.voiced = turn.voiced or bool(written.audio_ids)
        turn.waiting_ids += written.audio_ids
        turn.unsent_ids += written.audio_ids
        for call in written.calls:
            call_id = f"call_{turn.session}_{turn.turn}_{turn.call_count}"
            turn.call_count += 1
            self._emit(api.Called(turn.session, turn.turn, call_id, call.name, call.arguments))
        if written.ended is not None:
            turn.stage, turn.reason = Stage.DRAINING, written.ended

    def _vocode(self, turn: Turn, step: VocodeStep) -> None:
        ids, turn.waiting_ids = turn.waiting_ids[: step.count], turn.waiting_ids[step.count :]
        if self._lane is None:
            self._spoken(turn, self._runner.vocode(turn.job, ids, last=step.last), last=step.last)
            return
        turn.vocoding = True
        self._lane.submit(
            lambda: self._runner.vocode(turn.job, ids, last=step.last),
            lambda outcome: self._vocoded(turn, outcome, last=step.last),
        )

    def _vocoded(self, turn: Turn, outcome: npt.NDArray[np.int16] | Exception, *, last: bool) -> None:
        """The lane is done with a turn, which may be gone by now."""
        turn.vocoding = False
        slot = self._table.get(turn.session)
        if isinstance(outcome, Exception):
            self._raise_if_lost(outcome)
        if slot is None or turn not in slot.turns:
            return
        if isinstance(outcome, Exception):
            self._lose(slot, turn, outcome)
        else:
            self._spoken(turn, outcome, last=last)
            self._end_if_done(slot, turn)

    def _spoken(self, turn: Turn, pcm: npt.NDArray[np.int16], *, last: bool) -> None:
        turn.closed = last
        ids = turn.sounded(len(pcm), now=self._clock(), last=last)
        if len(pcm):
            self._emit(api.Sound(turn.session, turn.turn, turn.seq, pcm.astype("<i2").tobytes(), ids))
            turn.seq += 1

    # --- ends ---------------------------------------------------------------------------------------------------

    def _end_if_done(self, slot: Slot, turn: Turn) -> None:
        if turn.stage is Stage.DRAINING and not turn.vocoding and (turn.closed or not turn.voiced):
            slot.turns.remove(turn)
            self._end(turn, turn.reason)

    def _lose(self, slot: Slot, turn: Turn, error: Exception) -> None:
        self._raise_if_lost(error)
        slot.turns.remove(turn)
        self._fail(turn, error)

    def _end(self, turn: Turn, reason: api.EndReason) -> None:
        summary = Summary(Usage(), ()) if turn.job is None else self._runner.summary(turn.job)
        self._emit(api.Ended(turn.session, turn.turn, reason, summary.usage, summary.raw_ids))

    def _fail(self, turn: Turn, error: Exception) -> None:
        if isinstance(error, VoiceAgentError):
            code, message = error.code, str(error)
        else:
            log.error("turn %d of session %d failed", turn.turn, turn.session, exc_info=error)
            code, message = "internal_error", f"The engine failed on this turn ({type(error).__name__})."
        self._runner.close(turn.session)  # half-written caches are worth less than a fresh prefill
        slot = self._table.get(turn.session)
        if slot is not None:
            slot.encoded.clear()
        self._emit(api.Failed(turn.session, turn.turn, code, message))

    def _raise_if_lost(self, error: Exception) -> None:
        if self._runner.is_device_loss(error):
            raise error

    # --- lookups ------------------------------------------------------------------------------------------------

    def _find(self, session: int, turn: int) -> tuple[Slot | None, Turn | None]:
        slot = self._table.get(session)
        turns = slot.turns if slot is not None else ()
        return slot, next((t for t in turns if t.turn == turn), None)

    def _drop_chore(self, kind: str, session: int, key: int | str) -> None:
        self._chores = [c for c in self._chores if (c.kind, c.session, c.key) != (kind, session, key)]


def _turn_pieces(slot: Slot) -> list[Piece]:
    return [piece for turn in slot.turns for item in turn.items for piece in item_pieces(item)]
