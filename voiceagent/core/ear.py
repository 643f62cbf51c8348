"""The ear: collects the person's audio, says when an utterance begins and ends, and cuts it into pieces.

It decides nothing about replies: whether a voice is an interruption, and what an utterance leads to, is the
controller's. Conservation: every sample between a voice's beginning and the end of its utterance is in exactly one
piece of it.
"""

from __future__ import annotations

from collections.abc import Callable

from voiceagent.core.endpoint import Endpointer
from voiceagent.core.history import Piece
from voiceagent.core.options import ServerVad
from voiceagent.core.patience import EndReason
from voiceagent.core.segments import InputBuffer, Samples
from voiceagent.core.tables import EAR, Ear, Voice
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, ms_to_samples

TAIL = ms_to_samples(300, rate=MODEL_RATE)  #: silence after the last word that stays with an utterance
LEAST_COMMIT = ms_to_samples(
    100, rate=MODEL_RATE
)  #: least audio that makes an item, as in the Realtime protocol
RING = (
    60 * MODEL_RATE
)  #: quiet audio kept while its probabilities are awaited: a file may come faster than speech
GROWING = 10 * MODEL_RATE  #: longest piece where words are wanted while the person still speaks
LONGEST = 600 * MODEL_RATE  #: longest utterance (10 min): bounds what a session can make us keep
STARVED_S = 4.0  #: an utterance whose probabilities stay away this long is over: the client stopped sending


