"""Token bucket for what one connection may send; time is passed in.

Messages are counted, not only bytes: a flood of tiny messages costs a hundred times the same bytes in large ones.
Over the budget nothing is dropped and nobody is closed: files may be sent faster than real time, so the reader
just pauses for the debt and the sender feels it as backpressure.
"""

from __future__ import annotations


class MessageBudget:
    """`rate` messages per second with bursts of `burst`.

    Args:
        rate: messages per second that refill the bucket.
        burst: messages that a full bucket holds.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._level = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Counts one message at time `now` (seconds); returns how many seconds to stop reading, 0.0 if none."""
        if self._at is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        self._level -= 1.0
        return max(0.0, -self._level / self._rate)
