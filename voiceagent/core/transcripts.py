"""What of the person's words is being written down; it knows no voice and no reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core.conversation import Conversation
from voiceagent.core.dictation import PLAIN, Dictation
from voiceagent.core.history import AudioContent, Piece, UserItem

DOWN = notices.TurnError("engine_down", "The engine stopped and is being restarted.")


@dataclass(slots=True)
class Transcripts:
    """The transcripts that were asked for and have not come.

    Attributes:
        keep_audio: whether an item's audio is needed once its words are there.
        how: what is known of the speech that is written down from now on.
        growing: id of the item to come whose words are written while the person still speaks.
    """

    talk: Conversation
    keep_audio: bool = True
    how: Dictation = PLAIN
    growing: str | None = None
    _up: bool = True
    _broken: notices.TurnError | None = None  # why what is growing has lost its beginning
    _grown: list[int] = field(default_factory=list)  # pieces of it so far
    _pending: dict[str, int] = field(default_factory=dict)  # item -> index of its audio content

    def grow(self, item_id: str, pieces: list[Piece]) -> list[act.Action]:
        """Pieces of an utterance that goes on, and will be an item of this id."""
        self.growing = item_id
        self._grown += [piece.id for piece in pieces]
        self._broken = self._broken or (None if self._up else DOWN)
        return [] if self._broken else [act.Transcribe(item_id, tuple(pieces), more=True, how=self.how)]

    def finish(self, fresh: list[Piece]) -> list[act.Action]:
        """The growing item is in the conversation; these are its last pieces."""
        item_id, broken, _ = self._stop()
        assert item_id is not None
        return self._fail(item_id, 0, broken) if broken else self._ask(item_id, tuple(fresh), 0)

    def abandon(self) -> list[act.Action]:
        """The utterance that is growing will not be an item after all."""
        item_id, broken, grown = self._stop()
        made: list[act.Action] = [act.ForgetPieces(grown)] if grown else []
        return made if item_id is None or broken else [act.Transcribe(item_id, ()), *made]

    def _stop(self) -> tuple[str | None, notices.TurnError | None, tuple[int, ...]]:
        stopped = self.growing, self._broken, tuple(self._grown)
        self.growing, self._broken, self._grown = None, None, []
        return stopped

    def begin(self, item: UserItem) -> list[act.Action]:
        """The item's words, if it holds audio without any: of the first such part."""
        for index, part in enumerate(item.content):
            if isinstance(part, AudioContent) and part.transcript is None and part.pieces:
                return self._ask(item.id, part.pieces, index)
        return []

    def awaits(self, item_id: str) -> bool:
        """Whether an item's words are on their way."""
        return item_id in self._pending

    def _ask(self, item_id: str, pieces: tuple[Piece, ...], index: int) -> list[act.Action]:
        if not self._up:
            return self._fail(item_id, index, DOWN)
        self._pending[item_id] = index
        return [act.Transcribe(item_id, pieces, how=self.how)]

    # --- what the engine brings ---------------------------------------------------------------------------------

    def on_engine(self, event: ev.TranscriptEvent | ev.EngineDown | ev.EngineUp) -> list[act.Action]:
        """Words, the end of an item's words, or the end of the engine, which ends all transcripts."""
        match event:
            case ev.EngineUp():
                self._up = True
                return []
            case ev.EngineDown():
                return self._lose_all()
            case ev.TranscriptDelta(item_id, text):
                known = item_id == self.growing or isinstance(self.talk.history.find(item_id), UserItem)
                index = self._pending.get(item_id, 0)
                return [notices.InputTranscriptDelta(item_id, index, text)] if known else []
            case ev.Transcript(item_id, text, scores):
                made = self.talk.transcript(item_id, self._pending.pop(item_id, None), text, scores)
                return [*made, *self._release(item_id)]
            case ev.TranscriptFailed(item_id, code, message):
                if item_id == self.growing:
                    self._broken = notices.TurnError(code, message)
                return self._fail(item_id, self._pending.pop(item_id, 0), notices.TurnError(code, message))
            case _:
                assert_never(event)

    def _lose_all(self) -> list[act.Action]:
        self._up = False
        self._broken = DOWN if self.growing is not None else None
        pending, self._pending = self._pending, {}
        return [do for item_id, index in pending.items() for do in self._fail(item_id, index, DOWN)]

    def _fail(self, item_id: str, index: int, error: notices.TurnError) -> list[act.Action]:
        if self.talk.history.find(item_id) is None:
            return []
        return [notices.InputTranscriptFailed(item_id, index, error), *self._release(item_id)]

    def _release(self, item_id: str) -> list[act.Action]:
        return [] if self.keep_audio else self.talk.drop_audio(item_id)
