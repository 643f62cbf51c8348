"""A conversation that outgrew the context: what was left out stays out, and the client learns how full it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.history import TextContent, UserItem, item_pieces

MANUAL = opt.SessionConfig(turn_detection=None, modalities="text")
SECOND = 16_000


class Call:
    def __init__(self) -> None:
        self.controller = Controller(MANUAL, id_prefix="item_")
        self.heard = 0

    def do(self, event: ev.Event) -> list[act.Action]:
        return self.controller.handle(event, 0.0)

    def speak(self) -> str:
        self.do(ev.AudioIn(self.heard, np.zeros(SECOND, np.float32)))
        self.heard += SECOND
        return next(a.item.id for a in self.do(ev.Commit()) if isinstance(a, notices.ItemAdded))

    def ask(self, **options: Any) -> act.StartTurn:
        made = self.do(ev.Respond(opt.TurnOptions(modalities="text", **options)))
        return next(action for action in made if isinstance(action, act.StartTurn))

    def answer(self, turn: int, **started: Any) -> tuple[list[act.Action], notices.TurnClosed]:
        begun = self.do(ev.TurnStarted(turn, usage=ev.Usage(10, 5, 3), limit=100, **started))
        self.do(ev.TextOut(turn, "Yes.", (1, 2)))
        made = self.do(ev.TurnEnded(turn, "stop", ev.Usage(10, 5, 3, 4, 0), (1, 2)))
        return begun, next(action for action in made if isinstance(action, notices.TurnClosed))


def test_what_was_left_out_is_not_sent_again_and_can_still_be_retrieved() -> None:
    call = Call()
    first = call.speak()
    asked = call.ask()
    call.answer(asked.turn)
    second = call.speak()
    asked = call.ask()
    reply = asked.items[1].id
    assert [item.id for item in asked.items] == [first, reply, second]
    begun, closed = call.answer(asked.turn, dropped=(first, reply))
    (piece,) = item_pieces(asked.items[0])
    assert begun == [act.ForgetPieces((piece.id,))], "the engine need not keep what it will not read"
    assert closed.context == notices.ContextUse(19, 100, (first, reply))
    assert [item.id for item in call.ask().items][:1] == [second]
    (shown,) = call.do(ev.ItemRetrieve(first))
    assert isinstance(shown, notices.ItemRetrieved)
    assert list(item_pieces(shown.item)) == [piece]


def test_what_the_client_puts_in_front_later_is_seen() -> None:
    call = Call()
    first = call.speak()
    call.answer(call.ask().turn, dropped=())
    call.answer(call.ask().turn, dropped=(first,))
    call.do(ev.ItemCreate(UserItem("mine", (TextContent("word"),)), "root"))
    assert call.ask().items[0].id == "mine"


def test_an_id_that_comes_back_is_seen_again() -> None:
    call = Call()
    call.do(ev.ItemCreate(UserItem("mine", (TextContent("word"),))))
    call.answer(call.ask().turn, dropped=("mine",))
    call.do(ev.ItemDelete("mine"))
    call.do(ev.ItemCreate(UserItem("mine", (TextContent("word"),))))
    assert "mine" in [item.id for item in call.ask().items]


def test_a_turn_with_input_of_its_own_leaves_the_conversation_as_it_is() -> None:
    call = Call()
    first = call.speak()
    asked = call.ask(input=(opt.ItemReference(first),))
    begun, closed = call.answer(asked.turn, dropped=(first,))
    assert begun == []
    assert closed.context is not None
    assert first in [item.id for item in call.ask().items]


def test_a_turn_beside_the_conversation_leaves_it_as_it_is() -> None:
    call = Call()
    first = call.speak()
    asked = call.ask(conversation=False)
    begun, closed = call.answer(asked.turn, dropped=(first,))
    assert begun == []
    assert closed.context == notices.ContextUse(19, 100, (first,))
    assert first in [item.id for item in call.ask().items]


def test_a_cut_turn_has_cost_its_input_and_what_came_of_it() -> None:
    call = Call()
    asked = call.ask()
    call.do(ev.TurnStarted(asked.turn, usage=ev.Usage(10, 5, 3), limit=100))
    call.do(ev.TextOut(asked.turn, "Ye", (1, 2)))
    made = call.do(ev.Cancel())
    closed = next(action for action in made if isinstance(action, notices.TurnClosed))
    assert closed.usage == ev.Usage(10, 5, 3, 2, 0)
    assert closed.context == notices.ContextUse(17, 100)


def test_a_turn_that_the_engine_never_began_has_no_usage() -> None:
    call = Call()
    call.ask()
    closed = next(action for action in call.do(ev.Cancel()) if isinstance(action, notices.TurnClosed))
    assert (closed.usage, closed.context) == (None, None)
