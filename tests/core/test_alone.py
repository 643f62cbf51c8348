"""An interpreter: each utterance is answered by itself."""

from __future__ import annotations

from dataclasses import replace

from test_controller import VAD, Call, kinds, only

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import options as opt

VAD_ONLY = opt.ServerVad(interrupt_response=False)
INTERPRETER = replace(VAD, alone=True, turn_detection=VAD_ONLY)


def test_an_answer_sees_what_it_answers_and_nothing_before_it() -> None:
    call = Call(INTERPRETER)
    for turn in (1, 2):
        start = only(call.ask(), act.StartTurn)
        assert [item.id for item in start.items] == [f"item_{2 * turn - 1:04d}"]
        call.say(turn, 5, text="hola")
        call.end(turn)
    assert len(call.items) == 4, "the conversation is kept all the same"
    assert not call.ahead, "there is nothing to read ahead"


def test_what_was_said_during_an_answer_is_answered_together() -> None:
    call = Call(INTERPRETER)
    call.ask()
    assert "StartTurn" not in kinds(call.ask() + call.ask())
    call.say(1, 5, text="hola")
    start = only(call.end(1), act.StartTurn)
    assert [item.id for item in start.items] == ["item_0003", "item_0004"]


def test_an_utterance_that_was_deleted_meanwhile_is_not_answered() -> None:
    call = Call(INTERPRETER)
    call.ask()
    call.ask()
    call.do(ev.ItemDelete("item_0003"))
    assert kinds(call.end(1)) == ["TurnClosed"]
    assert only(call.ask(), act.StartTurn)
