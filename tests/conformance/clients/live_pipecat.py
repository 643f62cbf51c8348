"""Pipecat's OpenAILiveLLMService in a small pipeline.

live_pipecat.py ws://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    FunctionCallResultFrame,
    LLMRunFrame,
    SpeechOutputAudioRawFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.live import events
from pipecat.services.openai.live.llm import OpenAILiveLLMService
from pipecat.services.openai.responses.llm import OpenAIResponsesLLMService
from pipecat_line import Desk
from scenarios import (
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
        self.text = ""
        self.seconds = 0.0
        self.results = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self.text += frame.text
        elif isinstance(frame, SpeechOutputAudioRawFrame):
            self.seconds += len(frame.audio) / 2 / RATE
        elif isinstance(frame, FunctionCallResultFrame) and direction is FrameDirection.DOWNSTREAM:
            self.results += 1
        await self.push_frame(frame, direction)


class Service(OpenAILiveLLMService):
    """Keeps what it is told, which its users see in its log only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: list[events.ServerEvent] = []

    async def _handle_server_event(self, evt: events.ServerEvent) -> None:
        self.told.append(evt)
        await super()._handle_server_event(evt)


class Call(Desk):
    def __init__(self, tools: dict[str, Any], **options: Any) -> None:
        self.llm = Service(
            api_key="none",
            base_url=f"{ASKED.url}/live/sessions",
            settings=OpenAILiveLLMService.Settings(model="pocket", system_instruction=DESK),
            **options,
        )
        self.ear = Ear()
        super().__init__(self.llm, self.ear, [], **tools)

    def seen(self, kind: str) -> list[Any]:
        return [event for event in self.llm.told if event.type == kind]

    async def started(self, sessions: int = 1) -> Any:
        def over() -> bool:
            return bool(self.errors) or len(self.seen("session.started")) == sessions

        await eventually(over, "the session started")
        check(not self.errors, self.errors)
        return self.seen("session.started")[-1].session

    async def says(self, words: str) -> str:
        """All that was said, once these words are among it."""
        await eventually(lambda: words in self.ear.text or self.errors, f"{words!r}, but {self.ear.text!r}")
        check(not self.errors, self.errors)
        await eventually(lambda: self.ear.seconds > 0.5, "sound")
        return self.ear.text

    async def remembered(self) -> None:
        """Both sides, in the context, which its own clock completes after a pause."""

        def over() -> bool:
            return {message["role"] for message in self.context.get_messages()} == {"user", "assistant"}

        await eventually(over, "both sides in the context")


@asynccontextmanager
async def calling(tools: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Call]:
    """A running pipeline with a session that has started."""
    call = Call(tools or {}, **options)
    async with call.running():
        await call.worker.queue_frames([LLMRunFrame()])
        await call.started()
        yield call


async def start() -> str:
    async with calling() as call:
        session = await call.started()
        check(session.instructions == DESK and session.delegation["type"] == "client", session)
        return str(session.id)


async def spoken() -> str:
    async with calling() as call:
        await call.speak(ASKED.question)
        said = await call.says("open")
        await call.remembered()
        heard = next(m["content"] for m in call.context.get_messages() if m["role"] == "user")
        check("open" in heard, heard)
        return f"{heard.strip()}? {said}"


async def tool() -> str:
    schema = FunctionSchema(
        name=TOOL["name"],
        description=TOOL["description"],
        properties=TOOL["parameters"]["properties"],
        required=TOOL["parameters"]["required"],
    )
    delegation = OpenAILiveLLMService.ResponsesDelegation(
        settings=OpenAIResponsesLLMService.Settings(model="pocket")
    )
    tools = {"tools": ToolsSchema(standard_tools=[schema])}
    async with calling(tools, delegation=delegation) as call:
        await call.speak(ASKED.weather)
        said = await call.says("sunny")
        check(call.asked and call.asked[0].get("city"), f"asked for {call.asked}")
        check(call.ear.results == 1, call.ear.results)
        return said


async def delegate() -> str:
    """Without a backend of its own it declines, in commentary that the model then tells."""
    async with calling() as call:
        await call.speak(ASKED.weather)
        await eventually(lambda: call.seen("session.delegation.created"), "it delegated")
        await eventually(lambda: call.seen("session.commentary.appended"), "the commentary was taken")
        before = call.ear.text
        await eventually(lambda: call.ear.text != before, "it was told")
        return call.ear.text


async def append() -> None:
    """An opening: a last message of the developer is appended as commentary, so the model speaks first."""
    async with calling() as call:
        call.context.add_message({"role": "developer", "content": "hello"})
        await call.llm.reset_conversation()
        await call.started(2)
        await eventually(lambda: call.seen("session.commentary.appended"), "the commentary was taken")
        await eventually(lambda: call.ear.seconds > 0.5, "it spoke first")


async def mute() -> None:
    raise NotInThisClientError("its mute filters keep the audio from the service")


async def close() -> str:
    async with calling() as call:
        await call.worker.queue_frames([EndFrame()])
        await eventually(lambda: call.seen("session.closed"), "the session was closed")
        reason = str(call.seen("session.closed")[0].reason)
        check(reason == "close_requested", reason)
        return reason


async def reconnect() -> str:
    async with calling() as call:
        await call.speak(ASKED.question)
        await call.says("open")
        await call.remembered()
        await call.llm.reset_conversation()
        await call.started(2)
        call.ear.text = ""
        await call.speak(ASKED.question)
        return await call.says("open")


if __name__ == "__main__":
    each = (start, spoken, tool, delegate, append, mute, close, reconnect)
    run(("pipecat-ai",), {scenario.__name__: scenario for scenario in each}, ASKED.only)
