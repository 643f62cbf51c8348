"""A server in a thread, a page in Chromium, and what the page sends and shows: the pieces of the page's tests."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import threading
import time
import wave
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, WebSocket

from voiceagent.config import Config, ServerConfig, ToolsConfig
from voiceagent.engine.api import EngineClient
from voiceagent.server.app import Server, find_page

T = TypeVar("T")
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MICROPHONE_ARGS = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
RATE = 48_000


class ServerThread:
    """A server with its event loop in a thread of its own: Playwright's synchronous API needs this one.

    Args:
        make_engine: called in that loop.
        keys: API keys that the server demands.
        functions: tools that it runs.
    """

    def __init__(
        self,
        make_engine: Callable[[], EngineClient],
        *,
        keys: tuple[str, ...] = (),
        functions: tuple[str, ...] = (),
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._keys = keys
        self._tools = ToolsConfig(functions=functions)
        self._server: Server | None = None
        self.engine: Any = self.run(_made(make_engine))
        self.run(self.engine.start())
        self.port = 0
        self.listen()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    def listen(self) -> None:
        """Starts listening; again on the same port after `hang_up`."""
        config = Config(server=ServerConfig(port=self.port, api_keys=self._keys), tools=self._tools)
        self._server = Server(config, self.engine, page=find_page())
        _, self.port = self.run(self._server.start())

    def hang_up(self) -> None:
        """Closes every connection and stops listening; the engine goes on."""
        if self._server is not None:
            self.run(self._server.stop())
            self._server = None

    def break_lines(self) -> None:
        """Every connection ends without a word, as when a network goes away."""

        async def cut() -> None:
            assert self._server is not None
            for connection in list(self._server._calls._lines._connections):
                connection.cut()

        self.run(cut())

    def stop(self) -> None:
        """Ends it all."""
        self.hang_up()
        self.run(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()


async def _made(make_engine: Callable[[], EngineClient]) -> EngineClient:
    return make_engine()


@contextmanager
def chromium(driver: Playwright, *args: str) -> Iterator[Browser]:
    """A headless browser: the system's Chromium, or Playwright's own where there is none."""
    browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=[*CHROMIUM_ARGS, *args])
    try:
        yield browser
    finally:
        browser.close()


def listening_to(wav: Path) -> tuple[str, ...]:
    """Arguments of a browser whose microphone plays a file once, and silence after it."""
    return (*MICROPHONE_ARGS, f"--use-file-for-fake-audio-capture={wav}%noloop")


@dataclass(slots=True)
class Visit:
    """A page that was opened, and everything that it complained about, sent and received."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)

    def watch(self) -> None:
        """Records from here on."""
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("websocket", lambda socket: self._watch_socket(socket))

    def _watch_socket(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self.sent.append(json.loads(frame)))
        socket.on("framereceived", lambda frame: self.received.append(json.loads(frame)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The client events of one type that the page has sent."""
        return [event for event in self.sent if event["type"] == kind]

    def heard(self) -> dict[str, Any]:
        """The page's own account: status, played, paused, peak, underruns, latencies."""
        names = ("status", "played", "paused", "peak", "underruns", "latencies")
        script = "names => Object.fromEntries(names.map(name => [name, window.voiceagent[name]]))"
        return dict(self.page.evaluate(script, list(names)))

    def wait_status(self, *names: str, timeout: float = 20_000) -> None:
        """Waits until the page is in one of these states."""
        script = "names => names.includes(window.voiceagent.status)"
        self.page.wait_for_function(script, arg=list(names), timeout=timeout)

    def wait_played(self, samples: int) -> None:
        """Waits until so many samples have been heard."""
        self.page.wait_for_function("n => window.voiceagent.played >= n", arg=samples, timeout=20_000)

    def wait_until(self, done: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
        """Lets the page go on until something holds of what it sent or received."""
        deadline = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline, "it never came"
            self.page.wait_for_timeout(20)


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Opens the page in a fresh profile."""
    context: BrowserContext = browser.new_context(**options)
    try:
        made = Visit(context.new_page())
        made.watch()
        made.page.goto(url)
        yield made
    finally:
        context.close()


def appended(event: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int16]]:
    """The samples of one input_audio_buffer.append."""
    return np.frombuffer(base64.b64decode(event["audio"]), dtype="<i2")


def write_wav(path: Path, *parts: np.ndarray[Any, Any]) -> Path:
    """Mono 16-bit at 48 kHz from float parts, one after the other."""
    samples = np.concatenate(parts)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def quiet(seconds: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Silence."""
    return np.zeros(round(seconds * RATE))


def babble(seconds: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Something with the rhythm and spectrum of a voice, so that a browser's noise suppression lets it through."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 2 * np.pi * np.cumsum(130 + 20 * np.sin(2 * np.pi * 1.7 * t)) / RATE
    voice = sum(np.sin(k * pitch) / k for k in range(1, 24))
    return 0.25 * voice * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
