"""Live sessions over real sockets against a scripted engine: the route, its limits, and what a call hears."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from openai.types.live import ServerEvent
from pydantic import TypeAdapter
from server_helpers import Caller, Event, Site, serving, tight
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceagent.engine.fake import Script, numbered
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire.live import TAIL

_strict: TypeAdapter[Any] = TypeAdapter(ServerEvent)
TOOL = {"type": "function", "name": "get_time", "parameters": {"type": "object"}}
RESPONSES = {"type": "responses", "responses": {"model": "fake", "tools": [TOOL]}}


class LiveCall(Caller):
    """A Live client; fails on a message that the published types do not allow."""

    async def next(self) -> Event:
        event = await super().next()
        _strict.validate_json(json.dumps(event), strict=True)
        return event

    async def start(self, **session: Any) -> Event:
        await self.send("session.start", session={"model": "fake", **session})
        return await self.until("session.started")

    def sound(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        deltas = [e["delta"] for e in self.log if e["type"] == "session.output_audio.delta"]
        return np.frombuffer(b"".join(map(base64.b64decode, deltas)), "<i2").astype(np.int16)

    def text(self, way: str) -> str:
        return "".join(e["delta"] for e in self.log if e["type"] == f"session.{way}_transcript.delta")

    async def speak(self, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        await self.send("session.input_audio.append", audio=b64(pcm))

    async def type(self, text: str) -> None:
        await self.send("response.item.create", item={"role": "user", "content": text})
        await self.send("response.create")


def b64(pcm: np.ndarray[Any, np.dtype[np.int16]]) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


@asynccontextmanager
async def live(site: Site, **options: Any) -> AsyncIterator[LiveCall]:
    address = f"ws://127.0.0.1:{site.port}/v1/live/sessions"
    async with connect(address, max_size=None, compression=None, **options) as socket:
        yield LiveCall(socket)


async def test_a_spoken_turn_found_by_the_server() -> None:
    async with serving(Script(speech_ids=10, transcript="what I said")) as site, live(site) as call:
        await call.start()
        await call.speak(np.full(12_000, 8000, np.int16))
        await call.speak(np.zeros(24_000, np.int16))
        used = await call.until("session.usage.updated")
        assert used["context_window"]["usage_ratio"] > 0.0
        assert call.text("input") == "what I said"
        assert call.text("output").startswith("I heard")
        whole = numbered(session=1, turn=1, start=0, count=10 * TOKEN_SAMPLES)
        assert np.array_equal(call.sound(), np.concatenate([whole, TAIL]))
        await call.send("session.close", event_id="bye")
        closed = await call.until("session.closed")
        assert (closed["reason"], closed["client_event_id"]) == ("close_requested", "bye")
        assert await call.closed() == (1000, "close_requested")


async def test_a_typed_question_and_a_tool_with_its_result() -> None:
    async with serving(Script(speech_ids=5)) as site, live(site) as call:
        await call.start(delegation=RESPONSES)
        await call.type("use get_time please")
        created = await call.until("session.delegation.created")
        done = await call.until(
            "response.event", when=lambda e: e["event"]["type"] == "response.output_item.done"
        )
        assert done["delegation_id"] == created["delegation"]["id"]
        item = done["event"]["item"]
        assert item["name"] == "get_time"
        await call.until("session.usage.updated")
        result = {"type": "function_call_output", "call_id": item["call_id"], "output": "noon"}
        await call.send("response.item.create", item=result)
        await call.send("response.create")
        await call.until("session.usage.updated")
        assert call.text("output") == "The tool said: noon"


async def test_a_fixture_of_thirty_seconds_fits() -> None:
    notice = (np.arange(24_000 * 30) % 1000).astype(np.int16)
    async with serving() as site, live(site) as call:
        await call.start()
        await call.send("session.output_audio.fixture.play", audio=b64(notice), event_id="f")
        playing = await call.until("session.output_audio.fixture.playing")
        assert playing["client_event_id"] == "f"
        await call.until("session.output_audio.delta")
        heard = call.sound()
        assert np.array_equal(heard, notice[: len(heard)])
        await call.send("session.close")
        await call.until("session.closed")
        assert "session.output_audio.fixture.played" not in [e["type"] for e in call.log]


async def test_a_session_expires_with_a_word() -> None:
    async with serving(limits=tight(session_s=0.3)) as site, live(site) as call:
        await call.start()
        assert (await call.until("session.closed"))["reason"] == "expired"
        assert await call.closed() == (1008, "session limit reached")


async def test_an_engine_that_dies_is_an_error_and_the_session_goes_on() -> None:
    async with serving() as site, live(site) as call:
        await call.start(delegation=RESPONSES)
        await call.type("!die")
        assert (await call.until("error"))["error"]["code"] == "engine_down"
        await call.until("session.usage.updated")  # what the reply that broke off had cost
        site.engine.revive()
        await call.type("hello")
        await call.until("session.usage.updated")
        assert call.text("output") == "You said: hello"


async def test_both_protocols_share_the_engine_and_its_slots() -> None:
    async with serving(Script(speech_ids=5)) as site, live(site) as one, live(site) as two:
        for call in (one, two):
            await call.start(delegation=RESPONSES)
        await one.type("one")
        await two.type("two")
        for call, word, number in ((one, "one", 1), (two, "two", 2)):
            await call.until("session.usage.updated")
            assert call.text("output") == f"You said: {word}"
            whole = numbered(session=number, turn=1, start=0, count=5 * TOKEN_SAMPLES)
            assert np.array_equal(call.sound(), np.concatenate([whole, TAIL]))


async def test_who_is_not_let_in() -> None:
    async with serving(keys=("secret",)) as site:
        with pytest.raises(InvalidStatus) as refused:
            async with live(site):
                pass
        assert refused.value.response.status_code == 401
        async with live(site, additional_headers={"Authorization": "Bearer secret"}) as call:
            await call.start()
        url = f"{site.http}/v1/live/sessions"
        headers = {"Authorization": "Bearer secret"}
        async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
            assert response.status == 426


async def test_the_server_tells_of_its_own_stop_by_the_close_code() -> None:
    async with serving() as site, live(site) as call:
        await call.start()
        await site.server.stop()
        assert await call.closed() == (1012, "server is stopping")
