"""The openai package for Python as a Live client.

live_openai_py.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from openai.resources.live.live import AsyncLiveConnection
from scenarios import DESK, RATE, TOOL, WEATHER, arguments, check, frames, run

ASKED = arguments()


class Call:
    def __init__(self, connection: AsyncLiveConnection) -> None:
        self.connection = connection
        self.log: list[Any] = []

    async def until(self, kind: str, when: Callable[[Any], object] = lambda _: True) -> Any:
        """The next event of this type; an error on the way is one too many."""
        async for event in self.connection:
            self.log.append(event)
            check(event.type != "error", event)
            if event.type == kind and when(event):
                return event
        raise AssertionError(f"the connection ended before {kind}")

    async def speak(self, path: Path) -> None:
        for frame in frames(path):
            await self.connection.session.input_audio.append(audio=base64.b64encode(frame).decode())

    def words(self, way: str) -> str:
        kind = f"session.{way}_transcript.delta"
        return "".join(event.delta for event in self.log if event.type == kind)

    def seconds(self) -> float:
        deltas = [event.delta for event in self.log if event.type == "session.output_audio.delta"]
        return sum(len(base64.b64decode(delta)) for delta in deltas) / 2 / RATE

    async def answered(self) -> str:
        """What was said, once the reply is over."""
        await self.until("session.usage.updated")
        return self.words("output")


@asynccontextmanager
async def calling(**session: Any) -> AsyncIterator[Call]:
    async with (
        AsyncOpenAI(api_key="none", base_url=ASKED.url) as client,
        client.live.connect() as connection,
    ):
        call = Call(connection)
        await connection.session.start(session={"model": "pocket", "instructions": DESK, **session})
        await call.until("session.started")
        yield call


async def start() -> str:
    async with calling(audio={"format": {"type": "audio/pcm", "rate": RATE}}) as call:
        session = call.log[0].session
        check(session.model == "pocket" and session.instructions == DESK, session)
        return str(session.audio.output.voice)


async def spoken() -> str:
    """With transcripts of both sides, on one timeline that does not go back."""
    async with calling() as call:
        await call.speak(ASKED.question)
        said = await call.answered()
        check(call.seconds() > 0.5 and "open" in said, said)
        check("open" in call.words("input"), call.words("input"))
        told = [event for event in call.log if event.type == "session.output_transcript.delta"]
        places = [place for event in told for place in (event.start_ms, event.end_ms)]
        check(places == sorted(places), places)
        return f"{call.words('input').strip()}? {said}"


async def tool() -> str:
    delegation = {"type": "responses", "responses": {"model": "pocket", "tools": [TOOL]}}
    async with calling(delegation=delegation) as call:
        await call.speak(ASKED.weather)
        done = await call.until(
            "response.event", lambda event: event.event["type"] == "response.output_item.done"
        )
        item = done.event["item"]
        check(item["name"] == TOOL["name"] and json.loads(item["arguments"])["city"], item)
        await call.answered()
        output: Any = {
            "type": "function_call_output",
            "call_id": item["call_id"],
            "output": json.dumps(WEATHER),
        }
        await call.connection.response.item.create(item=output)
        await call.connection.response.create()
        said = await call.answered()
        check("sunny" in said, said)
        return said


async def delegate() -> str:
    """To this application, which answers with commentary."""
    async with calling(delegation={"type": "client"}) as call:
        await call.speak(ASKED.weather)
        created = await call.until("session.delegation.created")
        check(created.delegation.target == "client", created)
        await call.answered()
        result = json.dumps(WEATHER)
        name = created.delegation.id
        await call.connection.session.commentary.append(content=result, delegation_id=name)
        said = await call.answered()
        check("sunny" in said, said)
        return said


async def append() -> None:
    async with calling() as call:
        for part in (call.connection.session.instructions, call.connection.session.thinking):
            await part.append(content="The caller is a guest of the house.", delegation_id=None)
        for name in ("instructions", "thinking"):
            appended = await call.until(f"session.{name}.appended")
            check(appended.start_ms <= appended.end_ms, appended)
        await call.connection.session.commentary.append(content="hello", delegation_id=None)
        check(await call.answered(), "nothing was said")


async def mute() -> None:
    async with calling() as call:
        await call.connection.session.input_audio.mute()
        await call.speak(ASKED.weather)
        await call.until("session.input_audio.muted")
        await call.connection.session.input_audio.unmute()
        await call.speak(ASKED.question)
        await call.answered()
        check("open" in call.words("input") and "weather" not in call.words("input"), call.words("input"))


async def close() -> str:
    async with calling() as call:
        await call.connection.session.close()
        closed = await call.until("session.closed")
        check(closed.reason == "close_requested" and closed.usage.seconds >= 0, closed)
        return str(closed.reason)


async def reconnect() -> str:
    """A connection that broke without a word; another session begins with what was said in the first."""
    async with calling() as call:
        await call.speak(ASKED.question)
        await call.until("session.output_audio.delta")
        call.connection._connection.transport.abort()
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "my name is nick"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "nice to meet you, nick."}]},
    ]
    async with calling(input=history) as call:
        await call.speak(ASKED.question)
        return await call.answered()


if __name__ == "__main__":
    each = (start, spoken, tool, delegate, append, mute, close, reconnect)
    run(("openai",), {scenario.__name__: scenario for scenario in each}, ASKED.only)
