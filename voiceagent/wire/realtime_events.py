"""The client messages of the OpenAI Realtime protocol (GA) as typed structs: validation and decoding in one step.

Shapes only. What a message means is in realtime.py; fields that we accept without acting on them are kept as they came.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Format(msgspec.Struct, forbid_unknown_fields=False):
    """An audio format: 16-bit PCM at 24 kHz, or G.711 at 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | None = None


class TurnDetection(msgspec.Struct):
    """server_vad or semantic_vad with the knobs of both; absent ones keep their defaults."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    idle_timeout_ms: int | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class Tool(msgspec.Struct):
    """A function tool; other tool types are refused by name."""

    type: str
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] = {}


class InputAudioPatch(msgspec.Struct):
    """audio.input of a session update; only present keys change."""

    format: Format | UnsetType = UNSET
    noise_reduction: dict[str, Any] | UnsetType | None = UNSET
    transcription: dict[str, Any] | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET


class OutputAudioPatch(msgspec.Struct):
    """audio.output of a session update or a response."""

    format: Format | UnsetType = UNSET
    voice: str | dict[str, Any] | UnsetType = UNSET
    speed: float | UnsetType = UNSET


class AudioPatch(msgspec.Struct):
    """audio of a session update or a response."""

    input: InputAudioPatch | UnsetType = UNSET
    output: OutputAudioPatch | UnsetType = UNSET


class SessionPatch(msgspec.Struct):
    """A sparse session object; our `output_lead_ms`: how far ahead of playing audio is sent, null: unpaced."""

    type: Literal["realtime", "transcription"] = "realtime"
    model: str | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    output_modalities: list[Literal["audio", "text"]] | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: str | dict[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    max_output_tokens: int | Literal["inf"] | UnsetType = UNSET
    audio: AudioPatch | UnsetType = UNSET
    truncation: str | dict[str, Any] | UnsetType = UNSET
    tracing: str | dict[str, Any] | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET
    include: list[str] | UnsetType | None = UNSET
    reasoning: dict[str, Any] | UnsetType | None = UNSET
    temperature: float | UnsetType = UNSET
    output_lead_ms: int | UnsetType | None = UNSET


class ContentPart(msgspec.Struct):
    """One part of a message item."""

    type: str
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None


class ItemParam(msgspec.Struct):
    """A conversation item as clients write it."""

    type: str
    id: str | None = None
    role: str | None = None
    content: list[ContentPart] = []
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    status: str | None = None


class ResponseParam(msgspec.Struct):
    """The response object of response.create; everything absent comes from the session."""

    instructions: str | None = None
    output_modalities: list[Literal["audio", "text"]] | None = None
    audio: AudioPatch | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    temperature: float | None = None
    metadata: dict[str, Any] | None = None
    conversation: Literal["auto", "none"] = "auto"
    input: list[ItemParam] | None = None


class ClientEvent(msgspec.Struct, tag_field="type", kw_only=True):
    """Base of all client events."""

    event_id: str | None = None


class SessionUpdate(ClientEvent, tag="session.update"):
    """Changes the session."""

    session: SessionPatch


class AudioAppend(ClientEvent, tag="input_audio_buffer.append"):
    """Base64 audio in the session's input format."""

    audio: str


class AudioCommit(ClientEvent, tag="input_audio_buffer.commit"):
    """Ends the user's turn."""


class AudioClear(ClientEvent, tag="input_audio_buffer.clear"):
    """Drops what was not committed."""


class OutputClear(ClientEvent, tag="output_audio_buffer.clear"):
    """Stops the current audio."""


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """Adds an item; `previous_item_id` "root" puts it first."""

    item: ItemParam
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent, tag="conversation.item.retrieve"):
    """Asks for an item with its audio."""

    item_id: str


class ItemTruncate(ClientEvent, tag="conversation.item.truncate"):
    """Says how much of an assistant item was played."""

    item_id: str
    audio_end_ms: int
    content_index: int = 0


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    """Removes an item."""

    item_id: str


class ResponseCreate(ClientEvent, tag="response.create"):
    """Asks for a response."""

    response: ResponseParam | None = None


class ResponseCancel(ClientEvent, tag="response.cancel"):
    """Stops the response in progress."""

    response_id: str | None = None


AnyClientEvent = (
    SessionUpdate
    | AudioAppend
    | AudioCommit
    | AudioClear
    | OutputClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
)

EVENT_TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in AnyClientEvent.__args__)
