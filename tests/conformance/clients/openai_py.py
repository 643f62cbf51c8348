"""The openai package for Python: openai_py.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from scenarios import COUNT, RATE, TOOL, WEATHER, arguments, check, frames, run

ASKED = arguments()


class Call:
    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.log: list[Any] = []

    async def until(self, kind: str) -> Any:
        """The next event of this type; an error on the way is one too many."""
        async for event in self.connection:
            self.log.append(event)
            check(event.type != "error", event)
            if event.type == kind:
                return event
        raise AssertionError(f"the connection ended before {kind}")

    async def configure(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})  # type: ignore[typeddict-item]
        return (await self.until("session.updated")).session

    async def type(self, text: str) -> None:
        content: Any = [{"type": "input_text", "text": text}]
        item: Any = {"type": "message", "role": "user", "content": content}
        await self.connection.conversation.item.create(item=item)
        await self.connection.response.create()

    async def say(self, text: str) -> Any:
        await self.type(text)
        return (await self.until("response.done")).response

    async def speak(self, path: Path) -> None:
        for frame in frames(path):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())

    def seconds(self) -> float:
        deltas = [event.delta for event in self.log if event.type == "response.output_audio.delta"]
        return sum(len(base64.b64decode(delta)) for delta in deltas) / 2 / RATE


@asynccontextmanager
async def calling() -> AsyncIterator[Call]:
    async with (
        AsyncOpenAI(api_key="none", base_url=ASKED.url) as client,
        client.realtime.connect(model="pocket") as connection,
    ):
        call = Call(connection)
        await call.until("session.created")
        yield call


async def connect() -> None:
    async with calling():
        pass


async def configure() -> None:
    async with calling() as call:
        session = await call.configure(
            instructions="You work at the front desk.", tools=[TOOL], output_modalities=["text"]
        )
        check("front desk" in session.instructions and session.tools[0].name == TOOL["name"], session)
        check(session.output_modalities == ["text"], session)


async def spoken() -> str:
    async with calling() as call:
        await call.speak(ASKED.question)
        response = (await call.until("response.done")).response
        check(response.status == "completed" and call.seconds() > 0.5, response)
        return str(response.output[0].content[0].transcript)


async def typed() -> str:
    async with calling() as call:
        response = await call.say("do you have a pool")
        check(response.status == "completed" and call.seconds() > 0.5, response)
        return str(response.output[0].content[0].transcript)


async def tool() -> str:
    async with calling() as call:
        await call.configure(tools=[TOOL], tool_choice="auto")
        await call.speak(ASKED.weather)
        response = (await call.until("response.done")).response
        asked = next(item for item in response.output if item.type == "function_call")
        check(asked.name == TOOL["name"] and json.loads(asked.arguments)["city"], asked)
        item: Any = {
            "type": "function_call_output",
            "call_id": asked.call_id,
            "output": json.dumps(WEATHER),
        }
        await call.connection.conversation.item.create(item=item)
        await call.connection.response.create()
        told = str((await call.until("response.done")).response.output[0].content[0].transcript)
        check("sunny" in told, told)
        return told


async def barge_in() -> str:
    async with calling() as call:
        await call.type(COUNT)
        first = await call.until("response.output_audio.delta")
        await call.speak(ASKED.question)
        await call.until("input_audio_buffer.speech_started")
        await call.connection.conversation.item.truncate(
            item_id=first.item_id, content_index=0, audio_end_ms=100
        )
        await call.until("conversation.item.truncated")
        done = [event for event in call.log if event.type == "response.done"]
        cut = (done[0] if done else await call.until("response.done")).response
        check(cut.status in ("cancelled", "completed"), cut)
        check((await call.until("response.done")).response.status == "completed", call.log[-1])
        return str(cut.status)


async def cancel() -> None:
    async with calling() as call:
        await call.type(COUNT)
        await call.until("response.output_audio.delta")
        await call.connection.response.cancel()
        response = (await call.until("response.done")).response
        check(response.status == "cancelled", response)
        check((await call.say("thank you")).status == "completed", call.log[-1])


async def out_of_band() -> str:
    async with calling() as call:
        content = [{"type": "input_text", "text": "do you have parking"}]
        asked: Any = {
            "conversation": "none",
            "input": [{"type": "message", "role": "user", "content": content}],
            "metadata": {"topic": "aside"},
            "output_modalities": ["text"],
        }
        await call.connection.response.create(response=asked)
        response = (await call.until("response.done")).response
        check(response.metadata == {"topic": "aside"} and response.output[0].content[0].text, response)
        entered = [event for event in call.log if event.type == "conversation.item.added"]
        check(not entered, "it entered the conversation")
        return str(response.output[0].content[0].text)


async def reconnect() -> None:
    for _ in range(2):
        async with calling() as call:
            check((await call.say("hello")).status == "completed", call.log[-1])


if __name__ == "__main__":
    each = (connect, configure, spoken, typed, tool, barge_in, cancel, out_of_band, reconnect)
    run(("openai",), {scenario.__name__: scenario for scenario in each}, ASKED.only)
