"""What was said in a call, as immutable items, and how it is cut to what was heard; knows no protocol and no model.

Every operation returns a new `History`: whoever holds an old one (a turn being generated) keeps what it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from voiceagent.units import TOKEN_SAMPLES, spoken_at, unhurried

ROOT = "root"
"""As `previous_item_id`: in front of everything."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a person's turn: at most 25 s of float32 mono at 16 kHz, read-only.

    `id` is unique in the session. Items that a client creates may carry any id and any length: the controller numbers
    their pieces anew and cuts them at 25 s.
    """

    id: int
    audio: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextContent:
    """Text of a person."""

    text: str


@dataclass(frozen=True, slots=True)
class AudioContent:
    """Speech of a person, and what was understood of it once that is known.

    Attributes:
        words: what the model understood for its own later reading, where nobody asked for a transcript.
    """

    pieces: tuple[Piece, ...]
    transcript: str | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class SystemItem:
    """An instruction in the middle of the conversation."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class UserItem:
    """What a person said or wrote."""

    id: str
    content: tuple[TextContent | AudioContent, ...]


@dataclass(frozen=True, slots=True)
class AssistantItem:
    """What the assistant said, as far as it was heard.

    Attributes:
        text: the words.
        text_ids: token ids of `text`; empty if they are not known (an item that a client created).
        audio_ids: speech token ids 0..6560 without pads, `TOKEN_SAMPLES` samples each at a speed of 1.
        raw_ids: everything that was generated after `<tts_start>`, without the end of turn; None once cut.
        spoken: it was an audio turn.
        samples: samples at 24 kHz behind it.
        complete: generated to its end and not cut.
        marks: (characters, ids) of `text` and `text_ids` that belong together, ascending: where the text may be cut.
        speed: how fast it was spoken.
        audio: its sound, (n,) int16 at 24 kHz each, `samples` together; empty if it is not kept. No part of what the
            item says.
    """

    id: str
    text: str
    text_ids: tuple[int, ...] = ()
    audio_ids: tuple[int, ...] = ()
    raw_ids: tuple[int, ...] | None = None
    spoken: bool = False
    samples: int = 0
    complete: bool = True
    marks: tuple[tuple[int, int], ...] = ()
    speed: float = 1.0
    audio: tuple[npt.NDArray[np.int16], ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ToolCallItem:
    """A tool that the assistant called; `arguments` is JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResultItem:
    """What a tool returned."""

    id: str
    call_id: str
    output: str


Item = SystemItem | UserItem | AssistantItem | ToolCallItem | ToolResultItem

KEPT_SHARE = 0.75
"""Sound over its budget is cut down to this share of it, so that not every turn changes what the model has read."""


def audio_bytes(item: Item) -> int:
    """Bytes of sound that an item holds."""
    if isinstance(item, AssistantItem):
        return sum(part.nbytes for part in item.audio)
    return sum(piece.audio.nbytes for piece in item_pieces(item))


def without_audio(item: Item) -> Item:
    """The item without its sound; the transcript stays, where there is one."""
    if isinstance(item, AssistantItem):
        return replace(item, audio=())
    if not isinstance(item, UserItem):
        return item
    content = tuple(
        replace(part, pieces=()) if isinstance(part, AudioContent) else part for part in item.content
    )
    return replace(item, content=content)


def as_text(item: Item) -> Item:
    """The item as it is read in a short form: words instead of sound, but for sound whose words are not known."""
    if isinstance(item, AssistantItem) and item.spoken:
        return replace(item, audio_ids=(), raw_ids=None, spoken=False, audio=())
    if not isinstance(item, UserItem):
        return item
    return replace(item, content=tuple(_worded(part) for part in item.content))


def _worded(part: TextContent | AudioContent) -> TextContent | AudioContent:
    if isinstance(part, TextContent):
        return part
    words = part.words if part.transcript is None else part.transcript
    return part if words is None else AudioContent((), words)


def beginnings(items: Sequence[Item], *, lead: int = 0) -> tuple[int, ...]:
    """Where a conversation may begin: at the item `lead`, or where a person speaks and no tool call is open.

    Args:
        items: oldest first.
        lead: the items in front that are always read.

    Returns:
        Ascending indices; the first is `lead`, the last begins the newest exchange.
    """
    called: dict[str, int] = {}
    torn = [0] * (len(items) + 1)  # +1 where a call is open from here on, -1 where it is answered
    for at, item in enumerate(items):
        if isinstance(item, ToolCallItem):
            called[item.call_id] = at
        elif isinstance(item, ToolResultItem) and item.call_id in called:
            torn[called[item.call_id] + 1] += 1
            torn[at + 1] -= 1
    open_calls = list(accumulate(torn))
    people = (at for at, item in enumerate(items) if isinstance(item, UserItem) and at > lead)
    return (lead, *(at for at in people if not open_calls[at]))


def item_pieces(item: Item) -> Iterator[Piece]:
    """A person's audio in an item, in order."""
    if isinstance(item, UserItem):
        for part in item.content:
            if isinstance(part, AudioContent):
                yield from part.pieces


def cut_to_heard(item: AssistantItem, samples: int, *, length: int | None = None) -> AssistantItem:
    """The item as heard up to `samples` (24 kHz): whole audio tokens, whole words, never more than was heard.

    The text is cut in proportion, where a word and a token end. A text-only item, or one that was heard whole, comes
    back unchanged.

    Args:
        item: what was said.
        samples: how much of it was heard, samples at 24 kHz.
        length: samples that the whole text takes, if that is more than `item.samples`: in the 1:4 token stream the
            text runs ahead of the audio, so an unfinished reply has words that were not even generated as audio.
    """
    length = max(item.samples, length or 0)
    if not item.spoken or samples >= length:
        return item
    tokens = min(len(item.audio_ids), unhurried(max(samples, 0), item.speed) // TOKEN_SAMPLES)
    kept = spoken_at(tokens * TOKEN_SAMPLES, item.speed)
    chars, ids = _word_end(item, len(item.text) * kept // length)
    return replace(
        item,
        text=item.text[:chars],
        text_ids=item.text_ids[:ids],
        audio_ids=item.audio_ids[:tokens],
        raw_ids=None,
        samples=kept,
        complete=False,
        marks=tuple(mark for mark in item.marks if mark[0] <= chars),
        audio=_beginning(item.audio, kept),
    )


def _beginning(audio: tuple[npt.NDArray[np.int16], ...], samples: int) -> tuple[npt.NDArray[np.int16], ...]:
    """The first `samples` samples; of a part that is cut nothing else is kept."""
    kept: list[npt.NDArray[np.int16]] = []
    for part in audio:
        kept.append(part if len(part) <= samples else part[:samples].copy())
        samples -= len(kept[-1])
    return tuple(part for part in kept if len(part))


def _word_end(item: AssistantItem, limit: int) -> tuple[int, int]:
    """The last place at or before `limit` characters where text and ids end together and no word is torn."""
    places = item.marks or tuple((n, 0) for n in range(len(item.text) + 1))
    for chars, ids in reversed(places):
        torn = 0 < chars < len(item.text) and not item.text[chars].isspace() and not _wide(item.text[chars])
        if chars <= limit and not torn:
            return chars, ids
    return 0, 0


def _wide(char: str) -> bool:
    """Scripts written without spaces (CJK and its neighbours): a cut is good before any of their characters."""
    return ord(char) >= 0x2E80


@dataclass(frozen=True, slots=True)
class History:
    """The conversation, oldest item first; ids are unique in it."""

    items: tuple[Item, ...] = ()

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def find(self, item_id: str) -> Item | None:
        """The item of this id, or None."""
        return next((item for item in self.items if item.id == item_id), None)

    def previous_id(self, item_id: str) -> str | None:
        """Id of the item in front of this one; None for the first. `KeyError` if there is no such item."""
        at = self._index(item_id)
        return self.items[at - 1].id if at else None

    @property
    def last_id(self) -> str | None:
        """Id of the newest item."""
        return self.items[-1].id if self.items else None

    def append(self, item: Item) -> History:
        """With `item` at the end; `KeyError` if its id is taken."""
        return self._with(len(self.items), item)

    def insert_after(self, previous_id: str, item: Item) -> History:
        """With `item` behind `previous_id` (`ROOT` = in front); `KeyError` for an unknown or a taken id."""
        at = 0 if previous_id == ROOT else self._index(previous_id) + 1
        return self._with(at, item)

    def delete(self, item_id: str) -> History:
        """Without the item; `KeyError` if there is none."""
        at = self._index(item_id)
        return History(self.items[:at] + self.items[at + 1 :])

    def replace(self, item: Item) -> History:
        """With `item` in the place of the one that has its id; `KeyError` if there is none."""
        at = self._index(item.id)
        return History((*self.items[:at], item, *self.items[at + 1 :]))

    @property
    def audio_bytes(self) -> int:
        """Bytes of sound that all items hold together."""
        return sum(map(audio_bytes, self.items))

    def within(self, budget: int) -> History:
        """With no more than `budget` bytes of sound.

        If there is more, items lose theirs, down to `KEPT_SHARE` of the budget: first replies, which the model does
        not hear again, then what a person said, the oldest first. The newest of these keeps its sound, however much
        that is.
        """
        held = self.audio_bytes
        if held <= budget:
            return self
        items, least = list(self.items), budget * KEPT_SHARE
        sounding = [at for at, item in enumerate(items) if audio_bytes(item)]
        said = [at for at in sounding if isinstance(items[at], UserItem)]
        for at in [at for at in sounding if at not in said] + said[:-1]:
            if held <= least:
                break
            held -= audio_bytes(items[at])
            items[at] = without_audio(items[at])
        return History(tuple(items))

    def heard_cut(self, item_id: str, samples: int) -> History:
        """With the assistant item cut to what was heard of it (see `cut_to_heard`).

        Args:
            item_id: an assistant item; `KeyError` if there is none of this id.
            samples: how much was heard, samples at 24 kHz.
        """
        item = self.items[self._index(item_id)]
        if not isinstance(item, AssistantItem):
            raise KeyError(item_id)
        return self.replace(cut_to_heard(item, samples))

    def _with(self, at: int, item: Item) -> History:
        if self.find(item.id) is not None:
            raise KeyError(item.id)
        return History((*self.items[:at], item, *self.items[at:]))

    def _index(self, item_id: str) -> int:
        for at, item in enumerate(self.items):
            if item.id == item_id:
                return at
        raise KeyError(item_id)
