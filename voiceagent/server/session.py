"""Drives one controller: the only place where frames, engine events and time meet, and where actions become effects.

Everything here is synchronous and runs on the event loop: frames go to a bounded outbox, engine work to the engine's
handle. It decides nothing itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import ceil, inf
from typing import Protocol

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core.guard import EchoGuard
from voiceagent.engine.api import EngineSession
from voiceagent.errors import VoiceAgentError
from voiceagent.server.slow import SlowFrames
from voiceagent.units import MODEL_RATE
from voiceagent.wire.dialect import Dialect, Reply, Slow, ToolsRequest, VoiceRequest, WireError

log = logging.getLogger("voiceagent.session")

POLICY = 1008
INTERNAL_ERROR = 1011  # the clients' SDKs retry on it, which may help after a bug of ours


class Line(Protocol):
    """The connection as a session sees it."""

    def send(self, frame: str | bytes) -> None:
        """Queues a frame."""

    def close(self, code: int, reason: str) -> None:
        """Closes the connection after what is queued."""


class Decider(Protocol):
    """The controller as a session sees it."""

    def handle(self, event: core.Event, now: float) -> list[act.Action]:
        """What to do about one event."""

    def handle_timeout(self, now: float) -> list[act.Action]:
        """What to do because time has passed."""

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called."""


