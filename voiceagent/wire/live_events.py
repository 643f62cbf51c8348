"""The client messages of the OpenAI Live protocol as typed structs: validation and decoding in one step.

That protocol is strict: a key that is not named here is refused. Shapes, lengths and ranges only; what a message
means is in live.py. Lengths in tokens are bounded in characters, since the wire has no tokenizer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=64 * 1024)]
Content = Annotated[str, Meta(min_length=1, max_length=4_000)]
"""What may be appended at once: 500 tokens of the published protocol are 2,000 characters of English."""
DelayMs = Annotated[int, Meta(ge=0, le=60_000)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class Pcm(msgspec.Struct, tag="audio/pcm", forbid_unknown_fields=True):
    """16-bit little-endian PCM."""

    rate: Literal[16_000, 24_000]


class Mulaw(msgspec.Struct, tag="audio/pcmu", forbid_unknown_fields=True):
    """G.711 mu-law."""

    rate: Literal[8_000]


class Alaw(msgspec.Struct, tag="audio/pcma", forbid_unknown_fields=True):
    """G.711 A-law."""

    rate: Literal[8_000]


class VoiceId(msgspec.Struct, forbid_unknown_fields=True):
    """The long way to name a voice."""

    id: Id


class AudioOutput(msgspec.Struct, forbid_unknown_fields=True):
    """The voice."""

    voice: Id | VoiceId | None = None


class Audio(msgspec.Struct, forbid_unknown_fields=True):
    """One format for both directions, and the voice."""

    format: Pcm | Mulaw | Alaw | None = None
    output: AudioOutput | None = None


# --- delegation -------------------------------------------------------------------------------------------------


class Reasoning(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Accepted and shown."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["concise", "detailed", "auto"] | None = None


class TextOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Accepted and shown."""

    verbosity: Literal["low", "medium", "high"] | None = None


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A function that the model may call; `strict` is accepted and shown."""

    type: Literal["function"]
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionChoice(msgspec.Struct, forbid_unknown_fields=True):
    """Call this function."""

    type: Literal["function"]
    name: Id


class ResponsesPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of the model that tasks are delegated to; None = not there. Tools are checked by live_session."""

    model: Id | None = None
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    service_tier: (
        Literal["auto", "default", "fast_tier_temp_pilot", "flex", "priority", "ultrafast"] | None
    ) = None
    text: TextOptions | None = None
    tool_choice: Literal["auto", "none", "required"] | FunctionChoice | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None


class ClientDelegation(msgspec.Struct, tag="client", forbid_unknown_fields=True):
    """The application does the tasks."""

    acknowledgement_delay_ms: DelayMs | None = None


class ResponsesDelegation(msgspec.Struct, tag="responses", forbid_unknown_fields=True):
    """The session's own model does them, with function tools."""

    responses: ResponsesPatch | None = None
    acknowledgement_delay_ms: DelayMs | None = None


class DecisionsDelegation(msgspec.Struct, tag="decisions"):
    """Recognised so that it can be refused by name."""


Delegation = ClientDelegation | ResponsesDelegation | DecisionsDelegation


# --- the session ------------------------------------------------------------------------------------------------


class InitialContent(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The text of a message of the history."""

    text: Text
    type: Literal["input_text", "text", "output_text"] | None = None


class InitialItem(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A message of the history before the session."""

    role: Literal["developer", "user", "assistant"]
    content: Annotated[list[InitialContent], Meta(min_length=1, max_length=1)]
    id: Id | None = None
    status: ItemStatus | None = None
    type: Literal["message"] | None = None


class SessionConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The session as it is asked for."""

    model: Id
    audio: Audio | None = None
    client: dict[str, Any] | None = None
    delegation: Delegation | None = None
    input: Annotated[list[InitialItem], Meta(max_length=128)] | None = None
    instructions: Text | None = None
    safety_identifier: Id | None = None
    store: bool | None = None
    triggers: list[dict[str, Any]] | None = None


class SessionPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What of a session can be changed."""

    delegation: Delegation | None = None
    triggers: list[dict[str, Any]] | None = None


# --- messages ---------------------------------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Common part of all client messages."""

    event_id: Id | None = None


class SessionStart(ClientEvent, tag="session.start"):
    """Begins the session; must come first."""

    session: SessionConfig


class SessionUpdate(ClientEvent, tag="session.update"):
    """Changes delegation settings."""

    session: SessionPatch


class AudioAppend(ClientEvent, tag="session.input_audio.append"):
    """More of what the person says, in the session's format; in base64 on the wire."""

    audio: bytes


class Mute(ClientEvent, tag="session.input_audio.mute"):
    """From here on the model hears silence."""


class Unmute(ClientEvent, tag="session.input_audio.unmute"):
    """From here on the model hears the person again."""


class FixturePlay(ClientEvent, tag="session.output_audio.fixture.play"):
    """Plays this audio instead of the model: base64 of 16-bit PCM at 24 kHz, whatever the session's format."""

    audio: str


class _Append(ClientEvent):
    """Context for the model. `delegation_id` must be there and may be null."""

    content: Content
    delegation_id: Id | None


class InstructionsAppend(_Append, tag="session.instructions.append"):
    """What the model is to do from now on."""


class ThinkingAppend(_Append, tag="session.thinking.append"):
    """What the model is to know and not to say."""


class CommentaryAppend(_Append, tag="session.commentary.append"):
    """What the model is to tell the person."""


class ResponseItemCreate(ClientEvent, tag="response.item.create"):
    """An item for the model that tasks are delegated to; checked by live_delegation."""

    item: dict[str, Any]


class ResponseCreate(ClientEvent, tag="response.create"):
    """Asks for a reply, or goes on with one that waited for tools."""


class SessionClose(ClientEvent, tag="session.close"):
    """Ends the session."""


AnyClientEvent = (
    SessionStart
    | SessionUpdate
    | AudioAppend
    | Mute
    | Unmute
    | FixturePlay
    | InstructionsAppend
    | ThinkingAppend
    | CommentaryAppend
    | ResponseItemCreate
    | ResponseCreate
    | SessionClose
)

EVENT_TYPES: frozenset[str] = frozenset(str(kind.__struct_config__.tag) for kind in AnyClientEvent.__args__)


# --- items of response.item.create ------------------------------------------------------------------------------


class InputText(msgspec.Struct, forbid_unknown_fields=True):
    """A text part."""

    type: Literal["input_text", "output_text"]
    text: Text


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A typed message."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Annotated[list[InputText], Meta(min_length=1, max_length=64)]
    type: Literal["message"] | None = None
    id: Id | None = None
    status: ItemStatus | None = None


class FunctionOutput(msgspec.Struct, forbid_unknown_fields=True):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: Id
    output: Text | Annotated[list[InputText], Meta(max_length=64)]
    id: Id | None = None
    name: Id | None = None
    status: ItemStatus | None = None
