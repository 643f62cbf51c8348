"""What a conversation's server messages mean, as small typed events. Knows the Realtime wire, and no socket."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voiceagent.audio import pcm

Raw = dict[str, Any]  #: a server message as it came


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The person began to speak, `at_ms` into what was sent."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The person stopped, `at_ms` into what was sent; an answer follows unless turns are manual."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What the person said; if it is told in pieces, the last of the same `item_id` is `final` and holds all of it."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Said:
    """More of the reply's words; `final`: all of them once more, when no more will come."""

    response_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Sound:
    """More of the reply's voice: int16 mono, 24 kHz."""

    response_id: str
    samples: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Thought:
    """More of what the model thinks before it speaks."""

    text: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """A voice over the agent's: `pending` when it is noticed, then `confirmed` or `dismissed`, for a reason.

    A player that pauses at the first and goes on at the last is silent at once, and loses nothing to a cough.
    """

    response_id: str
    status: str
    reason: str | None
    voice_ms: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Whatever of the reply is still to be played is not to be heard any more."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a function."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A function's result is in the conversation."""

    call_id: str
    output: str


@dataclass(frozen=True, slots=True)
class ServerCall:
    """The model calls a tool that the server runs; its result and a further response follow."""

    item_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What such a tool returned; `pending`: only that more comes later."""

    item_id: str
    output: str
    failed: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A response is over: `status` is completed, cancelled, incomplete or failed (then `problem` says why)."""

    response_id: str
    status: str
    calls: tuple[ToolCall, ...] = ()
    problem: tuple[str, str] | None = None  #: code and message


@dataclass(frozen=True, slots=True)
class Failed:
    """The server could not do what was asked; the session goes on."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The connection was lost and is there again, with the same session, if it could be `resumed`.

    Otherwise it is a new one with the settings and the words of the old one.
    """

    reason: str
    attempts: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Other:
    """Any other server message."""

    raw: Raw


Event = (
    SpeechStarted
    | SpeechStopped
    | Heard
    | Said
    | Sound
    | Thought
    | Interruption
    | Interrupted
    | ToolResult
    | ServerCall
    | ServerResult
    | Done
    | Failed
    | Reconnected
    | Other
)


def decode(raw: Raw) -> Event:
    """The event of one server message; `Other` for what most programs pass over."""
    match raw["type"]:
        case "input_audio_buffer.speech_started":
            return SpeechStarted(raw["audio_start_ms"])
        case "input_audio_buffer.speech_stopped":
            return SpeechStopped(raw["audio_end_ms"])
        case "conversation.item.input_audio_transcription.delta":
            return Heard(raw["item_id"], raw["delta"], final=False)
        case "conversation.item.input_audio_transcription.completed":
            return Heard(raw["item_id"], raw["transcript"], final=True)
        case "conversation.item.input_audio_transcription.failed":
            return Heard(raw["item_id"], "", final=True)  # nobody shall wait for it
        case "response.output_audio_transcript.delta" | "response.output_text.delta":
            return Said(raw["response_id"], raw["delta"], final=False)
        case "response.output_audio_transcript.done":
            return Said(raw["response_id"], raw["transcript"], final=True)
        case "response.output_text.done":
            return Said(raw["response_id"], raw["text"], final=True)
        case "response.output_audio.delta":
            return Sound(raw["response_id"], pcm.bytes_to_int16(base64.b64decode(raw["delta"])))
        case "response.thought.delta":
            return Thought(raw["delta"])
        case "response.interruption":
            return Interruption(raw["response_id"], raw["status"], raw["reason"], raw["voice_ms"])
        case "output_audio_buffer.cleared":
            return Interrupted()
        case "conversation.item.added" if raw["item"]["type"] == "function_call_output":
            return ToolResult(raw["item"]["call_id"], raw["item"]["output"])
        case "server_tool.called":
            return ServerCall(raw["item_id"], raw["name"], _arguments(raw["arguments"]))
        case "server_tool.returned":
            return ServerResult(raw["item_id"], raw["output"], raw["failed"], raw["pending"])
        case "response.done":
            return _done(raw["response"])
        case "error":
            error = raw["error"]
            return Failed(error.get("code") or "server_error", error["message"], error.get("param"))
        case _:
            return Other(raw)


def _done(response: Raw) -> Done:
    asked = [item for item in response["output"] if item["type"] == "function_call"]
    calls = tuple(ToolCall(item["call_id"], item["name"], _arguments(item["arguments"])) for item in asked)
    problem = None
    if response["status"] == "failed":
        error = (response.get("status_details") or {}).get("error") or {}
        problem = (error.get("code") or "server_error", error.get("message") or "The response failed.")
    return Done(response["id"], response["status"], calls, problem)


def _arguments(given: str) -> dict[str, Any]:
    """A model may write anything: what is no JSON object is handed over as {"text": ...}."""
    try:
        arguments = json.loads(given or "{}")
    except ValueError:
        return {"text": given}
    return arguments if isinstance(arguments, dict) else {"text": given}
