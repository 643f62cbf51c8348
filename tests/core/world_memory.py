"""The part of the world that is about old turns: what the model reads of them, and when that changes.

Kept beside world.py: an oracle of its own with its own dice, so that the walk goes where it went without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AssistantItem, AudioContent, Item, SystemItem, TextContent, UserItem

WHOLE = 4  # exchanges that are never touched
GOOD = "word0 word1 please"
Give = Callable[[ev.Event], list[act.Action]]


@dataclass
class Memory:
    """What was told of old turns, and what the engine still owes.

    Attributes:
        asked: words that the core wants for itself.
        plan: what the engine will say of a summary; `draft` its turn.
        texts, summed: items that are read as text, and as a summary.
        summary: text of the one that is read, or None.
        offered: the last summary that the engine wrote to its end, with its tokens.
        forgotten: pieces that the engine was told to forget by a step.
    """

    seed: int
    asked: dict[str, act.Transcribe] = field(default_factory=dict)
    plan: list[ev.TurnEvent] = field(default_factory=list)
    draft: int | None = None
    texts: set[str] = field(default_factory=set)
    summed: set[str] = field(default_factory=set)
    summary: str | None = None
    offered: tuple[str, int, str] = ("", 0, "")
    most: int = 0
    said: dict[str, str] = field(default_factory=dict)  # what is to be summed up
    known: str = ""
    summed_said: dict[str, str] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)
    steps: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.room = self.dice.choice((0, 60, 60, 150))
        self.wish = opt.Condensing(
            "text" if self.dice.random() < 0.8 else "keep", "model" if self.dice.random() < 0.7 else "off"
        )

    def before(self) -> list[ev.ItemCreate]:
        """A conversation that was brought along, in some calls: long enough to be summed up."""
        if self.room == 0 or self.dice.random() < 0.6:
            return []
        made: list[Item] = []
        for n in range(8):
            made += [UserItem(f"asked{n}", (TextContent("a room please " * 5),))]
            made += [AssistantItem(f"said{n}", "one room for two nights " * 3)]
        return [ev.ItemCreate(item) for item in made]

    # --- the engine -----------------------------------------------------------------------------------------------

    def work(self, give: Give) -> bool:
        """The engine writes down or sums up; False if it has nothing to do, or other things."""
        if self.asked and self.dice.random() < 0.5:
            self.write(give, self.dice.choice(list(self.asked)))
            return True
        if self.plan and self.dice.random() < 0.5:
            event = self.plan.pop(0)
            if isinstance(event, ev.TurnEnded | ev.TurnFailed):
                self.draft = None
            give(event)
            return True
        return False

    def write(self, give: Give, key: str) -> None:
        del self.asked[key]
        words = self.dice.choice(("", "short", "so it is said"))
        made = give(ev.TranscriptDelta(key, words))
        fails = self.dice.random() < 0.2
        made += give(ev.TranscriptFailed(key, "kv_full", "No room.") if fails else ev.Transcript(key, words))
        told = notices.InputTranscript | notices.InputTranscriptDelta | notices.InputTranscriptFailed
        assert not any(isinstance(a, told) and a.item_id == key for a in made), (
            "words nobody asked for are told"
        )

    def engine_down(self) -> None:
        self.asked.clear()
        self.plan.clear()
        if self.draft is not None:
            self.draft, self.offered = None, ("", 0, "failed")

    # --- what the core does ---------------------------------------------------------------------------------------

    def on_summing(self, start: act.StartTurn, history: Iterable[Item], left: set[str]) -> None:
        """A summary is asked for, beside the conversation, of what is old by then."""
        self.check_recent((item.id for item in start.items), history, left)
        assert self.wish == opt.Condensing("text", "model"), "a summary that nobody wished for"
        assert self.draft is None, "two summaries at once"
        options = start.options
        assert options.modalities == "text"
        assert not options.conversation
        assert options.max_tokens
        self.most, self.draft = options.max_tokens, start.turn
        self.known = " ".join(all_words(item) for item in start.items[:-1])
        self.said = {item.id: words(item) for item in start.items[:-1] if not isinstance(item, SystemItem)}
        text = self.dice.choice(("", " ", "elephants", GOOD, GOOD, GOOD, GOOD))
        tokens = self.dice.choice((1, 1, 1, self.most, self.most + 1))
        end = self.dice.choice(("stop",) * 6 + ("max_tokens", "cancelled", "failed"))
        self.offered = text, tokens, end
        said: list[ev.TurnEvent] = [ev.TurnStarted(start.turn), ev.TextOut(start.turn, text, (7,) * tokens)]
        last: ev.TurnEvent = ev.TurnFailed(start.turn, "kv_full", "No room.")
        if end != "failed":
            last = ev.TurnEnded(start.turn, end, ev.Usage(), ())
        self.plan = [*said, last]

    def on_condensed(self, action: notices.Condensed, history: Iterable[Item], left: set[str]) -> None:
        """A step is told: of what there is, never of what is recent, and only if something is saved."""
        self.steps += 1
        assert self.wish.audio == "text", "a step that nobody wished for"
        if action.form == "text":
            self.check_recent(action.item_ids, history, left)
        assert set(action.item_ids) <= {item.id for item in history} or action.form == "none"
        if action.form == "text":
            assert action.after < action.before
            assert not self.texts & set(action.item_ids), "the same step twice"
            self.texts |= set(action.item_ids)
            return
        if self.summed and action.form == "none" and set(action.item_ids) >= self.summed:
            now = {item.id: words(item) for item in history}
            if any(now.get(item_id, text) != text for item_id, text in self.summed_said.items()):
                assert action.reason == "changed"
                self.summed, self.summary = set(), None
                return
        text, tokens, end = self.offered
        there = {item.id: words(item) for item in history}
        same = all(there.get(item_id) == text for item_id, text in self.said.items())
        about = not text.strip() or any(word in self.known for word in text.split())
        good = bool(text.strip()) and tokens <= self.most and end == "stop" and same and about
        assert (action.form == "summary") == good, (
            "a summary that is none is used, or one that is good is not"
        )
        if action.form == "summary":
            assert action.summary == text.strip()
            assert tokens <= self.most
            self.summed |= set(action.item_ids)
            self.summed_said |= self.said
            self.summary = text.strip()

    def check_recent(self, changed: Iterable[str], history: Iterable[Item], left: set[str]) -> None:
        """None of these is of the last exchanges."""
        shown = [item for item in history if item.id not in left | self.summed]
        people = [item.id for item in shown if isinstance(item, UserItem)]
        assert not set(people[-WHOLE:]) & set(changed), "what is recent does not stay whole"

    def on_gone(self, item_id: str) -> None:
        """An item is deleted."""
        self.texts.discard(item_id)
        if item_id in self.summed:
            self.summed, self.summary = set(), None

    def left_out(self, dropped: Iterable[str], history: Iterable[Item]) -> set[str]:
        """The items that go when these are left out: with a summary all that it stands for."""
        gone = set(dropped)
        if gone - {item.id for item in history} and self.summary is not None:
            gone |= self.summed
            self.summed, self.summary = set(), None
        return gone

    def check_read(self, items: Iterable[Item], history: Iterable[Item]) -> set[str]:
        """What is read of the conversation is what was told; returns the items that need not be named."""
        known = {item.id: item for item in history}
        strangers = [item for item in items if item.id not in known]
        summaries = [item for item in strangers if isinstance(item, SystemItem)]
        texts = [item.text for item in summaries]
        assert len(texts) <= 1, "two summaries are read"
        assert all(self.summary is not None and text.endswith(self.summary) for text in texts)
        for item in items:
            if item.id in known:
                self.check_form(item, known[item.id])
        return self.summed

    def check_form(self, item: Any, kept: Any) -> None:
        """An item is read as it is, or, if that was told, by its words."""
        assert item.id not in self.summed, "an item is read besides its summary"
        assert item.id not in self.texts or not self.sounds(item), (
            "what was read as text is read as sound again"
        )
        if isinstance(item, AssistantItem) and item.id in self.texts and kept.spoken:
            assert not item.audio_ids
            assert item.raw_ids is None
            assert item.text == kept.text
        if not isinstance(item, UserItem) or item == kept:
            return
        for part, whole in zip(item.content, kept.content, strict=True):
            if isinstance(part, AudioContent) and isinstance(whole, AudioContent) and not part.pieces:
                assert not whole.pieces or item.id in self.texts, "sound is not read, and nobody was told"
                assert part.transcript is not None or not whole.pieces, "sound is gone and there are no words"

    def sounds(self, item: Any) -> bool:
        """Whether it is read as sound though its words are known."""
        if isinstance(item, AssistantItem):
            return bool(item.spoken and item.audio_ids)
        parts = item.content if isinstance(item, UserItem) else ()
        return any(isinstance(p, AudioContent) and p.pieces and p.transcript is not None for p in parts)


def words(item: Item) -> str:
    """What a summary of the item would be wrong without."""
    return item.text if isinstance(item, AssistantItem) else ""


def all_words(item: Any) -> str:
    """What is known of an item in words."""
    parts = [
        getattr(part, "text", "") or getattr(part, "transcript", "") for part in getattr(item, "content", ())
    ]
    return " ".join(
        [getattr(item, name, "") for name in ("text", "arguments", "output")] + [p or "" for p in parts]
    )
