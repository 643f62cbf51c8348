"""The conversation: the history, the ids of what is put into it, and the client's requests about its items.

It knows nothing of who is speaking. A request that cannot be met yields an `Error` action and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.dictation import TokenScore
from voiceagent.core.history import (
    ROOT,
    AssistantItem,
    AudioContent,
    History,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    as_text,
    item_pieces,
    without_audio,
)
from voiceagent.core.segments import Samples, pieces_of

AUDIO_BUDGET = 32 << 20  #: bytes; some eight minutes of a person's speech
MAX_ITEMS = 1000  #: of a conversation; beyond it the oldest are deleted


@dataclass(frozen=True, slots=True)
class Summary:
    """What the model reads in the place of old items; `item` is in no history."""

    item: SystemItem
    of: frozenset[str]


class Conversation:
    """What was said so far.

    Args:
        id_prefix: begins every item id that is made here.
        audio_budget: bytes of sound that the items may hold; see `bound`.
    """

    def __init__(self, *, id_prefix: str, audio_budget: int = AUDIO_BUDGET) -> None:
        self.history = History()
        self._prefix = id_prefix
        self.audio_budget = audio_budget
        self._left: set[str] = set()  # items that the model no longer sees
        self._as_text: set[str] = set()  # items whose words it reads instead of their sound
        self.summary: Summary | None = None
        self._viewed: tuple[History, tuple[Item, ...]] | None = None  # what is shown of a history
        self._items = 0
        self._pieces = 0

    def new_item_id(self) -> str:
        """An id that no item has."""
        while True:
            self._items += 1
            item_id = f"{self._prefix}{self._items:04d}"
            if self.history.find(item_id) is None:  # a client may have chosen it
                return item_id

    def new_piece(self, audio: Samples) -> Piece:
        """The audio as a piece of this session."""
        self._pieces += 1
        return Piece(self._pieces, audio)

    def bound(self) -> list[act.Action]:
        """To be called when something was added: what the conversation holds stays bounded, however long it gets.

        Over the budget the oldest sound goes and its item stays: the model reads the transcript instead, if there is
        one. Over `MAX_ITEMS` the oldest items go.
        """
        before, view, made = self.history, self.in_view, list[act.Action]()
        while len(self.history) > MAX_ITEMS:
            oldest = self.history.items[0]
            self.history = self.history.delete(oldest.id)
            self._forget_id(oldest.id)
            made.append(notices.ItemDeleted(oldest.id))
        self.history = self.history.within(self.audio_budget)
        return made if self.history is before else [*made, *self.unseen(view)]

    @property
    def in_view(self) -> tuple[Item, ...]:
        """What the model is shown of the conversation.

        All but what there was no room for at an earlier turn; old items as text, and a summary in the place of the
        oldest, behind the instructions in front.
        """
        if self._viewed is None or self._viewed[0] is not self.history:
            self._viewed = self.history, self._view()
        return self._viewed[1]

    def _view(self) -> tuple[Item, ...]:
        summary = self.summary
        hidden = self._left if summary is None else self._left | summary.of
        shown = [self._shown(item) for item in self.history if item.id not in hidden]
        if summary is not None:
            lead = next((at for at, item in enumerate(shown) if not isinstance(item, SystemItem)), len(shown))
            shown.insert(lead, summary.item)
        return tuple(shown)

    def _shown(self, item: Item) -> Item:
        lost = isinstance(item, UserItem) and not any(item_pieces(item))
        return as_text(item) if lost or item.id in self._as_text else item

    def leave(self, item_ids: Iterable[str]) -> list[act.Action]:
        """There was no room for these items: they stay in the conversation and out of the model's sight, for good."""
        before, gone, self._viewed = self.in_view, set(item_ids), None
        self._left |= {item.id for item in before if item.id in gone}
        if self.summary is not None and self.summary.item.id in gone:
            self._left.update(self.summary.of)
            self.summary = None
        return self.unseen(before)

    def read_as_text(self, item_ids: Iterable[str]) -> list[act.Action]:
        """From now on the model reads the words of these items instead of their sound, where they are known."""
        before, self._viewed = self.in_view, None
        self._as_text |= set(item_ids)
        return self.unseen(before)

    def sum_up(self, summary: Summary | None) -> list[act.Action]:
        """From now on the model reads this instead of these items, and of an older summary; None = it reads them."""
        before, self._viewed = self.in_view, None
        self.summary = summary
        return self.unseen(before)

    def unseen(self, before: Iterable[Item]) -> list[act.Action]:
        """The engine need not keep the pieces that the model was shown and is not any more; what comes back is told."""
        earlier = {piece.id: piece for item in before for piece in item_pieces(item)}
        now = {piece.id: piece for item in self.in_view for piece in item_pieces(item)}
        gone = tuple(number for number in earlier if number not in now)
        back = [act.EncodePiece(piece) for number, piece in now.items() if number not in earlier]
        return [*back, act.ForgetPieces(gone)] if gone else list(back)

    def _forget_id(self, item_id: str) -> None:
        """An item of this id that comes later is another one."""
        self._left.discard(item_id)
        self._as_text.discard(item_id)

    # --- items of the ear and of a turn -------------------------------------------------------------------------

    def add_user(self, item_id: str, pieces: tuple[Piece, ...]) -> list[act.Action]:
        """A person's utterance comes in, under an id that nobody else has."""
        item = UserItem(item_id, (AudioContent(pieces),))
        previous = self.history.last_id
        self.history = self.history.append(item)
        return [notices.Committed(item_id, previous), *_added(item, previous), *self.bound()]

    def add_result(self, call_id: str, output: str) -> tuple[str, list[act.Action]]:
        """What a tool of the server's returned comes in, behind all else; returns its id."""
        item = ToolResultItem(self.new_item_id(), call_id, output)
        self.history = self.history.append(item)
        return item.id, self.bound()

    def place(self, item: AssistantItem, previous_id: str | None) -> None:
        """A turn's message takes its place, right behind what it answers."""
        self.history = self.history.insert_after(self._anchor(previous_id), item)

    def close_turn(
        self, item: AssistantItem | None, calls: Sequence[ToolCallItem], previous_id: str | None
    ) -> list[act.Action]:
        """A turn's items as they shall stay; a message that the client deleted meanwhile stays away."""
        if item is not None and self.history.find(item.id) is not None:
            self.history = self.history.replace(item)
            previous_id = item.id
        behind = self._anchor(previous_id)
        for call in calls:
            self.history = self.history.insert_after(behind, call)
            behind = call.id
        return self.bound()

    def _anchor(self, previous_id: str | None) -> str:
        if previous_id is None:
            return ROOT
        known = self.history.find(previous_id) is not None
        return previous_id if known else self.history.last_id or ROOT

    # --- requests ---------------------------------------------------------------------------------------------

    def create(self, event: ev.ItemCreate) -> list[act.Action]:
        """Puts a client's item in; its audio is cut and numbered."""
        previous = event.previous_item_id
        if event.item.id and self.history.find(event.item.id) is not None:
            message = f"There is already an item {event.item.id!r}."
            return [notices.Error("item_create_duplicate_item_id", message, "item.id", event.event_id)]
        if previous is not None and previous != ROOT and self.history.find(previous) is None:
            message = f"There is no item {previous!r} to put the new one behind."
            return [
                notices.Error(
                    "item_create_invalid_previous_item_id", message, "previous_item_id", event.event_id
                )
            ]
        item, fresh = self.adopt(event.item)
        if previous is None:
            self.history = self.history.append(item)
        else:
            self.history = self.history.insert_after(previous, item)
        encode = [act.EncodePiece(piece) for piece in fresh]
        return [*encode, *_added(item, self.history.previous_id(item.id)), *self.bound()]

    def adopt(self, item: Item) -> tuple[Item, list[Piece]]:
        """A client's item as ours: with an id, its audio in pieces of this session. Returns the pieces too."""
        if not item.id:
            item = replace(item, id=self.new_item_id())
        if not isinstance(item, UserItem):
            return item, []
        fresh: list[Piece] = []
        content: list[TextContent | AudioContent] = []
        for part in item.content:
            if isinstance(part, AudioContent):
                pieces = [self.new_piece(p) for given in part.pieces for p in pieces_of(given.audio)]
                fresh += pieces
                part = replace(part, pieces=tuple(pieces))
            content.append(part)
        return replace(item, content=tuple(content)), fresh

    def delete(self, event: ev.ItemDelete) -> list[act.Action]:
        """Takes an item out."""
        if self.history.find(event.item_id) is None:
            return [_unknown("item_delete_invalid_item_id", event.item_id, event.event_id)]
        before = self.in_view
        self.history = self.history.delete(event.item_id)
        self._forget_id(event.item_id)
        if self.summary is not None and event.item_id in self.summary.of:
            self.summary = None  # it still says what was deleted
        return [notices.ItemDeleted(event.item_id), *self.unseen(before)]

    def retrieve(self, event: ev.ItemRetrieve) -> list[act.Action]:
        """Shows an item."""
        item = self.history.find(event.item_id)
        if item is None:
            return [_unknown("item_retrieve_invalid_item_id", event.item_id, event.event_id)]
        return [notices.ItemRetrieved(item)]

    def transcript(
        self, item_id: str, index: int | None, text: str, scores: tuple[TokenScore, ...] = ()
    ) -> list[act.Action]:
        """Writes down what was understood of an utterance; nothing if it is gone.

        Args:
            item_id: of the utterance.
            index: of the audio in its content; None = the first there is.
            text: the words.
            scores: of their tokens, to be told.
        """
        item = self.history.find(item_id)
        if not isinstance(item, UserItem):
            return []
        audio = [i for i, part in enumerate(item.content) if isinstance(part, AudioContent)]
        at = index if index in audio else min(audio, default=-1)
        content = tuple(
            replace(part, transcript=text) if isinstance(part, AudioContent) and i == at else part
            for i, part in enumerate(item.content)
        )
        self.history = self.history.replace(replace(item, content=content))
        return [notices.InputTranscript(item_id, text, max(at, 0), scores)]

    def understood(self, item_id: str, index: int, words: str) -> None:
        """Keeps what the model understood of a part of an utterance, for its own reading; nothing if it is gone."""
        item = self.history.find(item_id)
        if not isinstance(item, UserItem) or not isinstance(part := item.content[index], AudioContent):
            return
        content = (*item.content[:index], replace(part, words=words), *item.content[index + 1 :])
        self.history = self.history.replace(replace(item, content=content))

    def drop_audio(self, item_id: str) -> list[act.Action]:
        """The sound of an utterance is not needed any more; its item and its words stay."""
        item, before = self.history.find(item_id), self.in_view
        if item is None:
            return []
        self.history = self.history.replace(without_audio(item))
        return self.unseen(before)

    def resolve(self, options: opt.TurnOptions) -> tuple[tuple[Item, ...], list[Piece]] | str:
        """What a turn is to answer, and pieces in it that are new; or the id of an item that does not exist."""
        if options.input is None:
            return self.in_view, []
        found: list[Item] = []
        fresh: list[Piece] = []
        for given in options.input:
            if isinstance(given, opt.ItemReference):
                item = self.history.find(given.id)
                if item is None:
                    return given.id
            else:
                item, pieces = self.adopt(given)
                fresh += pieces
            found.append(item)
        return tuple(found), fresh


def _added(item: Item, previous: str | None) -> list[act.Action]:
    return [notices.ItemAdded(item, previous, done=True), notices.ItemDone(item, previous)]


def _unknown(code: str, item_id: str, event_id: str | None) -> notices.Error:
    return notices.Error(code, f"There is no item {item_id!r}.", "item_id", event_id)
