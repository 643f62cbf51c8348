import base64
import json
from typing import Any

import pytest
from wire_player import MODELS, Phone, check_published

from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.core.events import AudioIn
from voiceagent.core.history import UserItem
from voiceagent.core.options import TurnOptions
from voiceagent.errors import CapacityError
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime import RealtimeDialect


def say(phone: Phone, name: str, **fields: Any) -> list[dict[str, Any]]:
    return [check_published(frame) for frame in phone.client(json.dumps({"type": name, **fields}))]


def tell(phone: Phone, **does: Any) -> list[dict[str, Any]]:
    return [check_published(frame) for frame in phone.engine(does)]


def rendered(dialect: RealtimeDialect, action: act.Action) -> list[dict[str, Any]]:
    return [check_published(frame) for frame in dialect.render(action)]


def audio(samples: int) -> str:
    return base64.b64encode(bytes(2 * samples)).decode()


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_every_session_setting_is_shown_in_the_published_shape() -> None:
    vad = {"type": "semantic_vad", "eagerness": "medium", "create_response": True, "interrupt_response": True}
    (updated,) = say(
        Phone(),
        "session.update",
        session={
            "type": "realtime",
            "model": "other",
            "output_modalities": ["text"],
            "instructions": "Hi",
            "tools": [
                {"type": "function", "name": "t", "description": "d", "parameters": {"type": "object"}}
            ],
            "tool_choice": {"type": "function", "name": "t"},
            "parallel_tool_calls": True,
            "max_output_tokens": 100,
            "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"k": "v"}},
            "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
            "prompt": {"id": "p"},
            "include": ["item.input_audio_transcription.logprobs"],
            "reasoning": {"effort": "low"},
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en", "prompt": "x"},
                    "turn_detection": vad,
                },
                "output": {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1},
            },
        },
    )
    assert updated["session"]["audio"]["input"]["turn_detection"] == vad
    assert updated["session"]["audio"]["output"]["voice"] == "anna"


def test_a_session_without_turn_detection_and_transcription() -> None:
    phone = Phone(turn_detection=None, transcribe=False)
    assert check_published(phone.sent[0])["session"]["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"type": "input_audio_buffer.append", "audio": "AAA"}, "invalid_base64", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AA==AA=="}, "invalid_base64", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "odd_audio_length", "audio"),
        ({"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": -1}, "invalid_value", "audio_end_ms"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 1},
            "item_truncate_invalid_item_id",
            "item_id",
        ),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id", "item_id"),
        ({"type": "conversation.item.retrieve", "item_id": "x"}, "item_retrieve_invalid_item_id", "item_id"),
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "response.cancel", "response_id": "resp_call_9"}, "response_cancel_not_active", None),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
        ({"type": "conversation.item.create", "item": {"type": "x"}}, "unsupported_item", "item.type"),
        (
            {"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}},
            "item_reference_invalid_item_id",
            "response.input",
        ),
        ({"type": "session.update", "session": {"type": "transcription"}}, "unsupported_session_type", "session.type"),
    ],
)  # fmt: skip
def test_errors_name_the_request_and_the_session_lives(
    message: dict[str, Any], code: str, param: str | None
) -> None:
    phone = Phone()
    (answer,) = say(phone, message.pop("type"), event_id="mine", **message)
    error = answer["error"]
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
    assert (error["type"], error["message"][-1]) == ("invalid_request_error", ".")
    assert types(say(phone, "session.update", session={})) == ["session.updated"]


def test_duplicate_items_have_the_code_that_clients_match() -> None:
    phone = Phone()
    item = {
        "id": "mine",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "x"}],
    }
    added = say(phone, "conversation.item.create", item=item)
    assert [event["item"]["id"] for event in added] == ["mine", "mine"]
    (answer,) = say(phone, "conversation.item.create", event_id="e", item=item)
    assert answer["error"]["code"] == "item_create_duplicate_item_id"
    (answer,) = say(
        phone, "conversation.item.create", previous_item_id="nobody", item={**item, "id": "other"}
    )
    assert answer["error"]["param"] == "previous_item_id"


def test_an_item_with_audio_is_transcribed_and_retrieved() -> None:
    phone = Phone()
    content = [{"type": "input_audio", "audio": audio(4800)}]
    say(
        phone,
        "conversation.item.create",
        item={"id": "u", "type": "message", "role": "user", "content": content},
    )
    phone.user_item = "u"
    (answer,) = say(phone, "conversation.item.retrieve", item_id="u")
    assert len(base64.b64decode(answer["item"]["content"][0]["audio"])) == 9600
    events = tell(phone, transcript="Hello")
    assert [event["transcript"] for event in events] == ["Hello"]
    assert events[0]["usage"] == {"type": "duration", "seconds": 0.2}
    (completed,) = tell(phone, transcript="")
    assert (completed["transcript"], completed["usage"]["seconds"]) == ("", 0.0)
    assert types(say(phone, "conversation.item.delete", item_id="u")) == ["conversation.item.deleted"]


