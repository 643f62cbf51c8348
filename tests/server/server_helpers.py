"""A server on a scripted engine, and a client that checks every sample that it hears."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from voiceagent.config import Config, LimitsConfig, ServerConfig, TelemetryConfig, ToolsConfig
from voiceagent.engine.api import EngineClient
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.app import Server, find_page

Event = dict[str, Any]
PATIENCE_S = 20.0  #: far longer than anything here takes, so that a busy machine fails no test


@dataclass
class Site:
    """A running server."""

    port: int
    engine: Any
    server: Server

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime?model=fake"


@asynccontextmanager
async def serving(
    engine: EngineClient | Script | None = None,
    *,
    limits: LimitsConfig | None = None,
    keys: tuple[str, ...] = (),
    handshake_s: float = 5.0,
    ping_s: float = 20.0,
    port: int = 0,
    tools: ToolsConfig | None = None,
    telemetry: TelemetryConfig | None = None,
) -> AsyncIterator[Site]:
    """A server on a free port; an engine given ready-made is the caller's to start and stop."""
    own = FakeEngine(engine) if isinstance(engine, Script) or engine is None else None
    if own is not None:
        await own.start()
    site = ServerConfig(port=port, api_keys=keys, handshake_timeout_s=handshake_s, ping_interval_s=ping_s)
    config = Config(
        server=site,
        limits=limits or LimitsConfig(),
        tools=tools or ToolsConfig(),
        telemetry=telemetry or TelemetryConfig(),
    )
    server = Server(config, own or engine, page=find_page())  # type: ignore[arg-type]
    _, bound = await server.start()
    try:
        yield Site(bound, own or engine, server)
    finally:
        await server.stop()
        if own is not None:
            await own.stop()


@dataclass
class Heard:
    """What one response brought to the ear."""

    id: str
    audio: bytearray = field(default_factory=bytearray)
    text: str = ""
    cleared: bool = False
    status: str = ""
    error: str = ""

    @property
    def pcm(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        return np.frombuffer(bytes(self.audio), "<i2").astype(np.int16)


class Caller:
    """A client of one call; it keeps what each response brought, and fails on a sound where none may be."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.responses: dict[str, Heard] = {}
        self.log: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            event: Event = json.loads(await self.socket.recv())
        self.log.append(event)
        self._note(event)
        return event

    async def until(self, *kinds: str, when: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of one of these types."""
        while True:
            event = await self.next()
            if event["type"] in kinds and when(event):
                return event

    async def closed(self) -> tuple[int, str] | None:
        """Reads until the server closes; its code and reason, None if the line was just cut."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as error:
            return None if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)

    async def configure(self, **session: Any) -> None:
        await self.send("session.update", session={"type": "realtime", **session})
        await self.until("session.updated")

    async def manual(self, *, lead_ms: int | None = None) -> None:
        """No voice detection, audio as fast as it comes."""
        await self.configure(audio={"input": {"turn_detection": None}}, output_lead_ms=lead_ms)

    async def say(self, text: str) -> None:
        """Types a question and asks for a response."""
        content = [{"type": "input_text", "text": text}]
        await self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )
        await self.send("response.create")

    async def ask(self, text: str) -> Heard:
        """Types a question; the whole response."""
        await self.say(text)
        done = await self.until("response.done")
        return self.responses[done["response"]["id"]]

    async def append(self, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        audio = base64.b64encode(pcm.astype("<i2").tobytes()).decode()
        await self.send("input_audio_buffer.append", audio=audio)

    def _note(self, event: Event) -> None:
        match event["type"]:
            case "response.created":
                self.responses[event["response"]["id"]] = Heard(event["response"]["id"])
            case "response.output_audio.delta":
                heard = self.responses[event["response_id"]]
                assert not heard.cleared, "sound after the flush"
                assert not heard.status, "sound after response.done"
                heard.audio += base64.b64decode(event["delta"], validate=True)
            case "response.output_audio_transcript.delta" | "response.output_text.delta":
                self.responses[event["response_id"]].text += event["delta"]
            case "output_audio_buffer.cleared":
                self.responses[event["response_id"]].cleared = True
            case "response.done":
                response = event["response"]
                heard = self.responses[response["id"]]
                assert not heard.status, "two ends of one response"
                heard.status = response["status"]
                heard.error = ((response["status_details"] or {}).get("error") or {}).get("code", "")
            case _:
                pass


@asynccontextmanager
async def calling(site: Site, **options: Any) -> AsyncIterator[Caller]:
    """An open call that has been greeted."""
    async with connect(site.ws, max_size=None, compression=None, **options) as socket:
        caller = Caller(socket)
        assert (await caller.next())["type"] == "session.created"
        yield caller


def check_numbers(heard: Heard, *, session: int, whole: int | None = None) -> None:
    """Every sample is the right one at the right place: none lost, doubled, reordered or of another call.

    Args:
        session: number of the engine's session.
        whole: samples that a completed reply has.
    """
    turn = int(heard.id.rpartition("_")[2])
    pcm = heard.pcm
    assert np.array_equal(pcm, numbered(session=session, turn=turn, start=0, count=len(pcm)))
    if heard.status == "completed" and whole is not None:
        assert len(pcm) == whole


async def eventually(true: Callable[[], bool]) -> None:
    """Waits until something that no event tells of has come true."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def tight(**changes: Any) -> LimitsConfig:
    return replace(LimitsConfig(), **changes)
