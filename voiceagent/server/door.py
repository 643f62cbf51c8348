"""The first steps of a socket, before and below HTTP: who must speak soon, and how much wire a message may take.

aiohttp has no time-out for headers, reads 256 KiB at once, and counts neither the frames of a message nor their
headers. What a door lets through, aiohttp parses; it knows no request and no protocol.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

READ_BYTES = 32 << 10
"""Read at once from one socket: what is in it is parsed in one go, and nobody else is served meanwhile."""
MOST_WAITING = 1024
"""Sockets whose request has not come; with more of them, the oldest must be quicker."""
HURRY_S = 2.0
"""As quick as that. In a storm of good clients a request may be here for a second before it is read."""
TIDE_S = 0.002
"""What many sockets bring within so long goes in together. One frame after the other, each finds the processor's caches
full of something else, and wakes the engine for itself."""

log = logging.getLogger("voiceagent.connection")


class Tide:
    """Lets in what comes to a server's doors: at once, if nothing came just before, else with the next tide."""

    def __init__(self) -> None:
        self._doors: list[Door] = []  # those that hold something
        self._next = 0.0  # time of the next tide

    def holds(self, door: Door) -> bool:
        """Whether what comes to this door now waits for the next tide, which will then call `let_in`."""
        if not self._doors:
            loop = asyncio.get_running_loop()
            now = loop.time()
            if now >= self._next:
                self._next = now + TIDE_S
                return False
            loop.call_at(self._next, self._come)
        self._doors.append(door)
        return True

    def _come(self) -> None:
        doors, self._doors = self._doors, []
        self._next = asyncio.get_running_loop().time() + TIDE_S
        for door in doors:
            try:
                door.let_in()
            except Exception:  # one socket's trouble is not the others'
                log.exception("a socket's data could not be taken")
                door.cut()


class Door(asyncio.Protocol):
    """Stands between a socket and aiohttp's protocol for it.

    Attributes:
        received: bytes that have come since somebody last set it to 0.
        most: more of them than this, and the line is cut; 0 = any number.
        heard: something has come since somebody last set it to False.
    """

    def __init__(self, inner: asyncio.Protocol, gone: Callable[[Door], None], tide: Tide) -> None:
        self.received = 0
        self.most = 0
        self.heard = True
        self.transport: asyncio.Transport | None = None
        self._inner = inner
        self._gone = gone
        self._tide = tide
        self._held: list[bytes] = []
        self._size = 0  # bytes in it

    @property
    def inner(self) -> asyncio.Protocol:
        """aiohttp's protocol."""
        return self._inner

    def cut(self) -> None:
        """Ends the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        self.transport = cast(asyncio.Transport, transport)  # not by inheritance in every event loop
        if hasattr(transport, "max_size"):  # of asyncio's own sockets without TLS, which reads 16 KiB at once
            transport.max_size = READ_BYTES
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Counts, then passes on."""
        self.received += len(data)
        self.heard = True
        if self.most and self.received > self.most:
            self.cut()
            return
        if not self._held and not self._tide.holds(self):
            self._inner.data_received(data)
            return
        self._held.append(data)
        self._size += len(data)
        if self._size >= READ_BYTES:  # aiohttp says when it is too much, but only of what it knows
            self.let_in()

    def let_in(self) -> None:
        """Passes on what was held back."""
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Passes on."""
        self.let_in()
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Passes on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Passes on."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Passes on."""
        self.let_in()
        self._gone(self)
        self._inner.connection_lost(exc)


class Doors:
    """The doors of a server, and those behind which nobody has asked for anything yet.

    Args:
        patience_s: a socket whose whole request has not arrived by then is cut.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._tide = Tide()
        self._waiting: dict[
            asyncio.BaseProtocol, tuple[Door, float]
        ] = {}  # by aiohttp's protocol, oldest first

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def open(self, inner: asyncio.Protocol) -> Door:
        """A door for a new socket, cut off unless `seen` is called for it in time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if len(self._waiting) >= MOST_WAITING:
            oldest, (door, since) = next(iter(self._waiting.items()))
            if now - since > HURRY_S:
                del self._waiting[oldest]
                door.cut()
        door = Door(inner, self._lost, self._tide)
        self._waiting[inner] = (door, now)
        loop.call_later(self._patience_s, self._late, inner)
        return door

    def seen(self, inner: asyncio.BaseProtocol) -> None:
        """A whole request has come by this protocol of aiohttp's."""
        self._waiting.pop(inner, None)

    def _late(self, inner: asyncio.BaseProtocol) -> None:
        found = self._waiting.pop(inner, None)
        if found is not None:
            found[0].cut()

    def _lost(self, door: Door) -> None:
        self._waiting.pop(door.inner, None)
