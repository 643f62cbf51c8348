"""The aiohttp application: routes, admission before the upgrade, start and stop. It knows no protocol and no model."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from voiceagent import __version__
from voiceagent.config import Config, ServerConfig
from voiceagent.core.controller import Controller
from voiceagent.core.events import ServerVad, SessionConfig
from voiceagent.engine.api import EngineClient, EngineSession, Ready
from voiceagent.errors import CapacityError, ConfigError, EngineError, InputError, VoiceAgentError
from voiceagent.server.audio_rest import AudioRest
from voiceagent.server.auth import SUBPROTOCOL, Gatekeeper, Refused
from voiceagent.server.chat import ChatRest
from voiceagent.server.connection import Connection
from voiceagent.server.ephemeral import EphemeralKey
from voiceagent.server.session import Session
from voiceagent.wire import openapi, realtime_secrets
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime import RealtimeDialect

log = logging.getLogger("voiceagent.server")

RETRY_AFTER_S = 2
REQUEST_BYTES = 32 << 20  #: of a JSON request with audio in it
KEY: web.RequestKey[EphemeralKey | None] = web.RequestKey("key", object)  # type: ignore[arg-type]
"""Of a request: the ephemeral key that it came with, or None."""
CLOSING_S = 2.0  #: a peer may take this long to answer our close
RESTART = 1012  # the clients' SDKs reconnect on it
POLICY = 1008
PAGE_FILES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """The socket server of one engine.

    Args:
        config: checked configuration.
        engine: a started engine client, or one that is still loading (answers 503 until it is ready).
        page: folder of the page, None = no page.
    """

    def __init__(self, config: Config, engine: EngineClient, *, page: Path | None = None) -> None:
        self._config = config
        self._engine = engine
        self._page = page
        self._gate = Gatekeeper(config.server)
        self._connections: set[Connection] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._awaited: set[asyncio.BaseProtocol] = set()  # sockets whose first request has not arrived
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    # --- start and stop -------------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listens; returns host and port.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be used.
        """
        tls = tls_context(self._config.server)
        app = web.Application(middlewares=[self._middleware], client_max_size=REQUEST_BYTES)
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_post("/v1/realtime/client_secrets", self._client_secrets)
        app.router.add_get("/web/{name}", self._file)
        app.router.add_routes(AudioRest(self._engine).routes())
        chat = ChatRest(self._engine, instructions=self._config.instructions)
        app.router.add_post("/v1/chat/completions", chat.completions)
        app.router.add_get("/v1/voices", self._voices)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        host, port = self._config.server.host, self._config.server.port
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._accept, host, port, backlog=1024, ssl=tls
            )
        except OSError as error:
            await self._runner.cleanup()
            raise _listen_error(error, host, port) from error
        address = self._listener.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Stops listening and closes every connection with 1012, then frees the rest."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.close(RESTART, "server is stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._nobody.wait()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._listener is not None:
            await self._listener.wait_closed()

    def _accept(self) -> asyncio.BaseProtocol:
        """A protocol for a new socket, cut off unless a whole request arrives in time.

        aiohttp has no time-out for headers: a request that drips in would hold its socket for ever.
        """
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("accepting before start")
        protocol = self._runner.server()
        self._awaited.add(protocol)

        def cut() -> None:
            if protocol in self._awaited:
                self._awaited.discard(protocol)
                if protocol.transport is not None:
                    protocol.transport.abort()

        asyncio.get_running_loop().call_later(self._config.server.handshake_timeout_s, cut)
        return protocol

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._awaited.discard(request.protocol)
        response: web.StreamResponse
        try:
            offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
            if request.path not in ("/healthz", "/readyz"):
                request[KEY] = self._gate.check(
                    request.headers, subprotocols=offered, page=self._is_page(request)
                )
            response = await handler(request)
        except Refused as error:
            response = _json_error(error, error.status)
        except (WireError, InputError) as error:
            response = _json_error(error, 400)
        except EngineError as error:
            response = _json_error(error, 503)
        except VoiceAgentError as error:  # of a turn that failed
            response = _json_error(error, 500)
        except web.HTTPException as error:
            error.force_close()
            raise
        if not response.prepared:
            response.force_close()  # one request per socket: a second one could drip in unguarded
        return response

    # --- plain requests -------------------------------------------------------------------------------------

    def _is_page(self, request: web.Request) -> bool:
        return request.path == "/" or request.path.startswith("/web/")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": __version__})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._engine.ready
        if ready is None:
            return web.json_response(
                {"status": "loading"}, status=503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        if len(self._connections) >= ready.max_sessions:
            return web.json_response(
                {"status": "full"}, status=503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        return web.json_response({"status": "ready", "model": ready.model, "device": ready.device})

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.json_response(openapi.document(version=__version__))

    async def _models(self, _: web.Request) -> web.Response:
        ready = self._engine.ready
        data = []
        if ready is not None:  # `voices` is an extra key of ours, for pages that let people choose one
            model = {"id": ready.model, "object": "model", "created": 0, "owned_by": "voiceagent"}
            data.append({**model, "voices": list(ready.voices)})
        return web.json_response({"object": "list", "data": data})

    async def _voices(self, _: web.Request) -> web.Response:
        ready = self._engine.ready
        names = () if ready is None else ready.voices
        data = [{"id": name, "object": "voice", "name": name} for name in names]
        return web.json_response({"object": "list", "data": data})

    async def _index(self, _: web.Request) -> web.StreamResponse:
        return self._serve_file("index.html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return self._serve_file(request.match_info["name"])

    def _serve_file(self, name: str) -> web.StreamResponse:
        kind = PAGE_FILES.get(Path(name).suffix)
        if self._page is None or kind is None or "/" in name or not (self._page / name).is_file():
            raise web.HTTPNotFound(text="There is no such page here.")
        return web.FileResponse(
            self._page / name, headers={**PAGE_HEADERS, "Content-Type": f"{kind}; charset=utf-8"}
        )

    # --- sessions -------------------------------------------------------------------------------------------

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        upgrade = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=self._config.server.ping_interval_s,
            max_msg_size=self._config.limits.message_bytes,
            compress=False,  # PCM gains nothing, and it costs 56 KiB a connection
            timeout=CLOSING_S,
        )
        if not upgrade.can_prepare(request):
            return _json_error(_UPGRADE_NEEDED, 426)
        ready = self._engine.ready
        if ready is None:
            return _json_error(_NOT_READY, 503)
        name = secrets.token_hex(6)
        key = request[KEY]
        preset = None if key is None else key.session
        dialect = self._dialect(name, ready, model=request.query.get("model"), preset=preset)
        controller = Controller(dialect.config, id_prefix=f"item_{name}_")
        connection = Connection(upgrade, request, self._config.limits)
        clock = asyncio.get_running_loop().time
        session = Session(name=name, controller=controller, dialect=dialect, line=connection, clock=clock)
        try:
            engine_session = await self._engine.open_session(session.on_engine)
        except EngineError as error:  # full, or it went down this moment
            return _json_error(error, 503)
        return await self._converse(request, upgrade, connection, session, engine_session)

    def _dialect(self, name: str, ready: Ready, *, model: str | None, preset: str | None) -> RealtimeDialect:
        dialect = RealtimeDialect(
            session_id=name,
            model=model or ready.model,
            base=self._session_defaults(),
            voices=ready.voices,
            can_think=ready.can_think,
        )
        if preset is not None:
            dialect.preset(preset)
        return dialect

    async def _client_secrets(self, request: web.Request) -> web.Response:
        """A key that a page may hold; only somebody with a key of the server's may ask for one."""
        if request[KEY] is not None:
            raise Refused(
                "An ephemeral key may not make further keys.",
                status=401,
                code="invalid_api_key",
                remedy="Ask from your own server, with its API key.",
            )
        ready = self._engine.ready
        if ready is None:
            return _json_error(_NOT_READY, 503)
        seconds, session = realtime_secrets.decode_request(await request.read())
        shown = self._dialect(f"sess_{secrets.token_hex(6)}", ready, model=None, preset=session).shown
        try:
            key = self._gate.ephemeral.issue(seconds=seconds, session=session)
        except CapacityError as error:
            return _json_error(error, 503)
        return web.json_response(realtime_secrets.answer(key.value, key.expires_at, shown))

    async def _converse(
        self,
        request: web.Request,
        upgrade: web.WebSocketResponse,
        connection: Connection,
        session: Session,
        engine_session: EngineSession,
    ) -> web.StreamResponse:
        reason = "handshake failed"
        loop, limits = asyncio.get_running_loop(), self._config.limits
        limit = loop.call_later(limits.session_s, connection.close, POLICY, "session limit reached")
        try:
            await upgrade.prepare(request)
            self._connections.add(connection)
            self._nobody.clear()
            log.info("session %s: open", session.name)
            session.begin(engine_session)
            reason = await connection.run(
                session.on_frame, backlog_s=lambda: session.backlog_s, clock=loop.time
            )
        finally:
            limit.cancel()
            self._connections.discard(connection)
            if not self._connections:
                self._nobody.set()
            session.end()
            engine_session.close()
            log.info("session %s: %s", session.name, reason)
        return upgrade

    def _session_defaults(self) -> SessionConfig:
        turn = self._config.turn
        vad = ServerVad(turn.threshold, turn.prefix_padding_ms, turn.silence_ms)
        return SessionConfig(
            instructions=self._config.instructions, turn_detection=vad, transcribe=True, lead_ms=turn.lead_ms
        )


_UPGRADE_NEEDED = VoiceAgentError("This address speaks WebSocket only.", code="upgrade_required")
_NOT_READY = VoiceAgentError(
    "The model is still loading.", code="engine_down", remedy="Try again in a few seconds."
)


def _json_error(error: VoiceAgentError, status: int) -> web.Response:
    """An HTTP error in the shape that the protocol's clients read."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"type": kind, "code": error.code, "message": str(error), "param": error.param}}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(body, status=status, headers=headers)


def _listen_error(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} on {host} is in use.",
            code="port_in_use",
            remedy="Stop the program that uses it, or choose another with --port.",
            param="server.port",
        )
    return ConfigError(
        f"Cannot listen on {host}:{port}: {error.strerror}.",
        remedy="Check server.host and server.port.",
        param="server.host",
    )


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """For `tls_cert` and `tls_key`; None without them.

    Raises:
        ConfigError: one of the two is missing, or they cannot be read or do not belong together.
    """
    if not config.tls_cert and not config.tls_key:
        return None
    if not config.tls_cert or not config.tls_key:
        missing = "tls_key" if config.tls_cert else "tls_cert"
        raise ConfigError(
            f"TLS needs a certificate and its key, and server.{missing} is not set.",
            remedy="Set both, or neither.",
            param=f"server.{missing}",
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The certificate {config.tls_cert} with the key {config.tls_key} cannot be used: {error}.",
            remedy="Give two PEM files that belong together; the key without a passphrase.",
            param="server.tls_cert",
        ) from error
    return context


def find_page() -> Path | None:
    """The page's folder beside the package, as in a checkout; None where it was not installed."""
    folder = Path(__file__).resolve().parent.parent.parent / "web"
    return folder if (folder / "index.html").is_file() else None
