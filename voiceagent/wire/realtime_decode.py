"""Realtime client messages from text to structs, and every way in which that text can be wrong.

It knows shapes, not meanings. What it lets through can be copied, shown again and encoded without further care: no
lone surrogates, no numbers without end, nothing nested so deep that a recursive function would give up.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from typing import TypeVar

import msgspec

from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError

T = TypeVar("T")

MAX_DEPTH = 64
MAX_BRACKETS = 50_000
"""Opening brackets and braces in one message: what bounds the time that its decoding takes."""
MAX_ECHO = 200  #: characters of a message that an error about it repeats
MAX_HALVES = 1_000  #: half characters that are mended in one message: a text that was cut has one

_HEX = "[0-9a-fA-F]"
_SURROGATE = re.compile(rf"\\u[dD][89a-fA-F]{_HEX}{{2}}")
# Text without half characters, as far as it goes: anything else, whole pairs, other escapes. It never goes back, so
# that the time is proportional to the text whatever it is.
_WHOLE = re.compile(
    r"(?:[^\\]++|\\(?:[^u]|u(?:"
    rf"[dD][89abAB]{_HEX}{{2}}\\u[dD][c-fC-F]{_HEX}{{2}}|(?![dD][89a-fA-F]){_HEX}{{4}})))*+",
    re.DOTALL,
)


class _Head(msgspec.Struct):
    """What an error answer needs, read before the message is checked."""

    type: str = ""
    event_id: ev.Id | None = None


_head = msgspec.json.Decoder(_Head)
_message = msgspec.json.Decoder(ev.AnyClientEvent)


def decode(frame: str | bytes) -> ev.AnyClientEvent:
    """One client message of the Realtime protocol; raises WireError like `decode_message`."""
    message: ev.AnyClientEvent = decode_message(frame, _message, ev.EVENT_TYPES)
    return message


def decode_message(frame: str | bytes, decoder: msgspec.json.Decoder[T], types: Collection[str]) -> T:
    """One client message.

    Args:
        frame: as it came.
        decoder: decodes to the protocol's union of messages.
        types: the `type`s of that union.

    Raises:
        WireError: it is not one; carries the message's `event_id` as far as that can be read, and `param`.
    """
    if isinstance(frame, bytes):
        raise WireError(
            "Binary frames are not part of this protocol.", code="invalid_message", remedy="Send JSON text."
        )
    try:
        if "\\" in frame:
            frame = whole_characters(frame)
        if "[" in frame or frame.find("{", 1) > 0:  # else it is a flat object, as nearly every message
            _check_nesting(frame)
        return decoder.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError, WireError):
        return _examine(frame, decoder, types)


def _examine(frame: str, decoder: msgspec.json.Decoder[T], types: Collection[str]) -> T:
    """Decodes step by step, to find out what is wrong with a message; only those that fail need so much care."""
    event_id = None
    try:
        frame = whole_characters(frame)
        head = _head.decode(frame)
        event_id = head.event_id
        if head.type not in types:
            raise _unknown_type(head, types)
        _check_nesting(frame)
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise invalid_value(str(error), event_id) from error
    except RecursionError as error:
        raise _too_deep(event_id) from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise WireError(
            f"The message is not valid JSON: {error}.",
            code="invalid_json",
            event_id=event_id,
            remedy="Send one JSON object.",
        ) from error
    except WireError as error:
        error.event_id = event_id
        raise


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON body of a plain request.

    Raises:
        WireError: it is not JSON, or a field cannot be met; `param` names it.
    """
    try:
        return decoder.decode(whole_characters(body.decode()))
    except msgspec.ValidationError as error:
        raise invalid_value(str(error), None) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError(
            f"The body is not valid JSON: {error}.", code="invalid_json", remedy="Send one JSON object."
        ) from error


def whole_characters(frame: str) -> str:
    """The text with U+FFFD for every half of a character: a text that was cut in an emoji must not fail a session.

    Raises:
        WireError: there are so many that nobody cut them.
    """
    if "\\" not in frame or _SURROGATE.search(frame) is None:
        return frame
    parts: list[str] = []
    at = 0
    while at < len(frame):
        if len(parts) > 2 * MAX_HALVES:
            raise WireError(f"The text has more than {MAX_HALVES} halves of characters.", code="invalid_json")
        run = _WHOLE.match(frame, at)
        end = at if run is None else run.end()
        parts.append(frame[at:end])
        half = _SURROGATE.match(frame, end)
        if half is None:  # the end, or an escape that no decoder takes
            parts.append(frame[end:])
            break
        parts.append("\\ufffd")
        at = half.end()
    return "".join(parts)


def _unknown_type(head: _Head, types: Collection[str]) -> WireError:
    if not head.type:
        return WireError(
            "The message has no type.",
            code="missing_required_parameter",
            param="type",
            remedy=f'Send an object with a "type", such as "{min(types)}".',
        )
    known = difflib.get_close_matches(head.type[:64], types, n=1)
    remedy = f"Did you mean {known[0]!r}?" if known else f"Known are {', '.join(sorted(types))}."
    return WireError(
        f"Unknown event type {head.type[:64]!r}.", code="unknown_event_type", param="type", remedy=remedy
    )


def _check_nesting(frame: str) -> None:
    brackets = frame.count("{") + frame.count("[")
    if brackets <= MAX_DEPTH:
        return
    if brackets > MAX_BRACKETS:
        raise WireError(
            f"The message has {brackets} objects and arrays.",
            code="message_too_complex",
            remedy=f"Send at most {MAX_BRACKETS} in one message.",
        )
    level = [msgspec.json.decode(frame)]
    for _ in range(MAX_DEPTH):
        values = (value for node in level for value in (node.values() if isinstance(node, dict) else node))
        level = [value for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _too_deep(None)


def _too_deep(event_id: str | None) -> WireError:
    return WireError(
        f"The message is nested deeper than {MAX_DEPTH} levels.",
        code="message_too_deep",
        event_id=event_id,
        remedy="Send flatter JSON.",
    )


def invalid_base64(param: str, *, event_id: str | None = None) -> WireError:
    """The error for audio in a field that is not base64."""
    return WireError(
        "The audio is not valid base64.",
        code="invalid_base64",
        param=param,
        event_id=event_id,
        remedy="Use standard base64 with padding.",
    )


def invalid_value(text: str, event_id: str | None) -> WireError:
    """The error for the decoder's text, such as "Expected `str`, got `int` - at `$.session.tools[0].name`"."""
    what, _, path = text.rpartition(" - at ")
    if not what:
        what, path = text, ""
    if len(what) > MAX_ECHO:  # a decoder names the wrong value, which may be the whole message
        what = what[:MAX_ECHO] + "..."
    param = path.strip("`").removeprefix("$").removeprefix(".") or None
    if what == "Invalid base64 encoded string":
        return invalid_base64(param or "audio", event_id=event_id)
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing is not None:
        param = f"{param}.{missing[1]}" if param else missing[1]
        return WireError(
            f"{param} is missing.", code="missing_required_parameter", param=param, event_id=event_id
        )
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    if unknown is not None:
        param = f"{param}.{unknown[1][:64]}" if param else unknown[1][:64]
        return WireError(
            f"Unknown parameter: {param}.", code="unknown_parameter", param=param, event_id=event_id
        )
    where = f" for {param}" if param else ""
    return WireError(f"Invalid value{where}: {what}.", code="invalid_value", param=param, event_id=event_id)
