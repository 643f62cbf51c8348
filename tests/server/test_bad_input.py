"""What a peer may do to us: nonsense, floods, silence. It is told so in-band, and no other call notices."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from server_helpers import Event, Heard, Site, calling, check_numbers, eventually, serving, tight
from websockets.exceptions import ConnectionClosed

from voiceagent.core.controller import Controller
from voiceagent.engine.fake import Script, numbered
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire.realtime import RealtimeDialect

QUICK = Script(speech_ids=10)
WHOLE = 10 * TOKEN_SAMPLES


def message(**fields: object) -> str:
    return json.dumps(fields)


def item(*content: object, role: str = "user", **fields: object) -> str:
    return message(
        type="conversation.item.create",
        item={"type": "message", "role": role, "content": list(content), **fields},
    )


BAD = {
    "binary": b"\x00\x01",
    "empty": "",
    "not JSON": "{",
    "no object": "[1, 2]",
    "number": "3",
    "null": "null",
    "NaN": '{"type": NaN}',
    "deep": "[" * 100_000,
    "deep value": '{"type": "session.update", "session": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
    "no type": "{}",
    "null type": message(type=None),
    "unknown type": message(type="session.destroy", event_id="e1"),
    "long event id": message(type="response.create", event_id="x" * 10_000),
    "odd PCM": message(type="input_audio_buffer.append", audio=base64.b64encode(b"abc").decode()),
    "bad base64": message(type="input_audio_buffer.append", audio="@@@@"),
    "torn base64": message(type="input_audio_buffer.append", audio="AAA"),
    "audio of another type": message(type="input_audio_buffer.append", audio=[1, 2, 3]),
    "no audio": message(type="input_audio_buffer.append"),
    "commit of nothing": message(type="input_audio_buffer.commit"),
    "cancel of nothing": message(type="response.cancel"),
    "unknown item": message(type="conversation.item.delete", item_id="nobody"),
    "unknown item, retrieved": message(type="conversation.item.retrieve", item_id="nobody"),
    "negative truncation": message(
        type="conversation.item.truncate", item_id="x", content_index=0, audio_end_ms=-1
    ),
    "huge number": message(
        type="conversation.item.truncate", item_id="x", content_index=0, audio_end_ms=10**40
    ),
    "image": item({"type": "input_image", "image_url": "data:x"}),
    "unknown role": item({"type": "input_text", "text": "x"}, role="king"),
    "no session": message(type="session.update"),
    "bad format": message(
        type="session.update",
        session={"type": "realtime", "audio": {"input": {"format": {"type": "audio/mp3"}}}},
    ),
    "bad threshold": message(
        type="session.update",
        session={
            "type": "realtime",
            "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}},
        },
    ),
    "no modality": message(type="response.create", response={"output_modalities": []}),
    "unknown reference": message(
        type="response.create", response={"input": [{"type": "item_reference", "id": "nobody"}]}
    ),
    "result without a call id": message(
        type="conversation.item.create", item={"type": "function_call_output", "output": "x"}
    ),
}


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
async def test_a_bad_message_is_answered_and_the_call_goes_on(
    frame: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(QUICK) as site, calling(site) as caller:
        await caller.manual()
        await caller.socket.send(frame)
        error = (await caller.until("error"))["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"]
        assert "Traceback" not in error["message"]
        assert len(error["message"]) < 1000
        if isinstance(frame, str) and '"event_id": "e1"' in frame:
            assert error["event_id"] == "e1"
        heard = await caller.ask("hello")
        check_numbers(heard, session=1, whole=WHOLE)
        assert heard.status == "completed"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_text_that_is_no_unicode_does_not_end_the_call() -> None:
    """Half a surrogate pair is legal JSON; it reaches the engine as something that can be encoded."""
    frame = item({"type": "input_text", "text": "\ud800"})
    async with serving(QUICK) as site, calling(site) as caller:
        await caller.manual()
        await caller.socket.send(frame)
        await caller.until("error", "conversation.item.done")
        assert (await caller.ask("hello")).status == "completed"


# --- size -----------------------------------------------------------------------------------------------------------


async def test_a_frame_of_20_mb_closes_only_its_own_call() -> None:
    async with serving(QUICK) as site, calling(site) as good:
        await good.manual()
        async with calling(site) as bad:
            with contextlib.suppress(ConnectionClosed):
                await bad.socket.send("x" * (20 << 20))
            closed = await bad.closed()
            assert closed is None or closed[0] == 1009  # None: it was still sending when the line was cut
        assert (await good.ask("hello")).status == "completed"


async def test_a_frame_just_over_the_limit_is_told_1009() -> None:
    async with serving(limits=tight(message_bytes=1 << 16)) as site, calling(site) as bad:
        await bad.socket.send("x" * ((1 << 16) + 1))
        closed = await bad.closed()
        assert closed is not None
        assert closed[0] == 1009


# --- floods and silence ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def lag() -> AsyncIterator[list[float]]:
    """How late the event loop wakes up, sampled each 10 ms."""
    late: list[float] = []

    async def watch() -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + 0.01
            await asyncio.sleep(0.01)
            late.append(clock() - due)

    task = asyncio.create_task(watch())
    try:
        yield late
    finally:
        task.cancel()


def flood(peer: socket.socket, frame: bytes) -> None:
    """Sends as fast as the kernel takes it, from a thread, until the line is shut; reads nothing."""
    many = frame * max(1, 65_536 // len(frame))
    with contextlib.suppress(OSError):
        while True:
            peer.sendall(many)


@pytest.mark.parametrize(
    "frame",
    ["{}", message(type="input_audio_buffer.append", audio="A" * 40_000)],
    ids=["tiny messages", "audio"],
)
async def test_a_flooder_disturbs_nobody(frame: str) -> None:
    """It is read slowly; good calls stay whole, and the loop never stands still (20 times its usual lag is allowed)."""
    async with serving(QUICK) as site, calling(site) as good:
        await good.manual()
        _, writer = await deaf_client(site)
        peer = writer.get_extra_info("socket").dup()
        peer.setblocking(True)
        flooding = asyncio.create_task(asyncio.to_thread(flood, peer, masked(frame.encode())))
        try:
            async with lag() as late:
                for n in range(20):
                    check_numbers(await good.ask(f"question {n}"), session=1, whole=WHOLE)
                    await asyncio.sleep(0.05)
            assert max(late) < 1.0
        finally:
            peer.shutdown(socket.SHUT_RDWR)
            await flooding
            peer.close()
            writer.transport.abort()


async def test_a_client_that_does_not_read_is_cut_off_and_nobody_else() -> None:
    script = Script(speech_ids=25 * 120)  # two minutes: 7.7 MB on the wire
    async with serving(script, limits=tight(slow_consumer_s=0.5)) as site, calling(site) as good:
        await good.manual()
        _, writer = await deaf_client(site)
        await eventually(lambda: len(site.engine.sessions) == 2)
        await eventually(lambda: set(site.engine.sessions) == {1})  # its slot is free again
        heard = await good.ask("hello")
        check_numbers(heard, session=1, whole=script.speech_ids * TOKEN_SAMPLES)
        writer.transport.abort()


async def deaf_client(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Asks for a long answer as fast as it comes, and never reads."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1024)
    head = [
        "GET /v1/realtime HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "",
    ]  # fmt: skip
    writer.write("\r\n".join(head).encode())
    await reader.readuntil(b"\r\n\r\n")
    for event in (
        message(type="session.update", session={"type": "realtime", "output_lead_ms": None}),
        message(type="response.create"),
    ):
        writer.write(masked(event.encode()))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A text frame of a client; a mask of zeros is a mask."""
    assert len(payload) < 1 << 16
    size = (
        bytes([0x80 | len(payload)])
        if len(payload) < 126
        else bytes([0xFE]) + len(payload).to_bytes(2, "big")
    )
    return b"\x81" + size + bytes(4) + payload


