"""The Live dialect on a real controller, without a socket: its life cycle, its strictness, and one timeline for all."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_player import LivePhone, b64, kinds, sound, text

from voiceagent.core import events as core
from voiceagent.core.history import AssistantItem, SystemItem, TextContent, ToolResultItem, UserItem
from voiceagent.core.tables import Mouth
from voiceagent.wire.live_events import EVENT_TYPES

TOOL = {"type": "function", "name": "clock", "description": "Now.", "parameters": {"type": "object"}}
RESPONSES = {"type": "responses", "responses": {"model": "m", "instructions": "Use tools.", "tools": [TOOL]}}
PLAYING, PLAYED = ("session.output_audio.fixture." + name for name in ("playing", "played"))


def error_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert kinds(events) == ["error"]
    found: dict[str, Any] = events[0]["error"]
    return found


def started(**session: Any) -> LivePhone:
    phone = LivePhone()
    assert kinds(phone.start(**session)) == ["session.started"]
    return phone


def speaking(phone: LivePhone) -> LivePhone:
    """Commentary makes the model speak."""
    phone.send("session.commentary.append", content="It is noon.", delegation_id=None)
    return phone


# --- the life cycle -----------------------------------------------------------------------------------------------


def test_a_session_starts_as_asked_and_shows_what_holds() -> None:
    phone = LivePhone()
    (answer,) = phone.start(
        audio={"format": {"type": "audio/pcmu", "rate": 8000}, "output": {"voice": "bert"}}
    )
    session = answer["session"]
    assert (session["id"], session["expires_at"], session["status"]) == ("sess_call", 1_000_600, "active")
    assert session["audio"] == {"format": {"type": "audio/pcmu", "rate": 8000}, "output": {"voice": "bert"}}
    assert session["instructions"] == "Be kind."
    assert session["store"] is False


def test_an_unknown_voice_is_replaced_with_a_notice() -> None:
    answers = LivePhone().start(audio={"output": {"voice": {"id": "marin"}}})
    assert kinds(answers) == ["session.started", "info"]
    assert answers[0]["session"]["audio"]["output"]["voice"] == "anna"
    assert answers[1]["code"] == "voice_replaced"


def test_nothing_goes_before_the_start_and_it_comes_once() -> None:
    phone = LivePhone()
    for kind in sorted(EVENT_TYPES - {"session.start"}):
        fields: dict[str, Any] = {
            "session.update": {"session": {}},
            "session.input_audio.append": {"audio": ""},
            "session.output_audio.fixture.play": {"audio": ""},
            "response.item.create": {"item": {}},
        }.get(kind, {"content": "x", "delegation_id": None} if kind.endswith("s.append") else {})
        if kind.endswith(("thinking.append", "commentary.append")):
            fields = {"content": "x", "delegation_id": None}
        error = error_of(phone.send(kind, event_id="e", **fields))
        assert (error["code"], error["client_event_id"]) == ("session_not_started", "e")
    phone.start()
    assert error_of(phone.start())["code"] == "session_already_started"


def test_the_history_before_the_session_and_its_instructions_reach_the_model() -> None:
    history = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Short."}]},
        {"role": "user", "content": [{"text": "Hi."}], "type": "message"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
    ]
    phone = speaking(started(input=history, instructions="Speak."))
    turn = phone.turns[0]
    first, second, third, last = turn.items
    assert isinstance(first, SystemItem)
    assert first.text == "Short."
    assert isinstance(second, UserItem)
    assert second.content == (TextContent("Hi."),)
    assert isinstance(third, AssistantItem)
    assert isinstance(last, SystemItem)
    assert last.text.endswith("It is noon.")
    assert turn.options.instructions == "Speak."


def test_closing_says_why_and_how_long() -> None:
    phone = speaking(started())
    phone.wait(2.5)
    *_, closed = phone.send("session.close", event_id="bye")
    assert closed["type"] == "session.closed"
    assert (closed["reason"], closed["client_event_id"]) == ("close_requested", "bye")
    assert closed["usage"] == {"seconds": 2.5}
    assert phone.closed is not None
    assert phone.closed.code == 1000
    assert phone.send("session.input_audio.mute")[0]["type"] == "session.input_audio.muted"
    assert speaking(phone).closed is phone.closed


@pytest.mark.parametrize(
    ("reason", "told"), [("session limit reached", "expired"), ("something else", "connection_lost")]
)
def test_an_end_by_the_server(reason: str, told: str) -> None:
    (closed,) = started().engine(core.Hangup(reason, 1008))
    assert closed["reason"] == told


# --- strictness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"voice": "anna"}, "unknown_parameter", "session.voice"),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 8000}}}, "invalid_value", "session.audio.format.rate"),
        ({"audio": {"format": {"type": "audio/pcm"}}}, "missing_required_parameter", "session.audio.format.rate"),
        ({"store": True}, "unsupported_parameter", "session.store"),
        ({"triggers": [{}]}, "unsupported_parameter", "session.triggers"),
        ({"delegation": {"type": "decisions", "decisions": {}}}, "unsupported_parameter", "session.delegation.type"),
        ({"delegation": {"type": "responses"}}, "missing_required_parameter", "session.delegation.responses"),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "tools": [{"type": "mcp"}]}}},
            "unsupported_tool",
            "session.delegation.responses.tools[0].type",
        ),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "tools": [{**TOOL, "x": 1}]}}},
            "unknown_parameter",
            "session.delegation.responses.tools[0].x",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
            "invalid_value",
            "session.input[0].content[0].type",
        ),
        ({"input": [{"role": "user", "content": [{"text": "x" * 33_000}]}]}, "input_too_long", "session.input"),
    ],
)  # fmt: skip
def test_what_a_session_cannot_be(session: dict[str, Any], code: str, param: str) -> None:
    phone = LivePhone()
    error = error_of(phone.start(**session))
    assert (error["code"], error["param"]) == (code, param)
    assert kinds(phone.start()) == ["session.started"]  # it did not start


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"type": "session.input_audio.mute", "extra": 1}, "unknown_parameter", "extra"),
        ({"type": "session.thinking.append", "content": "x"}, "missing_required_parameter", "delegation_id"),
        ({"type": "session.thinking.append", "content": "x", "delegation_id": "d"},
         "unknown_delegation", "delegation_id"),
        ({"type": "session.input_audio.append", "audio": "A"}, "invalid_base64", "audio"),
        ({"type": "session.input_audio.append", "audio": "AAAA"}, None, "audio"),
        ({"type": "session.output_audio.fixture.play", "audio": ""}, "invalid_fixture", "audio"),
        ({"type": "response.create"}, "responses_delegation_required", "type"),
        ({"type": "response.item.create", "item": {}}, "responses_delegation_required", "type"),
        ({"type": "session.update", "session": {"delegation": RESPONSES}},
         "immutable_parameter", "session.delegation.type"),
        ({"type": "decision.create"}, "unknown_event_type", "type"),
        ({"content": "x"}, "missing_required_parameter", "type"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_names_the_event_and_the_field(
    message: dict[str, Any], code: str | None, param: str
) -> None:
    error = error_of(started().client(json.dumps({**message, "event_id": "e7"})))
    assert error["client_event_id"] == "e7"
    assert error["param"] == param
    assert code is None or error["code"] == code


def test_binary_frames_are_refused() -> None:
    assert error_of(started().client(b"{}"))["code"] == "invalid_message"


# --- hearing and speaking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rate", "width"),
    [("audio/pcm", 16_000, 2), ("audio/pcm", 24_000, 2), ("audio/pcmu", 8_000, 1), ("audio/pcma", 8_000, 1)],
)
def test_one_format_both_ways(kind: str, rate: int, width: int) -> None:
    phone = started(audio={"format": {"type": kind, "rate": rate}})
    pcm = (np.sin(np.arange(rate) / 20) * 8000).astype("<i2").tobytes() if width == 2 else bytes(rate)
    phone.send("session.input_audio.append", audio=base64.b64encode(pcm).decode())
    assert abs(phone._at - 16_000) < 1200  # the resampler holds a little back
    speaking(phone)
    made = [*phone.says("Noon it is."), *phone.wait(2.0)]
    assert len(sound(made)) == pytest.approx(
        1.5 * rate * width, abs=width * 2
    )  # the quiet behind it included


def test_a_spoken_turn_on_one_timeline() -> None:
    phone = started()
    phone.wait(1.0)  # nobody sends anything for a second
    phone.voice(0.02, 0.48)
    phone.voice(0.95, 0.96)
    phone.voice(0.02, 0.8)
    (turn,) = phone.turns
    heard = phone.engine(core.Transcript(turn.items[-1].id, "what time is it"))
    (fragment,) = heard
    assert fragment["delta"] == "what time is it"
    assert 1150 <= fragment["start_ms"] <= 1500  # 300 ms of padding before the voice
    assert 2400 <= fragment["end_ms"] <= 3240
    said = [*phone.says("It is noon."), *phone.wait(2.0)]
    assert text(said) == "It is noon."
    words = [e for e in said if e["type"] == "session.output_transcript.delta"]
    assert fragment["end_ms"] <= words[0]["start_ms"] < words[0]["end_ms"]
    assert kinds(said)[-1] == "session.usage.updated"
    assert "context_window" not in said[-1]
    phone.voice(0.95, 0.96)
    phone.voice(0.02, 0.8)
    assert phone.engine(core.Transcript(phone.turns[-1].items[-1].id, "and now"))[0]["delta"] == " and now"
    assert text(phone.says("Still noon.")) == " Still noon."


def test_audio_from_a_file_stands_where_it_would_have_been_heard() -> None:
    phone = started()
    phone.append(np.zeros(24_000 * 4, np.int16))  # four seconds at once
    phone.engine(*(core.SpeechProb(at, 0.95) for at in range(512 * 64, 512 * 96, 512)))
    phone.engine(*(core.SpeechProb(at, 0.02) for at in range(512 * 96, 512 * 120, 512)))
    (fragment,) = phone.engine(core.Transcript(phone.turns[-1].items[-1].id, "hello"))
    assert fragment["start_ms"] == pytest.approx(64 * 32 - 300, abs=64)


def test_the_context_window_is_told_if_it_is_known() -> None:
    phone = LivePhone(context_tokens=1000)
    phone.start()
    speaking(phone)
    made = [*phone.says("Noon."), *phone.wait(2.0)]
    assert made[-1]["context_window"] == {"usage_ratio": pytest.approx(0.18)}
    assert made[-1]["usage"]["seconds"] == pytest.approx(0.7, abs=0.1)  # all sent 300 ms before its end


def test_a_voice_over_ours_stops_us() -> None:
    phone = started()
    speaking(phone)
    phone.says("A long story.", tokens=200, end=None)
    phone.voice(0.02, 0.32)
    assert sound(phone.voice(0.95, 0.32))
    assert not sound(phone.voice(0.95, 0.64))
    assert phone.controller.mouth is not Mouth.SPEAKING


def test_a_failed_turn_is_an_error() -> None:
    phone = speaking(started())
    (error,) = phone.engine(core.TurnFailed(1, "engine_error", "It broke."))
    assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "engine_error")


def test_muted_the_model_hears_silence_of_the_same_length() -> None:
    phone = started()
    loud = np.full(2400, 9000, np.int16)
    phone.append(loud)
    assert np.abs(phone.heard).max() > 0.1
    (muted,) = phone.send("session.input_audio.mute", event_id="m")
    assert (muted["type"], muted["client_event_id"]) == ("session.input_audio.muted", "m")
    before = phone._at
    phone.append(loud)
    assert phone._at > before
    assert not phone.heard.any()
    assert kinds(phone.send("session.input_audio.unmute")) == ["session.input_audio.unmuted"]
    phone.append(loud)
    assert phone.heard.any()


# --- appends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "speaks"), [("instructions", 0), ("thinking", 0), ("commentary", 1)])
def test_appended_text_has_a_place_and_only_commentary_is_spoken(name: str, speaks: int) -> None:
    phone = started()
    phone.wait(1.25)
    (ack,) = phone.send(f"session.{name}.append", content="It rains.", delegation_id=None, event_id="a")
    assert ack["type"] == f"session.{name}.appended"
    assert (ack["start_ms"], ack["end_ms"], ack["client_event_id"]) == (1250, 1250, "a")
    assert len(phone.turns) == speaks
    last = phone.controller.history.items[-1]
    assert isinstance(last, SystemItem)
    assert last.text.endswith("It rains.")


def test_commentary_waits_until_nobody_speaks() -> None:
    phone = speaking(started())
    speaking(phone)
    assert len(phone.turns) == 1
    phone.says("Noon.")
    phone.wait(2.0)
    assert len(phone.turns) == 2


# --- fixtures -----------------------------------------------------------------------------------------------------


def test_a_fixture_is_played_instead_of_the_model() -> None:
    phone = speaking(started())
    phone.says("A long story.", tokens=100, end=None)
    notice = np.arange(24_000, dtype=np.int16)
    made = phone.send("session.output_audio.fixture.play", audio=b64(notice), event_id="f")
    assert made[0]["type"] == PLAYING
    assert made[0]["client_event_id"] == "f"
    phone.append(np.full(2400, 9000, np.int16))
    assert not phone.heard.any()  # what is said meanwhile is dropped
    assert (
        error_of(phone.send("session.output_audio.fixture.play", audio=b64(notice)))["code"]
        == "fixture_active"
    )
    refused = phone.send("session.thinking.append", content="x", delegation_id=None)
    assert error_of(refused)["code"] == "fixture_active"
    made += phone.wait(2.0)
    assert sound(made) == notice.tobytes()
    assert made[-1]["type"] == PLAYED
    assert made[-1]["client_event_id"] == "f"
    assert [type(item) for item in phone.controller.history.items] == [SystemItem, AssistantItem]
    assert kinds(speaking(phone).says("Again.")).count("session.output_transcript.delta") == 1


@pytest.mark.parametrize("samples", [0, 24_000 * 30 + 1])
def test_a_bad_fixture_stops_nobody(samples: int) -> None:
    phone = speaking(started())
    phone.says("A long story.", tokens=100, end=None)
    refused = phone.send("session.output_audio.fixture.play", audio=b64(np.zeros(samples, np.int16)))
    assert error_of(refused)["code"] == "invalid_fixture"
    assert sound(phone.wait(0.5))


def test_a_fixture_that_is_cut_was_not_played() -> None:
    phone = started()
    phone.send("session.output_audio.fixture.play", audio=b64(np.zeros(48_000, np.int16)))
    assert PLAYED not in kinds(phone.send("session.close"))


# --- delegation ---------------------------------------------------------------------------------------------------


def test_a_task_for_the_application() -> None:
    phone = speaking(started(delegation={"type": "client"}))
    assert [tool.name for tool in phone.turns[0].options.tools] == ["delegate"]
    made = phone.calls("delegate", '{"task": "look it up"}')
    (created,) = [e for e in made if e["type"] == "session.delegation.created"]
    delegation = created["delegation"]
    assert (delegation["target"], delegation["type"]) == ("client", "delegation")
    name = delegation["id"]
    phone.send("session.thinking.append", content="Still looking.", delegation_id=name)
    assert len(phone.turns) == 1
    phone.send("session.commentary.append", content="Sunny.", delegation_id=name)
    result = phone.turns[1].items[-1]
    assert isinstance(result, ToolResultItem)
    assert (result.call_id, result.output) == ("call_1", "Sunny.")
    phone.send("session.commentary.append", content="And warm.", delegation_id=name)
    assert isinstance(phone.controller.history.items[-1], SystemItem)


def test_a_task_for_responses_with_function_tools() -> None:
    phone = speaking(started(delegation=RESPONSES))
    options = phone.turns[0].options
    assert [tool.name for tool in options.tools] == ["clock"]
    assert options.instructions == "Be kind.\n\nUse tools."
    made = phone.calls("clock", '{"zone": "CET"}')
    assert made[0]["delegation"]["target"] == "responses"
    nested = [e["event"] for e in made if e["type"] == "response.event"]
    assert [e["type"] for e in nested] == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [e["sequence_number"] for e in nested] == list(range(6))
    assert nested[0]["response"]["id"] == made[0]["delegation"]["response_id"]
    assert nested[-1]["response"]["usage"]["total_tokens"] == 15
    call = nested[4]["item"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "12:00"}
    assert phone.send("response.item.create", item=output) == []
    assert len(phone.turns) == 1
    phone.send("response.create")
    result = phone.turns[1].items[-1]
    assert isinstance(result, ToolResultItem)
    assert result.output == "12:00"
    again = phone.send("response.item.create", item=output)
    assert error_of(again)["code"] == "unknown_call"
    refused = phone.send("session.thinking.append", content="x", delegation_id=made[0]["delegation"]["id"])
    assert error_of(refused)["code"] == "delegation_not_allowed"


def test_a_typed_question_and_an_update() -> None:
    phone = started(delegation=RESPONSES)
    patch = {"type": "responses", "responses": {"tool_choice": "none"}, "acknowledgement_delay_ms": 100}
    (updated,) = phone.send("session.update", session={"delegation": patch})
    shown = updated["session"]["delegation"]
    assert shown["responses"] == {**RESPONSES["responses"], "tool_choice": "none"}  # type: ignore[dict-item]
    assert shown["acknowledgement_delay_ms"] == 100
    message = {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    phone.send("response.item.create", item=message)
    phone.send("response.create")
    asked = phone.turns[0].items[-1]
    assert isinstance(asked, UserItem)
    assert phone.turns[0].options.tool_choice == "none"
    error = error_of(phone.send("response.item.create", item={"type": "message", "role": "user", "x": 1}))
    assert error["param"] in ("item.x", "item.content")


# --- whatever comes in --------------------------------------------------------------------------------------------

WORDS = (
    "event_id", "session", "audio", "format", "rate", "type", "model", "instructions", "input", "delegation",
    "responses", "tools", "tool_choice", "content", "delegation_id", "item", "role", "text", "output", "voice",
    "call_id", "name", "parameters", "store", "triggers", "id", "acknowledgement_delay_ms", "client",
)  # fmt: skip
VALUES = (
    "m", "client", "responses", "decisions", "function", "user", "developer", "input_text", "audio/pcm", "audio/pcmu",
    "AAAA", "AAA=", "function_call_output", "message", "auto", "call_1", "deleg_call_1", "\ud800", "x" * 200,
)  # fmt: skip
GOOD: tuple[dict[str, Any], ...] = (
    {"type": "session.start", "session": {"model": "m", "delegation": RESPONSES, "instructions": "Hi"}},
    {"type": "session.start", "session": {"model": "m", "delegation": {"type": "client"}}},
    {"type": "session.update", "session": {"delegation": RESPONSES}},
    {"type": "session.input_audio.append", "audio": "AAAA" * 400},
    {"type": "session.output_audio.fixture.play", "audio": "AAAA" * 400},
    {"type": "session.commentary.append", "content": "x", "delegation_id": None},
    {"type": "session.thinking.append", "content": "x", "delegation_id": "deleg_call_1"},
    {"type": "session.instructions.append", "content": "x", "delegation_id": None},
    {"type": "response.item.create", "item": {"role": "user", "content": "hi"}},
    {"type": "response.item.create", "item": {"type": "function_call_output", "call_id": "call_1", "output": "x"}},
    {"type": "response.create"},
    {"type": "session.input_audio.mute"},
    {"type": "session.close"},
)  # fmt: skip
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES) | st.text(max_size=9)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


def containers(node: Any) -> list[Any]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict | list) else []
    return own + [found for value in inner for found in containers(value)]


@st.composite
def messages(draw: st.DrawFn) -> str:
    """A good message with up to three values replaced or added, or any fields behind a known type."""
    if draw(st.integers(0, 4)) == 0:
        fields = draw(st.dictionaries(st.sampled_from(WORDS), values, max_size=4))
        return json.dumps(fields | {"type": draw(st.sampled_from(sorted(EVENT_TYPES)))})
    message: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(containers(message)))
        if isinstance(place, list):
            place.append(draw(values))
        elif place:
            place[draw(st.sampled_from((*place, *WORDS)))] = draw(values)
    return json.dumps(message)


@settings(max_examples=200, deadline=None)
@given(st.lists(messages() | st.text(max_size=20), min_size=1, max_size=8), st.booleans())
def test_whatever_comes_in_is_answered_by_the_published_types(sequence: list[str], begun: bool) -> None:
    phone = started(delegation=RESPONSES) if begun else LivePhone()
    for frame in sequence:
        phone.client(frame)  # checks every answer
        if phone.turns and phone.controller.mouth is Mouth.THINKING:
            phone.calls("clock") if len(sequence) % 2 else phone.says("Hi.")
        phone.wait(0.2)
    if phone.closed is None:
        if not begun and not any(e["type"] == "session.started" for e in phone.log):
            assert phone.start()[0]["type"] == "session.started"
        assert phone.send("session.input_audio.mute")[0]["type"] == "session.input_audio.muted"
