"""What server and engine say to each other, and the `EngineClient` seam; it knows neither models nor sockets.

Every message about a session carries its number, every message about a turn the turn's number too, so that what
arrives late can be dropped by comparison. The messages mirror `core.events` and `core.actions` as msgspec structs;
`mapping.py` translates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from voiceagent.core.actions import CancelTurn as CancelTurnAction
from voiceagent.core.actions import ConfirmTurn, EncodePiece, ForgetPieces, JudgeEnd, StartTurn, Transcribe
from voiceagent.core.actions import Prepare as PrepareAction
from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.events import AudioOut as AudioOutEvent
from voiceagent.core.events import (
    EndJudged,
    EngineDown,
    EngineUp,
    SpeechProb,
    TextOut,
    ThoughtOut,
    ToolCalled,
    Transcript,
    TranscriptDelta,
    TranscriptFailed,
    TurnEnded,
    TurnFailed,
    TurnStarted,
    Usage,
)

if TYPE_CHECKING:
    from voiceagent.engine.voices import Keeper

EngineEvent = (
    SpeechProb | EndJudged | TurnStarted | ThoughtOut | TextOut | AudioOutEvent | ToolCalled | TurnEnded | TurnFailed
    | TranscriptDelta | Transcript | TranscriptFailed | EngineDown | EngineUp
)  # fmt: skip
"""Every event that an engine can cause in a session."""

EngineAction = (
    StartTurn | ConfirmTurn | EncodePiece | ForgetPieces | PrepareAction | CancelTurnAction | Transcribe
    | JudgeEnd
)  # fmt: skip
"""Every action of a session that is the engine's to carry out."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Common form of all messages: an array on the wire whose first element is the type's name."""


# --- history, as it travels -------------------------------------------------------------------------------------


class Text(Message, frozen=True):
    """A text part of a user item."""

    text: str


class Heard(Message, frozen=True):
    """An audio part of a user item; the samples travelled before, in `Encode`, under these piece ids."""

    pieces: tuple[int, ...]
    transcript: str | None


class System(Message, frozen=True):
    """`core.history.SystemItem`."""

    id: str
    text: str


class User(Message, frozen=True):
    """`core.history.UserItem`."""

    id: str
    content: tuple[Text | Heard, ...]


class Assistant(Message, frozen=True):
    """`core.history.AssistantItem`: the heard part of an earlier reply."""

    id: str
    text: str
    text_ids: tuple[int, ...]
    audio_ids: tuple[int, ...]
    raw_ids: tuple[int, ...] | None
    spoken: bool
    samples: int
    complete: bool


class Call(Message, frozen=True):
    """`core.history.ToolCallItem`; `arguments` is JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str


class Result(Message, frozen=True):
    """`core.history.ToolResultItem`."""

    id: str
    call_id: str
    output: str


WireItem = System | User | Assistant | Call | Result


