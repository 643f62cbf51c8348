"""The Python client against a real server with a scripted engine, and against connections that break in every way."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_network import network
from self_signed import certificate
from server_helpers import serving
from websockets.asyncio.server import ServerConnection, serve

from voiceagent.client import (
    Backoff,
    ClientError,
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Other,
    RealtimeClient,
    Reconnected,
    Said,
    Sound,
    SpeechStarted,
    SpeechStopped,
    Thought,
    Tool,
    ToolResult,
)
from voiceagent.client.conn import address
from voiceagent.client.events import decode
from voiceagent.client.memory import TURNS, Memory
from voiceagent.config import Config, ServerConfig
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.app import Server
from voiceagent.units import TOKEN_SAMPLES

QUESTION = Path(__file__).resolve().parent.parent / "data" / "questions" / "hours.flac"
AT_ONCE = Backoff(attempts=4, first_s=0.0)
PATIENCE_S = 20.0


# --- a question ---------------------------------------------------------------------------------------------------


async def test_a_file_a_text_and_all_that_an_answer_has() -> None:
    script = Script(speech_ids=10, transcript="what I said")
    async with serving(script) as site, RealtimeClient(f"127.0.0.1:{site.port}") as client:
        seen: list[Event] = []
        answer = await client.ask_file(QUESTION, on_event=seen.append)
        assert answer.heard == "what I said"
        assert np.array_equal(answer.samples, numbered(session=1, turn=1, start=0, count=10 * TOKEN_SAMPLES))
        assert answer.first_audio_s is not None
        assert 0 < answer.first_audio_s <= answer.total_s
        assert any(isinstance(event, Sound) for event in seen)
        assert (await client.ask_text("and now?")).said == "You said: and now?"


async def test_functions_are_run_and_a_failing_one_is_told() -> None:
    asked: list[dict[str, Any]] = []

    async def good(arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append(arguments)
        return {"time": "10:30"}

    async def bad(arguments: dict[str, Any]) -> str:
        raise ValueError("no clock here")

    for run, output in ((good, '{"time": "10:30"}'), (bad, '{"error": "ValueError: no clock here"}')):
        tools = [Tool("get_time", "Current time", run)]
        async with serving(Script(speech_ids=5)) as site, RealtimeClient(site.ws, tools=tools) as client:
            assert client.session["tools"][0]["name"] == "get_time"
            answer = await client.ask_text("use get_time")
            assert [(name, told) for name, _, told in answer.tools] == [("get_time", output)]
    assert len(asked) == 1


async def test_keys_by_header_and_by_subprotocol() -> None:
    async with serving(keys=("secret",)) as site:
        for subprotocol in (False, True):
            async with RealtimeClient(site.ws, api_key="secret", key_in_subprotocol=subprotocol) as client:
                assert client.session["id"]
        with pytest.raises(ClientError, match=r"refused \(401\).*Give the server's key") as caught:
            await RealtimeClient(site.ws, api_key="wrong").__aenter__()
        assert (caught.value.code, caught.value.retryable) == ("invalid_api_key", False)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("localhost:80", "ws://localhost:80/v1/realtime?model=m"),
        ("http://h", "ws://h/v1/realtime?model=m"),
        ("https://h/v1/", "wss://h/v1/realtime?model=m"),
        ("ws://h:1/", "ws://h:1/v1/realtime?model=m"),
        ("ws://h/v1/realtime?model=x", "ws://h/v1/realtime?model=x"),
        ("wss://h/elsewhere/v1/realtime", "wss://h/elsewhere/v1/realtime"),
    ],
)
def test_addresses_as_people_write_them(given: str, full: str) -> None:
    assert address(given, "m") == full


async def test_what_cannot_be_reached_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ClientError, match="Is the server running") as caught:
        await RealtimeClient(f"127.0.0.1:{port}").__aenter__()
    assert (caught.value.code, caught.value.retryable) == ("unreachable", True)
    with pytest.raises(ClientError, match="Cannot use the certificate") as caught:
        await RealtimeClient("wss://127.0.0.1:1", ca=tmp_path / "none.pem").__aenter__()
    assert caught.value.code == "invalid_certificate"
    async with serving() as site:
        with pytest.raises(ClientError, match=r"\(404\)") as caught:
            await RealtimeClient(f"ws://127.0.0.1:{site.port}/v1/nothing").__aenter__()


async def test_a_certificate_of_the_servers_own(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    engine = FakeEngine(Script(speech_ids=5))
    await engine.start()
    server = Server(Config(server=ServerConfig(port=0, tls_cert=str(cert), tls_key=str(key))), engine)
    url = f"https://127.0.0.1:{(await server.start())[1]}"
    try:
        async with RealtimeClient(url, ca=cert) as client:
            assert (await client.ask_text("hello")).said == "You said: hello"
        with pytest.raises(ClientError, match=r"--ca FILE\.pem") as caught:
            await RealtimeClient(url).__aenter__()
        assert (caught.value.code, caught.value.retryable) == ("untrusted_certificate", False)
    finally:
        await server.stop()
        await engine.stop()


async def test_not_connected_is_a_clear_error() -> None:
    with pytest.raises(ClientError, match="async with"):
        await RealtimeClient("h").send("response.create")


# --- connections that break ---------------------------------------------------------------------------------------

Handler = Callable[[ServerConnection, int], Awaitable[None]]


@asynccontextmanager
async def broken(handler: Handler) -> AsyncIterator[str]:
    """A server that greets, takes settings, and leaves the rest to the handler, which gets the connection's number."""
    number = 0

    async def greet(connection: ServerConnection) -> None:
        nonlocal number
        number += 1
        session = {"id": f"sess_{number}", "audio": {"input": {"turn_detection": None}}}
        await connection.send(json.dumps({"type": "session.created", "session": session}))
        await handler(connection, number)

    async with serve(greet, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"127.0.0.1:{port}"


async def collect(client: RealtimeClient, until: type) -> list[Any]:
    seen = []
    async with asyncio.timeout(PATIENCE_S):
        async for event in client.stream():
            seen.append(event)
            if isinstance(event, until):
                break
    return seen


async def test_a_lost_line_costs_nothing_of_the_session() -> None:
    async def late(_: dict[str, Any]) -> str:
        between.reset()
        await asyncio.sleep(0.05)
        return "ten past ten"

    tool = Tool("get_time", "The time", late)
    async with (
        serving(Script(speech_ids=50)) as site,
        network(site.port) as between,
        RealtimeClient(f"127.0.0.1:{between.port}", tools=[tool], backoff=AT_ONCE) as client,
    ):
        await client.update(audio={"input": {"turn_detection": None}}, output_lead_ms=200)
        await client.say("hello")
        events: list[Event] = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in client.stream():
                events.append(event)
                if isinstance(event, Sound) and len(events) < 15:
                    between.reset()
                if isinstance(event, Done):
                    break
        again = [event for event in events if isinstance(event, Reconnected)]
        assert again
        assert all(event.resumed for event in again)
        samples = np.concatenate([event.samples for event in events if isinstance(event, Sound)])
        assert np.array_equal(samples, numbered(session=1, turn=1, start=0, count=50 * TOKEN_SAMPLES))
        await client.say("use get_time")  # its result is owed to the session while the line is down
        said = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in client.stream():
                if isinstance(event, Said) and event.final:
                    said.append(event.text)
                if isinstance(event, Done) and not event.calls:
                    break
        assert "ten past ten" in said[-1]
        assert len(site.engine.sessions) == 1


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013])
async def test_a_connection_that_may_come_back_does(code: int) -> None:
    async def handler(connection: ServerConnection, number: int) -> None:
        if number > 1:
            await connection.wait_closed()
        elif code == 1006:
            connection.transport.abort()
        elif code == 1005:
            async with connection.send_context():
                connection.protocol.send_close()  # without a code
        else:
            await connection.close(code, "away for a moment")

    async with broken(handler) as url, RealtimeClient(url, backoff=AT_ONCE) as client:
        (again,) = await collect(client, Reconnected)
        assert str(code) in again.reason
        assert client.session["id"] == "sess_2"