def test_a_truncate_beyond_the_end_is_clamped_and_fractions_are_fine() -> None:
    phone = Phone()
    say(phone, "response.create")
    tell(phone, text="Hello.")
    tell(phone, audio_tokens=5)
    tell(phone, end="stop")
    phone.wait(5)
    (answer,) = say(
        phone, "conversation.item.truncate", item_id="item_0001", content_index=0, audio_end_ms=99999.5
    )
    assert (answer["type"], answer["audio_end_ms"]) == ("conversation.item.truncated", 200)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_a_call_in_telephony_formats(kind: str) -> None:
    phone = Phone(turn_detection=None)
    shape = {"format": {"type": kind}}
    say(phone, "session.update", session={"audio": {"input": shape, "output": shape}})
    say(phone, "input_audio_buffer.append", audio=base64.b64encode(b"\xff" * 4000).decode())
    say(phone, "input_audio_buffer.commit")
    (item,) = phone.controller.history.items
    assert isinstance(item, UserItem)
    assert len(item.content[0].pieces[0].audio) == 8000  # type: ignore[union-attr]
    (created,) = say(phone, "response.create")
    assert created["response"]["audio"]["output"]["format"] == {"type": kind}
    told = tell(phone, audio_tokens=25) + tell(phone, end="stop")
    deltas = [base64.b64decode(e["delta"]) for e in told if e["type"] == "response.output_audio.delta"]
    assert sum(map(len, deltas)) == 8000