class Function(Message, frozen=True):
    """A tool that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Options(Message, frozen=True):
    """What one turn asks of the model; None and an empty voice = the checkpoint's default.

    `beside`: beside the conversation, at the same time as a turn of it; nobody waits for it.
    """

    spoken: bool
    instructions: str
    tools: tuple[Function, ...]
    tool_choice: str
    voice: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    max_tokens: int | None
    think: bool = False
    speed: float = 1.0
    script: str = ""
    beside: bool = False
    parallel_calls: bool = True
    keep_ratio: float | None = 0.8
    keep_tokens: int | None = None


# --- commands: server to engine ---------------------------------------------------------------------------------


class OpenSession(Message, frozen=True):
    """Make room for a session; answered by `Refused` when there is none."""

    session: int


class Audio(Message, frozen=True):
    """Input audio for the voice activity detector: float32 little-endian at 16 kHz, from sample `at` of the session."""

    session: int
    at: int
    pcm: bytes


class Encode(Message, frozen=True):
    """A piece of a turn: float32 little-endian mono at 16 kHz, at most 25 s; encoded when the loop has time."""

    session: int
    piece: int
    pcm: bytes


class Forget(Message, frozen=True):
    """Pieces that no later turn will name."""

    session: int
    pieces: tuple[int, ...]


class Begin(Message, frozen=True):
    """Generate a reply to `items` (the whole conversation, oldest first).

    `guess`: only while nobody waits for anything, and only its beginning, until a `Confirm` comes.
    """

    session: int
    turn: int
    items: tuple[WireItem, ...]
    options: Options
    guess: bool = False


class Confirm(Message, frozen=True):
    """A turn that was begun on a guess is wanted; one that is not there any more is no matter."""

    session: int
    turn: int


class Prepare(Message, frozen=True):
    """These items will soon be answered with these options: read them ahead when there is time. Nothing answers."""

    session: int
    items: tuple[WireItem, ...]
    options: Options


class Cancel(Message, frozen=True):
    """Stop a turn; answered by `Ended(reason="cancelled")` within one step of the loop."""

    session: int
    turn: int


class Write(Message, frozen=True):
    """Transcribe pieces sent before, in the background, behind those named before for the same item.

    Answered by `Writing` as the words come, and once by `Wrote` or `Unwritten`: when all is written and `more` was
    not said of the last pieces.
    """

    session: int
    item_id: str
    pieces: tuple[int, ...]
    more: bool = False
    how: Dictation = PLAIN


class Judge(Message, frozen=True):
    """Is what is said in a piece sent before, up to sample `at`, complete? Answered by `Judged`, or not at all."""

    session: int
    at: int
    piece: int


class Enrol(Message, frozen=True):
    """Make a voice of the bytes of a sound file, for all sessions; answered by `Enrolled` or `NotEnrolled`."""

    name: str
    data: bytes


class Dismiss(Message, frozen=True):
    """Forget a voice that was enrolled; what is being said with it is said to its end."""

    name: str


class CloseSession(Message, frozen=True):
    """Forget the session and all of its state."""

    session: int


class Ping(Message, frozen=True):
    """Heartbeat; answered by the loop that computes."""

    number: int


class Shutdown(Message, frozen=True):
    """Exit in an orderly way."""


Command = (
    OpenSession
    | Audio
    | Encode
    | Forget
    | Prepare
    | Begin
    | Confirm
    | Cancel
    | Write
    | Judge
    | CloseSession
    | Ping
    | Enrol
    | Dismiss
    | Shutdown
)


EndReason = Literal["stop", "max_tokens", "cancelled"]


# --- replies: engine to server ----------------------------------------------------------------------------------


class Loading(Message, frozen=True):
    """A stage of loading has begun; `done` is the fraction of stages behind it."""

    stage: str
    done: float


class Ready(Message, frozen=True):
    """The model is loaded and turns can begin."""

    model: str
    device: str
    dtype: str
    voices: tuple[str, ...]
    context_tokens: int
    max_sessions: int
    load_seconds: float
    can_think: bool = False


class Prob(Message, frozen=True):
    """Probability of speech in the 512 samples that end at sample `at` of the session, and their level (dB)."""

    session: int
    at: int
    p: float
    level: float | None = None


class Started(Message, frozen=True):
    """The turn is being computed (its prompt is being read); see `core.events.TurnStarted`."""

    session: int
    turn: int
    usage: Usage = Usage()
    limit: int = 0
    dropped: tuple[str, ...] = ()
    encoded: float = 0.0
    room: int = 0


class Thought(Message, frozen=True):
    """More of what the model thinks before it answers."""

    session: int
    turn: int
    text: str


class Spoke(Message, frozen=True):
    """New text of the turn and the token ids behind it."""

    session: int
    turn: int
    text: str
    ids: tuple[int, ...]


class Sound(Message, frozen=True):
    """New audio of the turn at its speed: s16le at 24 kHz, and the 0-based speech ids in it; `seq` counts from 0."""

    session: int
    turn: int
    seq: int
    pcm: bytes
    ids: tuple[int, ...]


class Called(Message, frozen=True):
    """The model called a tool; `arguments` is JSON text."""

    session: int
    turn: int
    call_id: str
    name: str
    arguments: str


class Ended(Message, frozen=True):
    """The turn is over: reason is stop, max_tokens or cancelled; all of its audio has been sent.

    `spent`: seconds of work.
    """

    session: int
    turn: int
    reason: EndReason
    usage: Usage
    raw_ids: tuple[int, ...]
    spent: float = 0.0


class Failed(Message, frozen=True):
    """The turn is over with an error; other turns and sessions are not touched."""

    session: int
    turn: int
    code: str
    message: str


class Writing(Message, frozen=True):
    """More of what was heard in an item's pieces."""

    session: int
    item_id: str
    text: str


