"""LiveKit's openai.STT as a realtime transcriber, as an AgentSession uses it, without a room.

stt_livekit.py http://HOST:PORT/v1 SPOKEN.pcm WEATHER.pcm [SCENARIO ...]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from livekit import rtc
from livekit.agents import stt
from livekit.agents.utils import http_context
from livekit.plugins import openai
from scenarios import RATE, NotInThisClientError, arguments, check, eventually, frames, run

ASKED = arguments()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Any, list[stt.SpeechEvent]]]:
    """A stream of speech, and what was told of it so far."""
    async with http_context.open():
        transcriber = openai.STT(
            base_url=ASKED.url, api_key="none", model="gpt-4o-mini-transcribe", use_realtime=True
        )
        stream = transcriber.stream()
        told: list[stt.SpeechEvent] = []

        async def listen() -> None:
            async for event in stream:
                told.append(event)

        listener = asyncio.create_task(listen())
        try:
            yield stream, told
            check(not listener.done() or listener.exception() is None, "the stream has failed")
        finally:
            await stream.aclose()
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await transcriber.aclose()


def of(told: list[stt.SpeechEvent], kind: stt.SpeechEventType) -> list[stt.SpeechEvent]:
    return [event for event in told if event.type == kind]


async def connect() -> None:
    async with listening() as (stream, _):
        await eventually(lambda: stream._ws is not None, "the connection")


async def spoken() -> str:
    async with listening() as (stream, told):
        for frame in frames(ASKED.question):
            stream.push_frame(rtc.AudioFrame(frame, RATE, 1, len(frame) // 2))
        stream.flush()
        kinds = stt.SpeechEventType
        await eventually(lambda: of(told, kinds.RECOGNITION_USAGE), "the transcript")
        (final,) = of(told, kinds.FINAL_TRANSCRIPT)
        check(of(told, kinds.INTERIM_TRANSCRIPT), "nothing before the end")
        check(of(told, kinds.START_OF_SPEECH) and of(told, kinds.END_OF_SPEECH), "its voice activity")
        text = final.alternatives[0].text
        check("wednesday" in text.lower(), text)
        return str(text)


async def commit() -> None:
    raise NotInThisClientError("only its own voice detector commits")


if __name__ == "__main__":
    run(
        ("livekit-agents", "livekit-plugins-openai"),
        {"connect": connect, "spoken": spoken, "commit": commit},
        ASKED.only,
    )