def test_a_response_keeps_its_format_when_the_session_changes() -> None:
    phone = Phone()
    say(phone, "response.create")
    tell(phone, audio_tokens=1)
    say(phone, "session.update", session={"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    (delta,) = tell(phone, audio_tokens=1)
    assert len(base64.b64decode(delta["delta"])) == 1920
    done = tell(phone, end="stop")[-1]
    assert done["response"]["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


@pytest.mark.parametrize("conversation", ["auto", "none"])
def test_a_response_may_have_a_format_of_its_own(conversation: str) -> None:
    phone = Phone(turn_detection=None)
    wanted = {"output": {"format": {"type": "audio/pcmu"}}}
    (created,) = say(phone, "response.create", response={"audio": wanted, "conversation": conversation})
    assert created["response"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    told = tell(phone, audio_tokens=25) + tell(phone, end="stop")
    deltas = [base64.b64decode(e["delta"]) for e in told if e["type"] == "response.output_audio.delta"]
    assert sum(map(len, deltas)) == 8000
    (created,) = say(phone, "response.create")
    assert created["response"]["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_responses_beside_the_conversation_are_told_each_in_its_own_order() -> None:
    phone = Phone(turn_detection=None)
    say(phone, "response.create")
    beside = {"conversation": "none", "output_modalities": ["text"], "metadata": {"topic": "mood"}}
    (created,) = say(phone, "response.create", response=beside)
    assert created["response"]["conversation_id"] is None
    told = [
        *tell(phone, turn=1, text="Good day."),
        *tell(phone, turn=2, text="cheer"),
        *tell(phone, turn=1, audio_tokens=2),
        *tell(phone, turn=2, text="ful"),
        *tell(phone, turn=2, end="stop"),
        *tell(phone, turn=1, end="stop"),
    ]
    mine = [event for event in told if created["response"]["id"] in json.dumps(event)]
    mine = [event for event in mine if event["type"] != "response.latency"]
    assert types(mine) == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    assert mine[-1]["response"]["metadata"] == {"topic": "mood"}
    assert types(told).count("response.done") == 2
    assert len(phone.controller.history) == 1


def test_one_beside_is_cancelled_by_its_id_only() -> None:
    phone = Phone(turn_detection=None)
    (beside,) = say(phone, "response.create", response={"conversation": "none"})
    (error,) = say(phone, "response.cancel", event_id="e1")
    assert (error["error"]["code"], error["error"]["event_id"]) == ("response_cancel_not_active", "e1")
    (done,) = say(phone, "response.cancel", response_id=beside["response"]["id"])
    assert done["response"]["status"] == "cancelled"
    for _ in range(4):
        say(phone, "response.create", response={"conversation": "none"})
    (error,) = say(phone, "response.create", event_id="e2", response={"conversation": "none"})
    assert error["error"]["code"] == "too_many_active_responses"
    assert error["error"]["param"] == "response.conversation"


def test_a_new_input_format_begins_behind_what_was_sent() -> None:
    dialect = Phone(turn_detection=None).dialect

    def heard(message: dict[str, Any]) -> int:
        return sum(len(e.pcm) for e in dialect.receive(json.dumps(message)) if isinstance(e, AudioIn))

    append = {"type": "input_audio_buffer.append", "audio": audio(2400)}
    switch = {
        "type": "session.update",
        "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
    }
    assert heard(append) + heard(switch) == 1600
    assert heard(switch) == 0
    assert heard({"type": "input_audio_buffer.append", "audio": ""}) == 0
    assert heard(append) + heard({"type": "input_audio_buffer.clear"}) == 2 * 4800


def test_playing_audio_is_cleared_on_request_even_behind_the_response() -> None:
    phone = Phone()
    say(phone, "response.create")
    tell(phone, text="Hello.")
    tell(phone, audio_tokens=50)
    tell(phone, end="stop")
    events = say(phone, "output_audio_buffer.clear")
    assert types(events) == ["output_audio_buffer.cleared", "conversation.item.truncated", "response.heard"]
    assert events[0]["response_id"] == "resp_call_1"


def test_a_player_says_where_it_is_and_is_told_how_much_was_heard() -> None:
    phone = Phone()
    say(phone, "session.update", session={"output_lead_ms": None})
    say(phone, "response.create")
    tell(phone, text="Once upon a time.")
    tell(phone, audio_tokens=50)
    tell(phone, end="stop")
    played = {"response_id": "resp_call_1", "audio_end_ms": 0}
    assert say(phone, "output_audio_buffer.played", **played) == []
    phone.wait(1.0)
    say(phone, "output_audio_buffer.played", **played | {"audio_end_ms": 400.5})
    say(phone, "output_audio_buffer.played", response_id="resp_other_1", audio_end_ms=900)
    cut = say(phone, "output_audio_buffer.clear")
    assert cut[1]["audio_end_ms"] == 400
    late = say(phone, "output_audio_buffer.played", **played | {"audio_end_ms": 900})
    assert types(late) == ["conversation.item.truncated", "response.heard"]
    heard = {key: late[1][key] for key in ("generated_ms", "sent_ms", "heard_ms", "words", "acknowledged")}
    assert heard == {"generated_ms": 2000, "sent_ms": 2000, "heard_ms": 900, "words": 4, "acknowledged": True}
    (item,) = (event["item"] for event in say(phone, "conversation.item.retrieve", item_id="item_0001"))
    assert len(item["content"][0]["transcript"].split()) == late[1]["heard_words"]
    assert len(item["content"][0]["audio"]) == 880 * 24 * 2 * 4 // 3


def over(phone: Phone, voice_ms: int, quiet_ms: int) -> list[dict[str, Any]]:
    return [*tell(phone, voice_ms=voice_ms), *tell(phone, quiet_ms=quiet_ms)]


def test_a_word_of_assent_does_not_end_a_response_where_its_audio_is_paced() -> None:
    for settings, ends in (({}, False), ({"barge_in": "quick"}, True), ({"output_lead_ms": None}, True)):
        phone = Phone()
        say(phone, "session.update", session={"output_lead_ms": 200, **settings})
        say(phone, "response.create")
        tell(phone, text="Once upon a time.")
        tell(phone, audio_tokens=250)
        phone.wait(1.0)
        events = over(phone, 448, 224)
        told = [(e["status"], e["reason"]) for e in events if e["type"] == "response.interruption"]
        assert told == [("pending", None), ("confirmed", "length") if ends else ("dismissed", "backchannel")]
        assert ("input_audio_buffer.speech_started" in types(events)) is ends
        assert ("response.output_audio.delta" in types(events)) is not ends


def test_a_response_may_forbid_interruptions_or_protect_its_beginning() -> None:
    for response, ends in (({"interruptible": False}, False), ({"protected_ms": 60_000}, False), ({}, True)):
        phone = Phone()
        say(phone, "session.update", session={"protected_ms": 0})
        say(phone, "response.create", response=response)
        tell(phone, audio_tokens=250)
        phone.wait(1.0)
        assert ("response.done" in types(over(phone, 1000, 0))) is ends


def test_a_response_that_fails_says_why() -> None:
    phone = Phone()
    say(phone, "response.create")
    tell(phone, audio_tokens=1)
    done = tell(phone, fail="engine_error")[-1]["response"]
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "engine_error")
    assert done["usage"] is None


def test_the_item_of_a_message_that_is_gone_is_still_closed() -> None:
    dialect = Phone().dialect
    rendered(dialect, notices.TurnOpened(1, "a", TurnOptions()))
    rendered(dialect, notices.TurnText(1, "a", "Hi"))
    events = rendered(dialect, notices.TurnClosed(1, "cancelled", "hangup", None, None, None))
    assert types(events)[-3:] == ["conversation.item.done", "response.output_item.done", "response.done"]
    assert events[-1]["response"]["status_details"] == {"type": "cancelled"}


def test_a_silent_response_has_no_items() -> None:
    dialect = Phone().dialect
    rendered(dialect, notices.TurnOpened(1, "a", TurnOptions()))
    (done,) = rendered(dialect, notices.TurnClosed(1, "completed", None, None, None, None))
    assert done["response"]["output"] == []


def test_the_idle_silence_is_told() -> None:
    (event,) = rendered(Phone().dialect, notices.IdleTimedOut("u", 100, 5100))
    assert event["type"] == "input_audio_buffer.timeout_triggered"


def test_what_is_for_the_engine_is_not_told() -> None:
    dialect = Phone().dialect
    assert rendered(dialect, act.CancelTurn(1)) == []
    assert rendered(dialect, act.Close(1000, "bye")) == []


def test_telephony_audio_that_was_held_back_is_dropped_at_an_interruption() -> None:
    phone = Phone()
    say(phone, "session.update", session={"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    say(phone, "response.create")
    tell(phone, audio_tokens=1)
    assert "response.output_audio.delta" not in types(say(phone, "response.cancel"))


def test_errors_of_ours_are_server_errors() -> None:
    dialect = Phone().dialect
    error = check_published(dialect.render_error(CapacityError("Full.", remedy="Try later.")))["error"]
    assert (error["type"], error["code"], error["message"]) == (
        "server_error",
        "overloaded",
        "Full. Try later.",
    )
    error = check_published(dialect.render_error(WireError("Bad.", event_id="e")))["error"]
    assert (error["type"], error["event_id"]) == ("invalid_request_error", "e")


def test_text_of_any_script_is_sent_as_ascii() -> None:
    dialect = Phone().dialect
    rendered(dialect, notices.TurnOpened(1, "a", TurnOptions()))
    frames = list(dialect.render(notices.TurnText(1, "a", "\N{GRINNING FACE} \u4f60\u597d <script>")))
    assert all(frame.isascii() for frame in frames)
    assert json.loads(frames[-1])["delta"] == "\N{GRINNING FACE} \u4f60\u597d <script>"


def test_every_event_that_is_sent_has_an_id_of_its_own() -> None:
    phone = Phone()
    events = [
        json.loads(phone.sent[0]),
        *say(phone, "session.update", session={}),
        *say(phone, "response.cancel"),
    ]
    assert len({event["event_id"] for event in events}) == 3
    assert all(event["type"] in MODELS for event in events)


def test_a_reply_is_retrieved_as_far_as_it_was_heard() -> None:
    phone = Phone(turn_detection=None)
    say(phone, "response.create")
    tell(phone, text="One two three four five six")
    tell(phone, audio_tokens=50)
    phone.wait(1.1)  # of which a second was heard: the way to the ear takes the rest
    (truncated,) = [e for e in say(phone, "response.cancel") if e["type"] == "conversation.item.truncated"]
    (retrieved,) = say(phone, "conversation.item.retrieve", item_id=truncated["item_id"])
    item, (part,) = retrieved["item"], retrieved["item"]["content"]
    assert (item["status"], truncated["audio_end_ms"]) == ("incomplete", 1000)
    assert len(base64.b64decode(part["audio"])) == 2 * 24_000
    assert "One two three four five six".startswith(part["transcript"])
    assert part["transcript"] != "One two three four five six"
    say(phone, "conversation.item.truncate", item_id=item["id"], audio_end_ms=400)
    (retrieved,) = say(phone, "conversation.item.retrieve", item_id=item["id"])
    assert len(base64.b64decode(retrieved["item"]["content"][0]["audio"])) == 2 * 9_600


def test_a_whole_reply_is_retrieved_with_its_sound() -> None:
    phone = Phone(turn_detection=None)
    say(phone, "response.create")
    tell(phone, text="Yes.")
    tell(phone, audio_tokens=10)
    done = tell(phone, end="stop")[-1]
    (item,) = done["response"]["output"]
    assert "audio" not in item["content"][0]
    (retrieved,) = say(phone, "conversation.item.retrieve", item_id=item["id"])
    assert len(base64.b64decode(retrieved["item"]["content"][0]["audio"])) == 2 * 9_600
    say(phone, "response.create", response={"conversation": "none"})
    tell(phone, audio_tokens=10)
    beside = tell(phone, end="stop")[-1]["response"]["output"][0]["id"]
    (answer,) = say(phone, "conversation.item.retrieve", item_id=beside)
    assert answer["error"]["code"] == "item_retrieve_invalid_item_id"