class Wrote(Message, frozen=True):
    """What was heard in an item's pieces, whole; `scores` of its tokens if they were asked for."""

    session: int
    item_id: str
    text: str
    scores: tuple[TokenScore, ...] = ()


class Unwritten(Message, frozen=True):
    """What was heard in an item's pieces could not be written down."""

    session: int
    item_id: str
    code: str
    message: str


class Judged(Message, frozen=True):
    """What was said up to sample `at`, and how likely it is that nothing follows; see `core.events.EndJudged`."""

    session: int
    at: int
    text: str
    complete: float


class Enrolled(Message, frozen=True):
    """Turns may ask for the voice; `clip` is its recording as a plain WAV file, of which it can be made again."""

    name: str
    clip: bytes
    seconds: float


class NotEnrolled(Message, frozen=True):
    """No voice came of a recording: it cannot be used, there is no room for it, or the engine failed on it."""

    name: str
    kind: Literal["input", "overloaded", "engine"]
    code: str
    message: str
    remedy: str


class Refused(Message, frozen=True):
    """There is no room for the session; `remedy` says what would help."""

    session: int
    code: str
    message: str
    remedy: str


class Pong(Message, frozen=True):
    """Answer to `Ping`."""

    number: int


class Fatal(Message, frozen=True):
    """The engine cannot go on and exits; while loading, `code` tells a bad checkpoint from a broken machine."""

    code: str
    message: str
    remedy: str


Reply = (
    Loading
    | Ready
    | Prob
    | Started
    | Thought
    | Spoke
    | Sound
    | Called
    | Ended
    | Failed
    | Writing
    | Wrote
    | Unwritten
    | Judged
    | Refused
    | Pong
    | Fatal
    | Enrolled
    | NotEnrolled
)


# --- the seam ---------------------------------------------------------------------------------------------------


class EngineSession(Protocol):
    """One session's handle on an engine. All methods return at once; what comes of them arrives as events."""

    number: int

    def hear(self, at: int, pcm: npt.NDArray[np.float32]) -> None:
        """Input audio (n,) at 16 kHz that begins at sample `at`; answered by `SpeechProb` events."""

    def send(self, action: EngineAction) -> None:
        """Carry out an action. While the engine is down a `StartTurn` is answered by `TurnFailed`."""

    def close(self) -> None:
        """Give the slot back; no event is delivered afterwards. Closing twice is fine."""


class EngineClient(Protocol):
    """An engine as the server sees it: local process, fake, or another machine."""

    @property
    def voices(self) -> Keeper:
        """The voices that clients bring; there while the engine is down too."""

    @property
    def ready(self) -> Ready | None:
        """What is loaded; None while the engine is down or loading."""

    @property
    def slots_used(self) -> int:
        """How many sessions there are."""

    @property
    def restarts(self) -> int:
        """How many times it came back after it was lost."""

    async def start(self, on_progress: Callable[[Loading], None] | None = None) -> Ready:
        """Start and wait until turns can begin; raises `CheckpointError` or `EngineError` if that fails."""

    async def stop(self) -> None:
        """Stop for good; open sessions get no further events."""

    async def open_session(self, on_event: Callable[[EngineEvent], None]) -> EngineSession:
        """A new session.

        Args:
            on_event: called on the event loop, in order, never from inside a call of the session's methods.

        Raises:
            CapacityError: all slots are taken.
            EngineError: the engine is down (`engine_down`).
        """
