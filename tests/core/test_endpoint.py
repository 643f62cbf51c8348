import math

import pytest

from voiceagent.core.endpoint import WINDOW, Endpointer
from voiceagent.core.options import ServerVad
from voiceagent.core.tables import Voice


def feed(endpoint: Endpointer, probabilities: list[float], *, start: int = 0) -> list[tuple[int, Voice]]:
    """What happened, with the number of the window in which it did."""
    heard = []
    for n, p in enumerate(probabilities, start):
        if (voice := endpoint.push((n + 1) * WINDOW, p)) is not None:
            heard.append((n, voice))
    return heard


def endpoint(**changes: object) -> Endpointer:
    return Endpointer(ServerVad(**{"silence_duration_ms": 160, **changes}))  # type: ignore[arg-type]  # 5 windows


def test_a_voice_goes_on_off_and_ends() -> None:
    ear = endpoint()
    assert feed(ear, [0.1, 0.9, 0.9, 0.9, 0.9] + [0.1] * 6) == [
        (3, Voice.ON),
        (5, Voice.OFF),
        (9, Voice.ENDED),
    ]
    assert ear.run_start == WINDOW
    assert ear.speech_end == 5 * WINDOW


def test_clicks_are_no_voice() -> None:
    assert feed(endpoint(), [0.9, 0.9, 0.1] * 20) == []


def test_doubt_neither_counts_nor_breaks() -> None:
    ear = endpoint()
    assert feed(ear, [0.9, 0.4, 0.9, 0.4, 0.9]) == [(4, Voice.ON)]
    assert ear.run_start == 0
    assert ear.earliest == 0


def test_a_weak_syllable_does_not_end_a_voice() -> None:
    assert feed(endpoint(), [0.9] * 4 + [0.4] * 50) == [(2, Voice.ON)]


def test_one_window_goes_on_within_an_utterance_and_the_silence_begins_anew() -> None:
    told = feed(endpoint(), [0.9] * 3 + [0.1] * 4 + [0.9] + [0.1] * 6)
    assert told == [(2, Voice.ON), (3, Voice.OFF), (7, Voice.ON), (8, Voice.OFF), (12, Voice.ENDED)]


def test_after_the_end_an_onset_is_needed_again() -> None:
    assert feed(endpoint(), [0.9] * 3 + [0.1] * 6 + [0.9, 0.1] * 5)[-1] == (7, Voice.ENDED)


def test_old_news_and_nonsense_are_silence() -> None:
    ear = endpoint()
    ear.reset(10 * WINDOW)
    assert feed(ear, [0.9] * 10) == []
    assert feed(ear, [math.nan] * 10, start=10) == []
    assert ear.earliest == ear.judged == 20 * WINDOW
    ear.reset_behind(5)
    assert ear.judged == 20 * WINDOW


@pytest.mark.parametrize(
    ("threshold", "p", "voice"), [(0.9, 0.8, False), (0.9, 0.95, True), (0.05, 0.06, True)]
)
def test_the_threshold_is_obeyed(threshold: float, p: float, voice: bool) -> None:
    assert bool(feed(endpoint(threshold=threshold), [p] * 5)) is voice


def test_other_settings_hold_from_the_next_window_on() -> None:
    ear = endpoint()
    feed(ear, [0.9] * 3 + [0.1] * 3)
    ear.configure(ServerVad(silence_duration_ms=320))
    assert feed(ear, [0.1] * 10, start=6) == [(12, Voice.ENDED)]
