"""The openai package against a scripted engine: the order and the shape of everything that it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from openai_caller import RATE, Caller, calling

from voiceagent.config import Config, ServerConfig
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.app import Server
from voiceagent.units import TOKEN_SAMPLES

TOOL = {"type": "function", "name": "get_time", "description": "Now.", "parameters": {"type": "object"}}
MESSAGE = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]


@asynccontextmanager
async def fake_call(script: Script) -> AsyncIterator[Caller]:
    engine = FakeEngine(script)
    await engine.start()
    server = Server(Config(server=ServerConfig(port=0)), engine)
    host, port = await server.start()
    try:
        async with calling(f"{host}:{port}") as caller:
            yield caller
    finally:
        await server.stop()
        await engine.stop()


def firsts(kinds: list[str]) -> list[str]:
    """The types in the order of their first coming."""
    return list(dict.fromkeys(kinds))


async def test_a_typed_question_answered_in_audio() -> None:
    async with fake_call(Script(speech_ids=20)) as caller:
        await caller.configure()
        caller.log.clear()
        response = await caller.type("hello there")
        assert firsts(caller.kinds) == [
            "conversation.item.added",
            "conversation.item.done",
            *MESSAGE[:2],
            MESSAGE[3],
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.words",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.latency",
            "response.done",
        ]
        assert caller.kinds[2:6] == MESSAGE
        assert response.status == "completed"
        assert response.output[0].content[0].transcript == "You said: hello there"
        whole = numbered(session=1, turn=1, start=0, count=20 * TOKEN_SAMPLES)
        assert np.array_equal(caller.samples(response), whole)
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        assert len({event.event_id for event in caller.log}) == len(caller.log)


async def test_text_only() -> None:
    async with fake_call(Script()) as caller:
        updated = await caller.configure(output_modalities=["text"])
        assert updated.session.output_modalities == ["text"]
        response = await caller.type("hello")
        assert response.output[0].content[0].text == "You said: hello"
        assert "response.output_text.done" in caller.kinds
        assert not caller.audio


async def test_a_spoken_turn_found_by_the_server() -> None:
    async with fake_call(Script(speech_ids=5, transcript="what I said")) as caller:
        await caller.configure(
            audio={
                "input": {
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
                    "transcription": {"model": "whisper-1"},
                }
            }
        )
        caller.log.clear()
        await caller.append(np.full(RATE // 2, 8000, np.int16))
        await caller.append(np.zeros(RATE // 2, np.int16))
        await caller.until("response.done")
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
        ]
        assert [kind for kind in firsts(caller.kinds) if kind in order] == order
        heard = [e for e in caller.log if e.type.endswith("input_audio_transcription.completed")]
        assert [e.transcript for e in heard] == ["what I said"]
        started, committed = (
            next(e for e in caller.log if e.type == f"input_audio_buffer.{kind}")
            for kind in ("speech_started", "committed")
        )
        assert started.item_id == committed.item_id == heard[0].item_id


async def test_a_tool_and_its_result() -> None:
    async with fake_call(Script(speech_ids=5)) as caller:
        await caller.configure(tools=[TOOL])
        caller.log.clear()
        response = await caller.type("use get_time please")
        (call,) = response.output
        assert (call.type, call.name, call.status) == ("function_call", "get_time", "completed")
        done = next(e for e in caller.log if e.type == "response.function_call_arguments.done")
        assert (done.call_id, done.arguments) == (call.call_id, call.arguments)
        item: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
        await caller.connection.conversation.item.create(item=item)
        answer = await caller.respond()
        assert answer.output[0].content[0].transcript == "The tool said: noon"


async def test_cancel_and_truncate() -> None:
    async with fake_call(Script(speech_ids=500, rtf=0.2)) as caller:
        await caller.configure()
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go on"}]}
        await caller.connection.conversation.item.create(item=item)
        await caller.connection.response.create()
        delta = await caller.until("response.output_audio.delta")
        await caller.connection.response.cancel()
        done = (await caller.until("response.done")).response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        await caller.connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=40
        )
        truncated = await caller.until("conversation.item.truncated")
        assert (truncated.item_id, truncated.audio_end_ms <= 40) == (delta.item_id, True)
        await caller.connection.conversation.item.retrieve(item_id=delta.item_id)
        kept = (await caller.until("conversation.item.retrieved")).item
        assert kept.status == "incomplete"
        await caller.connection.conversation.item.delete(item_id=delta.item_id)
        await caller.until("conversation.item.deleted")


async def test_items_of_every_kind_and_an_out_of_band_response() -> None:
    async with fake_call(Script()) as caller:
        await caller.configure(output_modalities=["text"])
        items: list[Any] = [
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        ]
        for item in items:
            await caller.connection.conversation.item.create(item=item)
            await caller.until("conversation.item.done")
        await caller.connection.response.create(
            response={"conversation": "none", "input": [items[2]], "metadata": {"topic": "aside"}}
        )
        aside = (await caller.until("response.done")).response
        assert (aside.metadata, aside.status) == ({"topic": "aside"}, "completed")
        response = await caller.type("two")
        assert response.output[0].content[0].text == "You said: two"
