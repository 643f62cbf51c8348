"""A loudspeaker at the other end, worked out: what was played when. It knows no server and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from voiceagent.units import VOICE_RATE

Pcm = npt.NDArray[np.int16]


@dataclass(slots=True)
class Stretch:
    """Sound of one turn that was played without a gap, from `start` (seconds) on."""

    turn: int
    start: float
    pcm: Pcm

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + len(self.pcm) / VOICE_RATE


@dataclass(slots=True)
class Player:
    """Plays what comes in order, at once and without a gap as long as it has anything.

    Attributes:
        stretches: all that was or will be played.
        until: when it will have played all it has.
    """

    stretches: list[Stretch] = field(default_factory=list)
    until: float = 0.0

    def receive(self, turn: int, pcm: Pcm, now: float) -> float:
        """More to play; returns when it will begin."""
        start = max(now, self.until)
        self.stretches.append(Stretch(turn, start, pcm))
        self.until = self.stretches[-1].end
        return start

    def flush(self, turn: int | None, now: float) -> None:
        """Drops what it has not played of this turn (None: of any)."""
        kept = []
        for stretch in self.stretches:
            if stretch.end > now and turn in (None, stretch.turn):
                left = max(0, int((now - stretch.start) * VOICE_RATE))
                stretch = Stretch(stretch.turn, stretch.start, stretch.pcm[:left])
            if len(stretch.pcm):
                kept.append(stretch)
        self.stretches = kept
        self.until = max([now, *(stretch.end for stretch in kept)])

    def of(self, turn: int) -> list[Stretch]:
        """What was played of a turn."""
        return [stretch for stretch in self.stretches if stretch.turn == turn]

    def pcm(self, turn: int) -> Pcm:
        """All of it in one piece."""
        return np.concatenate([np.zeros(0, np.int16), *(stretch.pcm for stretch in self.of(turn))])

    def played(self, turn: int, now: float) -> int:
        """Samples of a turn that were played by then."""
        parts = ((int((now - part.start) * VOICE_RATE), len(part.pcm)) for part in self.of(turn))
        return sum(max(0, min(ran, whole)) for ran, whole in parts)

    def playing(self, now: float) -> int | None:
        """The turn that is or was last heard."""
        begun = [stretch.turn for stretch in self.stretches if stretch.start < now]
        return begun[-1] if begun else None

    def span(self, turn: int) -> tuple[float, float] | None:
        """When its first and its last sample were played; None: none were."""
        parts = self.of(turn)
        return (parts[0].start, parts[-1].end) if parts else None

    def gaps(self, turn: int, *, over: float = 0.005) -> list[tuple[float, float]]:
        """Silences inside of a turn: from when to when, of more than `over` seconds."""
        parts = self.of(turn)
        pairs = pairwise(parts)
        return [(a.end, b.start) for a, b in pairs if b.start - a.end > over]
