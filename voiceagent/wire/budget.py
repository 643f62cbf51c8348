"""Token bucket for what one connection may send; time is passed in.

Messages are counted, not only bytes: a flood of tiny messages costs a hundred times the same bytes in large ones.
Over the budget nothing is dropped: files may be sent faster than real time, so the reader just pauses for the debt
and the sender feels it as backpressure. Only who goes on over the budget with messages too small to be audio is
to be closed.
"""

from __future__ import annotations

FLOOD_S = 5.0  #: so long over the budget without a pause in which half of the burst came back
SMALL_BYTES = 256  #: 10 ms of telephony audio in its message has more
BIG_BYTES = 8 << 10  #: of a message that count like a message: 50 times real time is fast enough for a file
FRAGMENT_BYTES = 16  #: bytes on the wire beyond a message's own that count like a message more


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
        self._over_since: float | None = None
        self._over_count = self._over_bytes = 0

    def take(self, now: float, size: int = 0, *, extra: int = 0) -> float:
        """Counts one message at time `now` (seconds); returns how many seconds to stop reading, 0.0 if none.

        Args:
            now: seconds.
            size: bytes of the message.
            extra: bytes on the wire that were not the message's: headers of its many fragments, for example.
        """
        if self._at is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        self._level -= max(1.0, size / BIG_BYTES) + max(0, extra) / FRAGMENT_BYTES
        if self._level > self._burst / 2:  # it paused; a reader that woke up late is no pause
            self._over_since = None
        elif self._over_since is None and self._level < 0.0:
            self._over_since, self._over_count, self._over_bytes = now, 0, 0
        self._over_count += 1
        self._over_bytes += size
        return max(0.0, -self._level / self._rate)

    def flooded(self, now: float) -> bool:
        """Whether this is no audio but a flood."""
        over = self._over_since is not None and now - self._over_since > FLOOD_S
        return over and self._over_bytes < SMALL_BYTES * self._over_count
