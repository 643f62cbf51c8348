"""Everything that a session can ask for: of the engine, of the player, of the dialect; it decides nothing.

The shell carries them out in order. Engine actions go to the engine, the rest to the dialect, which renders what is
its peer's business and ignores what is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voiceagent.core.dictation import PLAIN, Dictation
from voiceagent.core.history import Item, Piece
from voiceagent.core.notices import Notice
from voiceagent.core.options import Tool, TurnOptions

# --- for the engine ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTurn:
    """Generate a reply to `items`. Every piece in them was announced by an `EncodePiece` before.

    Attributes:
        guess: nobody waits for it, and it may be for nothing, until a `ConfirmTurn` says otherwise.
    """

    turn: int
    items: tuple[Item, ...]
    options: TurnOptions
    guess: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmTurn:
    """A reply that was begun on a guess is wanted: from now on it is a turn like any other."""

    turn: int


@dataclass(frozen=True, slots=True)
class EncodePiece:
    """A piece is whole: encode it now, long before the turn ends if the person speaks for more than 25 s."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class ForgetPieces:
    """No later turn will name these pieces; one that is being made may still need them."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Somebody speaks: these items, and what is still being said, will soon be answered with these options.

    The engine may read them while nobody waits for it. Nothing answers, and the turn may yet be another one.
    """

    items: tuple[Item, ...]
    options: TurnOptions


@dataclass(frozen=True, slots=True)
class CancelTurn:
    """Stop generating; whatever still comes of the turn is dropped."""

    turn: int


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Write down what was said in these pieces, behind those named before for the same item.

    Answered by `TranscriptDelta`s as the words come, and once by `Transcript` or `TranscriptFailed`, when there is
    nothing left to write.

    Attributes:
        more: the person still speaks, and further pieces will be named.
        how: what is known of the speech, and what is to be told of it.
    """

    item_id: str
    pieces: tuple[Piece, ...]
    more: bool = False
    how: Dictation = PLAIN


@dataclass(frozen=True, slots=True)
class JudgeEnd:
    """The person may have finished at sample `at` of the input: is what they say in this piece complete?

    Answered by an `EndJudged`, or not at all: an answer that comes late is of no use.
    """

    at: int
    piece: Piece


# --- for the shell ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunTool:
    """Run a tool of the server's; answered once by `ToolReturned` of the same `item_id`, the call's."""

    item_id: str
    tool: Tool
    arguments: str


# --- for the player, by way of the dialect ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAudio:
    """Send these (n,) int16 samples at 24 kHz now; already paced."""

    turn: int
    item_id: str
    pcm: npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Flush:
    """Drop everything of this turn that is still on its way to the ear. Nothing of the turn follows."""

    turn: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection; nothing follows. `code` is a WebSocket close code."""

    code: int
    reason: str


EngineAction = (
    StartTurn | ConfirmTurn | EncodePiece | ForgetPieces | Prepare | CancelTurn | Transcribe | JudgeEnd
)
Action = EngineAction | RunTool | SendAudio | Flush | Close | Notice
