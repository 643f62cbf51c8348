from voiceagent.core.pace import FASTEST, PAUSE_MS, SLOWEST, Pace


def test_nobody_is_known_before_they_have_spoken() -> None:
    pace = Pace()
    assert pace.factor == 1.0
    assert round(pace.usual_ms) == PAUSE_MS


def test_who_pauses_long_is_slow_and_who_does_not_is_fast() -> None:
    slow, fast = Pace(), Pace()
    for _ in range(6):
        slow.paused(900 * 16)
        fast.paused(120 * 16)
    assert slow.factor > 1.5 > 1.0 > fast.factor
    for _ in range(50):
        slow.paused(5000 * 16)
        fast.paused(100 * 16)
    assert (slow.factor, fast.factor) == (SLOWEST, FASTEST)


def test_one_pause_is_not_a_habit_and_a_closed_mouth_is_no_pause() -> None:
    pace = Pace()
    pace.paused(2000 * 16)
    assert pace.factor < 2.0
    before = pace.factor
    for _ in range(100):
        pace.paused(60 * 16)
    assert pace.factor == before


def test_a_pause_that_was_taken_for_an_end_counts_twice() -> None:
    once, twice = Pace(), Pace()
    once.paused(900 * 16)
    twice.paused(900 * 16, weight=2.0)
    assert once.usual_ms < twice.usual_ms < 900


def speak(pace: Pace, *, syllables_s: float, seconds: float) -> None:
    """Levels that swing by 12 dB with every syllable."""
    for n in range(int(seconds / 0.032)):
        phase = n * 0.032 * syllables_s % 1.0
        pace.voiced(0.032, -20.0 if phase < 0.5 else -32.0)


def test_syllables_are_counted_by_the_swing_of_the_level() -> None:
    slow, fast = Pace(), Pace()
    speak(slow, syllables_s=2.0, seconds=30)
    speak(fast, syllables_s=6.0, seconds=30)
    assert slow.factor == 1.25
    assert fast.factor == 0.8


def test_without_levels_the_rhythm_is_that_of_anybody() -> None:
    pace = Pace()
    for _ in range(1000):
        pace.voiced(0.032, None)
    assert pace.factor == 1.0
