"""What values of the Realtime session mean to the core, and how a few of the core's look there; it holds no session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voiceagent.core.dictation import Dictation
from voiceagent.core.history import Item
from voiceagent.core.options import Condensing, ItemReference, ServerVad, Truncation
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.codecs import RATES
from voiceagent.wire.dialect import WireError
from voiceagent.wire.dictation import dictation

# semantic_vad, while the model has not said whether the person has finished.
EAGERNESS_SILENCE_MS = {"low": 1200, "medium": 700, "high": 400, "auto": 700}


def show_format(given: ev.Format, *, param: str) -> dict[str, Any]:
    """A checked audio format as the session shows it."""
    rate = RATES[given.type]
    if given.rate not in (None, rate):
        raise WireError(
            f"{given.type} at {given.rate} Hz is not supported.",
            code="unsupported_rate",
            param=f"{param}.rate",
            remedy=f"Send and expect {rate} Hz, or leave the rate out.",
        )
    return shown_format(given.type)


def shown_format(kind: str) -> dict[str, Any]:
    """An audio format as the session shows it."""
    return {"type": kind, "rate": RATES[kind]} if kind == "audio/pcm" else {"type": kind}


def core_vad(shown: dict[str, Any] | None, base: ServerVad) -> ServerVad | None:
    """How turns are found; `base` says what semantic_vad has no word for."""
    if shown is None:
        return None
    if shown["type"] == "semantic_vad":
        return ServerVad(
            threshold=base.threshold,
            prefix_padding_ms=base.prefix_padding_ms,
            silence_duration_ms=EAGERNESS_SILENCE_MS[shown["eagerness"]],
            create_response=shown["create_response"],
            interrupt_response=shown["interrupt_response"],
            eagerness="medium" if shown["eagerness"] == "auto" else shown["eagerness"],
        )
    return ServerVad(**{k: v for k, v in shown.items() if k != "type"})


def input_item(index: int, given: ev.ItemParam) -> Item | ItemReference:
    """An item of `response.input`."""
    where = f"response.input[{index}]"
    if given.type == "item_reference":
        return ItemReference(items.needed(given.id, f"{where}.id"))
    return items.from_wire(given, param=where)


def core_choice(given: ev.ToolChoice, *, param: str) -> str:
    """auto, none, required, or the name of the function."""
    if isinstance(given, str):
        return given
    return items.needed(given.name, f"{param}.name")


def core_dictation(shown: Mapping[str, Any]) -> Dictation:
    """WireError if its language is not known."""
    asked = shown["audio"]["input"]["transcription"] or {}
    where = "session.audio.input.transcription."
    scores = "item.input_audio_transcription.logprobs" in (shown["include"] or ())
    return dictation(asked.get("language"), asked.get("prompt"), scores=scores, param=where)


def core_truncation(shown: str | dict[str, Any]) -> Truncation:
    """What is left out of a conversation that is too long."""
    if isinstance(shown, dict):
        limits = shown.get("token_limits") or {}
        return Truncation(shown["retention_ratio"], limits.get("post_instructions"))
    return Truncation() if shown == "auto" else Truncation(ratio=None)


def show_context(condensing: Condensing) -> dict[str, Any]:
    """What the model reads of old turns, as the session shows it."""
    return {"audio": condensing.audio, "summary": condensing.summary}


def core_limit(shown: int | str) -> int | None:
    """Tokens of a response; None for "inf"."""
    return None if isinstance(shown, str) else shown
