"""Tools that the server runs: results, the reply to them, words for the time until then; never over the person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_controller import VAD, Call, kinds, only, user

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import journal, notices
from voiceagent.core import options as opt
from voiceagent.core.errands import CALLS_PER_SESSION, CALLS_PER_TURN, OUT_OF_CALLS, PENDING, REFUSED
from voiceagent.core.history import AssistantItem, ToolCallItem, ToolResultItem
from voiceagent.core.tables import Mouth

FILLER = opt.Filler("One moment please.", 1000)


def tool(name: str = "weather", **how: Any) -> opt.Tool:
    return opt.Tool(name, "", {"type": "object"}, opt.ServerTool("server", name, **how))


def told(*tools: opt.Tool, **settings: Any) -> opt.SessionConfig:
    return replace(VAD, lead_ms=200, tools=tools or (tool(),), **settings)


def called(call: Call, turn: int = 1, *names: str) -> list[act.Action]:
    """The engine's turn calls tools and ends."""
    made = []
    for name in names or ("weather",):
        made += call.do(ev.ToolCalled(turn, f"call_{turn}_{name}", name, '{"city": "milan"}'))
    return made + call.end(turn)


def returned(
    call: Call, run: act.RunTool, output: str = '"sunny"', *, failed: bool = False
) -> list[act.Action]:
    return call.do(ev.ToolReturned(run.item_id, output, failed))


def asked(config: opt.SessionConfig) -> Call:
    call = Call(config)
    assert only(call.ask(), act.StartTurn).turn == 1
    return call


# --- the plain case -----------------------------------------------------------------------------------------------


def test_a_call_is_run_its_result_comes_in_and_the_reply_goes_on_by_itself() -> None:
    call = asked(told(tool_choice="weather", filler=FILLER))
    made = called(call)
    assert kinds(made) == ["TurnTool", "RunTool", "TurnClosed"]
    run = only(made, act.RunTool)
    assert (run.tool.name, run.arguments) == ("weather", '{"city": "milan"}')
    assert only(made, notices.TurnTool).server == tool().server
    made = returned(call, run)
    assert kinds(made) == ["ToolAnswered", "TurnOpened", "StartTurn"]
    assert only(made, notices.ToolAnswered) == notices.ToolAnswered(
        run.item_id, '"sunny"', call.items[-1], run.item_id
    )
    start = only(made, act.StartTurn)
    assert start.options.tool_choice == "auto"  # or it would call again, and again
    assert [type(item) for item in start.items[-2:]] == [ToolCallItem, ToolResultItem]
    call.say(2, 5, text="It is sunny.")
    call.end(2)
    assert call.wait(9) == []
    assert call.controller.next_deadline() is None


def test_a_result_that_is_there_before_its_turn_is_over_waits_for_that() -> None:
    call = asked(told())
    run = only(call.do(ev.ToolCalled(1, "c", "weather", "{}")), act.RunTool)
    assert returned(call, run) == []
    assert kinds(call.end(1)) == ["TurnClosed", "ToolAnswered", "TurnOpened", "StartTurn"]


def test_several_calls_are_answered_together_once_the_last_is_back() -> None:
    call = asked(told(tool("weather"), tool("time")))
    first, second = (a for a in called(call, 1, "weather", "time") if isinstance(a, act.RunTool))
    assert kinds(returned(call, second)) == ["ToolAnswered"]
    made = returned(call, first)
    assert kinds(made) == ["ToolAnswered", "TurnOpened", "StartTurn"]
    results = [item.output for item in only(made, act.StartTurn).items if isinstance(item, ToolResultItem)]
    assert results == ['"sunny"', '"sunny"']


def test_of_a_turn_that_calls_the_clients_tools_too_the_client_asks_for_the_reply() -> None:
    call = asked(told(tool("weather"), opt.Tool("lights")))
    run = only(called(call, 1, "weather", "lights"), act.RunTool)
    assert kinds(returned(call, run)) == ["ToolAnswered"]
    made = call.do(ev.Respond(call.controller._config.turn_options()))
    assert any(isinstance(item, ToolResultItem) for item in only(made, act.StartTurn).items)


