"""Bounds on what one socket may make the server do: handshakes, frames, fragments, pings, messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
from raw_socket import PING, PONG, RawSocket, fragments, frame
from server_helpers import calling, check_numbers, eventually, serving, tight

from voiceagent.engine.fake import Script
from voiceagent.server import door
from voiceagent.server.connection import Connection
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire import budget

QUICK = Script(speech_ids=10)
WHOLE = 10 * TOKEN_SAMPLES
SLOW = tight(messages_per_s=200.0, message_burst=20)
APPEND = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 1280}).encode()


async def pour(line: RawSocket, data: bytes) -> None:
    """Sends without end, as fast as it is taken."""
    with contextlib.suppress(ConnectionError):
        while not line.writer.transport.is_closing():
            line.send(data)
            await line.writer.drain()


async def end_of(line: RawSocket, data: bytes) -> tuple[int | None, list[str]]:
    """Pours until the server has enough: its close code (None: cut), and the codes of its errors."""
    pouring = asyncio.create_task(pour(line, data))
    try:
        async with asyncio.timeout(20):
            code, events = await line.until_closed()
    finally:
        pouring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pouring
        await line.gone()
    return code, [event["error"]["code"] for event in events if event["type"] == "error"]


@pytest.mark.parametrize(
    "flood",
    [
        frame(b"{}") * 50,
        frame(b"", opcode=PING) * 50,
        frame(b"", opcode=PONG) * 50,
        frame(b"\x00", opcode=2) * 50,
    ],
    ids=["tiny messages", "pings", "pongs", "bytes"],
)
async def test_a_flood_of_small_messages_is_closed_with_1008(
    flood: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "FLOOD_S", 0.4)
    async with serving(QUICK, limits=SLOW) as site, calling(site) as good:
        await good.manual()
        code, errors = await end_of(await RawSocket.upgraded(site.port), flood)
        assert (code, errors[-1]) == (1008, "too_many_messages")
        check_numbers(await good.ask("hello"), session=1, whole=WHOLE)
        await eventually(lambda: len(site.engine.sessions) == 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_flood_of_audio_is_read_slowly_and_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file: 20 times over the budget for 10 times as long as makes a flood."""
    monkeypatch.setattr(budget, "FLOOD_S", 0.05)
    async with serving(QUICK, limits=SLOW) as site:
        line = await RawSocket.upgraded(site.port)
        for _ in range(120):
            line.send(frame(APPEND))
        line.say(type="output_audio_buffer.clear")
        line.say(type="conversation.item.retrieve", event_id="last", item_id="none")
        while True:
            got = await line.receive()
            assert got is not None
            if json.loads(got[1])["type"] == "error":
                break
        assert json.loads(got[1])["error"]["event_id"] == "last"
        assert (
            sum(count for _, count in site.engine.sessions[1].heard) > 120 * 320 - 320
        )  # the filter holds a little
        await line.gone()


async def test_a_message_in_endless_fragments_is_cut() -> None:
    async with serving(QUICK, limits=tight(message_bytes=1 << 16)) as site, calling(site) as good:
        await good.manual()
        line = await RawSocket.upgraded(site.port)
        line.send(frame(b"{", fin=False))
        code, errors = await end_of(line, frame(b"", opcode=0, fin=False) * 1000)
        assert (code, errors) == (None, [])
        check_numbers(await good.ask("hello"), session=1, whole=WHOLE)


async def test_messages_in_a_thousand_fragments_each_count_like_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FLOOD_S", 0.4)
    async with serving(QUICK) as site:
        line = await RawSocket.upgraded(site.port)
        code, errors = await end_of(line, fragments(b"{}", [0] * 1000))
        assert code in (1008, None)  # cut, if more came at once than waits to be read
        assert len(errors) < 3000


