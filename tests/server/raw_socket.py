"""A WebSocket client that may do anything: frames byte by byte, as no library would send them.

It needs asyncio alone, so that the load scripts can use it too.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def frame(
    payload: bytes, *, opcode: int = TEXT, fin: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """One frame; a mask of zeros is a mask."""
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    mark = 0x80 if masked else 0
    if len(payload) < 126:
        size = bytes([mark | len(payload)])
    elif len(payload) < 1 << 16:
        size = bytes([mark | 126]) + struct.pack("!H", len(payload))
    else:
        size = bytes([mark | 127]) + struct.pack("!Q", len(payload))
    return head + size + (bytes(4) if masked else b"") + payload


def fragments(payload: bytes, sizes: list[int], *, opcode: int = TEXT) -> bytes:
    """A message in frames of these sizes, the rest in a last one."""
    made, at = b"", 0
    for number, size in enumerate(sizes):
        made += frame(payload[at : at + size], opcode=0 if number else opcode, fin=False)
        at += size
    return made + frame(payload[at:], opcode=0 if sizes else opcode)


def request(path: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> bytes:
    """The head of a request; a value of None is left out."""
    fields = {"Host": "localhost", **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v is not None), "", ""]
    return "\r\n".join(lines).encode()


class RawSocket:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, *, receive_buffer: int = 0) -> RawSocket:
        """A connection on which nothing was sent yet; `receive_buffer` bytes in the kernel, 0 = as it comes."""
        raw = socket.socket()
        raw.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # asyncio sets it only where the protocol is named
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        limit = receive_buffer or 1 << 20
        reader, writer = await asyncio.open_connection(sock=raw, limit=limit)
        return cls(reader, writer)

    @classmethod
    async def upgraded(
        cls,
        port: int,
        path: str = "/v1/realtime",
        *,
        headers: dict[str, str] | None = None,
        receive_buffer: int = 0,
    ) -> RawSocket:
        """A WebSocket."""
        line = await cls.open(port, receive_buffer=receive_buffer)
        line.send(request(path, UPGRADE | (headers or {})))
        head = await line.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return line

    def send(self, data: bytes) -> None:
        """Queues bytes."""
        self.writer.write(data)

    def say(self, **event: Any) -> None:
        """Queues an event as a text frame."""
        self.send(frame(json.dumps(event).encode()))

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload; None if the line is cut."""
        try:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0xF, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def until_closed(self) -> tuple[int | None, list[dict[str, Any]]]:
        """Reads to the end: the close code, None if the line was just cut, and the events before it."""
        events: list[dict[str, Any]] = []
        while (got := await self.receive()) is not None:
            opcode, payload = got
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), events
            if opcode == TEXT:
                events.append(json.loads(payload))
        return None, events

    def drop(self) -> None:
        """Ends it at once."""
        self.writer.transport.abort()
        self.reader.feed_eof()

    async def gone(self) -> None:
        """Ends it, and waits until it is."""
        self.drop()
        await asyncio.sleep(0)