def test_of_a_server_that_the_client_has_named_it_asks_for_the_reply_by_the_protocol() -> None:
    """by_the_protocol: but words for the time, and a reply to what only says that more comes later, are ours."""
    call = asked(told(tool(reply=False), filler=FILLER))
    run = only(called(call), act.RunTool)
    bridge = only(call.wait(1.2), act.StartTurn)
    call.say(bridge.turn, 5, text=FILLER.text)
    call.end(bridge.turn)
    call.wait(1)
    assert kinds(returned(call, run)) == ["ToolAnswered"]
    assert call.wait(5) == []
    call = asked(told(tool(reply=False, background=True)))
    made = called(call)
    assert only(made, act.StartTurn)
    call.end(2)
    assert kinds(returned(call, only(made, act.RunTool))) == ["ToolAnswered"]


def test_who_answers_a_turn_with_an_input_of_its_own_sees_that_and_the_result() -> None:
    call = Call(told(turn_detection=None))
    call.do(ev.ItemCreate(user("what was before")))
    options = replace(told().turn_options(), input=(user("the weather?", "mine"),), metadata={"a": "b"})
    call.do(ev.Respond(options))
    start = only(returned(call, only(called(call), act.RunTool)), act.StartTurn)
    assert [type(item).__name__ for item in start.items] == ["UserItem", "ToolCallItem", "ToolResultItem"]
    assert start.options.metadata is None


def test_beside_the_conversation_no_tool_of_the_servers_is_offered() -> None:
    call = Call(told(turn_detection=None))
    made = call.do(ev.Respond(replace(told().turn_options(), conversation=False)))
    assert only(made, act.StartTurn).options.tools == ()


# --- while somebody speaks ----------------------------------------------------------------------------------------


def test_a_reply_waits_until_the_person_has_finished_and_answers_both() -> None:
    call = asked(told())
    run = only(called(call), act.RunTool)
    call.hear(20, 0.9)
    assert kinds(returned(call, run)) == ["ToolAnswered"]
    made = call.hear(17, 0.0)
    kindly = [type(item).__name__ for item in only(made, act.StartTurn).items]
    assert kindly == ["UserItem", "ToolCallItem", "ToolResultItem", "UserItem"]
    call.say(2, 5, text="Both.")
    call.end(2)
    assert "StartTurn" not in kinds(call.wait(9))


def test_a_result_that_comes_during_another_reply_is_told_behind_it() -> None:
    call = asked(told())
    run = only(called(call), act.RunTool)
    assert only(call.ask(), act.StartTurn).turn == 2  # the person goes on talking, and is answered
    call.say(2, 5, text="As I said.")
    assert returned(call, run) == []
    made = call.end(2)
    assert kinds(made)[-4:] == ["TurnClosed", "ToolAnswered", "TurnOpened", "StartTurn"]
    assert [type(item).__name__ for item in only(made, act.StartTurn).items[-2:]] == [
        "AssistantItem",
        "ToolResultItem",
    ]


def test_who_cancels_the_turn_that_called_gets_the_result_and_no_reply() -> None:
    call = asked(told())
    run = only(call.do(ev.ToolCalled(1, "c", "weather", "{}")), act.RunTool)
    call.do(ev.Cancel())
    assert kinds(returned(call, run)) == ["ToolAnswered"]


def test_after_the_hang_up_nothing_comes_of_a_result() -> None:
    call = asked(told())
    run = only(called(call), act.RunTool)
    call.do(ev.Hangup("bye"))
    assert returned(call, run) == []


# --- words for the time until then --------------------------------------------------------------------------------


def slow(config: opt.SessionConfig | None = None) -> tuple[Call, act.RunTool, act.StartTurn]:
    """A call in which the filler has just begun to be made."""
    call = asked(config or told(filler=FILLER))
    run = only(called(call), act.RunTool)
    assert call.wait(0.9) == []
    return call, run, only(call.wait(0.2), act.StartTurn)


def test_a_tool_that_takes_long_is_bridged_by_given_words_that_stay_in_the_conversation() -> None:
    call, run, start = slow()
    assert (start.options.script, start.items, start.options.tools) == (FILLER.text, (), ())
    call.say(2, 25, text=FILLER.text)
    assert returned(call, run) == []  # it has begun, and is said to its end
    assert kinds(call.end(2)) == []
    assert "StartTurn" in kinds(call.wait(1.0))
    said = [type(item) for item in call.controller.history]
    assert said[-3:] == [ToolCallItem, AssistantItem, ToolResultItem]


