"""What every wire dialect has in common: how bytes become events, how actions become frames, and how input is refused.

A dialect holds connection-level bookkeeping only (ids, sequence numbers, formats). The controller holds the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from voiceagent.core.actions import Action
from voiceagent.core.events import Event
from voiceagent.errors import InputError, VoiceAgentError

SERVER_ERRORS = ("internal_error", "engine_error", "engine_down", "overloaded")
"""Codes of errors that are not the client's."""
EXPIRED = "session limit reached"
"""Reason of a hang-up because a call may last no longer."""


class WireError(VoiceAgentError):
    """Input that the protocol does not allow; the only exception that `Dialect.receive` may raise.

    Attributes:
        event_id: the offending client event's id, echoed so that clients can match the error to their request.
        fatal: the connection cannot go on.
    """

    default_code = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        event_id: str | None = None,
        remedy: str = "",
        fatal: bool = False,
    ) -> None:
        super().__init__(message, code=code, remedy=remedy, param=param)
        self.event_id = event_id
        self.fatal = fatal


def refused(error: InputError, event_id: str | None) -> WireError:
    """What is wrong with a message's audio, unless it says what else, as the protocol's error."""
    return WireError(
        error.message, code=error.code, param=error.param or "audio", event_id=event_id, remedy=error.remedy
    )


def error_type(code: str) -> str:
    """Whose error it is, in the protocols' words."""
    return "server_error" if code in SERVER_ERRORS else "invalid_request_error"


def error_body(code: str, message: str, *, param: str | None, event_id: str | None) -> dict[str, Any]:
    """The object in an `error` event of the Realtime protocol."""
    return {"type": error_type(code), "code": code, "message": message, "param": param, "event_id": event_id}


@dataclass(frozen=True, slots=True)
class Reply:
    """A frame that the dialect answers by itself, without the controller; sent in order with the rest."""

    frame: str | bytes


@dataclass(frozen=True, slots=True)
class Slow:
    """A text frame that takes long to make: its parts, each the work of about a millisecond, are made one by one."""

    parts: Iterator[str]


@dataclass(frozen=True, slots=True)
class CreateVoice:
    """A Realtime session asks for a voice of its own: of a sound file, or of what a person said in an item."""

    name: str
    audio: bytes
    item_id: str | None
    event_id: str | None


@dataclass(frozen=True, slots=True)
class DeleteVoice:
    """A Realtime session gives a voice of its own up."""

    name: str
    event_id: str | None


VoiceRequest = CreateVoice | DeleteVoice


@dataclass(frozen=True, slots=True)
class ConnectTools:
    """A Realtime session names a tool server of its own."""

    label: str
    url: str
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DropTools:
    """A Realtime session gives a tool server of its own up."""

    label: str


ToolsRequest = ConnectTools | DropTools


class Dialect(Protocol):
    """One protocol on one connection; pure: bytes and actions in, events and frames out."""

    def open(self) -> Iterable[str | bytes]:
        """Frames to send as soon as the connection is up."""
        ...

    def receive(self, frame: str | bytes) -> Iterable[Event | Reply | VoiceRequest | ToolsRequest]:
        """Events, direct replies and requests for one frame from the peer; raises WireError only."""
        ...

    def render(self, action: Action) -> Iterable[str | bytes | Slow]:
        """Frames that tell the peer of one action; none if the action is not the peer's business."""
        ...

    def render_error(self, error: VoiceAgentError) -> str | bytes:
        """The protocol's error frame."""
        ...
