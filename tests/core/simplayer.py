"""A simulated player: what a listener has really heard, worked out apart from the code that it judges."""

from __future__ import annotations

from collections import deque

RATE = 24_000


class Player:
    """Plays what arrives, in order, at 24 kHz; waits when it has nothing.

    Args:
        delay: seconds between our sending and the audio's being ready to play.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.paused = False
        self.played: dict[int, float] = {}  # samples by turn
        self._time = 0.0
        self._coming: deque[tuple[float, int, int]] = deque()  # (ready at, turn, samples)
        self._ready: deque[tuple[int, float]] = deque()

    def receive(self, turn: int, samples: int, now: float) -> None:
        self._coming.append((now + self.delay, turn, samples))
        self.played.setdefault(turn, 0.0)

    def advance(self, now: float) -> None:
        while self._coming and self._coming[0][0] <= now:
            time, turn, samples = self._coming.popleft()
            self._play(time)
            self._ready.append((turn, float(samples)))
        self._play(now)

    def flush(self, turn: int) -> None:
        self._coming = deque(part for part in self._coming if part[1] != turn)
        self._ready = deque(part for part in self._ready if part[0] != turn)

    @property
    def waiting(self) -> float:
        """Samples received or on their way, and not played."""
        return sum(part[2] for part in self._coming) + sum(part[1] for part in self._ready)

    def _play(self, until: float) -> None:
        left = 0.0 if self.paused else max(0.0, until - self._time) * RATE
        self._time = max(until, self._time)
        while left > 0 and self._ready:
            turn, samples = self._ready.popleft()
            now = min(left, samples)
            self.played[turn] += now
            left -= now
            if samples > now:
                self._ready.appendleft((turn, samples - now))
