"""What the loop asks of a runner, and what it gets back; neither knows how the other works.

A job is the runner's own state of a reply, a caption or a prompt that is read ahead: opaque to the loop. A call for
several jobs that raises has changed none of them; what concerns one job only is that job's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.events import Usage
from voiceagent.core.history import Item, Piece
from voiceagent.engine import api
from voiceagent.engine.scheduler import Limits
from voiceagent.engine.slots import Turn

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that the model wrote; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Written:
    """What one decoding step brought to a job; to a caption, only text and its end."""

    text: str = ""
    text_ids: tuple[int, ...] = ()
    audio_ids: tuple[int, ...] = ()  #: 0-based, pads dropped
    calls: tuple[ToolUse, ...] = ()
    ended: Literal["stop", "max_tokens"] | None = None  #: once the model is done
    thought: str = ""  #: what it thinks before it answers
    reading: bool = False  #: the thought is over, and the prompt of the reply is to be read


@dataclass(frozen=True, slots=True)
class Summary:
    """What a turn cost and wrote so far; positions of the context, and items that were left out of it."""

    usage: Usage
    raw_ids: tuple[int, ...]
    limit: int = 0
    dropped: tuple[str, ...] = ()
    room: int = 0  #: positions that items may take until some are left out


@dataclass(frozen=True, slots=True)
class Speech:
    """One stream's share of a vocoding step: speak `ids`; `last` ends the stream."""

    job: Any
    ids: list[int]
    last: bool


class Runner(Protocol):
    """Executes single steps. A step that fails loses its turn; `is_device_loss` says when it loses everything.

    All calls come from one thread, except `add_voice`, and `vocode`: that comes from as many others as `limits.lanes`
    says, never twice at once for one job.
    """

    @property
    def limits(self) -> Limits:
        """How much one step may hold on this device."""

    def encode(self, pieces: Sequence[tuple[int, Piece]]) -> list[Exception | None]:
        """Make and keep the embeddings of pieces: (session, piece) each."""

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Drop the embeddings of these pieces."""

    def begin(self, turn: Turn) -> Any:
        """A job for the turn: check it and set aside the memory that it can need, compute nothing.

        Raises:
            CapacityError: there is not that much memory; the turn fails, nothing else does.
        """

    def listen(
        self, session: int, pieces: tuple[Piece, ...], *, how: Dictation = PLAIN, kept: bool = False
    ) -> Any:
        """As `begin`, a job for a caption of encoded pieces; `kept`: that will be asked for more than its words."""

    def scores(self, job: Any) -> tuple[TokenScore, ...]:
        """How likely each token of a written caption was (one that was kept)."""

    def completeness(self, job: Any, pieces: tuple[Piece, ...]) -> float:
        """How likely it is that nothing follows what a written caption of these pieces says (one that was kept)."""

    def prepare(self, session: int, items: tuple[Item, ...], options: api.Options) -> Any:
        """A job that only reads, for a conversation that will be answered soon; takes no memory that others use."""

    def read(self, job: Any, positions: int) -> bool:
        """Read on in the job's prompt, so many positions at most; True once all is read."""

    def decode(self, jobs: Sequence[Any]) -> list[Written | Exception]:
        """Generate one token for each reply or caption."""

    def wanted(self, job: Any) -> int:
        """How many speech ids the next vocoding step wants."""

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        """Speak ids of several streams: of each the 24 kHz samples that are ready."""

    def summary(self, job: Any) -> Summary:
        """Usage and ids of a reply so far."""

    def add_voice(self, name: str, samples: npt.NDArray[np.float32]) -> None:
        """Make a voice of (n,) samples at 24 kHz, from a thread of its own, one at a time.

        Raises:
            InputError: the recording cannot be used.
            CapacityError: there is no memory for another voice.
        """

    def drop_voice(self, name: str) -> None:
        """Forget a voice that was added, if there is one; turns that have begun go on with it."""

    def finish(self, job: Any) -> None:
        """The job is over, or given up: free what is its own. Once per job, never while it is vocoded."""

    def close(self, session: int) -> None:
        """Drop everything of a session; also called after a step of it failed."""

    def is_device_loss(self, error: BaseException) -> bool:
        """Whether the device is gone, so that the process must end."""
