"""LiveKit's GPTLiveModel behind its DuplexRealtimeAdapter, as an AgentSession runs it, without a room.

live_livekit.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import llm
from livekit.agents.types import NOT_GIVEN
from livekit.agents.utils.aio import Chan
from livekit.plugins.openai.realtime import GPTLiveModel
from scenarios import DESK, RATE, TOOL, WEATHER, arguments, check, eventually, frames, run

ASKED = arguments()
QUIET = rtc.AudioFrame(bytes(RATE // 10 * 2), RATE, 1, RATE // 10)


class Call:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.live = session.duplex_session
        self.events: list[dict[str, Any]] = []
        self.errors: list[Any] = []
        self.heard: list[str] = []
        self.delegations: Chan[Any] = Chan()
        self.reconnected = 0
        self.seconds = 0.0
        self.text = ""
        self.calls: list[llm.FunctionCall] = []
        self._collecting: list[asyncio.Task[None]] = []
        self.live.on("openai_server_event_received", self.events.append)
        self.live.on("delegation_created", self.delegations.send_nowait)
        session.on("error", self.errors.append)
        session.on("session_reconnected", self._count)
        session.on("generation_created", self._generation)
        session.on("input_audio_transcription_completed", self._transcript)

    def _count(self, _: Any) -> None:
        self.reconnected += 1

    def _transcript(self, event: llm.InputTranscriptionCompleted) -> None:
        if event.is_final:
            self.heard.append(event.transcript.strip())

    def _generation(self, generation: llm.GenerationCreatedEvent) -> None:
        self._collecting.append(asyncio.create_task(self._collect(generation)))

    async def _collect(self, generation: llm.GenerationCreatedEvent) -> None:
        """As an agent would play it; a machine that is too slow for a steady voice makes several out of one reply."""
        async for message in generation.message_stream:
            async for frame in message.audio_stream:
                self.seconds += frame.duration
            async for piece in message.text_stream:
                self.text += piece
        async for call in generation.function_stream:
            self.calls.append(call)

    def seen(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def listen(self) -> None:
        """A microphone is never off."""
        while True:
            self.session.push_audio(QUIET)
            await asyncio.sleep(0.1)

    def speak(self, path: Path) -> None:
        for frame in frames(path):
            self.session.push_audio(rtc.AudioFrame(frame, RATE, 1, len(frame) // 2))

    async def says(self, words: str) -> str:
        """All that was said, once these words are among it."""
        await eventually(lambda: words in self.text or self.errors, f"{words!r}, but {self.text!r}")
        await eventually(lambda: self.seconds > 0.5, "sound")
        return self.text


@asynccontextmanager
async def calling(*, tools: list[Any] | None = None, **options: Any) -> AsyncIterator[Call]:
    model = GPTLiveModel(model="pocket", base_url=ASKED.url, api_key="none", **options)
    adapter = llm.DuplexRealtimeAdapter(model)
    session: Any = adapter.session()
    call = Call(session)
    microphone: asyncio.Task[None] | None = None
    try:
        # how an AgentSession configures it
        await session._update_session(instructions=DESK, chat_ctx=NOT_GIVEN, tools=tools or NOT_GIVEN)
        await eventually(lambda: call.seen("session.started") or call.errors, "the session started")
        microphone = asyncio.create_task(call.listen())
        yield call
        check(not call.errors, call.errors)
    finally:
        if microphone is not None:
            microphone.cancel()
        await session.aclose()
        await adapter.aclose()


async def start() -> str:
    async with calling() as call:
        session = call.seen("session.started")[0]["session"]
        check(session["instructions"] == DESK and session["delegation"]["type"] == "responses", session)
        return str(session["audio"]["output"]["voice"])


async def spoken() -> str:
    async with calling() as call:
        call.speak(ASKED.question)
        said = await call.says("open")
        await eventually(lambda: call.heard, "the question was transcribed")
        roles = {item.role for item in call.session.chat_ctx.items if item.type == "message"}
        check(roles == {"assistant", "user"}, roles)
        return f"{call.heard[0]}? {said}"


def weather_tool() -> Any:
    async def get_weather(raw_arguments: dict[str, Any]) -> dict[str, Any]:
        return WEATHER

    schema = {key: TOOL[key] for key in ("name", "description", "parameters")}
    return llm.function_tool(get_weather, raw_schema=schema)


async def tool() -> str:
    async with calling(tools=[weather_tool()]) as call:
        call.speak(ASKED.weather)
        await eventually(lambda: call.calls, "it asked for the tool")
        asked = call.calls[0]
        check(asked.name == TOOL["name"] and json.loads(asked.arguments)["city"], asked)
        context = call.session.chat_ctx.copy()
        output = llm.FunctionCallOutput(
            name=asked.name, call_id=asked.call_id, output=json.dumps(WEATHER), is_error=False
        )
        context.items.append(output)
        await call.session.update_chat_ctx(context)
        return await call.says("sunny")


async def delegate() -> str:
    """To this application, which answers with commentary."""
    async with calling(delegation="client") as call:
        call.speak(ASKED.weather)
        delegation = await call.delegations.recv()
        call.live.append_commentary(json.dumps(WEATHER), delegation_id=delegation.id)
        return await call.says("sunny")


async def append() -> None:
    """Both by its own methods and by what an agent does: a system message, a typed one, a request to speak."""
    async with calling() as call:
        call.live.append_thinking("The caller is a guest of the house.")
        context = call.session.chat_ctx.copy()
        context.add_message(role="system", content="Be brief.")
        await call.session.update_chat_ctx(context)
        for name in ("instructions", "thinking"):
            await eventually(lambda: call.seen(f"session.{name}.appended"), f"the {name} were appended")  # noqa: B023
        generation = await call.session.generate_reply(instructions="hello")
        check(generation.user_initiated, "it spoke unasked")
        await eventually(lambda: call.seconds > 0.5, "it spoke")


async def mute() -> str:
    async with calling() as call:
        call.live.mute_input()
        call.speak(ASKED.weather)
        call.live.unmute_input()
        call.speak(ASKED.question)
        said = await call.says("open")
        check(call.seen("session.input_audio.muted") and call.seen("session.input_audio.unmuted"), "muted")
        check("weather" not in "".join(call.heard), call.heard)
        return said


async def close() -> str:
    async with calling() as call:
        pass
    closed = call.seen("session.closed")
    check(closed and closed[0]["reason"] == "close_requested", call.events[-1])
    return str(closed[0]["reason"])


async def reconnect() -> str:
    """By itself, as after an hour: the next session begins with what was said so far."""
    async with calling(max_session_duration=9.0) as call:
        begun: list[dict[str, Any]] = []
        call.live.on("openai_client_event_queued", begun.append)
        call.speak(ASKED.question)
        await eventually(lambda: call.reconnected, "it connected again")
        await eventually(lambda: len(call.seen("session.started")) == 2, "another session started")
        again = [event["session"] for event in begun if event["type"] == "session.start"]
        said = [item["content"][0]["text"] for item in again[0]["input"] if item["role"] == "assistant"]
        check("open" in "".join(said), again)
        call.text = ""
        call.speak(ASKED.question)
        return await call.says("open")


if __name__ == "__main__":
    each = (start, spoken, tool, delegate, append, mute, close, reconnect)
    run(
        ("livekit-agents", "livekit-plugins-openai"),
        {scenario.__name__: scenario for scenario in each},
        ASKED.only,
    )
