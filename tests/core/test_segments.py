import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.core.segments import InputBuffer


def ramp(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


@given(st.lists(st.tuples(st.sampled_from(["append", "take", "drop"]), st.integers(0, 50)), max_size=60))
def test_every_sample_leaves_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    buffer = InputBuffer()
    at = 0
    for step, count in steps:
        if step == "append":
            buffer.append(buffer.end, ramp(buffer.end, count))
            continue
        until = buffer.start + count
        if step == "take":
            taken = buffer.take(until)
            assert np.array_equal(taken, ramp(at, len(taken)))
            assert not taken.flags.writeable
            at += len(taken)
        else:
            buffer.drop(until)
            at = buffer.start
        assert buffer.start == at
        assert len(buffer) == buffer.end - buffer.start


def test_overlap_is_ignored_and_a_gap_starts_anew() -> None:
    buffer = InputBuffer()
    buffer.append(0, ramp(0, 10))
    buffer.append(5, ramp(5, 10))
    assert np.array_equal(buffer.take(12), ramp(0, 12))
    buffer.append(0, ramp(0, 3))
    assert (buffer.start, buffer.end) == (12, 15)
    buffer.append(100, ramp(100, 5))
    assert np.array_equal(buffer.take(200), ramp(100, 5))
