"""Translation sessions over real sockets; every event is parsed strictly by the published types."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import (
    RealtimeTranslationClientSecretCreateResponse,
    RealtimeTranslationServerEvent,
)
from pydantic import TypeAdapter
from server_helpers import Caller, Event, Site, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voiceagent.core.actions import Prepare, StartTurn
from voiceagent.engine.fake import Script
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

_strict: TypeAdapter[Any] = TypeAdapter(RealtimeTranslationServerEvent)
LOUD = np.full(VOICE_RATE, 8000, np.int16)  #: 1 s
SILENT = np.zeros(VOICE_RATE, np.int16)


class Listener(Caller):
    """A client of translations."""

    async def next(self) -> Event:
        event = await super().next()
        _strict.validate_json(json.dumps(event), strict=True)
        return event

    async def speak(self) -> None:
        """One utterance."""
        for pcm in (LOUD, SILENT):
            raw = base64.b64encode(pcm.tobytes()).decode()
            await self.send("session.input_audio_buffer.append", audio=raw)

    def words(self, way: str) -> str:
        return "".join(e["delta"] for e in self.log if e["type"] == f"session.{way}_transcript.delta")

    @property
    def samples(self) -> int:
        deltas = [e["delta"] for e in self.log if e["type"] == "session.output_audio.delta"]
        return sum(len(base64.b64decode(delta)) // 2 for delta in deltas)


@asynccontextmanager
async def listening(site: Site, **options: Any) -> AsyncIterator[Listener]:
    url = site.ws.replace("/v1/realtime?model=fake", "/v1/realtime/translations?model=fake")
    async with connect(url, max_size=None, compression=None, **options) as socket:
        caller = Listener(socket)
        assert (await caller.next())["type"] == "session.created"
        yield caller


async def test_each_utterance_is_translated_by_itself_and_the_transcripts_go_on() -> None:
    script = Script(speech_ids=5, transcript="buenos días")
    async with serving(script) as site, listening(site) as caller:
        audio = {"input": {"transcription": {"model": "whisper"}}, "output": {"language": "es"}}
        await caller.send("session.update", session={"audio": audio})
        updated = (await caller.until("session.updated"))["session"]
        assert updated["audio"]["output"]["language"] == "es"
        for number in (1, 2):
            await caller.speak()
            while caller.samples < number * 5 * TOKEN_SAMPLES or caller.words("input").count("días") < number:
                await caller.next()
        assert caller.words("input") == "buenos días buenos días"
        heard = caller.words("output")
        assert heard.count("I heard") == 2
        assert " I heard" in heard[1:]
        (session,) = site.engine.sessions.values()
        turns = [action for action in session.actions if isinstance(action, StartTurn)]
        assert [len(turn.items) for turn in turns] == [1, 1]
        assert turns[0].options.instructions.endswith("into Spanish speech.")
        assert not any(isinstance(action, Prepare) for action in session.actions)
        await caller.send("session.close")
        await caller.until("session.closed")
        with pytest.raises(ConnectionClosed):
            await caller.next()


async def test_what_is_wrong_is_told_and_the_session_goes_on() -> None:
    async with serving() as site, listening(site) as caller:
        for kind, fields, code, param in (
            ("response.create", {}, "unknown_event_type", "type"),
            ("session.input_audio_buffer.append", {"audio": "AAA"}, "invalid_base64", "audio"),
            ("session.input_audio_buffer.append", {"audio": "AAAA"}, "odd_audio_length", "audio"),
            ("session.update", {"session": {"type": "realtime"}}, "invalid_value", "session.type"),
            (
                "session.update",
                {"session": {"audio": {"output": {"language": "{x}"}}}},
                "invalid_value",
                "session.audio.output.language",
            ),
        ):
            await caller.send(kind, event_id="mine", **fields)
            error = (await caller.until("error"))["error"]
            assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
        await caller.send("session.update", session={})
        await caller.until("session.updated")
        assert not caller.words("output")


async def test_a_key_carries_its_settings_and_opens_nothing_else() -> None:
    async with serving() as site, AsyncOpenAI(base_url=f"{site.http}/v1", api_key="any") as client:
        asked: Any = {"model": "gpt-realtime-translate", "audio": {"output": {"language": "fr"}}}
        made = await client.realtime.translations.client_secrets.create(session=asked)
        RealtimeTranslationClientSecretCreateResponse.model_validate(made.to_dict(), strict=True)
        assert made.session.audio.output is not None
        assert made.session.audio.output.language == "fr"
        protocols: Any = ["realtime", f"openai-insecure-api-key.{made.value}"]
        async with listening(site, subprotocols=protocols) as caller:
            assert caller.log[0]["session"]["audio"]["output"]["language"] == "fr"
        conversation: Any = {"type": "realtime"}
        other = await client.realtime.client_secrets.create(session=conversation)
        protocols = ["realtime", f"openai-insecure-api-key.{other.value}"]
        with pytest.raises(InvalidStatus) as refused:
            async with listening(site, subprotocols=protocols):
                pass
        assert json.loads(refused.value.response.body or b"")["error"]["param"] == "session.type"
