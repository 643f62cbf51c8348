"""What is written down, when, and what becomes of it when something goes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_controller import MANUAL, VAD, Call, kinds, only

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AudioContent, Piece, TextContent, UserItem
from voiceagent.core.utterances import gap

LISTENING = replace(VAD, transcribe=True, replies=False)
DICTATION = replace(MANUAL, transcribe=True, replies=False)


def speech(call: Call, seconds: float) -> list[act.Action]:
    """As a client sends audio that it will commit itself."""
    count = int(seconds * 16_000)
    samples = np.ones(count, np.float32)
    call.mic += count
    return call.do(ev.AudioIn(call.mic - count, samples))


def test_who_only_listens_never_answers_and_prepares_nothing() -> None:
    call = Call(LISTENING)
    made = call.ask()
    assert kinds(made)[-2:] == ["ItemDone", "Transcribe"]
    assert not call.ahead
    assert not {"StartTurn", "TurnOpened"} & set(kinds(made + call.wait(30)))


def test_the_audio_goes_when_the_words_are_there() -> None:
    call = Call(LISTENING)
    call.ask()
    assert call.do(ev.TranscriptDelta("item_0001", "so")) == [
        notices.InputTranscriptDelta("item_0001", 0, "so")
    ]
    made = call.do(ev.Transcript("item_0001", "so be it"))
    assert made == [notices.InputTranscript("item_0001", "so be it"), act.ForgetPieces((1,))]
    assert call.controller.history.items[0] == UserItem("item_0001", (AudioContent((), "so be it"),))


def test_in_a_conversation_the_audio_stays() -> None:
    call = Call(replace(VAD, transcribe=True))
    call.ask()
    assert kinds(call.do(ev.Transcript("item_0001", "so be it"))) == ["InputTranscript"]
    assert call.controller.history.items[0].content[0].pieces  # type: ignore[union-attr]


def test_a_long_speech_is_written_down_while_it_goes_on() -> None:
    call = Call(LISTENING)
    made = call.hear(400, 0.9)  # 12.8 s
    asked = only(made, act.Transcribe)
    assert (asked.item_id, asked.more) == ("item_0001", True)
    assert 8 * 16_000 < len(asked.pieces[0].audio) <= 10 * 16_000
    assert kinds(call.do(ev.TranscriptDelta("item_0001", "well"))) == ["InputTranscriptDelta"]
    made = call.hear(20, 0.0)
    rest = only(made, act.Transcribe)
    assert (rest.item_id, rest.more, [piece.id for piece in rest.pieces]) == ("item_0001", False, [2])
    assert kinds(made).index("Transcribe") > kinds(made).index("ItemAdded")


def test_a_dictation_grows_under_the_id_that_it_will_have() -> None:
    call = Call(DICTATION)
    assert only(speech(call, 11), act.Transcribe).more
    duplicate = UserItem("item_0001", (TextContent("mine"),))
    assert only(call.do(ev.ItemCreate(duplicate)), notices.Error).code == "item_create_duplicate_item_id"
    made = call.do(ev.Commit())
    assert only(made, notices.Committed).item_id == "item_0001"
    assert not only(made, act.Transcribe).more
    assert only(speech(call, 11), act.Transcribe).item_id == "item_0002"


@pytest.mark.parametrize("ends", [ev.Clear(), ev.Configure(LISTENING)])
def test_what_is_not_said_after_all_is_closed_and_forgotten(ends: ev.Event) -> None:
    call = Call(DICTATION)
    speech(call, 11)
    made = call.do(ends)
    assert only(made, act.Transcribe) == act.Transcribe("item_0001", ())
    assert only(made, act.ForgetPieces).pieces == (1,)
    assert call.do(ev.TranscriptDelta("item_0001", "never mind")) == []
    assert call.do(ev.Transcript("item_0001", "never mind")) == []


def test_what_cannot_be_written_down_is_told() -> None:
    call = Call(LISTENING)
    call.ask()
    failed = notices.InputTranscriptFailed("item_0001", 0, notices.TurnError("kv_full", "No room."))
    made = call.do(ev.TranscriptFailed("item_0001", "kv_full", "No room."))
    assert made == [failed, act.ForgetPieces((1,))]
    assert call.do(ev.TranscriptFailed("nobody", "kv_full", "No room.")) == []


def test_the_engines_end_fails_what_was_asked_for_and_what_is_asked_meanwhile() -> None:
    call = Call(replace(VAD, transcribe=True, turn_detection=opt.ServerVad(create_response=False)))
    call.ask()
    failed = only(call.do(ev.EngineDown()), notices.InputTranscriptFailed)
    assert (failed.item_id, failed.error.code) == ("item_0001", "engine_down")
    assert only(call.ask(), notices.InputTranscriptFailed).item_id == "item_0002"
    assert kinds(call.do(ev.EngineUp())) == []
    assert only(call.ask(), act.Transcribe).item_id == "item_0003"


@pytest.mark.parametrize("lost", [ev.EngineDown(), ev.TranscriptFailed("item_0001", "kv_full", "No room.")])
def test_a_transcript_that_lost_its_beginning_fails_at_its_end(lost: ev.Event) -> None:
    call = Call(DICTATION)
    speech(call, 11)
    assert call.do(lost) == []
    call.do(ev.EngineUp())
    assert "Transcribe" not in kinds(speech(call, 11))
    made = call.do(ev.Commit())
    assert only(made, notices.InputTranscriptFailed).item_id == "item_0001"
    assert only(speech(call, 11), act.Transcribe).more


def test_deleted_items_are_not_told_of() -> None:
    call = Call(LISTENING)
    call.ask()
    call.do(ev.ItemDelete("item_0001"))
    assert call.do(ev.TranscriptDelta("item_0001", "so")) == []
    assert call.do(ev.EngineDown()) == []


def test_an_item_tells_which_part_was_heard() -> None:
    call = Call(replace(MANUAL, transcribe=True))
    sound = AudioContent((Piece(0, np.zeros(5000, np.float32)),))
    call.do(ev.ItemCreate(UserItem("u", (TextContent("hear:"), sound))))
    assert only(call.do(ev.TranscriptDelta("u", "so")), notices.InputTranscriptDelta).content_index == 1
    assert call.do(ev.Transcript("u", "so")) == [notices.InputTranscript("u", "so", 1)]
    item = call.controller.history.find("u")
    assert isinstance(item, UserItem)
    assert item.content[1].transcript == "so"  # type: ignore[union-attr]


def test_nothing_stands_between_characters_that_are_written_without_spaces() -> None:
    assert (gap("one", "two"), gap("你好", "吗"), gap("，", "x")) == (" ", "", "")
    assert (gap("", "x"), gap("x", ""), gap("x ", "y"), gap("x", " y")) == ("", "", "", "")
