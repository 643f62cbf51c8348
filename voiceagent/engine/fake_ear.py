"""The scripted engine's ear: loudness stands for speech. It knows no session."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voiceagent.audio.pcm import level_db

WINDOW = 512  #: samples per speech probability, as in the real detector
LOUD_DB = -40.0  #: level above which it hears speech


class EnergyStream:
    """A voice activity detector that goes by loudness: 0.95 for a window above `LOUD_DB`, else 0.02."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)
        self._heard: deque[tuple[int, float, float]] = deque()

    @property
    def ready(self) -> bool:
        """As `models.silero.VadStream.ready`."""
        return bool(self._heard)

    def feed(self, at: int, samples: npt.NDArray[np.float32]) -> None:
        """As `models.silero.VadStream.feed`."""
        self._heard += self.push(at, samples)

    def take(self) -> tuple[int, float, float]:
        """What is heard in the next window."""
        return self._heard.popleft()

    def push(self, at: int, samples: npt.NDArray[np.float32]) -> list[tuple[int, float, float]]:
        """As `models.silero.VadStream.push`: (end of the window, probability, level) of each whole window."""
        pending = np.concatenate([self._rest, samples])
        start = at - len(self._rest)
        whole = len(pending) // WINDOW * WINDOW
        self._rest = pending[whole:]
        heard = []
        for offset in range(0, whole, WINDOW):
            level = level_db(pending[offset : offset + WINDOW])
            heard.append((start + offset + WINDOW, 0.95 if level > LOUD_DB else 0.02, level))
        return heard


class EnergyNetwork:
    """What finds voices by loudness; see `engine.detector.VoiceNetwork`."""

    def open(self) -> EnergyStream:
        """A new session."""
        return EnergyStream()

    def hear(self, streams: Sequence[EnergyStream]) -> list[tuple[int, float, float]]:
        """The next window of each."""
        return [stream.take() for stream in streams]
