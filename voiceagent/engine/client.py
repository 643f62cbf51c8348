"""The server's side of the engine process: starts it, watches it, restarts it, fans its replies out to sessions.

It is asyncio throughout and never imports torch. What the engine computes is opaque here; the history lives with the
caller, so a restart loses nothing but the turns that were running.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from voiceagent.core import events
from voiceagent.core.actions import (
    CancelTurn,
    ConfirmTurn,
    EncodePiece,
    ForgetPieces,
    JudgeEnd,
    Prepare,
    StartTurn,
    Transcribe,
)
from voiceagent.core.history import Item, Piece
from voiceagent.engine import api, mapping
from voiceagent.engine.pipe import Pipe, WorkerSpec, environment
from voiceagent.engine.slots import item_pieces
from voiceagent.engine.voices import Keeper
from voiceagent.errors import CapacityError, CheckpointError, ConfigError, EngineError, VoiceAgentError

BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  #: before the first, second, ... restart in a row
CALM_S = 60.0  #: an engine that lived this long starts the backoff afresh
CRASH_LOOP = 5  #: deaths within `CALM_S` that make `crash_looping` true
LOAD_ERRORS: dict[str, type[VoiceAgentError]] = {
    "invalid_checkpoint": CheckpointError,
    "wrong_model": CheckpointError,
    "bad_weights": CheckpointError,
    "vad_missing": CheckpointError,
    "voice_missing": CheckpointError,
    "audio_too_short": CheckpointError,  # a voice's recording
    "audio_too_long": CheckpointError,
    "audio_silent": CheckpointError,
    "device_unavailable": ConfigError,
    "dtype_unsupported": ConfigError,
    "out_of_memory": CapacityError,
}
"""What a worker may refuse to load for, and as what that is raised here; anything else is an EngineError."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class LocalSession:
    """One session's handle; see `EngineSession`."""

    engine: LocalEngine
    number: int
    on_event: Callable[[api.EngineEvent], None]
    sent: set[int] = field(default_factory=set)  #: pieces that this incarnation of the worker has
    asked: set[int] = field(default_factory=set)  #: pieces of questions, which are in no conversation
    closed: bool = False

    def hear(self, at: int, pcm: npt.NDArray[np.float32]) -> None:
        """Send input audio to the voice detector; dropped while the engine is away."""
        if not self.closed:
            self.engine.post(api.Audio(self.number, at, mapping.samples_to_bytes(pcm)))

    def send(self, action: api.EngineAction) -> None:
        """Carry out an action; a turn that cannot begin is answered by `TurnFailed`."""
        if self.closed:
            return
        match action:
            case StartTurn():
                self._start_turn(action)
            case EncodePiece():
                self._send_pieces([action.piece])
            case ForgetPieces():
                self.asked.difference_update(action.pieces)
                self._forget(self.sent.intersection(action.pieces))
            case Prepare():
                self._prepare(action)
            case ConfirmTurn():
                self.engine.post(api.Confirm(self.number, action.turn))
            case CancelTurn():
                self.engine.post(api.Cancel(self.number, action.turn))
            case JudgeEnd(at, piece):
                self._send_pieces([piece])
                self.asked.add(piece.id)
                self.engine.post(api.Judge(self.number, at, piece.id))
            case Transcribe():
                self._send_pieces(action.pieces)
                pieces = tuple(piece.id for piece in action.pieces)
                self.engine.post(api.Write(self.number, action.item_id, pieces, action.more, action.how))

    def close(self) -> None:
        """Give the slot back."""
        if not self.closed:
            self.closed = True
            self.engine.forget(self)

    def _start_turn(self, action: StartTurn) -> None:
        if self.engine.ready is None:
            error = EngineError("The engine is being restarted.", code="engine_down")
            self._fail_soon(action.turn, error)
            return
        options = replace(action.options, voice=self.engine.voices.known(action.options.voice))
        named = [piece for item in action.items for piece in item_pieces(item)]
        try:
            wire = self._send_items(action.items)
            asked = mapping.options_to_wire(options)
            self.engine.post(api.Begin(self.number, action.turn, wire, asked, action.guess))
        except VoiceAgentError as error:
            self._fail_soon(action.turn, error)
            return
        if options.input is None and options.conversation:
            self.asked.difference_update(piece.id for piece in named)
            self._forget_unnamed({piece.id for piece in named})

    def _prepare(self, action: Prepare) -> None:
        """Nobody waits for it: an engine that is away need not hear of it."""
        if self.engine.ready is not None:
            wire = self._send_items(action.items)  # whose voice it is does not matter to reading
            self.engine.post(api.Prepare(self.number, wire, mapping.options_to_wire(action.options)))

    def _send_items(self, items: tuple[Item, ...]) -> tuple[api.WireItem, ...]:
        """The items as they travel, behind the pieces in them that the worker does not have."""
        self._send_pieces([piece for item in items for piece in item_pieces(item)])
        return tuple(mapping.item_to_wire(item) for item in items)

    def _fail_soon(self, turn: int, error: VoiceAgentError) -> None:
        """An event never comes out of the call that caused it: the caller may be in the middle of its own."""
        event = events.TurnFailed(turn=turn, code=error.code, message=error.message)
        asyncio.get_running_loop().call_soon(self.tell, event)

    def _send_pieces(self, pieces: list[Piece] | tuple[Piece, ...]) -> None:
        for piece in pieces:
            if self.engine.ready is not None and piece.id not in self.sent:
                self.engine.post(api.Encode(self.number, piece.id, mapping.piece_to_bytes(piece)))
                self.sent.add(piece.id)

    def _forget_unnamed(self, named: set[int]) -> None:
        """Pieces older than the newest one of the conversation and no longer in it were deleted from it."""
        self._forget({piece for piece in self.sent - named - self.asked if named and piece < max(named)})

    def _forget(self, pieces: set[int]) -> None:
        if pieces:
            self.sent -= pieces
            self.engine.post(api.Forget(self.number, tuple(sorted(pieces))))

    def tell(self, event: api.EngineEvent) -> None:
        """Deliver an event unless the session is closed; what goes wrong there is that session's own."""
        if self.closed:
            return
        try:
            self.on_event(event)
        except Exception:  # one session's fault must not cut the pipe of all
            log.exception("session %d failed on an engine event", self.number)


