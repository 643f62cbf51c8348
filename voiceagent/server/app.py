"""The aiohttp application: routes, admission before the upgrade, start and stop. It knows no protocol and no model."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from voiceagent import __version__
from voiceagent.config import Config, ServerConfig
from voiceagent.engine.api import EngineClient
from voiceagent.errors import ConfigError, EngineError, InputError, VoiceAgentError
from voiceagent.server.audio_rest import AudioRest
from voiceagent.server.auth import Gatekeeper, Refused
from voiceagent.server.calls import CODE, KEY, RETRY_AFTER_S, Calls, json_error
from voiceagent.server.chat import ChatRest
from voiceagent.server.door import Doors
from voiceagent.server.metrics import State
from voiceagent.server.recorder import Recordings
from voiceagent.server.recordings import RecordingsRest
from voiceagent.server.requests import Requests
from voiceagent.server.telemetry import CALL_PATHS, Telemetry
from voiceagent.server.voice_book import VoiceBook
from voiceagent.server.voices import VoicesRest
from voiceagent.tools.toolbox import Toolbox
from voiceagent.wire import openapi
from voiceagent.wire.dialect import WireError

log = logging.getLogger("voiceagent.server")
http_log = logging.getLogger("voiceagent.http")

REQUEST_BYTES = 32 << 20  #: of a JSON request with audio in it
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
        self._book = VoiceBook(engine, config.server)
        folder = config.recording.folder
        keep_s = 3600 * config.recording.keep_h
        recordings = Recordings(Path(folder).absolute(), keep_s=keep_s) if folder else None
        self._recordings = RecordingsRest(recordings)
        self.tools = Toolbox(config.tools)
        self.telemetry = Telemetry(config.telemetry, self._state)
        self._calls = Calls(
            config,
            engine,
            self._gate,
            recordings,
            voices=self._book,
            tools=self.tools,
            telemetry=self.telemetry,
        )
        self._doors = Doors(config.server.handshake_timeout_s)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    # --- start and stop -------------------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Listens; returns host and port.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate, the voices' folder or a tool cannot be
                used, or traces are asked for and cannot be made.
        """
        self.telemetry.start()
        await self._book.restore()
        await self.tools.start()
        tls = tls_context(self._config.server)
        counting = Requests(self.telemetry.metrics, apart=frozenset(CALL_PATHS))
        app = web.Application(middlewares=[counting.count, self._middleware], client_max_size=REQUEST_BYTES)
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        if self._config.telemetry.metrics != "off":
            app.router.add_get("/metrics", self.telemetry.serve)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name}", self._model)
        app.router.add_get("/v1/realtime", self._calls.realtime)
        app.router.add_get("/v1/live/sessions", self._calls.live)
        app.router.add_post("/v1/realtime/client_secrets", self._calls.client_secrets)
        app.router.add_get("/v1/realtime/translations", self._calls.translations)
        app.router.add_post("/v1/realtime/translations/client_secrets", self._calls.translation_secrets)
        app.router.add_get("/web/{name}", self._file)
        app.router.add_routes(AudioRest(self._engine, voices=self._book).routes())
        chat = ChatRest(self._engine, voices=self._book, instructions=self._config.instructions)
        app.router.add_post("/v1/chat/completions", chat.completions)
        app.router.add_routes(VoicesRest(self._book).routes())
        app.router.add_routes(self._recordings.routes())
        await self._recordings.start()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, logger=http_log)
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
        await self._calls.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._listener is not None:
            await self._listener.wait_closed()
        await self._recordings.stop()
        await self.tools.stop()
        await self.telemetry.stop()

    def _accept(self) -> asyncio.BaseProtocol:
        """A protocol for a new socket, behind a door."""
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("accepting before start")
        return self._doors.open(self._runner.server())

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._doors.seen(request.protocol)
        response: web.StreamResponse
        try:
            offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
            if request.path not in ("/healthz", "/readyz"):
                request[KEY] = self._gate.check(
                    request.headers, path=request.path, subprotocols=offered, page=self._needs_no_key(request)
                )
            response = await handler(request)
        except Refused as error:
            response = json_error(error, error.status)
        except (WireError, InputError) as error:
            response = json_error(error, 400)
        except EngineError as error:
            response = json_error(error, 503)
        except VoiceAgentError as error:  # of a turn that failed
            response = json_error(error, 500)
        except web.HTTPException as error:
            error.force_close()
            raise
        if request.path in CALL_PATHS and CODE in response:
            self.telemetry.refused(response[CODE])
        if not response.prepared:
            response.force_close()  # one request per socket: a second one could drip in unguarded
        return response

    # --- plain requests -------------------------------------------------------------------------------------

    def _needs_no_key(self, request: web.Request) -> bool:
        page = request.path == "/" or request.path.startswith("/web/")
        return page or (request.path == "/metrics" and self._config.telemetry.metrics == "open")

    def _state(self) -> State:
        ready, engine = self._engine.ready, self._engine
        slots = 0 if ready is None else ready.max_sessions
        return State(
            ready is not None, slots, engine.slots_used, engine.restarts, self._calls.open, self._calls.parked
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "version": __version__})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._engine.ready
        if ready is None:
            return web.json_response(
                {"status": "loading"}, status=503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        if self._calls.open >= ready.max_sessions:
            return web.json_response(
                {"status": "full"}, status=503, headers={"Retry-After": str(RETRY_AFTER_S)}
            )
        return web.json_response({"status": "ready", "model": ready.model, "device": ready.device})

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.json_response(openapi.document(version=__version__))

    def _known_models(self) -> list[dict[str, Any]]:
        ready = self._engine.ready
        if ready is None:
            return []
        model = {"id": ready.model, "object": "model", "created": 0, "owned_by": "voiceagent"}
        return [{**model, "voices": list(self._book)}]  # ours, for pages that let people choose

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self._known_models()})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        for model in self._known_models():
            if model["id"] == name:
                return web.json_response(model)
        message, remedy = f"There is no model {name[:64]!r} here.", "GET /v1/models tells which there is."
        return json_error(VoiceAgentError(message, code="model_not_found", param="model", remedy=remedy), 404)

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


def _is_fault_of_ours(record: logging.LogRecord) -> bool:
    """Requests that are no HTTP are not worth a traceback, whose text would hold a piece of them, a key maybe."""
    cause = record.exc_info[1] if record.exc_info else None
    return not isinstance(cause, HttpProcessingError)


http_log.addFilter(_is_fault_of_ours)


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
