"""A network between a client and a server of the tests: it delays, trickles, and breaks as it is told."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

CHUNK = 1460  #: bytes that travel together, as in a TCP segment


@dataclass(frozen=True)
class Weather:
    """What happens to every chunk, in each direction.

    Attributes:
        delay_s: half of the round trip.
        jitter_s: more, at most; the order stays.
        lost: share of chunks that come `resend_s` later, as after a lost packet; those behind wait for them.
        bytes_per_s: as fast as the line is; None = it does not matter.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    lost: float = 0.0
    resend_s: float = 0.2
    bytes_per_s: float | None = None


class Network:
    """The connections through it, and what becomes of them."""

    def __init__(self, target: int, weather: Weather, seed: int) -> None:
        self.port = 0
        self._target, self._weather, self._random = target, weather, random.Random(seed)
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of one connection, until either ends."""
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop, weather = asyncio.get_running_loop(), self._weather
        under_way: deque[tuple[float, bytes]] = deque()
        some, free = asyncio.Event(), loop.time()

        async def arrive() -> None:
            while True:
                while not under_way:
                    some.clear()
                    await some.wait()
                due, data = under_way.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    sink.close()
                    return
                sink.write(data)
                await sink.drain()

        arriving = asyncio.create_task(arrive())
        try:
            while True:
                data = await source.read(CHUNK)
                late = self._random.random() < weather.lost
                due = loop.time() + weather.delay_s + self._random.uniform(0.0, weather.jitter_s)
                due += weather.resend_s if late else 0.0
                if weather.bytes_per_s is not None:
                    free = max(free, loop.time()) + len(data) / weather.bytes_per_s
                    due = max(due, free + weather.delay_s)
                    await asyncio.sleep(max(0.0, free - loop.time() - 0.5))  # a router holds half a second
                under_way.append((max(due, under_way[-1][0] if under_way else 0.0), data))
                some.set()
                if not data:
                    break
            await arriving
        except ConnectionError:
            pass
        finally:
            arriving.cancel()
            await asyncio.gather(arriving, return_exceptions=True)

    def reset(self) -> None:
        """Every connection is broken off with RST, on both sides."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if raw is not None and not writer.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def close(self) -> None:
        """Nothing travels any more."""
        for writer in self._writers:
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def network(target: int, weather: Weather | None = None, *, seed: int = 0) -> AsyncIterator[Network]:
    """A network in front of the server on port `target`; its own is `port`."""
    between = Network(target, weather or Weather(), seed)
    listening = await asyncio.start_server(between.carry, "127.0.0.1", 0)
    between.port = listening.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        listening.close()
        await between.close()
        await listening.wait_closed()
