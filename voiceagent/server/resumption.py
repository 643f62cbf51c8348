"""Sessions that outlive a lost line: what was sent to their clients, and who may have them back; not what it means."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import deque
from dataclasses import dataclass, field

from voiceagent.server.connection import Connection
from voiceagent.wire.dialect import WireError

KEPT_BYTES = 512 << 10
"""Newest frames that are kept for who comes back: more than sockets and our outbox hold of what did not arrive."""


class ReplayLine:
    """The line of a session that goes on over another connection when one is lost."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._frames: deque[str | bytes] = deque()
        self._bytes = 0
        self._first = 0  # frames that were sent and are not kept any more
        self.closed = asyncio.Event()  #: the session has ended

    def send(self, frame: str | bytes) -> None:
        """Sends a frame, now or once there is a connection again."""
        self._frames.append(frame)
        self._bytes += len(frame)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self._frames.popleft())
            self._first += 1
        if self._connection is not None:
            self._connection.send(frame)

    def close(self, code: int, reason: str) -> None:
        """Ends the session, and its connection after what is queued."""
        self.closed.set()
        if self._connection is not None:
            self._connection.close(code, reason)

    def reaches(self, received: int) -> bool:
        """Whether all frames behind the first `received` ones are kept."""
        return self._first <= received <= self._first + len(self._frames)

    def cut(self) -> None:
        """The client is on its way over another connection: this one is of no use any more."""
        if self._connection is not None:
            self._connection.cut()

    def detach(self) -> None:
        """The connection is lost."""
        self._connection = None

    def attach(self, connection: Connection, *, greeting: str, received: int) -> None:
        """Goes on over a connection: a greeting, and all frames behind the first `received` ones."""
        self._connection = connection
        for frame in (greeting, *list(self._frames)[received - self._first :]):
            connection.send(frame)


@dataclass(slots=True)
class Visitor:
    """A client that has come back.

    Attributes:
        connection: its new one.
        received: frames of the session that it has.
        carried: the session went on over it.
        gone: to be set when this connection has ended.
    """

    connection: Connection
    received: int
    carried: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Berth:
    """A session that can be resumed.

    Attributes:
        token: opens it, for the one with the key of the session's first connection.
        line: the session's.
        parked: it has no connection now.
        evicted: it had to make room.
        over: it has ended, and what it held is free.
    """

    def __init__(self, line: ReplayLine, credential: str) -> None:
        self.token = secrets.token_urlsafe(24)
        self.line = line
        self.parked = self.evicted = False
        self.over = asyncio.Event()
        self._credential = _digest(credential)
        self._visitors: asyncio.Queue[Visitor] = asyncio.Queue()

    def belongs_to(self, credential: str) -> bool:
        """Whether this key opened the session."""
        return hmac.compare_digest(self._credential, _digest(credential))

    def visit(self, visitor: Visitor) -> None:
        """Somebody is there with a new connection; an old one that still seems to live is cut."""
        self._visitors.put_nowait(visitor)
        self.line.cut()

    def leave(self) -> list[Visitor]:
        """The session has ended: those whom it will not have any more."""
        self.over.set()
        return [self._visitors.get_nowait() for _ in range(self._visitors.qsize())]

    async def wait(self, seconds: float) -> Visitor | None:
        """Who comes back within this time, the last of several; None: nobody, or the session ends meanwhile."""
        self.parked = True
        coming, ending = (
            asyncio.ensure_future(self._visitors.get()),
            asyncio.ensure_future(self.line.closed.wait()),
        )
        try:
            await asyncio.wait((coming, ending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return None
            visitor = coming.result()
            if self.line.closed.is_set():
                self._visitors.put_nowait(visitor)  # for `leave`
                return None
            while not self._visitors.empty():
                visitor.gone.set()
                visitor = self._visitors.get_nowait()
            return visitor
        finally:
            self.parked = False
            for task in (coming, ending):
                task.cancel()


class Lobby:
    """All sessions of a server that can be resumed."""

    def __init__(self) -> None:
        self._berths: dict[str, Berth] = {}

    @property
    def parked(self) -> int:
        """Sessions that wait for their clients."""
        return sum(berth.parked for berth in self._berths.values())

    def open(self, line: ReplayLine, credential: str) -> Berth:
        """A place for a session; `close` gives it back."""
        berth = Berth(line, credential)
        self._berths[berth.token] = berth
        return berth

    def close(self, berth: Berth) -> None:
        """The session has ended."""
        self._berths.pop(berth.token, None)
        for visitor in berth.leave():
            visitor.gone.set()

    def find(self, token: str, *, credential: str, received: int) -> Berth:
        """The session of a client that wants it back.

        Raises:
            WireError: there is none, it is somebody else's, or too much of what was sent to it is not kept any more.
        """
        berth = self._berths.get(token)
        if berth is None or berth.line.closed.is_set():
            raise WireError(
                "There is no session to resume: the token is unknown, or its time is over.",
                code="resume_unknown",
                param="resume",
                remedy="Open a new session.",
            )
        if not berth.belongs_to(credential):
            raise WireError(
                "Another key opened this session.",
                code="resume_forbidden",
                param="resume",
                remedy="Come back with the key that opened it.",
            )
        if not berth.line.reaches(received):
            raise WireError(
                "What was sent behind these frames is not kept any more, or was never sent.",
                code="resume_gap",
                param="received",
                remedy="Count every frame of the session; else open a new session.",
            )
        return berth

    async def make_room(self) -> bool:
        """Ends the session that has waited longest for its client; False if none waits."""
        waiting = [b for b in self._berths.values() if b.parked and not b.line.closed.is_set()]
        if not waiting:
            return False
        waiting[0].evicted = True
        waiting[0].line.closed.set()
        await waiting[0].over.wait()
        return True

    def end(self) -> None:
        """The server stops: nobody is waited for any more."""
        for berth in self._berths.values():
            berth.line.closed.set()


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode(errors="surrogateescape")).digest()
