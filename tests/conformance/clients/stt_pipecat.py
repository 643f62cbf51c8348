"""Pipecat's OpenAIRealtimeSTTService in a small pipeline.

stt_pipecat.py ws://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat_line import Line
from scenarios import arguments, check, eventually, run

ASKED = arguments()


class Page(FrameProcessor):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.seen.append(frame)
        await self.push_frame(frame, direction)

    def text(self, kind: type[Any]) -> list[str]:
        return [frame.text for frame in self.seen if type(frame) is kind]


class Call(Line):
    def __init__(self, **settings: Any) -> None:
        self.stt = OpenAIRealtimeSTTService(api_key="none", base_url=f"{ASKED.url}/realtime", **settings)
        self.page = Page()
        super().__init__(self.stt, self.page)

    async def written(self) -> str:
        """The next transcript, which came word by word before."""
        await eventually(lambda: self.page.text(TranscriptionFrame) or self.errors, "a transcript")
        check(not self.errors, self.errors)
        (text,) = self.page.text(TranscriptionFrame)
        parts = self.page.text(InterimTranscriptionFrame)
        check(len(parts) > 1 and "".join(parts) == text, parts)
        check("wednesday" in text.lower(), text)
        return str(text)


@asynccontextmanager
async def calling(model: str, **settings: Any) -> AsyncIterator[Call]:
    call = Call(settings=OpenAIRealtimeSTTService.Settings(model=model), **settings)
    async with call.running():
        await eventually(lambda: call.stt._session_ready or call.errors, "the session is configured")
        yield call


async def connect() -> None:
    async with calling("gpt-transcribe"):
        pass


async def spoken() -> str:
    async with calling("gpt-transcribe", turn_detection={"type": "server_vad"}) as call:
        await call.speak(ASKED.question)
        return await call.written()


async def commit() -> str:
    """Its own voice detector ends an utterance."""
    async with calling("gpt-realtime-whisper") as call:
        await call.speak(ASKED.question)
        await call.worker.queue_frames([VADUserStoppedSpeakingFrame()])
        return await call.written()


if __name__ == "__main__":
    run(("pipecat-ai",), {"connect": connect, "spoken": spoken, "commit": commit}, ASKED.only)
