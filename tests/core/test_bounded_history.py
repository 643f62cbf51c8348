"""A conversation that goes on for hours holds a bounded amount: sound by its budget, items by their number."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.conversation import MAX_ITEMS
from voiceagent.core.history import (
    KEPT_SHARE,
    AssistantItem,
    AudioContent,
    History,
    Item,
    Piece,
    TextContent,
    UserItem,
    audio_bytes,
    item_pieces,
)

MANUAL = opt.SessionConfig(turn_detection=None)
SECOND = 16_000


def heard(number: int, samples: int, transcript: str | None = None) -> UserItem:
    piece = Piece(number, np.zeros(samples, np.float32))
    return UserItem(f"item {number}", (AudioContent((piece,), transcript), TextContent("and this")))


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 1000))
def test_the_oldest_sound_goes_and_every_item_stays(sizes: list[int], budget: int) -> None:
    items = tuple(heard(n, size) if size else UserItem(f"item {n}", ()) for n, size in enumerate(sizes))
    whole = History(items)
    kept = whole.within(budget)
    assert [item.id for item in kept] == [item.id for item in whole]
    sounding = [item for item in kept if audio_bytes(item)]
    assert sounding == [item for item in items if audio_bytes(item)][-len(sounding) or len(items) :]
    assert whole.audio_bytes <= budget or kept.audio_bytes <= budget * KEPT_SHARE or len(sounding) == 1
    assert (kept is whole) == (whole.audio_bytes <= budget)
    assert kept.within(budget).items == kept.items


def test_replies_lose_their_sound_before_people_do() -> None:
    said = AssistantItem("reply", "word", spoken=True, samples=100, audio=(np.zeros(100, np.int16),))
    history = History((heard(0, 50), said, heard(1, 50)))
    kept = history.within(560)
    assert [audio_bytes(item) for item in history] == [200, 200, 200]
    assert [audio_bytes(item) for item in kept] == [200, 0, 200]


def test_a_call_that_commits_for_an_hour_holds_its_budget() -> None:
    budget = 20 * SECOND * 4
    controller = Controller(MANUAL, id_prefix="item_", audio_budget=budget)
    encoded, forgotten, most = set[int](), set[int](), 0
    for turn in range(600):
        made = controller.handle(ev.AudioIn(turn * 6 * SECOND, np.zeros(6 * SECOND, np.float32)), turn * 6.0)
        made += controller.handle(ev.Commit(), turn * 6.0)
        made += controller.handle(ev.Transcript(controller.history.items[-1].id, f"word {turn}"), turn * 6.0)
        encoded |= {action.piece.id for action in made if isinstance(action, act.EncodePiece)}
        for action in made:
            if isinstance(action, act.ForgetPieces):
                forgotten |= set(action.pieces)
        most = max(most, controller.history.audio_bytes)
    assert most <= budget
    held = {piece.id for item in controller.history for piece in item_pieces(item)}
    assert encoded - forgotten == held, "the engine keeps what the conversation keeps"
    assert len(controller.history) == 600
    first = controller.history.items[0]
    assert isinstance(first, UserItem)
    assert first.content == (AudioContent((), "word 0"),), "its transcript is what the model still reads"


def test_the_newest_sound_is_never_taken() -> None:
    controller = Controller(MANUAL, id_prefix="item_", audio_budget=SECOND)
    for turn in range(3):
        controller.handle(ev.AudioIn(turn * SECOND, np.zeros(SECOND, np.float32)), turn)
        controller.handle(ev.Commit(), turn)
    assert [audio_bytes(item) > 0 for item in controller.history] == [False, False, True]


def test_beyond_the_number_of_items_the_oldest_are_deleted_and_told_of() -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    told: list[act.Action] = []
    for number in range(MAX_ITEMS + 3):
        item: Item = UserItem(f"mine {number}", (TextContent("word"),))
        told += controller.handle(ev.ItemCreate(item), 0.0)
    deleted = [action.item_id for action in told if isinstance(action, notices.ItemDeleted)]
    assert deleted == ["mine 0", "mine 1", "mine 2"]
    assert len(controller.history) == MAX_ITEMS


def test_deleted_sound_is_forgotten_by_the_engine() -> None:
    controller = Controller(MANUAL, id_prefix="item_")
    controller.handle(ev.AudioIn(0, np.zeros(SECOND, np.float32)), 0.0)
    item_id = controller.handle(ev.Commit(), 0.0)[-2].item.id  # type: ignore[union-attr]
    (piece,) = item_pieces(controller.history.items[0])
    made = controller.handle(ev.ItemDelete(item_id), 0.0)
    assert made == [notices.ItemDeleted(item_id), act.ForgetPieces((piece.id,))]


def replied(number: int, samples: int) -> AssistantItem:
    sound = np.full(samples, number, np.int16)
    return AssistantItem(f"reply {number}", "yes", spoken=True, samples=samples, audio=(sound,))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50)), max_size=12), st.integers(0, 1000))
def test_the_sound_of_replies_goes_before_that_of_persons(sizes: list[tuple[bool, int]], budget: int) -> None:
    items = tuple(heard(n, size) if person else replied(n, size) for n, (person, size) in enumerate(sizes))
    kept = History(items).within(budget)
    lost = [item for item in items if audio_bytes(item) and not audio_bytes(kept.find(item.id) or item)]
    if any(isinstance(item, UserItem) for item in lost):
        assert all(item in lost for item in items if isinstance(item, AssistantItem))
    said = [item for item in items if isinstance(item, UserItem)]
    assert not said or said[-1] not in lost
    assert kept.audio_bytes <= max(budget, *(audio_bytes(item) for item in said[-1:]), 0)


def test_replies_alone_stay_within_the_budget_too() -> None:
    budget = 3 * SECOND * 4
    controller = Controller(opt.SessionConfig(turn_detection=None), id_prefix="item_", audio_budget=budget)
    for turn in range(1, 40):
        controller.handle(ev.Respond(opt.TurnOptions()), float(turn))
        controller.handle(ev.TextOut(turn, "yes", (1,)), float(turn))
        controller.handle(ev.AudioOut(turn, 0, np.zeros(24_000, np.int16), (1,) * 25), float(turn))
        controller.handle(ev.TurnEnded(turn, "stop", ev.Usage(), (1,)), float(turn))
        assert controller.history.audio_bytes <= budget
    assert audio_bytes(controller.history.items[-1]) == 48_000
    assert audio_bytes(controller.history.items[0]) == 0
