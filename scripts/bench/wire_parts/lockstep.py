"""The whole server in one thread with its clients and its engine, step by step: its processor time for a frame.

Who shares the processor with it changes little here: a few calls send a frame each, all is done that follows of it,
and only what the server does is timed. `wire.py` measures the same in real time, and needs a quiet machine for it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import socket
import time

from wire_parts.case import NOISE, Case
from wire_parts.echo import Call, answer
from wire_parts.load import connect, opening, text

from voiceagent.config import Config, EngineConfig, ServerConfig
from voiceagent.engine import api
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.codec import FrameReader, encode
from voiceagent.engine.pipe import Pipe, WorkerSpec
from voiceagent.server.app import Server
from voiceagent.server.door import TIDE_S

BLOCK = 8  # frames of every call, in which as many windows of the voice detector end as in the next ones
WARM, BLOCKS = 2, 12


class Aside:
    """Time that is not the server's."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.spent += time.thread_time() - self._began


class Echo(asyncio.Protocol):
    """The engine's end of the pipe."""

    def __init__(self, case: Case, aside: Aside) -> None:
        self._case, self._aside = case, aside
        self._calls: dict[int, Call] = {}
        self._frames: FrameReader[api.Command] = FrameReader(api.Command)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        with self._aside:
            commands = self._frames.feed(data)
            replies = [encode(reply) for each in commands for reply in answer(self._calls, each, self._case)]
            if replies:
                self._transport.write(b"".join(replies))  # type: ignore[attr-defined]


async def lockstep(case: Case, *, count: int, together: int) -> float:
    """Microseconds of the server for a frame in and its answer; `together` of `count` calls are served at once."""
    aside = Aside()
    engine = LocalEngine(WorkerSpec())
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: Echo(case, aside), sock=theirs)
    _, engine._pipe = await loop.create_connection(lambda: Pipe(engine._take), sock=ours)
    engine._ready = api.Ready("echo", "none", "none", ("none",), 16_384, count, 0.0)
    server = Server(Config(server=ServerConfig(port=0), engine=EngineConfig(max_sessions=count)), engine)
    _, port = await server.start()
    lines = [await asyncio.to_thread(connect, port) for _ in range(count)]
    for line in lines:
        line.setblocking(False)
        line.send(opening(case))
    await asyncio.sleep(0.5)
    frame = text("input_audio_buffer.append", audio=base64.b64encode(NOISE[: case.frame_bytes]).decode())
    gc.collect()
    gc.freeze()
    spent = []
    for _ in range(WARM + BLOCKS):
        aside.spent, began = 0.0, time.thread_time()
        for _ in range(BLOCK):
            for first in range(0, count, together):
                await _round(lines[first : first + together], frame, aside)
        spent.append(time.thread_time() - began - aside.spent)
    for line in lines:
        line.close()
    await server.stop()
    return 1e6 * min(spent[WARM:]) / (BLOCK * count)


async def _round(lines: list[socket.socket], frame: bytes, aside: Aside) -> None:
    with aside:
        for line in lines:
            line.send(frame)
    await asyncio.sleep(2 * TIDE_S)
    with aside:
        for line in lines:
            with contextlib.suppress(BlockingIOError):  # the resampler's first frames give nothing yet
                line.recv(1 << 16)
