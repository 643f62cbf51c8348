"""A Pipecat pipeline as a bot runs it: what its three services have in common here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.workers.runner import WorkerRunner
from scenarios import RATE, TOOL, WEATHER, check, frames

logger.remove()
logger.add(sys.stderr, level="ERROR")


class Line:
    """A pipeline of these processors, and what went wrong in it."""

    def __init__(self, *processors: FrameProcessor) -> None:
        self.errors: list[Any] = []
        params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
        pipeline = Pipeline(list(processors))
        self.worker = PipelineWorker(pipeline, params=params, enable_rtvi=False, cancel_on_idle_timeout=False)
        self.worker.add_event_handler("on_pipeline_error", self._failed)

    async def _failed(self, _: Any, frame: Any) -> None:
        self.errors.append(frame)

    async def speak(self, path: Path) -> None:
        for frame in frames(path):
            audio = InputAudioRawFrame(audio=frame, sample_rate=RATE, num_channels=1)
            await self.worker.queue_frames([audio])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it runs; behind it nothing may have gone wrong."""
        begun = asyncio.Event()

        @self.worker.event_handler("on_pipeline_started")
        async def _(*_: Any) -> None:
            begun.set()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        running = asyncio.create_task(runner.run())
        try:
            await begun.wait()
            yield
            check(not self.errors, self.errors)
        finally:
            await self.worker.cancel()
            await running


class Desk(Line):
    """A pipeline around a model that may ask for the weather; `ear` is behind it."""

    def __init__(self, llm: Any, ear: FrameProcessor, messages: list[Any], **tools: Any) -> None:
        self.context = LLMContext(messages, **tools)
        sides = LLMContextAggregatorPair(self.context)
        super().__init__(sides.user(), llm, ear, sides.assistant())
        self.asked: list[Any] = []
        llm.register_function(TOOL["name"], self._weather)

    async def _weather(self, params: Any) -> None:
        self.asked.append(params.arguments)
        await params.result_callback(WEATHER)
