"""A call that is written down and read back is decided in the same way; with other settings it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from world import World

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import journal
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.history import AudioContent, Piece, TextContent, UserItem
from voiceagent.core.journal import Entry, Opened
from voiceagent.core.replay import Decision, changed, describe, replay
from voiceagent.errors import InputError


class Recorded(Controller):
    """A controller that keeps what it was given, and what it decided."""

    def __init__(
        self, config: opt.SessionConfig, *, id_prefix: str = "item_", audio_budget: int = 1 << 25
    ) -> None:
        super().__init__(config, id_prefix=id_prefix, audio_budget=audio_budget)
        self.lines = [journal.first_line(Opened(config, id_prefix, audio_budget))]
        self.made: list[Decision] = []

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        return self._keep(event, now, super().handle(event, now))

    def handle_timeout(self, now: float) -> list[act.Action]:
        return self._keep(None, now, super().handle_timeout(now))

    def _keep(self, event: ev.Event | None, now: float, made: list[act.Action]) -> list[act.Action]:
        self.lines.append(journal.line(Entry(now, event)))
        self.made += (Decision(now, action, describe(action)) for action in made)
        return made


def shown(decisions: list[Decision]) -> list[tuple[float, str, str]]:
    """All but the pieces of long speech: they are cut where it is quietest, and its sound is not in the journal."""
    return [
        (decision.time, type(decision.action).__name__, decision.what)
        for decision in decisions
        if not isinstance(decision.action, act.EncodePiece)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_any_call_is_decided_again_as_it_was(seed: int) -> None:
    controllers: list[Recorded] = []

    def make(config: opt.SessionConfig, **rest: Any) -> Recorded:
        controllers.append(Recorded(config, **rest))
        return controllers[-1]

    World(seed, make=make, voice_only=seed % 3 == 0).run(400)
    (controller,) = controllers
    opened, entries = journal.read(controller.lines)
    assert shown(replay(opened, entries)) == shown(controller.made)
    assert replay(
        opened, entries, changed({})
    )  # with the clock of the replay, whatever was recorded: it ends


def call(*, pause_s: float) -> Recorded:
    """Somebody speaks for a second, pauses, and speaks on; the reply takes two seconds, and they hear it all."""
    controller = Recorded(opt.SessionConfig(lead_ms=200))
    clock, heard = 0.0, 0

    def listen(seconds: float, p: float) -> None:
        nonlocal clock, heard
        for _ in range(round(seconds / 0.032)):
            clock += 0.032
            controller.handle(ev.AudioIn(heard, np.zeros(512, np.float32)), clock)
            heard += 512
            controller.handle(ev.SpeechProb(heard, p), clock)
            while (due := controller.next_deadline()) is not None and due <= clock:
                controller.handle_timeout(clock)

    for seconds, p in ((0.2, 0.0), (1.0, 0.9), (pause_s, 0.0), (1.0, 0.9), (1.0, 0.0)):
        listen(seconds, p)
    turn = next(d.action.turn for d in controller.made if isinstance(d.action, act.StartTurn))
    controller.handle(ev.TurnStarted(turn), clock)
    controller.handle(ev.TextOut(turn, "yes", (1,)), clock)
    controller.handle(ev.AudioOut(turn, 0, np.zeros(48_000, np.int16), (1,) * 50), clock)
    controller.handle(ev.TurnEnded(turn, "stop", ev.Usage(), (1,)), clock)
    listen(3.0, 0.0)
    return controller


def told(decisions: list[Decision]) -> list[str]:
    return [decision.what for decision in decisions if decision.what]


def test_other_settings_show_what_they_would_have_done() -> None:
    opened, entries = journal.read(call(pause_s=0.4).lines)
    as_it_was = told(replay(opened, entries))
    assert as_it_was.count("somebody speaks") == 1
    assert as_it_was[-1] == "reply 1 is completed"
    hasty = told(replay(opened, entries, changed({"silence_duration_ms": 200})))
    assert hasty[:3] == ["somebody speaks", "they have finished", "reply 1 begins"]
    assert hasty.count("somebody speaks") == 2  # it would have answered into the pause
    begins = [d.time for d in replay(opened, entries) if d.what == "reply 1 begins"]
    patient = [d for d in replay(opened, entries, changed({"silence_duration_ms": 700})) if d.what]
    later = [d.time for d in patient if d.what == "reply 1 begins"]
    assert later[0] - begins[0] == pytest.approx(0.2, abs=0.04)
    assert patient[-1].what == "reply 1 is completed"


def test_what_a_client_put_in_comes_back_whole() -> None:
    sound = np.array([0.25, -0.5], np.float32)
    tool = opt.Tool("look", "up", {"type": "object", "$ref": "x", "properties": {"a": [1, None, True]}})
    item = UserItem("i", (TextContent("hé\ud83d"), AudioContent((Piece(3, sound),), "words")))
    config = opt.SessionConfig(tools=(tool,), turn_detection=None)
    lines = [journal.first_line(Opened(opt.SessionConfig(), "p", 7))]
    lines += [
        journal.line(Entry(1.5, event)) for event in (ev.ItemCreate(item, "root", "e"), ev.Configure(config))
    ]
    opened, (created, configured) = journal.read(lines)
    assert opened == Opened(opt.SessionConfig(), "p", 7)
    assert isinstance(created.event, ev.ItemCreate)
    assert isinstance(created.event.item, UserItem)
    words, heard = created.event.item.content
    assert words == TextContent("hé\ud83d")
    assert isinstance(heard, AudioContent)
    np.testing.assert_array_equal(heard.pieces[0].audio, sound)
    assert (heard.pieces[0].id, heard.transcript, created.time) == (3, "words", 1.5)
    assert configured == Entry(1.5, ev.Configure(replace(config, tools=(tool,))))


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_journal_that_broke_off_is_read_as_far_as_it_goes(cut: int) -> None:
    lines = call(pause_s=0.4).lines
    assert len(journal.read([*lines[:-1], lines[-1][:cut]])[1]) == len(lines) - 2


@pytest.mark.parametrize(
    ("lines", "param"),
    [
        ([], "1"),
        (["what?"], "1"),
        ([json.dumps({"version": 99})], "1"),
        (
            [
                journal.first_line(Opened(opt.SessionConfig(), "", 0)),
                '{"time": 1, "event": {"$": "eval"}}',
                "{}",
            ],
            "2",
        ),
    ],
)
def test_what_is_no_journal_is_refused_with_the_line(lines: list[str], param: str) -> None:
    with pytest.raises(InputError) as found:
        journal.read(lines)
    assert (found.value.code, found.value.param) == ("bad_journal", param)


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match="silence_duration_ms"):
        changed({"silence": 3})
