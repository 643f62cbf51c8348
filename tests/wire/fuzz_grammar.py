"""What a client may send, made from the message types themselves: legal, at the bounds, beyond them, and torn.

Everything is drawn from one `random.Random`, so that a seed makes a call again, and Hypothesis can drive it too.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec.inspect as mi

from voiceagent.wire import audio_rest, chat, live_events, realtime_events, realtime_secrets, translation

Step = tuple[str, Any]
"""("send", text or bytes), ("engine", what it does) or ("wait", seconds)."""

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.jsonl"))
GOLDEN_LINES = [
    re.sub(r"@\d+", "AAAA" * 1600, line[2:])
    for path in GOLDEN
    for line in path.read_text().splitlines()
    if line.startswith(">")
]
NASTY = (
    "NaN", "-Infinity", "1e999", "1e-999", "9" * 5000, "-1", "null", "true", "0.5", '""', '"\\ud800"', '"\\u0000"',
    "{}", "[]", "[{}]", "[" * 3000 + "]" * 3000, '{"a":' * 100 + "1" + "}" * 100, '"' + "x" * 70_000 + '"', '"@"',
    '"AAA="', '"root"', "", "9007199254740993", "-0.0", '"\U0001f600"', '{"type": "function"}', "2147483648",
)  # fmt: skip
WORDS = (
    "type", "event_id", "session", "audio", "input", "output", "format", "rate", "voice", "tools", "tool_choice",
    "item", "item_id", "content", "role", "text", "call_id", "name", "arguments", "response", "metadata", "id", "",
    "delegation", "model", "__class__", "\ud800",
)  # fmt: skip
IDS = ("item_0001", "item_0002", "item_0003", "item_0004", "root", "", "a", "b", "resp_call_1", "x" * 128)
ITEM_TYPES = ("message",) * 6 + (
    "function_call",
    "function_call_output",
    "item_reference",
    "mcp_call",
    "mcp_approval_response",
)
CONTENT_TYPES = (
    "input_text",
    "input_text",
    "input_audio",
    "text",
    "output_text",
    "output_audio",
    "input_image",
)


def sound(rng: random.Random) -> str:
    """Base64 of some audio, seldom an odd number of bytes or nothing."""
    size = rng.choice((0, 1, 2, 320, 960, 1920, 4800, 9600, 48_000))
    return base64.b64encode(bytes([rng.randrange(256)]) * size).decode()


HINTS: dict[str, Callable[[random.Random], Any]] = {
    "audio": sound,
    "data": sound,
    "ItemParam.type": lambda rng: rng.choice(ITEM_TYPES),
    "ItemParam.role": lambda rng: rng.choice(("user", "user", "system", "assistant", "king")),
    "ContentPart.type": lambda rng: rng.choice(CONTENT_TYPES),
    "Part.type": lambda rng: rng.choice(("text", "text", "input_audio", "image_url")),
    "Tool.type": lambda rng: rng.choice(("function", "function", "function", "mcp")),
    "server_label": lambda rng: rng.choice(("own", "own", "gone", "server", "bank")),
    "server_url": lambda rng: "https://tools.example.com/mcp",
    "connector_id": lambda rng: "",
    "tunnel_id": lambda rng: "",
    "approval_request_id": lambda rng: rng.choice(("mcpr_call_1", "mcpr_call_2", "none")),
    "ToolParam.type": lambda rng: rng.choice(("function", "function", "custom")),
    "id": lambda rng: rng.choice(IDS),
    "item_id": lambda rng: rng.choice(IDS),
    "response_id": lambda rng: f"resp_call_{rng.randrange(4)}",
    "previous_item_id": lambda rng: rng.choice(IDS),
    "delegation_id": lambda rng: rng.choice(("deleg_call_1", "deleg_call_2", "none")),
    "call_id": lambda rng: rng.choice(("call_1", "call_2", "call_3", "")),
    "voice": lambda rng: rng.choice(("anna", "bert", "nobody", "")),
}
"""Texts that may mean something at their place; the types only say that they are texts."""

INNER: dict[str, Any] = {
    "item": mi.UnionType((mi.type_info(live_events.Message), mi.type_info(live_events.FunctionOutput))),
    "ResponsesPatch.tools": mi.type_info(list[live_events.FunctionTool]),
    "SecretRequest.session": mi.type_info(realtime_events.SessionPatch),
}
"""What stands in fields whose types leave it open."""

PROTOCOLS: dict[str, Any] = {
    "realtime": realtime_events.AnyClientEvent,
    "live": live_events.AnyClientEvent,
    "translation": translation.AnyClientEvent,
    "chat": chat.ChatRequest,
    "speech": audio_rest.SpeechRequest,
    "secrets": realtime_secrets.SecretRequest,
}


@cache
def kinds_of(protocol: str) -> Sequence[Any]:
    """The message types of a protocol."""
    info = mi.type_info(PROTOCOLS[protocol])
    return info.types if isinstance(info, mi.UnionType) else (info,)


class Grammar:
    """Messages of one protocol."""

    def __init__(self, protocol: str, rng: random.Random) -> None:
        self.kinds = kinds_of(protocol)
        self._protocol = protocol
        self._rng = rng
        self._fault = 0.0  #: how often a value is not what it should be

    def message(self, *, fault: float | None = None) -> str:
        """The JSON text of one message; `fault` 0.0 is a legal one as far as its type tells."""
        rng = self._rng
        self._fault = rng.choice((0.0, 0.0, 0.02, 0.08, 0.3)) if fault is None else fault
        kind = rng.choice(self.kinds)
        if kind.tag == "session.close" and rng.random() < 0.9:  # the rest of the call would not be played
            kind = self.kinds[2]
        return _with_raw(self._struct(kind))

    def torn(self) -> str:
        """A message with a few edits in its text."""
        golden = self._protocol == "realtime" and self._rng.random() < 0.5
        return torn(self._rng.choice(GOLDEN_LINES) if golden else self.message(fault=0.0), self._rng)

    def _value(self, info: Any, name: str) -> Any:
        rng = self._rng
        if rng.random() < self._fault:
            return self._wild(2)
        if name in INNER and rng.random() < 0.9:
            info = INNER[name]
        match info:
            case mi.StructType():
                return self._struct(info)
            case mi.UnionType(types):
                plain = [t for t in types if not isinstance(t, mi.NoneType)]
                some = len(plain) == len(types) or rng.random() < 0.85
                return self._value(rng.choice(plain), name) if some else None
            case mi.LiteralType(values):
                return rng.choice(values)
            case mi.StrType():
                return self._text(info, name)
            case mi.BytesType():  # base64
                return self._text(mi.StrType(), name)
            case mi.IntType() | mi.FloatType():
                return self._number(info)
            case mi.BoolType():
                return rng.random() < 0.5
            case mi.NoneType():
                return None
            case mi.ListType(item_type):
                least, most = info.min_length or 0, min(info.max_length or 3, 3)
                return [self._value(item_type, f"{name}[]") for _ in range(rng.randint(least, most))]
            case mi.DictType(key_type, value_type):
                keys = [self._value(key_type, "") for _ in range(rng.randint(0, 2))]
                return {str(key): self._value(value_type, "") for key in keys}
            case _:
                return self._wild(3)

    def _struct(self, info: mi.StructType) -> dict[str, Any]:
        rng = self._rng
        made: dict[str, Any] = {} if info.tag is None else {str(info.tag_field): info.tag}
        for field in info.fields:
            there = rng.random() > self._fault if field.required else rng.random() < 0.35
            if there:
                full = f"{info.cls.__name__}.{field.encode_name}"
                name = full if full in HINTS or full in INNER else field.encode_name
                made[field.encode_name] = self._value(field.type, name)
        if rng.random() < self._fault:
            made[rng.choice(WORDS)] = self._wild(2)
        return made

    def _text(self, info: mi.StrType, name: str) -> str:
        rng = self._rng
        if name in HINTS and rng.random() < 0.9:
            return str(HINTS[name](rng))
        most = info.max_length or 100
        length = rng.choice((info.min_length or 0, 1, 5, 20))
        if rng.random() < 0.02:
            length = most + rng.choice((0, 0, 1))
        return (rng.choice(("word ", "é", "\U0001f600", "0", "\x00", "Hello. ")) * (length + 1))[:length]

    def _number(self, info: mi.IntType | mi.FloatType) -> float:
        rng = self._rng
        least = info.ge if info.ge is not None else (info.gt if info.gt is not None else -(2**40))
        most = info.le if info.le is not None else (info.lt if info.lt is not None else 2**40)
        value = rng.choice((least, most, least + 1, least + (most - least) / 2, least + 0.5))
        return int(value) if isinstance(info, mi.IntType) else value

    def _wild(self, depth: int) -> Any:
        """Anything: of the wrong type, too long, or no JSON at all (see `_with_raw`)."""
        rng = self._rng
        match rng.randrange(8):
            case 0 | 1:
                return f"@@raw{rng.randrange(len(NASTY))}@@"
            case 2:
                return rng.choice((None, True, False, 0, -1, 1, 2**63, 1e300, ""))
            case 3:
                return rng.choice((*IDS, *ITEM_TYPES, *CONTENT_TYPES))
            case 4 if depth:
                return [self._wild(depth - 1) for _ in range(rng.randrange(4))]
            case 5 if depth:
                return {rng.choice(WORDS): self._wild(depth - 1) for _ in range(rng.randrange(4))}
            case _:
                return rng.choice((sound(rng), "audio/pcm", "server_vad", "text", "auto", "inf", 16_000, 0.5))


def _with_raw(message: Any) -> str:
    """JSON text, the marks of `Grammar._wild` replaced by what stands for them."""
    return re.sub(r'"@@raw(\d+)@@"', lambda found: NASTY[int(found[1])], json.dumps(message))


def torn(text: str, rng: random.Random) -> str:
    """One or a few edits: characters flipped, cut, doubled, a value replaced, two messages mixed, two keys swapped."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((1, 2, 8, 40)))
        match rng.randrange(6):
            case 0:
                mark = rng.choice((0, 34, 92, 123, 125, 0xD800, 0x1F600, rng.randrange(128)))
                text = text[:start] + chr(mark) + text[end:]
            case 1:
                text = text[:start] + text[end:]
            case 2:
                text = text[:end] + text[start:end] + text[end:]
            case 3:
                colon = text.find(":", start)
                stops = [p for p in (text.find(",", colon), text.find("}", colon)) if p > 0]
                text = text[: colon + 1] + rng.choice(NASTY) + text[min(stops, default=len(text)) :]
            case 4:
                other = rng.choice(GOLDEN_LINES)
                text = text[:start] + other[rng.randrange(len(other)) :]
            case _:
                text = text.replace(rng.choice(WORDS[:-5]), rng.choice(WORDS), 1)
    return text


