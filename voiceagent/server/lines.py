"""The lines of calls: a session over one connection, or over one after the other if it may be resumed."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from voiceagent.config import Config
from voiceagent.server.auth import SUBPROTOCOL, key_of
from voiceagent.server.connection import Connection
from voiceagent.server.resumption import Berth, Lobby, ReplayLine, Visitor
from voiceagent.server.session import Session
from voiceagent.server.telemetry import Telemetry
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime import RealtimeDialect

log = logging.getLogger("voiceagent.server")

RESTART = 1012  # the clients' SDKs reconnect on it
LIVE_MESSAGE_BYTES = 2 << 20  #: 30 s of PCM at 24 kHz in base64, which comes as one message


class Lines:
    """All connections of one server, and the sessions that wait for one.

    Args:
        config: checked configuration.
        telemetry: counts what becomes of lost lines.
    """

    def __init__(self, config: Config, telemetry: Telemetry) -> None:
        self._config, self._telemetry = config, telemetry
        self._connections: set[Connection] = set()
        self.lobby = Lobby()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def close(self) -> None:
        """Closes every one with 1012; nobody is waited for any more."""
        for connection in list(self._connections):
            connection.close(RESTART, "server is stopping")
        self.lobby.end()

    def connection(self, upgrade: web.WebSocketResponse, request: web.Request) -> Connection:
        """The connection that a request becomes."""
        limits = self._config.limits
        longest = max(limits.message_bytes, LIVE_MESSAGE_BYTES)
        return Connection(
            upgrade, request, limits, longest=longest, ping_s=self._config.server.ping_interval_s
        )

    def berth(self, request: web.Request, connection: Connection) -> Berth | None:
        """Of a call that asks to be resumable, where that is possible."""
        if request.query.get("resumable") != "true" or not self._config.limits.resume_s:
            return None
        return self.lobby.open(ReplayLine(connection), _credential(request))

    async def carry(
        self, connection: Connection, session: Session, *, berth: Berth | None, dialect: object
    ) -> str:
        """Carries a session until it ends; why it did."""
        if berth is None or not isinstance(dialect, RealtimeDialect):
            return await self._carry(connection, session)
        patience = self._config.limits.resume_s
        session.tell([dialect.render_resumable(berth.token, patience)])
        reason = await self._carry(connection, session)
        while connection.lost and not berth.line.closed.is_set():
            berth.line.detach()
            session.on_line(True)  # nothing is sent into the void: who comes back hears the rest
            log.info("session %s: line lost", session.name)
            visitor = await berth.wait(patience)
            if visitor is None:
                self._gone(berth)
                break
            connection = visitor.connection
            try:
                reason = await self._resume(visitor, session, berth=berth, greeting=dialect.render_resumed())
            finally:
                visitor.gone.set()
        return reason

    async def resume(self, request: web.Request, upgrade: web.WebSocketResponse) -> web.StreamResponse:
        """A client that has lost its line wants its session back.

        Raises:
            WireError: it cannot have it.
        """
        try:
            received = _count(request.query.get("received", ""))
            berth = self.lobby.find(
                request.query["resume"], credential=_credential(request), received=received
            )
        except WireError:
            self._telemetry.resumption("refused")
            raise
        connection = self.connection(upgrade, request)
        await upgrade.prepare(request)
        visitor = Visitor(connection, received)
        if not berth.over.is_set():
            berth.visit(visitor)
            await visitor.gone.wait()
        if not visitor.carried:  # it ended this moment
            await upgrade.close(code=1008, message=b"resume_unknown")
        return upgrade

    async def _resume(self, visitor: Visitor, session: Session, *, berth: Berth, greeting: str) -> str:
        connection, visitor.carried = visitor.connection, True
        if not berth.line.reaches(visitor.received):  # more was sent over the old line meanwhile
            connection.close(1008, "resume_gap")  # which ends the session: nobody else can have it
        else:
            self._telemetry.resumption("resumed")
            log.info("session %s: resumed", session.name)
            berth.line.attach(connection, greeting=greeting, received=visitor.received)
            session.on_line(False)
        return await self._carry(connection, session)

    async def _carry(self, connection: Connection, session: Session) -> str:
        """One connection of a session, to its end."""
        self._connections.add(connection)
        try:
            return await connection.run(
                session.on_frame,
                on_flood=session.flooded,
                on_line=session.on_line,
                backlog_s=session.backlog_s,
                clock=asyncio.get_running_loop().time,
            )
        finally:
            self._connections.discard(connection)

    def _gone(self, berth: Berth) -> None:
        """Nobody came back in time, or could not be waited for."""
        if berth.evicted:
            self._telemetry.resumption("evicted")
        elif not berth.line.closed.is_set():
            self._telemetry.resumption("expired")


def _credential(request: web.Request) -> str:
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    return key_of(request.headers, [name for name in offered if name != SUBPROTOCOL])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise WireError(
            "received must be the number of frames of the session that have come.",
            code="invalid_value",
            param="received",
        )
    return int(text)
