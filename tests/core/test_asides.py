"""Turns beside the conversation: they run while the talk goes on, and neither hears of the other."""

from __future__ import annotations

import numpy as np
from test_controller import MANUAL, TOKEN, Call, kinds, only, user

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.asides import MAX_ASIDES
from voiceagent.core.history import AudioContent, Piece, UserItem
from voiceagent.core.tables import Mouth

BESIDE = opt.TurnOptions(modalities="text", conversation=False)
SPOKEN = opt.TurnOptions(conversation=False)


def test_an_aside_reads_what_it_is_given_and_leaves_nothing() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user("kept", "u1")))
    audio = UserItem("", (AudioContent((Piece(0, np.zeros(500_000, np.float32)),)),))
    options = opt.TurnOptions(conversation=False, input=(opt.ItemReference("u1"), audio))
    made = call.do(ev.Respond(options))
    assert kinds(made) == ["TurnOpened", "EncodePiece", "EncodePiece", "StartTurn"]
    start = only(made, act.StartTurn)
    assert start.items[0] == user("kept", "u1")
    assert start.options.input == start.items
    call.say(1, 5, text="Aside")
    call.do(ev.ToolCalled(1, "c", "f", "{}"))
    made = call.end(1)
    assert only(made, notices.TurnClosed).item.text == "Aside"
    assert only(made, act.ForgetPieces).pieces == (1, 2)
    assert call.items == ["u1"]


def test_the_talk_goes_on_while_the_model_sums_it_up() -> None:
    call = Call()
    call.ask()
    call.say(1, 50, text="A long answer.")
    made = call.do(ev.Respond(BESIDE))
    opened = only(made, notices.TurnOpened)
    assert (opened.turn, opened.previous_item_id) == (2, None)
    told = only(made, act.StartTurn).items[-1]
    assert (told.text, told.complete) == ("A long answer.", False)  # as far as the client was told
    assert only(call.do(ev.TextOut(2, "Small talk.", (1,))), notices.TurnText).turn == 2
    assert kinds(call.say(1, 5)) == ["SendAudio"]
    closed = only(call.end(2), notices.TurnClosed)
    assert (closed.turn, closed.status, closed.item.text) == (2, "completed", "Small talk.")
    assert only(call.end(1), notices.TurnClosed).turn == 1
    assert len(call.items) == 2


def test_the_audio_of_an_aside_is_not_our_voice() -> None:
    call = Call(opt.SessionConfig(lead_ms=200))
    call.do(ev.Respond(SPOKEN))
    made = call.say(1, 50)
    assert len(only(made, act.SendAudio).pcm) == 50 * TOKEN, "at once, whatever the lead"
    assert call.controller.mouth is Mouth.IDLE
    assert call.controller.next_deadline() is None
    made = call.hear(20, 0.9)
    assert kinds(made) == ["SpeechStarted"], "nobody is interrupted"
    assert call.do(ev.OutputClear()) == []
    assert only(call.end(1), notices.TurnClosed).status == "completed"


def test_an_aside_outlives_an_interruption_and_the_next_question() -> None:
    call = Call()
    call.ask()
    call.do(ev.Respond(BESIDE))
    assert only(call.hear(20, 0.9), notices.TurnClosed).turn == 1
    assert only(call.hear(17, 0.0), notices.TurnOpened).turn == 3
    assert only(call.end(2), notices.TurnClosed).status == "completed"


def test_each_is_cancelled_by_its_own_name() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(BESIDE))
    call.do(ev.Respond(SPOKEN))
    call.say(2, 5)
    error = only(call.do(ev.Cancel(None, "e1")), notices.Error)
    assert (error.code, error.event_id) == ("response_cancel_not_active", "e1")
    made = call.do(ev.Cancel(2))
    assert kinds(made) == ["CancelTurn", "TurnClosed"]
    closed = only(made, notices.TurnClosed)
    assert (closed.turn, closed.status, closed.reason) == (2, "cancelled", "client_cancelled")
    assert closed.item.samples == 5 * TOKEN
    assert call.do(ev.TextOut(2, "late", (1,))) == []
    assert call.do(ev.AudioOut(2, 0, np.zeros(TOKEN, np.int16), (1,))) == []
    assert only(call.do(ev.Cancel(2)), notices.Error).code == "response_cancel_not_active"
    call.do(ev.Respond(opt.TurnOptions()))
    assert only(call.do(ev.Cancel()), notices.TurnClosed).turn == 3
    assert only(call.end(1), notices.TurnClosed).turn == 1


def test_only_so_many_at_once() -> None:
    call = Call(MANUAL)
    for _ in range(MAX_ASIDES):
        assert "StartTurn" in kinds(call.do(ev.Respond(BESIDE)))
    error = only(call.do(ev.Respond(BESIDE, "e7")), notices.Error)
    assert (error.code, error.event_id) == ("too_many_active_responses", "e7")
    assert "StartTurn" in kinds(call.do(ev.Respond(opt.TurnOptions())))
    call.end(2)
    assert "StartTurn" in kinds(call.do(ev.Respond(BESIDE)))


def test_ends_of_every_kind() -> None:
    for event, status, reason in (
        (ev.TurnEnded(1, "max_tokens", ev.Usage(), ()), "incomplete", "max_output_tokens"),
        (ev.TurnEnded(1, "cancelled", ev.Usage(), ()), "failed", "error"),
        (ev.TurnFailed(1, "kv_full", "no room"), "failed", "error"),
        (ev.EngineDown(), "failed", "error"),
        (ev.Hangup("bye"), "cancelled", "hangup"),
    ):
        call = Call(MANUAL)
        call.do(ev.Respond(BESIDE))
        closed = only(call.do(event), notices.TurnClosed)
        assert (closed.status, closed.reason, closed.item) == (status, reason, None)
    call = Call(MANUAL)
    call.do(ev.Respond(BESIDE))
    assert kinds(call.do(ev.Detached())) == ["CancelTurn"]


def test_without_an_engine_an_aside_fails_at_once() -> None:
    call = Call(MANUAL)
    call.do(ev.EngineDown())
    made = call.do(ev.Respond(BESIDE))
    assert kinds(made) == ["TurnOpened", "TurnClosed"]
    assert only(made, notices.TurnClosed).error.code == "engine_down"
    call.do(ev.EngineUp())
    assert "StartTurn" in kinds(call.do(ev.Respond(BESIDE)))


def test_what_cannot_be_referred_to_is_an_error() -> None:
    call = Call(MANUAL)
    options = opt.TurnOptions(conversation=False, input=(opt.ItemReference("u1"),))
    assert only(call.do(ev.Respond(options)), notices.Error).code == "item_reference_invalid_item_id"
    made = call.do(ev.Respond(BESIDE))
    taken = user("mine", only(made, notices.TurnOpened).item_id)
    assert only(call.do(ev.ItemCreate(taken)), notices.Error).code == "item_create_duplicate_item_id"
