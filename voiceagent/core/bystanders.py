"""Tells voices in the background from the caller's: a voice far weaker than theirs is none of ours, until it insists.

It goes by levels and by silences, and knows no turns, no words and no audio; what is passed over is the controller's.
Nobody is deaf to a caller who has moved away: who begins for the third time, or speaks on for 5 s, is the caller, and
how loudly they speak is learnt anew.
"""

from __future__ import annotations

from collections import deque

from voiceagent.core.events import SpeechProb
from voiceagent.core.loudness import Loudness, decibels, power
from voiceagent.units import MODEL_RATE, ms_to_samples

WINDOW_MS = 32  #: of each probability
VOICE = 0.4  #: probability from which on a window counts as speech, within a voice
DOUBT_DB = 10.0  #: so far below the caller's level it may be somebody else's voice
FAR_DB = 12.5  #: and so far below, over `SPAN`, it is
PLAIN_DB = 16.0  #: and so far below, over the first `SOON`
BACK_DB = 9.0  #: who is nearer than this, over `SOON`, is the caller, whoever spoke before
LEAST, SOON, SPAN = 3, 10, 32  #: windows of speech: 96 ms, 320 ms, 1024 ms
APART = ms_to_samples(192, rate=MODEL_RATE)  #: of silence is between two voices,
WAITED = ms_to_samples(
    1000, rate=MODEL_RATE
)  #: and so much behind one in the background: they have waited for us
FORGOTTEN = ms_to_samples(10_000, rate=MODEL_RATE)  #: of silence, behind which nobody begins again
INSISTS = 2  #: times that somebody began again
LONG = 156  #: windows of speech (5 s) that nobody is passed over for


class Bystanders:
    """The voices of one call.

    Args:
        caller: how loudly the caller speaks.

    Attributes:
        far: the voice that is heard, or was heard last, is somebody's in the background.
        voices: that were heard so far.
    """

    def __init__(self, caller: Loudness) -> None:
        self.far, self.voices = False, 0
        self._caller = caller
        self._recent: deque[float] = deque(maxlen=SPAN)  # powers of the voice's last windows
        self._length = 0  # its windows of speech
        self._last = 0  # sample at which its last one ended
        self._presumed = False  # it is taken to be in the background because the one before was
        self._again = 0  # how often somebody weak began again

    @property
    def doubtful(self) -> bool:
        """Whether it may be in the background: it is not clear yet."""
        return self.far or (self._length < SPAN and self._below() >= DOUBT_DB)

    @property
    def too_far(self) -> bool:
        """Whether it was in the background, if that was all of it."""
        return self.far or self._below() >= FAR_DB

    @property
    def speech_ms(self) -> int:
        """Milliseconds of speech in the voice that is heard, or was heard last."""
        return self._length * WINDOW_MS

    def hear(self, event: SpeechProb) -> None:
        """Any window of the input, in order."""
        if event.level is None or not event.p >= VOICE:
            return
        if event.at - self._last > APART:
            self._begin(event.at - self._last)
        self._recent.append(power(event.level))
        self._length += 1
        self._last = event.at
        self._decide()

    def _begin(self, silence: int) -> None:
        """A voice, so many samples behind the last. Who goes on in the background is presumed to be there."""
        if silence > FORGOTTEN or self._below() < FAR_DB:
            self._again = 0
        elif silence > WAITED:
            self._again += 1
        self.voices += 1
        self._recent.clear()
        self._length = 0
        self._presumed = self.far = self.far and not self._presumed and silence <= WAITED
        if self._again >= INSISTS:
            self._believe()

    def _decide(self) -> None:
        below = self._below()
        if self._length >= LEAST and self._below(SOON) < BACK_DB:
            self.far = False
        elif self._length >= SOON and below >= (FAR_DB if self._length >= SPAN else PLAIN_DB):
            self.far, self._presumed = True, False
        elif self._presumed and self._length >= SPAN:
            self.far = False
        if self.far and self._length >= LONG:
            self.far = False
            self._believe()

    def _believe(self) -> None:
        self._again = 0
        self._caller.forget()

    def _below(self, windows: int = SPAN) -> float:
        """Decibels by which its last windows are weaker than the caller; 0 if nobody knows."""
        if not self._caller.well_known or not self._recent:
            return 0.0
        last = list(self._recent)[-windows:]
        return self._caller.above(decibels(sum(last) / len(last)))
