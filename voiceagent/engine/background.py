"""What is to be done in a session while no turn waits for it: pieces, prompts to read ahead, captions; bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voiceagent.core.history import Item, Piece
from voiceagent.engine.api import Options
from voiceagent.engine.scheduler import Chore
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
    """A transcription: of what, and the runner's state once it is being read; then, whether it is all read."""

    pieces: tuple[Piece, ...]
    arrived: float
    job: Any = None
    read: bool = False


class Background:
    """All chores of an engine."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[int, int], float] = {}  #: (session, piece) -> when it came
        self.early: dict[int, Early] = {}  #: by session; the newest only
        self.captions: dict[tuple[int, str], Caption] = {}  #: by session and item

    def chores(self, table: SlotTable) -> list[Chore]:
        """What could be done now: a prompt is read ahead, and a caption begun, when all of its pieces are encoded."""
        return [*self._pieces(), *self._early(table), *self._captions()]

    def drop(self, session: int) -> list[Any]:
        """Forget all of a session; returns the jobs that had begun."""
        self.pieces = {key: at for key, at in self.pieces.items() if key[0] != session}
        early = self.early.pop(session, None)
        mine = [key for key in self.captions if key[0] == session]
        jobs = [self.captions.pop(key).job for key in mine] + [early.job if early is not None else None]
        return [job for job in jobs if job is not None]

    def _pieces(self) -> Iterator[Chore]:
        for (session, piece), at in self.pieces.items():
            yield Chore("encode", session, piece, at)

    def _early(self, table: SlotTable) -> Iterator[Chore]:
        for session, early in self.early.items():
            slot = table.get(session)
            if slot is not None and not slot.turns and not slot.missing(early.items):
                yield Chore("prepare", session, "", early.arrived)

    def _captions(self) -> Iterator[Chore]:
        for (session, item_id), caption in self.captions.items():
            if caption.read:
                yield Chore("write", session, item_id, caption.arrived)
            elif not any((session, piece.id) in self.pieces for piece in caption.pieces):
                yield Chore("listen", session, item_id, caption.arrived)
