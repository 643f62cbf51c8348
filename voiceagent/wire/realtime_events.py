"""The client messages of the OpenAI Realtime protocol (GA) as typed structs: validation and decoding in one step.

Shapes, lengths and ranges only; what a message means is in realtime.py. Keys that are not named here are tolerated.
In sparse objects, None and UNSET mean "not there"; UNSET is used where the protocol gives null a meaning of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from voiceagent.core.options import OldAudio, Summaries

Id = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=64 * 1024)]
Modalities = Annotated[list[Literal["audio", "text"]], Meta(min_length=1, max_length=1)]
TokenLimit = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]
Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
Think = Literal["on", "off"]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class Format(msgspec.Struct):
    """An audio format: 16-bit PCM at 24 kHz, or G.711 at 8 kHz."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | None = None


class TurnDetection(msgspec.Struct, omit_defaults=True):
    """server_vad or semantic_vad with the knobs of both; what is absent stays as it is."""

    type: Literal["server_vad", "semantic_vad"] | None = None
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=5_000)] | None = None
    silence_duration_ms: Annotated[int, Meta(ge=50, le=10_000)] | None = None
    idle_timeout_ms: Annotated[int, Meta(ge=1_000, le=600_000)] | UnsetType | None = UNSET
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class NoiseReduction(msgspec.Struct, omit_defaults=True):
    """Accepted and shown; the model hears the audio as it comes."""

    type: Literal["near_field", "far_field"]
    strength: float | None = None


class Transcription(msgspec.Struct, omit_defaults=True):
    """Only these keys are shown again: others (`delay`, `keywords`) break the parser of a stock client."""

    model: Id | None = None
    language: Id | None = None
    prompt: Text | None = None


class ToolFilter(msgspec.Struct, omit_defaults=True):
    """Some of a server's tools: these, or those that change nothing, or both."""

    tool_names: Annotated[list[Id], Meta(max_length=128)] | None = None
    read_only: bool | None = None


class ApprovalFilter(msgspec.Struct, omit_defaults=True):
    """Which of a server's tools need the client's approval of each call."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class Tool(msgspec.Struct):
    """A function tool, or (`type` "mcp") a tool server; other tool types are refused by name."""

    type: Id
    name: Id | None = None
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    server_label: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    server_url: Annotated[str, Meta(max_length=2048)] | None = None
    server_description: Text | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    authorization: Annotated[str, Meta(max_length=8192)] | None = None
    headers: dict[str, str] | None = None
    allowed_tools: Annotated[list[Id], Meta(max_length=128)] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None


class Filler(msgspec.Struct):
    """Ours: words for the time in which a tool of the server's takes long."""

    text: Annotated[str, Meta(min_length=1, max_length=500)]
    after_ms: Annotated[int, Meta(ge=100, le=30_000)] = 1200


class FunctionChoice(msgspec.Struct, tag_field="type", tag="function"):
    """Call this function."""

    name: Id


class ServerChoice(msgspec.Struct, tag_field="type", tag="mcp", omit_defaults=True):
    """Call this tool of this server."""

    server_label: Id
    name: Id | None = None


ToolChoice = Literal["auto", "none", "required"] | FunctionChoice | ServerChoice
Tools = Annotated[list[Tool], Meta(max_length=128)]


class VoiceId(msgspec.Struct):
    """The long way to name a voice."""

    id: Id


class InputAudioPatch(msgspec.Struct):
    """audio.input of a session update; only present keys change."""

    format: Format | None = None
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET


class OutputAudioPatch(msgspec.Struct):
    """audio.output of a session update or a response."""

    format: Format | None = None
    voice: Id | VoiceId | None = None
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None


class AudioPatch(msgspec.Struct):
    """audio of a session update."""

    input: InputAudioPatch | None = None
    output: OutputAudioPatch | None = None


class TokenLimits(msgspec.Struct, omit_defaults=True):
    """Of a truncation: the most that the conversation may take behind instructions and tools."""

    post_instructions: Annotated[int, Meta(ge=0)] | None = None


class RetentionRatio(msgspec.Struct, omit_defaults=True):
    """A truncation policy: how much of the conversation stays when it has become too long."""

    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Meta(ge=0.0, le=1.0)]
    token_limits: TokenLimits | None = None


class ContextPatch(msgspec.Struct, omit_defaults=True):
    """What is done with old turns as the context fills."""

    audio: OldAudio | None = None
    summary: Summaries | None = None


