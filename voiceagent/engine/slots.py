"""The slot table: what each session has in the engine, and how far each of its turns is; pure bookkeeping.

It knows no tensors: what the runner keeps for a turn is an opaque `job` here. Time is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np

from voiceagent.audio.pcm import Int16
from voiceagent.audio.tempo import Tempo
from voiceagent.core.history import Item, Piece
from voiceagent.core.history import item_pieces as item_pieces
from voiceagent.engine.api import EndReason, Options
from voiceagent.errors import CapacityError
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE, unhurried

FIRST_SOUND_S = 0.5  #: the listener should hear something this long after asking; the deadline of a new turn
SOUND_PATIENCE_S = (
    0.01  #: each token without a sound moves the deadline, so that no turn can hold the others up
)
TOKEN_S = TOKEN_SAMPLES / VOICE_RATE  #: sound of one speech id
TEXT_PATIENCE_S = 0.05  #: a reader takes some 20 tokens a second
ASIDE_PATIENCE_S = 2.0  #: a turn beside the conversation waits so long for a calm moment,
GUESS_PATIENCE_S = 1e6  #: a guess comes behind everything, the oldest first
ASIDE_PACE_S = 0.25  #: and then so long between two steps
MAX_WAITING_TURNS = 5  #: of one session: four beside the conversation, and one that sums it up


class Stage(Enum):
    """How far a turn is."""

    WAITING = auto()  #: nothing has been done for it
    READING = auto()  #: its prompt is being read
    DECODING = auto()  #: the language model writes
    DRAINING = auto()  #: the language model is done, the vocoder still has ids to speak


@dataclass(slots=True, eq=False)
class Turn:
    """One reply in the making."""

    session: int
    turn: int
    items: tuple[Item, ...]
    options: Options
    arrived: float  #: seconds on the loop's clock
    guess: bool = False  #: nobody waits for it, and perhaps nobody ever will
    stage: Stage = Stage.WAITING
    job: Any = None  #: the runner's own state for the turn, once it has begun
    reason: EndReason = "stop"  #: why the language model ended
    waiting_ids: list[int] = field(default_factory=list)  #: speech ids that the vocoder has not had
    unsent_ids: deque[int] = field(default_factory=deque)  #: speech ids whose samples have not come out
    voiced: bool = False  #: some speech ids have come
    vocoding: bool = False  #: a speech lane is at work on it
    closed: bool = False  #: the vocoder has ended its stream
    tempo: Tempo | None = None  #: what makes its speech faster or slower, once that has begun
    samples: int = 0  #: 24 kHz samples sent
    seq: int = 0  #: number of the next audio message
    playing_until: float | None = None  #: when a listener who heard the first sound at once would run dry
    quiet_tokens: int = 0  #: tokens since the last sound
    served_at: float | None = None  #: when it had its last step
    call_count: int = 0  #: tool calls so far
    encoded: float = 0.0  #: seconds that the session's audio took to encode while the turn waited
    spent: float = 0.0  #: seconds of work for it

    @property
    def beside(self) -> bool:
        """Whether it is beside the conversation."""
        return self.options.beside

    @property
    def sounding(self) -> bool:
        """Whether its listener has heard a first sound, or its reader read a first word."""
        return self.playing_until is not None or (self.quiet_tokens > 0 and not self.options.spoken)

    @property
    def apart(self) -> bool:
        """Whether it has a context of its own: given words that answer nothing must not cost the conversation its."""
        return self.options.beside or (bool(self.options.script) and not self.items)

    def deadline(self) -> float:
        """When the listener starts to miss something; the chunk with the earliest one is spoken first.

        Nobody listens to a turn beside the conversation: its deadline is a pace that it must not fall behind. A guess
        has none.
        """
        if self.guess:
            return self.arrived + GUESS_PATIENCE_S
        if self.beside:
            patience = ASIDE_PATIENCE_S if self.served_at is None else ASIDE_PACE_S
            return (self.served_at or self.arrived) + patience
        if not self.options.spoken:
            return self.arrived + FIRST_SOUND_S + TEXT_PATIENCE_S * self.quiet_tokens
        return self._dry_at() + SOUND_PATIENCE_S * self.quiet_tokens

    def need(self) -> float:
        """When the language model must go on: what lies in tokens already is sound to come."""
        if self.beside or self.guess or not self.options.spoken:
            return self.deadline()
        return max(self.deadline(), self._dry_at() + TOKEN_S * len(self.unsent_ids) / self.options.speed)

    def _dry_at(self) -> float:
        return self.arrived + FIRST_SOUND_S if self.playing_until is None else self.playing_until

    def paced(self, pcm: Int16, *, last: bool) -> Int16:
        """What came out of the vocoder, at the speed that was asked for; not twice at once."""
        if self.options.speed == 1.0:
            return pcm
        self.tempo = self.tempo or Tempo(self.options.speed)
        pcm = self.tempo.push(pcm)
        return np.concatenate([pcm, self.tempo.finish()]) if last else pcm

    def sounded(self, samples: int, *, now: float, last: bool) -> tuple[int, ...]:
        """Account for `samples` that go out; returns the speech ids that are now whole in them."""
        self.playing_until = max(self.playing_until or now, now) + samples / VOICE_RATE
        self.quiet_tokens = 0
        before = self._spoken()
        self.samples += samples
        whole = len(self.unsent_ids) if last else self._spoken() - before
        return tuple(self.unsent_ids.popleft() for _ in range(min(whole, len(self.unsent_ids))))

    def _spoken(self) -> int:
        """Speech ids that are whole in the samples so far."""
        return unhurried(self.samples, self.options.speed) // TOKEN_SAMPLES


@dataclass(slots=True, eq=False)
class Slot:
    """One session: its audio and its turns, of which the first and all that are beside the conversation run."""

    session: int
    pieces: dict[int, Piece] = field(default_factory=dict)
    encoded: set[int] = field(default_factory=set)
    turns: deque[Turn] = field(default_factory=deque)
    doomed: set[int] = field(default_factory=set)  #: pieces to be forgotten once no turn names them

    def talk(self) -> tuple[Turn, ...]:
        """The turns of the conversation, one after the other."""
        return tuple(turn for turn in self.turns if not turn.beside)

    def asides(self) -> tuple[Turn, ...]:
        """The turns beside the conversation, all at once."""
        return tuple(turn for turn in self.turns if turn.beside)

    def idle_doomed(self) -> tuple[int, ...]:
        """The doomed pieces that no turn names; they are doomed no longer."""
        if not self.doomed:
            return ()
        named = {piece.id for turn in self.turns for item in turn.items for piece in item_pieces(item)}
        free = self.doomed - named
        self.doomed &= named
        return tuple(sorted(free))

    def missing(self, items: Iterable[Item]) -> tuple[int, ...]:
        """Pieces of a conversation that are not yet encoded, oldest first."""
        named = (piece.id for item in items for piece in item_pieces(item))
        return tuple(piece for piece in named if piece not in self.encoded)


class SlotTable:
    """All sessions of the engine, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slots: dict[int, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, session: int) -> Slot | None:
        """The session's slot; None for one that was closed or refused."""
        return self._slots.get(session)

    def open(self, session: int) -> Slot:
        """A fresh slot (an old one of that number is dropped); raises `CapacityError` when all are taken."""
        self._slots.pop(session, None)
        if len(self._slots) >= self.limit:
            raise CapacityError(
                f"All {self.limit} session slots of the engine are taken.",
                remedy="Try again when a session has ended.",
            )
        slot = self._slots[session] = Slot(session)
        return slot

    def close(self, session: int) -> None:
        """Drop the session with all of its turns; a number that is not there is fine."""
        self._slots.pop(session, None)
