"""Conversation items between the Realtime protocol's JSON and the core's history types."""

from __future__ import annotations

import binascii
from typing import Any, assert_never

from voiceagent.audio import pcm
from voiceagent.audio.resample import resample
from voiceagent.core.events import Usage
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.core.notices import TurnError
from voiceagent.units import MODEL_RATE, VOICE_RATE
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_decode import invalid_base64

MAX_TEXT = 64 * 1024  #: characters of an item, all of its parts together
REASONS = ("turn_detected", "client_cancelled", "max_output_tokens")
"""Reasons that the protocol has a name for."""


def from_wire(given: ev.ItemParam, *, param: str = "item") -> Item:
    """A client's item as the core keeps it; without an id of its own the core gives it one.

    Args:
        given: the item.
        param: where it stands in the request, for errors.

    Raises:
        WireError: an item or content type that we do not have, or a missing field; `param` names it.
        InputError: audio that is not a whole number of samples.
    """
    item_id = given.id or ""
    if given.type == "message":
        return _message(given, item_id, param)
    if given.type == "function_call":
        call_id, name = needed(given.call_id, f"{param}.call_id"), needed(given.name, f"{param}.name")
        return ToolCallItem(item_id, call_id, name, given.arguments or "{}")
    if given.type == "function_call_output":
        return ToolResultItem(item_id, needed(given.call_id, f"{param}.call_id"), given.output or "")
    raise WireError(
        f"Items of type {given.type!r} are not supported.",
        code="unsupported_item",
        param=f"{param}.type",
        remedy="Use message, function_call or function_call_output.",
    )


def _message(given: ev.ItemParam, item_id: str, param: str) -> Item:
    parts = given.content or []
    written = sum(len(part.text or part.transcript or "") for part in parts)
    if written > MAX_TEXT:
        raise WireError(
            f"The item has {written} characters, and may have {MAX_TEXT}.",
            code="invalid_value",
            param=f"{param}.content",
            remedy="Make several items of it.",
        )
    if given.role == "user":
        content = tuple(_user_part(part, f"{param}.content[{i}]") for i, part in enumerate(parts))
        return UserItem(item_id, content)
    text = " ".join(part.text or part.transcript or "" for part in parts)
    if given.role == "system":
        return SystemItem(item_id, text)
    if given.role == "assistant":
        return AssistantItem(item_id, text)
    raise WireError(
        f"Unknown role {given.role!r}.", param=f"{param}.role", remedy="Use user, system or assistant."
    )


def _user_part(part: ev.ContentPart, where: str) -> TextContent | AudioContent:
    if part.type == "input_text":
        return TextContent(needed(part.text, f"{where}.text"))
    if part.type != "input_audio":
        raise WireError(
            f"Content of type {part.type!r} is not supported.",
            code="unsupported_content",
            param=f"{where}.type",
            remedy="Use input_text or input_audio.",
        )
    raw = from_base64(needed(part.audio, f"{where}.audio"), param=f"{where}.audio")
    samples = resample(pcm.s16_to_float(raw), source=VOICE_RATE, target=MODEL_RATE)
    if not len(samples):
        raise WireError("The audio is empty.", code="empty_audio", param=f"{where}.audio")
    return AudioContent((Piece(0, samples),), part.transcript)  # the core cuts and numbers it


def needed(value: str | None, param: str) -> str:
    """The value; WireError if it is not there."""
    if value is None:
        raise WireError(f"{param} is missing.", code="missing_required_parameter", param=param)
    return value


def from_base64(text: str, *, param: str) -> bytes:
    """Strict base64, for the lax one ignores junk and turns it into noise; WireError if it is not."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is one
        raise invalid_base64(param) from error


def to_wire(item: Item, *, status: str | None = None) -> dict[str, Any]:
    """An item as the client sees it, without its sound.

    Without a `status` it is completed, or incomplete if it is a reply that was cut.
    """
    if status is None:
        cut = isinstance(item, AssistantItem) and not item.complete
        status = "incomplete" if cut else "completed"
    base: dict[str, Any] = {"id": item.id, "object": "realtime.item", "status": status}
    match item:
        case SystemItem(_, text):
            return {
                **base,
                "type": "message",
                "role": "system",
                "content": [{"type": "input_text", "text": text}],
            }
        case UserItem(_, content):
            return {**base, "type": "message", "role": "user", "content": [*map(_show_user_part, content)]}
        case AssistantItem():
            kind = "output_audio" if item.spoken else "output_text"
            part: dict[str, Any] = {"type": kind, "transcript" if item.spoken else "text": item.text}
            filled = bool(item.text) or status != "in_progress"
            return {**base, "type": "message", "role": "assistant", "content": [part] if filled else []}
        case ToolCallItem(item_id, call_id, name, arguments):
            return show_call(item_id, call_id, name, arguments, status=status)
        case ToolResultItem(_, call_id, output):
            return {**base, "type": "function_call_output", "call_id": call_id, "output": output}
        case _:
            assert_never(item)


def _show_user_part(part: TextContent | AudioContent) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "input_text", "text": part.text}
    # `transcript` must be present even when null: a stock client fails without the key.
    return {"type": "input_audio", "transcript": part.transcript}


def show_call(item_id: str, call_id: str, name: str, arguments: str, *, status: str) -> dict[str, Any]:
    """A function call item."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def audio_seconds(item: Item) -> float:
    """Seconds of user audio in an item."""
    if not isinstance(item, UserItem):
        return 0.0
    parts = [p for p in item.content if isinstance(p, AudioContent)]
    return sum(len(piece.audio) for part in parts for piece in part.pieces) / MODEL_RATE


def usage(given: Usage | None) -> dict[str, Any] | None:
    """Token counts as the protocol shows them; None if the engine did not get to say."""
    if given is None:
        return None
    return {
        "total_tokens": given.input_text + given.input_audio + given.output_text + given.output_audio,
        "input_tokens": given.input_text + given.input_audio,
        "output_tokens": given.output_text + given.output_audio,
        "input_token_details": {
            "text_tokens": given.input_text,
            "audio_tokens": given.input_audio,
            "image_tokens": 0,
            "cached_tokens": given.input_cached,
            "cached_tokens_details": {
                "text_tokens": given.input_cached - given.input_cached_audio,
                "audio_tokens": given.input_cached_audio,
                "image_tokens": 0,
            },
        },
        "output_token_details": {
            "text_tokens": given.output_text,
            "audio_tokens": given.output_audio,
            # Ours; of `text_tokens`, and only for those who asked for thoughts.
            **({"reasoning_tokens": given.output_thought} if given.output_thought else {}),
        },
    }


def status_details(status: str, reason: str | None, error: TurnError | None) -> dict[str, Any] | None:
    """Why a response ended otherwise than whole."""
    if status == "completed":
        return None
    if error is not None:
        return {
            "type": status,
            "error": {"type": "server_error", "code": error.code, "message": error.message},
        }
    return {"type": status, "reason": reason} if reason in REASONS else {"type": status}
