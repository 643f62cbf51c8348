"""What the client's player has played, from what was sent and when; time is passed in.

Samples count over the whole session. The player is assumed to play what it has, without a pause, at 24 kHz; when it
has nothing it waits. An acknowledgement can only lower the estimate: nobody has heard more than time allows.
"""

from __future__ import annotations

from voiceagent.units import VOICE_RATE


class Playout:
    """The playout clock of one session."""

    def __init__(self) -> None:
        self.sent = 0
        self._anchor_samples = 0  # played at `_anchor_time`
        self._anchor_time = 0.0

    def played(self, now: float) -> int:
        """Samples played by `now`, never more than were sent."""
        running = self._anchor_samples + int((now - self._anchor_time) * VOICE_RATE)
        return min(self.sent, max(self._anchor_samples, running))

    def send(self, samples: int, now: float) -> None:
        """`samples` more were sent. A player that had run dry starts again now."""
        if self.played(now) == self.sent:
            self._anchor_samples, self._anchor_time = self.sent, now
        self.sent += samples

    def acknowledge(self, played: int, now: float) -> None:
        """The player says how far it is; it may lag behind the estimate, but not run ahead of it."""
        if played < self.played(now):
            self._anchor_samples, self._anchor_time = max(0, played), now

    def flush(self, now: float) -> None:
        """The player dropped what it had not played."""
        self.sent = self.played(now)
        self._anchor_samples, self._anchor_time = self.sent, now

    def ahead(self, now: float) -> int:
        """Samples that the player still has."""
        return self.sent - self.played(now)

    def time_when_ahead(self, samples: int) -> float:
        """When the player will have `samples` left (it must have more now)."""
        return self._anchor_time + (self.sent - samples - self._anchor_samples) / VOICE_RATE
