"""The server's end of the pipe: audio travels together, and nothing overtakes anything."""

from __future__ import annotations

import asyncio
import socket

from voiceagent.engine import api
from voiceagent.engine.codec import FrameReader
from voiceagent.engine.pipe import Pipe


async def read(engine: socket.socket, count: int) -> list[list[api.Command]]:
    """What comes by each read, until so many commands are there."""
    frames: FrameReader[api.Command] = FrameReader(api.Command)
    reads: list[list[api.Command]] = []
    async with asyncio.timeout(10):
        while sum(map(len, reads)) < count:
            reads.append(frames.feed(await asyncio.get_running_loop().sock_recv(engine, 1 << 16)))
    return reads


async def test_audio_waits_a_moment_for_more_and_goes_before_what_follows() -> None:
    ours, engine = socket.socketpair()
    engine.setblocking(False)
    with engine:
        _, pipe = await asyncio.get_running_loop().create_connection(
            lambda: Pipe(lambda reply: None), sock=ours
        )
        audio = [api.Audio(session, 0, bytes(4)) for session in (1, 2, 3)]
        for command in audio:
            pipe.send(command)
        assert await read(engine, 3) == [audio], "one write for all"
        mixed = [audio[0], api.Cancel(1, 7), audio[1], audio[2], api.Ping(1)]
        for command in mixed:
            pipe.send(command)
        assert [command for part in await read(engine, 5) for command in part] == mixed
        pipe.send(audio[0])
        pipe.abort()
        await pipe.ended
        pipe.send(audio[1])  # a pipe that has ended takes no more
