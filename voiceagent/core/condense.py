"""Makes room in the context before turns have to be left out: old sound is read as words, the oldest as a summary.

It decides when and of what, from the lengths of items and what the engine says of its context; it knows no mouth and
no protocol. Every step has the engine read anew what is behind it, so there are few steps, and each saves much. What
cannot be condensed is left to the truncation policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.conversation import Conversation, Summary
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    History,
    Item,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    as_text,
    audio_bytes,
    beginnings,
)
from voiceagent.core.making import Making
from voiceagent.core.transcripts import Transcripts
from voiceagent.core.turn import Turn

HIGH = 0.7  #: share of its room from which on a conversation is condensed
LOW = 0.4  #: what is read as text and still takes more than this is summed up, if that is wanted
LEAST = 0.15  #: share of the room that a step must save
RECENT = 4  #: exchanges that always stay whole
HEAVY = 0.5  #: share of the memory for sound from which on words are written before the oldest sound is lost
COMPRESSION = 14  #: so many times shorter than what it stands for a summary has to be
LONGEST = 256  #: positions of a summary
SHORTEST = 16  #: who may write no more than this need not begin
TRIES = 2  #: to write an utterance's words
PATIENCE = 16  #: changes of the conversation until a summary is tried again
RELATED = 0.3  #: share of a summary's longer words that have to be in what it stands for
TURN = 4  #: positions around what a turn holds
SAMPLES_PER_POSITION = 1280  #: of a person's speech, 16 kHz: 12.5 a second
BYTES_PER_POSITION = 3  #: of text, about: a Chinese character, or most of an English word's half

REQUEST = (
    "Write a short summary of our conversation up to here, in the language that we speak: who I am and what I want, "
    "what was decided, names, numbers and dates, and what is still open. Only the summary, nothing else."
)
_STEM = re.compile(r"[\u2e80-\U0003ffff]|\b[^\W\u2e80-\U0003ffff]{5}")
HEADING = "What was said before, in short:\n"


def positions(item: Item) -> int:
    """About how many positions of the context an item takes."""
    match item:
        case UserItem():
            return TURN + sum(_content(part) for part in item.content)
        case AssistantItem():
            if item.raw_ids is not None:
                return TURN + len(item.raw_ids)
            if item.spoken:
                return TURN + 5 * max(-(-len(item.audio_ids) // 4), len(item.text_ids))
            return TURN + (len(item.text_ids) or _written(item.text))
        case SystemItem():
            return TURN + _written(item.text)
        case ToolCallItem():
            return TURN + _written(item.name + item.arguments)
        case ToolResultItem():
            return TURN + _written(item.output)
        case _:
            assert_never(item)


def _content(part: TextContent | AudioContent) -> int:
    if isinstance(part, TextContent):
        return _written(part.text)
    if not part.pieces:
        return _written(part.transcript or "")
    return sum(2 + len(piece.audio) // SAMPLES_PER_POSITION for piece in part.pieces)


def _written(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_POSITION)


def _size(items: Iterable[Item]) -> int:
    return sum(map(positions, items))


def _lead(view: Sequence[Item]) -> int:
    """How many system items are in front: these, and a summary among them, are always read."""
    return next((at for at, item in enumerate(view) if not isinstance(item, SystemItem)), len(view))


def recent(view: Sequence[Item], exchanges: int = RECENT) -> int:
    """Where in what the model is shown the newest exchanges begin, of which so many stay whole."""
    lead = _lead(view)
    points = beginnings(view, lead=lead)
    return points[-exchanges] if len(points) > exchanges else lead


@dataclass(slots=True)
class _Draft:
    """A summary in the making: of these items, as long as this when they were whole."""

    turn: Turn
    items: tuple[Item, ...]
    whole: int
    text: str  #: all their words, and those of what was summed up before
    over: str | None = None  #: why the model ended, or "failed", once it has


class Condenser:
    """Keeps what the model reads of the conversation short.

    Args:
        talk: the conversation.
        making: numbers the turns, and knows whether there is an engine.
        transcripts: of what words are already on their way.
    """

    def __init__(self, talk: Conversation, making: Making, transcripts: Transcripts) -> None:
        self._talk, self._making, self._transcripts = talk, making, transcripts
        self._room = 0  # positions that the conversation may take until turns are left out; 0 = not known yet
        self._seen: History | None = None  # the conversation at the last review
        self._asked: dict[str, tuple[str, int]] = {}  # words on their way: of an item's part
        self._tried: Counter[tuple[str, int]] = Counter()
        self._draft: _Draft | None = None
        self._summed: dict[str, str] = {}  # what was said in the items behind the summary
        self._whole = 0  # what these behind the summary took before they were condensed
        self._patience = 0  # reviews until a summary is tried again
        self._stirred = False

    # --- what the engine brings ---------------------------------------------------------------------------------

    def takes_words(self, event: ev.TranscriptEvent) -> bool:
        """Whether these are words that we asked for; they are told to nobody."""
        if event.item_id not in self._asked:
            return False
        if not isinstance(event, ev.TranscriptDelta):
            item_id, index = self._asked.pop(event.item_id)
            self._seen = None
            if isinstance(event, ev.Transcript):
                self._talk.understood(item_id, index, event.text.strip())
        return True

    def on_turn(self, event: ev.TurnEvent, live: Turn | None) -> None:
        """How much room there is for the conversation, and what becomes of a summary."""
        draft = self._draft
        talks = live is not None and live.started is event and live.options.input is None
        if isinstance(event, ev.TurnStarted) and talks:
            self._room = event.room
        if draft is None or event.turn != draft.turn.id or draft.over is not None:
            return
        match event:
            case ev.TextOut():
                draft.turn.add_text(event)
            case ev.TurnEnded():
                draft.over = event.reason
            case ev.TurnFailed():
                draft.over = "failed"
            case _:
                pass

    def engine_down(self) -> None:
        """Nothing of what was asked for will come."""
        self._asked.clear()
        if self._draft is not None:
            self._draft.over = self._draft.over or "failed"

    def stop(self) -> list[act.Action]:
        """The call is over."""
        draft, self._draft = self._draft, None
        return [] if draft is None or draft.over is not None else [act.CancelTurn(draft.turn.id)]

    # --- decisions ----------------------------------------------------------------------------------------------

    def stirred(self) -> bool:
        """Whether the model reads something else than it did the last time that this was asked."""
        stirred, self._stirred = self._stirred, False
        return stirred

    def review(self, config: opt.SessionConfig) -> list[act.Action]:
        """What is to be done, now that things have changed: to be called while nobody speaks and no turn is live.

        Only here does what the model reads change: not while somebody speaks whom we will answer at once.
        """
        made: list[act.Action] = []
        if self._draft is not None and self._draft.over is not None:
            made, self._draft = self._judge(self._draft, self._draft.over), None
        made += self._doubt()
        made += self._condense(config)
        self._stirred = self._stirred or any(isinstance(do, notices.Condensed) for do in made)
        return made

    def _condense(self, config: opt.SessionConfig) -> list[act.Action]:
        wished = config.condensing.audio == "text" and config.truncation.ratio is not None
        if self._talk.history is self._seen or not wished or not config.replies or config.alone:
            return []
        if not self._room or not self._making.engine_up:
            return []
        self._seen = self._talk.history
        self._patience = max(0, self._patience - 1)
        view, room = self._talk.in_view, self._room
        full = _size(view) >= HIGH * room
        if not full and not self._heavy():
            return []
        if not full:
            return self._ask(view[: recent(view, 1)])[0]
        old = view[_lead(view) : recent(view)]
        made, waiting = self._ask(old)
        if waiting:
            return made
        made = self._read_as_text(old, room)
        return made + (self._begin(config, room) if config.condensing.summary == "model" else [])

    def _heavy(self) -> bool:
        held = sum(audio_bytes(item) for item in self._talk.history if isinstance(item, UserItem))
        return held >= HEAVY * self._talk.audio_budget

    def _ask(self, items: Iterable[Item]) -> tuple[list[act.Action], bool]:
        """Asks for the words of these items that are not known; and says whether any are awaited."""
        made: list[act.Action] = []
        waiting = bool(self._asked)
        for item in items:
            for index, part in enumerate(item.content if isinstance(item, UserItem) else ()):
                if not isinstance(part, AudioContent) or not part.pieces:
                    continue
                if part.transcript is not None or part.words is not None:
                    continue
                if self._transcripts.awaits(item.id):
                    waiting = True
                elif (item.id, index) not in self._asked.values() and self._tried[item.id, index] < TRIES:
                    key = self._key(item.id, index)
                    self._asked[key] = item.id, index
                    self._tried[item.id, index] += 1
                    how = replace(self._transcripts.how, scores=False)
                    made.append(act.Transcribe(key, part.pieces, how=how))
        return made, waiting or bool(made)

    def _key(self, item_id: str, index: int) -> str:
        """A name for the words that no item has."""
        key = f"{item_id}#{index}"
        while self._talk.history.find(key) is not None:
            key += "#"
        return key

    def _read_as_text(self, old: Sequence[Item], room: int) -> list[act.Action]:
        before = {item.id: positions(item) for item in old}
        after = {item.id: positions(as_text(item)) for item in old}
        shorter = tuple(item_id for item_id in before if after[item_id] < before[item_id])
        took, takes = sum(before[n] for n in shorter), sum(after[n] for n in shorter)
        if took - takes < LEAST * room:
            return []
        made = self._talk.read_as_text(shorter)
        return [*made, notices.Condensed("text", "context_full", shorter, took, takes)]

    # --- summaries ----------------------------------------------------------------------------------------------

    def _begin(self, config: opt.SessionConfig, room: int) -> list[act.Action]:
        """Has the model sum up what is old, beside the conversation; meanwhile that goes on as it is."""
        view = self._talk.in_view
        edge = recent(view)
        old = [item for item in view[_lead(view) : edge] if not isinstance(item, SystemItem)]
        if self._draft is not None or self._patience or _size(view) < LOW * room or _size(old) < LEAST * room:
            return []
        items = tuple(found for item in old if (found := self._talk.history.find(item.id)) is not None)
        whole = _size(items) + (self._whole if self._talk.summary is not None else 0)
        most = min(LONGEST, whole // COMPRESSION)
        if most < SHORTEST:
            return []
        options = opt.TurnOptions(
            modalities="text",
            instructions=config.instructions,
            tool_choice="none",
            voice=config.voice,
            temperature=0.0,
            max_tokens=most,
            truncation=opt.Truncation(ratio=None),
            conversation=False,
            sums_up=True,
        )
        turn = self._making.new_turn(options)
        self._draft = _Draft(turn, items, whole, " ".join(map(_words, view[:edge])))
        asked = UserItem(turn.item_id, (TextContent(REQUEST),))
        return [act.StartTurn(turn.id, (*view[:edge], asked), options)]

    def _doubt(self) -> list[act.Action]:
        """A summary of a reply that was cut since is none: what it stands for is read again."""
        summary = self._talk.summary
        if summary is None or self._talk.history is self._seen:
            return []
        found = (item for item in self._talk.history if item.id in summary.of)
        if all(_said(item) == self._summed[item.id] for item in found):
            return []
        ids, before = tuple(sorted(summary.of)), positions(summary.item)
        made = self._talk.sum_up(None)
        size = _size(item for item in self._talk.in_view if item.id in summary.of)
        return [*made, notices.Condensed("none", "changed", ids, before, size)]

    def _judge(self, draft: _Draft, reason: str) -> list[act.Action]:
        """Uses a summary that is one, and of what is still there; else the turns stay."""
        text = draft.turn.text.strip()
        long = len(draft.turn.text_ids) > (draft.turn.options.max_tokens or 0)
        if reason in ("failed", "cancelled"):
            return self._refuse(draft, "failed")
        if reason == "max_tokens" or long:
            return self._refuse(draft, "too_long")
        if not text:
            return self._refuse(draft, "empty")
        if not _related(text, draft.text):
            return self._refuse(draft, "unrelated")
        there = {item.id: _said(item) for item in self._talk.history}
        if any(there.get(item.id) != _said(item) for item in draft.items):
            return self._refuse(draft, "changed")
        older = self._talk.summary
        ids = frozenset(item.id for item in draft.items) | (older.of if older is not None else frozenset())
        before = _size(item for item in self._talk.in_view if item.id in ids)
        before += positions(older.item) if older is not None else 0
        summary = Summary(SystemItem(self._talk.new_item_id(), HEADING + text), ids)
        self._whole = draft.whole
        self._summed = {item_id: said for item_id, said in there.items() if item_id in ids}
        made = self._talk.sum_up(summary)
        told = tuple(item.id for item in draft.items)
        return [
            *made,
            notices.Condensed("summary", "context_full", told, before, positions(summary.item), text),
        ]

    def _refuse(self, draft: _Draft, why: str) -> list[act.Action]:
        self._patience = PATIENCE
        size = _size(as_text(item) for item in draft.items)
        return [notices.Condensed("none", why, tuple(item.id for item in draft.items), size, size)]


def _words(item: Item) -> str:
    """What is said or written in an item, as far as it is known in words."""
    match item:
        case UserItem():
            parts = (part.text if isinstance(part, TextContent) else part.transcript for part in item.content)
            return " ".join(part for part in parts if part)
        case AssistantItem() | SystemItem():
            return item.text
        case ToolCallItem():
            return item.arguments
        case ToolResultItem():
            return item.output
        case _:
            assert_never(item)


def _related(summary: str, text: str) -> bool:
    """Whether a summary speaks of what it stands for: a model that cannot sum up says something else."""
    words, known = _stems(summary), _stems(text)
    return not words or len(words & known) >= RELATED * len(words)


def _stems(text: str) -> set[str]:
    """Beginnings of the longer words; of scripts without spaces, the characters."""
    return set(_STEM.findall(text.lower()))


def _said(item: Item) -> str:
    """What makes a summary of it wrong when it changes: how much of a reply was heard."""
    return item.text if isinstance(item, AssistantItem) else ""