class Listener:
    """The person's side of a call.

    Args:
        vad: how turns are found; None = the client says so by committing.
        new_piece: numbers a piece of audio.
        piece_samples: longest piece.
    """

    def __init__(
        self,
        vad: ServerVad | None,
        new_piece: Callable[[Samples], Piece],
        *,
        piece_samples: int = PIECE_SAMPLES,
    ) -> None:
        self.vad = vad
        self.state = Ear.QUIET
        self.buffer = InputBuffer()
        self._new_piece = new_piece
        self._piece_samples = piece_samples
        self._endpoint = Endpointer(vad or ServerVad())
        self._pieces: list[Piece] = []
        self._taken = 0  # samples in `_pieces`
        self._offer: Piece | None = None  # the rest of the utterance, should it be over already
        self._stirred = 0  # sample at which something was heard last that may be a voice
        self._heard_at = 0.0  # time of the last probability

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The full pieces of the utterance in progress."""
        return tuple(self._pieces)

    @property
    def empty(self) -> bool:
        """Whether nothing is kept, so that the next audio begins an utterance that the client will commit."""
        return not self._pieces and not len(self.buffer)

    @property
    def run_start(self) -> int:
        """Sample at which the current stretch of speech began."""
        return self._endpoint.run_start

    @property
    def judged(self) -> int:
        """Sample up to which it is known whether somebody speaks."""
        return self._endpoint.judged

    @property
    def still(self) -> int:
        """For how many samples nothing was heard that may be a voice."""
        return self.judged - self._stirred

    @property
    def offered(self) -> bool:
        """Whether the utterance will still be what `offer` said, if it ends by itself."""
        return self._offer is not None

    @property
    def silence(self) -> int:
        """Samples since the last word of the utterance in progress; 0 while it is said."""
        return self._endpoint.silence

    @property
    def silence_at_end(self) -> int:
        """Samples since the last word, of an utterance in progress or just over."""
        return max(0, self.judged - self._endpoint.speech_end) if self.vad is not None else 0

    @property
    def speech_end(self) -> int:
        """Sample at which the last word ended, so far."""
        return self._endpoint.speech_end

    @property
    def reason(self) -> EndReason:
        """Why the utterance is over that `judge` has just found to be."""
        return "too_long" if self._length() >= LONGEST else self._endpoint.reason

    @property
    def last_word(self) -> float:
        """When the last word of the utterance in progress was said, if its audio came as it was spoken."""
        return self._heard_at - (self.judged - self._endpoint.speech_end) / MODEL_RATE

    @property
    def deadline(self) -> float | None:
        """When the utterance in progress is over for want of news; None if there is none."""
        return None if self.state is Ear.QUIET else self._heard_at + STARVED_S

    def configure(self, vad: ServerVad | None) -> None:
        """Takes other settings. Turning detection off keeps an utterance in progress; turning it on starts afresh."""
        if vad is None and self.vad is not None and self.state is Ear.QUIET:
            self.buffer.drop(self.buffer.end)
        elif vad is not None and self.vad is None:
            self._pieces = []
            self._endpoint.reset(self.buffer.start)
        if vad is None:
            self._go(Voice.FORGOTTEN)
        else:
            self._endpoint.configure(vad)
        self.vad = vad
        self._offer = None

    def hear(self, at: int, pcm: Samples) -> list[Piece]:
        """Takes audio in; returns pieces that became full by it."""
        if self.vad is None and self._length() >= LONGEST:
            return []  # nobody speaks ten minutes without a commit; what exceeds them is not kept
        begun = self.buffer.start
        self.buffer.append(at, pcm)
        if self.buffer.start != begun:  # a gap: what was offered is not there any more
            self._offer = None
        if self.vad is None:
            return self._cut_full(self.buffer.end)
        if self.state is Ear.QUIET:
            if len(self.buffer) > RING:
                self.buffer.drop(self.buffer.end - RING)
            if self.buffer.start != begun:
                self._endpoint.reset_behind(self.buffer.start)
        return []

    def goes_on(self, at: int, pcm: Samples) -> bool:
        """`hear`, if that is all there is to it: audio behind the last, which waits for its probabilities."""
        if self.vad is None or at != self.buffer.end:
            return False
        self.hear(at, pcm)
        return True

    def stays_quiet(self, at: int, p: float, now: float, level: float | None) -> bool:
        """`judge`, if that is all there is to it: silence where nobody speaks."""
        if self.vad is None or self.state is not Ear.QUIET or self._endpoint.may_be_voice(p):
            return False
        self.judge(at, p, now, level)
        return True

    def said_last(self) -> Piece | None:
        """What was said behind the full pieces up to now, as a piece; nothing is taken. None if nothing.

        It is the one that was offered, if the utterance will still be that.
        """
        if self._offer is not None:
            return self._offer
        heard = self.buffer.peek(self._natural_end)
        return self._new_piece(heard) if len(heard) else None

    def told(self, at: int, text: str, complete: float) -> None:
        """A verdict on what was said up to sample `at`; see `Endpointer.told`."""
        self._endpoint.told(at, text, complete)

    def judge(
        self, at: int, p: float, now: float, level: float | None = None
    ) -> tuple[Voice | None, list[Piece]]:
        """Takes one probability in; returns what it changed, and pieces that became full.

        After `Voice.ENDED` the state is still what it was: `finish` takes the utterance.
        """
        if self.vad is None:
            return None, []
        self._heard_at = now
        if at > self.judged and self._endpoint.may_be_voice(p):
            self._stirred, self._offer = at, None
        voice = self._endpoint.push(at, p, level)
        if voice is Voice.ENDED:
            return voice, []
        if voice is Voice.ON and self.state is Ear.QUIET:
            self.buffer.drop(self.run_start - self._prefix(self.vad))
        if voice is not None:
            self._go(voice)
        if self.state is Ear.QUIET:
            self.buffer.drop(self._endpoint.earliest - self._prefix(self.vad))
            return voice, []
        if self._length() >= LONGEST:
            return Voice.ENDED, []
        return voice, [] if self.offered else self._cut_full(self._natural_end)

    def offer(self) -> tuple[tuple[Piece, ...], list[Piece]]:
        """The utterance in progress as if it were over; it holds for as long as nothing stirs (`offered`).

        Returns:
            The utterance in pieces, none if its audio was lost; those of them that nobody was told of yet.
        """
        fresh = self._cut_full(self._natural_end)
        if self._natural_end <= self.buffer.start:
            return (), fresh
        self._offer = self._new_piece(self.buffer.peek(self._natural_end))
        return (*self._pieces, self._offer), [*fresh, self._offer]

    def can_commit(self) -> bool:
        """Whether there is anything that a client may commit."""
        if self.vad is None:
            return self._length() >= LEAST_COMMIT
        return (
            self.state is not Ear.QUIET
            or self.buffer.end - max(self.judged, self.buffer.start) >= LEAST_COMMIT
        )

    def finish(self, *, whole: bool) -> tuple[tuple[Piece, ...], list[Piece], int]:
        """Ends the utterance.

        Args:
            whole: take all audio that came (a commit by the client); else up to a little behind the last word, or just
                what was offered.

        Returns:
            The utterance in pieces; those of them that nobody was told of yet; the sample at which it ends.
        """
        until = self.buffer.end if whole else self._natural_end
        offer, self._offer = None if whole else self._offer, None
        if offer is not None:
            self.buffer.drop(self.buffer.start + len(offer.audio))
            self._pieces.append(offer)
        fresh = [] if offer is not None else self._cut_full(until)
        if offer is None and until > self.buffer.start:
            fresh.append(self._cut(until))
        pieces, self._pieces, self._taken = tuple(self._pieces), [], 0
        end = self.buffer.start
        self._endpoint.reset(end)
        self._go(Voice.ENDED)
        return pieces, fresh, end

    def forget(self, *, everything: bool) -> None:
        """Drops the utterance in progress; with `everything` also what may be the beginning of the next."""
        self._pieces, self._taken, self._offer = [], 0, None
        keep = 0 if everything or self.vad is None else self.buffer.end - self.judged + self._prefix(self.vad)
        self.buffer.drop(self.buffer.end - keep)
        self._endpoint.reset(self.buffer.end if everything else self.judged)
        self._go(Voice.FORGOTTEN)

    def take_silence(self) -> list[Piece]:
        """What was heard last, as the utterance of somebody who says nothing; empty if nothing was heard."""
        until = min(self.judged, self.buffer.start + PIECE_SAMPLES)
        return [self._new_piece(self.buffer.take(until))] if until > self.buffer.start else []

    @property
    def _natural_end(self) -> int:
        """Sample at which the utterance ends, if nothing more is said."""
        return min(self.judged, self._endpoint.speech_end + TAIL)

    def _prefix(self, vad: ServerVad) -> int:
        return ms_to_samples(vad.prefix_padding_ms, rate=MODEL_RATE)

    def _length(self) -> int:
        return self._taken + len(self.buffer)

    def _cut_full(self, until: int) -> list[Piece]:
        """Cuts pieces off while more than the longest lies before sample `until`; where a pause is likeliest."""
        full = []
        while until - self.buffer.start >= self._piece_samples:
            end = self.buffer.start + self._piece_samples
            full.append(self._cut(self.buffer.quietest(end - self._piece_samples // 5, end)))
        return full

    def _cut(self, until: int) -> Piece:
        piece = self._new_piece(self.buffer.take(until))
        self._pieces.append(piece)
        self._taken += len(piece.audio)
        return piece

    def _go(self, voice: Voice) -> None:
        self.state = EAR[self.state, voice]
