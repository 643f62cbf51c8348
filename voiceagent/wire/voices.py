"""Shapes of the voices that clients bring: their names, and how they are shown. No sockets, no audio."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from voiceagent.wire.dialect import WireError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_CONSENT = 2048  #: characters


@dataclass(frozen=True, slots=True)
class CustomVoice:
    """A voice that a client brought.

    Attributes:
        name: what others ask for.
        created_at: seconds since 1970.
        seconds: length of its recording.
        consent: how the person whose voice it is agreed; what the client said, empty if nothing.
        persistent: it outlives the server.
    """

    name: str
    created_at: int
    seconds: float
    consent: str = ""
    persistent: bool = False


def checked_name(name: str) -> str:
    """The name, if a voice may have it; WireError if not."""
    if not NAME.fullmatch(name):
        raise WireError(
            f"{name[:64]!r} cannot be the name of a voice.",
            code="invalid_value",
            param="name",
            remedy="Use up to 64 letters, digits, dots, dashes and underscores, the first a letter or a digit.",
        )
    return name


def show(voice: CustomVoice | str) -> dict[str, Any]:
    """A voice as REST lists it; one of the model's own is only a name."""
    if isinstance(voice, str):
        return {"id": voice, "object": "voice", "name": voice, "custom": False}
    return {
        "id": voice.name,
        "object": "voice",
        "name": voice.name,
        "custom": True,
        "created_at": voice.created_at,
        "seconds": round(voice.seconds, 2),
        "consent": voice.consent,
        "persistent": voice.persistent,
    }
