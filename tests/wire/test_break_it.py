"""What breaks real clients, and that we never send it.

Each rule stands for a fault that makes one of the openai package, @openai/agents-realtime, Pipecat or LiveKit hang,
die or lose audio. A rule is held against every recorded call (one tries all settings), and must notice its fault.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
Line = tuple[str, dict[str, Any]]  #: ">" or "<", and the message
Log = list[Line]
SPOKEN = (
    "response.output_audio.delta",
    "response.output_audio_transcript.delta",
    "response.output_text.delta",
)


def logs() -> dict[str, Log]:
    """The recorded calls by name; test_golden.py holds them to what is sent today."""
    return {
        path.stem: [
            (line[0], json.loads(line[2:])) for line in path.read_text().splitlines() if line[0] in "><"
        ]
        for path in sorted(GOLDEN.glob("*.jsonl"))
    }


def told(log: Log, *kinds: str) -> list[dict[str, Any]]:
    return [event for side, event in log if side == "<" and (not kinds or event["type"] in kinds)]


def sessions(log: Log) -> list[dict[str, Any]]:
    """As conversations are shown; of a session that only transcribes, nothing that these rules are about is shown."""
    shown = [event["session"] for event in told(log, "session.created", "session.updated")]
    return [session for session in shown if session["type"] == "realtime"]


def contents(log: Log) -> list[dict[str, Any]]:
    """Content parts of the items of persons."""
    items = [event["item"] for event in told(log) if "item" in event]
    return [part for item in items if item.get("role") == "user" for part in item["content"]]


def answers(log: Log, asked: str, *kinds: str) -> None:
    """Each such request is answered by one of these, or an error, before the next request."""
    for at, (side, request) in enumerate(log):
        if (side, request["type"]) == (">", asked):
            later = log[at + 1 :]
            until = next((n for n, (side, _) in enumerate(later) if side == ">"), len(later))
            assert any(event["type"] in (*kinds, "error") for _, event in later[:until]), request


# --- the rules ----------------------------------------------------------------------------------------------------


def greets_first(log: Log) -> None:
    assert log[0][1]["type"] == "session.created"


def confirms_settings(log: Log) -> None:
    answers(log, "session.update", "session.updated")


def tells_of_items_twice(log: Log) -> None:
    """Items of the conversation are added, then done, and each names one that is known as its predecessor."""
    added: list[str] = []
    done: list[str] = []
    apart: set[str] = set()
    for event in told(log):
        if event["type"] == "response.created" and event["response"]["conversation_id"] is None:
            apart.add(event["response"]["id"])
        if event["type"] in ("conversation.item.added", "conversation.item.done"):
            assert event["previous_item_id"] in (None, *added), event
            (added if event["type"].endswith("added") else done).append(event["item"]["id"])
            assert event["item"]["id"] in added, event
        if event["type"] == "response.output_item.done" and event["response_id"] not in apart:
            assert event["item"]["id"] in done, event
    answers(log, "conversation.item.create", "conversation.item.added")
    assert set(added) == set(done)


def announces_items_before_their_content(log: Log) -> None:
    known: set[str] = set()
    for event in told(log):
        if event["type"] == "response.output_item.added":
            known.add(event["item"]["id"])
        elif event["type"] in SPOKEN or event["type"].startswith("response.function_call_arguments"):
            assert event["item_id"] in known, event


def announces_parts_before_their_content(log: Log) -> None:
    known: set[tuple[str, int]] = set()
    for event in told(log):
        if event["type"] == "response.content_part.added":
            known.add((event["item_id"], event["content_index"]))
        elif event["type"] in SPOKEN:
            assert (event["item_id"], event["content_index"]) in known, event


def tells_of_a_call_before_its_arguments(log: Log) -> None:
    calls: set[str] = set()
    for event in told(log):
        if event["type"] == "conversation.item.added" and event["item"]["type"] == "function_call":
            calls.add(event["item"]["id"])
        elif event["type"] == "response.function_call_arguments.done":
            assert event["item_id"] in calls, event


def echoes_metadata(log: Log) -> None:
    asked = [
        e["response"].get("metadata")
        for s, e in log
        if s == ">" and e["type"] == "response.create" and "response" in e
    ]
    shown = [event["response"]["metadata"] for event in told(log, "response.created", "response.done")]
    assert all(shown.count(metadata) == 2 for metadata in asked if metadata), (asked, shown)


def shows_the_transcript_key(log: Log) -> None:
    assert all("transcript" in part for part in contents(log) if part["type"] == "input_audio")


def shows_only_common_keys_of_transcription(log: Log) -> None:
    for session in sessions(log):
        shown = session["audio"]["input"]["transcription"]
        assert set(shown or ()) <= {"model", "language", "prompt"}, shown


def shows_common_formats(log: Log) -> None:
    common = ({"type": "audio/pcm", "rate": 24000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"})
    for session in sessions(log):
        assert session["audio"]["input"]["format"] in common
        assert session["audio"]["output"]["format"] in common


def shows_a_tool_choice_as_asked(log: Log) -> None:
    """An object only to who asked with one."""
    asked = [e["session"].get("tool_choice") for s, e in log if s == ">" and e["type"] == "session.update"]
    for session in sessions(log):
        choice = session["tool_choice"]
        assert choice in ("auto", "none", "required") or choice in asked, choice


def shows_a_voice_by_name(log: Log) -> None:
    responses = [event["response"] for event in told(log, "response.created", "response.done")]
    for shown in [*sessions(log), *responses]:
        assert isinstance(shown["audio"]["output"]["voice"], str), shown


def shows_known_turn_detection(log: Log) -> None:
    for session in sessions(log):
        shown = session["audio"]["input"]["turn_detection"]
        assert shown is None or shown["type"] in ("server_vad", "semantic_vad")
        assert shown is None or isinstance(shown["interrupt_response"], bool)  # what stops a spare cancel


def has_no_items_of_mcp(log: Log) -> None:
    """But for those who ask for them."""
    if any(tool["type"] == "mcp" for session in sessions(log) for tool in session["tools"]):
        return
    for event in told(log):
        assert not str(event.get("item", {}).get("type", "")).startswith("mcp"), event


def names_the_item_of_speech(log: Log) -> None:
    assert all(event["item_id"] for event in told(log, "input_audio_buffer.speech_started"))


def sends_parts_without_sound(log: Log) -> None:
    for event in told(log, "response.content_part.added", "response.content_part.done"):
        assert event["part"]["type"] in ("audio", "text"), event
        assert "audio" not in event["part"], event


def counts_transcripts_in_seconds(log: Log) -> None:
    for event in told(log, TRANSCRIBED):
        assert set(event["usage"]) == {"type", "seconds"}, event


def ends_responses_in_order(log: Log) -> None:
    """Sound, words, part and item are done, in this order, before the response is; partial ones too."""
    order = [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    beside = {
        e["response"]["id"] for e in told(log, "response.created") if not e["response"]["conversation_id"]
    }
    started = {event["item_id"]: event["response_id"] for event in told(log, "response.output_audio.delta")}
    for item, response in started.items():
        ends = [
            e["type"] for e in told(log, *order) if item in (e.get("item_id"), e.get("item", {}).get("id"))
        ]
        wanted = [name for name in order if response not in beside or not name.startswith("conversation.")]
        assert ends == wanted, ends
    answered = [
        r["id"] for event in told(log, "response.done") if (r := event["response"])["conversation_id"]
    ]
    opened = [
        r["id"] for event in told(log, "response.created") if (r := event["response"])["conversation_id"]
    ]
    assert answered == opened[: len(answered)]  # those beside the conversation end when they end


# --- each rule, and the fault that it is there to notice ----------------------------------------------------------


def without(*kinds: str) -> Callable[[Log], Log]:
    return lambda log: [line for line in log if line[0] == ">" or line[1]["type"] not in kinds]


def with_value(kind: str, path: str, value: Any) -> Callable[[Log], Log]:
    """The log with a value set in every event of this type; DROP takes the key away."""

    def edit(log: Log) -> Log:
        changed = copy.deepcopy(log)
        for side, event in changed:
            if side == "<" and event["type"] == kind:
                target: Any = event
                *way, last = path.split(".")
                for step in way:
                    target = target[int(step)] if isinstance(target, list) else target.get(step) or {}
                target.pop(last, None) if value is DROP else target.update({last: value})
        return changed

    return edit


DROP = object()
INPUT, OUTPUT = "session.audio.input", "session.audio.output"
USAGE = {"type": "tokens", "input_tokens": 3}
FAULTS: list[tuple[Callable[[Log], None], Callable[[Log], Log]]] = [
    (greets_first, without("session.created")),
    (confirms_settings, without("session.updated")),
    (tells_of_items_twice, without("conversation.item.added")),
    (tells_of_items_twice, without("conversation.item.done")),
    (announces_items_before_their_content, without("response.output_item.added")),
    (announces_parts_before_their_content, without("response.content_part.added")),
    (tells_of_a_call_before_its_arguments, without("conversation.item.added")),
    (echoes_metadata, with_value("response.created", "response.metadata", None)),
    (shows_the_transcript_key, with_value("conversation.item.added", "item.content.0.transcript", DROP)),
    (shows_only_common_keys_of_transcription, with_value("session.updated", f"{INPUT}.transcription.delay", "low")),
    (shows_common_formats, with_value("session.updated", f"{INPUT}.format.rate", 16000)),
    (shows_common_formats, with_value("session.updated", f"{OUTPUT}.format.type", "audio/opus")),
    (shows_a_tool_choice_as_asked, with_value("session.updated", "session.tool_choice", {"type": "function"})),
    (shows_a_voice_by_name, with_value("session.updated", f"{OUTPUT}.voice", {"id": "anna"})),
    (shows_a_voice_by_name, with_value("response.created", "response.audio.output.voice", {"id": "anna"})),
    (shows_known_turn_detection, with_value("session.updated", f"{INPUT}.turn_detection.type", "telepathy")),
    (shows_known_turn_detection, with_value("session.created", f"{INPUT}.turn_detection.interrupt_response", DROP)),
    (has_no_items_of_mcp, with_value("conversation.item.added", "item.type", "mcp_call")),
    (names_the_item_of_speech, with_value("input_audio_buffer.speech_started", "item_id", "")),
    (sends_parts_without_sound, with_value("response.content_part.added", "part.audio", None)),
    (sends_parts_without_sound, with_value("response.content_part.done", "part.type", "output_audio")),
    (counts_transcripts_in_seconds, with_value(TRANSCRIBED, "usage", USAGE)),
    (ends_responses_in_order, without("response.output_audio.done")),
]  # fmt: skip
RULES = list(dict.fromkeys(rule for rule, _ in FAULTS))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_we_never_send_what_breaks_a_client(rule: Callable[[Log], None]) -> None:
    for log in logs().values():
        rule(log)


@pytest.mark.parametrize(("rule", "fault"), FAULTS, ids=lambda part: getattr(part, "__name__", ""))
def test_the_rule_would_notice(rule: Callable[[Log], None], fault: Callable[[Log], Log]) -> None:
    noticed = 0
    for log in logs().values():
        try:
            rule(fault(log))
        except (AssertionError, KeyError):
            noticed += 1
    assert noticed