@pytest.mark.parametrize("code", [1000, 1002, 1008, 4000])
async def test_a_connection_that_was_ended_stays_ended(code: int) -> None:
    async def handler(connection: ServerConnection, number: int) -> None:
        await connection.close(code, "that is it")

    async with broken(handler) as url, RealtimeClient(url, backoff=AT_ONCE) as client:
        with pytest.raises(ClientError, match=rf"{code}, that is it") as caught:
            await collect(client, Reconnected)
        assert caught.value.code == "connection_closed"


async def test_settings_and_words_come_along() -> None:
    seen: list[dict[str, Any]] = []

    async def handler(connection: ServerConnection, number: int) -> None:
        if number == 1:
            seen.append(json.loads(await connection.recv()))
            shown = {"id": "sess_1", "audio": {"input": {}}}
            await connection.send(json.dumps({"type": "session.updated", "session": shown}))
            for raw in spoken():
                await connection.send(json.dumps(raw))
            await connection.close(1012)
            return
        seen.append(json.loads(await connection.recv()))
        await connection.send(json.dumps({"type": "session.updated", "session": {"id": "again"}}))
        async for message in connection:
            seen.append(json.loads(message))
            if len(seen) == 4:
                await connection.send(json.dumps({"type": "output_audio_buffer.cleared"}))

    async with broken(handler) as url, RealtimeClient(url, backoff=AT_ONCE) as client:
        await client.update(voice="marin", audio={"output": {"speed": 1.5}})
        events = await collect(client, Interrupted)
        assert [type(event) for event in events if not isinstance(event, Other)] == [
            Said,
            Heard,
            Reconnected,
            Interrupted,
        ]
    first, second, *items = seen
    assert second == first
    assert first["session"] == {"type": "realtime", "voice": "marin", "audio": {"output": {"speed": 1.5}}}
    told = [(entry["item"]["role"], entry["item"]["content"]) for entry in items]
    assert told == [
        ("user", [{"type": "input_text", "text": "do you have a pool"}]),
        ("assistant", [{"type": "output_text", "text": "yes, on the roof."}]),
    ]


