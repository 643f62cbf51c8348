"""Sessions that only write down what they hear, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import (
    ClientSecretCreateResponse,
    ConversationItemInputAudioTranscriptionCompletedEvent,
    RealtimeTranscriptionSessionCreateResponse,
)
from server_helpers import Caller, Site, calling, eventually, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from voiceagent.core.actions import ForgetPieces, Prepare, StartTurn, Transcribe
from voiceagent.core.dictation import Dictation
from voiceagent.engine.fake import Script
from voiceagent.units import VOICE_RATE

NAME = "conversation.item.input_audio_transcription"
LOUD = np.full(VOICE_RATE, 8000, np.int16)  #: 1 s
SILENT = np.zeros(VOICE_RATE, np.int16)


@asynccontextmanager
async def listening(site: Site, query: str = "intent=transcription") -> AsyncIterator[Caller]:
    """An open transcription session that has been greeted."""
    async with connect(site.ws.replace("model=fake", query), max_size=None, compression=None) as socket:
        caller = Caller(socket)
        created = await caller.next()
        assert created["session"]["object"] == "realtime.transcription_session"
        RealtimeTranscriptionSessionCreateResponse.model_validate_json(
            json.dumps(created["session"]), strict=True
        )
        yield caller


async def words(caller: Caller) -> tuple[str, str]:
    """What the next utterance's deltas say together, and its transcript."""
    start = len(caller.log)
    done = await caller.until(f"{NAME}.completed")
    deltas = [event for event in caller.log[start:] if event["type"] == f"{NAME}.delta"]
    assert {event["item_id"] for event in deltas} == {done["item_id"]}
    return "".join(event["delta"] for event in deltas), done["transcript"]


