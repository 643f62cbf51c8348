"""What happened to a call, as lines of JSON that can be read back: the flight recorder's notes. It opens no file.

A line is a time and an event, or what the controller was made with. The sound of the call is not in them, only how much
of it there was, except for sound that a client put into the conversation.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from voiceagent.core import events, history
from voiceagent.core import options as opt
from voiceagent.errors import InputError

VERSION = 1
_KIND = "$"
_TYPES = {
    name: kind
    for module in (history, opt, events)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and is_dataclass(kind)
}
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int16": np.dtype("<i2")}


@dataclass(frozen=True, slots=True)
class Opened:
    """How the call began: what its controller was made with."""

    config: opt.SessionConfig
    id_prefix: str
    audio_budget: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, and when it was handled (seconds on the clock of the call); None = only time had passed."""

    time: float
    event: events.Event | None


def first_line(opened: Opened) -> str:
    """The line that a journal begins with."""
    return json.dumps({"version": VERSION, **_fields(opened)})


def line(entry: Entry) -> str:
    """The line of an event."""
    event = entry.event
    if event is None:
        return json.dumps({"time": entry.time})
    sound = {}
    if isinstance(event, events.AudioIn | events.AudioOut):  # it is in the file of the call's sound
        sound = {"pcm": {_KIND: str(event.pcm.dtype), "samples": len(event.pcm)}}
    return json.dumps({"time": entry.time, "event": {**_encode(event, but=tuple(sound)), **sound}})


def read(lines: Iterable[str]) -> tuple[Opened, list[Entry]]:
    """What was written; the samples of the call's own sound come back as zeros.

    A last line that was not written whole is passed over: the recorder died there.

    Raises:
        InputError: it is no journal, or of another version; `param` is the line's number.
    """
    opened: Opened | None = None
    entries: list[Entry] = []
    for number, (text, last) in enumerate(_marked(lines), start=1):
        try:
            found = json.loads(text)
            if opened is None:
                if found.pop("version") != VERSION:
                    raise ValueError(f"a journal of another version than {VERSION}")
                opened = Opened(**{name: _decode(value) for name, value in found.items()})
            else:
                entries.append(Entry(float(found["time"]), _decode(found.get("event"))))
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            if last and opened is not None:
                break
            raise InputError(
                f"Line {number} is not of a call's journal: {cause}.", code="bad_journal", param=str(number)
            ) from cause
    if opened is None:
        raise InputError("The journal is empty.", code="bad_journal", param="1")
    return opened, entries


def _marked(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is the last."""
    before: str | None = None
    for text in lines:
        if before is not None:
            yield before, False
        before = text
    if before is not None:
        yield before, True


def _fields(value: Any, but: tuple[str, ...] = ()) -> dict[str, Any]:
    return {f.name: _encode(getattr(value, f.name)) for f in fields(value) if f.name not in but}


def _encode(value: Any, but: tuple[str, ...] = ()) -> Any:
    if is_dataclass(value):
        return {_KIND: type(value).__name__, **_fields(value, but)}
    if isinstance(value, np.ndarray):
        raw = value.astype(_DTYPES[str(value.dtype)]).tobytes()
        return {_KIND: str(value.dtype), "base64": base64.b64encode(raw).decode()}
    if isinstance(value, Mapping):
        return {_KIND: "json", "value": dict(value)}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind == "json":
        return value["value"]
    if kind in _DTYPES:
        return _samples(value, _DTYPES[kind])
    return _TYPES[kind](**{name: _decode(item) for name, item in value.items() if name != _KIND})


def _samples(value: dict[str, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if "samples" in value:
        return np.zeros(int(value["samples"]), dtype)
    return np.frombuffer(base64.b64decode(value["base64"], validate=True), dtype)
