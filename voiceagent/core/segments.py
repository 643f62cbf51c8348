"""The user's audio that is not yet part of the conversation: kept by sample position, taken out in pieces.

Every sample is in at most one piece, and none between the ends of an utterance is lost.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


class InputBuffer:
    """A window on the input stream, [start, end) in 16 kHz samples since the session began."""

    def __init__(self) -> None:
        self._chunks: deque[Samples] = deque()
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, at: int, samples: Samples) -> None:
        """Adds what follows the end; overlap and gaps are a caller's bug."""
        if at != self.end:
            raise ValueError(f"audio at sample {at}, expected {self.end}")
        self._chunks.append(samples)
        self.end += len(samples)

    def take(self, until: int) -> Samples:
        """Removes and returns everything before sample `until`, as one read-only array."""
        wanted = min(until, self.end) - self.start
        parts: list[Samples] = []
        while wanted > 0:
            chunk = self._chunks.popleft()
            if len(chunk) > wanted:
                self._chunks.appendleft(chunk[wanted:])
                chunk = chunk[:wanted]
            parts.append(chunk)
            wanted -= len(chunk)
            self.start += len(chunk)
        taken = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        taken.setflags(write=False)
        return taken

    def drop(self, until: int) -> None:
        """Forgets everything before sample `until`."""
        self.take(until)
