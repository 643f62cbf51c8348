"""The conversation as both sides know it: immutable items, and a history whose every change is a new history.

It holds only what was really said and heard; rendering it for a model or a wire is others' knowledge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voiceagent.units import TOKEN_SAMPLES


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of user audio: float32 mono 16 kHz, read-only, at most 400 000 samples; `id` is unique in a session."""

    id: int
    audio: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextContent:
    """Typed text of the user."""

    text: str


@dataclass(frozen=True, slots=True)
class AudioContent:
    """Spoken words of the user; the transcript comes later or never."""

    pieces: tuple[Piece, ...]
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class SystemItem:
    """Instructions in the course of the conversation."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class UserItem:
    """One turn of the user."""

    id: str
    content: tuple[TextContent | AudioContent, ...]


@dataclass(frozen=True, slots=True)
class AssistantItem:
    """What the assistant said, as far as it was heard.

    Attributes:
        text_ids, audio_ids: generated text tokens and speech tokens (0..6560, no pads).
        raw_ids: the generated ids verbatim (after <tts_start>, without EOT) if the turn was heard whole, else None.
        samples: 24 kHz samples of the kept speech.
        complete: whether the turn ended by itself and was heard whole.
    """

    id: str
    text: str
    text_ids: tuple[int, ...] = ()
    audio_ids: tuple[int, ...] = ()
    raw_ids: tuple[int, ...] | None = None
    spoken: bool = False
    samples: int = 0
    complete: bool = True

    @classmethod
    def empty(cls, item_id: str, *, spoken: bool) -> AssistantItem:
        """A turn of which nothing was said yet."""
        return cls(item_id, "", spoken=spoken, complete=False)

    @classmethod
    def written(cls, item_id: str, text: str) -> AssistantItem:
        """A reply that a client tells us of; nobody generated its tokens here."""
        return cls(item_id, text)

    def cut(self, samples: int) -> AssistantItem:
        """The part of a spoken turn that ends at the last speech token heard whole within `samples` (24 kHz).

        Text runs ahead of its audio in the token stream, so it is cut in proportion, at the end of a word.
        """
        if not self.spoken or samples >= self.samples:
            return self
        kept = max(0, samples) // TOKEN_SAMPLES
        share = kept * TOKEN_SAMPLES / self.samples if self.samples else 0.0
        text = _words_within(self.text, int(len(self.text) * share))
        text_ids = self.text_ids[: int(len(self.text_ids) * len(text) / len(self.text))] if self.text else ()
        return replace(
            self,
            text=text,
            text_ids=text_ids,
            audio_ids=self.audio_ids[:kept],
            raw_ids=None,
            samples=min(kept, len(self.audio_ids)) * TOKEN_SAMPLES,
            complete=False,
        )


@dataclass(frozen=True, slots=True)
class ToolCallItem:
    """A call that the model made; `arguments` is JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResultItem:
    """What a tool answered."""

    id: str
    call_id: str
    output: str


Item = SystemItem | UserItem | AssistantItem | ToolCallItem | ToolResultItem


@dataclass(frozen=True, slots=True)
class History:
    """The items of a conversation, oldest first; every method returns a new history.

    Item ids are unique; a method that is given an unknown id raises KeyError, which is the caller's bug.
    """

    items: tuple[Item, ...] = ()

    def find(self, item_id: str) -> Item | None:
        """The item, or None."""
        return next((i for i in self.items if i.id == item_id), None)

    def previous_id(self, item_id: str) -> str | None:
        """The id of the item before, None for the first."""
        index = self._index(item_id)
        return self.items[index - 1].id if index else None

    def append(self, item: Item) -> History:
        """With the item at the end."""
        return History((*self.items, item))

    def insert_after(self, previous_id: str | None, item: Item) -> History:
        """With the item behind another, or at the front for None."""
        at = 0 if previous_id is None else self._index(previous_id) + 1
        return History((*self.items[:at], item, *self.items[at:]))

    def delete(self, item_id: str) -> History:
        """Without the item."""
        at = self._index(item_id)
        return History((*self.items[:at], *self.items[at + 1 :]))

    def replace(self, item: Item) -> History:
        """With the item of the same id exchanged."""
        at = self._index(item.id)
        return History((*self.items[:at], item, *self.items[at + 1 :]))

    def heard_cut(self, item_id: str, samples: int) -> History:
        """With an assistant item cut to what was heard, see `AssistantItem.cut`."""
        item = self.items[self._index(item_id)]
        return self.replace(item.cut(samples)) if isinstance(item, AssistantItem) else self

    def _index(self, item_id: str) -> int:
        for index, item in enumerate(self.items):
            if item.id == item_id:
                return index
        raise KeyError(item_id)


def _words_within(text: str, length: int) -> str:
    """The longest prefix of whole words with at most `length` characters."""
    if length >= len(text):
        return text
    cut = text.rfind(" ", 0, length + 1)
    return text[:cut] if cut > 0 else ""
