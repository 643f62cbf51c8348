"""The scripted engine's ear: loudness stands for speech. It knows no session."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WINDOW = 512  #: samples per speech probability, as in the real detector
LOUD = 0.01  #: root mean square above which it hears speech


class EnergyStream:
    """A voice activity detector that goes by loudness: 0.95 for a window above `LOUD`, else 0.02."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, at: int, samples: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
        """As `models.silero.VadStream.push`: (end position of the window, probability) of each whole window."""
        pending = np.concatenate([self._rest, samples])
        start = at - len(self._rest)
        whole = len(pending) // WINDOW * WINDOW
        self._rest = pending[whole:]
        heard = []
        for offset in range(0, whole, WINDOW):
            loudness = float(np.sqrt(np.mean(np.square(pending[offset : offset + WINDOW]))))
            heard.append((start + offset + WINDOW, 0.95 if loudness > LOUD else 0.02))
        return heard
