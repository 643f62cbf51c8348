"""One WebSocket: read pump, bounded outbox, writer; frames in and out, nothing of what they mean."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable

from aiohttp import WSMsgType, web

from voiceagent.config import LimitsConfig
from voiceagent.wire.budget import MessageBudget

log = logging.getLogger("voiceagent.connection")

OUTBOX_BYTES = 64 << 20  #: more than this waiting means that the client does not read
SEND_BUFFER_BYTES = 64 << 10  #: the kernel may hold this much; the default grows to 80 s of stale audio
OVERLOAD = 1013
BACKLOG_POLL_S = 0.02  #: how often a reader that waits for the voice detector looks again


class Connection:
    """A WebSocket with an outbox.

    Frames are sent in order and never dropped (a dropped one is a lost word). A client that does not take what is
    sent for `limits.slow_consumer_s` is cut off.
    """

    def __init__(self, socket_: web.WebSocketResponse, request: web.Request, limits: LimitsConfig) -> None:
        self._socket = socket_
        self._transport = request.transport
        self._limits = limits
        self._outbox: deque[str | bytes] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def send(self, frame: str | bytes) -> None:
        """Queues a frame; nothing is queued after `close`."""
        if self._closing is not None:
            return
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        if self._outbox_bytes > OUTBOX_BYTES:
            log.warning("a client does not read: %d bytes wait", self._outbox_bytes)
            self._abort()
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Closes after what is queued."""
        if self._closing is None:
            self._closing = (code, reason)
            self._wake.set()

    async def run(
        self,
        on_frame: Callable[[str | bytes], None],
        *,
        backlog_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> str:
        """Reads and writes until either side closes; returns why it ended.

        Args:
            on_frame: called with every frame of the peer's; must not raise.
            backlog_s: seconds of audio that were read but not processed yet; above the limit reading pauses.
            clock: the event loop's time.
        """
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(), name="writer")
            reason = await self._read(on_frame, backlog_s, clock)
            if self._closing is None:
                writer.cancel()  # else it is at the closing handshake, which has a time-out of its own
        return reason

    async def _read(
        self,
        on_frame: Callable[[str | bytes], None],
        backlog_s: Callable[[], float],
        clock: Callable[[], float],
    ) -> str:
        budget = MessageBudget(self._limits.messages_per_s, self._limits.message_burst)
        async for message in self._socket:
            if self._over():
                return "closed"  # what a peer that is gone has left unread would hold its slot for long
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                on_frame(message.data)
                pause = budget.take(clock())
                if pause > 0.0:
                    await asyncio.sleep(pause)
                # Polling: it is rare, and simpler than a signal of every probability.
                while backlog_s() > self._limits.unprocessed_audio_s and not self._over():  # noqa: ASYNC110
                    await asyncio.sleep(BACKLOG_POLL_S)
            elif message.type is WSMsgType.ERROR:
                return "connection error"
        return f"closed {self._socket.close_code}"

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

    def _abort(self) -> None:
        """Cuts the line at once: a peer that does not read would not see a close frame either."""
        self._closing = (OVERLOAD, "slow consumer")
        self._outbox.clear()
        if self._transport is not None:
            self._transport.abort()
