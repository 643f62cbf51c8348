from __future__ import annotations

import math

import pytest

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.sampling import Draws, Sampling


def test_equal_seeds_draw_equally() -> None:
    def draw(seed: int | None) -> list[float]:
        draws = Draws(seed)
        return [draws.next() for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert all(0.0 <= number < 1.0 and number * 2**24 % 1 == 0 for number in draw(7))


def test_a_fork_goes_on_alike_and_apart() -> None:
    draws = Draws(5)
    draws.next()
    twin = draws.fork()
    ahead = [twin.next() for _ in range(20)]
    assert [draws.next() for _ in range(20)] == ahead


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name) as caught:
        Sampling(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