async def test_ordinary_fragments_and_pings_are_as_good_as_whole_messages() -> None:
    async with serving(QUICK) as site:
        line = await RawSocket.upgraded(site.port)
        text = json.dumps(
            {"type": "session.update", "session": {"instructions": "é" * 1000}}, ensure_ascii=False
        )
        parts = fragments(text.encode(), [1, 0, 700])
        line.send(parts[:7] + frame(b"are you there", opcode=PING) + parts[7:])
        seen = []
        while len(seen) < 3:
            got = await line.receive()
            assert got is not None
            seen.append((got[0], got[1] if got[0] == PONG else json.loads(got[1])["type"]))
        assert seen == [(1, "session.created"), (PONG, b"are you there"), (1, "session.updated")]
        await line.gone()


async def test_who_is_silent_is_pinged_and_who_does_not_answer_is_cut() -> None:
    async with serving(QUICK, ping_s=1.0) as site, calling(site) as good:  # whose library answers pings
        line = await RawSocket.upgraded(site.port)
        assert (await line.receive() or (0, b""))[0] == 1  # session.created
        assert await line.receive() == (PING, b"")
        line.send(frame(b"", opcode=PONG))
        assert await line.receive() == (PING, b"")
        line.send(frame(b"{}")[:3])  # half a frame is an answer too
        assert await line.receive() == (PING, b"")
        assert await line.receive() is None
        await good.manual()
        check_numbers(await good.ask("hello"), session=1, whole=WHOLE)
        await line.gone()


async def test_with_many_that_wait_the_oldest_is_cut_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST_WAITING", 4)
    monkeypatch.setattr(door, "HURRY_S", 0.0)
    async with serving(QUICK, handshake_s=30.0) as site:
        dripping = [await RawSocket.open(site.port) for _ in range(4)]
        await eventually(lambda: len(site.server._doors) == 4)
        async with calling(site) as good:
            await good.manual()
            assert await dripping[0].receive() is None
            for line in dripping:
                await line.gone()
            await eventually(lambda: len(site.server._doors) == 0)
            check_numbers(await good.ask("hello"), session=1, whole=WHOLE)


async def test_what_waits_for_a_slow_reader_is_bounded_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A minute of unpaced audio is there at once: it waits where an interruption could drop it, not in the outbox."""
    script = Script(speech_ids=25 * 60, chunk_ids=25)
    most, send = [0], Connection.send

    def watched(self: Connection, data: str | bytes) -> None:
        send(self, data)
        most[0] = max(most[0], self._outbox_bytes)

    monkeypatch.setattr(Connection, "send", watched)
    async with serving(script) as site, calling(site) as slow, calling(site) as good:
        await slow.manual(lead_ms=None)
        slow.socket.transport.pause_reading()
        await slow.say("hello")
        await eventually(lambda: not site.engine._tasks and len(site.engine.sessions[1].actions) > 0)
        for _ in range(20):  # the server sends what the kernel takes
            await asyncio.sleep(0.01)
        slow.socket.transport.resume_reading()
        await slow.until("response.done")
        (heard,) = slow.responses.values()
        check_numbers(heard, session=1, whole=script.speech_ids * TOKEN_SAMPLES)
        await good.manual()
    assert 100_000 < most[0] < 640_000


class Inner(asyncio.Protocol):
    """Notes what it is given."""

    def __init__(self) -> None:
        self.got: list[bytes | str] = []

    def data_received(self, data: bytes) -> None:
        if data == b"bad":
            raise RuntimeError("a bug")
        self.got.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.got.append("lost")


async def test_what_comes_just_behind_other_data_goes_in_with_the_next_tide_and_in_order(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "TIDE_S", 0.5)
    doors = door.Doors(10.0)
    inner = [Inner() for _ in range(5)]
    first, second, third, fourth, fifth = (doors.open(each) for each in inner)
    first.data_received(b"1")  # nothing came before it
    second.data_received(b"2")
    second.data_received(b"3")
    third.data_received(b"4")
    fourth.data_received(b"bad")
    fifth.data_received(b"5")
    assert [each.got for each in inner] == [[b"1"], [], [], [], []]
    second.connection_lost(None)
    third.data_received(b"6" * door.READ_BYTES)  # too much to wait
    assert inner[1].got == [b"23", "lost"]
    assert inner[2].got == [b"4" + b"6" * door.READ_BYTES]
    await eventually(lambda: inner[4].got == [b"5"])
    assert "could not be taken" in caplog.text
