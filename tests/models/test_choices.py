from __future__ import annotations

from dataclasses import fields

import pytest

from voiceagent.models.step_audio2.kernels.gpu import choices
from voiceagent.models.step_audio2.kernels.gpu.choices import MEASURED, Joined, Sampling, Tile


def test_the_smallest_range_that_holds_the_rows_counts() -> None:
    table = ((1, "one"), (16, "few"), (64, "many"))
    found = {rows: choices.of(table, rows) for rows in (1, 2, 16, 17, 64, 65)}
    assert found == {1: "one", 2: "few", 16: "few", 17: "many", 64: "many", 65: None}


@pytest.mark.parametrize("name", ["joined", "added", "gated", "plain", "attention", "sampling"])
def test_ranges_are_in_order(name: str) -> None:
    ends = [most for most, _ in getattr(MEASURED, name)]
    assert ends == sorted(set(ends))


def test_other_choices_hold_for_a_while() -> None:
    other = ((64, Joined(Tile(64, 64, 4, 4, splits=3), turned=True)),)
    with choices.using(joined=other, turn_early=False):
        assert choices.now().joined == other
        assert not choices.now().turn_early
        rest = {field.name for field in fields(MEASURED)} - {"joined", "turn_early"}
        assert all(getattr(choices.now(), name) == getattr(MEASURED, name) for name in rest)
    assert choices.now() is MEASURED
    with pytest.raises(KeyError), choices.using(finish_early=False):
        raise KeyError
    assert choices.now() is MEASURED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"joined": ((64, Joined(None, turned=True)),)}, "no parts to turn"),
        ({"joined": ((65, Joined(Tile(64, 64, 4, 4))),)}, "the sums of 65 rows do not fit"),
        ({"added": ((64, Tile(96, 64, 4, 4)),)}, "powers of two"),
        ({"gated": ((64, Tile(8, 64, 4, 4)),)}, "16 or more"),
        ({"plain": ((16, Tile(64, 8, 4, 4)),)}, "16 or more"),
        ({"added": ((64, Tile(64, 64, 4, 4, splits=0)),)}, "1 or more"),
        ({"sampling": ((1 << 30, Sampling(pivots=3)),)}, "a power of two"),
        ({"sampling": ((64, Sampling()),)}, "any number of rows"),
    ],
)
def test_a_choice_that_cannot_be_says_why(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why), choices.using(**change):
        pass
    assert choices.now() is MEASURED
