import math

import pytest

from voiceagent.core.options import Eagerness, ServerVad
from voiceagent.core.patience import WAITS, Patience


def patience(eagerness: Eagerness | None = "medium") -> Patience:
    return Patience(ServerVad(silence_duration_ms=700, eagerness=eagerness))


def slow(person: Patience) -> Patience:
    for _ in range(50):
        person.resumed(2000 * 16, cut=False)
    person.paused()
    return person


def test_plain_silence_knows_no_words_and_no_person() -> None:
    person = slow(patience(None))
    assert (person.wait, person.reason) == (700 * 16, "silence")
    person.told("where are you", 1.0)
    assert (person.wait, person.reason) == (700 * 16, "silence")


@pytest.mark.parametrize("eagerness", ["low", "medium", "high"])
def test_what_is_complete_ends_soon_and_what_is_not_waits_the_longest(eagerness: Eagerness) -> None:
    person, waits = patience(eagerness), WAITS[eagerness]
    person.paused()
    assert (person.wait, person.reason) == (700 * 16, "silence")
    person.told("where are you", 0.97)
    assert (person.wait, person.reason) == (waits.least * 16, "complete")
    person.told("where are", 0.05)
    assert (person.wait, person.reason) == (waits.most * 16, "longest_wait")
    person.told("my number is seven two", 0.6)
    assert (person.wait, person.reason) == (waits.spelled * 16, "spelled")


def test_the_less_complete_the_longer() -> None:
    person = patience()
    waited = []
    for complete in (1.0, 0.96, 0.9, 0.7, 0.6, 0.5, 0.0):
        person.told("where are you", complete)
        waited.append(person.wait)
    assert waited == sorted(waited)
    assert waited[0] == waited[1]
    assert waited[-2] == waited[-1] == 4000 * 16
    assert 192 * 16 < waited[3] < 4000 * 16


def test_words_behind_which_something_follows_are_not_complete() -> None:
    person = patience()
    person.told("the cake and", 1.0)
    assert person.reason == "longest_wait"
    person.told("my name is", 1.0)
    assert person.reason == "incomplete"


def test_a_slow_talker_is_given_time_but_never_more_than_the_longest() -> None:
    person = slow(patience())
    assert person.wait == 1400 * 16
    person.told("where are you", 1.0)
    assert person.wait == 192 * 16  # who has surely finished need not be given time
    person.told("where are you", 0.8)
    assert person.wait > 600 * 16
    person.told("where are", 0.0)
    assert (person.wait, person.reason) == (4000 * 16, "longest_wait")
    person.configure(ServerVad(silence_duration_ms=9000, eagerness="high"))
    person.paused()
    assert (person.wait, person.reason) == (2000 * 16, "longest_wait")


def test_a_verdict_holds_until_they_speak_again_and_nonsense_is_not_complete() -> None:
    person = patience()
    person.told("where are you", 1.0)
    person.resumed(1600, cut=False)
    person.paused()
    assert person.reason == "silence"
    person.told("where are you", math.nan)
    assert person.wait > 3000 * 16


def spoken(person: Patience, *, fall_db: float) -> Patience:
    """A second and a half of voice whose last quarter of a second is so much quieter than the rest."""
    person.cadence.clear()
    for n in range(47):
        person.voiced(0.032, -20.0 - (fall_db if n >= 39 else 0.0))
    person.voiced(0.032, -60.0)  # the room behind the last word
    person.paused()
    return person


def test_a_voice_that_falls_is_nearer_its_end_than_one_that_is_held() -> None:
    waited = []
    for fall_db in (6.0, 3.0, 0.0, -3.0):
        person = spoken(patience(), fall_db=fall_db)
        person.told("where are you", 0.9)
        waited.append(person.wait)
    assert waited == sorted(waited)
    assert waited[0] == 192 * 16
    assert waited[-1] > 600 * 16


def test_too_little_voice_tells_nothing() -> None:
    person = patience()
    person.told("yes", 0.9)
    before = person.wait
    person.cadence.hear(-20.0)
    person.told("yes", 0.9)
    assert person.wait == before
