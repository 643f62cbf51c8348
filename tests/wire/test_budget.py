import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.wire.budget import MessageBudget


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
