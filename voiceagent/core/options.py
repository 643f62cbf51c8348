"""What a session and a turn can be asked to be; it decides nothing. The defaults are those of the Realtime protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from voiceagent.core.dictation import PLAIN, Dictation
from voiceagent.core.history import Item

Modality = Literal["audio", "text"]
BargeInMode = Literal["patient", "quick"]


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
