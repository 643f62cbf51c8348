"""From probabilities of speech to voice on, voice off and the end of a turn; it knows no audio and no turns.

Its only clock is the sample count of the input (16 kHz), so a stalled network or loop cannot make a false end.
"""

from __future__ import annotations

from voiceagent.core.options import ServerVad
from voiceagent.core.patience import SILENCE, EndReason, Patience
from voiceagent.core.tables import Voice
from voiceagent.units import MODEL_RATE

WINDOW = 512  #: samples per probability (32 ms)
ONSET_WINDOWS = 3  #: speech windows that make a voice (96 ms): a click or a key press is shorter
HYSTERESIS = 0.15  #: voice goes off this far below the threshold, so that a weak syllable does not cut it
LATER = MODEL_RATE * 6 // 5  #: who goes on this soon behind an end had not finished
LEAST_OFF = 0.01  #: however low the threshold, a probability below this is silence


class Endpointer:
    """Hysteresis over the probabilities of consecutive 32 ms windows.

    Attributes:
        run_start: sample at which the current or last stretch of speech began.
        speech_end: sample at which it ended, so far.
        judged: sample up to which probabilities are known.
        patience: says how long a silence ends the turn; it knows the person, and is never reset.
        reason: why the last turn was over.
    """

    def __init__(self, vad: ServerVad) -> None:
        self.patience = Patience(vad)
        self.reason: EndReason = SILENCE
        self.configure(vad)
        self.run_start = 0
        self.speech_end = 0
        self.judged = 0
        self._run = 0  # windows of speech, while no voice is on; windows of doubt neither count nor break it
        self._first = 0  # sample at which that run began
        self._inside = False  # an utterance is going on
        self._on = False

    def configure(self, vad: ServerVad) -> None:
        """Other thresholds from the next window on; what is going on goes on."""
        self._on_at = vad.threshold
        self._off_at = max(vad.threshold - HYSTERESIS, LEAST_OFF)
        self.patience.configure(vad)

    def reset(self, at: int) -> None:
        """No utterance is going on; windows that end at or before sample `at` are old news."""
        self.judged = max(self.judged, at)
        self._run, self._inside, self._on = 0, False, False

    def reset_behind(self, at: int) -> None:
        """Audio before sample `at` is lost: what is still to be said of it is old news."""
        if self.judged < at:
            self.reset(at)

    @property
    def earliest(self) -> int:
        """No voice that is yet to be noticed began before this sample."""
        return self._first if self._run else self.judged

    def may_be_voice(self, p: float) -> bool:
        """Whether a window of this probability is not clearly silent. NaN counts as silence."""
        return p >= self._off_at

    @property
    def silence(self) -> int:
        """Samples since the last word of the utterance in progress; 0 while it is said."""
        return self.judged - self.speech_end if self._inside and not self._on else 0

    def told(self, at: int, text: str, complete: float) -> None:
        """A verdict on what was said up to sample `at`; it is too late for one once speech has gone on."""
        if self.silence and at == self.speech_end:
            self.patience.told(text, complete)

    def push(self, at: int, p: float, level: float | None = None) -> Voice | None:
        """One window that ends at sample `at`; at most one thing happens in it. NaN counts as silence."""
        if at <= self.judged:
            return None
        self.judged = at
        if self._on:
            if p >= self._off_at:
                self.patience.voiced(WINDOW / MODEL_RATE, level)
            return self._while_on(at, p)
        return self._while_off(at, p)

    def _while_on(self, at: int, p: float) -> Voice | None:
        if p >= self._off_at:
            self.speech_end = at
            return None
        self._on = False
        self._run = 0
        self.patience.paused()
        return Voice.OFF

    def _while_off(self, at: int, p: float) -> Voice | None:
        if p >= self._on_at:
            if self._run == 0:
                self._first = max(at - WINDOW, 0)
            self._run += 1
            # Within an utterance one window is enough: the person is there, only a word's beginning may be soft.
            if self._inside or self._run >= ONSET_WINDOWS:
                if self._inside or (self.speech_end and self._first - self.speech_end < LATER):
                    self.patience.resumed(self._first - self.speech_end, cut=not self._inside)
                if not self._inside:
                    self.patience.cadence.clear()
                self.run_start, self.speech_end = self._first, at
                self._inside, self._on = True, True
                return Voice.ON
        elif not p >= self._off_at:
            self._run = 0
        if self._inside and at - self.speech_end >= self.patience.wait:
            self.reason = self.patience.reason
            self.reset(at)
            return Voice.ENDED
        return None