def test_words_that_were_not_begun_are_dropped_when_the_result_is_there() -> None:
    call, run, _ = slow()
    made = returned(call, run)
    assert kinds(made) == ["CancelTurn", "TurnClosed", "ToolAnswered", "TurnOpened", "StartTurn"]
    assert only(made, notices.TurnClosed).reason == "tool_returned"
    assert not any(isinstance(item, AssistantItem) for item in call.controller.history)


def test_a_quick_tool_is_not_bridged() -> None:
    call = asked(told(filler=FILLER))
    run = only(called(call), act.RunTool)
    call.wait(0.9)
    call.say(only(returned(call, run), act.StartTurn).turn, 5, text="Sunny.")
    call.end(2)
    assert "StartTurn" not in kinds(call.wait(5.0))


def test_no_filler_over_the_person_and_one_at_most() -> None:
    call = asked(told(filler=FILLER))
    called(call)
    call.wait(0.5)
    for _ in range(3):
        assert "StartTurn" not in kinds(call.hear(20, 0.9, in_time=True))
    made = call.hear(17, 0.0)
    assert only(made, act.StartTurn).options.script == ""  # they are answered first
    call.say(2, 5, text="Yes?")
    call.end(2)
    bridge = only(call.wait(1.5), act.StartTurn)
    assert bridge.options.script == FILLER.text
    call.say(bridge.turn, 5, text=FILLER.text)
    call.end(bridge.turn)
    assert "StartTurn" not in kinds(call.wait(20.0))


def test_a_voice_over_the_filler_stops_it() -> None:
    call, run, _ = slow()
    call.say(2, 100, text=FILLER.text)
    made = call.hear(60, 0.9, in_time=True)
    assert only(made, notices.TurnClosed).reason == "turn_detected"
    assert call.controller.mouth is Mouth.IDLE
    assert kinds(returned(call, run)) == ["ToolAnswered"]


def test_a_tools_own_words_go_before_the_sessions_and_a_written_reply_has_none() -> None:
    _, _, start = slow(told(tool(filler=opt.Filler("I look.", 1000)), filler=FILLER))
    assert start.options.script == "I look."
    call = asked(told(filler=FILLER, modalities="text"))
    called(call)
    assert call.wait(60) == []


# --- results that come late ---------------------------------------------------------------------------------------


def test_a_background_tool_is_told_to_be_pending_and_reports_when_nobody_speaks() -> None:
    call = asked(told(tool(background=True)))
    made = called(call)
    assert kinds(made) == ["TurnTool", "RunTool", "TurnClosed", "ToolAnswered", "TurnOpened", "StartTurn"]
    run, answered = only(made, act.RunTool), only(made, notices.ToolAnswered)
    assert (answered.output, answered.more) == (PENDING, True)
    call.say(2, 50, text="I will tell you.")
    call.end(2)
    call.wait(0.5)
    assert returned(call, run) == []  # we still speak
    call.hear(20, 0.9, in_time=True)
    assert "ToolAnswered" not in kinds(call.wait(0.1))  # and now they do
    turn = only(call.hear(17, 0.0), act.StartTurn).turn
    call.say(turn, 5, text="Of course.")
    made = call.end(turn) + call.wait(3.0)
    late = only(made, notices.ToolAnswered)
    assert (late.item_id, late.output, late.more) == (run.item_id, '"sunny"', False)
    assert only(made, act.StartTurn).options.script == ""


def test_with_manual_turns_a_late_result_waits_for_nobody_and_speaks_over_nobody() -> None:
    """push_to_talk: who is being recorded may be speaking; the next reply tells what came in."""
    call = Call(told(tool(background=True), turn_detection=None, filler=FILLER))
    call.do(ev.Respond(told(tool(background=True)).turn_options()))
    made = called(call)
    call.end(only(made, act.StartTurn).turn)
    call.hear(5, 0.0)
    assert kinds(returned(call, only(made, act.RunTool))) == ["ToolAnswered"]
    assert call.wait(9) == []


# --- approval and budgets -----------------------------------------------------------------------------------------


