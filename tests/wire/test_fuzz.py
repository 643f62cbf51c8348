"""R19, the small daily dose: whatever comes in, only WireError goes out, and a good message is answered afterwards."""

import json
import random
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from wire_player import Phone

from voiceagent.wire.realtime_events import EVENT_TYPES

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl"))
AUDIO = "AAAA" * 1600
CLIENT_LINES = [
    re.sub(r"@\d+", AUDIO, line[2:])
    for path in GOLDEN
    for line in path.read_text().splitlines()
    if line.startswith(">")
]
NASTY = (
    "NaN", "-Infinity", "1e999", "9" * 5000, "-1", "null", "true", "0.5", '""', '"\\ud800"', '"\\u0000"', "{}", "[]",
    "[" * 3000 + "]" * 3000, '{"a":' * 100 + "1" + "}" * 100, '"' + "x" * 70_000 + '"', '"@"', '"AAAA"', '"root"', "",
)  # fmt: skip
WORDS = (
    "type", "event_id", "session", "audio", "input", "output", "format", "rate", "voice", "tools", "tool_choice",
    "turn_detection", "transcription", "item", "item_id", "previous_item_id", "content", "role", "text", "transcript",
    "call_id", "name", "arguments", "response", "response_id", "conversation", "metadata", "output_modalities",
    "max_output_tokens", "instructions", "audio_end_ms", "id", "output_lead_ms", "temperature", "tracing", "eagerness",
)  # fmt: skip
VALUES = (
    "realtime", "audio/pcm", "audio/pcmu", "server_vad", "semantic_vad", "message", "user", "assistant", "system",
    "input_text", "input_audio", "function_call", "function_call_output", "item_reference", "function", "none", "auto",
    "inf", "item_0001", "resp_call_1", "root", "AAAA", "AAA=", "\ud800", "x" * 200, "text", "low",
)  # fmt: skip

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(VALUES)
    | st.text(max_size=20)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


def still_answers(phone: Phone) -> None:
    answer = phone.client(
        '{"type": "session.update", "event_id": "after", "session": {"instructions": "Hi"}}'
    )
    assert json.loads(answer[-1])["type"] == "session.updated"
    phone.client('{"type": "conversation.item.retrieve", "event_id": "rci_x", "item_id": "no such item"}')
    assert json.loads(phone.sent[-1])["error"]["event_id"] == "rci_x"


def containers(node: Any) -> list[Any]:
    """All objects and arrays in a message, itself included."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict | list) else []) + [
        c for value in inner for c in containers(value)
    ]


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A good message with some values replaced, or any fields behind a known type."""
    if draw(st.booleans()):
        return draw(st.dictionaries(st.sampled_from(WORDS), values, max_size=4)) | {
            "type": draw(st.sampled_from(sorted(EVENT_TYPES)))
        }
    message: dict[str, Any] = json.loads(draw(st.sampled_from(CLIENT_LINES)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(containers(message)))
        if isinstance(place, list):
            place.append(draw(values))
        elif place:
            place[draw(st.sampled_from((*place, *WORDS)))] = draw(values)
    return message


@settings(max_examples=200, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=6))
def test_grammar(sequence: list[dict[str, Any]]) -> None:
    phone = Phone()
    for message in sequence:
        for frame in phone.client(json.dumps(message)):
            json.loads(frame)
    still_answers(phone)


def mutated(text: str, rng: random.Random) -> str:
    """One or a few edits of a message: characters flipped, cut, doubled, a value replaced, two messages mixed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((1, 2, 8, 40)))
        match rng.randrange(6):
            case 0:
                text = (
                    text[:start]
                    + chr(rng.choice((0, 34, 92, 123, 125, 0xD800, 0x1F600, rng.randrange(128))))
                    + text[end:]
                )
            case 1:
                text = text[:start] + text[end:]
            case 2:
                text = text[:end] + text[start:end] + text[end:]
            case 3:
                colon = text.find(":", start)
                stop = min(
                    (p for p in (text.find(",", colon), text.find("}", colon)) if p > 0), default=len(text)
                )
                text = text[: colon + 1] + rng.choice(NASTY) + text[stop:]
            case 4:
                other = rng.choice(CLIENT_LINES)
                text = text[:start] + other[rng.randrange(len(other)) :]
            case _:
                text = text.replace(rng.choice(WORDS), rng.choice(WORDS), 1)
    return text


def altered(text: str, rng: random.Random) -> str:
    """The message with some values replaced: still JSON, mostly."""
    message = json.loads(text)
    for mark in range(rng.randint(1, 2)):
        place = rng.choice(containers(message))
        key = rng.choice((*place, *WORDS)) if isinstance(place, dict) else rng.randrange(len(place) or 1)
        if isinstance(place, dict) or place:
            place[key] = f"<{mark}>"
    text = json.dumps(message)
    for mark in range(2):
        text = text.replace(
            f'"<{mark}>"', rng.choice((*NASTY, *map(json.dumps, VALUES), "16000", "8", "{}", "[{}]"))
        )
    return text


def test_mutations_of_the_golden_transcripts() -> None:
    rng = random.Random(19)
    phone = Phone()
    for count in range(8000):
        if count % 100 == 0:
            still_answers(phone)
            phone = Phone(turn_detection=None) if count % 200 else Phone()
        mutate = rng.choice((mutated, altered))
        for frame in phone.client(mutate(rng.choice(CLIENT_LINES), rng)):
            json.loads(frame)
        if count % 10 == 0:
            phone.engine(rng.choice(({"text": "Hi"}, {"audio_tokens": 2}, {"end": "stop"}, {"fail": "x"})))
            phone.wait(0.1)
    still_answers(phone)


def test_bytes_are_refused_whatever_they_are() -> None:
    phone = Phone()
    rng = random.Random(19)
    for size in (0, 1, 100, 5000):
        (frame,) = phone.client(rng.randbytes(size))
        assert json.loads(frame)["error"]["code"] == "invalid_message"
    still_answers(phone)
