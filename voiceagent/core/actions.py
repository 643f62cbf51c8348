"""Everything that a session can ask for: work for the engine, audio for the client, and notices of what happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from voiceagent.core.events import TurnOptions, Usage
from voiceagent.core.history import AssistantItem, Item, Piece

# --- for the engine -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTurn:
    """Answer `items`, the whole conversation, oldest first."""

    turn: int
    items: tuple[Item, ...]
    options: TurnOptions


@dataclass(frozen=True, slots=True)
class EncodePiece:
    """Encode a finished 25 s piece while the person still speaks."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class CancelTurn:
    """Stop working on a turn; whatever still comes of it is dropped."""

    turn: int


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Write down what the user said, when there is time."""

    item_id: str
    pieces: tuple[Piece, ...]


# --- for the client's player ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Play this, int16 mono 24 kHz."""

    turn: int
    item_id: str
    pcm: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Flush:
    """Drop what is still held of a turn's audio; nothing of it follows."""

    turn: int


# --- notices --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The user began to speak; `item_id` is the id that the turn will have."""

    item_id: str
    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The user's turn is over."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The user's audio became an item."""

    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class BufferCleared:
    """The uncommitted audio is forgotten."""


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item is in the history; `done` = it is complete."""

    item: Item
    previous_item_id: str | None
    done: bool = True


@dataclass(frozen=True, slots=True)
class ItemDone:
    """An item that was added incomplete is complete."""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """An item is gone."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """An assistant item now ends where its hearing ended."""

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """A turn of the assistant begins; its message will have the id `item_id`."""

    turn: int
    item_id: str
    options: TurnOptions


@dataclass(frozen=True, slots=True)
class TurnText:
    """More text of the reply."""

    turn: int
    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class TurnTool:
    """The reply calls a tool; the call will be the item `item_id`."""

    turn: int
    item_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TurnClosed:
    """A turn is over: everything generated has been sent, or it was stopped.

    Attributes:
        reason: for cancelled: turn_detected | client_cancelled; for incomplete: max_tokens; for failed: the code.
        item: the message as it stands in the history, None if nothing was said.
    """

    turn: int
    status: Literal["completed", "cancelled", "failed", "incomplete"]
    reason: str
    item: AssistantItem | None
    usage: Usage
    error: str | None = None


@dataclass(frozen=True, slots=True)
class InputTranscript:
    """What the user said, in words."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Error:
    """A request that cannot be fulfilled; nothing changed."""

    code: str
    message: str
    param: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection."""

    code: int
    reason: str


Action = (
    StartTurn
    | EncodePiece
    | CancelTurn
    | Transcribe
    | SendAudio
    | Flush
    | SpeechStarted
    | SpeechStopped
    | Committed
    | BufferCleared
    | ItemAdded
    | ItemDone
    | ItemDeleted
    | ItemTruncated
    | TurnOpened
    | TurnText
    | TurnTool
    | TurnClosed
    | InputTranscript
    | Error
    | Close
)
