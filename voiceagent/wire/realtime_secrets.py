"""The request for an ephemeral key (`POST /v1/realtime/client_secrets`) and its answer; it makes no keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voiceagent.wire.realtime_decode import decode_body


class ExpiresAfter(msgspec.Struct):
    """How long the key opens sessions."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200)] = 600


class SecretRequest(msgspec.Struct):
    """What is asked for; the session object is checked when a dialect is begun with it."""

    expires_after: ExpiresAfter | None = None
    session: msgspec.Raw | UnsetType = UNSET


_request = msgspec.json.Decoder(SecretRequest)


def decode_request(body: bytes) -> tuple[int, str]:
    """The key's seconds to live, and the JSON text of its session object.

    Raises:
        WireError: it is not JSON, or a field cannot be met; `param` names it.
    """
    asked = decode_body(body or b"{}", _request)
    expires = asked.expires_after or ExpiresAfter()
    session = b"null" if asked.session is UNSET else bytes(asked.session)
    return expires.seconds, "{}" if session == b"null" else session.decode()


class _Typed(msgspec.Struct):
    """Of a session object, its type."""

    type: str | None = None


def type_of(session: str) -> str | None:
    """The type that a session object (JSON text) names; None if it names none, or is no session object."""
    try:
        return msgspec.json.decode(session, type=_Typed).type
    except (msgspec.DecodeError, UnicodeError):
        return None


def answer(value: str, expires_at: int, session: dict[str, Any]) -> dict[str, Any]:
    """The answer's JSON object; `session` as a dialect shows it."""
    return {"value": value, "expires_at": expires_at, "session": session}
