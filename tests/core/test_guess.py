"""A reply that is begun on a guess is held until it is decided, is just the reply to what was said, or is nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.guess import MOST, PATIENCE
from voiceagent.core.history import AssistantItem, AudioContent, UserItem
from voiceagent.core.journal import Entry, Opened
from voiceagent.core.replay import Decision, changed, describe, replay

WINDOW = 512
VAD = opt.ServerVad(silence_duration_ms=500)
CONFIG = opt.SessionConfig(turn_detection=VAD, speculation=True)


class Call:
    """A person whose windows are voiced or not, in real time; everything that was decided."""

    def __init__(self, config: opt.SessionConfig = CONFIG) -> None:
        self.controller = Controller(config, id_prefix="item_")
        self.config = config
        self.entries: list[Entry] = []
        self.made: list[Decision] = []
        self.at, self.now = 0, 0.0

    def give(self, event: ev.Event) -> list[act.Action]:
        self.entries.append(Entry(self.now, event))
        made = self.controller.handle(event, self.now)
        self.made += (Decision(self.now, action, describe(action)) for action in made)
        return made

    def hear(self, windows: int, p: float) -> list[act.Action]:
        """What was decided in the last of so many windows."""
        made: list[act.Action] = []
        for _ in range(windows):
            self.now += 0.032
            sound = np.arange(self.at, self.at + WINDOW, dtype=np.float32)
            self.at += WINDOW
            made = [*self.give(ev.AudioIn(self.at - WINDOW, sound)), *self.give(ev.SpeechProb(self.at, p))]
        return made

    def guess(self) -> act.StartTurn:
        """Somebody speaks, and falls silent until it is guessed that they have finished."""
        self.hear(10, 0.9)
        (start,) = kinds(self.hear(3, 0.0), act.StartTurn)
        return start

    def answer(self, turn: int) -> list[act.Action]:
        """The engine's whole reply: 0.2 s of sound."""
        made = self.give(ev.TurnStarted(turn, encoded=0.01))
        self.now += 0.1
        made += self.give(ev.TextOut(turn, "yes", (1,)))
        made += self.give(ev.AudioOut(turn, 0, np.ones(4800, np.int16), (1,) * 5))
        return made + self.give(
            ev.TurnEnded(turn, "stop", ev.Usage(output_text=1, output_audio=5), (1,), 0.2)
        )


def kinds(made: list[act.Action], kind: Any) -> list[Any]:
    return [action for action in made if isinstance(action, kind)]


def named(made: list[act.Action]) -> list[str]:
    return [type(action).__name__ for action in made]


def test_a_right_guess_is_heard_in_the_moment_of_the_decision() -> None:
    call = Call()
    start = call.guess()
    assert start.guess
    assert call.answer(start.turn) == []
    made = call.hear(13, 0.0)
    assert named(made) == [
        "SpeechStopped",
        "Committed",
        "ItemAdded",
        "ItemDone",
        "TurnOpened",
        "ConfirmTurn",
        "GuessOver",
        "TurnText",
        "SendAudio",
        "TurnClosed",
    ]
    closed = made[-1]
    assert isinstance(closed, notices.TurnClosed)
    assert closed.status == "completed"
    assert closed.latency is not None
    assert closed.latency.parts == {**dict.fromkeys(closed.latency.parts, 0), "endpoint": 512_000}
    assert closed.latency.saved == kinds(made, notices.GuessOver)[0].saved == 100_000
    assert closed.guesses == notices.Guesses(made=1, right=1, saved=100_000)


def test_the_same_is_told_and_kept_as_without_a_guess() -> None:
    def told(speculation: bool) -> tuple[list[str], Any]:
        call = Call(
            replace(CONFIG, speculation=speculation, turn_detection=replace(VAD, silence_duration_ms=96))
        )
        call.hear(10, 0.9)
        made = call.hear(3, 0.0)
        (start,) = kinds(made, act.StartTurn)
        made += call.answer(start.turn) + call.hear(1, 0.0)
        own = {"StartTurn", "ConfirmTurn", "GuessOver", "EncodePiece"}
        return [name for name in named(made) if name not in own], call.controller.history.items[1]

    assert told(True) == told(False)


