"""The compute loop's mind: takes commands, asks the scheduler what is next, has the runner do it, emits replies.

It owns the slot table. It knows no pipe, no thread and no tensor, so tests drive it call by call; the clock and the
way out are given to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

from voiceagent.core.events import Usage
from voiceagent.core.history import Piece
from voiceagent.engine import api
from voiceagent.engine.background import Background, Early
from voiceagent.engine.captions import Captions
from voiceagent.engine.guesses import Guesses
from voiceagent.engine.judgements import Judgements
from voiceagent.engine.lane import Lane
from voiceagent.engine.mapping import item_from_wire, piece_from_bytes
from voiceagent.engine.planning import Planner
from voiceagent.engine.protocol import Pcm, Runner, Speech, Summary, Written
from voiceagent.engine.scheduler import (
    DecodeStep,
    EncodeStep,
    JudgeStep,
    ListenStep,
    PrefillStep,
    PrepareStep,
    VocodeStep,
)
from voiceagent.engine.slots import MAX_WAITING_TURNS, Slot, SlotTable, Stage, Turn, item_pieces
from voiceagent.engine.voices import Desk
from voiceagent.errors import CapacityError, VoiceAgentError

LANE_STUCK_S = 3.0  #: a speech step takes some 0.3 s; after this long the heartbeat is withheld
log = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")


class Loop:
    """One engine: sessions, turns, chores.

    Args:
        runner: what executes the steps.
        max_sessions: how many sessions may be open.
        emit: takes each reply, in order.
        clock: seconds, monotonic.
        lane: where speech is decoded while the language model goes on; None = here, in turn.
        desk: where voices are made of recordings, beside all else; None = here.
        guess_share: of the time, that replies on a guess may cost in vain.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_sessions: int,
        emit: Callable[[api.Reply], None],
        clock: Callable[[], float],
        lane: Lane | None = None,
        desk: Lane | None = None,
        guess_share: float = 0.0,
    ) -> None:
        self._runner = runner
        self._table = SlotTable(max_sessions)
        self._emit = emit
        self._clock = clock
        self._lane = lane
        self._background = Background()
        self._captions = Captions(runner, self._background, emit=emit, clock=clock)
        self._judgements = Judgements(runner, self._background.judgements, emit=emit, clock=clock)
        self._guesses = Guesses(guess_share, clock())
        self._voices = Desk(runner, self._table, emit=emit, lane=desk)
        self._planner = Planner(
            self._table, self._background, runner, lane=lane, voices=self._voices, guesses=self._guesses
        )
        self._reads = 0  # steps of the language model since its last token

    def command(self, command: api.Command) -> None:
        """Take one command; never blocks on work."""
        match command:
            case api.OpenSession():
                self._open(command.session)
            case api.Encode():
                self._take_piece(command)
            case api.Forget():
                self._forget(command)
            case api.Prepare():
                self._take_early(command)
            case api.Begin():
                self._take_turn(command)
            case api.Confirm():
                _, turn = self._find(command.session, command.turn)
                self._guesses.confirm(command.session, command.turn, turn, self._clock())
            case api.Cancel():
                self._cancel(command)
            case api.Write():
                self._take_write(command)
            case api.Judge():
                self._take_question(command)
            case api.CloseSession():
                self._close(command.session)
            case api.Ping():
                if self._lane is None or not self._lane.stuck(LANE_STUCK_S):
                    self._emit(api.Pong(command.number))
            case api.Enrol() | api.Dismiss():
                self._voices.command(command)
            case api.Audio() | api.Shutdown():
                pass  # the worker's own: voice activity has its thread, and the end of the process its main
            case _:
                assert_never(command)

    def step(self) -> bool:
        """Do the most urgent step; False when there is nothing to do. Raises only when the device is lost."""
        step = self._planner.next(self._clock(), reads=self._reads)
        match step:
            case None:
                return False
            case VocodeStep():
                self._vocode(step)
                return True
            case EncodeStep():
                self._encode(step)
            case PrefillStep():
                self._prefill(step)
            case PrepareStep():
                self._prepare(step)
            case JudgeStep():
                self._judgements.listen(step)
            case ListenStep():
                self._captions.listen(step)
            case DecodeStep():
                self._decode(step)
            case _:
                assert_never(step)
        self._reads = 0 if isinstance(step, DecodeStep) else self._reads + 1
        return True

    # --- commands -----------------------------------------------------------------------------------------------

    def _open(self, session: int) -> None:
        try:
            self._table.open(session)
        except CapacityError as error:
            self._emit(api.Refused(session, error.code, error.message, error.remedy))

    def _close(self, session: int) -> None:
        slot = self._table.get(session)
        for turn in slot.turns if slot is not None else ():
            self._free(turn)
        for job in self._background.drop(session):
            self._runner.finish(job)
        self._table.close(session)
        self._guesses.close(session)
        self._runner.close(session)

    def _take_piece(self, command: api.Encode) -> None:
        slot = self._table.get(command.session)
        if slot is None:
            return
        slot.doomed.discard(command.piece)
        if command.piece in slot.pieces:
            return
        slot.pieces[command.piece] = piece_from_bytes(command.piece, command.pcm)
        self._background.pieces[command.session, command.piece] = self._clock()

    def _forget(self, command: api.Forget) -> None:
        slot = self._table.get(command.session)
        if slot is not None:
            self._judgements.forget(command.session, command.pieces)
            slot.doomed.update(command.pieces)
            self._forget_idle(slot)

    def _forget_idle(self, slot: Slot) -> None:
        """Forget what is doomed, but for what a turn still reads."""
        pieces = slot.idle_doomed()
        for piece in pieces:
            slot.pieces.pop(piece, None)
            slot.encoded.discard(piece)
            self._background.pieces.pop((slot.session, piece), None)
        if pieces:
            self._runner.forget(slot.session, pieces)

    def _take_early(self, command: api.Prepare) -> None:
        slot = self._table.get(command.session)
        if slot is None:
            return
        self._drop_early(command.session)
        try:
            items = tuple(item_from_wire(item, slot.pieces) for item in command.items)
        except VoiceAgentError:  # a piece of it has gone; the turn itself will say so
            return
        self._background.early[command.session] = Early(items, command.options, self._clock())

    def _take_turn(self, command: api.Begin) -> None:
        slot = self._table.get(command.session)
        try:
            if slot is None:
                raise CapacityError("The engine has no slot for this session.")
            rivals = slot.asides() if command.options.beside else slot.talk()
            if len(rivals) >= MAX_WAITING_TURNS:
                raise CapacityError(f"{len(rivals)} turns of this session are waiting already.")
            items = tuple(item_from_wire(item, slot.pieces) for item in command.items)
        except VoiceAgentError as error:
            self._emit(api.Failed(command.session, command.turn, error.code, str(error)))
            return
        if not command.options.beside:
            self._drop_early(command.session)
        asked = command.session, command.turn, items, command.options, self._clock()
        slot.turns.append(Turn(*asked, guess=command.guess))

    def _cancel(self, command: api.Cancel) -> None:
        slot, turn = self._find(command.session, command.turn)
        if slot is not None and turn is not None:
            slot.turns.remove(turn)
            self._end(turn, "cancelled")

    def _take_write(self, command: api.Write) -> None:
        slot = self._table.get(command.session)
        if slot is not None:
            self._captions.take(command, slot)

    def _take_question(self, command: api.Judge) -> None:
        slot = self._table.get(command.session)
        if slot is not None and command.piece in slot.pieces:
            self._judgements.take(command, slot.pieces[command.piece])

    # --- steps in the background --------------------------------------------------------------------------------

    def _encode(self, step: EncodeStep) -> None:
        wanted: list[tuple[int, Piece]] = []
        for session, number in step.pieces:
            self._background.pieces.pop((session, number), None)
            slot = self._table.get(session)
            if slot is not None and number not in slot.encoded:
                wanted.append((session, self._piece(slot, number)))
        began = self._clock()
        outcomes = self._isolated(self._runner.encode, wanted)
        self._note_encoding({session for session, _ in wanted}, self._clock() - began)
        for (session, piece), outcome in zip(wanted, outcomes, strict=True):
            slot = self._table.get(session)
            assert slot is not None, "only a command closes it"
            if outcome is None:
                slot.encoded.add(piece.id)
            else:
                self._lose_piece(slot, piece.id, outcome)

    def _note_encoding(self, sessions: set[int], seconds: float) -> None:
        for session in sessions:
            slot = self._table.get(session)
            waiting = [
                turn for turn in (slot.turns if slot is not None else ()) if turn.stage is Stage.WAITING
            ]
            for turn in waiting:
                turn.encoded += seconds
            self._guesses.charge(waiting, seconds / len(sessions))

    def _piece(self, slot: Slot, number: int) -> Piece:
        """A piece that was forgotten while a waiting turn still named it is in the turn itself."""
        known = slot.pieces.get(number)
        held = (piece for turn in slot.turns for item in turn.items for piece in item_pieces(item))
        return known if known is not None else next(piece for piece in held if piece.id == number)

    def _lose_piece(self, slot: Slot, number: int, error: Exception) -> None:
        """One session's bad piece fails the turns that name it."""
        self._raise_if_lost(error)
        log.error("encoding a piece of session %d failed", slot.session, exc_info=error)
        slot.pieces.pop(number, None)
        for turn in [t for t in slot.turns if number in slot.missing(t.items)]:
            slot.turns.remove(turn)
            self._fail(turn, error)

    def _prepare(self, step: PrepareStep) -> None:
        early = self._background.early[step.session]
        try:
            if early.job is None:
                early.job = self._runner.prepare(step.session, early.items, early.options)
            done = self._runner.read(early.job, step.positions)
        except Exception as error:  # nobody asked for it yet: the turn will meet the error, if it is one
            self._raise_if_lost(error)
            log.info("reading ahead for session %d failed: %s", step.session, error)
            done = True
        if done:
            self._drop_early(step.session)

    def _drop_early(self, session: int) -> None:
        early = self._background.early.pop(session, None)
        if early is not None and early.job is not None:
            self._runner.finish(early.job)

    # --- steps of turns -----------------------------------------------------------------------------------------

    def _prefill(self, step: PrefillStep) -> None:
        slot, turn = self._planned(step.session, step.turn)
        began = self._clock()
        try:
            if turn.stage is Stage.WAITING:
                turn.job = self._runner.begin(turn)
                turn.stage = Stage.READING
                begun = self._runner.summary(turn.job)
                known = begun.usage, begun.limit, begun.dropped, round(turn.encoded, 6), begun.room
                self._emit(api.Started(turn.session, turn.turn, *known))
            if self._runner.read(turn.job, step.positions):
                turn.stage = Stage.DECODING
            self._guesses.charge([turn], self._clock() - began)
        except Exception as error:  # the turn fails, the other sessions go on; device loss is told apart
            if not (isinstance(error, CapacityError) and not turn.guess and self._give_up_guesses()):
                self._lose(slot, turn, error)

    def _decode(self, step: DecodeStep) -> None:
        turns = [self._planned(session, turn) for session, turn in step.turns]
        captions = [self._background.captions[key] for key in step.writes]
        judgements = [self._background.judgements[session] for session in step.judges]
        jobs = [turn.job for _, turn in turns]
        jobs += [caption.job for caption in captions] + [question.job for question in judgements]
        began = self._clock()
        outcomes = self._isolated(self._runner.decode, jobs)
        share = (self._clock() - began) * len(turns) / len(jobs)
        self._guesses.charge([turn for _, turn in turns], share)
        for (slot, turn), outcome in zip(turns, outcomes[: len(turns)], strict=True):
            if isinstance(outcome, Exception):
                self._lose(slot, turn, outcome)
            else:
                self._written(turn, outcome)
                self._end_if_done(slot, turn)
        written = iter(outcomes[len(turns) :])
        for key, outcome in zip(step.writes, written, strict=False):
            self._captions.write(*key, outcome)
        for session, outcome in zip(step.judges, written, strict=True):
            self._judgements.write(session, outcome)

    def _written(self, turn: Turn, written: Written) -> None:
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
        if written.reading:
            turn.stage = Stage.READING
        if written.ended is not None:
            turn.stage, turn.reason = Stage.DRAINING, written.ended

    def _vocode(self, step: VocodeStep) -> None:
        turns: list[Turn] = []
        parts: list[Speech] = []
        for part in step.parts:
            _, turn = self._planned(part.session, part.turn)
            ids, turn.waiting_ids = turn.waiting_ids[: part.count], turn.waiting_ids[part.count :]
            turn.vocoding = True
            turns.append(turn)
            parts.append(Speech(turn.job, ids, part.last))
        began = self._clock()

        def done(outcome: list[Pcm | Exception] | Exception) -> None:
            self._guesses.charge(turns, self._clock() - began)
            self._vocoded(turns, parts, outcome)

        if self._lane is None:
            done(self._speak(turns, parts))
        else:
            self._lane.submit(lambda: self._speak(turns, parts), done)

    def _speak(self, turns: Sequence[Turn], parts: Sequence[Speech]) -> list[Pcm | Exception]:
        """Sound of the parts, each at the speed of its turn; on a lane's thread, if there are lanes."""
        made = self._isolated(self._runner.vocode, parts)
        return [
            pcm if isinstance(pcm, Exception) else turn.paced(pcm, last=part.last)
            for turn, part, pcm in zip(turns, parts, made, strict=True)
        ]

    def _vocoded(
        self, turns: Sequence[Turn], parts: Sequence[Speech], outcomes: list[Pcm | Exception] | Exception
    ) -> None:
        """The vocoder is done with some turns, any of which may be gone by now."""
        if isinstance(outcomes, Exception):
            self._raise_if_lost(outcomes)
            outcomes = [outcomes] * len(parts)
        for turn, part, outcome in zip(turns, parts, outcomes, strict=True):
            turn.vocoding = False
            if isinstance(outcome, Exception):
                self._raise_if_lost(outcome)
            slot = self._table.get(turn.session)
            if slot is None or turn not in slot.turns:
                self._free(turn)
            elif isinstance(outcome, Exception):
                self._lose(slot, turn, outcome)
            else:
                self._spoken(turn, outcome, last=part.last)
                self._end_if_done(slot, turn)

    def _spoken(self, turn: Turn, pcm: Pcm, *, last: bool) -> None:
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
        spent = round(turn.spent, 6)
        self._emit(api.Ended(turn.session, turn.turn, reason, summary.usage, summary.raw_ids, spent))
        self._guesses.ended(turn)
        self._free(turn)

    def _fail(self, turn: Turn, error: Exception) -> None:
        self._free(turn)
        if isinstance(error, VoiceAgentError):  # foreseen: what the session holds is sound
            code, message = error.code, str(error)
        else:
            log.error("turn %d of session %d failed", turn.turn, turn.session, exc_info=error)
            code, message = "internal_error", f"The engine failed on this turn ({type(error).__name__})."
            if not turn.apart:  # that one has its own, and they are gone
                self._drop_caches(turn.session)
        self._emit(api.Failed(turn.session, turn.turn, code, message))

    def _give_up_guesses(self) -> bool:
        """Somebody needs the memory that guesses hold; False if there are none."""
        found = [(slot, turn) for slot in self._table for turn in slot.turns if turn.guess]
        for slot, turn in found:
            slot.turns.remove(turn)
            self._end(turn, "cancelled")
        return bool(found)

    def _drop_caches(self, session: int) -> None:
        """Half-written caches are worth less than a fresh prefill."""
        self._runner.close(session)
        slot = self._table.get(session)
        if slot is not None:
            slot.encoded.clear()

    def _free(self, turn: Turn) -> None:
        """Give back what a turn that is no longer in the table holds; not under the hands of the vocoder."""
        if turn.job is not None and not turn.vocoding:
            self._runner.finish(turn.job)
            turn.job = None
        slot = self._table.get(turn.session)
        if slot is not None:
            self._forget_idle(slot)

    def _isolated(
        self, call: Callable[[Sequence[Job]], Sequence[Result | Exception]], jobs: Sequence[Job]
    ) -> list[Result | Exception]:
        """Results in the order of the jobs; if the step fails as a whole, each job is tried alone."""
        try:
            return list(call(jobs)) if jobs else []
        except Exception as error:  # whose fault it is shows when they are apart; device loss is told apart
            self._raise_if_lost(error)
            if len(jobs) == 1:
                return [error]
            log.warning("a step for %d jobs failed, each is tried alone: %s", len(jobs), error)
            return [outcome for job in jobs for outcome in self._isolated(call, [job])]

    def _raise_if_lost(self, error: Exception) -> None:
        if self._runner.is_device_loss(error):
            raise error

    # --- lookups ------------------------------------------------------------------------------------------------

    def _find(self, session: int, turn: int) -> tuple[Slot | None, Turn | None]:
        slot = self._table.get(session)
        turns = slot.turns if slot is not None else ()
        return slot, next((t for t in turns if t.turn == turn), None)

    def _planned(self, session: int, turn: int) -> tuple[Slot, Turn]:
        slot, found = self._find(session, turn)
        assert slot is not None
        assert found is not None, "planned from the table a moment ago"
        found.served_at = self._clock()
        return slot, found
