"""What the client's player has played, judged by what was sent, when, and what it acknowledges; time is passed in.

Samples (24 kHz) count over the whole session. Two answers, for two questions:
- `clock`: the most that can have been played. A player plays what it has at 24 kHz and waits when it has nothing.
  Pacing goes by it.
- `heard`: the least that must have been, for the history must never hold a word that nobody heard. A player that
  acknowledges is taken at its word, as far as time allows; of one that does not, it is assumed that the way to the
  ear takes `WAY_S`.
"""

from __future__ import annotations

from collections import deque

from voiceagent.units import VOICE_RATE

WAY_S = 0.1  #: from our socket to the ear: network, the player's buffer, the sound card
NEVER = float("-inf")
TICK_S = (
    1.0 / VOICE_RATE
)  #: the clock counts whole samples: deadlines look one later, so that the wait is over


class Playout:
    """The playout clock of one session.

    Attributes:
        sent: samples sent so far; after a `flush` all of them count as played, those that a `drop` took do not count.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._acknowledged: int | None = None  # as claimed; believed as far as the clock
        # (time, samples played by then): from each on the player ran until it was dry. Kept for as long as WAY_S.
        self._starts: deque[tuple[float, int]] = deque([(NEVER, 0)])

    def clock(self, at: float) -> int:
        """The most samples that can have been played by time `at`, at most `WAY_S` ago."""
        limit = self.sent
        for time, samples in reversed(self._starts):
            if at >= time:
                ran = 0 if time == NEVER else int((at - time) * VOICE_RATE)
                return min(limit, samples + ran)
            limit = samples
        return limit

    @property
    def acknowledges(self) -> bool:
        """Whether the player says how far it is."""
        return self._acknowledged is not None

    def heard(self, now: float) -> int:
        """Samples that have surely been played."""
        if self._acknowledged is None:
            return self.clock(now - WAY_S)
        return min(self._acknowledged, self.clock(now))

    def ahead(self, now: float) -> int:
        """Samples that the player still has, at least."""
        return self.sent - self.clock(now)

    def send(self, samples: int, now: float) -> None:
        """`samples` more are sent. A player that had run dry starts again now."""
        if self.ahead(now) == 0:
            self._start(now)
        self.sent += samples

    def acknowledge(self, played: int) -> None:
        """The player says how far it is; that it went backwards is not believed, an old message came late."""
        self._acknowledged = max(self._acknowledged or 0, played)

    def flush(self, now: float) -> None:
        """The player dropped what it had not played, and is ready for more."""
        if self._acknowledged is not None:
            self._acknowledged = self.sent
        self._start(now)

    def drop(self, samples: int) -> None:
        """So many of the samples that were sent are not played: it is as if they had not been sent."""
        self.sent -= samples
        if self._acknowledged is not None:
            self._acknowledged = min(self._acknowledged, self.sent)

    def time_when_ahead(self, samples: int) -> float:
        """When the player will have `samples` left, if nothing more is sent."""
        time, played = self._starts[-1]
        return time + (self.sent - samples - played) / VOICE_RATE + TICK_S

    def time_when_heard(self, samples: int) -> float | None:
        """When the first `samples` of what was sent will have been heard; None if that is for the player to say."""
        played = self.time_when_ahead(self.sent - samples)
        if self._acknowledged is None:
            return played + WAY_S
        return played if self._acknowledged >= samples else None

    def _start(self, now: float) -> None:
        self._starts.append((now, self.sent))
        while len(self._starts) > 1 and self._starts[1][0] <= now - WAY_S:
            self._starts.popleft()
