"""Server events as JSON text, each with an id of its own; it knows no event by name."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes the events of one connection; their ids count from 1 behind `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0

    def event(self, name: str, /, **fields: Any) -> str:
        """One server event, ASCII only."""
        self._count += 1
        return json.dumps({"type": name, "event_id": f"event_{self._prefix}_{self._count}", **fields})

    def sound(self, name: str, raw: bytes, /, **fields: Any) -> str:
        """A server event whose `delta` is audio, in base64. The other fields have to be ASCII, or the event is not."""
        self._count += 1
        event_id = f"event_{self._prefix}_{self._count}"
        return _encode({"type": name, "event_id": event_id, **fields, "delta": raw}).decode()

    def large(self, name: str, /, **fields: Any) -> str:
        """As `event`, but as fast as it goes: bytes in the fields become base64, and texts stay as they are."""
        self._count += 1
        event_id = f"event_{self._prefix}_{self._count}"
        return _encode({"type": name, "event_id": event_id, **fields}).decode()
