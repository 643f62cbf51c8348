"""Splits a reply's token ids, one by one, into text, speech codes and tool calls.

It is pure: it knows the special ids and the bytes of a token, and nothing of how the ids came about.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from voiceagent.models.step_audio2.think import ThoughtReader
from voiceagent.models.step_audio2.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class ThinkDelta:
    """More of the thought before the reply; never to be said, nor kept."""

    text: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Whole characters of the reply's text, and the token ids that they came from."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SpeechCode:
    """One speech token, 0-based (0..6560), 40 ms of sound."""

    code: int


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A well-formed call; `arguments` is the JSON text of an object, as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class BrokenToolCall:
    """A call that cannot be made: the text between the tags, and what is wrong with it."""

    text: str
    problem: str


Part = ThinkDelta | TextDelta | SpeechCode | ToolCall | BrokenToolCall


class _Lane(Enum):
    THOUGHT = auto()  # before </think>
    SPEECH = auto()  # between <tts_start> and <tts_end>
    TEXT = auto()  # a reply in text mode
    CALL = auto()  # between <tool_call> and </tool_call>
    AFTER = auto()  # after <tts_end>, outside a call


class Splitter:
    """The parser of one reply. Feed it every generated id (also the forced ones), then call `finish` once.

    In speech mode ids decide what is what, not their place in the 1 : 4 pattern; pads and stray special tokens
    vanish, and so does what stands between `<tts_end>` and a tool call, because nobody would hear it.

    With `think` the ids begin with a thought. Once it is over (`thinking` is False) the ids of the reply itself follow;
    they are those of another generation, whose prompt holds the thought.
    """

    def __init__(self, tokenizer: TextTokenizer, *, spoken: bool, think: bool = False) -> None:
        self._tokenizer = tokenizer
        self._thought = ThoughtReader()
        self._home = _Lane.SPEECH if spoken else _Lane.TEXT
        self._lane = _Lane.THOUGHT if think else self._home
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: list[int] = []  # ids of a character that is not whole yet
        self._call: list[int] = []

    @property
    def thinking(self) -> bool:
        """Whether the next id belongs to the thought."""
        return self._lane is _Lane.THOUGHT

    @property
    def thought(self) -> str:
        """The thought, as it has to stand in the prompt of the reply."""
        return self._thought.text

    def close_thought(self) -> tuple[Part, ...]:
        """Ends a thought that did not end itself."""
        rest = self._thought.close()
        self._lane = self._home
        return (ThinkDelta(rest),) if rest else ()

    def feed(self, token: int) -> tuple[Part, ...]:
        """What this id completes: nothing, one part, or an unfinished character and the part that broke it."""
        match self._lane:
            case _Lane.THOUGHT:
                return self._feed_thought(token)
            case _Lane.SPEECH:
                return self._feed_speech(token)
            case _Lane.TEXT | _Lane.AFTER:
                return self._feed_text(token)
            case _Lane.CALL:
                return self._feed_call(token)
            case _:
                assert_never(self._lane)

    def finish(self) -> tuple[Part, ...]:
        """What was still waiting when the reply ended: half a character (as U+FFFD) or an unclosed call."""
        if self.thinking:
            return self.close_thought()
        parts = self._flush_text()
        if self._lane is _Lane.CALL:
            parts += (self._close_call(),)
        return parts

    def _feed_thought(self, token: int) -> tuple[Part, ...]:
        if not self._tokenizer.is_text(token):
            return ()
        text = self._thought.feed(self._tokenizer.token_bytes(token))
        if self._thought.closed:
            self._lane = self._home
        return (ThinkDelta(text),) if text else ()

    def _feed_speech(self, token: int) -> tuple[Part, ...]:
        ids = self._tokenizer.ids
        if ids.is_audio(token):
            return (SpeechCode(token - ids.audio_0),)
        if token == ids.tts_end:
            self._lane = self._home = _Lane.AFTER
            return self._flush_text()
        return self._text(token)

    def _feed_text(self, token: int) -> tuple[Part, ...]:
        if token == self._tokenizer.ids.tool_call:
            self._lane = _Lane.CALL
            return self._flush_text()
        return self._text(token) if self._lane is _Lane.TEXT else ()

    def _feed_call(self, token: int) -> tuple[Part, ...]:
        ids = self._tokenizer.ids
        if token == ids.tool_call_end:
            self._lane = self._home
            return (self._close_call(),)
        if token == ids.tool_call:  # the last call was never closed
            return (self._close_call(),)
        if self._tokenizer.is_text(token):
            self._call.append(token)
        return ()

    def _text(self, token: int) -> tuple[Part, ...]:
        if not self._tokenizer.is_text(token):
            return ()
        self._waiting.append(token)
        return self._delta(self._utf8.decode(self._tokenizer.token_bytes(token)))

    def _flush_text(self) -> tuple[Part, ...]:
        return self._delta(self._utf8.decode(b"", final=True))

    def _delta(self, text: str) -> tuple[Part, ...]:
        """A delta of `text`; its ids include those of a character that is still to come (it needs them)."""
        if not text:
            return ()
        delta = TextDelta(text, tuple(self._waiting))
        self._waiting.clear()
        return (delta,)

    def _close_call(self) -> ToolCall | BrokenToolCall:
        text = self._tokenizer.decode(self._call)
        self._call.clear()
        return parse_tool_call(text)


def parse_tool_call(text: str) -> ToolCall | BrokenToolCall:
    """Reads `function\\n{name}\\n{JSON object}`; never raises."""
    parts = text.split("\n", 2)
    if len(parts) != 3 or parts[0].strip() != "function":
        return BrokenToolCall(text, "it is not 'function', a name and the arguments on three lines")
    name, arguments = parts[1].strip(), parts[2].strip()
    if not name:
        return BrokenToolCall(text, "it names no function")
    try:
        value = json.loads(arguments, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return BrokenToolCall(text, f"its arguments are not JSON: {error}")
    if not isinstance(value, dict):
        return BrokenToolCall(text, "its arguments are not a JSON object")
    return ToolCall(name, arguments)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
