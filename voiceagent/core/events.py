"""Everything that can happen to a session: from the client, from the engine, from the line; it decides nothing.

Positions of input audio (`at`) count samples at 16 kHz since the session began. Events that a client causes carry its
`event_id`, so that an error can name the request that caused it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voiceagent.core.dictation import TokenScore
from voiceagent.core.history import Item
from voiceagent.core.options import SessionConfig, TurnOptions


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn.

    Attributes:
        input_cached: the part of the input that earlier turns had left computed; `input_cached_audio` of it is sound.
        output_thought: the part of `output_text` that was thought and not said.
    """

    input_text: int = 0
    input_audio: int = 0
    input_cached: int = 0
    output_text: int = 0
    output_audio: int = 0
    output_thought: int = 0
    input_cached_audio: int = 0

    @property
    def kept(self) -> int:
        """Positions of the context that the conversation takes behind the turn; a thought does not stay in it."""
        read = self.input_text + self.input_audio
        return read + self.output_text + self.output_audio - self.output_thought


# --- from the client --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AudioIn:
    """Input audio: (n,) float32 mono at 16 kHz that begins at sample `at`."""

    at: int
    pcm: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Commit:
    """The audio buffered so far is a turn of the person's."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the audio buffered so far."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class OutputClear:
    """Stop speaking: drop what the player still holds, cancel the turn if one is active."""

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Respond:
    """Reply now."""

    options: TurnOptions
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class RespondSoon:
    """Reply with the session's options as soon as no turn is live and nobody speaks; several count once."""


@dataclass(frozen=True, slots=True)
class Play:
    """Play (n,) int16 samples at 24 kHz instead of the model: what is being said is cut, and then this is a turn.

    It opens, sends and closes like any other, with these options; the engine has no part in it, and it leaves nothing
    in the history. `options.conversation` must be False; `options.interruptible` says whether a voice may stop it.
    """

    pcm: npt.NDArray[np.int16]
    options: TurnOptions


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the turn of this number; None = the one of the conversation."""

    turn: int | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Configure:
    """The whole new configuration; holds from the next turn on, turn detection at once."""

    config: SessionConfig
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemCreate:
    """Put an item into the history; `previous_item_id` None = at the end, `history.ROOT` = in front.

    An item with an empty id gets one from the controller.
    """

    item: Item
    previous_item_id: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDelete:
    """Take an item out of the history."""

    item_id: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemRetrieve:
    """Show an item of the history; answered by `ItemRetrieved`."""

    item_id: str
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemTruncate:
    """Of this reply the person heard only `audio_end_ms`."""

    item_id: str
    audio_end_ms: int
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Played:
    """The client's player has played `samples` (24 kHz) of a turn so far."""

    turn: int
    samples: int


@dataclass(frozen=True, slots=True)
class Approve:
    """The client's word on a call that waits for it; `item_id` is the call's."""

    item_id: str
    approve: bool
    reason: str = ""
    event_id: str | None = None


# --- of the tools that the server runs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """The answer to a `RunTool`, once, whatever became of it: `output` is what the model is told."""

    item_id: str
    output: str
    failed: bool = False


# --- of the line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detached:
    """The client is gone without a word; the call ends."""


@dataclass(frozen=True, slots=True)
class Hangup:
    """The server ends the call; code (of the WebSocket) and reason come back in `Close`."""

    reason: str
    code: int = 1000


@dataclass(frozen=True, slots=True)
class LineBusy:
    """The line has as much to send as it may hold, or has room again: what could be said meanwhile waits here."""

    busy: bool


# --- from the engine --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechProb:
    """Probability of speech in the 512 samples of input that end at sample `at`.

    `level` is how loud they are, in decibels of full scale; None = not known.
    """

    at: int
    p: float
    level: float | None = None


@dataclass(frozen=True, slots=True)
class EndJudged:
    """What was said up to sample `at`, as far as it is not older than the last 25 s, and how likely it is the end.

    `complete` is a probability, 0..1, that nothing follows.
    """

    at: int
    text: str
    complete: float


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The turn is being computed.

    Attributes:
        usage: of its input.
        limit: positions of the model's context; 0 = not known.
        dropped: ids of the items that were left out, for there was no room.
        encoded: seconds for which the engine read the person's audio while the turn waited.
        room: positions that the items of the conversation may take until some are left out; 0 = not known.
    """

    turn: int
    usage: Usage = Usage()
    limit: int = 0
    dropped: tuple[str, ...] = ()
    encoded: float = 0.0
    room: int = 0


@dataclass(frozen=True, slots=True)
class ThoughtOut:
    """More of what the model thinks before it answers; never said, never part of the history."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class TextOut:
    """New text of the turn, and the token ids behind it."""

    turn: int
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AudioOut:
    """New audio of the turn: (n,) int16 at 24 kHz, the speech ids 0..6560 behind it; `seq` counts from 0."""

    turn: int
    seq: int
    pcm: npt.NDArray[np.int16]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model calls a tool; `arguments` is JSON text."""

    turn: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """All of the turn has been generated; reason is "stop", "max_tokens" or "cancelled".

    Attributes:
        spent: seconds that the engine worked at it.
    """

    turn: int
    reason: str
    usage: Usage
    raw_ids: tuple[int, ...]
    spent: float = 0.0


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The turn broke off; nothing more of it will come."""

    turn: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    """More of what was heard in a user item; what came before and this make the beginning of its transcript."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in a user item, whole; `scores` of its tokens if they were asked for."""

    item_id: str
    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class TranscriptFailed:
    """What was heard in a user item could not be written down."""

    item_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine died or hangs; expected back after `retry_after` seconds if that is known."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine is ready again."""


TurnEvent = TurnStarted | ThoughtOut | TextOut | AudioOut | ToolCalled | TurnEnded | TurnFailed
"""What the engine says of a turn."""

Request = (
    Commit
    | Clear
    | OutputClear
    | Respond
    | RespondSoon
    | Play
    | Cancel
    | Configure
    | ItemCreate
    | ItemDelete
    | ItemRetrieve
    | ItemTruncate
    | Approve
)
"""What a client asks for."""

EndOfCall = Detached | Hangup
LineEvent = EndOfCall | LineBusy
TranscriptEvent = TranscriptDelta | Transcript | TranscriptFailed
EngineEvent = TurnEvent | SpeechProb | EndJudged | TranscriptEvent | EngineDown | EngineUp
ClientEvent = AudioIn | Played | Request
Event = ClientEvent | LineEvent | EngineEvent | ToolReturned
