import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from voiceagent.audio.pcm import float_to_int16
from voiceagent.audio.resample import resample
from voiceagent.core.events import Usage
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.core.notices import TurnError
from voiceagent.errors import InputError
from voiceagent.wire import chat
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_retrieve import filled, with_holes


def read(**item: Any) -> Item:
    return items.from_wire(msgspec.convert(item, ev.ItemParam))


@pytest.mark.parametrize("role", ["user", "system", "assistant"])
def test_the_text_of_an_item_has_a_limit_over_all_of_its_parts(role: str) -> None:
    part = {"type": "input_text", "text": "x" * 40_000}
    assert read(type="message", role=role, content=[part])
    with pytest.raises(WireError) as caught:
        read(type="message", role=role, content=[part, part])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "item.content")
    assert caught.value.remedy


@pytest.mark.parametrize(
    "item",
    [
        SystemItem("s", "Rhyme."),
        UserItem("u", (TextContent("Hi"), TextContent("there"))),
        AssistantItem("a", "Hello"),
        ToolCallItem("c", "call", "clock", '{"x": 1}'),
        ToolResultItem("r", "call", "12:00"),
    ],
)
def test_what_is_shown_reads_back(item: Item) -> None:
    shown = items.to_wire(item)
    assert (shown["status"], shown["object"]) == ("completed", "realtime.item")
    assert read(**shown) == item


def test_what_may_be_left_out() -> None:
    assert read(type="message", role="user") == UserItem("", ())
    assert read(type="message", role="system", content=None) == SystemItem("", "")
    assert read(type="function_call", call_id="c", name="n") == ToolCallItem("", "c", "n", "{}")
    assert read(type="function_call_output", call_id="c") == ToolResultItem("", "c", "")


def test_a_replayed_spoken_reply_is_its_transcript() -> None:
    content = [
        {"type": "output_audio", "transcript": "Hello"},
        {"type": "output_text", "text": "there"},
        {"type": "x"},
    ]
    assert read(type="message", role="assistant", id="a", content=content) == AssistantItem(
        "a", "Hello there "
    )


def retrieved(item: Item) -> dict[str, Any]:
    """An item as `conversation.item.retrieved` tells it."""
    shown, sounds = with_holes(item)
    told: dict[str, Any] = json.loads("".join(filled(json.dumps(shown, separators=(",", ":")), sounds)))
    return told


def test_audio_of_a_person_goes_in_and_comes_out_on_request() -> None:
    samples = (np.sin(np.arange(2400) / 20) * 9000).astype("<i2")
    part = {
        "type": "input_audio",
        "audio": base64.b64encode(samples.tobytes()).decode(),
        "transcript": "la",
    }
    item = read(type="message", role="user", id="u", content=[part])
    assert isinstance(item, UserItem)
    assert items.audio_seconds(item) == pytest.approx(0.1)
    assert items.to_wire(item)["content"] == [{"type": "input_audio", "transcript": "la"}]
    back = np.frombuffer(base64.b64decode(retrieved(item)["content"][0]["audio"], validate=True), "<i2")
    assert len(back) == 2400
    assert np.abs(back[200:-200].astype(int) - samples[200:-200]).max() < 200


def test_the_transcript_key_is_always_there() -> None:
    item = UserItem("u", (AudioContent((Piece(1, np.zeros(1600, np.float32)),)),))
    assert items.to_wire(item)["content"] == [{"type": "input_audio", "transcript": None}]
    bare = UserItem("u", (AudioContent(()), TextContent("x")))
    assert "audio" not in retrieved(bare)["content"][0]
    assert items.audio_seconds(bare) == 0.0
    assert items.audio_seconds(SystemItem("s", "")) == 0.0


def test_a_reply_is_shown_as_it_stands() -> None:
    reply = AssistantItem("a", "Hel", spoken=True, complete=False)
    assert items.to_wire(reply)["status"] == "incomplete"
    assert items.to_wire(reply)["content"] == [{"type": "output_audio", "transcript": "Hel"}]
    assert items.to_wire(AssistantItem("a", ""), status="in_progress")["content"] == []


def test_the_sound_of_a_reply_is_shown_on_request_and_only_then() -> None:
    sound = np.arange(4800, dtype=np.int16)
    reply = AssistantItem("a", "Hello", spoken=True, audio=(sound[:960], sound[960:]))
    assert items.to_wire(reply)["content"] == [{"type": "output_audio", "transcript": "Hello"}]
    (part,) = retrieved(reply)["content"]
    assert (part["type"], part["transcript"]) == ("output_audio", "Hello")
    assert np.array_equal(np.frombuffer(base64.b64decode(part["audio"], validate=True), "<i2"), sound)
    (part,) = retrieved(AssistantItem("a", "Hello", spoken=True))["content"]
    assert "audio" not in part


