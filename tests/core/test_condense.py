"""Long talks are condensed: in few large steps, never what is recent, and never by a summary that is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.condense import COMPRESSION, HEADING, RECENT, positions
from voiceagent.core.controller import Controller
from voiceagent.core.history import AssistantItem, AudioContent, Item, SystemItem, UserItem, item_pieces

SECOND = 16_000
LIMIT = 1780
MANUAL = opt.SessionConfig(turn_detection=None, instructions="Be kind.")
SUMMING = replace(MANUAL, condensing=opt.Condensing(summary="model"))
SUMMARY = "They wish for rooms and nights."
IDS = tuple(range(50))


class Talk:
    """A client that asks, and an engine that answers; what the engine had to read is counted as its cache would."""

    def __init__(self, config: opt.SessionConfig = MANUAL, **rest: Any) -> None:
        self.controller = Controller(config, id_prefix="item_", **rest)
        self.config = config
        self.heard = 0
        self.writes = True  # the engine writes words down
        self.summary: str | None = SUMMARY  # what it sums up; None = it fails
        self.words = 6  # tokens of the summary
        self.held: list[tuple[Any, ...]] = []
        self.computed: list[int] = []
        self.read: list[int] = []
        self.told: list[act.Action] = []
        self.asked: list[act.Transcribe] = []
        self.starts: list[act.StartTurn] = []
        self.summed: list[act.StartTurn] = []
        self.engine: set[int] = set()  # pieces that it has

    def do(self, event: ev.Event) -> list[act.Action]:
        made = self.controller.handle(event, float(self.heard))
        self.told += made
        for action in made:
            match action:
                case act.EncodePiece(piece):
                    self.engine.add(piece.id)
                case act.ForgetPieces(pieces):
                    self.engine -= set(pieces)
                case act.Prepare(items):
                    self.take(items)
                case act.StartTurn() if action.options.sums_up:
                    self.summed.append(action)
                case act.StartTurn():
                    self.starts.append(action)
                case act.Transcribe():
                    self.asked.append(action)
                case _:
                    pass
        return made

    def take(self, items: tuple[Item, ...]) -> tuple[int, int]:
        """How many positions a prompt of these items has, and how many of them were read before."""
        new = [(item.id, positions(item)) for item in items]
        same = 0
        for left, right in zip(self.held, new, strict=False):
            if left != right:
                break
            same += right[1]
        assert {p.id for item in items for p in item_pieces(item)} <= self.engine
        self.held = list(new)
        return sum(size for _, size in new), same

    def speak(self, seconds: float = 3.0) -> str:
        samples = int(seconds * SECOND)
        self.do(ev.AudioIn(self.heard, np.ones(samples, np.float32)))
        self.heard += samples
        made = self.do(ev.Commit())
        return next(a.item.id for a in made if isinstance(a, notices.ItemAdded))

    def answer(self) -> act.StartTurn:
        self.do(ev.Respond(self.config.turn_options()))
        start = self.starts[-1]
        read, same = self.take(start.items)
        self.read.append(read)
        self.computed.append(read - same)
        room = min(LIMIT, self.config.truncation.limit or LIMIT)
        self.do(ev.TurnStarted(start.turn, usage=ev.Usage(read + 20), limit=LIMIT * 2, room=room))
        self.do(ev.TextOut(start.turn, "one room for two nights", (1, 2, 3, 4, 5)))
        self.do(ev.AudioOut(start.turn, 0, np.zeros(960 * len(IDS), np.int16), IDS))
        self.do(ev.TurnEnded(start.turn, "stop", ev.Usage(read + 20), IDS + (1,) * 15))
        self.held += [(self.controller.history.last_id, 4 + 65)]
        self.background()
        return start

    def background(self) -> None:
        """The engine does what nobody waits for."""
        asked, self.asked = self.asked, []
        for want in asked:
            self.do(ev.TranscriptDelta(want.item_id, "a room"))
            if self.writes:
                self.do(ev.Transcript(want.item_id, "a room please"))
            else:
                self.do(ev.TranscriptFailed(want.item_id, "kv_full", "No room."))
        self.sum_up()

    def sum_up(self) -> None:
        summed, self.summed = self.summed, []
        for start in summed:
            self.do(ev.TurnStarted(start.turn, limit=LIMIT))
            if self.summary is None:
                self.do(ev.TurnFailed(start.turn, "kv_full", "No room."))
                continue
            self.do(ev.TextOut(start.turn, self.summary, tuple(range(self.words))))
            self.do(ev.TurnEnded(start.turn, "stop", ev.Usage(), ()))

    def talk(self, turns: int) -> Talk:
        for _ in range(turns):
            self.speak()
            self.answer()
        return self

    def condensed(self, form: str) -> list[notices.Condensed]:
        return [a for a in self.told if isinstance(a, notices.Condensed) and a.form == form]


def shape(items: tuple[Item, ...]) -> str:
    """One letter for each item: sound or text, of a person or of us; a summary."""
    letters = ""
    for item in items:
        match item:
            case UserItem():
                letters += "U" if any(item_pieces(item)) else "u"
            case AssistantItem():
                letters += "A" if item.raw_ids is not None else "a"
            case SystemItem():
                letters += "s"
            case _:
                letters += "t"
    return letters


def test_old_sound_becomes_words_and_recent_turns_stay_whole() -> None:
    talk = Talk().talk(40)
    (first, *_) = talk.condensed("text")
    assert first.reason == "context_full"
    assert first.after * 4 < first.before
    last = talk.starts[-1].items
    assert "ua" * 10 in shape(last)
    assert shape(last).endswith("UA" * (RECENT - 1) + "U")
    assert len(last) == 2 * 40 - 1, "nothing is left out"
    oldest = last[0]
    assert isinstance(oldest, UserItem)
    assert oldest.content == (AudioContent((), "a room please"),)
    kept = talk.controller.history.items[0]
    assert any(item_pieces(kept)), "the item itself is as it was"
    assert kept.content[0].transcript is None  # type: ignore[union-attr]


def test_the_words_are_told_to_nobody_who_did_not_ask_for_a_transcript() -> None:
    talk = Talk().talk(40)
    kinds = {type(action).__name__ for action in talk.told}
    assert "Transcribe" in kinds
    assert not kinds & {"InputTranscript", "InputTranscriptDelta", "InputTranscriptFailed"}


def test_a_transcript_that_is_there_is_not_made_again() -> None:
    talk = Talk(replace(MANUAL, transcribe=True)).talk(40)
    asked = [action for action in talk.told if isinstance(action, act.Transcribe)]
    assert len(asked) == 40
    assert talk.condensed("text")


def test_while_words_are_missing_the_sound_stays() -> None:
    talk = Talk()
    talk.writes = False
    talk.talk(40)
    assert set(shape(talk.starts[-1].items)) <= set("UAa")
    assert all("u" not in shape(start.items) for start in talk.starts)
    tries = [action.item_id for action in talk.told if isinstance(action, act.Transcribe)]
    assert tries, "they were asked for"
    assert max(map(tries.count, tries)) <= 2, "and not for ever"


def test_steps_are_few_and_what_is_computed_stays_bounded() -> None:
    """Two hundred turns: each computes what is new in it, and little more; what is read is never near the limit."""
    talk = Talk(SUMMING).talk(200)
    new = 4 + 2 + 37 + 4 + 65
    steps = len(talk.condensed("text")) + len(talk.condensed("summary"))
    assert 200 / steps > 4, "many turns begin alike"
    assert max(talk.read) < LIMIT
    first, last = talk.computed[:30], talk.computed[-30:]
    assert sum(last) <= 1.15 * sum(first)
    assert max(talk.computed) <= 2 * new, "what a step changes is read ahead, not while somebody waits"


def test_pieces_that_are_read_as_words_are_not_kept_by_the_engine() -> None:
    talk = Talk().talk(90)
    assert len(talk.engine) < 60


@pytest.mark.parametrize("change", [
    {"condensing": opt.Condensing("keep")},
    {"truncation": opt.Truncation(ratio=None)},
    {"alone": True},
])  # fmt: skip
def test_who_does_not_wish_for_it_has_nothing_condensed(change: dict[str, Any]) -> None:
    talk = Talk(replace(SUMMING, **change)).talk(40)
    assert not [action for action in talk.told if isinstance(action, notices.Condensed | act.Transcribe)]


def test_a_limit_of_the_client_is_the_room() -> None:
    talk = Talk(replace(MANUAL, truncation=opt.Truncation(0.8, 1000))).talk(30)
    assert max(talk.read) < 1000 + 120


def test_a_summary_takes_the_place_of_what_is_oldest() -> None:
    talk = Talk(SUMMING).talk(90)
    told = talk.condensed("summary")
    assert told
    assert not talk.condensed("none")
    for step in told:
        assert step.summary == SUMMARY
        whole = sum(positions(item) for item in talk.controller.history if item.id in step.item_ids)
        assert whole >= COMPRESSION * step.after
    last = talk.starts[-1].items
    assert shape(last).startswith("s")
    assert shape(last).count("s") == 1, "a newer one holds the older"
    assert isinstance(last[0], SystemItem)
    assert last[0].text == HEADING + SUMMARY
    assert shape(last).endswith("UA" * (RECENT - 1) + "U")
    assert talk.controller.history.find(last[0].id) is None
    summed = {item_id for step in told for item_id in step.item_ids}
    assert {item.id for item in talk.controller.history} == summed | {item.id for item in last[1:]} | {
        talk.controller.history.last_id
    }


def test_a_summary_is_written_beside_the_conversation_and_told_of_by_no_response() -> None:
    talk = Talk(SUMMING).talk(90)
    ours = {a.turn for a in talk.told if isinstance(a, act.StartTurn) and a.options.sums_up}
    told = {
        a.turn for a in talk.told if isinstance(a, notices.TurnOpened | notices.TurnText | notices.TurnClosed)
    }
    assert ours
    assert not ours & told
    assert all(
        not a.options.conversation for a in talk.told if isinstance(a, act.StartTurn) and a.turn in ours
    )


@pytest.mark.parametrize(("summary", "words", "why"), [
    ("  ", 1, "empty"), (SUMMARY, 500, "too_long"), (None, 0, "failed"),
    ("Sorry, I did not catch that. Could you say it again?", 14, "unrelated"),
])  # fmt: skip
def test_a_summary_that_is_none_is_not_used(summary: str | None, words: int, why: str) -> None:
    talk = Talk(SUMMING)
    talk.summary, talk.words = summary, words
    talk.talk(80)
    refused = talk.condensed("none")
    assert {step.reason for step in refused} == {why}
    assert not talk.condensed("summary")
    assert not shape(talk.starts[-1].items).startswith("s")
    assert len(refused) < 80 / 7, "it is not tried again at once"


def begun(talk: Talk) -> act.StartTurn:
    """Talks until a summary is being made."""
    sum_up, talk.sum_up = talk.sum_up, lambda: None  # type: ignore[method-assign]
    for _ in range(90):
        talk.talk(1)
        if talk.summed:
            talk.sum_up = sum_up  # type: ignore[method-assign]
            return talk.summed[-1]
    raise AssertionError("no summary was wished for")


def test_what_changed_meanwhile_makes_a_summary_void() -> None:
    talk = Talk(SUMMING)
    start = begun(talk)
    talk.do(ev.ItemDelete(start.items[0].id))
    talk.background()
    assert [step.reason for step in talk.condensed("none")] == ["changed"]


def test_what_was_deleted_is_in_no_summary_any_more() -> None:
    talk = Talk(SUMMING)
    start = begun(talk)
    talk.background()
    assert talk.condensed("summary")
    talk.do(ev.ItemDelete(start.items[1].id))
    talk.speak()
    items = talk.answer().items
    assert not shape(items).startswith("s")
    assert {item.id for item in items} >= {item.id for item in start.items[2:-1]}


def test_the_engines_end_is_the_end_of_a_summary() -> None:
    talk = Talk(SUMMING)
    start = begun(talk)
    talk.do(ev.EngineDown())
    talk.do(ev.EngineUp())
    talk.do(ev.TextOut(start.turn, SUMMARY, (1,)))
    talk.do(ev.TurnEnded(start.turn, "stop", ev.Usage(), ()))
    assert [step.reason for step in talk.condensed("none")] == ["failed"]


def test_the_end_of_the_call_stops_a_summary() -> None:
    talk = Talk(SUMMING)
    start = begun(talk)
    assert talk.do(ev.Detached()) == [act.CancelTurn(start.turn)]


def test_tool_calls_and_their_results_are_not_torn() -> None:
    """A summary ends where an exchange does, and a developer's words in the midst of the talk stay."""
    talk = Talk(SUMMING).talk(5)
    talk.do(ev.ItemCreate(SystemItem("rule", "Never say no.")))
    talk.talk(90)
    assert talk.condensed("summary")
    items = talk.starts[-1].items
    assert "rule" in [item.id for item in items]


