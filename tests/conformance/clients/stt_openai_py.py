"""client.realtime of the openai package for Python with intent=transcription.

stt_openai_py.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from scenarios import arguments, check, frames, run

ASKED = arguments()
NAME = "conversation.item.input_audio_transcription"


@asynccontextmanager
async def listening(**heard: Any) -> AsyncIterator[Any]:
    async with (
        AsyncOpenAI(base_url=ASKED.url, api_key="none") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        created = await connection.recv()
        check(created.type == "session.created" and created.session.type == "transcription", created)
        await connection.session.update(session={"type": "transcription", "audio": {"input": heard}})
        updated = await connection.recv()
        check(updated.type == "session.updated", updated)
        yield connection


async def speak(connection: Any) -> None:
    for frame in frames(ASKED.question):
        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())


async def written(connection: Any) -> str:
    """The next transcript, which came word by word before."""
    parts: list[str] = []
    async for event in connection:
        check(event.type != "error", event)
        if event.type == f"{NAME}.delta":
            parts.append(event.delta)
        if event.type == f"{NAME}.completed":
            check(len(parts) > 1 and "".join(parts) == event.transcript, parts)
            check("wednesday" in event.transcript.lower(), event.transcript)
            return str(event.transcript)
    raise AssertionError("the connection ended")


async def connect() -> None:
    async with listening():
        pass


async def spoken() -> str:
    async with listening(turn_detection={"type": "server_vad"}) as connection:
        await speak(connection)
        return await written(connection)


async def commit() -> str:
    async with listening(turn_detection=None) as connection:
        await speak(connection)
        await connection.input_audio_buffer.commit()
        return await written(connection)


if __name__ == "__main__":
    run(("openai",), {"connect": connect, "spoken": spoken, "commit": commit}, ASKED.only)
