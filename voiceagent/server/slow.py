"""Frames that take long to make: one part in each turn of the event loop, for nobody waits. It knows no protocol."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from voiceagent.wire.dialect import Slow


class SlowFrames:
    """The frames of one session that are being made, one behind the other.

    Args:
        send: takes each frame when it is whole.
        failed: called, within its handler, when the making of one fails; what is left is dropped.
    """

    def __init__(self, send: Callable[[str], None], failed: Callable[[], None]) -> None:
        self._send, self._failed = send, failed
        self._frames: deque[Slow] = deque()
        self._parts: list[str] = []  # of the first

    @property
    def busy(self) -> bool:
        """Whether one is being made."""
        return bool(self._frames)

    def add(self, frame: Slow) -> None:
        """Makes it, behind those that came before."""
        self._frames.append(frame)
        if len(self._frames) == 1:
            self._go_on()

    def drop(self) -> None:
        """Nobody wants them any more."""
        self._frames.clear()
        self._parts.clear()

    def _go_on(self) -> None:
        asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        if not self._frames:
            return  # dropped
        try:
            part = next(self._frames[0].parts, None)
            if part is not None:
                self._parts.append(part)
            else:
                frame = "".join(self._parts)
                self._frames.popleft()
                self._parts.clear()
                self._send(frame)
        except Exception:  # a bug of ours: it may cost this session, and no other
            self.drop()
            self._failed()
        if self._frames:
            self._go_on()
