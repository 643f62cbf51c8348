"""What a crowd of callers hears when the real loop plans for a device of known costs, in simulated time."""

from __future__ import annotations

import pytest
from crowd import Simulation


@pytest.mark.parametrize(("callers", "goal"), [(32, 0.250), (96, 0.450)])
def test_a_crowd_is_spoken_to_in_time(callers: int, goal: float) -> None:
    crowd = Simulation(callers, ramp=4.0)
    crowd.run(10.0)
    heard = [answer for answer in crowd.answers if answer.asked > 4.0 and answer.first is not None]
    waits = sorted(answer.first - answer.asked for answer in heard if answer.first is not None)
    assert waits[int(0.99 * len(waits))] < goal
    chunks = sum(answer.chunks - 1 for answer in heard)
    assert sum(len(answer.late) for answer in heard) <= 0.002 * chunks


def test_the_more_callers_the_fuller_the_steps_of_the_vocoder() -> None:
    means = []
    for callers in (1, 16, 64):
        crowd = Simulation(callers, ramp=2.0)
        crowd.run(5.0)
        sizes = [served for kind, _, _, served in crowd.steps if kind == "vocode"]
        means.append(sum(sizes) / len(sizes))
    assert means[0] == 1.0
    assert means[0] < means[1] / 2 < means[2] / 2


def test_one_caller_waits_for_no_company() -> None:
    alone = Simulation(1, tokens=(160, 160), ramp=0.0)
    alone.run(60.0, turns=1)
    language = sum(length for kind, _, length, _ in alone.steps if kind != "vocode")
    (last,) = [began + length for kind, began, length, _ in alone.steps if kind == "vocode"][-1:]
    ended = alone.answers[0].ended
    assert ended is not None
    assert ended == pytest.approx(last)
    assert ended - alone.answers[0].asked - language < 0.040, (
        "only sound that the language model was no part of"
    )


def test_callers_who_do_not_wait_get_as_much_speech_as_the_device_can_make() -> None:
    crowd = Simulation(64, play=False, ramp=1.0)
    crowd.run(4.0)
    assert sum(answer.audio for answer in crowd.answers) / crowd.now > 90.0
