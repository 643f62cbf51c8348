"""What a session tells its peer by way of the dialect, of the ear, the history and our turns; it decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from voiceagent.core.dictation import TokenScore
from voiceagent.core.events import Usage
from voiceagent.core.history import AssistantItem, Item
from voiceagent.core.options import ServerTool, TurnOptions
from voiceagent.core.patience import EndReason
from voiceagent.core.waterfall import Waterfall

TurnStatus = Literal["completed", "cancelled", "failed", "incomplete"]
Weighing = Literal["pending", "confirmed", "dismissed"]
CloseReason = Literal[
    "turn_detected", "client_cancelled", "max_output_tokens", "hangup", "error", "tool_returned"
]
GuessOutcome = Literal["right", "went_on", "changed", "failed", "hangup"]
"""What came of a reply on a guess: it was wanted; the person went on; there was something else to be answered by then,
or nothing; the engine did not make it; the call ended."""


# --- the ear ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A person began to speak, `audio_start_ms` into the session's audio (padding included).

    `item_id` is the id that their item will have once it is committed.
    """

    item_id: str
    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class Interruption:
    """A voice over ours is weighed (pending: we hold back), and then it is an interruption (confirmed) or none.

    Every one that is pending is confirmed or dismissed before the next; only who is gone without a word is not told.
    `Flush` and `TurnClosed` follow on a confirmed one; behind one that was dismissed we go on at the exact sample.

    Attributes:
        turn: what we were saying.
        status: pending, confirmed or dismissed.
        reason: confirmed: "length", "loud", which takes less, or "words" (it asked us to stop). Dismissed: "short"
            (on a line where silence cannot be kept while it is weighed), "noise", "faint" (an echo, or a voice in the
            background), "backchannel" (a word of assent), "no_news" (no more input came), "reply_over" (there was
            nothing left to interrupt), "request" (the client stopped us, cleared or committed what it sent, or
            forbade interruptions) or "hangup". None while pending.
        voice_ms: speech in it so far.
        heard_ms: how much of the reply was surely heard when it began.
    """

    turn: int
    status: Weighing
    reason: str | None
    voice_ms: int
    heard_ms: int


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A voice so far below the caller's that it is in the background (bystanders.py); told when that is clear.

    Of one that was weighed over ours, an `Interruption` tells that instead.
    """

    voice_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The person has finished; their audio ends at `audio_end_ms` (the silence included).

    Attributes:
        reason: why that was decided.
        silence_ms: from their last word to the decision.
    """

    item_id: str
    audio_end_ms: int
    reason: EndReason = "silence"
    silence_ms: int = 0


@dataclass(frozen=True, slots=True)
class IdleTimedOut:
    """Nobody spoke for `idle_timeout_ms`: the silence is committed as an item and answered."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The buffered audio is now the user item `item_id`; `ItemAdded` and `ItemDone` follow."""

    item_id: str
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class BufferCleared:
    """The buffered audio is forgotten."""


@dataclass(frozen=True, slots=True)
class InputTranscriptDelta:
    """More of what the person said in the item, which may still be growing."""

    item_id: str
    content_index: int
    text: str


@dataclass(frozen=True, slots=True)
class InputTranscript:
    """What the person said in the item; `scores` of its tokens if they were asked for."""

    item_id: str
    text: str
    content_index: int = 0
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class InputTranscriptFailed:
    """What the person said in the item could not be written down."""

    item_id: str
    content_index: int
    error: TurnError


# --- the history ---------------------------------------------------------------------------------------
# Only for items that the client or the ear made. Items that a turn makes (the reply, its tool calls) are told by
# TurnOpened ... TurnClosed alone.


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item is in the history; `done` = it will not grow (always so in this version: `ItemDone` follows at once)."""

    item: Item
    previous_item_id: str | None
    done: bool


@dataclass(frozen=True, slots=True)
class ItemDone:
    """The item is complete; follows `ItemAdded` exactly once."""

    item: Item
    previous_item_id: str | None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """The item is gone."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    """The item as it stands, audio included."""

    item: Item


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """A reply is now as long as it was heard: by the client's word, or ours at an interruption (unasked for).

    At an interruption it comes behind `TurnClosed`. It may come a second time when the client then says where its
    player stood.
    """

    item_id: str
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class Condensed:
    """Old items are read in a shorter form from now on, or a summary of them is not used; the items stay as they are.

    Attributes:
        form: "text" = words instead of sound; "summary"; "none" = there was to be a summary, and they stay.
        reason: "context_full", or of "none" what is wrong with the summary: "empty", "too_long", "unrelated", "failed"
            or "changed".
        item_ids: those items.
        before, after: about how many positions of the context they took, and take.
        summary: its text.
    """

    form: Literal["text", "summary", "none"]
    reason: str
    item_ids: tuple[str, ...]
    before: int
    after: int
    summary: str = ""


# --- a turn of the assistant ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TurnError:
    """Why a turn failed."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ContextUse:
    """How full the model's context was behind a turn.

    Attributes:
        tokens: of instructions, tools, what was read of the conversation, and the reply.
        limit: the most that there can be.
        dropped: ids of the items that were left out from this turn on, for there was no room.
    """

    tokens: int
    limit: int
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnOpened:
    """A reply began. Its message item, should it say or write anything, will be `item_id` behind `previous_item_id`.

    A turn that only calls tools never makes that item: announce it with the first `TurnText` or `SendAudio`.
    Out-of-band turns have `options.conversation` False and no previous item.
    """

    turn: int
    item_id: str
    options: TurnOptions
    previous_item_id: str | None = None


