"""When the words of a reply are said, judged by its text and its sound; it knows no model and no protocol.

The order of the tokens does not tell: the model writes one text id for four speech ids, and a word takes longer to say
than that, so the text runs ahead of the voice, the further the longer the reply. What tells is the length of the text.
While a reply is made, its words are placed by the pace of speech; once it is whole, by their share of the voiced sound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voiceagent.units import VOICE_RATE

LEAD_S = 0.1  #: of silence before the first word, until it is known better
PACE_S = 0.057  #: that a character takes to say, until a voice has shown its own pace
BELIEF = 100  #: characters of its own that a voice must say to count as much as `PACE_S`
MEMORY = 500  #: characters over which a pace is taken
FRAME = VOICE_RATE // 100  #: samples over which loudness is taken
LOOK = VOICE_RATE  #: samples that are looked at together, because each look costs the same
LOUD = 0.02 * 32768  #: root mean square from which on a frame is voiced
PAUSE = 3  #: characters that a punctuation mark counts for
LONG = 4  #: characters that a digit or a sign of a script without spaces counts for: it is spoken as a word

_WIDE = "\u2e80-\U0003ffff"
_WIDE_MARKS = "\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff1f\uff01"
_WORD = re.compile(rf"[{_WIDE}][{_WIDE_MARKS}]*|[^\s{_WIDE}]+")
_MARKS = re.compile(rf"[.,;:?!{_WIDE_MARKS}]")
_SIGNS = re.compile(rf"[0-9{_WIDE}]")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a reply, and where it sounds: seconds from the beginning of the reply's audio."""

    text: str
    start: float
    end: float


@dataclass(slots=True)
class Pace:
    """How fast a voice speaks; it learns from every reply that is whole."""

    seconds: float = PACE_S  #: per character
    _known: int = BELIEF

    def learn(self, length: int, voiced: float) -> None:
        """A reply of this `spoken_length` took `voiced` seconds from its first sound to its last."""
        self.seconds = (self.seconds * self._known + voiced) / (self._known + length)
        self._known = min(self._known + length, MEMORY)


class Captions:
    """The words of one reply and their times.

    Args:
        pace: of the voice that speaks it; `finish` lets it learn.
        speed: how many times as fast as by itself the voice is made to speak.
    """

    def __init__(self, pace: Pace, *, speed: float = 1.0) -> None:
        self._pace = pace
        self._speed = speed
        self._text = ""
        self._length = 0
        self._samples = 0
        self._unseen: list[npt.NDArray[np.int16]] = []
        self._waiting = 0  # samples in it
        self._voiced: tuple[int, int] | None = None  # samples from the first voiced frame to behind the last

    def write(self, delta: str) -> float:
        """More text; returns about when it will be said, in seconds of the reply's audio. Never goes back."""
        at = (LEAD_S + self._length * self._pace.seconds) / self._speed
        self._text += delta
        self._length += spoken_length(delta)
        return round(at, 3)

    def sound(self, pcm: npt.NDArray[np.int16]) -> None:
        """More audio, (n,) at 24 kHz."""
        self._unseen.append(pcm)
        self._waiting += len(pcm)
        if self._waiting >= LOOK:
            self._look()

    def _look(self) -> None:
        heard = np.concatenate([*self._unseen, np.zeros(0, np.int16)])
        frames = len(heard) // FRAME
        self._unseen = [heard[frames * FRAME :]]
        self._waiting = len(self._unseen[0])
        if frames:
            squares = np.square(heard[: frames * FRAME].reshape(frames, FRAME).astype(np.float32))
            loud = np.flatnonzero(squares.mean(axis=1) > LOUD**2)
            if len(loud):
                start = self._samples + int(loud[0]) * FRAME if self._voiced is None else self._voiced[0]
                self._voiced = start, self._samples + (int(loud[-1]) + 1) * FRAME
        self._samples += frames * FRAME

    def finish(self) -> tuple[Word, ...]:
        """The reply is whole: its words, each by its share of the voiced sound; none if nothing was to be heard."""
        self._look()
        if self._voiced is None:
            return ()
        start, end = (place / VOICE_RATE for place in self._voiced)
        self._pace.learn(spoken_length(self._text.strip()), (end - start) * self._speed)
        return spread(self._text, start, end)


def spread(text: str, start: float, end: float) -> tuple[Word, ...]:
    """The words of `text`, said evenly from `start` to `end`, seconds."""
    text = text.strip()
    each = (end - start) / max(spoken_length(text), 1)
    words, done, at = [], 0, start
    for found in _WORD.finditer(text):
        begins = at + each * spoken_length(text[done : found.start()])
        done, at = found.end(), begins + each * spoken_length(found[0])
        words.append(Word(found[0], round(begins, 3), round(at, 3)))
    return tuple(words)


def count_words(text: str) -> int:
    """Words in the text; of a script without spaces every sign is one."""
    return len(_WORD.findall(text))


def spoken_length(text: str) -> int:
    """Characters of the text as they count for the time that it takes to say."""
    signs, marks = len(_SIGNS.findall(text)), len(_MARKS.findall(text))
    return len(text) + (LONG - 1) * signs + (PAUSE - 1) * marks
