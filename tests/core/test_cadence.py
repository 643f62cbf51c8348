import pytest

from voiceagent.core.cadence import LAST, Cadence


def heard(*levels: float) -> Cadence:
    cadence = Cadence()
    for level in levels:
        cadence.hear(level)
    return cadence


def test_a_held_voice_does_not_fall_and_a_sinking_one_does() -> None:
    assert heard(*[-20.0] * 40).fall_db == pytest.approx(0.0)
    fall = heard(*[-20.0] * 32, *[-26.0] * LAST).fall_db
    assert fall is not None
    assert 4.5 < fall < 6.0
    rise = heard(*[-26.0] * 32, *[-20.0] * LAST).fall_db
    assert rise is not None
    assert rise < -2.0


def test_the_room_behind_the_last_word_is_not_its_end() -> None:
    assert heard(*[-20.0] * 32, *[-60.0] * 5).fall_db == pytest.approx(0.0)


def test_too_little_voice_tells_nothing_and_a_new_one_begins_anew() -> None:
    assert heard(*[-20.0] * (2 * LAST - 1)).fall_db is None
    cadence = heard(*[-20.0] * 40)
    cadence.hear(None)
    assert cadence.fall_db is not None
    cadence.clear()
    assert cadence.fall_db is None
