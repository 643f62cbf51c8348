#!/usr/bin/env python3
"""What a WebSocket alone costs: a message in and one out, by aiohttp, by a bare asyncio.Protocol, and by picows.

64 connections send one message after the other, each frame comes alone, and the server answers what was made before;
processor time (user and system) of the server's process for each pair. The bare protocol does no more than such a
measurement needs: whole text frames, no pings, no limits. picows (`pip install picows`) is measured where it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import multiprocessing
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

SIZE = 1400  #: characters of a message: 20 ms of 24 kHz PCM in base64, and what stands around it
ANSWER = "x" * SIZE
WARM = 5  #: rounds that do not count
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: floor\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
)


def frame(text: bytes) -> bytes:
    """A client's text frame, masked."""
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
    return b"\x81\xfe" + struct.pack("!H", len(text)) + mask + masked


def clients(port: int, control: Connection, connections: int, rounds: int, gap_s: float) -> None:
    """Sends and reads; tells when what counts begins and ends."""
    sockets = []
    for _ in range(connections):
        line = socket.create_connection(("127.0.0.1", port))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(UPGRADE.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += line.recv(4096)
        sockets.append(line)
    asked, answer = frame(b"y" * SIZE), SIZE + 4
    for number in range(WARM + rounds):
        if number == WARM:
            control.send("begins")
            control.recv()
        for line in sockets:
            line.sendall(asked)
            time.sleep(gap_s)
        for line in sockets:
            read = 0
            while read < answer:
                read += len(line.recv(1 << 16))
    control.send("ends")
    control.recv()


async def by_aiohttp() -> int:
    """As this package's server does it: what fits is sent without waiting."""

    async def converse(request: web.Request) -> web.StreamResponse:
        line = web.WebSocketResponse(compress=False)
        await line.prepare(request)
        while (await line.receive()).type is WSMsgType.TEXT:
            sending = line.send_str(ANSWER)
            try:
                sending.send(None)
            except StopIteration:
                pass
            finally:
                sending.close()
        return line

    app = web.Application()
    app.router.add_get("/", converse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


class Bare(asyncio.Protocol):
    """Frames taken apart in Python; the mask is undone by one XOR of whole numbers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._line: Any = transport
        self._data = b""
        self._open = False
        self._answer = b"\x81\x7e" + struct.pack("!H", SIZE) + ANSWER.encode()

    def data_received(self, data: bytes) -> None:
        """Answers every whole frame."""
        data, at = self._data + data, 0
        if not self._open:
            _, ended, data = data.partition(b"\r\n\r\n")
            if not ended:
                return
            self._open = True
            head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            self._line.write(head.encode())
        while len(data) - at >= 8 and len(data) >= at + 8 + (
            size := int.from_bytes(data[at + 2 : at + 4], "big")
        ):
            mask, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
            key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            text = (int.from_bytes(body, "big") ^ key).to_bytes(size, "big").decode()
            assert text[0] == "y"
            self._line.write(self._answer)
            at += 8 + size
        self._data = data[at:]


async def by_protocol() -> int:
    """A bare asyncio.Protocol."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


async def by_picows() -> int:
    """A library in Cython."""
    import picows  # type: ignore[import-not-found]

    answer = ANSWER.encode()

    class Listener(picows.WSListener):  # type: ignore[misc]
        def on_ws_frame(self, line: Any, came: Any) -> None:
            assert came.get_payload_as_utf8_text()[0] == "y"
            line.send(picows.WSMsgType.TEXT, answer)

    server = await picows.ws_create_server(lambda _: Listener(), "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


WAYS: dict[str, Callable[[], Awaitable[int]]] = {
    "aiohttp": by_aiohttp,
    "asyncio.Protocol": by_protocol,
    "picows": by_picows,
}


async def measure(way: str, *, connections: int, rounds: int, gap_s: float) -> float:
    """Microseconds of processor time for a message in and one out."""
    port = await WAYS[way]()
    mine, theirs = multiprocessing.Pipe()
    arguments = (port, theirs, connections, rounds, gap_s)
    process = multiprocessing.get_context("spawn").Process(target=clients, args=arguments)
    process.start()
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(mine.fileno(), told.set)
    spent = []
    for _ in ("begins", "ends"):
        await told.wait()
        mine.recv()
        told.clear()
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent.append(used.ru_utime + used.ru_stime)
        mine.send("go on")
    asyncio.get_running_loop().remove_reader(mine.fileno())
    await asyncio.to_thread(process.join)
    return (spent[1] - spent[0]) / (connections * rounds) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", choices=WAYS, help="measure this one, once, in this process")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--gap-us", type=int, default=200, help="between two messages; 0 = in bursts")
    parser.add_argument("--times", type=int, default=3, help="the quickest of so many counts")
    options = parser.parse_args()
    if options.way is None:
        for way in WAYS:
            if way != "picows" or find_spec("picows"):
                found = [one(way, options) for _ in range(options.times)]
                print(f"| {way} | {min(found):.1f} us |", flush=True)
        return 0
    work = measure(
        options.way, connections=options.connections, rounds=options.rounds, gap_s=options.gap_us / 1e6
    )
    if find_spec("uvloop"):
        import uvloop

        print(uvloop.run(work))
    else:
        print(asyncio.run(work))
    return 0


def one(way: str, options: argparse.Namespace) -> float:
    """In a process of its own, so that no way is warmed by another."""
    command = [sys.executable, str(Path(__file__).resolve()), "--way", way]
    for name in ("connections", "rounds", "gap_us"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