def test_words_are_written_before_the_oldest_sound_is_lost() -> None:
    """Where memory is short before the context is, the model still knows what was said."""
    talk = Talk(audio_budget=12 * SECOND * 4)
    for _ in range(12):
        talk.speak()
        talk.do(ev.Respond(replace(MANUAL.turn_options(), modalities="text")))
        start = talk.starts[-1]
        talk.do(ev.TurnStarted(start.turn, limit=100_000, room=100_000))
        talk.do(ev.TurnEnded(start.turn, "stop", ev.Usage(), ()))
        talk.background()
    users = [item for item in talk.starts[-1].items if isinstance(item, UserItem)]
    assert shape(tuple(users)).startswith("uuuu")
    assert all(part.transcript for item in users for part in item.content if not part.pieces)  # type: ignore[union-attr]


def test_a_summary_of_a_reply_that_was_cut_since_is_not_read_any_more() -> None:
    talk = Talk(SUMMING)
    begun(talk)
    talk.background()
    (told,) = talk.condensed("summary")
    replies = [item for item in talk.controller.history if isinstance(item, AssistantItem)]
    talk.do(ev.ItemTruncate(next(item.id for item in replies if item.id in told.item_ids), 100))
    assert [step.reason for step in talk.condensed("none")] == ["changed"]
    talk.speak()
    assert not shape(talk.answer().items).startswith("s")
