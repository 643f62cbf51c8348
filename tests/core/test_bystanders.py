"""Voices in the background: passed over while we speak and while nobody does, and never a caller for long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_bargein import PACED, USUAL, heard, quiet, sent, telling
from test_controller import VAD, Call, kinds, only

from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.tables import Ear, Mouth

FAR = USUAL - 16.0
SIDE_TALK = 90  # windows, nearly 3 s


def asked(config: opt.SessionConfig = PACED) -> Call:
    """A call in which the caller has said something, and nobody speaks now."""
    call = Call(config)
    heard(call, [USUAL] * 40)
    quiet(call, 17)
    call.do(ev.Cancel())
    return call


def test_side_talk_while_nobody_speaks_is_no_utterance() -> None:
    call = asked()
    made = heard(call, [FAR] * SIDE_TALK) + quiet(call, 60)
    assert kinds(made) == ["PassedOver"]
    assert call.controller.ear is Ear.QUIET


def test_side_talk_over_ours_ends_nothing_and_holds_us_for_a_third_of_a_second() -> None:
    call = telling()
    heard(call, [FAR] * 10)
    assert [(w.status, w.reason) for w in call.weighed] == [("pending", None), ("dismissed", "faint")]
    made = heard(call, [FAR] * SIDE_TALK)
    assert call.controller.mouth is Mouth.SPEAKING
    assert sent(made) > 0
    assert set(kinds(made + quiet(call, 60))) == {"SendAudio"}


def test_a_caller_who_turns_away_is_heard() -> None:
    call = telling()
    assert "SpeechStarted" in kinds(heard(call, [USUAL - 11.0] * 32))
    call = asked()
    made = heard(call, [USUAL - 11.0] * 40)
    assert only(made, notices.SpeechStarted).audio_start_ms <= 57 * 32


def test_a_soft_word_is_heard_when_it_is_over() -> None:
    call = asked()
    assert kinds(heard(call, [USUAL - 11.0] * 8)) == []
    assert kinds(quiet(call, 1)) == ["SpeechStarted"]
    assert "Committed" in kinds(quiet(call, 17))


def test_a_caller_who_speaks_into_side_talk_is_heard_at_once_and_alone() -> None:
    call = asked()
    heard(call, [FAR] * SIDE_TALK)
    made = heard(call, [USUAL] * 6)
    started = only(made, notices.SpeechStarted)
    assert 57 * 32 + SIDE_TALK * 32 - started.audio_start_ms < 800  # prefix padding, and little else


def test_who_insists_is_the_caller_and_is_learnt_anew() -> None:
    call = asked()
    for _ in range(2):
        assert "SpeechStarted" not in kinds(heard(call, [USUAL - 20.0] * 30))
        quiet(call, 45)
    assert "SpeechStarted" in kinds(heard(call, [USUAL - 20.0] * 30))
    quiet(call, 400)
    call.do(ev.Cancel())
    assert "SpeechStarted" in kinds(heard(call, [USUAL - 20.0] * 4))


def test_who_insists_over_ours_interrupts() -> None:
    call = telling()
    for _ in range(2):
        assert "SpeechStarted" not in kinds(heard(call, [USUAL - 20.0] * 12))
        quiet(call, 40)
    assert "TurnClosed" in kinds(heard(call, [USUAL - 20.0] * 22))


def test_who_speaks_on_for_five_seconds_is_the_caller() -> None:
    call = asked()
    assert "SpeechStarted" not in kinds(heard(call, [FAR] * 150))
    assert "SpeechStarted" in kinds(heard(call, [FAR] * 12))


def test_side_talk_with_its_pauses_does_not_insist() -> None:
    call = asked()
    for _ in range(6):
        assert "SpeechStarted" not in kinds(heard(call, [FAR] * 30))
        quiet(call, 15)


@pytest.mark.parametrize(
    "config",
    [replace(PACED, barge_in="quick"), replace(PACED, replies=False), replace(PACED, alone=True)],
    ids=["quick", "listener", "interpreter"],
)
def test_where_everybody_counts_nobody_is_in_the_background(config: opt.SessionConfig) -> None:
    call = asked(replace(config, turn_detection=VAD.turn_detection)) if config.replies else Call(config)
    if not config.replies:
        heard(call, [USUAL] * 40)
        quiet(call, 17)
    assert "SpeechStarted" in kinds(heard(call, [FAR] * 4))


def test_of_a_caller_who_was_hardly_heard_nobody_knows_how_loud_they_are() -> None:
    call = Call(PACED)
    heard(call, [USUAL] * 12)
    quiet(call, 17)
    call.do(ev.Cancel())
    assert "SpeechStarted" in kinds(heard(call, [FAR] * 4))