def test_much_sound_is_told_in_parts_of_a_second_or_so_and_a_text_cannot_look_like_a_hole() -> None:
    rng = np.random.default_rng(1)
    long = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (25 * 16_000, 24_001, 7 * 16_000)]
    trap = '"audio":""'
    content = (
        TextContent(trap),
        AudioContent(tuple(map(Piece, range(3), long)), trap),
        AudioContent((Piece(4, long[1]),)),
    )
    shown, sounds = with_holes(UserItem(trap, content))
    parts = list(filled(json.dumps(shown, separators=(",", ":")), sounds))
    assert len(parts) > 34
    assert max(map(len, parts)) <= 4 * 24_000
    told = json.loads("".join(parts))
    assert (told["id"], told["content"][0]["text"], told["content"][1]["transcript"]) == (trap, trap, trap)
    whole = resample(np.concatenate(long), source=16_000, target=24_000)
    heard = np.frombuffer(base64.b64decode(told["content"][1]["audio"], validate=True), "<i2")
    assert np.array_equal(heard, float_to_int16(whole))
    assert len(base64.b64decode(told["content"][2]["audio"], validate=True)) == 2 * 36_002


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"type": "mcp_call"}, "unsupported_item", "item.type"),
        ({"type": "message", "role": "judge"}, "invalid_request_error", "item.role"),
        ({"type": "message"}, "invalid_request_error", "item.role"),
        ({"type": "function_call", "name": "n"}, "missing_required_parameter", "item.call_id"),
        ({"type": "function_call", "call_id": "c"}, "missing_required_parameter", "item.name"),
        ({"type": "function_call_output"}, "missing_required_parameter", "item.call_id"),
    ],
)
def test_items_that_cannot_be(item: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(WireError) as caught:
        read(**item)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("part", "code", "param"),
    [
        ({"type": "input_image", "image_url": "data:"}, "unsupported_content", "type"),
        ({"type": "input_text"}, "missing_required_parameter", "text"),
        ({"type": "input_audio"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio", "audio": ""}, "empty_audio", "audio"),
        ({"type": "input_audio", "audio": "AAAA!"}, "invalid_base64", "audio"),
        ({"type": "input_audio", "audio": "é"}, "invalid_base64", "audio"),
    ],
)
def test_content_that_cannot_be(part: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(WireError) as caught:
        read(type="message", role="user", content=[{"type": "input_text", "text": "x"}, part])
    assert (caught.value.code, caught.value.param) == (code, f"item.content[1].{param}")


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(InputError):
        read(type="message", role="user", content=[{"type": "input_audio", "audio": "AAAA"}])


def test_usage_adds_up() -> None:
    shown = items.usage(Usage(40, 25, 30, 12, 48))
    assert shown is not None
    assert (shown["total_tokens"], shown["input_tokens"], shown["output_tokens"]) == (125, 65, 60)
    assert shown["input_token_details"]["cached_tokens"] == 30
    assert items.usage(None) is None


def test_status_details() -> None:
    assert items.status_details("completed", None, None) is None
    assert items.status_details("cancelled", "turn_detected", None) == {
        "type": "cancelled",
        "reason": "turn_detected",
    }
    assert items.status_details("cancelled", "hangup", None) == {"type": "cancelled"}
    failed = items.status_details("failed", "error", TurnError("engine_down", "It died."))
    assert failed == {
        "type": "failed",
        "error": {"type": "server_error", "code": "engine_down", "message": "It died."},
    }


def test_the_same_turn_costs_the_same_in_chat() -> None:
    used = Usage(40, 25, 30, 12, 48, 5, 10)
    shown, plain = items.usage(used), chat.show_usage(used)
    assert shown is not None
    assert shown["input_tokens"] == plain["prompt_tokens"] == 65
    assert shown["output_tokens"] == plain["completion_tokens"] == 60, "a thought is part of the text"
    assert shown["total_tokens"] == plain["total_tokens"] == 125
    cached = shown["input_token_details"]["cached_tokens_details"]
    assert (cached["text_tokens"], cached["audio_tokens"]) == (20, 10)
    assert plain["prompt_tokens_details"]["cached_tokens"] == 30
