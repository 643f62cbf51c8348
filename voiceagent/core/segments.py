"""The person's audio that is not yet part of the conversation, kept by position and taken out without loss.

It knows no voice and no turn: what is taken, dropped or kept is for others to say.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from voiceagent.units import MODEL_RATE, PIECE_SAMPLES

Samples = npt.NDArray[np.float32]
QUIET = MODEL_RATE // 10  #: so long a pause is looked for where audio has to be cut
SEARCH = 5  #: in the last fifth of a piece
FRAME = MODEL_RATE // 50  #: samples that a loudness is taken over
PAUSE = 20  #: frames: 0.4 s, longer than there is between two words
PHRASE = MODEL_RATE  #: shortest phrase
SILENT = 1e-4  #: root mean square below which there is no speech
LOUD, SOFT = (
    0.2,
    0.03,
)  #: of the loudest: what is above is a voice, what is below is none; between, the noise decides


def quietest(heard: Samples) -> int:
    """Where a cut in this audio (n,) hurts least: in the middle of the quietest 100 ms, the last of several."""
    loudness = np.square(heard[len(heard) % QUIET :]).reshape(-1, QUIET).sum(1)
    return len(heard) - QUIET * int(np.argmin(loudness[::-1])) - QUIET // 2


def pieces_of(audio: Samples) -> list[Samples]:
    """Audio of any length (n,) in read-only pieces of at most 25 s, nothing lost, cut where a pause is likeliest."""
    pieces = []
    while len(audio) > PIECE_SAMPLES:
        late = PIECE_SAMPLES - PIECE_SAMPLES // SEARCH
        cut = late + quietest(audio[late:PIECE_SAMPLES])
        pieces.append(audio[:cut])
        audio = audio[cut:]
    pieces += [audio] if len(audio) else []
    for piece in pieces:
        piece.setflags(write=False)
    return pieces


def phrases_of(audio: Samples) -> list[Samples]:
    """Audio (n,) cut in the middle of its pauses, nothing lost: as it is if there are none, or only noise."""
    frames = len(audio) // FRAME
    levels = np.sqrt(np.square(audio[: frames * FRAME].reshape(frames, FRAME)).mean(1))
    if not frames or (loud := float(np.quantile(levels, 0.95))) < SILENT:
        return [audio]
    floor = float(np.quantile(levels, 0.1))
    voiced = np.flatnonzero(levels > min(LOUD * loud, max(1.5 * floor, SOFT * loud)))
    cuts = [0]
    for at in np.flatnonzero(np.diff(voiced) > PAUSE):
        middle = int(voiced[at] + 1 + voiced[at + 1]) * FRAME // 2
        cuts += [middle] if middle - cuts[-1] >= PHRASE else []
    ends = [*cuts[1:], len(audio)]
    return [audio[start:end] for start, end in zip(cuts, ends, strict=True)]


class InputBuffer:
    """A window [start, end) on the input stream, in 16 kHz samples since the session began.

    Every sample leaves it exactly once: with `take`, or with `drop`.
    """

    def __init__(self) -> None:
        self._chunks: deque[Samples] = deque()
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def append(self, at: int, pcm: Samples) -> None:
        """Adds audio that begins at sample `at`.

        What overlaps with audio known before is ignored. A gap is a fault of whoever numbers the samples: what was
        before it is forgotten, so that positions stay true.
        """
        if at < self.end:
            pcm = pcm[self.end - at :]
        elif at > self.end:
            self._chunks.clear()
            self.start = self.end = at
        if len(pcm):
            self._chunks.append(pcm)
            self.end += len(pcm)

    def quietest(self, start: int, end: int) -> int:
        """Where a cut between samples `start` and `end` hurts least; `end` where not all between them is there."""
        if start < self.start or end > self.end:
            return end
        return start + quietest(np.concatenate([*self._chunks])[start - self.start : end - self.start])

    def take(self, until: int) -> Samples:
        """Removes and returns everything before sample `until`, as one read-only (n,) array."""
        parts = self._remove(until)
        taken = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        taken.setflags(write=False)
        return taken

    def peek(self, until: int) -> Samples:
        """Everything before sample `until`, as one read-only (n,) array; it stays."""
        wanted = min(until, self.end) - self.start
        seen = np.concatenate([*self._chunks])[:wanted].copy() if wanted > 0 else np.zeros(0, np.float32)
        seen.setflags(write=False)
        return seen

    def drop(self, until: int) -> None:
        """Forgets everything before sample `until`."""
        self._remove(until)

    def _remove(self, until: int) -> list[Samples]:
        parts: list[Samples] = []
        while self.start < min(until, self.end):
            chunk = self._chunks.popleft()
            wanted = until - self.start
            if len(chunk) > wanted:
                self._chunks.appendleft(chunk[wanted:])
                chunk = chunk[:wanted]
            parts.append(chunk)
            self.start += len(chunk)
        return parts