def test_the_item_holds_just_the_samples_that_were_guessed_about() -> None:
    call = Call()
    start = call.guess()
    said = start.items[-1]
    call.hear(13, 0.0)
    assert call.controller.history.items[0] == said
    assert isinstance(said, UserItem)
    (content,) = said.content
    assert isinstance(content, AudioContent)
    assert np.array_equal(content.pieces[0].audio, np.arange(13 * WINDOW, dtype=np.float32))
    # What is behind it is not lost for the next one.
    call.hear(5, 0.9)
    call.hear(16, 0.0)
    (later,) = call.controller.history.items[-1].content  # type: ignore[union-attr]
    assert later.pieces[0].audio[0] <= 29 * WINDOW - 4800


def test_who_goes_on_is_answered_once_and_to_all() -> None:
    call = Call()
    first = call.guess()
    call.answer(first.turn)
    made = call.hear(1, 0.9)
    assert act.ForgetPieces((1,)) in made
    assert kinds(made, notices.GuessOver) == [
        notices.GuessOver(first.turn, "went_on", tokens=6, work=200_000)  # the engine was done with it
    ]
    call.hear(9, 0.9)
    (second,) = kinds(call.hear(6, 0.0), act.StartTurn)
    call.answer(second.turn)
    made = call.hear(10, 0.0)
    assert [action.turn for action in kinds(made, notices.TurnOpened)] == [second.turn]
    (item, reply) = call.controller.history.items
    assert isinstance(item, UserItem)
    assert sum(len(piece.audio) for part in item.content for piece in part.pieces) == (13 + 16) * WINDOW  # type: ignore[union-attr]
    assert isinstance(reply, AssistantItem)
    assert kinds([d.action for d in call.made], notices.TurnClosed)[0].guesses == notices.Guesses(
        2, 1, 100_000, 6, 200_000
    )


def test_a_wrong_guess_is_given_up_at_once_and_its_cost_told_when_it_is_known() -> None:
    call = Call()
    start = call.guess()
    call.give(ev.TurnStarted(start.turn))
    assert kinds(call.hear(1, 0.9), act.CancelTurn) == [act.CancelTurn(start.turn)]
    ended = ev.TurnEnded(start.turn, "cancelled", ev.Usage(output_audio=3), (), 0.125)
    assert call.give(ended) == [notices.GuessOver(start.turn, "went_on", tokens=3, work=125_000)]
    assert call.give(ended) == []


def test_a_doubtful_window_is_reason_enough() -> None:
    call = Call()
    start = call.guess()
    assert act.CancelTurn(start.turn) in call.hear(1, 0.4)
    # Behind it the silence begins anew, and nothing is lost.
    assert kinds(call.hear(5, 0.0), act.StartTurn) == []
    assert len(kinds(call.hear(1, 0.0), act.StartTurn)) == 1


def test_every_guess_about_an_utterance_waits_longer_and_there_are_few() -> None:
    call = Call(replace(CONFIG, turn_detection=replace(VAD, silence_duration_ms=5000)))
    waits = []
    for _ in range(MOST + 1):
        call.hear(5, 0.9)
        silence = [bool(kinds(call.hear(1, 0.0), act.StartTurn)) for _ in range(60)]
        waits += [(silence.index(True) + 1) * WINDOW] if True in silence else []
    assert waits == [PATIENCE << made for made in range(MOST)]


def test_a_guess_in_the_making_becomes_an_ordinary_turn() -> None:
    call = Call()
    start = call.guess()
    made = call.hear(13, 0.0)
    assert [name for name in named(made) if "Turn" in name] == ["TurnOpened", "ConfirmTurn"]
    call.now += 0.3
    assert named(call.answer(start.turn)) == ["TurnText", "SendAudio", "TurnClosed"]


@pytest.mark.parametrize(
    "end", [ev.TurnFailed(1, "kv_full", "x"), ev.TurnEnded(1, "cancelled", ev.Usage(), ())]
)
def test_a_guess_that_the_engine_gives_up_is_asked_for_again(end: ev.TurnEvent) -> None:
    call = Call()
    assert call.guess().turn == 1
    assert [over.outcome for over in kinds(call.give(end), notices.GuessOver)] == ["failed"]
    (start,) = kinds(call.hear(13, 0.0), act.StartTurn)
    assert (start.turn, start.guess) == (2, False)
    assert kinds([d.action for d in call.made], act.ForgetPieces) == []  # it has heard what it is to answer