@pytest.mark.parametrize("query", ["intent=transcription", "intent=transcription&model=whisper-1"])
async def test_utterances_are_written_down_and_never_answered(query: str) -> None:
    async with serving(Script(transcript="all hands on deck")) as site, listening(site, query) as caller:
        for _ in range(2):
            await caller.append(LOUD)
            await caller.append(SILENT)
            assert await words(caller) == ("all hands on deck", "all hands on deck")
        await caller.send("response.create", event_id="mine")
        error = (await caller.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("response_not_available", "mine")
        assert not any(event["type"].startswith("response.") for event in caller.log)
        (session,) = site.engine.sessions.values()
        assert not any(isinstance(action, StartTurn | Prepare) for action in session.actions)
        forgotten = [
            n for action in session.actions if isinstance(action, ForgetPieces) for n in action.pieces
        ]
        assert forgotten == [1, 2], "a session may last for hours"


async def test_a_long_dictation_grows_before_it_is_committed() -> None:
    async with serving(Script(transcript="aye")) as site, listening(site) as caller:
        manual: dict[str, Any] = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        await caller.send("session.update", session=manual)
        updated = await caller.until("session.updated")
        assert updated["session"]["audio"]["input"]["turn_detection"] is None
        for _ in range(25):
            await caller.append(LOUD)
        first = await caller.until(f"{NAME}.delta")
        await caller.until(f"{NAME}.delta")
        await caller.send("input_audio_buffer.commit")
        assert (await caller.until("input_audio_buffer.committed"))["item_id"] == first["item_id"]
        done = await caller.until(f"{NAME}.completed")
        assert (done["transcript"], round(done["usage"]["seconds"])) == ("aye aye aye", 25)


async def test_what_the_client_knows_of_the_speech_reaches_the_engine_and_scores_come_back() -> None:
    async with serving(Script(transcript="all hands")) as site, listening(site) as caller:
        heard = {
            "transcription": {"model": "m", "language": "en-GB", "prompt": "Ahab"},
            "turn_detection": None,
        }
        include = ["item.input_audio_transcription.logprobs"]
        await caller.send("session.update", session={"include": include, "audio": {"input": heard}})
        shown = (await caller.until("session.updated"))["session"]
        assert shown["audio"]["input"]["transcription"]["language"] == "en-GB", "as it was said"
        await caller.append(LOUD)
        await caller.send("input_audio_buffer.commit")
        done = await caller.until(f"{NAME}.completed")
        ConversationItemInputAudioTranscriptionCompletedEvent.model_validate_json(
            json.dumps(done), strict=True
        )
        assert "".join(each["token"] for each in done["logprobs"]) == "all hands"
        (session,) = site.engine.sessions.values()
        (asked,) = (action for action in session.actions if isinstance(action, Transcribe))
        assert asked.how == Dictation("en", "Ahab", scores=True)
        await caller.send("session.update", session={"include": None})
        await caller.append(LOUD)
        await caller.send("input_audio_buffer.commit")
        assert "logprobs" not in await caller.until(f"{NAME}.completed")
        await caller.send(
            "session.update", session={"audio": {"input": {"transcription": {"language": "klingon"}}}}
        )
        error = (await caller.until("error"))["error"]
        assert (error["code"], error["param"]) == (
            "invalid_value",
            "session.audio.input.transcription.language",
        )


async def test_failures_are_told_of_the_item() -> None:
    async with serving(Script(transcript="!fail")) as site, listening(site) as caller:
        await caller.append(LOUD)
        await caller.append(SILENT)
        failed = await caller.until(f"{NAME}.failed")
        assert failed["error"]["code"] == "fake_fault"
        site.engine.die()
        await eventually(lambda: not site.engine.alive)
        site.engine.revive()
        site.engine.script = Script(transcript="again")
        await caller.append(LOUD)
        await caller.append(SILENT)
        assert (await words(caller))[1] == "again"


async def test_a_key_may_carry_a_transcription_session() -> None:
    async with serving() as site, AsyncOpenAI(base_url=f"{site.http}/v1", api_key="any") as client:
        heard: Any = {"transcription": {"model": "whisper-1", "language": "en"}, "turn_detection": None}
        asked: Any = {"type": "transcription", "audio": {"input": heard}}
        made = await client.realtime.client_secrets.create(session=asked)
        ClientSecretCreateResponse.model_validate(made.to_dict(), strict=True)
        assert made.session.object == "realtime.transcription_session"
        for query in ("", "intent=transcription", "model=fake"):
            protocols: Any = ["realtime", f"openai-insecure-api-key.{made.value}"]
            async with connect(site.ws.replace("model=fake", query), subprotocols=protocols) as socket:
                shown = json.loads(await socket.recv())["session"]
            assert shown["type"] == "transcription"
            assert shown["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en"}


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("intent=conversation", "invalid_value", "intent"),
        ("call_id=rtc_1", "call_not_found", "call_id"),
        ("model=fake&call_id=rtc_1", "call_not_found", "call_id"),
    ],
)
async def test_addresses_that_mean_nothing_here(query: str, code: str, param: str) -> None:
    async with serving() as site:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(site.ws.replace("model=fake", query)):
                pass
        error = json.loads(refused.value.response.body or b"")["error"]
        assert (refused.value.response.status_code, error["code"], error["param"]) == (400, code, param)


async def test_a_conversations_key_opens_no_transcription() -> None:
    async with serving() as site:
        async with aiohttp.ClientSession() as http:
            body = {"session": {"type": "realtime"}}
            async with http.post(f"{site.http}/v1/realtime/client_secrets", json=body) as answer:
                key = (await answer.json())["value"]
        protocols: Any = ["realtime", f"openai-insecure-api-key.{key}"]
        with pytest.raises(InvalidStatus) as refused:
            async with connect(site.ws.replace("model=fake", "intent=transcription"), subprotocols=protocols):
                pass
        assert json.loads(refused.value.response.body or b"")["error"]["param"] == "session.type"
        async with calling(site) as caller:
            await caller.send("session.update", session={"type": "transcription"})
            error = (await caller.until("error"))["error"]
            assert (error["code"], error["param"]) == ("unsupported_session_type", "session.type")