@dataclass(frozen=True, slots=True)
class GuessOver:
    """What came of a reply that was begun before the person had surely finished; of none but these it is told.

    A guess that was right is told of behind `TurnOpened` and `ConfirmTurn`. Of another nothing else is ever told; this
    comes once the engine has let go of it.

    Attributes:
        saved: how much earlier its first sound (or text) was there because of the guess, whole microseconds.
        tokens: that were generated for nothing.
        work: of the engine for nothing, whole microseconds.
    """

    turn: int
    outcome: GuessOutcome
    saved: int = 0
    tokens: int = 0
    work: int = 0


@dataclass(frozen=True, slots=True)
class Guesses:
    """What came of all guesses of a call so far; the same measures as in `GuessOver`.

    Attributes:
        made: how many there were.
        right: how many of them were the reply.
    """

    made: int = 0
    right: int = 0
    saved: int = 0
    tokens: int = 0
    work: int = 0


@dataclass(frozen=True, slots=True)
class TurnThought:
    """More of the thought before the reply; only of turns with `options.think`, and before all else of the turn."""

    turn: int
    delta: str


@dataclass(frozen=True, slots=True)
class TurnText:
    """New text: of an audio turn its transcript, else the reply itself."""

    turn: int
    item_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class TurnTool:
    """The assistant calls a tool; `item_id` is the tool call's own item, `arguments` JSON text.

    With `server` the server runs it, or waits for the client's approval, and `ToolAnswered` follows.
    """

    turn: int
    item_id: str
    call_id: str
    name: str
    arguments: str
    server: ServerTool | None = None


@dataclass(frozen=True, slots=True)
class ToolAnswered:
    """What a tool of the server's has returned is in the conversation, as an item that no other notice tells of.

    Attributes:
        item_id: of the call.
        output: what the model reads.
        result_id: of the item that holds it.
        previous_item_id: of the one in front of that.
        failed: it is an error.
        more: it only says that the result comes later; another notice will tell of that.
    """

    item_id: str
    output: str
    result_id: str
    previous_item_id: str | None
    failed: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class TurnClosed:
    """The reply is over: every `TurnThought`, `SendAudio`, `TurnText` and `TurnTool` of it came before.

    Comes once per `TurnOpened`.

    "completed" means generated and *sent*; the player may still be at it, and an interruption during that time yields
    `Flush` and `ItemTruncated`.

    Attributes:
        status: completed, cancelled, failed, or incomplete (token limit).
        reason: None when completed.
        item: the reply as far as it was heard (interrupted) or sent (else); None if there was no message item.
        usage: token counts, from the engine; of a turn that was cut its input and what had come of it; None if the
            engine had not begun.
        error: with status failed.
        context: None where usage is, or where the engine does not know.
        latency: of the first that was sent of it; None if nothing was.
        guesses: of the call so far; None if there were none.
    """

    turn: int
    status: TurnStatus
    reason: CloseReason | None
    item: AssistantItem | None
    usage: Usage | None
    error: TurnError | None
    context: ContextUse | None = None
    latency: Waterfall | None = field(default=None, compare=False)
    guesses: Guesses | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TurnHeard:
    """How much of a spoken reply reached the ear, as far as we know: once it was heard to its end, or was cut.

    Comes again when the client then says where its player stood.

    Attributes:
        generated_ms: of sound that was made.
        sent_ms: of it that was sent.
        heard_ms: of it that was heard; the history's item ends there.
        words: that were generated.
        heard_words: that the history keeps.
        acknowledged: it goes by the player's word; else it is an estimate that is not ahead of the truth.
    """

    turn: int
    item_id: str
    generated_ms: int
    sent_ms: int
    heard_ms: int
    words: int
    heard_words: int
    acknowledged: bool


@dataclass(frozen=True, slots=True)
class Error:
    """A request that could not be met; it changed nothing. `event_id` is the request's."""

    code: str
    message: str
    param: str | None = None
    event_id: str | None = None


Notice = (
    SpeechStarted
    | Interruption
    | PassedOver
    | SpeechStopped
    | IdleTimedOut
    | Committed
    | BufferCleared
    | InputTranscriptDelta
    | InputTranscript
    | InputTranscriptFailed
    | ItemAdded
    | ItemDone
    | ItemDeleted
    | ItemRetrieved
    | ItemTruncated
    | Condensed
    | TurnOpened
    | GuessOver
    | TurnThought
    | TurnText
    | TurnTool
    | ToolAnswered
    | TurnClosed
    | TurnHeard
    | Error
)
