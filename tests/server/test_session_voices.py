"""Voices that a Realtime session brings for itself, and shared ones while sessions are open; over sockets."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import SessionUpdatedEvent
from server_helpers import Caller, Site, calling, eventually, serving

from voiceagent.audio.clip import to_wav
from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.voice_book import VoiceBook


def tone(seconds: float = 4.0) -> np.ndarray[Any, np.dtype[np.int16]]:
    return (8000 * np.sin(np.arange(int(seconds * 24_000)) * 0.1)).astype(np.int16)


def file(seconds: float = 4.0) -> str:
    return base64.b64encode(to_wav(tone(seconds), rate=24_000)).decode()


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[tuple[Site, list[str], VoiceBook]]:
    """A server, the engine's names of the voices of all turns in order, and the server's book."""
    engine, used = FakeEngine(Script(speech_ids=10)), list[str]()
    play = engine.start_turn
    engine.start_turn = lambda session, action: (used.append(action.options.voice), play(session, action))[1]  # type: ignore[method-assign]
    await engine.start()
    async with serving(engine, **options) as site:
        yield site, used, site.server._book
    await engine.stop()


async def create(caller: Caller, name: str = "mine", **voice: Any) -> dict[str, Any]:
    """What is answered to voice.create."""
    await caller.send("voice.create", event_id="e1", voice={"name": name, **voice})
    return await caller.until("voice.created", "error")


async def speak_with(caller: Caller, voice: str) -> str:
    """Chooses a voice; the name that the session then shows."""
    await caller.send("session.update", session={"type": "realtime", "audio": {"output": {"voice": voice}}})
    shown = await caller.until("session.updated")
    SessionUpdatedEvent.model_validate(shown)
    return str(shown["session"]["audio"]["output"]["voice"])


async def test_what_was_just_said_becomes_a_voice_of_this_session_alone() -> None:
    async with watched() as (site, used, _), calling(site) as caller:
        await caller.manual()
        for start in range(0, 5 * 24_000, 12_000):
            await caller.append(tone(5.0)[start : start + 12_000])
        await caller.send("input_audio_buffer.commit")
        item = (await caller.until("input_audio_buffer.committed"))["item_id"]
        made = await create(caller, item_id=item)
        assert made["voice"] == {"id": "mine", "name": "mine", "seconds": 5.0}
        assert await speak_with(caller, "mine") == "mine"
        assert (await caller.ask("hello")).status == "completed"
        done = [event for event in caller.log if event["type"] == "response.done"][-1]
        assert done["response"]["audio"]["output"]["voice"] == "mine"
        assert used[-1].endswith("/mine")
        async with calling(site) as other:
            await other.manual()
            assert await speak_with(other, "mine") == "default_female"
            assert await speak_with(other, used[-1]) == "default_female", "nor by the engine's name for it"
            assert (await create(other, audio=file()))["type"] == "voice.created", (
                "each has a name of its own"
            )
            assert len(site.engine.voices.names) == 2
        await eventually(lambda: len(site.engine.voices.names) == 1)
    assert site.engine.voices.names == ()


async def test_a_voice_that_is_deleted_and_responses_after_it() -> None:
    async with watched() as (site, used, _), calling(site) as caller:
        await caller.manual()
        await create(caller, audio=file())
        await speak_with(caller, "mine")
        await caller.send("voice.delete", voice={"name": "mine"})
        assert (await caller.until("voice.deleted", "error"))["voice"]["name"] == "mine"
        assert site.engine.voices.names == ()
        await caller.ask("hello")
        assert used[-1] == "default_female"
        await caller.send("voice.delete", voice={"name": "mine"})
        assert (await caller.until("voice.deleted", "error"))["error"]["code"] == "voice_not_found"


@pytest.mark.parametrize(
    ("voice", "code", "param"),
    [
        ({"name": "mine", "audio": file(2.0)}, "audio_too_short", "voice.audio"),
        ({"name": "mine", "audio": base64.b64encode(b"hello").decode()}, "unsupported_format", "voice.audio"),
        ({"name": "mine", "audio": "?"}, "invalid_base64", "voice.audio"),
        ({"name": "mine"}, "invalid_value", "voice.audio"),
        ({"name": "mine", "audio": "", "item_id": "a"}, "invalid_value", "voice.audio"),
        ({"name": "mine", "item_id": "nobody"}, "voice_create_invalid_item_id", "voice.item_id"),
        ({"name": "a/b", "audio": file()}, "invalid_value", "voice.name"),
        ({"name": "default_male", "audio": file()}, "voice_exists", "voice.name"),
        ({"audio": file()}, "missing_required_parameter", "voice.name"),
    ],
)
async def test_what_cannot_be_is_answered_and_the_session_goes_on(
    voice: dict[str, Any], code: str, param: str
) -> None:
    async with serving() as site, calling(site) as caller:
        await caller.send("voice.create", event_id="e1", voice=voice)
        error = (await caller.until("error"))["error"]
        assert (error["code"], error["param"], error["event_id"]) == (code, param, "e1")
        assert (await create(caller, audio=file()))["type"] == "voice.created"
        assert (await create(caller, audio=file()))["error"]["code"] == "voice_exists"
        assert (await caller.ask("hello")).status == "completed"


async def test_four_of_a_session_and_none_of_an_ephemeral_key() -> None:
    async with watched(keys=("sk-ours",)) as (site, _, _):
        ours = {"Authorization": "Bearer sk-ours"}
        async with calling(site, additional_headers=ours) as caller:
            for name in ("a", "b", "c", "d"):
                assert (await create(caller, name, audio=file()))["type"] == "voice.created"
            assert (await create(caller, "e", audio=file()))["error"]["code"] == "too_many_voices"
        async with AsyncOpenAI(base_url=f"{site.http}/v1", api_key="sk-ours") as openai:
            key = (await openai.realtime.client_secrets.create()).value
        async with calling(site, additional_headers={"Authorization": f"Bearer {key}"}) as caller:
            assert (await create(caller, audio=file()))["error"]["code"] == "server_key_required"


async def test_a_caller_who_hangs_up_before_the_voice_is_made_leaves_none() -> None:
    async with watched() as (site, _, _):
        async with calling(site) as caller:
            await caller.send("voice.create", voice={"name": "mine", "audio": file()})
        await eventually(lambda: not site.engine.sessions)
        assert site.engine.voices.names == ()


async def test_a_shared_voice_comes_and_goes_while_a_session_is_open() -> None:
    async with watched() as (site, used, book), calling(site) as caller:
        await caller.manual()
        assert await speak_with(caller, "anna") == "default_female"
        await book.enrol("anna", to_wav(tone(), rate=24_000))
        assert await speak_with(caller, "anna") == "anna"
        await caller.ask("hello")
        assert used[-1] == "anna"
        base = f"ws://127.0.0.1:{site.port}/v1"
        async with (
            AsyncOpenAI(api_key="x", websocket_base_url=base) as openai,
            openai.live.connect() as call,
        ):
            await call.session.start(session={"model": "m", "audio": {"output": {"voice": "anna"}}})
            started = await call.recv()
            assert started.session.audio.output.voice == "anna"  # type: ignore[union-attr]
        await book.remove("anna")
        await caller.ask("hello")
        assert used[-1] == "default_female"
