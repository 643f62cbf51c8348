"""The unmodified openai package as a Live client; every message it is told is also checked strictly by its types."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from openai import AsyncOpenAI
from openai.resources.live.live import AsyncLiveConnection
from openai.types.live import ServerEvent
from openai_caller import PATIENCE_S
from pydantic import TypeAdapter

Event = Any
_strict: TypeAdapter[Any] = TypeAdapter(ServerEvent)


class LiveCaller:
    """One connection; `log` keeps every event, `audio` what was said, in bytes of the session's format."""

    def __init__(self, connection: AsyncLiveConnection) -> None:
        self.connection = connection
        self.log: list[Event] = []
        self.audio = bytearray()

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.connection.recv_bytes()
        _strict.validate_json(raw)
        event = self.connection.parse_event(raw)
        self.log.append(event)
        if event.type == "session.output_audio.delta":
            self.audio += base64.b64decode(event.delta, validate=True)
        return event

    async def until(self, kind: str, when: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of this type; an error unless one is waited for ends the test."""
        while True:
            event = await self.next()
            if event.type == kind and when(event):
                return event
            assert event.type != "error", event.error

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send({"type": kind, **fields})  # type: ignore[arg-type,misc]

    async def start(self, **session: Any) -> Event:
        await self.send("session.start", session={"model": "pocket", **session})
        return await self.until("session.started")

    async def append(self, pcm: np.ndarray[Any, np.dtype[np.int16]], *, rate: int = 24_000) -> None:
        """Sends audio in 40 ms frames, as fast as they go."""
        for start in range(0, len(pcm), rate // 25):
            frame = pcm[start : start + rate // 25].astype("<i2").tobytes()
            await self.send("session.input_audio.append", audio=base64.b64encode(frame).decode())

    def text(self, way: str) -> str:
        kind = f"session.{way}_transcript.delta"
        return "".join(event.delta for event in self.log if event.type == kind)


@asynccontextmanager
async def live(address: str) -> AsyncIterator[LiveCaller]:
    """A connection to host:port that has not started its session."""
    async with (
        AsyncOpenAI(api_key="unused", base_url=f"http://{address}/v1") as client,
        client.live.connect() as connection,
    ):
        yield LiveCaller(connection)