def spoken() -> list[dict[str, Any]]:
    """A question whose words come after those of its answer."""
    question = {"id": "q", "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
    reply = {"id": "r", "type": "message", "role": "assistant", "content": []}
    heard = {"item_id": "q", "transcript": "do you have a pool"}
    said = {"item_id": "r", "response_id": "x", "transcript": "yes, on the roof."}
    return [
        {"type": "conversation.item.added", "item": question},
        {"type": "conversation.item.added", "item": reply},
        {"type": "response.output_audio_transcript.done", **said},
        {"type": "conversation.item.input_audio_transcription.completed", **heard},
    ]


async def test_words_that_cannot_be_written_down_are_not_waited_for() -> None:
    script = Script(speech_ids=5, transcript="!fail")
    async with serving(script) as site, RealtimeClient(f"127.0.0.1:{site.port}") as client:
        answer = await client.ask_file(QUESTION)
    assert (answer.heard, len(answer.samples)) == ("", 5 * TOKEN_SAMPLES)


async def test_it_gives_up_after_its_attempts() -> None:
    async def handler(connection: ServerConnection, number: int) -> None:
        connection.transport.abort()

    async with broken(handler) as url:
        client = await RealtimeClient(url, backoff=AT_ONCE).__aenter__()
    try:
        with pytest.raises(ClientError, match="Cannot connect") as caught:
            await collect(client, Reconnected)
        assert caught.value.code == "unreachable"
        await client.send_microphone(np.zeros(960, np.int16))  # nobody hears it
    finally:
        await client.__aexit__(None, None, None)


async def test_a_server_that_was_started_again() -> None:
    async with serving(Script(speech_ids=5)) as site:
        port = site.port
        client = await RealtimeClient(site.ws, backoff=AT_ONCE).__aenter__()
        await client.update(instructions="Be brief.")
        await client.ask_text("one")
    try:
        async with serving(Script(speech_ids=5), port=port) as site:
            again = (await collect(client, Reconnected))[-1]
            assert "1012" in again.reason
            assert client.session["instructions"] == "Be brief."
            assert (await client.ask_text("two")).said == "You said: two"
    finally:
        await client.__aexit__(None, None, None)


def test_waits_double_with_a_part_left_to_chance() -> None:
    backoff = Backoff(first_s=1.0, most_s=5.0, jitter=0.5)
    assert backoff.wait_s(0) == 0.0
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)):
        waits = [backoff.wait_s(attempt) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1
    assert Backoff(first_s=1.0, jitter=0.0).wait_s(3) == 4.0


# --- events -------------------------------------------------------------------------------------------------------


def test_what_messages_mean() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
    strange = {"type": "function_call", "call_id": "d", "name": "g", "arguments": "one, two"}
    failed = {
        "id": "x",
        "status": "failed",
        "output": [],
        "status_details": {"error": {"code": "kv_full", "message": "No room."}},
    }
    assert decode({"type": "input_audio_buffer.speech_started", "audio_start_ms": 7}) == SpeechStarted(7)
    assert decode({"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 9}) == SpeechStopped(9)
    assert decode({"type": "response.thought.delta", "delta": "hm"}) == Thought("hm")
    done = decode(
        {"type": "response.done", "response": {"id": "x", "status": "completed", "output": [call, strange]}}
    )
    assert isinstance(done, Done)
    assert [(one.name, one.arguments) for one in done.calls] == [("f", {"a": 1}), ("g", {"text": "one, two"})]
    assert decode({"type": "response.done", "response": failed}) == Done(
        "x", "failed", (), ("kv_full", "No room.")
    )
    item = {"type": "function_call_output", "call_id": "c", "output": "ok"}
    assert decode({"type": "conversation.item.added", "item": item}) == ToolResult("c", "ok")
    error = {"type": "error", "error": {"message": "no", "param": "p"}}
    assert decode(error) == Failed("server_error", "no", "p")
    assert decode({"type": "rate_limits.updated"}) == Other({"type": "rate_limits.updated"})


def test_a_long_conversation_is_remembered_from_its_end() -> None:
    memory = Memory()
    for i in range(TURNS + 5):
        content = [{"type": "input_text", "text": f"word {i}"}]
        item = {"id": str(i), "type": "message", "role": "user", "content": content}
        memory.take({"type": "conversation.item.added", "item": item})
    memory.take({"type": "conversation.item.deleted", "item_id": str(TURNS + 4)})
    texts = [item["content"][0]["text"] for item in memory.forget()]
    assert texts == [f"word {i}" for i in range(5, TURNS + 4)]
    assert memory.forget() == []
