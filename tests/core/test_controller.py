"""What the controller does, case by case; the walk (test_walk.py) finds what nobody thought of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.core.tables import Ear, Mouth

TOKEN = 960
MANUAL = opt.SessionConfig(turn_detection=None)
VAD = opt.SessionConfig()


class Call:
    """A controller with a clock, a microphone, shorthands; what is read ahead and voices that are weighed are apart."""

    def __init__(self, config: opt.SessionConfig = VAD) -> None:
        self.controller = Controller(config, id_prefix="item_")
        self.t = 0.0
        self.mic = 0
        self.ahead: list[act.Prepare] = []
        self.weighed: list[notices.Interruption] = []
        self.told: list[notices.TurnHeard] = []

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[act.Action]:
        self.t += after
        return self.sift(self.controller.handle(event, self.t))

    def sift(self, made: list[act.Action]) -> list[act.Action]:
        self.ahead += [action for action in made if isinstance(action, act.Prepare)]
        self.told += [action for action in made if isinstance(action, notices.TurnHeard)]
        self.weighed += [action for action in made if isinstance(action, notices.Interruption)]
        return [
            action
            for action in made
            if not isinstance(action, act.Prepare | notices.Interruption | notices.TurnHeard)
        ]

    def wait(self, seconds: float) -> list[act.Action]:
        """Lets time pass and fires every deadline in it."""
        until, made = self.t + seconds, []
        while (deadline := self.controller.next_deadline()) is not None and deadline <= until:
            self.t = max(self.t, deadline)
            made += self.sift(self.controller.handle_timeout(self.t))
        self.t = until
        return made + self.sift(self.controller.handle_timeout(self.t))

    def hear(self, windows: int, p: float, *, in_time: bool = False) -> list[act.Action]:
        made = []
        for _ in range(windows):
            samples = np.arange(self.mic, self.mic + 512, dtype=np.float32)
            made += self.do(ev.AudioIn(self.mic, samples), after=0.032 if in_time else 0.0)
            self.mic += 512
            made += self.do(ev.SpeechProb(self.mic, p))
        return made

    def ask(self) -> list[act.Action]:
        return self.hear(20, 0.9) + self.hear(17, 0.0)

    def say(self, turn: int, tokens: int, *, text: str = "", seq: int = 0) -> list[act.Action]:
        made = self.do(ev.TextOut(turn, text, (7,))) if text else []
        return made + self.do(
            ev.AudioOut(turn, seq, np.arange(tokens * TOKEN, dtype=np.int16), (1,) * tokens)
        )

    def end(self, turn: int, reason: str = "stop") -> list[act.Action]:
        return self.do(ev.TurnEnded(turn, reason, ev.Usage(output_text=3), (9, 9)))

    @property
    def items(self) -> list[str]:
        return [item.id for item in self.controller.history]


def kinds(actions: Sequence[act.Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def only(actions: Sequence[act.Action], kind: type[Any]) -> Any:
    found = [action for action in actions if isinstance(action, kind)]
    assert len(found) == 1, f"{len(found)} of {kind.__name__} in {kinds(actions)}"
    return found[0]


def user(text: str = "hi", item_id: str = "") -> UserItem:
    return UserItem(item_id, (TextContent(text),))


# --- a spoken exchange --------------------------------------------------------------------------------------------


def test_a_question_is_announced_committed_and_answered_in_the_protocols_order() -> None:
    call = Call(replace(VAD, transcribe=True))
    call.hear(20, 0.0)
    started = only(call.hear(20, 0.9), notices.SpeechStarted)
    assert started == notices.SpeechStarted("item_0001", 20 * 32 - 300)
    made = call.hear(17, 0.0)
    assert kinds(made) == [
        "EncodePiece",
        "SpeechStopped",
        "Committed",
        "ItemAdded",
        "ItemDone",
        "Transcribe",
        "TurnOpened",
        "StartTurn",
    ]
    assert only(made, notices.SpeechStopped) == notices.SpeechStopped(
        "item_0001", 40 * 32 + 300, "silence", 512
    )
    assert only(made, notices.Committed) == notices.Committed("item_0001", None)
    start = only(made, act.StartTurn)
    assert start.items == call.controller.history.items
    assert start.options == VAD.turn_options()
    audio = start.items[0].content[0].pieces[0].audio
    assert np.array_equal(audio, np.arange((20 * 32 - 300) * 16, (40 * 32 + 300) * 16, dtype=np.float32))
    opened = only(made, notices.TurnOpened)
    assert (opened.turn, opened.item_id, opened.previous_item_id) == (1, "item_0002", "item_0001")
    assert call.controller.mouth is Mouth.THINKING


def test_a_reply_is_closed_when_sent_and_over_when_heard() -> None:
    call = Call(replace(VAD, lead_ms=200))
    call.ask()
    made = call.say(1, 20, text="Hello there.")
    assert only(made, notices.TurnText) == notices.TurnText(1, "item_0002", "Hello there.")
    assert len(only(made, act.SendAudio).pcm) == 5 * TOKEN
    assert call.end(1) == []
    made = call.wait(0.59)
    assert kinds(made) == ["SendAudio"] * 14
    made = call.wait(0.02)
    closed = only(made, notices.TurnClosed)
    assert (closed.status, closed.reason, closed.error) == ("completed", None, None)
    assert closed.usage == ev.Usage(output_text=3)
    assert closed.item == AssistantItem(
        "item_0002",
        "Hello there.",
        text_ids=(7,),
        audio_ids=(1,) * 20,
        raw_ids=(9, 9),
        spoken=True,
        samples=20 * TOKEN,
        complete=True,
        marks=((12, 1),),
    )
    assert call.controller.history.items[-1] == closed.item
    assert call.controller.mouth is Mouth.SPEAKING
    call.wait(0.35)
    assert call.controller.mouth is Mouth.IDLE
    assert call.controller.next_deadline() is None


def test_unpaced_audio_goes_at_once() -> None:
    call = Call()
    call.ask()
    assert len(only(call.say(1, 50), act.SendAudio).pcm) == 50 * TOKEN
    assert kinds(call.end(1)) == ["TurnClosed"]
    assert call.controller.mouth is Mouth.SPEAKING
    call.wait(2.2)
    assert call.controller.mouth is Mouth.IDLE


def test_a_token_limit_makes_a_reply_incomplete() -> None:
    call = Call()
    call.ask()
    call.say(1, 5)
    closed = only(call.end(1, "max_tokens"), notices.TurnClosed)
    assert (closed.status, closed.reason) == ("incomplete", "max_output_tokens")


def test_long_speech_is_encoded_while_it_goes_on() -> None:
    call = Call()
    made = call.hear(800, 0.9)
    first = len(only(made, act.EncodePiece).piece.audio)
    assert 320_000 < first < 400_000, "cut where it is quietest"
    made = call.hear(17, 0.0)
    assert len(only(made, act.EncodePiece).piece.audio) == 800 * 512 + 300 * 16 - first
    assert [p.id for p in only(made, act.StartTurn).items[0].content[0].pieces] == [1, 2]


def test_a_transcript_arrives_later() -> None:
    call = Call()
    call.ask()
    assert call.do(ev.Transcript("item_0001", "what time is it")) == [
        notices.InputTranscript("item_0001", "what time is it")
    ]
    item = call.controller.history.items[0]
    assert isinstance(item, UserItem)
    assert item.content[0].transcript == "what time is it"
    assert call.do(ev.Transcript("item_0404", "?")) == []


def test_without_create_response_nobody_answers() -> None:
    call = Call(replace(VAD, turn_detection=opt.ServerVad(create_response=False)))
    assert "StartTurn" not in kinds(call.ask())
    assert call.controller.mouth is Mouth.IDLE


def test_an_utterance_whose_sound_ceases_is_over() -> None:
    call = Call()
    call.hear(20, 0.9)
    assert call.wait(3.9) == []
    made = call.wait(0.2)
    assert only(made, notices.SpeechStopped).audio_end_ms == 640
    assert "StartTurn" in kinds(made)


# --- interruptions ------------------------------------------------------------------------------------------------


def speaking(config: opt.SessionConfig = VAD) -> Call:
    """A call in the middle of a reply of 4 s, 1 s of which has been played."""
    call = Call(config)
    call.ask()
    call.do(ev.TextOut(1, "One two three", (1, 2, 3)))
    call.do(ev.TextOut(1, " four five six", (4, 5, 6)))
    call.say(1, 100)
    call.wait(1.0)
    return call


def test_a_voice_over_ours_stops_us_and_cuts_what_was_not_heard() -> None:
    call = speaking()
    call.end(1)
    made = call.hear(6, 0.9)
    assert made == []
    assert call.controller.mouth is Mouth.HELD
    made = call.hear(1, 0.9)
    assert kinds(made) == ["SpeechStarted", "Flush", "ItemTruncated"]
    heard = int(0.9 * 24_000) // TOKEN
    assert only(made, notices.ItemTruncated) == notices.ItemTruncated("item_0002", heard * 40)
    item = call.controller.history.find("item_0002")
    assert isinstance(item, AssistantItem)
    assert len(item.audio_ids) == heard
    assert item.text == ""  # 22 of 100 tokens, and the first group of words ends at 48
    assert call.controller.mouth is Mouth.IDLE


def test_an_unfinished_turn_is_cancelled() -> None:
    call = speaking()
    made = call.hear(7, 0.9)
    assert kinds(made) == ["SpeechStarted", "CancelTurn", "Flush", "TurnClosed", "ItemTruncated"]
    closed = only(made, notices.TurnClosed)
    assert (closed.status, closed.reason, closed.usage) == ("cancelled", "turn_detected", None)
    assert closed.item == call.controller.history.find("item_0002")
    assert call.say(1, 5, text="late", seq=1) == []
    assert call.end(1) == []
    assert "StartTurn" in kinds(call.hear(17, 0.0))


def test_a_cough_holds_us_for_a_moment_and_is_forgotten() -> None:
    call = speaking(replace(VAD, lead_ms=200))
    made = call.hear(5, 0.9)
    assert kinds(made) == []
    assert call.wait(0.3) == []
    assert kinds(call.hear(5, 0.0)) == []
    made = call.hear(1, 0.0)
    sent = sum(len(a.pcm) for a in made if isinstance(a, act.SendAudio))
    assert sent == 5 * TOKEN
    assert call.controller.ear is Ear.QUIET
    assert "Committed" not in kinds(call.hear(40, 0.0))
    assert call.hear(5, 0.9) == []
    assert call.controller.mouth is Mouth.HELD


def test_who_speaks_again_while_we_think_stops_the_turn() -> None:
    call = Call()
    call.ask()
    made = call.hear(8, 0.9)
    assert kinds(made) == ["SpeechStarted", "CancelTurn", "TurnClosed"]
    assert only(made, notices.TurnClosed).item is None
    made = call.hear(17, 0.0)
    assert [item.id for item in only(made, act.StartTurn).items] == call.items[:2]


def test_words_shown_but_not_heard_are_taken_back() -> None:
    call = Call()
    call.ask()
    call.do(ev.TextOut(1, "Never said", (1, 2)))
    made = call.hear(8, 0.9)
    assert only(made, notices.ItemTruncated) == notices.ItemTruncated("item_0002", 0)
    assert only(made, notices.TurnClosed).item.text == ""


@pytest.mark.parametrize("by_option", [True, False])
def test_who_may_not_interrupt_is_answered_afterwards(by_option: bool) -> None:
    call = Call(replace(VAD, turn_detection=opt.ServerVad(interrupt_response=by_option), lead_ms=200))
    call.do(ev.Respond(opt.TurnOptions(interruptible=not by_option)))
    call.say(1, 50)
    made = call.ask()
    assert kinds(made) == [
        "SpeechStarted",
        "EncodePiece",
        "SpeechStopped",
        "Committed",
        "ItemAdded",
        "ItemDone",
    ]
    call.end(1)
    made = call.wait(5.0)
    assert kinds(made)[-3:] == ["TurnClosed", "TurnOpened", "StartTurn"]


def test_a_voice_noticed_as_we_fall_silent_is_announced_at_once() -> None:
    call = Call()
    call.ask()
    call.say(1, 10)
    call.end(1)
    call.wait(0.4)
    assert call.hear(4, 0.9) == []
    assert kinds(call.wait(0.2)) == ["SpeechStarted"]
    assert call.controller.mouth is Mouth.IDLE


def test_noise_that_breaks_off_while_it_is_weighed_is_forgotten() -> None:
    call = speaking(replace(VAD, lead_ms=200))
    call.hear(4, 0.9)
    assert call.wait(3.9) == []
    made = call.wait(0.2)
    assert kinds(made)[:1] == ["SendAudio"]
    assert call.controller.ear is Ear.QUIET


def test_the_client_knows_best_where_its_player_stood_within_what_time_allows() -> None:
    call = speaking()
    call.end(1)
    call.hear(7, 0.9)
    assert only(call.do(ev.ItemTruncate("item_0002", 980)), notices.ItemTruncated).audio_end_ms == 960
    assert only(call.do(ev.ItemTruncate("item_0002", 3_900)), notices.ItemTruncated).audio_end_ms == 1080
    assert only(call.do(ev.ItemTruncate("item_0002", 500)), notices.ItemTruncated).audio_end_ms == 480


def test_acknowledgements_decide_what_was_heard() -> None:
    call = speaking()
    call.do(ev.Played(1, 12_000))
    call.do(ev.Played(77, 5))
    assert only(call.hear(7, 0.9), notices.ItemTruncated).audio_end_ms == 480


def test_to_have_played_nothing_of_a_reply_says_nothing_of_the_one_before() -> None:
    call = Call()
    call.ask()
    call.say(1, 50)
    call.end(1)
    call.do(ev.Respond(VAD.turn_options()))
    call.say(2, 50)
    call.wait(1.0)
    call.do(ev.Played(1, 12_000))
    call.do(ev.Played(2, 0))
    made = call.hear(7, 0.9)
    assert [a.audio_end_ms for a in made if isinstance(a, notices.ItemTruncated)] == [480, 0]


def test_two_replies_in_a_row_share_the_player() -> None:
    call = Call()
    call.ask()
    call.say(1, 50)
    call.end(1)
    made = call.do(ev.Respond(VAD.turn_options()))
    assert kinds(made) == ["TurnOpened", "StartTurn"]
    call.say(2, 50)
    call.end(2)
    call.wait(2.5)
    made = call.hear(7, 0.9)
    assert [a.turn for a in made if isinstance(a, act.Flush)] == [2]
    assert only(made, notices.ItemTruncated).audio_end_ms == 400


# --- manual turns ---------------------------------------------------------------------------------------------------


def test_manual_audio_waits_for_its_commit() -> None:
    call = Call(MANUAL)
    assert call.hear(40, 0.9) == []
    made = call.do(ev.Commit())
    assert kinds(made) == ["EncodePiece", "Committed", "ItemAdded", "ItemDone"]
    assert len(only(made, act.EncodePiece).piece.audio) == 40 * 512
    assert kinds(call.do(ev.Respond(MANUAL.turn_options()))) == ["TurnOpened", "StartTurn"]


def test_manual_audio_is_cut_at_25_seconds_and_bounded() -> None:
    call = Call(MANUAL)
    made = []
    for _ in range(610):
        made += call.do(ev.AudioIn(call.mic, np.zeros(16_000, np.float32)))
        call.mic += 16_000
    assert kinds(made) == ["EncodePiece"] * 24
    assert len(only(call.do(ev.Commit()), notices.Committed).item_id) > 0
    call.do(ev.AudioIn(call.mic, np.zeros(16_000, np.float32)))
    assert "Committed" in kinds(call.do(ev.Commit()))


@pytest.mark.parametrize("config", [VAD, MANUAL])
def test_an_empty_commit_is_an_error(config: opt.SessionConfig) -> None:
    error = only(Call(config).do(ev.Commit("e1")), notices.Error)
    assert (error.code, error.event_id) == ("input_audio_buffer_commit_empty", "e1")


def test_a_clear_forgets() -> None:
    call = Call(MANUAL)
    call.hear(40, 0.9)
    assert call.do(ev.Clear()) == [notices.BufferCleared()]
    assert kinds(call.do(ev.Commit())) == ["Error"]
    call = Call()
    call.hear(20, 0.9)
    call.do(ev.Clear())
    assert call.controller.ear is Ear.QUIET
    assert call.hear(40, 0.0) == []


def test_with_detection_on_a_commit_ends_the_utterance_and_asks_for_nothing() -> None:
    call = Call()
    call.hear(20, 0.9)
    call.do(ev.AudioIn(call.mic, np.arange(call.mic, call.mic + 800, dtype=np.float32)))
    made = call.do(ev.Commit())
    assert kinds(made) == ["EncodePiece", "SpeechStopped", "Committed", "ItemAdded", "ItemDone"]
    assert len(only(made, act.EncodePiece).piece.audio) == 20 * 512 + 800
    assert kinds(call.do(ev.Commit())) == ["Error"]


def test_with_detection_on_audio_not_yet_judged_may_be_committed() -> None:
    call = Call()
    call.do(ev.AudioIn(0, np.zeros(3200, np.float32)))
    assert "Committed" in kinds(call.do(ev.Commit()))
    assert [call.do(ev.SpeechProb(n * 512, 0.9)) for n in range(1, 7)] == [[]] * 6


# --- requests -------------------------------------------------------------------------------------------------------


def test_only_one_turn_is_active() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    error = only(call.do(ev.Respond(opt.TurnOptions(), "e2")), notices.Error)
    assert (error.code, error.event_id) == ("conversation_already_has_active_response", "e2")


@pytest.mark.parametrize("turn", [None, 1])
def test_cancel_stops_the_turn(turn: int | None) -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 10)
    made = call.do(ev.Cancel(turn))
    assert kinds(made) == ["CancelTurn", "Flush", "TurnClosed", "ItemTruncated"]
    assert only(made, notices.TurnClosed).reason == "client_cancelled"
    error = only(call.do(ev.Cancel(turn, "e3")), notices.Error)
    assert (error.code, error.event_id) == ("response_cancel_not_active", "e3")
    assert error.message.startswith("Cancellation failed")


def test_cancelling_another_turn_is_an_error() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    assert only(call.do(ev.Cancel(5)), notices.Error).code == "response_cancel_not_active"


def test_clearing_the_output_stops_what_is_still_playing() -> None:
    call = speaking()
    call.end(1)
    assert kinds(call.do(ev.OutputClear())) == ["Flush", "ItemTruncated"]
    assert call.do(ev.OutputClear()) == []


def test_text_turns_make_no_audio() -> None:
    call = Call(replace(MANUAL, modalities="text"))
    call.do(ev.ItemCreate(user()))
    call.do(ev.Respond(opt.TurnOptions(modalities="text")))
    assert kinds(call.do(ev.TextOut(1, "Hello", (1,)))) == ["TurnText"]
    assert call.do(ev.TextOut(1, "", (2,))) == []
    made = call.end(1)
    assert kinds(made) == ["TurnClosed"]
    assert only(made, notices.TurnClosed).item.spoken is False
    assert call.controller.mouth is Mouth.IDLE


def test_a_cancelled_text_turn_keeps_what_was_shown() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions(modalities="text")))
    call.do(ev.TextOut(1, "Hello", (1,)))
    item = only(call.do(ev.Cancel()), notices.TurnClosed).item
    assert (item.text, item.raw_ids, item.complete) == ("Hello", None, False)


def test_a_tool_call_stands_behind_the_reply_and_its_result_is_answered() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user()))
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 1, text="Wait.")
    made = call.do(ev.ToolCalled(1, "c1", "weather", '{"city": "Oslo"}'))
    assert made == [notices.TurnTool(1, "item_0003", "c1", "weather", '{"city": "Oslo"}')]
    call.end(1)
    assert call.controller.history.items[2] == ToolCallItem("item_0003", "c1", "weather", '{"city": "Oslo"}')
    call.do(ev.ItemCreate(ToolResultItem("", "c1", "rain")))
    start = only(call.do(ev.Respond(opt.TurnOptions())), act.StartTurn)
    assert [type(i).__name__ for i in start.items] == [
        "UserItem",
        "AssistantItem",
        "ToolCallItem",
        "ToolResultItem",
    ]


def test_a_turn_that_only_calls_tools_leaves_no_message() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    call.do(ev.ToolCalled(1, "c1", "weather", "{}"))
    assert only(call.end(1), notices.TurnClosed).item is None
    assert [type(i).__name__ for i in call.controller.history] == ["ToolCallItem"]


def test_a_reference_to_nothing_is_an_error() -> None:
    call = Call(MANUAL)
    made = call.do(ev.Respond(opt.TurnOptions(input=(opt.ItemReference("u1"),)), "e4"))
    assert only(made, notices.Error).code == "item_reference_invalid_item_id"
    assert call.controller.mouth is Mouth.IDLE


def test_items_are_created_where_the_client_says() -> None:
    call = Call(MANUAL)
    made = call.do(ev.ItemCreate(user("a", "a")))
    assert made == [
        notices.ItemAdded(user("a", "a"), None, done=True),
        notices.ItemDone(user("a", "a"), None),
    ]
    call.do(ev.ItemCreate(user("c", "c"), "a"))
    assert only(call.do(ev.ItemCreate(user("b", "b"), "a")), notices.ItemAdded).previous_item_id == "a"
    call.do(ev.ItemCreate(SystemItem("s", "Be kind."), "root"))
    call.do(ev.ItemCreate(user("d")))
    assert call.items == ["s", "a", "b", "c", "item_0001"]
    for item, previous, code in (
        (user("x", "a"), None, "item_create_duplicate_item_id"),
        (user("x", "x"), "nobody", "item_create_invalid_previous_item_id"),
    ):
        assert only(call.do(ev.ItemCreate(item, previous, "e5")), notices.Error).code == code


def test_audio_items_are_cut_numbered_and_transcribed() -> None:
    call = Call(replace(MANUAL, transcribe=True))
    given = UserItem("u", (TextContent("hear:"), AudioContent((Piece(0, np.zeros(400_001, np.float32)),))))
    made = call.do(ev.ItemCreate(given))
    assert kinds(made) == ["EncodePiece", "EncodePiece", "ItemAdded", "ItemDone", "Transcribe"]
    assert [len(piece.audio) for piece in only(made, act.Transcribe).pieces] == [399_200, 801]
    known = UserItem("v", (AudioContent((Piece(0, np.zeros(5, np.float32)),), "said"),))
    assert "Transcribe" not in kinds(call.do(ev.ItemCreate(known)))


def test_an_id_that_was_promised_is_taken() -> None:
    call = Call()
    call.ask()
    assert (
        only(call.do(ev.ItemCreate(user("x", "item_0002"))), notices.Error).code
        == "item_create_duplicate_item_id"
    )
    call.hear(20, 0.9)
    assert (
        only(call.do(ev.ItemCreate(user("x", "item_0003"))), notices.Error).code
        == "item_create_duplicate_item_id"
    )


def test_ids_of_ours_step_aside_for_a_clients() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user("x", "item_0001")))
    call.do(ev.ItemCreate(user("y")))
    assert call.items == ["item_0001", "item_0002"]


def test_items_are_shown_and_deleted() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user("a", "a")))
    assert call.do(ev.ItemRetrieve("a")) == [notices.ItemRetrieved(user("a", "a"))]
    assert call.do(ev.ItemDelete("a")) == [notices.ItemDeleted("a")]
    assert only(call.do(ev.ItemDelete("a", "e")), notices.Error).code == "item_delete_invalid_item_id"
    assert only(call.do(ev.ItemRetrieve("a", "e")), notices.Error).code == "item_retrieve_invalid_item_id"
    assert only(call.do(ev.ItemTruncate("a", 5, "e")), notices.Error).code == "item_truncate_invalid_item_id"


def test_a_deleted_reply_stays_away() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user("a", "a")))
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 5, text="Hello")
    call.do(ev.ItemDelete("a"))
    call.do(ev.ItemDelete("item_0001"))
    call.do(ev.ToolCalled(1, "c", "f", "{}"))
    assert kinds(call.end(1)) == ["TurnClosed"]
    assert call.items == ["item_0002"]


def test_a_reply_whose_question_was_deleted_goes_to_the_end() -> None:
    call = Call(MANUAL)
    call.do(ev.ItemCreate(user("a", "a")))
    call.do(ev.Respond(opt.TurnOptions()))
    call.do(ev.ItemDelete("a"))
    call.do(ev.ItemCreate(user("b", "b")))
    call.say(1, 5, text="Hello")
    assert call.items == ["b", "item_0001"]


def test_truncating_the_live_reply_cancels_it() -> None:
    call = speaking()
    made = call.do(ev.ItemTruncate("item_0002", 400))
    assert kinds(made) == ["CancelTurn", "Flush", "TurnClosed", "ItemTruncated", "ItemTruncated"]
    assert made[-1] == notices.ItemTruncated("item_0002", 400)


def test_truncating_a_reply_that_plays_stops_its_playing() -> None:
    call = speaking()
    call.end(1)
    assert call.do(ev.ItemTruncate("item_0002", 800)) == [notices.ItemTruncated("item_0002", 800)]
    assert call.controller.mouth is Mouth.IDLE


def test_truncation_is_clamped() -> None:
    call = speaking()
    call.end(1)
    call.wait(10)
    assert only(call.do(ev.ItemTruncate("item_0002", 10**6)), notices.ItemTruncated).audio_end_ms == 4000
    assert only(call.do(ev.ItemTruncate("item_0002", 2000)), notices.ItemTruncated).audio_end_ms == 2000
    assert only(call.do(ev.ItemTruncate("item_0002", -5)), notices.ItemTruncated).audio_end_ms == 0


def test_settings_change_in_mid_call() -> None:
    call = Call()
    call.hear(20, 0.9)
    call.do(ev.Configure(MANUAL))
    assert call.hear(40, 0.0) == []
    made = call.do(ev.Commit())
    assert only(made, notices.Committed).item_id == "item_0001"
    call.hear(20, 0.9)
    call.do(ev.Configure(VAD))
    assert "SpeechStarted" in kinds(call.hear(3, 0.9))
    call.do(ev.Configure(replace(VAD, turn_detection=opt.ServerVad(silence_duration_ms=100))))
    assert "Committed" in kinds(call.hear(4, 0.0))
    call.do(ev.Configure(MANUAL))
    assert kinds(call.do(ev.Commit())) == ["Error"]


# --- the engine -----------------------------------------------------------------------------------------------------


def test_a_failed_turn_keeps_what_was_sent() -> None:
    call = Call(replace(MANUAL, lead_ms=200))
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 50, text="Hello")
    made = call.do(ev.TurnFailed(1, "cuda", "out of memory"))
    closed = only(made, notices.TurnClosed)
    assert (closed.status, closed.reason, closed.error) == (
        "failed",
        "error",
        notices.TurnError("cuda", "out of memory"),
    )
    assert closed.item.samples == 5 * TOKEN
    assert call.do(ev.TurnStarted(1)) == []


def test_while_the_engine_is_down_every_turn_fails_at_once() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    assert call.do(ev.TurnStarted(1)) == []
    closed = only(call.do(ev.EngineDown(1.0)), notices.TurnClosed)
    assert closed.error.code == "engine_down"
    made = call.do(ev.Respond(opt.TurnOptions()))
    assert kinds(made) == ["TurnOpened", "TurnClosed"]
    call.do(ev.EngineUp())
    assert "StartTurn" in kinds(call.do(ev.Respond(opt.TurnOptions())))


def test_an_engine_that_dies_after_the_end_of_a_turn_does_no_harm() -> None:
    call = Call(replace(MANUAL, lead_ms=200))
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 50)
    call.end(1)
    assert call.do(ev.EngineDown(None)) == []
    assert only(call.wait(3.0), notices.TurnClosed).status == "completed"


def test_an_engine_that_gives_up_by_itself_fails_the_turn() -> None:
    call = Call(MANUAL)
    call.do(ev.Respond(opt.TurnOptions()))
    assert only(call.end(1, "cancelled"), notices.TurnClosed).status == "failed"


# --- time, and the end ----------------------------------------------------------------------------------------------


def test_long_silence_after_a_reply_is_answered_once() -> None:
    call = Call(replace(VAD, turn_detection=opt.ServerVad(idle_timeout_ms=3000)))
    call.ask()
    call.say(1, 25)
    call.end(1)
    call.wait(1.2)
    call.hear(30, 0.0, in_time=True)
    made = call.wait(3.0)
    assert kinds(made) == [
        "IdleTimedOut",
        "EncodePiece",
        "Committed",
        "ItemAdded",
        "ItemDone",
        "TurnOpened",
        "StartTurn",
    ]
    timed_out = only(made, notices.IdleTimedOut)
    assert timed_out.audio_end_ms == 67 * 32
    call.end(2)
    assert call.wait(60.0) == []  # nothing was heard since


def test_who_speaks_is_not_idle() -> None:
    call = Call(replace(VAD, turn_detection=opt.ServerVad(idle_timeout_ms=1000, create_response=False)))
    call.do(ev.Respond(opt.TurnOptions()))
    call.say(1, 5)
    call.end(1)
    call.wait(0.5)
    assert call.controller.next_deadline() is not None
    call.ask()
    assert call.controller.next_deadline() is None


@pytest.mark.parametrize("event", [ev.Hangup("bye", 1001), ev.Detached()])
def test_after_the_end_nothing_happens(event: ev.Event) -> None:
    call = speaking()
    made = call.do(event)
    if isinstance(event, ev.Hangup):
        assert kinds(made) == ["CancelTurn", "Flush", "TurnClosed", "ItemTruncated", "Close"]
        assert made[-1] == act.Close(1001, "bye")
    else:
        assert made == [act.CancelTurn(1)]
    assert call.do(ev.Respond(opt.TurnOptions())) == []
    assert call.controller.handle_timeout(call.t + 5) == []
    assert call.controller.next_deadline() is None


def test_a_clock_that_goes_back_is_ignored() -> None:
    call = speaking(replace(VAD, lead_ms=200))
    call.t -= 5.0
    assert call.wait(0.1) == []


def test_audio_lost_on_the_way_in_is_not_committed() -> None:
    call = Call()
    call.hear(20, 0.9)
    call.do(ev.AudioIn(10**6, np.zeros(100, np.float32)))  # a gap: what was before it is gone
    made = call.wait(5.0)
    assert kinds(made) == ["SpeechStopped"]
    assert call.items == []


def test_who_speaks_for_ten_minutes_is_answered_in_between() -> None:
    call = Call()
    call.hear(1, 0.0)
    made = []
    for _ in range(600):
        made += call.do(ev.AudioIn(call.mic, np.zeros(16_000, np.float32)))
        call.mic += 16_000
        for at in range(call.mic - 16_000, call.mic, 512):
            made += call.do(ev.SpeechProb(at, 0.9))
    assert kinds(made).count("Committed") == 1
    assert call.controller.ear is Ear.SPEECH
    assert kinds(made)[-3:] == [
        "SpeechStarted",
        "CancelTurn",
        "TurnClosed",
    ]  # who goes on, interrupts the answer


def test_a_detector_that_lags_more_than_a_minute_loses_audio_and_no_more() -> None:
    call = Call()
    for _ in range(70):
        call.do(ev.AudioIn(call.mic, np.zeros(16_000, np.float32)))
        call.mic += 16_000
    made = []
    for at in range(512, call.mic, 512):
        made += call.do(ev.SpeechProb(at, 0.9))
    assert only(made, notices.SpeechStarted).audio_start_ms >= 10_000 - 300
    made = call.do(ev.Commit())
    assert np.concatenate([a.piece.audio for a in made if isinstance(a, act.EncodePiece)]).size > 0


# --- what the engine may read ahead -------------------------------------------------------------------------------


def test_a_voice_lets_the_engine_read_the_conversation_ahead() -> None:
    call = Call()
    call.do(ev.ItemCreate(user("hello")))
    call.hear(20, 0.9)
    (ahead,) = call.ahead
    assert ahead == act.Prepare(call.controller.history.items, VAD.turn_options())
    call.hear(17, 0.0)  # the turn begins: nothing more to read ahead
    assert call.controller.mouth is Mouth.THINKING
    assert len(call.ahead) == 1


def test_full_pieces_are_read_ahead_while_their_speaker_goes_on() -> None:
    call = Call()
    call.hear(2 * 400_000 // 512 + 30, 0.9)
    pieces = [sum(len(part.pieces) for part in item.content) for a in call.ahead for item in a.items]  # type: ignore[union-attr,misc]
    assert pieces == [1, 2]
    call.hear(17, 0.0)
    (item,) = call.controller.history.items
    assert item.content[0].pieces[:2] == call.ahead[-1].items[0].content[0].pieces  # type: ignore[union-attr]


def test_an_interrupted_reply_is_read_ahead_as_it_was_heard() -> None:
    call = Call()
    call.ask()
    call.say(1, 50, text="One two three four.")
    assert len(call.ahead) == 1
    call.t += 1.0
    call.hear(8, 0.9)
    assert call.controller.mouth is Mouth.IDLE
    assert call.ahead[-1].items == call.controller.history.items
    assert len(call.ahead) == 2


def test_manual_audio_is_read_ahead_from_its_first_frame() -> None:
    call = Call(MANUAL)
    call.hear(3, 0.9)
    assert len(call.ahead) == 1
    call.do(ev.Commit())
    call.hear(1, 0.9)
    assert len(call.ahead) == 1  # too little came before the commit to be one
    call.hear(10, 0.9)
    call.do(ev.Commit())
    call.hear(1, 0.9)
    assert len(call.ahead) == 2
    assert call.ahead[-1].items == call.controller.history.items


# --- what comes soon, and what does not come from the model ---------------------------------------------------------


def test_an_answer_that_can_wait_comes_when_no_turn_is_live() -> None:
    call = Call()
    assert "StartTurn" in kinds(call.do(ev.RespondSoon()))
    assert "StartTurn" not in kinds(call.do(ev.RespondSoon()) + call.do(ev.RespondSoon()))
    made = call.do(ev.TurnEnded(1, "stop", ev.Usage(), ()))
    assert kinds(made).count("StartTurn") == 1


def test_what_is_played_cuts_the_reply_and_leaves_nothing_behind() -> None:
    call = Call()
    call.do(ev.Respond(opt.TurnOptions()))
    pcm = np.arange(4800, dtype=np.int16)
    made = call.do(ev.Play(pcm, opt.TurnOptions(conversation=False, interruptible=False)))
    assert kinds(made)[0] == "CancelTurn"
    assert "StartTurn" not in kinds(made)
    opened = [action for action in made if isinstance(action, notices.TurnOpened)]
    assert [turn.turn for turn in opened] == [2]
    sent = [action.pcm for action in made if isinstance(action, act.SendAudio)]
    assert np.array_equal(np.concatenate(sent), pcm)
    closed = only(made[-1:], notices.TurnClosed)
    assert (closed.turn, closed.status) == (2, "completed")
    assert call.controller.history.items == ()


def test_an_answer_that_can_wait_outlasts_an_utterance_that_is_not_answered_and_a_request_that_fails() -> (
    None
):
    call = Call(replace(VAD, turn_detection=opt.ServerVad(create_response=False)))
    call.hear(20, 0.9)
    call.do(ev.RespondSoon())
    options = opt.TurnOptions(input=(opt.ItemReference("nobody"),))
    assert kinds(call.do(ev.Respond(options))) == ["Error"]
    assert "StartTurn" in kinds(call.hear(17, 0.0))


def test_who_began_to_speak_before_we_did_is_heard_however_short() -> None:
    call = Call()
    call.hear(10, 0.0)
    call.hear(2, 0.9)  # not yet known to be a voice
    call.do(ev.Respond(opt.TurnOptions()))
    made = call.hear(4, 0.9)
    assert kinds(made) == ["SpeechStarted"], "nothing is to be interrupted so soon"
    made = call.hear(17, 0.0)
    assert "Committed" in kinds(made)
    assert "TurnClosed" not in kinds(made)


def test_settings_do_not_let_us_speak_over_a_voice_that_is_weighed() -> None:
    call = Call(replace(VAD, lead_ms=100))
    call.ask()
    call.say(1, 50)
    call.hear(4, 0.9)
    assert call.controller.mouth is Mouth.HELD
    assert kinds(call.do(ev.Configure(replace(VAD, lead_ms=1000)))) == []
    assert kinds(call.do(ev.Configure(replace(VAD, lead_ms=1000, turn_detection=None)))) == ["SendAudio"]