def test_calls_and_thoughts_are_held_too() -> None:
    call = Call()
    start = call.guess()
    for event in (ev.TurnStarted(1), ev.ThoughtOut(1, "hm"), ev.ToolCalled(1, "call_1", "f", "{}")):
        assert call.give(event) == []
    assert start.turn == 1
    assert {"TurnThought", "TurnTool"} <= set(named(call.hear(13, 0.0)))


def test_another_conversation_by_then_is_another_reply() -> None:
    call = Call()
    start = call.guess()
    call.give(ev.ItemCreate(UserItem("mine", ())))
    made = call.hear(13, 0.0)
    assert act.CancelTurn(start.turn) in made
    (again,) = kinds(made, act.StartTurn)
    assert {item.id for item in again.items} == {"mine", start.items[-1].id}


def test_the_transcript_of_an_older_utterance_makes_no_difference() -> None:
    call = Call(replace(CONFIG, transcribe=True))
    call.answer(call.guess().turn)
    call.hear(20, 0.0)
    start = call.guess()
    call.give(ev.Transcript(start.items[0].id, "what was said"))
    assert act.ConfirmTurn(start.turn) in call.hear(13, 0.0)


@pytest.mark.parametrize(
    "event", [ev.Commit(), ev.Clear(), ev.Configure(CONFIG), ev.EngineDown(), ev.Hangup("")]
)
def test_whatever_ends_the_utterance_otherwise_ends_the_guess(event: ev.Event) -> None:
    call = Call()
    start = call.guess()
    made = call.give(event)
    assert act.CancelTurn(start.turn) in made
    made += call.give(ev.TurnEnded(start.turn, "cancelled", ev.Usage(), ()))
    assert len(kinds(made, notices.GuessOver)) == 1
    assert kinds(call.answer(start.turn), notices.Notice) == []


def test_a_request_of_the_client_comes_first() -> None:
    call = Call()
    start = call.guess()
    made = call.give(ev.Respond(opt.TurnOptions()))
    assert [name for name in named(made) if "Turn" in name] == ["CancelTurn", "TurnOpened", "StartTurn"]
    assert made[0] == act.CancelTurn(start.turn)


def test_each_utterance_alone_is_guessed_about_alone() -> None:
    call = Call(replace(CONFIG, alone=True))
    call.answer(call.guess().turn)
    call.hear(20, 0.0)
    start = call.guess()
    assert [item.id for item in start.items] == [start.options.input[0].id]  # type: ignore[union-attr, index]
    assert act.ConfirmTurn(start.turn) in call.hear(13, 0.0)


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, speculation=False),
        replace(CONFIG, turn_detection=replace(VAD, create_response=False)),
        replace(CONFIG, replies=False),
    ],
)
def test_nothing_is_guessed_where_nothing_is_asked_for(config: opt.SessionConfig) -> None:
    call = Call(config)
    call.hear(10, 0.9)
    call.hear(15, 0.0)
    assert not any(start.guess for start in kinds([d.action for d in call.made], act.StartTurn))


def test_a_recorded_call_is_replayed_with_and_without_guesses() -> None:
    call = Call()
    wrong = call.guess()
    call.give(ev.TurnStarted(wrong.turn))
    call.hear(10, 0.9)
    call.give(ev.TurnEnded(wrong.turn, "cancelled", ev.Usage(), ()))
    (right,) = kinds(call.hear(6, 0.0), act.StartTurn)
    call.answer(right.turn)
    call.hear(12, 0.0)
    opened = Opened(call.config, "item_", 1 << 25)
    assert [d.what for d in replay(opened, call.entries)] == [d.what for d in call.made]
    plain = replay(opened, call.entries, changed({"speculation": False}))
    assert [d.what for d in plain if d.what] == [
        "somebody speaks",
        "they have finished",
        "reply 1 begins",
        "reply 1 is completed",
    ]
    hasty = replay(opened, call.entries, changed({"speculation": True}))
    assert [d.what for d in hasty if d.what][-1] == "reply 2 is completed"
