"""Stands where the line's audio comes in and keeps our own voice out of it; it decides nothing about turns.

Where what was sent sounds on the time line of what comes in follows from the clock: the player plays what it has
without a gap, and incoming audio is as late as the best of it came.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from voiceagent.audio.pcm import int16_to_float
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core.echo import HUSHED, LONGEST_DELAY, EchoCanceller, EchoReport, Samples
from voiceagent.units import MODEL_RATE, VOICE_RATE

SOON = MODEL_RATE // 2  #: samples ahead of the incoming audio that are laid out for the canceller
UNSURE = 7  #: searches, four a second of our voice, in which its echo may yet be found: nobody interrupts it
BEHIND = MODEL_RATE // 2  #: later than this, the client has paused its audio, and its clock is set anew
DRIFT = 1e-3  #: seconds per second by which two clocks may differ


class EchoGuard:
    """The incoming audio of one call without our own voice."""

    def __init__(self) -> None:
        self._canceller = EchoCanceller()
        self._thinner = _thinner()
        self._given = 0  # where the next audio that is passed on begins
        self._offset: float | None = None  # samples of incoming audio at time 0 of the clock
        self._until = 0.0  # when the player will have played all
        self._end = 0  # the same, on the incoming audio's time line
        self._ahead: deque[tuple[int, Samples]] = deque()  # of what was sent, not laid out yet

    @property
    def report(self) -> EchoReport:
        """What is known of the line's echo."""
        return self._canceller.report

    def hear(self, event: ev.AudioIn, now: float) -> ev.AudioIn:
        """Takes audio in; returns what of it is ready, which may be a little less, or a little of before."""
        if self._offset is None:
            self._given = event.at
        self._set_clock(event, now)
        while self._ahead and self._ahead[0][0] < event.at + len(event.pcm) + SOON:
            self._canceller.played.write(*self._ahead.popleft())
        return self._passed(self._canceller.hear(event.pcm), event.at)

    def flush(self) -> ev.AudioIn:
        """What was not ready yet; before the client's word that its audio is whole."""
        return self._passed(self._canceller.flush(), self._given)

    def did(self, action: act.Action, now: float) -> None:
        """What was decided; of it, what the player gets and drops."""
        if isinstance(action, act.SendAudio):
            start = max(now, self._until)
            if now >= self._until:  # the player had run dry
                self._lay(self._thinner.finish())
                self._thinner = _thinner()
                self._end = max(self._end, self._place(now))
            self._lay(self._thinner.push(int16_to_float(action.pcm)))
            self._until = start + len(action.pcm) / VOICE_RATE
        elif isinstance(action, act.Flush):
            self._ahead.clear()
            self._thinner = _thinner()
            self._until, self._end = now, self._place(now)
            self._canceller.played.cut(self._end)

    def _lay(self, samples: Samples) -> None:
        """What the player plays next."""
        if len(samples):
            self._ahead.append((self._end, samples))
            self._end += len(samples)

    def _passed(self, samples: Samples, at: int) -> ev.AudioIn:
        audible = self._canceller.played.end > at - LONGEST_DELAY
        if audible and self._canceller.delay is None and self._canceller.searches < UNSURE:
            samples = samples * np.float32(HUSHED)
        passed = ev.AudioIn(self._given, samples)
        self._given += len(samples)
        return passed

    def _place(self, time: float) -> int:
        return round(time * MODEL_RATE + (self._offset or 0.0))

    def _set_clock(self, event: ev.AudioIn, now: float) -> None:
        """Audio can come late, but not early: its clock is that of the least late."""
        offset = event.at + len(event.pcm) - now * MODEL_RATE
        if self._offset is None or offset < self._offset - BEHIND:
            self._offset = offset
        else:
            self._offset = max(offset, self._offset - DRIFT * len(event.pcm))


def _thinner() -> LiveResampler:
    return LiveResampler(source=VOICE_RATE, target=MODEL_RATE)
