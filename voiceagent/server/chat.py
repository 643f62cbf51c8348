"""POST /v1/chat/completions: one turn on the engine, told whole or as it comes. It moves bytes and decides nothing."""

from __future__ import annotations

import asyncio
import io
import secrets
import time
from collections.abc import Collection
from contextlib import aclosing
from typing import assert_never

import numpy as np
from aiohttp import web

from voiceagent.audio.stream import Encoder, decode
from voiceagent.core.events import AudioOut, TextOut, ThoughtOut, ToolCalled, TurnEnded
from voiceagent.core.history import AudioContent, Item, Piece, TextContent, UserItem
from voiceagent.engine.api import EngineClient
from voiceagent.errors import EngineError, InputError
from voiceagent.server.audio_rest import broken_off
from voiceagent.server.job import Job, Output, job, loaded
from voiceagent.server.requests import WORK, Work
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, VOICE_RATE
from voiceagent.wire import chat as wire
from voiceagent.wire.dialect import WireError


class ChatRest:
    """The handler; `instructions` are for requests that bring none, `voices` the names that there are at the time."""

    def __init__(self, engine: EngineClient, *, voices: Collection[str], instructions: str) -> None:
        self._engine, self._voices, self._instructions = engine, voices, instructions

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answers a conversation."""
        ready = loaded(self._engine)
        body = await request.read()
        asked = wire.decode(
            body, voices=self._voices, instructions=self._instructions, can_think=ready.can_think
        )
        items = await _items(asked)
        answer = wire.Answer(f"chatcmpl-{secrets.token_hex(12)}", ready.model, int(time.time()), asked.spoken)
        work = request[WORK]
        work.heard_s = _seconds(items)
        async with job(self._engine) as worker:
            if asked.stream:
                return await _stream(request, worker, items, asked, answer)
            return await _whole(worker, items, asked, answer, work)


async def _whole(
    worker: Job, items: tuple[Item, ...], asked: wire.Chat, answer: wire.Answer, work: Work
) -> web.Response:
    sound: list[np.ndarray] = []
    async for event in worker.turn(items, asked.options):
        match event:
            case ThoughtOut():
                answer.thought += event.text
            case TextOut():
                answer.text += event.text
            case AudioOut():
                sound.append(event.pcm)
                work.spoken_s += len(event.pcm) / VOICE_RATE
            case ToolCalled():
                answer.call(event.call_id, event.name, event.arguments)
            case TurnEnded():
                if sound:
                    kind = "pcm" if asked.format == "pcm16" else asked.format
                    encoder = Encoder(kind, rate=VOICE_RATE)
                    answer.sound = encoder.push(np.concatenate(sound)) + encoder.finish()
                body = answer.whole(event.reason, event.usage)
                return web.Response(body=body, content_type="application/json")
            case _:
                assert_never(event)
    raise EngineError("The turn did not end.")


async def _stream(
    request: web.Request, worker: Job, items: tuple[Item, ...], asked: wire.Chat, answer: wire.Answer
) -> web.StreamResponse:
    async with aclosing(worker.turn(items, asked.options)) as events:
        first = await anext(events)  # what is wrong with the request shows before anything is sent
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        with broken_off(request):
            lead = {"audio": {"id": f"audio_{answer.id}"}} if asked.spoken else {"content": ""}
            await response.write(answer.chunk(role="assistant", **lead))
            await response.write(_told(first, asked, answer))
            async for event in events:
                if isinstance(event, AudioOut):
                    request[WORK].spoken_s += len(event.pcm) / VOICE_RATE
                await response.write(_told(event, asked, answer))
            await response.write_eof(wire.DONE)
    return response


def _told(event: Output, asked: wire.Chat, answer: wire.Answer) -> bytes:
    """The server-sent events for one event of the turn."""
    match event:
        case ThoughtOut():
            return answer.chunk(reasoning_content=event.text)
        case TextOut():
            return answer.words(event.text) if event.text else b""
        case AudioOut():
            return answer.samples(event.pcm.astype("<i2").tobytes())
        case ToolCalled():
            number = len(answer.calls)
            return answer.chunk(
                tool_calls=[{"index": number, **answer.call(event.call_id, event.name, event.arguments)}]
            )
        case TurnEnded():
            usage = answer.usage_chunk(event.usage) if asked.with_usage else b""
            return answer.chunk(reason=event.reason) + usage
        case _:
            assert_never(event)


async def _items(asked: wire.Chat) -> tuple[Item, ...]:
    """The conversation with its sound files decoded; pieces are numbered in order."""
    items: list[Item] = []
    pieces = 0
    for given in asked.items:
        if not isinstance(given, wire.Said):
            items.append(given)
            continue
        content: list[TextContent | AudioContent] = []
        for part in given.content:
            if isinstance(part, TextContent):
                content.append(part)
                continue
            found = await asyncio.to_thread(_pieces, part, pieces)
            pieces += len(found)
            content.append(AudioContent(found))
        items.append(UserItem("", tuple(content)))
    return tuple(items)


def _seconds(items: tuple[Item, ...]) -> float:
    """Of sound in a conversation."""
    parts = [part for item in items if isinstance(item, UserItem) for part in item.content]
    pieces = [piece for part in parts if isinstance(part, AudioContent) for piece in part.pieces]
    return sum(piece.audio.size for piece in pieces) / MODEL_RATE


def _pieces(heard: wire.Heard, number: int) -> tuple[Piece, ...]:
    try:
        samples = np.concatenate(list(decode(io.BytesIO(heard.data), rate=MODEL_RATE)))
    except InputError as error:
        raise WireError(error.message, code=error.code, param=heard.param, remedy=error.remedy) from error
    if not len(samples):
        raise WireError("The audio is empty.", code="empty_audio", param=heard.param)
    samples.setflags(write=False)
    starts = range(0, len(samples), PIECE_SAMPLES)
    return tuple(Piece(number + i, samples[at : at + PIECE_SAMPLES]) for i, at in enumerate(starts))