# --- faults of ours ---------------------------------------------------------------------------------------------------


def broken(*_: object, **__: object) -> list[object]:
    raise ZeroDivisionError("secret of ours")


@pytest.mark.parametrize(
    ("owner", "method"),
    [(Controller, "handle"), (Controller, "handle_timeout"), (RealtimeDialect, "_dispatch")],
)
async def test_a_bug_of_ours_ends_its_own_call_only(
    owner: type, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told in-band, without our internals, and closed with 1011; the log has one traceback."""
    async with serving(QUICK) as site, calling(site) as good, calling(site) as bad:
        await good.manual()
        await bad.manual(lead_ms=40)
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, broken)
            await bad.send("response.create")
            if method == "handle_timeout":
                patched.undo()
                await bad.until("response.output_audio.delta")
                patched.setattr(owner, method, broken)
            error: Event = (await bad.until("error"))["error"]
        assert (error["type"], error["code"]) == ("server_error", "internal_error")
        assert "secret" not in json.dumps(error)
        assert await bad.closed() == (1011, "internal error")
        assert (await good.ask("hello")).status == "completed"
        assert set(site.engine.sessions) == {1}
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_failing_turn_is_told_and_the_next_one_works() -> None:
    async with serving(QUICK) as site, calling(site) as caller:
        await caller.manual()
        failed = await caller.ask("!fail")
        assert (failed.status, failed.error) == ("failed", "fake_fault")
        assert (await caller.ask("hello")).status == "completed"


async def test_an_odd_peer_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Resets, half frames and broken frames: each ends its own call, quietly."""
    endings = [b"", b"\x81", b"\x81\xfe\xff", b"\xf1\x80\x00\x00\x00\x00", b"\x81\x81\x00\x00\x00\x00\xff"]
    async with serving(QUICK) as site, calling(site) as good:
        await good.manual()
        for ending in endings:
            reader, writer = await deaf_client(site)
            writer.write(ending)
            await asyncio.sleep(0)
            writer.transport.abort()
            reader.feed_eof()
        assert (await good.ask("hello")).status == "completed"
        await eventually(lambda: len(site.engine.sessions) == 1)
    assert not [record for record in caplog.records if record.exc_info]


def test_the_numbers_would_show_a_lost_sample() -> None:
    """The check itself: it sees one sample missing."""
    pcm = numbered(session=1, turn=3, start=0, count=1000)
    check_numbers(Heard("resp_a_3", bytearray(pcm.astype("<i2").tobytes())), session=1)
    lossy = np.delete(pcm, 500).astype("<i2").tobytes()
    with pytest.raises(AssertionError):
        check_numbers(Heard("resp_a_3", bytearray(lossy)), session=1)