def test_a_call_that_needs_approval_is_run_only_then() -> None:
    call = asked(told(tool(approval=True), filler=FILLER))
    made = called(call)
    assert kinds(made) == ["TurnTool", "TurnClosed"]
    item_id = only(made, notices.TurnTool).item_id
    assert call.do(ev.ToolReturned(item_id, "forged")) == []
    assert call.wait(20) == []  # nothing is bridged that does not run
    run = only(call.do(ev.Approve(item_id, True)), act.RunTool)
    assert only(call.do(ev.Approve(item_id, True, event_id="e")), notices.Error).event_id == "e"
    assert "StartTurn" in kinds(returned(call, run))


def test_a_call_that_is_not_approved_is_a_result_that_says_so() -> None:
    call = asked(told(tool(approval=True)))
    item_id = only(called(call), notices.TurnTool).item_id
    made = call.do(ev.Approve(item_id, False))
    answered = only(made, notices.ToolAnswered)
    assert (answered.item_id, answered.output, answered.failed) == (item_id, REFUSED, True)
    assert "StartTurn" in kinds(made)
    assert only(call.do(ev.Approve("nobody", True)), notices.Error).code == "approval_not_found"


def test_a_turn_of_the_persons_has_eight_calls_and_then_has_to_do_without() -> None:
    call = asked(told())
    turn, runs = 1, 0
    while True:
        made = called(call, turn)
        found = [action for action in made if isinstance(action, act.RunTool)]
        if not found:
            break
        runs += 1
        turn = only(returned(call, found[0]), act.StartTurn).turn
    assert runs == CALLS_PER_TURN
    assert only(made, notices.ToolAnswered).output == OUT_OF_CALLS
    assert only(made, act.StartTurn).options.tool_choice == "none"


def test_a_hundred_calls_in_one_turn_are_eight_and_a_session_has_sixty_four() -> None:
    call = asked(told())
    made = called(call, 1, *["weather"] * 100)
    assert kinds(made).count("RunTool") == CALLS_PER_TURN
    runs = [action for action in made if isinstance(action, act.RunTool)]
    total = 0
    for _ in range(20):
        total += len(runs)
        made = [action for run in runs for action in returned(call, run)]
        turn = only(made, act.StartTurn).turn
        call.say(turn, 5, text="So.")
        call.end(turn)
        call.wait(3)
        turn = only(call.ask(), act.StartTurn).turn
        made = called(call, turn, *["weather"] * 100)
        runs = [action for action in made if isinstance(action, act.RunTool)]
        if not runs:
            break
    assert total == CALLS_PER_SESSION


# --- the rest -----------------------------------------------------------------------------------------------------


def test_who_deletes_a_call_deletes_its_result() -> None:
    call = asked(told())
    run = only(called(call), act.RunTool)
    returned(call, run)
    call.do(ev.ItemDelete(run.item_id))
    assert [type(item).__name__ for item in call.controller.history] == ["UserItem"]


def test_a_call_that_was_deleted_gets_no_result() -> None:
    call = asked(told())
    run = only(called(call), act.RunTool)
    call.do(ev.ItemDelete(run.item_id))
    assert returned(call, run) == []


@pytest.mark.parametrize("event", [ev.ToolReturned("item_1", "x", True), ev.Approve("item_1", False, "no")])
def test_it_goes_into_the_journal(event: ev.Event) -> None:
    config = told(tool(filler=FILLER), filler=FILLER)
    opened = journal.Opened(config, "item_", 1)
    lines = [journal.first_line(opened), journal.line(journal.Entry(1.0, event))]
    assert journal.read(lines) == (opened, [journal.Entry(1.0, event)])


def test_on_a_guess_nothing_is_run_before_it_is_decided() -> None:
    call = Call(told(speculation=True))
    call.hear(20, 0.9)
    guess = only(call.hear(5, 0.0), act.StartTurn)
    assert call.do(ev.ToolCalled(guess.turn, "c", "weather", "{}")) == []
    made = call.hear(12, 0.0)
    assert only(made, act.ConfirmTurn).turn == guess.turn
    assert only(made, act.RunTool).tool.name == "weather"
    dropped = Call(told(speculation=True))
    dropped.hear(20, 0.9)
    guess = only(dropped.hear(5, 0.0), act.StartTurn)
    dropped.do(ev.ToolCalled(guess.turn, "c", "weather", "{}"))
    assert "RunTool" not in kinds(dropped.hear(20, 0.9))  # they went on
