"""Pipecat's OpenAIRealtimeSTTService in a small pipeline.

stt_pipecat.py ws://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.stt import OpenAIRealtimeSTTService
from pipecat.workers.runner import WorkerRunner
from scenarios import RATE, arguments, check, eventually, frames, run

ASKED = arguments()
logger.remove()
logger.add(sys.stderr, level="ERROR")


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


class Call:
    def __init__(self, **settings: Any) -> None:
        self.stt = OpenAIRealtimeSTTService(api_key="none", base_url=f"{ASKED.url}/realtime", **settings)
        self.page = Page()
        self.errors: list[Any] = []
        params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
        pipeline = Pipeline([self.stt, self.page])
        self.worker = PipelineWorker(pipeline, params=params, enable_rtvi=False, cancel_on_idle_timeout=False)
        self.worker.add_event_handler("on_pipeline_error", self._failed)

    async def _failed(self, _: Any, frame: Any) -> None:
        self.errors.append(frame)

    async def speak(self) -> None:
        for frame in frames(ASKED.question):
            await self.worker.queue_frames(
                [InputAudioRawFrame(audio=frame, sample_rate=RATE, num_channels=1)]
            )

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
    started = asyncio.Event()

    @call.worker.event_handler("on_pipeline_started")
    async def _(*_: Any) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(call.worker)
    running = asyncio.create_task(runner.run())
    try:
        await started.wait()
        await eventually(lambda: call.stt._session_ready or call.errors, "the session is configured")
        yield call
        check(not call.errors, call.errors)
    finally:
        await call.worker.cancel()
        await running


async def connect() -> None:
    async with calling("gpt-transcribe"):
        pass


async def spoken() -> str:
    async with calling("gpt-transcribe", turn_detection={"type": "server_vad"}) as call:
        await call.speak()
        return await call.written()


async def commit() -> str:
    """Its own voice detector ends an utterance."""
    async with calling("gpt-realtime-whisper") as call:
        await call.speak()
        await call.worker.queue_frames([VADUserStoppedSpeakingFrame()])
        return await call.written()


if __name__ == "__main__":
    run(("pipecat-ai",), {"connect": connect, "spoken": spoken, "commit": commit}, ASKED.only)
