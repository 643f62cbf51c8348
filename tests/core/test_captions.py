from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core.captions import BELIEF, PACE_S, Captions, Pace, spoken_length, spread
from voiceagent.units import VOICE_RATE


def tone(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.full(round(seconds * VOICE_RATE), 5000, np.int16)


def silence(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.zeros(round(seconds * VOICE_RATE), np.int16)


def test_words_share_the_voiced_sound() -> None:
    captions = Captions(Pace())
    for delta in ("one two", " six"):
        captions.write(delta)
    captions.sound(np.concatenate([silence(0.2), tone(1.1), silence(0.5)]))
    one, two, six = captions.finish()
    assert (one.text, one.start, one.end) == ("one", 0.2, 0.5)
    assert (two.start, two.end) == (0.6, 0.9)
    assert (six.start, six.end) == (1.0, 1.3)


def test_a_pause_belongs_to_the_mark_before_it() -> None:
    (one, two) = spread(" a, b ", 0.0, 6.0)
    assert (one.text, one.start, one.end) == ("a,", 0.0, 4.0)
    assert (two.text, two.start, two.end) == ("b", 5.0, 6.0)


def test_a_digit_and_a_sign_without_spaces_are_words() -> None:
    assert spoken_length("7") == spoken_length("\u597d") == 4
    assert [word.text for word in spread("\u4f60\u597d\uff0c ok", 0, 1)] == ["\u4f60", "\u597d\uff0c", "ok"]


@pytest.mark.parametrize("text", ["", "  ", "hello"])
def test_no_sound_no_words(text: str) -> None:
    captions = Captions(Pace())
    captions.write(text)
    captions.sound(silence(1.0))
    assert captions.finish() == ()


def test_a_pace_is_learnt_from_what_was_said() -> None:
    pace = Pace()
    captions = Captions(pace)
    captions.write("a" * BELIEF)
    captions.sound(tone(BELIEF * 0.1))
    captions.finish()
    assert pace.seconds == pytest.approx((PACE_S + 0.1) / 2)
    slower = Captions(pace)
    slower.write("hello ")
    assert slower.write("you") > Captions(Pace()).write("") + 6 * PACE_S


def test_a_voice_that_is_sped_up_has_the_pace_that_it_has_by_itself() -> None:
    pace = Pace()
    twice = Captions(pace, speed=2.0)
    twice.write("a" * BELIEF)
    assert twice.write("") == pytest.approx((0.1 + BELIEF * PACE_S) / 2, abs=0.001)
    twice.sound(tone(BELIEF * PACE_S / 2))
    twice.finish()
    assert pace.seconds == pytest.approx(PACE_S, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), max_size=12), st.lists(st.integers(0, 2000), max_size=12))
def test_times_never_go_back_and_stay_in_the_sound(deltas: list[str], cuts: list[int]) -> None:
    captions = Captions(Pace())
    told = [captions.write(delta) for delta in deltas]
    assert told == sorted(told)
    for n, count in enumerate(cuts):
        captions.sound(np.full(count, 9000 * (n % 2), np.int16))
    words = captions.finish()
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= sum(cuts) / VOICE_RATE + 0.001 for time in times)
    assert not words or "".join(word.text for word in words) == "".join("".join(deltas).split())
