"""Everything that can happen to a session; the controller's only input.

Events that a client's request caused carry its `event_id`, so that an error can name the request. Events of the
engine carry the turn they belong to, so that what arrives late can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voiceagent.core.history import Item


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServerVad:
    """Turn taking by voice activity, as in the Realtime protocol's server_vad."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    idle_timeout_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool = True


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """The effective settings of a session.

    Attributes:
        turn_detection: None = manual turns, by Commit and Respond.
        lead_ms: how far audio is sent ahead of its playing; None = unpaced.
        temperature, max_tokens: None = the checkpoint's own.
    """

    instructions: str = ""
    modalities: Literal["audio", "text"] = "audio"
    voice: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    turn_detection: ServerVad | None = field(default_factory=ServerVad)
    transcribe: bool = True
    lead_ms: int | None = 300


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What one turn asks of the model.

    Attributes:
        conversation: False = out of band: the reply is not added to the history.
        input: items to answer instead of the history, None = the history.
        interruptible: whether the user may talk it down.
    """

    modalities: Literal["audio", "text"] = "audio"
    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    voice: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    interruptible: bool = True
    metadata: Mapping[str, Any] | None = None
    conversation: bool = True
    input: tuple[Item, ...] | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn; cached ones are the part of the input that needed no computing."""

    input_text: int = 0
    input_audio: int = 0
    input_cached: int = 0
    output_text: int = 0
    output_audio: int = 0


# --- from the client ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioIn:
    """User audio, float32 mono 16 kHz; `at` counts samples since the session began and leaves no gaps."""

    at: int
    pcm: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Commit:
    """The client says that the user's turn is over."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the audio that was not committed."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Respond:
    """Start a turn of the assistant."""

    options: TurnOptions
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a turn; None = the current one."""

    turn: int | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Configure:
    """The session's settings from now on."""

    config: SessionConfig
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemCreate:
    """Put an item into the history; `previous_item_id` None = at the end, "root" = at the front."""

    item: Item
    previous_item_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDelete:
    """Take an item out of the history."""

    item_id: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    """The client's player stopped an assistant item at this point."""

    item_id: str
    audio_end_ms: int
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """The client's player has played this many 24 kHz samples of a turn."""

    turn: int
    samples: int


@dataclass(frozen=True, slots=True)
class Detached:
    """The connection is lost."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """The call is over."""

    reason: str = ""


# --- from the engine ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechProb:
    """Probability of speech in the 32 ms window that ends at sample `at` (16 kHz)."""

    at: int
    p: float


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The engine has begun to work on a turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class TextOut:
    """Text of the reply and its token ids."""

    turn: int
    text: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AudioOut:
    """Speech of the reply: int16 mono 24 kHz, numbered from 0, with the speech tokens that it came from."""

    turn: int
    seq: int
    pcm: npt.NDArray[np.int16]
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool; `arguments` is JSON text."""

    turn: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The engine is done with a turn; every AudioOut came before."""

    turn: int
    reason: Literal["stop", "max_tokens", "cancelled"]
    usage: Usage = field(default_factory=Usage)
    raw_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The engine could not finish a turn."""

    turn: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the user said in an item, by the model's own ear."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine process died; it will be back after about this many seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine is ready again; it remembers nothing."""


Event = (
    AudioIn
    | Commit
    | Clear
    | Respond
    | Cancel
    | Configure
    | ItemCreate
    | ItemDelete
    | ItemTruncate
    | Played
    | Detached
    | Hangup
    | SpeechProb
    | TurnStarted
    | TextOut
    | AudioOut
    | ToolCalled
    | TurnEnded
    | TurnFailed
    | Transcript
    | EngineDown
    | EngineUp
)
