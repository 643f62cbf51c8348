"""A thought before the reply: told as it comes, never kept, never sent as sound, and gone at once when interrupted."""

from __future__ import annotations

from dataclasses import replace

from test_controller import VAD, Call, kinds, only

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core.history import AssistantItem
from voiceagent.core.tables import Mouth

THINKING = replace(VAD, think=True)


def thinking() -> Call:
    """A call in the middle of a thought."""
    call = Call(THINKING)
    asked = call.ask()
    assert only(asked, act.StartTurn).options.think
    assert call.do(ev.TurnStarted(1)) == []
    assert call.do(ev.ThoughtOut(1, "Let me see. ")) == [notices.TurnThought(1, "Let me see. ")]
    return call


def test_a_thought_is_told_and_not_kept() -> None:
    call = thinking()
    assert call.do(ev.ThoughtOut(1, "")) == []
    assert call.controller.mouth is Mouth.THINKING
    assert call.items == ["item_0001"]  # the question alone
    call.say(1, 5, text="Hello.")
    call.end(1)
    call.wait(1)
    item = call.controller.history.items[-1]
    assert isinstance(item, AssistantItem)
    assert item.text == "Hello."


def test_a_voice_during_a_thought_cancels_it_and_leaves_nothing() -> None:
    call = thinking()
    made = call.hear(9, 0.9)
    assert kinds(made) == ["SpeechStarted", "CancelTurn", "TurnClosed"]
    closed = only(made, notices.TurnClosed)
    assert (closed.status, closed.reason, closed.item) == ("cancelled", "turn_detected", None)
    assert call.items == ["item_0001"]
    assert call.do(ev.ThoughtOut(1, "and then")) == []  # what comes too late
    assert call.do(ev.TurnEnded(1, "cancelled", ev.Usage(output_text=3, output_thought=3), ())) == []
    made = call.hear(17, 0.0)
    assert only(made, act.StartTurn).turn == 2


def test_a_client_cancels_a_thought() -> None:
    call = thinking()
    made = call.do(ev.Cancel())
    assert kinds(made) == ["CancelTurn", "TurnClosed"]
    assert only(made, notices.TurnClosed).item is None


def test_a_thought_with_nothing_behind_it_is_a_reply_without_a_message() -> None:
    call = thinking()
    made = call.end(1, "max_tokens")
    closed = only(made, notices.TurnClosed)
    assert (closed.status, closed.item) == ("incomplete", None)
    assert call.controller.mouth is Mouth.IDLE


def test_one_turn_may_think_where_the_session_does_not() -> None:
    call = Call(replace(VAD, turn_detection=None))
    options = replace(VAD.turn_options(), think=True)
    assert only(call.do(ev.Respond(options)), act.StartTurn).options.think
