"""Everything that can happen to a session: from the client, from the engine, from the line; it decides nothing.

Positions of input audio (`at`) count samples at 16 kHz since the session began. Events that a client causes carry its
`event_id`, so that an error can name the request that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import Item

Modality = Literal["audio", "text"]
BargeInMode = Literal["patient", "quick"]


# --- what a session and a turn are asked to be ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filler:
    """Words for the time in which a tool of the server's has nothing to tell yet.

    Attributes:
        text: said exactly so.
        after_ms: of quiet on both sides; who has the result by then says nothing.
    """

    text: str
    after_ms: int = 1200


@dataclass(frozen=True, slots=True)
class ServerTool:
    """What makes a tool one that the server runs.

    Attributes:
        label: where it comes from, in the client's words.
        name: what it is called there.
        background: the model is told at once that the result comes later, and the talk goes on.
        approval: it is not run before the client has approved of the call.
        read_only: it changes nothing, by its own word.
        reply: the reply to what it returned begins by itself; otherwise the client asks for it.
        filler: instead of the session's; None = that.
    """

    label: str
    name: str
    background: bool = False
    approval: bool = False
    read_only: bool = False
    reply: bool = True
    filler: Filler | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is its JSON schema. Without `server` the client runs it."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    server: ServerTool | None = None


Eagerness = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class ServerVad:
    """The server finds the turns by voice activity.

    Attributes:
        threshold: probability of speech that begins a turn, 0..1.
        prefix_padding_ms: audio kept from before the voice began.
        silence_duration_ms: silence that ends a turn.
        create_response: answer when a turn ends.
        interrupt_response: a voice over ours stops us.
        idle_timeout_ms: silence after our reply that is answered like a turn; None = never.
        eagerness: the silence that ends a turn depends on what was said and on the person's pace, as patience.py says;
            `silence_duration_ms` holds while there is no verdict. None = it is always that.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    eagerness: Eagerness | None = None


@dataclass(frozen=True, slots=True)
class Truncation:
    """What is read of a conversation that is longer than the context.

    Attributes:
        ratio: the oldest turns are left out until this share of the room is left; None = none are, the turn fails.
        limit: tokens that the conversation may take behind instructions and tools; None = what there is room for.
    """

    ratio: float | None = 0.8
    limit: int | None = None


OldAudio = Literal["keep", "text"]
Summaries = Literal["off", "model"]


@dataclass(frozen=True, slots=True)
class Condensing:
    """What is done with old turns as the context fills, before any has to be left out.

    Attributes:
        audio: "text" = their words are read instead of their sound; "keep" = nothing is done.
        summary: "model" = the oldest of these become a summary, which the model writes; "off" = they stay.
    """

    audio: OldAudio = "text"
    summary: Summaries = "off"


@dataclass(frozen=True, slots=True)
class ItemReference:
    """In `TurnOptions.input`: the item of the history that has this id."""

    id: str


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """What one turn asks of the model; None in the sampling fields = the checkpoint's default.

    Attributes:
        tool_choice: "auto", "none", "required", or the name of a function.
        think: think before answering; only where the checkpoint can.
        truncation: what to do when the conversation does not fit.
        parallel_calls: the reply may call more than one tool.
        speed: of the speech, at the same pitch; 2 = twice as fast.
        script: a spoken reply says exactly this; empty = the model finds the words.
        interruptible: a voice may stop it (besides `ServerVad.interrupt_response`).
        protected_ms: once it is to be heard, no voice may stop it before so much of it was heard.
        metadata, format: the dialect's own: what the client named it by, and how its audio goes out.
        filler: said when a tool of the server's takes long; None = nothing is.
        conversation: False = beside it (asides.py): it is read, but neither the reply nor `input` is added to it.
        input: the model sees these items instead of the history; None = the history.
        sums_up: it is the core's own (condense.py), and the client is told nothing of it.
    """

    modalities: Modality = "audio"
    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    voice: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    think: bool = False
    truncation: Truncation = Truncation()
    parallel_calls: bool = True
    speed: float = 1.0
    script: str = ""
    interruptible: bool = True
    protected_ms: int = 0
    metadata: Mapping[str, str] | None = None
    format: str | None = None
    filler: Filler | None = None
    conversation: bool = True
    input: tuple[Item | ItemReference, ...] | None = None
    sums_up: bool = False


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What the session does unless a turn says otherwise.

    Attributes:
        turn_detection: None = manual: the client commits its audio and asks for each reply.
        transcribe: write down what the person said, as `dictation` says.
        alone: an utterance's answer sees that utterance and nothing before it, as of an interpreter.
        replies: False = listen and write down only; nothing is ever answered, and holds for the whole session.
        lead_ms: how far audio is sent ahead of its playing; None = as soon as it is there.
        barge_in: "patient": what is no interruption (a cough, "mm-hm") does not end a reply; "quick": any voice of
            200 ms does. Where `lead_ms` is None or long, holding back does not silence us, and it is always quick.
        cancel_echo: our own voice may come back with the person's, and is taken out of it.
        speculation: a reply may be begun at the first likely end of what the person says, and held until it is decided.
        think: think before each answer; only where the checkpoint can.
        truncation, parallel_calls, filler: see `TurnOptions`.
        condensing: what comes before truncation.
        speed: of the speech, at the same pitch.
        protected_ms: see `TurnOptions`.
    """

    instructions: str = ""
    modalities: Modality = "audio"
    voice: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    turn_detection: ServerVad | None = ServerVad()
    transcribe: bool = False
    dictation: Dictation = PLAIN
    replies: bool = True
    alone: bool = False
    lead_ms: int | None = None
    barge_in: BargeInMode = "patient"
    cancel_echo: bool = False
    speculation: bool = False
    think: bool = False
    truncation: Truncation = Truncation()
    parallel_calls: bool = True
    filler: Filler | None = None
    speed: float = 1.0
    condensing: Condensing = Condensing()
    protected_ms: int = 0

    def turn_options(self) -> TurnOptions:
        """The options of a turn that asks for nothing special."""
        return TurnOptions(
            modalities=self.modalities,
            instructions=self.instructions,
            tools=self.tools,
            tool_choice=self.tool_choice,
            voice=self.voice,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens,
            think=self.think,
            truncation=self.truncation,
            parallel_calls=self.parallel_calls,
            filler=self.filler,
            speed=self.speed,
            protected_ms=self.protected_ms,
        )


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
