import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.wire.budget import BIG_BYTES, FLOOD_S, MessageBudget


def test_a_burst_is_free_then_the_reader_waits() -> None:
    budget = MessageBudget(10.0, 5)
    assert [budget.take(0.0) for _ in range(5)] == [0.0] * 5
    assert budget.take(0.0) == pytest.approx(0.1)
    assert budget.take(0.3) == 0.0


@given(st.lists(st.floats(0, 1), max_size=200))
def test_a_reader_that_waits_out_its_debt_reads_at_most_the_rate(gaps: list[float]) -> None:
    budget = MessageBudget(20.0, 10)
    now = 0.0
    for read, gap in enumerate(gaps, start=1):
        now += gap
        now += budget.take(now)
        assert read <= 10 + 20.0 * now + 1e-6


def test_a_flood_is_small_messages_over_the_budget_without_a_break() -> None:
    def over(size: int, seconds: float, *, extra: int = 0) -> bool:
        bucket, now = MessageBudget(100.0, 10), 0.0
        while now < seconds:
            now += bucket.take(now, size, extra=extra)
        return bucket.flooded(now)

    assert over(16, FLOOD_S + 1)
    assert not over(16, FLOOD_S - 1)
    assert not over(2000, FLOOD_S + 1)  # audio, faster than real time
    assert over(100, FLOOD_S + 30, extra=6000)


def test_a_reader_that_wakes_up_late_still_sees_the_flood() -> None:
    bucket, now = MessageBudget(100.0, 100), 0.0
    while now < FLOOD_S + 2:
        pause = bucket.take(now, 16)
        now += pause + 0.02 if pause else 0.0001
    assert bucket.flooded(now)


def test_who_keeps_to_the_rate_or_pauses_is_forgiven() -> None:
    steady, bursts, now = MessageBudget(100.0, 10), MessageBudget(100.0, 10), 0.0
    for _ in range(300):
        now += steady.take(now, 16) + 0.011
        assert not steady.flooded(now)
    for _ in range(20):
        for _ in range(50):
            now += bursts.take(now, 16)
            assert not bursts.flooded(now)
        now += 1.0


def test_a_long_message_counts_like_several() -> None:
    bucket = MessageBudget(10.0, 20)
    assert bucket.take(0.0, 10 * BIG_BYTES) == 0.0
    assert bucket.take(0.0, 15 * BIG_BYTES) == pytest.approx(0.5)
