"""Weighs a voice over ours: does somebody interrupt, or is it a cough, a word of assent, a rest of our own echo?

It goes by how long, how surely and how loudly somebody speaks. It knows no turns, no audio and no words, and neither
holds nor stops anything: that is the controller's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from voiceagent.core.events import SpeechProb
from voiceagent.core.loudness import Loudness, decibels, power
from voiceagent.units import MODEL_RATE, ms_to_samples

Confirmed = Literal["length", "loud"]
Dismissed = Literal["short", "noise", "faint", "backchannel"]

QUICK = ms_to_samples(200, rate=MODEL_RATE)  #: of unbroken speech, where holding back does not silence us
LOUD = ms_to_samples(320, rate=MODEL_RATE)  #: of speech that is raised, or rising, above what is usual
ORDINARY = ms_to_samples(608, rate=MODEL_RATE)  #: of any other speech: "okay" takes 400 to 550
SOFT = ms_to_samples(704, rate=MODEL_RATE)  #: that is softer than usual, falls, or may be none
FAINT = ms_to_samples(
    1024, rate=MODEL_RATE
)  #: that is so soft that it may be somebody else's (bystanders.py)
SETTLE = ms_to_samples(192, rate=MODEL_RATE)  #: of silence: that was all ("mm-hm" has a gap within)
LONGEST = ms_to_samples(1600, rate=MODEL_RATE)  #: from the first sound on, silence is not waited for any more
NOISE = ms_to_samples(160, rate=MODEL_RATE)  #: what is shorter is no word
SURE = 0.6  #: mean probability of speech, below which it may be none
RAISED_DB, RISING_DB, SOFT_DB, FAINT_DB = 6.0, 3.0, 6.0, 10.0  #: differences of level that count
FADE_DB = 0.003  #: per window, of the loudest that somebody has spoken: 3 dB in half a minute of speech
SHARE = 5  #: windows over which a level is taken, 160 ms


@dataclass(slots=True)
class _Voice:
    """What is being weighed.

    Attributes:
        patient: whether there is time to find out.
        begun: sample at which it began.
        start: sample at which the current, or last, run of it began.
        before: samples of speech in it before that.
        run: samples of speech in that.
        last: sample at which the last speech ended.
        sureness: sum of the probabilities of `windows` windows.
        power: sum of the powers of `leveled` windows.
    """

    patient: bool
    begun: int
    start: int
    before: int = 0
    run: int = 0
    last: int = 0
    sureness: float = 0.0
    windows: int = 0
    power: float = 0.0
    leveled: int = 0

    @property
    def speech(self) -> int:
        """Samples of speech in it."""
        return self.before + self.run

    @property
    def sure(self) -> bool:
        """Whether it is surely speech."""
        return self.sureness >= SURE * self.windows


class BargeIn:
    """The voice over ours that is being weighed, if there is one.

    Args:
        caller: how loudly this person usually speaks.
    """

    def __init__(self, caller: Loudness) -> None:
        self._voice: _Voice | None = None
        self._caller = caller
        # The loudest 160 ms of their usual speech: a word of one syllable is as loud as that, and not raised.
        self._loudest = float("-inf")
        self._stretch: deque[float] = deque(maxlen=SHARE)
        self._recent: deque[float] = deque(maxlen=2 * SHARE)

    @property
    def pending(self) -> bool:
        """Whether a voice is being weighed."""
        return self._voice is not None

    @property
    def speech(self) -> int:
        """Samples of speech in the voice that is being weighed."""
        return 0 if self._voice is None else self._voice.speech

    def learn(self, event: SpeechProb) -> None:
        """The person speaks and we do not: so loud are they."""
        if event.level is not None and event.p >= SURE:
            self._caller.learn(event.level)
            self._stretch.append(event.level)
            level = sum(self._stretch) / SHARE
            if len(self._stretch) == SHARE:
                self._loudest = max(self._loudest - FADE_DB, level)

    def note(self, event: SpeechProb) -> None:
        """Any window of the input, in order."""
        if event.level is not None:
            self._recent.append(event.level)

    def begin(self, *, start: int, patient: bool) -> None:
        """A voice that began at sample `start` is to be weighed; patiently where we are silent meanwhile."""
        self._voice = _Voice(patient, start, start)

    def hear(self, event: SpeechProb, *, start: int) -> Confirmed | None:
        """A window of speech, without a break since sample `start`. Says whether that is enough."""
        voice = self._voice
        assert voice is not None
        if start != voice.start:
            voice.start, voice.before = start, voice.before + voice.run
        voice.run, voice.last = event.at - start, event.at
        voice.windows += 1
        voice.sureness += event.p
        if event.level is not None:
            voice.leveled += 1
            voice.power += power(event.level)
        if not voice.patient:
            return "length" if voice.run >= QUICK else None
        if voice.speech >= LOUD and voice.sure and self._raised():
            return "loud"
        return "length" if voice.speech >= self._needed(voice) else None

    def pause(self, at: int) -> Dismissed | None:
        """Nobody speaks in the window that ends at sample `at`. Says what it was, once that is clear."""
        voice = self._voice
        assert voice is not None
        waits = voice.patient and at - voice.last < SETTLE and at - voice.begun < LONGEST
        return None if waits else self.nature

    @property
    def nature(self) -> Dismissed:
        """What the voice that is weighed was, if that was all."""
        voice = self._voice
        if voice is None or not voice.patient:
            return "short"
        if voice.speech < NOISE or not voice.sure:
            return "noise"
        return "faint" if self._below_usual(voice) >= FAINT_DB else "backchannel"

    def end(self) -> None:
        """It is known what it was, or it does not matter any more."""
        self._voice = None

    def _needed(self, voice: _Voice) -> int:
        """Samples of speech that make an interruption."""
        below = self._below_usual(voice)
        if below >= FAINT_DB:
            return FAINT
        falling = self._rise() <= -RISING_DB
        return SOFT if below >= SOFT_DB or falling or not voice.sure else ORDINARY

    def _below_usual(self, voice: _Voice) -> float:
        """Decibels by which it is softer than usual; 0 if that is not known."""
        return self._caller.above(decibels(voice.power / voice.leveled)) if voice.leveled else 0.0

    def _raised(self) -> bool:
        """Whether the last that was said is much louder than they usually get, or louder and rising."""
        if not self._caller.known or len(self._recent) < 2 * SHARE:
            return False
        above = sum(list(self._recent)[SHARE:]) / SHARE - self._loudest
        return above >= RAISED_DB or (above >= RISING_DB and self._rise() >= RISING_DB)

    def _rise(self) -> float:
        """Decibels from the last but one 160 ms to the last."""
        if len(self._recent) < 2 * SHARE:
            return 0.0
        levels = list(self._recent)
        return (sum(levels[SHARE:]) - sum(levels[:SHARE])) / SHARE
