"""What waits to be played and how much of it was heard, sample by sample. Knows no device, clock or connection."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from voiceagent.units import VOICE_RATE

Block = npt.NDArray[np.int16]  #: mono, 24 kHz

FADE = VOICE_RATE // 200
"""Samples (5 ms) over which a pause falls silent and comes back, instead of a click; they count as heard."""


@dataclass(frozen=True, slots=True)
class Place:
    """So much of a response was heard."""

    response_id: str
    samples: int

    @property
    def ms(self) -> int:
        """The same in whole milliseconds."""
        return self.samples * 1000 // VOICE_RATE


class PlayQueue:
    """What is still to be played; the sound card's thread takes from it.

    Args:
        behind: calls of `take` after which a sample is heard: the way from here to the ear.
    """

    def __init__(self, *, behind: int = 0) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Block]] = deque()
        self._first = ""  # response that was the first to be played
        self._place: Place | None = None
        self._places: deque[Place | None] = deque([None] * (behind + 1), maxlen=behind + 1)
        self._paused = False
        self._loudness = FADE  # in steps of the fade; fewer around a pause

    def play(self, samples: Block, response_id: str = "") -> None:
        """Plays this behind what is still to be played."""
        with self._lock:
            self._waiting.append((response_id, samples))
            self._first = self._first or response_id

    def drop(self) -> None:
        """Forgets what is still to be played; a pause is over."""
        with self._lock:
            self._waiting.clear()
            self._paused, self._loudness = False, FADE

    def pause(self) -> None:
        """Falls silent within 5 ms and keeps the rest."""
        with self._lock:
            self._paused = True

    def resume(self) -> None:
        """Goes on at the sample behind the last one."""
        with self._lock:
            self._paused = False

    @property
    def busy(self) -> bool:
        """Something is still to be played."""
        return len(self._waiting) > 0

    @property
    def place(self) -> Place | None:
        """What was last heard and how far; of the first response, before it is, nothing. None before all sound."""
        with self._lock:
            return self._places[0] or (Place(self._first, 0) if self._first else None)

    def take(self, count: int) -> Block:
        """The next `count` samples, silence where there are none, and during a pause."""
        with self._lock:
            taken = self._soften(self._pull(min(count, self._loudness) if self._paused else count))
            if not self._waiting:  # nothing sounds that would have to fade
                self._loudness = 0 if self._paused else FADE
            self._places.append(self._place)
        return np.concatenate([taken, np.zeros(count - len(taken), np.int16)])

    def _pull(self, count: int) -> Block:
        parts = [np.zeros(0, np.int16)]
        while count > 0 and self._waiting:
            response_id, samples = self._waiting.popleft()
            part, rest = samples[:count], samples[count:]
            if len(rest):
                self._waiting.appendleft((response_id, rest))
            before = self._place.samples if self._place and self._place.response_id == response_id else 0
            self._place = Place(response_id, before + len(part))
            count -= len(part)
            parts.append(part)
        return np.concatenate(parts)

    def _soften(self, samples: Block) -> Block:
        """Fades towards the silence of a pause, or out of it."""
        if not self._paused and self._loudness == FADE:
            return samples
        steps = np.arange(1, len(samples) + 1)
        levels = np.clip(self._loudness + (-steps if self._paused else steps), 0, FADE)
        if len(levels):
            self._loudness = int(levels[-1])
        return (samples * (levels / FADE)).astype(np.int16)


def blocks_behind(latency_s: float, block_s: float) -> int:
    """Calls of `take`, each of `block_s`, that lie between one and the moment when its samples are heard."""
    return max(0, ceil(latency_s / block_s))
