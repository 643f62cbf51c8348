"""Metrics and traces of a server, from one observer per call; the calls go on whatever goes wrong here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from voiceagent.config import TelemetryConfig
from voiceagent.core.actions import Action
from voiceagent.errors import ConfigError
from voiceagent.server.metrics import CONTENT_TYPE, Metrics, State
from voiceagent.server.observer import Observer

if TYPE_CHECKING:
    from voiceagent.server.tracing import CallTrace, Traces

log = logging.getLogger("voiceagent.telemetry")

CALL_PATHS = {
    "/v1/realtime": "realtime",
    "/v1/realtime/translations": "translation",
    "/v1/live/sessions": "live",
}
"""Where calls are asked for, and what their protocol is called."""
REFUSALS = (
    "invalid_api_key", "forbidden_host", "forbidden_origin", "upgrade_required", "engine_down", "overloaded",
    "recording_unavailable",
)  # fmt: skip
"""Reasons that are counted apart; whatever else is wrong with a request is "invalid_request"."""
LAG_EVERY_S = 0.5
FLUSH_S = 3.0  #: a collector that does not answer may hold up our end for so long
OTLP_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Telemetry:
    """What is known of how one server does.

    Args:
        config: what is wanted.
        state: how the server is at this moment.
    """

    def __init__(self, config: TelemetryConfig, state: Callable[[], State]) -> None:
        self._config = config
        self.metrics = Metrics(state)
        self._traces: Traces | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begins to measure the loop, and to trace if that is asked for.

        Raises:
            ConfigError: the configuration asks for traces, and the packages for them are not installed.
        """
        if _wants_traces(self._config, os.environ):
            self._traces = _traces(self._config)
        self._due = asyncio.get_running_loop().time()
        self._tick()

    async def stop(self) -> None:
        """Ends that; what was traced is sent first, if that does not take long."""
        if self._timer is not None:
            self._timer.cancel()
        if self._traces is not None:
            await _flush(self._traces)
            self._traces = None

    def call(self, path: str, clock: Callable[[], float]) -> CallTelemetry:
        """For a call that was asked for at this path."""
        return CallTelemetry(self.metrics, self._traces, CALL_PATHS.get(path, "other"), clock)

    def refused(self, code: str) -> None:
        """A request for a call got none."""
        self.metrics.count("voiceagent_sessions_refused", code if code in REFUSALS else "invalid_request")

    def resumption(self, outcome: str) -> None:
        """What became of a call whose line was lost: resumed, expired, evicted or refused."""
        self.metrics.count("voiceagent_resumptions", outcome)

    async def serve(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.metrics.time("voiceagent_loop_lag_seconds", max(0.0, now - self._due))
        self._due = now + LAG_EVERY_S
        self._timer = loop.call_at(self._due, self._tick)


class CallTelemetry:
    """One call of a server."""

    def __init__(
        self, metrics: Metrics, traces: Traces | None, protocol: str, clock: Callable[[], float]
    ) -> None:
        self._metrics, self._traces, self._protocol, self._clock = metrics, traces, protocol, clock
        self._observer = Observer()
        self._began: float | None = None
        self._trace: CallTrace | None = None

    def began(self) -> None:
        """The call is open."""
        self._began = self._clock()
        self._metrics.count("voiceagent_sessions_opened", self._protocol)
        if self._traces is not None:
            self._trace = self._traces.call(self._protocol, self._began)

    def did(self, action: Action) -> None:
        """The call's session carries this out."""
        if not self._observer.looks_at(action):
            return
        try:
            now = self._clock()
            record = self._observer.see(action, now)
            if record is not None:
                self._metrics.take(record)
                if self._trace is not None:
                    self._trace.take(record, now)
        except Exception:  # no call is to end because it could not be counted
            log.exception("could not count %s", type(action).__name__)

    def ended(self) -> None:
        """The call is over, or never came to be."""
        if self._began is None:
            return
        now = self._clock()
        self._metrics.time("voiceagent_session_seconds", now - self._began, self._protocol)
        if self._trace is not None:
            self._trace.end(now)


async def _flush(traces: Traces) -> None:
    """Sends what is left, on a thread that a program may leave behind when it ends."""
    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        traces.close()
        with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(sent.set)

    threading.Thread(target=close, name="last traces", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_S):
            await sent.wait()
    except TimeoutError:
        log.warning("the last traces could not be sent in %.0f s", FLUSH_S)


def _wants_traces(config: TelemetryConfig, environ: Mapping[str, str]) -> bool:
    if config.otlp:
        return True
    switched_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return not switched_off and any(environ.get(name) for name in OTLP_VARIABLES)


def _traces(config: TelemetryConfig) -> Traces | None:
    """None where only the environment asks for traces, as it may of every program of a machine, and they cannot be."""
    try:
        from voiceagent.server import tracing  # who wants no traces needs no opentelemetry
    except ModuleNotFoundError as error:
        remedy = "pip install 'voiceagent[otel]'"
        if config.otlp:
            raise ConfigError(
                "Traces need the packages of OpenTelemetry, which are not installed.",
                code="otel_unavailable",
                remedy=remedy,
                param="telemetry.otlp",
            ) from error
        log.warning("no traces: the packages of OpenTelemetry are not installed (%s)", remedy)
        return None
    return tracing.Traces(tracing.exporter(config.otlp), unix_ns=time.time_ns)
