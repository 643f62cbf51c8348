"""The WebSocket calls of a server: admission, one dialect each, start and end. It knows dialects, not protocols."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import time
from typing import Protocol

from aiohttp import web

from voiceagent.config import Config
from voiceagent.core.controller import Controller
from voiceagent.core.events import Configure
from voiceagent.core.history import History
from voiceagent.core.journal import Opened
from voiceagent.core.options import Condensing, Filler, ServerVad, SessionConfig
from voiceagent.engine.api import EngineClient, EngineSession, Ready
from voiceagent.errors import CapacityError, EngineError, VoiceAgentError
from voiceagent.server.auth import SUBPROTOCOL, Gatekeeper
from voiceagent.server.ephemeral import EphemeralKey
from voiceagent.server.lines import LIVE_MESSAGE_BYTES, Lines
from voiceagent.server.recorder import Recorded, Recorder, Recordings
from voiceagent.server.session import Line, Session
from voiceagent.server.session_tools import Outcome as ToolsOutcome
from voiceagent.server.session_tools import SessionTools
from voiceagent.server.session_voices import Outcome, SessionVoices
from voiceagent.server.tasks import TRANSLATE_ALOUD
from voiceagent.server.telemetry import Telemetry
from voiceagent.server.voice_book import VoiceBook
from voiceagent.tools.toolbox import Toolbox
from voiceagent.wire import realtime_secrets
from voiceagent.wire.dialect import EXPIRED, ConnectTools, Dialect, VoiceRequest, WireError
from voiceagent.wire.live import LiveDialect
from voiceagent.wire.realtime import RealtimeDialect
from voiceagent.wire.realtime_session import Kind, kind_of
from voiceagent.wire.translation import TranslationDialect

log = logging.getLogger("voiceagent.server")

RETRY_AFTER_S = 2
CLOSING_S = 2.0  #: a peer may take this long to answer our close
POLICY = 1008
KEY: web.RequestKey[EphemeralKey | None] = web.RequestKey("key", object)  # type: ignore[arg-type]
"""Of a request: the ephemeral key that it came with, or None."""
CODE: web.ResponseKey[str] = web.ResponseKey("code", str)
"""Of a response: what was wrong with its request."""


class _Dialect(Dialect, Protocol):
    """A dialect that says what its session asks of the controller."""

    @property
    def config(self) -> SessionConfig: ...


class Calls:
    """All calls of one server.

    Args:
        config: checked configuration.
        engine: where the sessions of the calls are opened.
        gate: keeps the ephemeral keys.
        recordings: where calls are recorded that ask for it.
        voices: all that may be asked for.
        tools: all that the server runs.
        telemetry: counts and times the calls.
    """

    def __init__(
        self,
        config: Config,
        engine: EngineClient,
        gate: Gatekeeper,
        recordings: Recordings | None = None,
        *,
        voices: VoiceBook,
        tools: Toolbox,
        telemetry: Telemetry,
    ) -> None:
        self._config = config
        self._telemetry = telemetry
        self._engine = engine
        self._gate = gate
        self._recordings = recordings
        self._book = voices
        self._toolbox = tools
        self._lines = Lines(config, telemetry)
        self._sessions: set[Session] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    @property
    def open(self) -> int:
        """How many calls there are."""
        return self._lines.open

    @property
    def parked(self) -> int:
        """Calls whose line was lost and whose clients may come back."""
        return self._lines.lobby.parked

    async def stop(self) -> None:
        """Closes every call with 1012, and waits a moment for their ends."""
        self._lines.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._nobody.wait()

    # --- routes ---------------------------------------------------------------------------------------------

    async def realtime(self, request: web.Request) -> web.StreamResponse:
        """WS /v1/realtime: a conversation, or with `intent=transcription` a session that only writes down."""
        if "resume" in request.query:
            upgrade = self._upgrade(self._config.limits.message_bytes)
            if not upgrade.can_prepare(request):
                return json_error(_UPGRADE_NEEDED, 426)
            return await self._lines.resume(request, upgrade)
        kind = kind_of(request.query)

        def dialect(name: str, ready: Ready) -> RealtimeDialect:
            return self._realtime_dialect(
                name,
                ready,
                model=request.query.get("model"),
                preset=_preset(request),
                kind=kind,
                recorded=self._to_record(request),
            )

        return await self._enter(request, dialect, message_bytes=self._config.limits.message_bytes)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """WS /v1/live/sessions. What an ephemeral key presets is of the other protocol, and not heeded here."""

        def dialect(name: str, ready: Ready) -> LiveDialect:
            return LiveDialect(
                session_id=name,
                base=self._with_tools(self._session_defaults()),
                voices=self._book,
                clock=asyncio.get_running_loop().time,
                unix_time=time(),
                session_s=self._config.limits.session_s,
                context_tokens=ready.context_tokens,
            )

        longest = max(self._config.limits.message_bytes, LIVE_MESSAGE_BYTES)
        return await self._enter(request, dialect, message_bytes=longest)

    async def translations(self, request: web.Request) -> web.StreamResponse:
        """WS /v1/realtime/translations."""

        def dialect(name: str, ready: Ready) -> TranslationDialect:
            return self._translation(name, ready, model=request.query.get("model"), preset=_preset(request))

        return await self._enter(request, dialect, message_bytes=self._config.limits.message_bytes)

    async def client_secrets(self, request: web.Request) -> web.Response:
        """A key that a page may hold; only somebody with a key of the server's may ask for one."""
        return await self._secret(
            request,
            lambda name, ready, preset: self._realtime_dialect(name, ready, model=None, preset=preset),
        )

    async def translation_secrets(self, request: web.Request) -> web.Response:
        """The same for translations."""
        return await self._secret(
            request, lambda name, ready, preset: self._translation(name, ready, model=None, preset=preset)
        )

    async def _secret(
        self,
        request: web.Request,
        dialect: Callable[[str, Ready, str], RealtimeDialect | TranslationDialect],
    ) -> web.Response:
        ready = self._engine.ready
        if ready is None:
            return json_error(_NOT_READY, 503)
        seconds, session = realtime_secrets.decode_request(await request.read())
        name = f"sess_{secrets.token_hex(6)}"
        shown = dialect(name, ready, session).shown
        try:
            key = self._gate.ephemeral.issue(seconds=seconds, session=session)
        except CapacityError as error:
            return json_error(error, 503)
        return web.json_response(realtime_secrets.answer(key.value, key.expires_at, shown))

    # --- a call ---------------------------------------------------------------------------------------------

    async def _enter(
        self, request: web.Request, dialect: Callable[[str, Ready], _Dialect], *, message_bytes: int
    ) -> web.StreamResponse:
        """A call in the dialect that is made for its name, if the request can become one."""
        upgrade = self._upgrade(message_bytes)
        ready = self._admit(request, upgrade)
        if isinstance(ready, web.Response):
            return ready
        name = secrets.token_hex(6)
        return await self._call(request, upgrade, name, dialect(name, ready))

    def _upgrade(self, message_bytes: int) -> web.WebSocketResponse:
        return web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            autoping=False,  # Connection has pings of its own, and counts the peer's as messages
            max_msg_size=message_bytes,
            compress=False,  # PCM gains nothing, and it costs 56 KiB a connection
            timeout=CLOSING_S,
        )

    def _admit(self, request: web.Request, upgrade: web.WebSocketResponse) -> Ready | web.Response:
        """What the engine is, or the answer to a request that cannot become a call."""
        if not upgrade.can_prepare(request):
            return json_error(_UPGRADE_NEEDED, 426)
        return self._engine.ready or json_error(_NOT_READY, 503)

    def _translation(
        self, name: str, ready: Ready, *, model: str | None, preset: str | None
    ) -> TranslationDialect:
        dialect = TranslationDialect(
            session_id=name,
            model=model or ready.model,
            base=self._session_defaults(),
            voices=ready.voices,
            instructions=TRANSLATE_ALOUD,
            expires_at=int(time() + self._config.limits.session_s),
        )
        if preset is not None:
            dialect.preset(preset)
        return dialect

    def _realtime_dialect(
        self,
        name: str,
        ready: Ready,
        *,
        model: str | None,
        preset: str | None,
        kind: Kind = "realtime",
        recorded: bool = False,
    ) -> RealtimeDialect:
        """`preset`: the session that an ephemeral key carries, whose type may be another than the usual one."""
        if preset is not None and realtime_secrets.type_of(preset) == "transcription":
            kind = "transcription"
        dialect = RealtimeDialect(
            session_id=name,
            model=model or ready.model,
            base=self._with_tools(self._session_defaults()),
            voices=self._book,
            can_think=ready.can_think,
            kind=kind,
            recorded=recorded,
        )
        if preset is not None:
            dialect.preset(preset)
        return dialect

    async def _call(
        self, request: web.Request, upgrade: web.WebSocketResponse, name: str, dialect: _Dialect
    ) -> web.StreamResponse:
        opened = Opened(dialect.config, f"item_{name}_", self._config.limits.history_audio_mb << 20)
        controller = Controller(opened.config, id_prefix=opened.id_prefix, audio_budget=opened.audio_budget)
        connection = self._lines.connection(upgrade, request)
        clock = asyncio.get_running_loop().time
        recorder = self._recorder(request, name, opened, now=clock())
        decider = controller if recorder is None else Recorded(controller, recorder)
        berth = self._lines.berth(request, connection) if isinstance(dialect, RealtimeDialect) else None
        line: Line = connection if berth is None else berth.line
        session = Session(name=name, controller=decider, dialect=dialect, line=line, clock=clock)
        session.cancel_echo(dialect.config.cancel_echo)
        watch = self._telemetry.call(request.path, clock)
        session.observe = watch.did
        voices = self._session_voices(request, session, dialect, lambda: controller.history)
        tools = self._session_tools(request, session, dialect)

        def carry() -> Awaitable[str]:
            return self._lines.carry(connection, session, berth=berth, dialect=dialect)

        try:
            engine_session = await self._slot(session)
            return await self._converse(
                request, upgrade, session, engine_session, began=watch.began, carry=carry
            )
        except EngineError as error:  # full, or it went down this moment
            return json_error(error, 503)
        finally:
            watch.ended()
            voices.close()
            await tools.close()
            if recorder is not None:
                recorder.close(clock())
            if berth is not None:
                self._lines.lobby.close(berth)

    async def _slot(self, session: Session) -> EngineSession:
        """A slot of the engine's; who is here goes before a client that may come back."""
        try:
            return await self._engine.open_session(session.on_engine)
        except CapacityError:
            if not await self._lines.lobby.make_room():
                raise
        return await self._engine.open_session(session.on_engine)

    def _recorder(self, request: web.Request, name: str, opened: Opened, *, now: float) -> Recorder | None:
        """Of a call that asks to be recorded."""
        if not self._to_record(request) or self._recordings is None:
            return None
        return self._recordings.open(name, opened, now=now)

    def _to_record(self, request: web.Request) -> bool:
        """Whether the call asks to be recorded.

        Raises:
            WireError: it does, and there is nowhere to record it.
        """
        asked = request.query.get("record") == "true"
        if asked and self._recordings is None:
            raise WireError(
                "This server records nothing.",
                code="recording_unavailable",
                param="record",
                remedy="Leave record out, or set recording.folder in the server's configuration.",
            )
        return asked

    def _session_voices(
        self, request: web.Request, session: Session, dialect: _Dialect, history: Callable[[], History]
    ) -> SessionVoices:
        """What a Realtime session asks of voices is answered in its protocol; others ask nothing."""

        def tell(asked: VoiceRequest, outcome: Outcome) -> None:
            if isinstance(dialect, RealtimeDialect):
                session.tell(dialect.render_voice(asked, outcome))

        voices = SessionVoices(
            self._book, session_id=session.name, trusted=request[KEY] is None, history=history, tell=tell
        )
        session.ask_voices = voices.ask
        return voices

    def _session_tools(self, request: web.Request, session: Session, dialect: _Dialect) -> SessionTools:
        """Calls of tools, and what a Realtime session asks of tool servers."""

        def tell(asked: ConnectTools, outcome: ToolsOutcome) -> None:
            if isinstance(dialect, RealtimeDialect):
                session.tell(dialect.render_tools(asked, outcome))
                session.happened(Configure(dialect.config))

        ready = self._engine.ready
        tools = SessionTools(
            self._toolbox,
            name=session.name,
            trusted=request[KEY] is None,
            context_tokens=0 if ready is None else ready.context_tokens,
            returned=session.happened,
            tell=tell,
        )
        session.ask_tools, session.run_tool = tools.ask, tools.run
        return tools

    async def _converse(
        self,
        request: web.Request,
        upgrade: web.WebSocketResponse,
        session: Session,
        engine_session: EngineSession,
        *,
        began: Callable[[], None],
        carry: Callable[[], Awaitable[str]],
    ) -> web.StreamResponse:
        reason = "handshake failed"
        loop, limits = asyncio.get_running_loop(), self._config.limits
        limit = loop.call_later(limits.session_s, session.hang_up, POLICY, EXPIRED)
        try:
            await upgrade.prepare(request)
            self._sessions.add(session)
            self._nobody.clear()
            log.info("session %s: open", session.name)
            began()
            session.begin(engine_session)
            reason = await carry()
        finally:
            limit.cancel()
            self._sessions.discard(session)
            if not self._sessions:
                self._nobody.set()
            session.end()
            engine_session.close()
            log.info("session %s: %s", session.name, reason)
        return upgrade

    def _with_tools(self, base: SessionConfig) -> SessionConfig:
        """With the tools that the server runs."""
        words, after_ms = self._config.tools.filler, self._config.tools.filler_after_ms
        return replace(
            base,
            tools=tuple(offer.tool for offer in self._toolbox.offers.values()),
            filler=Filler(words, after_ms) if words else None,
        )

    def _session_defaults(self) -> SessionConfig:
        turn, kept = self._config.turn, self._config.context
        vad = ServerVad(turn.threshold, turn.prefix_padding_ms, turn.silence_ms)
        return SessionConfig(
            instructions=self._config.instructions,
            turn_detection=vad,
            transcribe=True,
            lead_ms=turn.lead_ms,
            barge_in="quick" if turn.barge_in == "quick" else "patient",
            cancel_echo=turn.echo_cancellation,
            speculation=turn.speculation,
            condensing=Condensing(
                "text" if kept.audio_as_text else "keep", "model" if kept.summaries else "off"
            ),
        )


def _preset(request: web.Request) -> str | None:
    """The session that the request's ephemeral key carries."""
    key = request[KEY]
    return None if key is None else key.session


_UPGRADE_NEEDED = VoiceAgentError("This address speaks WebSocket only.", code="upgrade_required")
_NOT_READY = VoiceAgentError(
    "The model is still loading.", code="engine_down", remedy="Try again in a few seconds."
)


def json_error(error: VoiceAgentError, status: int) -> web.Response:
    """An HTTP error in the shape that the protocol's clients read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"type": kind, "code": error.code, "message": str(error), "param": error.param}}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    response = web.json_response(body, status=status, headers=headers)
    response[CODE] = error.code
    return response
