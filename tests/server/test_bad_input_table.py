"""Every row of the tables of errors and of close codes in PROTOCOL.md and LIVE.md, over a real socket."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from raw_socket import BINARY, UPGRADE, RawSocket, frame, request
from server_helpers import Site, serving, tight

from voiceagent.config import LimitsConfig
from voiceagent.core.asides import MAX_ASIDES
from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine

sys.path.append(str(Path(__file__).resolve().parent.parent / "wire"))  # what the pages say

from fuzz_play import LIVE_CODES, documented

KEY = "sk-right"
QUICK = Script(speech_ids=5)
ODD = base64.b64encode(b"abc").decode()
TOOL = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
Event = dict[str, Any]


def update(**session: Any) -> Event:
    return {"type": "session.update", "session": session}


def item(**fields: Any) -> Event:
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "user", **fields}}


def respond(**fields: Any) -> Event:
    return {"type": "response.create", "response": fields}


HELLO = item(id="mine", content=[{"type": "input_text", "text": "hello"}])
REALTIME: dict[str, list[Event | str | bytes]] = {
    "invalid_json": ["{"],
    "invalid_message": [b"\x00"],
    "message_too_deep": ['{"type": "session.update", "session": ' + '{"a":' * 100 + "1" + "}" * 101],
    "message_too_complex": ['{"type": "session.update", "session": {"tools": [' + "{}," * 50_001 + "{}]}}"],
    "unknown_event_type": [{"type": "session.destroy"}],
    "missing_required_parameter": [{"type": "conversation.item.delete"}],
    "invalid_value": [update(temperature=9)],
    "invalid_request_error": [item(role="king", content=[])],
    "invalid_base64": [{"type": "input_audio_buffer.append", "audio": "@@@@"}],
    "odd_audio_length": [{"type": "input_audio_buffer.append", "audio": ODD}],
    "empty_audio": [item(content=[{"type": "input_audio", "audio": ""}])],
    "unsupported_rate": [update(audio={"input": {"format": {"type": "audio/pcm", "rate": 16_000}}})],
    "unsupported_tool": [update(tools=[{"type": "web_search"}])],
    "unsupported_item": [item(type="mcp_call")],
    "unsupported_content": [item(content=[{"type": "input_image"}])],
    "unsupported_session_type": [update(type="transcription")],
    "think_unavailable": [respond(think="on")],
    "input_audio_buffer_commit_empty": [{"type": "input_audio_buffer.commit"}],
    "item_create_duplicate_item_id": [HELLO, HELLO],
    "item_create_invalid_previous_item_id": [{**HELLO, "previous_item_id": "nobody"}],
    "item_delete_invalid_item_id": [{"type": "conversation.item.delete", "item_id": "nobody"}],
    "item_retrieve_invalid_item_id": [{"type": "conversation.item.retrieve", "item_id": "nobody"}],
    "item_truncate_invalid_item_id": [
        {"type": "conversation.item.truncate", "item_id": "nobody", "content_index": 0, "audio_end_ms": 5}
    ],
    "item_reference_invalid_item_id": [respond(input=[{"type": "item_reference", "id": "nobody"}])],
    "response_cancel_not_active": [{"type": "response.cancel", "response_id": "resp_nobody"}],
    "conversation_already_has_active_response": [respond(), respond()],
    "too_many_active_responses": [respond(conversation="none")] * (MAX_ASIDES + 1),
}
START: Event = {"type": "session.start", "session": {"model": "m"}}
CLIENT = {"model": "m", "delegation": {"type": "client"}}
RESPONSES = {"model": "m", "delegation": {"type": "responses", "responses": {"model": "m", "tools": [TOOL]}}}
FIXTURE: Event = {"type": "session.output_audio.fixture.play", "audio": "AAAA" * 8000}
SAY: Event = {"type": "session.commentary.append", "content": "x", "delegation_id": None}
LIVE: dict[str, list[Event | str | bytes]] = {
    "session_not_started": [{"type": "session.input_audio.append", "audio": ""}],
    "session_already_started": [START, START],
    "unknown_parameter": [{**START, "wrong": 1}],
    "unsupported_parameter": [{"type": "session.start", "session": {"model": "m", "store": True}}],
    "immutable_parameter": [{**START, "session": CLIENT}, update(delegation={"type": "responses"})],
    "input_too_long": [
        {"type": "session.start", "session": {"model": "m", "input": [
            {"role": "user", "content": [{"text": "x" * 40_000}]}
        ]}}
    ],
    "unknown_delegation": [{**START, "session": CLIENT}, {**SAY, "delegation_id": "deleg_none"}],
    "delegation_not_allowed": [{**START, "session": RESPONSES}, {**SAY, "delegation_id": "deleg_none"}],
    "responses_delegation_required": [START, {"type": "response.create"}],
    "unknown_call": [
        {**START, "session": RESPONSES},
        {"type": "response.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": ""}},
    ],
    "invalid_fixture": [START, {**FIXTURE, "audio": ODD}],
    "fixture_active": [START, FIXTURE, FIXTURE],
    "invalid_base64": [START, {"type": "session.input_audio.append", "audio": "@@@@"}],
    "odd_audio_length": [START, {"type": "session.input_audio.append", "audio": ODD}],
    "unsupported_tool": [{"type": "session.start", "session": {"model": "m", "delegation": {
        "type": "responses", "responses": {"model": "m", "tools": [{"type": "mcp"}]}}}}],
    "unsupported_item": [{**START, "session": RESPONSES}, {"type": "response.item.create", "item": {"type": "mcp"}}],
}  # fmt: skip
TESTED_BY_OTHERS = {
    "too_many_messages",  # test_door.py
    "internal_error",  # test_bad_input.py
    "engine_down", "engine_error", "overloaded",  # test_engine_loss.py, test_app.py
    "response_not_available",  # below: another kind of session
    "call_not_found", "unsupported_value", "unreadable_audio", "invalid_content_type", "invalid_form", "file_too_large",
    "upgrade_required", "invalid_api_key", "forbidden_origin", "forbidden_host",  # of requests
    "recording_not_found", "recording_unavailable", "custom_voices_off", "model_not_found",  # by their status
}  # fmt: skip


async def error_of(site: Site, path: str, frames: list[Event | str | bytes]) -> Event:
    """The error that these messages bring; a good message is answered behind it."""
    line = await RawSocket.upgraded(site.port, path)
    try:
        for given in frames:
            if isinstance(given, bytes):
                line.send(frame(given, opcode=BINARY))
            else:
                line.send(frame((given if isinstance(given, str) else json.dumps(given)).encode()))
        found: Event = {}
        async with asyncio.timeout(20):
            while not found:
                got = await line.receive()
                assert got is not None
                event = json.loads(got[1])
                found = event["error"] if event["type"] == "error" else {}
            live = path.startswith("/v1/live")
            last = (
                {"type": "session.destroy"}
                if live
                else {"type": "conversation.item.retrieve", "item_id": "x"}
            )
            line.say(event_id="last", **last)
            while True:
                got = await line.receive()
                assert got is not None, "the session did not go on"
                if b'"last"' in got[1]:
                    return found
    finally:
        await line.gone()


@pytest.mark.parametrize("code", REALTIME)
async def test_a_row_of_the_realtime_table(code: str) -> None:
    async with serving(QUICK) as site:
        error = await error_of(site, "/v1/realtime", REALTIME[code])
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("code", LIVE)
async def test_a_row_of_the_live_table(code: str) -> None:
    async with serving(QUICK) as site:
        error = await error_of(site, "/v1/live/sessions", LIVE[code])
    assert error["code"] == code


async def test_a_session_that_only_writes_down_gives_no_responses() -> None:
    async with serving(QUICK) as site:
        error = await error_of(site, "/v1/realtime?intent=transcription", [respond()])
    assert error["code"] == "response_not_available"


def test_every_row_is_tested() -> None:
    """Codes of other features are named with their tests, wherever these are."""
    tests = Path(__file__).resolve().parent.parent
    texts = " ".join(
        path.read_text(encoding="utf-8")
        for path in tests.rglob("test_*.py")
        if path.name not in ("test_fuzz.py", Path(__file__).name)
    )
    rest = (documented("PROTOCOL.md") | documented("LIVE.md")) - set(REALTIME) - set(LIVE) - TESTED_BY_OTHERS
    assert not {code for code in rest if code not in texts}, (
        "a row without a test: write one that names its code"
    )
    assert set(REALTIME) | set(LIVE) <= LIVE_CODES


# --- how a connection ends --------------------------------------------------------------------------------------------


async def close_code(site: Site, data: bytes, *, path: str = "/v1/realtime") -> int | None:
    line = await RawSocket.upgraded(site.port, path)
    try:
        line.send(data)
        async with asyncio.timeout(20):
            code, _ = await line.until_closed()
        return code
    finally:
        await line.gone()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame((1000).to_bytes(2, "big"), opcode=8), 1000),
        (frame(b"{}", reserved=4), 1002),  # compressed, which was not agreed upon
        (frame(b"{}", opcode=3), 1002),
        (frame(b"x" * 126, opcode=9), 1002),
        (frame(b"\xff"), 1007),
        (frame(b"x" * (1 << 16)), 1009),
        (b"\x81\xff" + (2**62).to_bytes(8, "big"), 1009),  # said, not sent
    ],
)
async def test_a_row_of_the_close_codes(data: bytes, code: int) -> None:
    async with serving(QUICK, limits=tight(message_bytes=1 << 16)) as site:
        assert await close_code(site, data) == code


async def test_a_session_that_lasts_too_long_is_closed_with_1008() -> None:
    async with serving(QUICK, limits=LimitsConfig(session_s=0.2)) as site:
        assert await close_code(site, b"") == 1008
        line = await RawSocket.upgraded(site.port, "/v1/live/sessions")
        line.say(**START)
        code, events = await line.until_closed()
        assert (code, events[-1]["type"], events[-1]["reason"]) == (1008, "session.closed", "expired")
        await line.gone()


async def test_a_server_that_stops_closes_with_1012() -> None:
    async with serving(QUICK) as site:
        line = await RawSocket.upgraded(site.port)
        stopping = asyncio.create_task(site.server._calls.stop())
        code, _ = await line.until_closed()
        assert code == 1012
        await line.gone()
        await stopping


async def test_before_a_call_the_answer_is_a_status() -> None:
    """A key that is none, a page that is foreign, no session free: each with its code and, if waiting helps, a time."""
    engine = FakeEngine(QUICK, max_sessions=1)
    await engine.start()
    try:
        async with serving(engine, keys=(KEY,)) as site:
            right = {"Authorization": f"Bearer {KEY}"}
            line = await RawSocket.upgraded(site.port, headers=right)
            for headers, status, code in (
                ({}, 401, "invalid_api_key"),
                ({"Authorization": "Bearer ek_forged"}, 401, "invalid_api_key"),
                (right | {"Origin": "https://evil.example"}, 403, "forbidden_origin"),
                (right | {"Host": "evil.example"}, 403, "forbidden_host"),
                (right, 503, "overloaded"),
            ):
                other = await RawSocket.open(site.port)
                other.send(request("/v1/realtime", UPGRADE | headers))
                head = await other.reader.readuntil(b"\r\n\r\n")
                body = json.loads(await other.reader.read())
                assert (int(head.split()[1]), body["error"]["code"]) == (status, code)
                assert (b"Retry-After" in head) is (status == 503)
                await other.gone()
            await line.gone()
    finally:
        await engine.stop()