class Session:
    """One call: a dialect, a controller and an engine session, bound together until `end`."""

    def __init__(
        self, *, name: str, controller: Decider, dialect: Dialect, line: Line, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self._controller = controller
        self._dialect = dialect
        self._line = line
        self._clock = clock
        self._engine: EngineSession | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._echo: EchoGuard | None = None
        self._slow = SlowFrames(line.send, self._crash)
        self._over = False
        self._engine_up = True
        self.ask_voices: Callable[[VoiceRequest], None] = lambda _: None  #: takes what is asked of voices
        #: takes what is asked of tool servers
        self.ask_tools: Callable[[ToolsRequest], None] = lambda _: None
        #: takes calls of tools; what comes of one is `happened`
        self.run_tool: Callable[[act.RunTool], None] = lambda _: None
        self.observe: Callable[[act.Action], None] = lambda _: None  #: is shown all notices; must not raise
        self._heard = self._judged = 0  # input samples given to the voice detector, and answered by it

    def backlog_s(self) -> float:
        """Seconds of input that the voice detector has not answered: a file may come faster than it listens.

        Without a bound one client's flood of audio would fill the engine's pipe, and the engine is everybody's. It is
        without end while an answer that takes long is being made: one such request at a time.
        """
        if self._slow.busy:
            return inf
        return (self._heard - self._judged) / MODEL_RATE if self._engine_up else 0.0

    def tell(self, frames: Iterable[str | bytes]) -> None:
        """Frames for the client that came of neither a message nor the engine."""
        if not self._over:
            for frame in frames:
                self._line.send(frame)

    def begin(self, engine: EngineSession) -> None:
        """Binds the engine's handle and greets the client."""
        self._engine = engine
        for frame in self._dialect.open():
            self._line.send(frame)

    def on_frame(self, frame: str | bytes) -> None:
        """A frame from the client. What the protocol does not allow is answered, never raised."""
        if self._over:
            return
        try:
            for event in self._dialect.receive(frame):
                if isinstance(event, core.AudioIn):  # nearly all that comes
                    self._listen(event)
                elif isinstance(event, Reply):
                    self._line.send(event.frame)
                elif isinstance(event, VoiceRequest):
                    self.ask_voices(event)
                elif isinstance(event, ToolsRequest):
                    self.ask_tools(event)
                else:
                    self._handle(event)
        except WireError as error:
            self._refuse(error)
        except Exception:
            self._crash()
        self._arm()

    def on_engine(self, event: core.Event) -> None:
        """An event of the engine; called by the engine client, so nothing may escape from here."""
        if self._over:
            return
        try:
            if isinstance(event, core.SpeechProb):
                self._judged = event.at
            else:
                self._note(event)
            self._decide(event)
        except Exception:
            self._crash()
        self._arm()

    def happened(self, event: core.Event) -> None:
        """Something came of what the server does for the session; nothing may escape from here either."""
        if not self._over:
            self._guarded(event)

    def on_line(self, busy: bool) -> None:
        """The line has as much to send as it may hold, or has room again."""
        if not self._over:
            self._guarded(core.LineBusy(busy))

    def flooded(self) -> None:
        """The client sends more messages than anybody needs, without end: it is told so, and closed."""
        self._refuse(_FLOOD)
        self.hang_up(POLICY, _FLOOD.code)

    def hang_up(self, code: int, reason: str) -> None:
        """The server ends the call: what is said is cut, the client is told in its protocol's words."""
        if not self._over:
            self._guarded(core.Hangup(reason, code))

    def end(self) -> None:
        """The connection is gone: nothing is handled any more, the engine forgets us. Ending twice is fine."""
        self._over = True
        self._slow.drop()
        if self._timer is not None:
            self._timer.cancel()
        if self._engine is not None:
            self._engine.close()

    def cancel_echo(self, wanted: bool) -> None:
        """Whether our own voice is taken out of what comes in from now on."""
        if not wanted and self._echo is not None:
            self._hear(self._echo.flush())
        self._echo = (self._echo or EchoGuard()) if wanted else None

    def _handle(self, event: core.Event) -> None:
        match event:
            case core.AudioIn():
                self._listen(event)
                return
            case core.Commit() | core.Clear() if self._echo is not None:
                self._hear(self._echo.flush())
            case core.Configure(config):
                self.cancel_echo(config.cancel_echo)
            case _:
                pass
        self._decide(event)

    def _listen(self, event: core.AudioIn) -> None:
        self._hear(event if self._echo is None else self._echo.hear(event, self._clock()))

    def _hear(self, event: core.AudioIn) -> None:
        if self._engine is not None and len(event.pcm):
            self._heard = event.at + len(event.pcm)
            self._engine.hear(event.at, event.pcm)
            self._decide(event)

    def _decide(self, event: core.Event) -> None:
        for action in self._controller.handle(event, self._clock()):
            self._perform(action)

    def _note(self, event: core.Event) -> None:
        """The engine goes and comes; what came while it was away the voice detector will never answer."""
        match event:
            case core.AudioOut():
                pass
            case core.EngineDown():
                self._engine_up = False
            case core.EngineUp():
                self._engine_up, self._judged = True, self._heard
            case _:
                pass

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.SendAudio():  # nearly all that is done
                self._tell(action)
            case (
                act.StartTurn()
                | act.EncodePiece()
                | act.ForgetPieces()
                | act.Prepare()
                | act.ConfirmTurn()
                | act.CancelTurn()
                | act.Transcribe()
                | act.JudgeEnd()
            ):
                if self._engine is not None:
                    self._engine.send(action)
            case act.RunTool():
                self.run_tool(action)
            case _:
                self.observe(action)
                self._tell(action)
                if isinstance(action, act.Close):
                    self._line.close(action.code, action.reason)

    def _tell(self, action: act.Action) -> None:
        if self._echo is not None:
            self._echo.did(action, self._clock())
        for frame in self._dialect.render(action):
            if isinstance(frame, Slow):
                self._slow.add(frame)
            else:
                self._line.send(frame)

    def _guarded(self, event: core.Event) -> None:
        """Handles an event that the loop calls us with: a bug of ours stays in this session, the timer is re-armed."""
        try:
            self._handle(event)
        except Exception:
            self._crash()
        self._arm()

    def _arm(self) -> None:
        """Sees to it that the one timer of this session rings at the controller's next deadline, or before.

        Deadlines move on with nearly every event: a timer that rings early finds nothing to do and is set anew, which
        is cheaper than to move it each time.
        """
        deadline = None if self._over else self._controller.next_deadline()
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        # Whole milliseconds, as some loops count: rounded down, the timer would ring too early over and over.
        delay = ceil(max(0.0, deadline - self._clock()) * 1000) / 1000
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            for action in self._controller.handle_timeout(self._clock()):
                self._perform(action)
        except Exception:
            self._crash()
        self._arm()

    def _refuse(self, error: WireError) -> None:
        try:
            self._line.send(self._dialect.render_error(error))
            if error.fatal:
                self._line.close(POLICY, error.code)
        except Exception:
            self._crash()

    def _crash(self) -> None:
        """A bug of ours ends this session, tells its client so, and touches no other."""
        log.exception("session %s: unexpected error", self.name)
        words = "The server had an internal error. Please connect again."
        try:
            self._line.send(self._dialect.render_error(VoiceAgentError(words, code="internal_error")))
        except Exception:  # the bug may be the dialect's
            log.exception("session %s: while telling of the error", self.name)
        self._line.close(INTERNAL_ERROR, "internal error")
        self.end()


_FLOOD = WireError(
    "Too many small messages, for too long.",
    code="too_many_messages",
    remedy="Send 20 to 100 ms of audio at once.",
)
