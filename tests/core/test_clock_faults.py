"""Clocks that jump and loops that stall (R24): no false end of a turn, no burst, nothing lost or said twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from test_controller import VAD, Call, kinds, only

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core.history import AudioContent, UserItem
from voiceagent.core.tables import Ear, Mouth

PACED = replace(VAD, lead_ms=300)


def sound(made: Sequence[act.Action]) -> np.ndarray:
    parts = [action.pcm for action in made if isinstance(action, act.SendAudio)]
    return np.concatenate([np.zeros(0, np.int16), *parts])


@pytest.mark.parametrize("stall", [0.5, 3.0])
def test_a_loop_that_stalls_while_somebody_speaks_does_not_end_their_turn(stall: float) -> None:
    call = Call()
    call.hear(20, 0.0, in_time=True)
    assert "SpeechStarted" in kinds(call.hear(20, 0.9, in_time=True))
    assert kinds(call.wait(stall)) == []
    made = call.hear(round(stall / 0.032), 0.9)  # all that came meanwhile, at once
    made += call.hear(10, 0.9, in_time=True)
    assert not {"SpeechStopped", "Committed", "SpeechStarted"} & set(kinds(made))
    assert call.controller.ear is Ear.SPEECH
    added = only(call.hear(17, 0.0, in_time=True), notices.ItemAdded).item
    assert isinstance(added, UserItem)
    (content,) = added.content
    assert isinstance(content, AudioContent)
    heard = np.concatenate([piece.audio for piece in content.pieces])
    assert np.array_equal(heard, np.arange(heard[0], heard[0] + len(heard), dtype=np.float32))
    assert len(heard) >= (30 + round(stall / 0.032)) * 512


@pytest.mark.parametrize("stall", [0.2, 1.0, 3.0, 600.0])
def test_after_a_stall_no_more_is_sent_than_the_lead(stall: float) -> None:
    call = Call(PACED)
    call.ask()
    whole = np.arange(250 * 960, dtype=np.int16)
    made = call.do(ev.TextOut(1, "words", (1,)))
    made += call.do(ev.AudioOut(1, 0, whole, (1,) * 250))
    made += call.do(ev.TurnEnded(1, "stop", ev.Usage(), (1,)))
    made += call.wait(1.0)
    call.t += stall
    burst = call.sift(call.controller.handle_timeout(call.t))
    assert len(sound(burst)) <= 0.3 * 24_000
    assert not {"Flush", "CancelTurn"} & set(kinds(burst))
    made += burst + call.wait(30.0)
    assert np.array_equal(sound(made), whole)
    assert kinds(made).count("TurnClosed") == 1
    assert call.controller.mouth is Mouth.IDLE
    assert [(told.heard_ms, told.words) for told in call.told] == [(10_000, 1)]


def test_a_machine_that_slept_ten_minutes_ends_the_utterance_once_and_hears_on() -> None:
    call = Call(PACED)
    call.hear(20, 0.9, in_time=True)
    call.t += 600.0
    made = call.sift(call.controller.handle_timeout(call.t))
    assert only(made, notices.SpeechStopped).reason == "no_input"
    assert kinds(made).count("StartTurn") == 1
    call.end(1)
    made = call.hear(20, 0.9, in_time=True) + call.hear(17, 0.0, in_time=True)
    assert kinds(made).count("StartTurn") == 1
    assert len([item for item in call.items if item]) == 2


def test_a_voice_that_is_weighed_is_weighed_by_its_samples_not_by_the_clock() -> None:
    call = Call(PACED)
    call.ask()
    for seq in range(20):
        call.say(1, 25, text=" word", seq=seq)
    call.wait(1.0)
    call.hear(5, 0.9, in_time=True)
    assert call.weighed[-1].status == "pending"
    assert sound(call.wait(3.0)).size == 0  # three seconds pass; it is still a voice of 160 ms
    assert call.weighed[-1].status == "pending"
    assert sound(call.hear(6, 0.0)).size > 0
    assert call.weighed[-1].status == "dismissed"


@pytest.mark.parametrize("back", [0.5, 3600.0])
def test_a_clock_that_goes_back_stops_nothing_for_good(back: float) -> None:
    call = Call(PACED)
    call.ask()
    call.say(1, 100, text="words")
    call.end(1)
    call.wait(1.0)
    before = call.t
    call.t -= back
    made = call.sift(call.controller.handle_timeout(call.t))
    assert len(sound(made)) <= 0.3 * 24_000
    call.t = before
    call.wait(10.0)
    assert call.controller.mouth is Mouth.IDLE
