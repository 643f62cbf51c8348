"""The parts of an answer's latency add up, whatever was noted and when; and each is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.waterfall import Stopwatch, Waterfall

times = st.one_of(st.none(), st.floats(-5, 100))
VAD = opt.SessionConfig(turn_detection=opt.ServerVad(silence_duration_ms=512))
MANUAL = opt.SessionConfig(turn_detection=None)


@settings(deadline=None)
@given(
    st.floats(0, 1e6),
    st.floats(-1, 5),
    st.floats(-1, 5),
    times,
    st.floats(-1, 100),
    times,
    times,
    times,
    times,
)
def test_the_parts_add_up(
    begun: float,
    decided: float,
    asked: float,
    started: float | None,
    encoded: float,
    token: float | None,
    said: float | None,
    sound: float | None,
    sent: float | None,
) -> None:
    at = [None if time is None else begun + time for time in (started, token, said, sound)]
    watch = Stopwatch(1, "speech", begun, begun + decided, begun + asked)
    watch.started, watch.token, watch.said, watch.sound, watch.encoded = *at, encoded
    now = begun + (sent or 0.0)
    taken = watch.sent(now)
    marks = [mark for mark in (watch.decided, watch.asked, *at, now) if mark is not None]
    assert taken.total == max(0, *(round((mark - begun) * 1e6) for mark in marks))
    assert all(part >= 0 for part in taken.parts.values())
    shown = taken.milliseconds()
    assert sum(shown.values()) == (taken.total + 500) // 1000
    assert list(shown) == list(taken.parts)
    assert all(abs(shown[name] * 1000 - part) <= 1000 for name, part in taken.parts.items())


def hear(controller: Controller, *, windows: int, p: float, at: int, now: float) -> list[act.Action]:
    """So many windows of 32 ms, one by one, in real time."""
    made = []
    for n in range(at, at + windows):
        now += 0.032
        made += controller.handle(ev.AudioIn(n * 512, np.zeros(512, np.float32)), now)
        made += controller.handle(ev.SpeechProb((n + 1) * 512, p), now)
    return made


def closed(made: list[act.Action]) -> Waterfall | None:
    (latency,) = [action.latency for action in made if isinstance(action, notices.TurnClosed)]
    return latency


def finish(controller: Controller, turn: int, now: float) -> Waterfall | None:
    return closed(controller.handle(ev.TurnEnded(turn, "stop", ev.Usage(), ()), now))


def test_a_spoken_question() -> None:
    controller = Controller(VAD, id_prefix="item_")
    hear(controller, windows=30, p=0.9, at=0, now=0.0)  # the last word ends after 0.96 s
    made = hear(controller, windows=16, p=0.0, at=30, now=0.96)
    assert any(isinstance(action, act.StartTurn) for action in made)  # after 1.472 s
    controller.handle(ev.TurnStarted(1, encoded=0.03), 1.522)
    controller.handle(ev.TextOut(1, "Yes", (1,)), 1.6)
    controller.handle(ev.AudioOut(1, 0, np.zeros(4800, np.int16), (1,) * 5), 1.8)
    taken = finish(controller, 1, 2.5)
    assert taken == Waterfall(
        1, "speech", endpoint=512_000, queue=20_000, encode=30_000, prefill=78_000, speech=200_000
    )
    assert taken.total == 840_000
    assert taken.sent == 1.8


def test_a_thought_and_pacing_have_their_parts() -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions(think=True)), 10.0)
    controller.handle(ev.TurnStarted(1), 10.1)
    controller.handle(ev.ThoughtOut(1, "Hm"), 10.3)
    controller.handle(ev.ThoughtOut(1, "m"), 10.4)
    controller.handle(ev.TextOut(1, "Yes", (1,)), 10.7)
    controller.handle(ev.AudioOut(1, 0, np.zeros(4800, np.int16), (1,) * 5), 11.0)
    assert finish(controller, 1, 11.5) == Waterfall(
        1, "request", queue=100_000, prefill=200_000, thought=400_000, speech=300_000
    )


def test_sound_that_is_held_back_is_paced() -> None:
    controller = Controller(VAD, id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions()), 0.0)
    hear(controller, windows=4, p=0.9, at=0, now=0.1)  # a cough: the mouth is held
    controller.handle(ev.AudioOut(1, 0, np.zeros(4800, np.int16), (1,) * 5), 0.24)
    made = hear(controller, windows=8, p=0.0, at=4, now=0.24)
    assert any(isinstance(action, act.SendAudio) for action in made)
    taken = finish(controller, 1, 1.0)
    assert taken is not None
    assert 0 < taken.pacing < 300_000


def test_a_written_answer_and_one_that_waits() -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions(modalities="text")), 1.0)
    controller.handle(ev.TextOut(1, "Yes", (1,)), 1.25)
    assert finish(controller, 1, 1.5) == Waterfall(1, "request", prefill=250_000)
    controller.handle(ev.RespondSoon(), 2.0)
    controller.handle(ev.ToolCalled(2, "c", "look", "{}"), 2.2)
    assert finish(controller, 2, 2.3) is None


@pytest.mark.parametrize("end", [ev.Cancel(), ev.TurnFailed(1, "x", "y"), ev.EngineDown()])
def test_an_answer_that_broke_off_has_its_latency_once_something_was_sent(end: ev.Event) -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions()), 0.0)
    controller.handle(ev.AudioOut(1, 0, np.zeros(4800, np.int16), (1,) * 5), 0.5)
    taken = closed(controller.handle(end, 0.6))
    assert taken is not None
    assert taken.total == 500_000


def test_an_answer_of_which_nothing_was_sent_has_none() -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    controller.handle(ev.Respond(opt.TurnOptions()), 0.0)
    assert closed(controller.handle(ev.Cancel(), 0.1)) is None


def test_a_question_during_an_answer_waits() -> None:
    controller = Controller(
        opt.SessionConfig(turn_detection=opt.ServerVad(silence_duration_ms=512, interrupt_response=False)),
        id_prefix="item_",
    )
    controller.handle(ev.Respond(opt.TurnOptions()), 0.0)
    hear(controller, windows=30, p=0.9, at=0, now=0.0)
    hear(controller, windows=16, p=0.0, at=30, now=0.96)
    controller.handle(ev.TextOut(1, "Yes", (1,)), 1.9)
    finish(controller, 1, 2.0)  # the question was known to be over at 1.472 s
    controller.handle(ev.AudioOut(2, 0, np.zeros(4800, np.int16), (1,) * 5), 2.5)
    taken = finish(controller, 2, 3.0)
    assert taken is not None
    assert (taken.cause, taken.endpoint, taken.waiting) == ("speech", 512_000, 528_000)
    assert taken.total == 1_540_000
