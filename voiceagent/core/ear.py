"""The user's side: is somebody speaking, what belongs to the utterance, when is it over. Samples are its only clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from voiceagent.core.endpoint import Endpointer, VoiceOff, VoiceOn, ms
from voiceagent.core.events import AudioIn, ServerVad, SpeechProb
from voiceagent.core.history import Piece
from voiceagent.core.segments import InputBuffer
from voiceagent.units import PIECE_SAMPLES

TAIL_MS = 300  #: of the silence after the last word that stays with an utterance
LAG_MS = 1000  #: how much audio without a probability is kept when nobody speaks, beside the prefix
MAX_WAITING = 60 * PIECE_SAMPLES  #: 25 min of uncommitted manual audio; older is dropped


class Ear(Enum):
    """What the user is doing."""

    QUIET = auto()
    SPEECH = auto()
    TRAILING = auto()


@dataclass(frozen=True, slots=True)
class Onset:
    """The user may have begun to speak; the utterance begins at sample `start` (prefix padding included)."""

    start: int


@dataclass(frozen=True, slots=True)
class Pause:
    """The speech stopped for now."""


@dataclass(frozen=True, slots=True)
class Over:
    """The silence was long enough: the utterance is over at sample `end`."""

    end: int


Sign = Onset | Pause | Over


class Listener:
    """Collects the user's audio and tells where utterances begin and end."""

    def __init__(self, vad: ServerVad | None) -> None:
        self.buffer = InputBuffer()
        self.state = Ear.QUIET
        self.speech_start = 0  # sample at which the current or last speech began, without prefix
        self._pieces: list[Piece] = []
        self._last_piece = 0
        self._taken = 0  # no utterance begins before this sample
        self.configure(vad)

    def configure(self, vad: ServerVad | None) -> None:
        """Takes other settings; an utterance in progress is kept for a manual commit, or dropped with the VAD off."""
        self.vad = vad
        self._endpointer = Endpointer(vad.threshold if vad else 0.5)
        self.state = Ear.QUIET

    def hear(self, event: AudioIn) -> Piece | None:
        """Takes audio in; returns a piece that has become full (25 s) while the utterance goes on."""
        self.buffer.append(event.at, event.pcm)
        if self.vad is not None and self.state is Ear.QUIET:
            self.buffer.drop(self.buffer.end - ms(self.vad.prefix_padding_ms + LAG_MS))
            return None
        if len(self.buffer) > MAX_WAITING:
            self.buffer.drop(self.buffer.end - MAX_WAITING)
        if len(self.buffer) >= PIECE_SAMPLES:
            return self._cut(self.buffer.start + PIECE_SAMPLES)
        return None

    def judge(self, event: SpeechProb) -> Sign | None:
        """One probability of speech; None if nothing changed."""
        if self.vad is None:
            return None
        sign = self._endpointer.push(event.at, event.p)
        match sign:
            case VoiceOn(at):
                first = self.state is Ear.QUIET
                self.state = Ear.SPEECH
                if not first:
                    return None
                self.speech_start = at
                start = max(at - ms(self.vad.prefix_padding_ms), self._taken, self.buffer.start)
                self.buffer.drop(start)
                return Onset(start)
            case VoiceOff():
                self.state = Ear.TRAILING
                return Pause()
            case None:
                silence = event.at - self._endpointer.speech_end
                if self.state is Ear.TRAILING and silence >= ms(self.vad.silence_duration_ms):
                    return Over(event.at)
                return None

    def spoken_for(self, at: int) -> int:
        """Samples of speech since the onset, at sample `at`."""
        return at - self.speech_start

    def finish(self, *, at: int | None = None) -> tuple[Piece, ...]:
        """Ends the utterance; returns its audio in pieces, empty if there is none.

        Args:
            at: where the silence was noticed; None = everything that was heard (a commit by the client).
        """
        end = self.buffer.end if at is None else min(at, self._endpointer.speech_end + ms(TAIL_MS))
        while end - self.buffer.start > PIECE_SAMPLES:
            self._cut(self.buffer.start + PIECE_SAMPLES)
        if end > self.buffer.start:
            self._cut(end)
        pieces, self._pieces = tuple(self._pieces), []
        self._taken = self.buffer.start
        self.state = Ear.QUIET
        return pieces

    def discard(self) -> None:
        """Forgets the utterance in progress, or everything uncommitted; speech that goes on is a new onset."""
        self._pieces = []
        self.state = Ear.QUIET
        self._endpointer = Endpointer(self.vad.threshold if self.vad else 0.5)
        keep = 0 if self.vad is None else ms(self.vad.prefix_padding_ms)
        self.buffer.drop(self.buffer.end - keep)

    def _cut(self, until: int) -> Piece:
        self._last_piece += 1
        piece = Piece(self._last_piece, self.buffer.take(until))
        self._pieces.append(piece)
        return piece
