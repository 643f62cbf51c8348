"""The echo guard on a line with a way there and back, in simulated time: pacing, jitter, interruptions, phones."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from test_echo import OURS, THEIRS, power, room

from voiceagent.audio.g711 import mulaw_decode, mulaw_encode
from voiceagent.audio.pcm import int16_to_float
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core.guard import EchoGuard

Samples = npt.NDArray[np.float32]
VOICE: npt.NDArray[np.int16] = (
    np.round(soxr.resample(OURS, 16_000, 24_000) * 32767).clip(-32768, 32767).astype(np.int16)
)
FRAME_S, LEAD_S = 0.02, 0.3


@dataclass
class Line:
    """A server that paces its voice, the way to a player and back, and the room between."""

    level_db: float = -12.0
    down_s: float = 0.08
    up_s: float = 0.06
    jitter_s: float = 0.02
    phone: bool = False
    guard: EchoGuard = field(default_factory=EchoGuard)
    incoming: list[Samples] = field(default_factory=list)
    cleaned: list[ev.AudioIn] = field(default_factory=list)
    arrival: float = 0.0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(5)
        self.played = np.zeros(24_000 * 120, np.float32)  # at the player
        self.end = self.sent_until = 0.0
        self.room = room(0, seed=7)

    def run(self, seconds: float, *, speak: tuple[float, float] | None, near: Samples | None = None) -> None:
        """The guard's call of `seconds`; we speak between two times, they from 6 s on."""
        said = 0
        frames = round(seconds / FRAME_S)
        offset = len(self.incoming)
        for number in range(frames):
            now = (offset + number) * FRAME_S
            while speak is not None and speak[0] <= now - offset * FRAME_S < speak[1]:
                if self.sent_until > now + LEAD_S:
                    break
                pcm = VOICE[said : said + 960]
                said += 960
                self.send(pcm, now)
            self.hear(now, near, at_s=6.0 + offset * FRAME_S)

    def send(self, pcm: npt.NDArray[np.int16], now: float) -> None:
        self.guard.did(act.SendAudio(1, "i", pcm), now)
        self.sent_until = max(now, self.sent_until) + len(pcm) / 24_000
        start = max(self.end, now + self.down_s)
        at = round(start * 24_000)
        self.played[at : at + len(pcm)] = pcm / 32768
        self.end = start + len(pcm) / 24_000

    def flush(self, now: float) -> None:
        self.guard.did(act.Flush(1), now)
        self.played[round((now + self.down_s) * 24_000) :] = 0.0
        self.end, self.sent_until = now + self.down_s, now

    def hear(self, now: float, near: Samples | None, *, at_s: float) -> None:
        """The microphone's 20 ms that end at `now`, at the server a little later."""
        history = len(self.room) * 3 // 2 + 480
        stop = round(now * 24_000)
        window = self.played[max(0, stop - history) : stop]
        window = np.pad(window, (history - len(window), 0))
        at16 = soxr.resample(window, 24_000, 16_000)[: history * 2 // 3]
        echo = np.convolve(at16, self.room)[len(at16) - 320 : len(at16)] * 10 ** (self.level_db / 20)
        mixed = echo + self.random.normal(0, 3e-4, 320)
        if near is not None:
            start = round((now - FRAME_S - at_s) * 16_000)
            if start >= 0 and start + 320 <= len(near):
                mixed += near[start : start + 320]
        frame = mixed.astype(np.float32)
        if self.phone:
            narrow = soxr.resample(frame, 16_000, 8_000)
            coded = mulaw_decode(mulaw_encode(np.round(narrow * 32767).astype(np.int16)))
            frame = soxr.resample(coded.astype(np.float32) / 32768, 8_000, 16_000)[:320].astype(np.float32)
        late = self.random.uniform(0, self.jitter_s)
        self.arrival = max(self.arrival, now + self.up_s + late)
        event = ev.AudioIn(320 * len(self.incoming), frame)
        self.incoming.append(frame)
        self.cleaned.append(self.guard.hear(event, self.arrival))

    @property
    def levels(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Powers of what came in and of what was passed on, second by second, dB."""
        passed = np.concatenate([event.pcm for event in [*self.cleaned, self.guard.flush()]])
        return power(np.concatenate(self.incoming)), power(passed)


@pytest.mark.parametrize("phone", [False, True])
def test_our_voice_does_not_come_back(phone: bool) -> None:
    line = Line(phone=phone)
    line.run(14.0, speak=(1.0, 14.0))
    incoming, cleaned = line.levels
    assert incoming[2:].max() > -36
    assert cleaned[1:].max() < -50  # from the first second of it: until the echo is found, nobody interrupts
    delay = line.guard.report.delay_ms
    assert delay is not None
    assert 130 <= delay <= 190  # both ways


def test_a_person_is_heard_over_it() -> None:
    line = Line()
    line.run(14.0, speak=(1.0, 14.0), near=THEIRS)
    _, cleaned = line.levels
    theirs = power(THEIRS)
    loud = theirs > -30
    assert np.abs(cleaned[6 : 6 + len(theirs)][loud] - theirs[loud]).max() < 3
    assert cleaned[6 + len(theirs) + 2 :].max() < -50


def test_interruptions_and_pauses_keep_the_two_times_together() -> None:
    line = Line()
    line.run(6.0, speak=(1.0, 6.0))
    line.flush(6.0)
    line.run(3.0, speak=None)
    line.run(6.0, speak=(0.5, 6.0))
    _, cleaned = line.levels
    assert cleaned[4:].max() < -42


def test_on_a_headset_their_voice_is_what_it_was() -> None:
    line = Line(level_db=-120.0)
    line.run(14.0, speak=(1.0, 14.0), near=THEIRS)
    incoming, cleaned = line.levels
    np.testing.assert_allclose(cleaned[5:], incoming[5:], atol=0.5)
    assert line.guard.report.delay_ms is None


def test_what_is_passed_on_is_whole_and_in_place() -> None:
    line = Line()
    line.run(4.0, speak=(1.0, 3.0))
    at = 0
    for event in [*line.cleaned, line.guard.flush()]:
        assert event.at == at
        at += len(event.pcm)
    assert at == 320 * len(line.incoming)


@pytest.mark.parametrize("hertz", [300, 1000, 3400])
def test_thinning_keeps_what_a_voice_is_made_of(hertz: int) -> None:
    tone = np.round(10_000 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 24_000)).astype(np.int16)
    thinner = LiveResampler(source=24_000, target=16_000)
    parts = [thinner.push(int16_to_float(tone[at : at + 500])) for at in range(0, 24_000, 500)]
    made = np.concatenate([*parts, thinner.finish()])
    assert len(made) in range(15_998, 16_001)
    assert np.sqrt(2 * np.mean(made[100:] ** 2)) == pytest.approx(10_000 / 32768, rel=0.03)
