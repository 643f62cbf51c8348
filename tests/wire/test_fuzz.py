"""R19: whatever comes in, the answer is a legal event or a documented error, and a good message is answered next.

`scripts/fuzz.py` plays the same calls by the hundred thousand.
"""

from __future__ import annotations

import ast
import json
import random
import re
import tracemalloc
from pathlib import Path

import pytest
from fuzz_grammar import NASTY, PROTOCOLS, Grammar, call, frames, kinds_of
from fuzz_play import DECODERS, LIVE_CODES, PROTOCOL_CODES, Call, Failure, Outcome, decode, documented, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import voiceagent
from voiceagent.wire import live_events, realtime_events, translation

WEBSOCKETS = ("realtime", "live", "translation")
PACKAGE = Path(voiceagent.__file__).parent
DRAWN = st.randoms(use_true_random=False)


def drawn(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


# --- a daily dose: 10,000 messages of calls, 2,000 bodies of requests ---------------------------------------------


@pytest.mark.parametrize("protocol", WEBSOCKETS)
def test_calls(protocol: str) -> None:
    found = Outcome()
    for number in range(200):
        try:
            found.add(play(protocol, call(protocol, random.Random(f"0/{number}"), messages=20)))
        except Failure as failure:
            pytest.fail(f"scripts/fuzz.py --dialect {protocol} --seed 0 --call {number}: {failure}")
    kinds = {
        "realtime": realtime_events.EVENT_TYPES,
        "live": live_events.EVENT_TYPES,
        "translation": translation.TYPES,
    }[protocol]
    assert found.messages > 3500
    assert len(found.answers) > len(kinds), "the calls go nowhere"
    assert found.answers["error"] < 0.9 * sum(found.answers.values())


@drawn(100)
@given(DRAWN, st.sampled_from(WEBSOCKETS), st.integers(1, 20))
def test_calls_that_hypothesis_draws(rng: random.Random, protocol: str, messages: int) -> None:
    play(protocol, call(protocol, rng, messages=messages))


@drawn(50)
@given(DRAWN, st.sampled_from(WEBSOCKETS))
def test_every_message_alone(rng: random.Random, protocol: str) -> None:
    """Before anything else, with nobody connected to an engine: each kind, legal and not."""
    line = Call(protocol)
    for _ in kinds_of(protocol):
        line.send(frames(protocol, rng))
    line.lives()


@pytest.mark.parametrize("protocol", sorted(DECODERS))
def test_bodies_of_requests(protocol: str) -> None:
    found = Outcome()
    for number in range(700):
        found.add(decode(protocol, frames(protocol, random.Random(f"0/{number}"))))
    assert found.answers["taken"] > 20


@drawn(100)
@given(DRAWN, st.sampled_from(sorted(DECODERS)))
def test_bodies_that_hypothesis_draws(rng: random.Random, protocol: str) -> None:
    decode(protocol, frames(protocol, rng))


# --- the grammar itself -------------------------------------------------------------------------------------------


def test_every_client_event_is_made_and_most_of_them_are_legal() -> None:
    """A grammar that makes nonsense only would prove nothing."""
    for protocol in WEBSOCKETS:
        grammar = Grammar(protocol, random.Random(3))
        tags = {kind.tag for kind in kinds_of(protocol)}
        made = [json.loads(grammar.message(fault=0.0)) for _ in range(800)]
        assert {message["type"] for message in made} == tags
    taken = Outcome()
    for number in range(300):
        line = Call("realtime")
        line.send(Grammar("realtime", random.Random(number)).message(fault=0.0))
        taken.add(line.outcome)
    refused = (
        taken.codes["invalid_value"] + taken.codes["invalid_json"] + taken.codes["missing_required_parameter"]
    )
    assert refused < 0.35 * 300


def test_a_seed_makes_the_call_again() -> None:
    for protocol in WEBSOCKETS:
        first, second = (call(protocol, random.Random("7/1"), messages=20) for _ in range(2))
        assert first == second
    assert set(PROTOCOLS) == {*WEBSOCKETS, *DECODERS}


# --- time and memory ----------------------------------------------------------------------------------------------

MIB = 1 << 20
HUGE = {
    "brackets": "[" * MIB,
    "objects": '{"a":' * (MIB // 6),
    "wide": '{"type": "session.update", "session": {"tools": [' + "{}," * (MIB // 4) + "{}]}}",
    "half characters": '{"type": "session.update", "session": {"instructions": "'
    + "\\ud83d" * (MIB // 7)
    + '"}}',
    "whole characters": '{"type": "session.update", "session": {"instructions": "'
    + "\\ud83d\\ude00" * (MIB // 13)
    + '"}}',
    "backslashes": '{"type": "' + "\\\\" * (MIB // 2) + '"}',
    "one text": '{"type": "' + "x" * MIB + '"}',
    "one number": '{"type": "response.cancel", "event_id": ' + "9" * MIB + "}",
    "base64": '{"type": "input_audio_buffer.append", "audio": "' + "A" * (MIB - 104) + '"}',
    "base64 of nothing": '{"type": "input_audio_buffer.append", "audio": "' + "@" * (MIB - 100) + '"}',
    "keys": "{" + ",".join(f'"k{n}": 0' for n in range(80_000)) + "}",
    "values": '{"type": "session.update", "session": {"tools": [{"type": "function", "name": "t", "parameters": {"x": ['
    + ",".join(["1e5"] * (MIB // 5))
    + "]}}]}}",
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("protocol", WEBSOCKETS)
def test_a_megabyte_of_anything_takes_bounded_memory_and_time(protocol: str, name: str) -> None:
    """About ten times its size: R19. `Call.send` watches the time."""
    line = Call(protocol)
    line.send(HUGE[name])  # what is made once is made
    line.patience_s = 60.0
    tracemalloc.start()  # everything takes longer from here on
    try:
        line.send(HUGE[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15 * len(HUGE[name])
    line.lives()


def test_bytes_are_refused_whatever_they_are() -> None:
    for protocol in WEBSOCKETS:
        line = Call(protocol)
        rng = random.Random(19)
        for size in (0, 1, 100, 5000):
            (answer,) = line.send(rng.randbytes(size))
            assert answer["error"]["code"] == "invalid_message"
        line.lives()


@pytest.mark.parametrize("protocol", WEBSOCKETS)
def test_what_is_no_object_is_refused(protocol: str) -> None:
    line = Call(protocol)
    for frame in NASTY:
        assert line.send(frame)[-1]["type"] == "error"
    line.lives()


# --- the codes ----------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "voice_replaced",  # of the event `info`
    "fake_fault",
    "tool_error",  # of a result, for the model
}
ENGINE_CODES = {
    "odd_audio_length", "engine_error", "overloaded", "speech_full", "unreadable_audio", "unsupported_format",
    "audio_too_short", "audio_too_long", "audio_silent", "not_finite",
}  # fmt: skip
"""Codes of lower layers that reach a client; other words of theirs are for the operator, or told by `response.done`."""


def codes_in_source() -> dict[str, str]:
    """The codes that wire, server, tools and core can send, each with a place where it is written."""
    found: dict[str, str] = {}
    for part in ("wire", "server", "tools", "core"):
        for path in sorted(set((PACKAGE / part).glob("*.py")) - {PACKAGE / "core" / "journal.py"}):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    for code in _codes_of(node):
                        found[code] = f"{part}/{path.name}:{node.lineno}"
                if isinstance(node, ast.Assign | ast.AnnAssign) and "default_code" in ast.unparse(node):
                    found[str(ast.literal_eval(node.value))] = f"{part}/{path.name}:{node.lineno}"  # type: ignore[arg-type]
    return {code: place for code, place in found.items() if code not in ELSEWHERE}


def _codes_of(node: ast.Call) -> list[str]:
    """The texts that a call gives as `code`, or first to the core's errors."""
    if ast.unparse(node.func) == "ConfigError":
        return []  # for the operator
    given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
    if (
        ast.unparse(node.func) in ("notices.Error", "notices.TurnError", "TurnError", "_unknown", "_error")
        and node.args
    ):
        given.append(node.args[0])
    constants = [part for value in given for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return [
        part.value
        for part in constants
        if isinstance(part.value, str) and re.fullmatch("[a-z_0-9]+", part.value)
    ]


def test_every_code_that_can_be_sent_is_documented() -> None:
    unknown = {code: place for code, place in codes_in_source().items() if code not in LIVE_CODES}
    assert not unknown, "add them to the tables of PROTOCOL.md or LIVE.md"


def test_every_documented_code_can_be_sent() -> None:
    gone = LIVE_CODES - set(codes_in_source()) - ENGINE_CODES
    assert not gone, "these are in the tables of PROTOCOL.md or LIVE.md, and nothing sends them"


def test_a_page_lists_codes_of_its_own_protocol_only() -> None:
    """What only Live sends is not in PROTOCOL.md."""
    live = {code for code, place in codes_in_source().items() if re.match(r"wire/live", place)}
    assert not (live & PROTOCOL_CODES) - documented("PROTOCOL.md")
    assert "session_not_started" not in PROTOCOL_CODES
