"""Pipecat's OpenAIRealtimeLLMService in a small pipeline.

pipecat_client.py ws://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMUpdateSettingsFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat_line import Desk
from scenarios import (
    COUNT,
    DESK,
    RATE,
    TOOL,
    NotInThisClientError,
    arguments,
    check,
    eventually,
    run,
)

ASKED = arguments()


class Ear(FrameProcessor):
    """Keeps what comes out of the service, as a speaker would."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.seen.append(frame)
        await self.push_frame(frame, direction)
        if isinstance(frame, TTSStoppedFrame):  # a speaker that has played all at once
            await self.push_frame(BotStoppedSpeakingFrame(), FrameDirection.UPSTREAM)

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.seen)

    def text(self, start: int = 0) -> str:
        return "".join(frame.text for frame in self.seen[start:] if isinstance(frame, TTSTextFrame))

    def seconds(self) -> float:
        sound = [frame.audio for frame in self.seen if isinstance(frame, TTSAudioRawFrame)]
        return sum(map(len, sound)) / 2 / RATE


class Call(Desk):
    def __init__(self, messages: list[Any], properties: events.SessionProperties) -> None:
        self.llm = OpenAIRealtimeLLMService(
            api_key="none",
            base_url=f"{ASKED.url}/realtime",
            settings=OpenAIRealtimeLLMService.Settings(
                model="pocket", system_instruction=DESK, session_properties=properties
            ),
        )
        self.items: dict[str, Any] = {}
        self.ear = Ear()
        super().__init__(self.llm, self.ear, messages, **_tools(properties))
        self.llm.add_event_handler("on_conversation_item_created", self._item)

    async def _item(self, _: Any, item_id: str, item: Any) -> None:
        self.items[item_id] = item

    async def send(self, *queued: Frame) -> None:
        await self.worker.queue_frames(list(queued))

    async def answered(self, times: int = 1, start: int = 0) -> str:
        """What was said from frame `start` on, once so many responses have ended."""

        def over() -> bool:
            ends = sum(isinstance(frame, LLMFullResponseEndFrame) for frame in self.ear.seen[start:])
            return bool(self.errors) or ends >= times

        await eventually(over, "a response")
        check(not self.errors, self.errors)
        return self.ear.text(start)


def _tools(properties: events.SessionProperties) -> dict[str, Any]:
    return {"tools": properties.tools} if properties.tools else {}


@asynccontextmanager
async def calling(*typed: str, **properties: Any) -> AsyncIterator[Call]:
    """A running pipeline; typed questions wait in its context until it is run."""
    messages = [{"role": "user", "content": text} for text in typed]
    call = Call(messages, events.SessionProperties(**properties))
    async with call.running():
        await eventually(lambda: call.llm._api_session_ready or call.errors, "the session is configured")
        yield call


async def connect() -> None:
    async with calling():
        pass


async def configure() -> None:
    """Semantic turn detection at the start, a server VAD and other instructions later."""
    semantic = events.AudioInput(turn_detection=events.SemanticTurnDetection(eagerness="high"))
    audio = events.AudioConfiguration(input=semantic, output=events.AudioOutput(voice="marin", speed=1.0))
    async with calling("do you have a pool", audio=audio) as call:
        vad = events.AudioInput(
            turn_detection=events.TurnDetection(silence_duration_ms=400),
            transcription=events.InputAudioTranscription(),
            noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
        )
        changed = OpenAIRealtimeLLMService.Settings(
            system_instruction="You work at the front desk.",
            session_properties=events.SessionProperties(audio=events.AudioConfiguration(input=vad)),
        )
        await call.send(LLMUpdateSettingsFrame(delta=changed), LLMRunFrame())
        check(await call.answered(), "no answer after the change")


async def spoken() -> str:
    async with calling() as call:
        await call.speak(ASKED.question)
        said = await call.answered()
        check(call.ear.seconds() > 0.5 and said, said)

        def remembered() -> bool:
            return [message["role"] for message in call.context.get_messages()] == ["user", "assistant"]

        await eventually(remembered, f"both sides in the context: {call.context.get_messages()}")
        return said


async def typed() -> str:
    async with calling("do you have a pool") as call:
        await call.send(LLMRunFrame())
        said = await call.answered()
        check(call.ear.seconds() > 0.5 and said, said)
        return said


async def tool() -> str:
    schema = FunctionSchema(
        name=TOOL["name"],
        description=TOOL["description"],
        properties=TOOL["parameters"]["properties"],
        required=TOOL["parameters"]["required"],
    )
    async with calling("what is the weather in milan", tools=ToolsSchema(standard_tools=[schema])) as call:
        await call.send(LLMRunFrame())
        said = await call.answered(times=2)
        check(call.asked and call.asked[0].get("city"), f"asked for {call.asked}")
        check(call.ear.count(FunctionCallResultFrame) == 1 and "sunny" in said, said)
        return said


async def barge_in() -> str:
    async with calling(COUNT) as call:
        await call.send(LLMRunFrame())
        await eventually(lambda: call.ear.count(TTSAudioRawFrame), "it speaks")
        await call.speak(ASKED.question)
        await eventually(lambda: call.ear.count(InterruptionFrame), "the interruption")
        start = len(call.ear.seen)
        await eventually(lambda: call.ear.text(start) or call.errors, "another reply")
        await call.answered(start=start)
        return call.ear.text(start)


async def cancel() -> str:
    """Turns by the client, as with a local voice activity detector: an interruption then cancels."""
    audio = events.AudioConfiguration(input=events.AudioInput(turn_detection=False))
    async with calling(COUNT, audio=audio) as call:
        await call.send(LLMRunFrame())
        await eventually(lambda: call.ear.count(TTSAudioRawFrame), "it speaks")
        start = len(call.ear.seen)
        await call.send(InterruptionFrame())
        await call.answered(start=start)
        await eventually(lambda: not call.llm._response_active, "the response ended")
        start = len(call.ear.seen)
        await call.speak(ASKED.question)
        await call.send(UserStoppedSpeakingFrame())
        await eventually(lambda: call.ear.text(start) or call.errors, "another reply")
        return await call.answered(start=start)


async def out_of_band() -> None:
    raise NotInThisClientError("its response.create has neither `conversation` nor `input`")


async def reconnect() -> str:
    async with calling("hello") as call:
        await call.send(LLMRunFrame())
        await call.answered()
        await call.llm.reset_conversation()
        await eventually(lambda: call.llm._api_session_ready or call.errors, "the session is configured")
        start = len(call.ear.seen)
        await call.speak(ASKED.question)
        return await call.answered(start=start)


if __name__ == "__main__":
    each = (connect, configure, spoken, typed, tool, barge_in, cancel, out_of_band, reconnect)
    run(("pipecat-ai",), {scenario.__name__: scenario for scenario in each}, ASKED.only)