class LocalEngine:
    """An `EngineClient` whose engine is a child process of ours.

    Args:
        spec: what to start.
        heartbeat_s: a ping this often, answered by the computing loop.
        hang_s: without an answer for this long the process is killed (not while it loads).
        load_s: loading may take this long.
        backoff_s: waits before restarts in a row.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        heartbeat_s: float = 1.0,
        hang_s: float = 5.0,
        load_s: float = 900.0,
        backoff_s: tuple[float, ...] = BACKOFF_S,
    ) -> None:
        self._spec = spec
        self._heartbeat_s, self._hang_s, self._load_s, self._backoff_s = (
            heartbeat_s,
            hang_s,
            load_s,
            backoff_s,
        )
        self.voices = Keeper(self.post)
        self._ready: api.Ready | None = None
        self._pipe: Pipe | None = None
        self._process: Process | None = None
        self._sessions: dict[int, LocalSession] = {}
        self._opened = 0
        self.restarts = 0  #: how many times it came back
        self._deaths: deque[float] = deque(maxlen=CRASH_LOOP)
        self._streak = 0  # deaths in a row, each within CALM_S of its start
        self._pong_at = 0.0
        self._loaded: asyncio.Future[api.Ready] | None = None
        self._stopping = False
        self._supervisor: asyncio.Task[None] | None = None
        self._on_progress: Callable[[api.Loading], None] | None = None

    # --- the seam -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> api.Ready | None:
        """What is loaded; None while the engine is down or loading."""
        return self._ready

    @property
    def slots_used(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    @property
    def pid(self) -> int | None:
        """Process id of the living worker."""
        return None if self._process is None else self._process.pid

    @property
    def crash_looping(self) -> bool:
        """Five deaths within a minute: restarting does not help."""
        full = len(self._deaths) == CRASH_LOOP
        return full and asyncio.get_running_loop().time() - self._deaths[0] < CALM_S

    async def start(self, on_progress: Callable[[api.Loading], None] | None = None) -> api.Ready:
        """Start the worker and wait for its model.

        Raises:
            CheckpointError: the model folder is incomplete, damaged or of another shape.
            ConfigError: a device or number type that this machine does not have.
            CapacityError: too little memory.
            EngineError: the worker could not start or load for another reason.
        """
        self._on_progress = on_progress
        first: asyncio.Future[api.Ready] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.get_running_loop().create_task(
            self._supervise(first), name="engine supervisor"
        )
        try:
            return await first
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the worker (politely, then by force) and the supervision; sessions hear nothing more."""
        self._stopping = True
        for session in list(self._sessions.values()):
            session.closed = True
        self._sessions.clear()
        if self._ready is not None and self._pipe is not None:
            self.post(api.Shutdown())
            if self._supervisor is not None:
                await asyncio.wait([self._supervisor], timeout=2.0)  # it also reaps: cancelled, it could not
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])

    async def open_session(self, on_event: Callable[[api.EngineEvent], None]) -> LocalSession:
        """A new session on the engine.

        Raises:
            EngineError: the engine is down (`engine_down`).
            CapacityError: all of its slots are taken.
        """
        if self._ready is None:
            raise EngineError(
                "The engine is being restarted.", code="engine_down", remedy="Try again in a few seconds."
            )
        if len(self._sessions) >= self._ready.max_sessions:
            raise CapacityError(
                f"All {self._ready.max_sessions} session slots of the engine are taken.",
                remedy="Try again when a session has ended.",
            )
        self._opened += 1
        session = self._sessions[self._opened] = LocalSession(self, self._opened, on_event)
        self.post(api.OpenSession(session.number))
        return session

    # --- for the handles ----------------------------------------------------------------------------------------

    def post(self, command: api.Command) -> None:
        """Send a command to the ready worker; without one it is dropped."""
        if self._ready is not None and self._pipe is not None:
            self._pipe.send(command)

    def forget(self, session: LocalSession) -> None:
        """Close a session at both ends."""
        if self._sessions.pop(session.number, None) is not None:
            self.post(api.CloseSession(session.number))

    # --- supervision --------------------------------------------------------------------------------------------

    async def _supervise(self, first: asyncio.Future[api.Ready]) -> None:
        """Run one worker after the other, until the first fails to load or we are cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._live(first)
            except VoiceAgentError as error:
                if not first.done():
                    first.set_exception(error)  # whoever waits for the start reports it
                    return
                log.error("the engine did not start again: %s", error)
            if self._stopping:
                return
            self._deaths.append(loop.time())
            self._streak = 1 if loop.time() - began > CALM_S else self._streak + 1
            await asyncio.sleep(self._backoff())

    def _backoff(self) -> float:
        return self._backoff_s[min(max(self._streak, 1), len(self._backoff_s)) - 1]

    async def _live(self, first: asyncio.Future[api.Ready]) -> None:
        """One worker from its start to its end; raises `EngineError` when it never became ready."""
        loop = asyncio.get_running_loop()
        self._loaded = loop.create_future()
        ours, theirs = socket.socketpair()
        pipe: Pipe | None = None
        try:
            with theirs:
                _, pipe = await loop.create_connection(lambda: Pipe(self._take), sock=ours)
                self._pipe = pipe
                self._process = await asyncio.create_subprocess_exec(
                    *self._spec.argv(theirs.fileno()), pass_fds=[theirs.fileno()], start_new_session=True,
                    stdin=DEVNULL, stdout=DEVNULL, env=environment(),
                )  # fmt: skip
            ready = await self._wait_until_loaded(self._loaded, pipe)
            self._came_up(ready, restarted=first.done())
            if not first.done():
                first.set_result(ready)
            await self._watch(pipe)
        finally:
            self._went_down()
            if pipe is None:
                ours.close()
            else:
                pipe.abort()
            await self._reap()

    async def _wait_until_loaded(self, loaded: asyncio.Future[api.Ready], pipe: Pipe) -> api.Ready:
        either: list[asyncio.Future[Any]] = [loaded, pipe.ended]
        await asyncio.wait(either, timeout=self._load_s, return_when=asyncio.FIRST_COMPLETED)
        if loaded.done():
            return loaded.result()
        if not pipe.ended.done():
            raise EngineError(f"The engine did not load within {self._load_s:.0f} s.")
        raise EngineError(
            "The engine process ended while it was loading.",
            code="engine_load_failed",
            remedy="Its last words are in the log above; `voiceagent doctor` checks this machine.",
        )

    async def _watch(self, pipe: Pipe) -> None:
        """Ping until the pipe ends; a worker that does not answer is killed."""
        loop = asyncio.get_running_loop()
        self._pong_at = loop.time()
        number = 0
        while not pipe.ended.done():
            number += 1
            pipe.send(api.Ping(number))
            asleep = loop.time()
            await asyncio.wait([pipe.ended], timeout=self._heartbeat_s)
            if loop.time() - asleep > self._heartbeat_s + self._hang_s / 2:
                self._pong_at = loop.time()  # it was we who did not run; the answers may lie unread
            elif loop.time() - self._pong_at > self._hang_s:
                log.error("the engine has not answered for %.1f s and is killed", self._hang_s)
                return

    async def _reap(self) -> None:
        """Make sure that the process is gone, with all that it may have started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session, so its own group
        await asyncio.shield(process.wait())
        await asyncio.sleep(0)  # its transport closes in the loop's next round, which may be the last one

    def _came_up(self, ready: api.Ready, *, restarted: bool) -> None:
        self._ready = ready
        self.restarts += restarted
        self.voices.came_up()
        for session in list(self._sessions.values()):
            session.sent.clear()
            self.post(api.OpenSession(session.number))
            if restarted:
                session.tell(events.EngineUp())

    def _went_down(self) -> None:
        """Tell every session, once per death."""
        was_ready, self._ready, self._pipe = self._ready, None, None
        if was_ready is None:
            return
        self.voices.went_down()
        retry_after = was_ready.load_seconds + self._backoff_s[min(self._streak, len(self._backoff_s) - 1)]
        if not self._stopping:
            log.error("the engine is down; %d sessions are told", len(self._sessions))
        for session in list(self._sessions.values()):
            session.sent.clear()
            session.tell(events.EngineDown(retry_after=retry_after))

    # --- replies ------------------------------------------------------------------------------------------------

    def _take(self, reply: api.Reply) -> None:
        match reply:
            case api.Prob() | api.Sound():  # nearly all that comes
                session = self._sessions.get(reply.session)
                if session is not None:
                    session.tell(mapping.to_event(reply))
            case api.Loading():
                if self._on_progress is not None:
                    self._on_progress(reply)
            case api.Ready():
                self._settle(reply)
            case api.Pong():
                self._pong_at = asyncio.get_running_loop().time()
            case api.Fatal():
                kind = LOAD_ERRORS.get(reply.code, EngineError)
                self._settle(kind(reply.message, code=reply.code, remedy=reply.remedy))
            case api.Enrolled() | api.NotEnrolled():
                self.voices.take(reply)
            case api.Refused():
                log.error("session %d was refused: %s %s", reply.session, reply.message, reply.remedy)
            case _:
                self._tell(reply)

    def _tell(self, reply: mapping.SessionReply) -> None:
        session = self._sessions.get(reply.session)
        if session is not None:
            session.tell(mapping.to_event(reply))

    def _settle(self, outcome: api.Ready | VoiceAgentError) -> None:
        if self._loaded is None or self._loaded.done():
            return
        if isinstance(outcome, api.Ready):
            self._loaded.set_result(outcome)
        else:
            self._loaded.set_exception(outcome)