class PromptText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A variable of a prompt, the long way."""

    text: Text


class Prompt(msgspec.Struct, omit_defaults=True):
    """Accepted and shown, as the next two: what is shown must be of the published shape, or clients cannot read it."""

    id: Id
    variables: dict[Id, Text | PromptText] | None = None
    version: Id | None = None


class Reasoning(msgspec.Struct, omit_defaults=True):
    """Accepted and shown."""

    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class Tracing(msgspec.Struct, omit_defaults=True):
    """Accepted and shown."""

    group_id: Id | None = None
    workflow_name: Id | None = None
    metadata: Metadata | None = None


ProtectedMs = Annotated[int, Meta(ge=0, le=60_000)]


class SessionPatch(msgspec.Struct):
    """A sparse session object; without a `type` it is that of the session.

    Ours are `output_lead_ms` (how far ahead of playing audio is sent, null: unpaced), `think`, `binary_audio`,
    `echo_cancellation`, `speculation`, `barge_in`, `protected_ms`, `context`, `server_tools` (of those that the server
    runs, null: all) and `tool_filler`.
    """

    type: Literal["realtime", "transcription"] | None = None
    instructions: Text | None = None
    output_modalities: Modalities | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: TokenLimit | None = None
    temperature: Temperature | None = None
    audio: AudioPatch | None = None
    truncation: Literal["auto", "disabled"] | RetentionRatio | None = None
    reasoning: Reasoning | None = None
    tracing: Literal["auto"] | Tracing | UnsetType | None = UNSET
    prompt: Prompt | UnsetType | None = UNSET
    include: (
        Annotated[list[Literal["item.input_audio_transcription.logprobs"]], Meta(max_length=8)]
        | UnsetType
        | None
    ) = UNSET
    output_lead_ms: Annotated[int, Meta(ge=20, le=10_000)] | UnsetType | None = UNSET
    think: Think | None = None
    binary_audio: bool | None = None
    echo_cancellation: bool | None = None
    speculation: bool | None = None
    barge_in: Literal["patient", "quick"] | None = None
    protected_ms: ProtectedMs | None = None
    context: ContextPatch | None = None
    server_tools: Annotated[list[Id], Meta(max_length=128)] | UnsetType | None = UNSET
    tool_filler: Filler | UnsetType | None = UNSET


class ContentPart(msgspec.Struct):
    """One part of a message item."""

    type: Id
    text: Text | None = None
    audio: str | None = None
    transcript: Text | None = None


class ItemParam(msgspec.Struct):
    """A conversation item as clients write it."""

    type: Id
    id: Id | None = None
    role: Id | None = None
    content: list[ContentPart] | None = None
    call_id: Id | None = None
    name: Id | None = None
    arguments: Text | None = None
    output: Text | None = None
    approval_request_id: Id | None = None
    approve: bool | None = None
    reason: Text | None = None


class ResponseAudio(msgspec.Struct):
    """audio of a response."""

    output: OutputAudioPatch | None = None


class ResponseParam(msgspec.Struct):
    """The response object of response.create; everything absent comes from the session."""

    instructions: Text | None = None
    output_modalities: Modalities | None = None
    audio: ResponseAudio | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: TokenLimit | None = None
    temperature: Temperature | None = None
    metadata: Metadata | None = None
    conversation: Literal["auto", "none"] | None = None
    think: Think | None = None
    interruptible: bool = True
    protected_ms: ProtectedMs | None = None
    input: list[ItemParam] | None = None


class ClientEvent(msgspec.Struct, tag_field="type", kw_only=True):
    """Base of all client events."""

    event_id: Id | None = None


class SessionUpdate(ClientEvent, tag="session.update"):
    """Changes the session."""

    session: SessionPatch


class AudioAppend(ClientEvent, tag="input_audio_buffer.append"):
    """Audio in the session's input format, in base64 on the wire."""

    audio: bytes


class AudioCommit(ClientEvent, tag="input_audio_buffer.commit"):
    """Ends the user's turn."""


class AudioClear(ClientEvent, tag="input_audio_buffer.clear"):
    """Drops what was not committed."""


class OutputClear(ClientEvent, tag="output_audio_buffer.clear"):
    """Stops the current audio."""


class OutputPlayed(ClientEvent, tag="output_audio_buffer.played"):
    """Ours: the player has played so much of a response."""

    response_id: Id
    audio_end_ms: Annotated[float, Meta(ge=0)]


class ItemCreate(ClientEvent, tag="conversation.item.create"):
    """Adds an item; `previous_item_id` "root" puts it first."""

    item: ItemParam
    previous_item_id: Id | None = None


class ItemRetrieve(ClientEvent, tag="conversation.item.retrieve"):
    """Asks for an item with its audio."""

    item_id: Id


class ItemTruncate(ClientEvent, tag="conversation.item.truncate"):
    """Says how much of an assistant item was played; players that compute it may send fractions of a millisecond."""

    item_id: Id
    audio_end_ms: Annotated[float, Meta(ge=0)]


class ItemDelete(ClientEvent, tag="conversation.item.delete"):
    """Removes an item."""

    item_id: Id


class ResponseCreate(ClientEvent, tag="response.create"):
    """Asks for a response."""

    response: ResponseParam | None = None


class ResponseCancel(ClientEvent, tag="response.cancel"):
    """Stops the response in progress."""

    response_id: Id | None = None


class NewVoice(msgspec.Struct):
    """A voice of the session's own: of a sound file in base64, or of what a person said in an item."""

    name: Annotated[str, Meta(max_length=64)]
    audio: str | None = None
    item_id: Id | None = None


class OldVoice(msgspec.Struct):
    """A voice of the session's own that is to go."""

    name: Annotated[str, Meta(max_length=64)]


class VoiceCreate(ClientEvent, tag="voice.create"):
    """Ours: makes a voice for this session."""

    voice: NewVoice


class VoiceDelete(ClientEvent, tag="voice.delete"):
    """Ours: forgets a voice of this session."""

    voice: OldVoice


OtherClientEvent = (
    SessionUpdate
    | AudioCommit
    | AudioClear
    | OutputClear
    | OutputPlayed
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
    | VoiceCreate
    | VoiceDelete
)
AnyClientEvent = AudioAppend | OtherClientEvent

EVENT_TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in AnyClientEvent.__args__)
