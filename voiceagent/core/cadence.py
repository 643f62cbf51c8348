"""How a voice falls off: the loudness of the last quarter of a second beside that of the whole; it decides nothing.

People let their voice sink where they have finished, and hold it where they stop to think (as intensity at the end of
a turn is described by A. Gravano and J. Hirschberg, "Turn-taking cues in task-oriented dialogue", 2011). It hears
levels of windows, no sound, so a recorded call is judged again as it was.
"""

from __future__ import annotations

from collections import deque
from math import log10

WHOLE = 125  #: windows of voice that are compared with, 4 s
LAST = 8  #: windows of voice that are the end, 256 ms
LOUDEST = 3  #: windows whose mean is the loudest that the voice is
VOICED_DB = 15.0  #: what is so far below that is no longer the voice, but its echo or the room


class Cadence:
    """The levels of the voice that is speaking."""

    def __init__(self) -> None:
        self._levels: deque[float] = deque(maxlen=WHOLE)

    def clear(self) -> None:
        """Somebody begins anew."""
        self._levels.clear()

    def hear(self, level: float | None) -> None:
        """The level of one more window, in decibels; None = not known."""
        if level is not None:
            self._levels.append(level)

    @property
    def fall_db(self) -> float | None:
        """How much quieter the end is than the whole, in decibels; None where too little was heard."""
        levels = list(self._levels)
        if len(levels) < 2 * LAST:
            return None
        floor = sum(sorted(levels)[-LOUDEST:]) / LOUDEST - VOICED_DB
        while levels and levels[-1] < floor:
            levels.pop()
        voiced = [level for level in levels if level >= floor]
        return _mean_db(voiced) - _mean_db(levels[-LAST:])


def _mean_db(levels: list[float]) -> float:
    """The level of the mean power."""
    return 10 * log10(sum(10 ** (level / 10) for level in levels) / len(levels))
