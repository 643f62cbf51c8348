"""A Pipecat bot (pip install "pipecat-ai[openai]") whose model is this server: a typed question answered aloud.

In a real bot a transport stands at both ends of the pipeline; here the answer is printed and counted.
"""

import argparse
import asyncio
import sys

from loguru import logger
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

logger.remove()
logger.add(sys.stderr, level="ERROR")


class Loudspeaker(FrameProcessor):
    """Stands for the transport's output."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.seconds = 0.0
        self.done = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self.text += frame.text
        elif isinstance(frame, TTSAudioRawFrame):
            self.seconds += len(frame.audio) / 48_000
        await self.push_frame(frame, direction)
        if isinstance(frame, TTSStoppedFrame):
            await self.push_frame(BotStoppedSpeakingFrame(), FrameDirection.UPSTREAM)
        elif isinstance(frame, LLMFullResponseEndFrame):
            self.done.set()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Asks through a Pipecat pipeline.")
    parser.add_argument("question", nargs="?", default="do you have a pool")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    given = parser.parse_args()
    llm = OpenAIRealtimeLLMService(
        api_key=given.key,
        base_url=f"{given.url.replace('http', 'ws', 1)}/v1/realtime",
        settings=OpenAIRealtimeLLMService.Settings(
            model="pocket", system_instruction="You are the voice assistant of harbor house."
        ),
    )
    sides = LLMContextAggregatorPair(LLMContext([{"role": "user", "content": given.question}]))
    loudspeaker = Loudspeaker()
    pipeline = Pipeline([sides.user(), llm, loudspeaker, sides.assistant()])
    params = PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000)
    worker = PipelineWorker(pipeline, params=params, enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    print(f"you:   {given.question}")
    await worker.queue_frames([LLMRunFrame()])
    await loudspeaker.done.wait()
    await worker.queue_frames([EndFrame()])
    await running
    print(f"agent: {loudspeaker.text}")
    print(f"{loudspeaker.seconds:.1f} s of speech")


asyncio.run(main())
