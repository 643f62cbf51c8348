"""One WebSocket: read pump, bounded outbox, writer; frames in and out, nothing of what they mean."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine

from aiohttp import WebSocketError, WSMsgType, web

from voiceagent.config import LimitsConfig
from voiceagent.server.door import READ_BYTES, Door
from voiceagent.wire.budget import MessageBudget

log = logging.getLogger("voiceagent.connection")

OUTBOX_BYTES = 64 << 20  #: more than this waiting means that the client does not read
OUTBOX_HIGH = 256 << 10  #: with more than this waiting no audio is to be sent and nothing more is read,
OUTBOX_LOW = 64 << 10  #: until there is only so much
UNREAD_BYTES = 256 << 10  #: whole messages that may wait in aiohttp, and more
SEND_BUFFER_BYTES = 64 << 10  #: the kernel may hold this much; the default grows to 80 s of stale audio
RECEIVE_BUFFER_BYTES = (
    READ_BYTES  #: uvloop reads all that there is, up to 256 KiB, and aiohttp parses it in one go
)
ROOM_BYTES = 32 << 10  #: with less than this waiting, a transport is not paused and takes a frame at once
LOOKS = 4  #: in the time after which a silent peer is pinged; it may take half as long again to answer
BACKLOG_POLL_S = 0.02  #: how often a reader that waits for the voice detector looks again
_CUT = (1006, "cut")  #: not sent: there is no line left
_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY  # a member of an enumeration is not looked up for nothing
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)


class Connection:
    """A WebSocket with an outbox.

    Frames are sent in order and never dropped (a dropped one is a lost word). A client that does not take what is
    sent for `limits.slow_consumer_s` is cut off.
    """

    def __init__(
        self,
        socket_: web.WebSocketResponse,
        request: web.Request,
        limits: LimitsConfig,
        *,
        longest: int,
        ping_s: float,
    ) -> None:
        """
        Args:
            socket_: not prepared yet; without aiohttp's heartbeat, which costs more than all else that a message does.
            request: asks for the upgrade.
            limits: what one peer may do.
            longest: the longest message in bytes that the socket takes.
            ping_s: a peer that was silent for so long is pinged.
        """
        self._socket = socket_
        self._transport = request.transport
        self._limits = limits
        self._longest = longest
        self._ping_s = ping_s
        door = None if self._transport is None else self._transport.get_protocol()
        self._door = door if isinstance(door, Door) else None
        self._outbox: deque[str | bytes] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._on_line: Callable[[bool], None] = lambda busy: None
        self._busy = False  # as last told
        self._closing: tuple[int, str] | None = None
        self._goodbye = False  # a close frame has come, or was sent to one who breaks the rules
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def send(self, frame: str | bytes) -> None:
        """Sends a frame, behind those that wait; nothing is sent after `close`."""
        if self._closing is not None:
            return
        if not self._outbox and self._has_room(len(frame)):
            self._send_at_once(frame)
            return
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if self._outbox_bytes > OUTBOX_BYTES:
            log.warning("a client does not read: %d bytes wait", self._outbox_bytes)
            self._abort()
        elif (
            self._outbox_bytes > OUTBOX_HIGH and not self._busy
        ):  # soon: whoever sends is not to be called back
            asyncio.get_running_loop().call_soon(self._tell, True)
        self._wake.set()

    @property
    def lost(self) -> bool:
        """Once it has ended: neither side meant that."""
        return not self._goodbye and (self._closing is None or self._closing is _CUT)

    def cut(self) -> None:
        """Ends it at once; what is queued is lost."""
        self._abort()

    def close(self, code: int, reason: str) -> None:
        """Closes after what is queued."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake.set()

    async def run(
        self,
        on_frame: Callable[[str | bytes], None],
        *,
        on_flood: Callable[[], None],
        on_line: Callable[[bool], None],
        backlog_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> str:
        """Reads and writes until either side closes; returns why it ended.

        Args:
            on_frame: called with every frame of the peer's; must not raise.
            on_flood: called when the peer sends a flood; must not raise, and close.
            on_line: called with True when so much waits that nothing should be added, with False when there is room.
            backlog_s: seconds of audio that were read but not processed yet; above the limit reading pauses.
            clock: the event loop's time.
        """
        self._on_line = on_line
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name="writer")
            pulse = tasks.create_task(self._feel_pulse(), name="pulse")
            # A task of its own: every message wakes all the coroutines of one, and aiohttp's handlers are deep.
            reader = tasks.create_task(self._read(on_frame, on_flood, backlog_s, clock), name="reader")
            reason = await reader
            pulse.cancel()
            if self._closing is None or self._closing is _CUT:
                writer.cancel()  # else it is at the closing handshake, which has a time-out of its own
        return reason

    async def _feel_pulse(self) -> None:
        """Pings a peer that is silent, and cuts the line of one that does not even answer that."""
        looks = 0  # in a row that found nothing
        while self._door is not None:
            await asyncio.sleep(self._ping_s / LOOKS)
            looks = 0 if self._door.heard else looks + 1
            self._door.heard = False
            if looks == LOOKS:
                await self._control(self._socket.ping())
            elif looks >= LOOKS * 3 // 2:
                log.info("a client does not answer pings: cut")
                self._abort()
                return

    async def _read(
        self,
        on_frame: Callable[[str | bytes], None],
        on_flood: Callable[[], None],
        backlog_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> str:
        budget = MessageBudget(self._limits.messages_per_s, self._limits.message_burst)
        if self._door is not None:  # a message may take twice its longest length, however it is cut in pieces
            self._door.received, self._door.most = 0, 2 * self._longest + UNREAD_BYTES
        while True:
            message = await self._socket.receive()
            if message.type in _ENDS:
                self._goodbye = message.type is WSMsgType.CLOSE
                return f"closed {self._socket.close_code}"
            if message.type is WSMsgType.ERROR:  # who breaks the rules is told so by a close frame
                self._goodbye = isinstance(message.data, WebSocketError)
                return "connection error"
            if self._over():
                return "closed"  # what a peer that is gone has left unread would hold its slot for long
            if message.type is _TEXT or message.type is _BINARY:
                on_frame(message.data)
            elif message.type is WSMsgType.PING:
                await self._control(self._socket.pong(message.data))
            pause = budget.take(clock(), len(message.data), extra=self._extra(message.data))
            if pause > 0.0:
                if budget.flooded(clock()):
                    on_flood()
                await asyncio.sleep(pause)
            # Polling: it is rare, and simpler than a signal of every probability.
            # What came now could not be heard, or not be answered.
            while backlog_s() > self._limits.unprocessed_audio_s or self._outbox_bytes > OUTBOX_HIGH:
                if self._over():
                    break
                await asyncio.sleep(BACKLOG_POLL_S)

    async def _control(self, sending: Coroutine[None, None, None]) -> None:
        """Sends a ping or a pong; like any frame, it may not wait for ever."""
        try:
            async with asyncio.timeout(self._limits.slow_consumer_s):
                await sending
        except TimeoutError:
            self._abort()
        except (ConnectionError, RuntimeError):
            pass  # closed meanwhile

    def _extra(self, data: str | bytes) -> int:
        """Bytes that came by the wire and are in no message: the headers of a great many fragments.

        What waits in aiohttp's queue, and a message that is on its way, are not told from them; so much is let pass.
        """
        if self._door is None:
            return 0
        size = len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        self._door.received -= size + (6 if size < 126 else 8 if size < 1 << 16 else 14)
        over = max(0, self._door.received - self._longest - UNREAD_BYTES)
        self._door.received -= over
        return over

    def _tell(self, busy: bool) -> None:
        if busy is not self._busy and not self._over():
            self._busy = busy
            self._on_line(busy)

    def _over(self) -> bool:
        return self._closing is not None or self._transport is None or self._transport.is_closing()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                frame = self._outbox.popleft()
                self._outbox_bytes -= len(frame)
                if not await self._deliver(frame):
                    return
                if self._busy and self._outbox_bytes < OUTBOX_LOW:
                    self._tell(False)
            if self._closing is not None:
                code, reason = self._closing
                await self._socket.close(code=code, message=reason.encode()[:120])
                return

    async def _deliver(self, frame: str | bytes) -> bool:
        try:
            async with asyncio.timeout(self._limits.slow_consumer_s):
                if isinstance(frame, str):
                    await self._socket.send_str(frame)
                else:
                    await self._socket.send_bytes(frame)
        except TimeoutError:
            log.warning("a client did not read for %.0f s: closed", self._limits.slow_consumer_s)
            self._abort()
            return False
        except (ConnectionError, RuntimeError):  # closed by the peer while we were sending
            return False
        return True

    def _send_at_once(self, frame: str | bytes) -> None:
        """A frame on a line that has room: that never waits, and to wake a task for it costs more than the sending."""
        line = self._socket
        sending = line.send_str(frame) if isinstance(frame, str) else line.send_bytes(frame)
        try:
            sending.send(None)
        except (StopIteration, ConnectionError, RuntimeError):
            pass  # sent; or closed by the peer, as the reader will find
        finally:
            sending.close()

    def _has_room(self, size: int) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() + size < ROOM_BYTES

    def _abort(self) -> None:
        """Cuts the line at once: a peer that does not read would not see a close frame either."""
        self._closing = _CUT
        self._outbox.clear()
        if self._transport is not None:
            self._transport.abort()
