"""The unmodified openai package as a client; each message that it is told is also checked strictly by its types."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

QUESTIONS = Path(__file__).resolve().parent.parent / "data" / "questions"
RATE = 24_000
PATIENCE_S = 90.0  #: an answer takes two seconds on two idle cores
OUR_EVENTS = {
    "response.output_audio_transcript.words",
    "response.latency",
    "response.interruption",
    "response.heard",
}  #: the package passes over them
Event = Any
_strict: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def questions() -> dict[str, dict[str, Any]]:
    """The spoken test questions by intent."""
    listed = json.loads((QUESTIONS / "questions.json").read_text())["questions"]
    return {question["intent"]: question for question in listed}


def spoken(question: dict[str, Any], *, silence_s: float = 0.0) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A question as 24 kHz samples, silence behind it."""
    samples, rate = soundfile.read(QUESTIONS / question["file"], dtype="float32")
    voice = np.clip(soxr.resample(samples, rate, RATE) * 32767, -32768, 32767).astype(np.int16)
    return np.concatenate([voice, np.zeros(int(silence_s * RATE), np.int16)])


def plain(text: str) -> str:
    return " ".join(text.lower().replace(",", " ").replace(".", " ").split())


class Caller:
    """One connection; `log` keeps every event and `at` its time, `audio` and `text` what each response said."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.log: list[Event] = []
        self.at: list[float] = []  # when each event of the log came, seconds
        self.audio: dict[str, bytearray] = {}
        self.text: dict[str, str] = {}

    @property
    def kinds(self) -> list[str]:
        return [event.type for event in self.log]

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.connection.recv_bytes()
        if json.loads(raw)["type"] not in OUR_EVENTS:
            _strict.validate_json(raw)
        event = self.connection.parse_event(raw)
        self.log.append(event)
        self.at.append(asyncio.get_running_loop().time())
        assert event.type != "error", event.error
        if event.type == "response.output_audio.delta":
            self.audio.setdefault(event.response_id, bytearray()).extend(base64.b64decode(event.delta))
        elif event.type in ("response.output_audio_transcript.delta", "response.output_text.delta"):
            self.text[event.response_id] = self.text.get(event.response_id, "") + event.delta
        return event

    async def until(self, kind: str, when: Callable[[Event], bool] = lambda _: True) -> Event:
        while True:
            event = await self.next()
            if event.type == kind and when(event):
                return event

    async def configure(self, **session: Any) -> Event:
        """Manual turns and unpaced audio unless `session` says otherwise."""
        asked = {
            "type": "realtime",
            "output_lead_ms": None,
            "audio": {"input": {"turn_detection": None}},
            **session,
        }
        await self.connection.session.update(session=asked)  # type: ignore[arg-type]
        return await self.until("session.updated")

    async def append(self, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        """Sends audio in 40 ms frames, as fast as they go."""
        for start in range(0, len(pcm), RATE // 25):
            frame = pcm[start : start + RATE // 25].astype("<i2").tobytes()
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())

    async def ask(self, question: dict[str, Any]) -> Event:
        """Speaks a question as one turn; the finished response."""
        await self.append(spoken(question))
        await self.connection.input_audio_buffer.commit()
        return await self.respond()

    async def type(self, text: str) -> Event:
        """Types a question; the finished response."""
        content: Any = [{"type": "input_text", "text": text}]
        await self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        return await self.respond()

    async def respond(self) -> Event:
        await self.connection.response.create()
        return (await self.until("response.done")).response

    def said(self, response: Event) -> str:
        return plain(self.text.get(response.id, ""))

    def samples(self, response: Event) -> np.ndarray[Any, np.dtype[np.int16]]:
        return np.frombuffer(bytes(self.audio.get(response.id, b"")), "<i2").astype(np.int16)

    def dry_s(self, response: Event) -> float:
        """Seconds for which a player that begins at the first sound of a response has nothing to play in it."""
        until, dry = 0.0, 0.0
        for event, at in zip(self.log, self.at, strict=True):
            if event.type == "response.output_audio.delta" and event.response_id == response.id:
                dry += max(0.0, at - until) if until else 0.0
                until = max(at, until) + len(base64.b64decode(event.delta)) / 2 / RATE
        return dry


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    """A greeted connection of the openai package to host:port."""
    async with (
        AsyncOpenAI(api_key="unused", base_url=f"http://{address}/v1") as client,
        client.realtime.connect(model="pocket") as connection,
    ):
        caller = Caller(connection)
        assert (await caller.next()).type == "session.created"
        yield caller
