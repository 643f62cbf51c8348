"""LiveKit's openai.realtime.RealtimeModel without a room.

livekit_client.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import llm
from livekit.agents.utils.aio import Chan
from livekit.plugins.openai.realtime import RealtimeModel
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad
from scenarios import COUNT, DESK, RATE, TOOL, WEATHER, arguments, check, eventually, frames, run

ASKED = arguments()


@dataclass
class Reply:
    """What one generation said, as an agent would play it."""

    items: list[str] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0
    calls: list[llm.FunctionCall] = field(default_factory=list)


class Call:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.events: list[dict[str, Any]] = []
        self.errors: list[Any] = []
        self.heard: list[str] = []
        self.started = 0
        self.reconnected = 0
        self.generations: Chan[llm.GenerationCreatedEvent] = Chan()
        session.on("openai_server_event_received", self.events.append)
        session.on("error", self.errors.append)
        session.on("generation_created", self.generations.send_nowait)
        session.on("input_speech_started", lambda _: self._count("started"))
        session.on("session_reconnected", lambda _: self._count("reconnected"))
        session.on("input_audio_transcription_completed", lambda event: self.heard.append(event.transcript))

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)

    def seen(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def speak(self, path: Path) -> None:
        for frame in frames(path):
            self.session.push_audio(rtc.AudioFrame(frame, RATE, 1, len(frame) // 2))

    async def ask(self, text: str) -> llm.GenerationCreatedEvent:
        """Puts a typed question into the conversation and has it answered."""
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)
        return await self.generate()

    async def generate(self) -> llm.GenerationCreatedEvent:
        generation: llm.GenerationCreatedEvent = await self.session.generate_reply()
        check(await self.generations.recv() is generation, "another generation was told of")
        return generation


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Call]:
    model = RealtimeModel(model="pocket", base_url=ASKED.url, api_key="none", **options)
    session = model.session()
    call = Call(session)
    try:
        await session.update_instructions(DESK)
        yield call
        check(not call.errors, call.errors)
    finally:
        await session.aclose()
        await model.aclose()


async def collect(generation: llm.GenerationCreatedEvent) -> Reply:
    reply = Reply()
    async for message in generation.message_stream:
        reply.items.append(message.message_id)
        async for frame in message.audio_stream:
            reply.seconds += frame.duration
        async for piece in message.text_stream:
            reply.text += piece
    async for call in generation.function_stream:
        reply.calls.append(call)
    return reply


async def first_sound(generation: llm.GenerationCreatedEvent) -> tuple[str, Any]:
    """The item that begins to sound, and the rest of its sound."""
    message = await anext(aiter(generation.message_stream))
    sound = aiter(message.audio_stream)
    await anext(sound)
    return message.message_id, sound


async def connect() -> None:
    async with calling() as call:
        await eventually(lambda: call.seen("session.updated"), "the session is configured")


async def configure() -> None:
    async with calling() as call:
        vad = ServerVad(type="server_vad", silence_duration_ms=400, create_response=True)
        call.session.update_options(turn_detection=vad, tool_choice="none")
        await call.session.update_tools([llm_tool()])

        def settled() -> bool:
            shown = call.seen("session.updated")
            last = shown[-1]["session"] if shown else {"tools": []}
            return bool(last["tools"]) and last["tool_choice"] == "none"

        await eventually(settled, "all settings are in force")
        session = call.seen("session.updated")[-1]["session"]
        check(session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 400, session)
        check(session["instructions"] == DESK, session)


async def spoken() -> str:
    async with calling() as call:
        call.speak(ASKED.question)
        reply = await collect(await call.generations.recv())
        check(reply.seconds > 0.5, reply)
        await eventually(lambda: call.heard, "the question was transcribed")
        roles = [item.role for item in call.session.chat_ctx.items if item.type == "message"]
        check(roles == ["user", "assistant"], roles)
        return reply.text


async def typed() -> str:
    async with calling() as call:
        reply = await collect(await call.ask("do you have a pool"))
        check(reply.seconds > 0.5 and reply.text, reply)
        return reply.text


def llm_tool() -> Any:
    async def get_weather(raw_arguments: dict[str, Any]) -> dict[str, Any]:
        return WEATHER

    schema = {key: TOOL[key] for key in ("name", "description", "parameters")}
    return llm.function_tool(get_weather, raw_schema=schema)


async def tool() -> str:
    async with calling() as call:
        await call.session.update_tools([llm_tool()])
        call.speak(ASKED.weather)
        reply = await collect(await call.generations.recv())
        check(len(reply.calls) == 1, reply)
        asked = reply.calls[0]
        check(asked.name == TOOL["name"] and json.loads(asked.arguments)["city"], asked)
        context = call.session.chat_ctx.copy()
        output = llm.FunctionCallOutput(
            name=asked.name, call_id=asked.call_id, output=json.dumps(WEATHER), is_error=False
        )
        context.items.append(output)
        await call.session.update_chat_ctx(context)
        told = await collect(await call.generate())
        check("sunny" in told.text, told)
        return told.text


async def barge_in() -> str:
    async with calling() as call:
        generation = await call.ask(COUNT)
        item, sound = await first_sound(generation)
        call.speak(ASKED.question)
        await eventually(lambda: call.started, "the interruption was told")
        call.session.truncate(message_id=item, modalities=["audio"], audio_end_ms=100)
        async for _ in sound:
            pass
        reply = await collect(await call.generations.recv())
        check(reply.seconds > 0.5, reply)
        check(call.seen("conversation.item.truncated"), "it was not truncated")
        return str(call.seen("response.done")[0]["response"]["status"])


async def cancel() -> None:
    async with calling() as call:
        _, sound = await first_sound(await call.ask(COUNT))
        call.session.interrupt()
        async for _ in sound:
            pass
        await eventually(lambda: not call.session.has_active_generation, "the response ended")
        check(call.seen("response.done")[0]["response"]["status"] == "cancelled", call.events[-1])
        reply = await collect(await call.ask("thank you"))
        check(reply.text, reply)


async def out_of_band() -> str:
    async with calling() as call:
        content = [{"type": "input_text", "text": "do you have parking"}]
        asked = {
            "conversation": "none",
            "input": [{"type": "message", "role": "user", "content": content}],
            "output_modalities": ["text"],
        }
        call.session.send_event({"type": "response.create", "response": asked})
        reply = await collect(await call.generations.recv())
        check(reply.text, reply)
        check(not call.session.chat_ctx.items, "it entered the conversation")
        return reply.text


async def reconnect() -> str:
    """By itself, as after twenty minutes: the conversation is replayed under the client's item ids."""
    async with calling(max_session_duration=10.0) as call:
        await collect(await call.ask("my name is nick"))
        await eventually(lambda: len(call.session.chat_ctx.items) == 2, "both sides are known")
        before = [item.id for item in call.session.chat_ctx.items]
        await eventually(lambda: call.reconnected, "it connected again")
        # it says so before the server has confirmed the items; a question now would be put before them
        await eventually(lambda: len(call.session.chat_ctx.items) == len(before), "all was replayed")
        await collect(await call.ask("hello"))
        after = [item.id for item in call.session.chat_ctx.items]
        check(after[: len(before)] == before, (before, after))
        return f"{len(before)} items replayed"


if __name__ == "__main__":
    each = (connect, configure, spoken, typed, tool, barge_in, cancel, out_of_band, reconnect)
    run(
        ("livekit-agents", "livekit-plugins-openai"),
        {scenario.__name__: scenario for scenario in each},
        ASKED.only,
    )
