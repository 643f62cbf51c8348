"""What is to be done in a session while no turn waits for it: pieces, prompts to read ahead, captions; bookkeeping."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import Item, Piece
from voiceagent.core.utterances import gap
from voiceagent.engine.api import Options
from voiceagent.engine.scheduler import ENCODE_DEADLINE_S, Chore
from voiceagent.engine.slots import SlotTable


@dataclass(slots=True)
class Early:
    """A conversation that will soon be answered; `job` is the runner's state once it is being read."""

    items: tuple[Item, ...]
    options: Options
    arrived: float
    job: Any = None


@dataclass(slots=True)
class Caption:
    """A transcription, piece by piece.

    Attributes:
        pieces: still to be written down; the first is being.
        arrived: when there was something to do.
        more: further pieces will come.
        job: the runner's state of the first piece, once it is being read.
        read: it is all read.
        how: what is known of the speech, and what is to be told of it.
        text: the words so far.
        begun: some of them are the first piece's.
        scores: of their tokens, if they were asked for.
    """

    pieces: deque[Piece]
    arrived: float
    more: bool = False
    how: Dictation = PLAIN
    job: Any = None
    read: bool = False
    text: str = ""
    begun: bool = False
    scores: tuple[TokenScore, ...] = ()

    def take(self, text: str) -> str:
        """More words of the first piece; returns them as they continue the text."""
        if text and not self.begun:
            self.begun = True
            text = gap(self.text, text) + text
        self.text += text
        return text

    def next_piece(self) -> None:
        """The first piece is written down."""
        self.pieces.popleft()
        self.job, self.read, self.begun = None, False, False


@dataclass(slots=True)
class Judgement:
    """A question whether what was said so far is complete.

    Attributes:
        piece: what was said.
        at: sample of the input at which the words ended.
        job, read, text: as in `Caption`.
    """

    piece: Piece
    at: int
    arrived: float
    job: Any = None
    read: bool = False
    text: str = ""


class Background:
    """All chores of an engine."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[int, int], float] = {}  #: (session, piece) -> when it came
        self.early: dict[int, Early] = {}  #: by session; the newest only
        self.judgements: dict[int, Judgement] = {}  #: by session; the newest only
        self.captions: dict[tuple[int, str], Caption] = {}  #: by session and item

    def chores(self, table: SlotTable) -> list[Chore]:
        """What could be done now: a prompt is read ahead, and a piece written down, when it is all encoded."""
        return [*self._pieces(), *self._judgements(), *self._early(table), *self._captions()]

    def drop(self, session: int) -> list[Any]:
        """Forget all of a session; returns the jobs that had begun."""
        self.pieces = {key: at for key, at in self.pieces.items() if key[0] != session}
        early, judgement = self.early.pop(session, None), self.judgements.pop(session, None)
        mine = [key for key in self.captions if key[0] == session]
        jobs = [self.captions.pop(key).job for key in mine]
        jobs += [chore.job for chore in (early, judgement) if chore is not None]
        return [job for job in jobs if job is not None]

    def _pieces(self) -> Iterator[Chore]:
        asked = {(session, judgement.piece.id) for session, judgement in self.judgements.items()}
        for key, at in self.pieces.items():
            yield Chore("encode", *key, at - ENCODE_DEADLINE_S if key in asked else at)

    def _judgements(self) -> Iterator[Chore]:
        for session, judgement in self.judgements.items():
            if judgement.read:
                yield Chore("conclude", session, "", judgement.arrived)
            elif (session, judgement.piece.id) not in self.pieces:
                yield Chore("judge", session, "", judgement.arrived)

    def _early(self, table: SlotTable) -> Iterator[Chore]:
        for session, early in self.early.items():
            slot = table.get(session)
            if slot is not None and not slot.talk() and not slot.missing(early.items):
                yield Chore("prepare", session, "", early.arrived)

    def _captions(self) -> Iterator[Chore]:
        """Of each session the oldest, so that words come in the order in which they were said."""
        seen: set[int] = set()
        for (session, item_id), caption in self.captions.items():
            if session in seen:
                continue
            seen.add(session)
            if caption.read:
                yield Chore("write", session, item_id, caption.arrived)
            elif caption.pieces and (session, caption.pieces[0].id) not in self.pieces:
                yield Chore("listen", session, item_id, caption.arrived)