def frames(protocol: str, rng: random.Random) -> str | bytes:
    """One frame: mostly of the grammar, some torn, seldom bytes."""
    grammar = Grammar(protocol, rng)
    kind = rng.random()
    if kind < 0.6:
        return grammar.message()
    return grammar.torn() if kind < 0.97 else rng.randbytes(rng.choice((0, 1, 100, 5000)))


def call(protocol: str, rng: random.Random, *, messages: int) -> list[Step]:
    """A call of a WebSocket protocol: messages, and between them what an engine and a clock may do."""
    steps: list[Step] = []
    if protocol == "live" and rng.random() < 0.95:
        steps.append(("send", _start(rng)))
    while sum(kind == "send" for kind, _ in steps) < messages:
        steps.append(("send", frames(protocol, rng)))
        if rng.random() < 0.5:
            steps.append(("engine", _engine(rng)))
        if rng.random() < 0.2:
            steps.append(("wait", rng.choice((0.0, 0.02, 0.1, 0.6, 3.0))))
    return steps


def _engine(rng: random.Random) -> dict[str, Any]:
    does: tuple[dict[str, Any], ...] = (
        {"judge": 0.95}, {"judge": 0.95}, {"judge": 0.02}, {"judge": 0.02}, {"text": "Hi there. "}, {"audio": 2},
        {"audio": 25}, {"tool": "clock"}, {"end": "stop"}, {"end": "stop"}, {"end": "max_tokens"},
        {"fail": "engine_error"}, {"thought": "Well. "}, {"transcript": "I said so."}, {"down": 1}, {"up": 1},
    )  # fmt: skip
    return rng.choice(does)


def _start(rng: random.Random) -> str:
    """A session of the Live protocol that begins."""
    tool = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
    delegation: dict[str, Any] | None = rng.choice(
        (None, {"type": "client"}, {"type": "responses", "responses": {"model": "m", "tools": [tool]}})
    )
    session: dict[str, Any] = {"model": "m"} | ({} if delegation is None else {"delegation": delegation})
    return json.dumps({"type": "session.start", "event_id": "start", "session": session})
