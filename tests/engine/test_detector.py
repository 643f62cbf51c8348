"""Voices of many sessions: one pass for all that have a window, each session's windows in their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voiceagent.engine import api
from voiceagent.engine.detector import Detector
from voiceagent.engine.fake_ear import EnergyNetwork, EnergyStream
from voiceagent.engine.mapping import samples_to_bytes

WINDOW = 512


class Counting(EnergyNetwork):
    """Keeps how many sessions each pass heard."""

    def __init__(self) -> None:
        self.passes: list[int] = []

    def hear(self, streams: Sequence[EnergyStream]) -> list[tuple[int, float, float]]:
        self.passes.append(len(streams))
        return super().hear(streams)


def audio(session: int, at: int, windows: int, *, loud: bool = False) -> api.Audio:
    return api.Audio(
        session, at, samples_to_bytes(np.full(windows * WINDOW, 0.1 if loud else 0.0, np.float32))
    )


def test_a_pass_hears_one_window_of_every_session_that_has_one() -> None:
    found: list[api.Reply] = []
    network = Counting()
    detector = Detector(network, found.append)
    detector.take([api.OpenSession(number) for number in (1, 2, 3)])
    more = detector.take([audio(1, 0, 3, loud=True), audio(2, 0, 1), audio(9, 0, 5)])
    assert more
    assert network.passes == [2]
    more = detector.take([audio(3, 0, 1), audio(2, WINDOW, 1, loud=True)])
    while more:
        more = detector.take([])
    assert network.passes == [2, 3, 1]
    told = [(r.session, r.at, r.p) for r in found if isinstance(r, api.Prob)]
    assert told == [
        (1, 512, 0.95),
        (2, 512, 0.02),
        (1, 1024, 0.95),
        (2, 1024, 0.95),
        (3, 512, 0.02),
        (1, 1536, 0.95),
    ]


def test_a_session_that_is_closed_is_not_heard_and_its_number_begins_anew() -> None:
    found: list[api.Reply] = []
    detector = Detector(EnergyNetwork(), found.append)
    detector.take([api.OpenSession(1), audio(1, 0, 4), api.CloseSession(1)])
    assert not found
    assert not detector.take([api.OpenSession(1), audio(1, 0, 1)])
    assert [r.at for r in found if isinstance(r, api.Prob)] == [512]
