"""Which turns are left out when a conversation is longer than the context: properties, for any conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voiceagent.core.history import (
    AssistantItem,
    Item,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.errors import TOO_LONG, InputError
from voiceagent.models.step_audio2.fitting import beginnings, first_kept, fit, room_for
from voiceagent.models.step_audio2.prompt import Layout

KINDS = "suactCT"  # system, user, assistant, two calls and their results


def fitted(
    items: tuple[Item, ...], laid: Layout, *, context: int, ratio: float | None, floor: str = "", **asked: int
) -> int:
    """The first item that is read, in the room that there is."""
    room, hard = room_for(laid, context=context, **asked)
    return fit(items, laid, context=context, room=room, hard=hard, ratio=ratio, floor=floor)


def conversation(kinds: str, *, lead: int = 0) -> tuple[Item, ...]:
    made: list[Item] = [SystemItem(f"lead{n}", "Be kind.") for n in range(lead)]
    for n, kind in enumerate(kinds):
        known: dict[str, Item] = {
            "s": SystemItem(f"s{n}", "Be brief."),
            "u": UserItem(f"u{n}", (TextContent("word"),)),
            "a": AssistantItem(f"a{n}", "word"),
            "c": ToolCallItem(f"c{n}", "one", "find", "{}"),
            "t": ToolResultItem(f"t{n}", "one", "found"),
            "C": ToolCallItem(f"C{n}", "two", "find", "{}"),
            "T": ToolResultItem(f"T{n}", "two", "found"),
        }
        made.append(known[kind])
    return tuple(made)


def layout(sizes: Sequence[int], *, lead: int = 0, head: int = 0, opening: int = 0) -> Layout:
    turns = tuple((at, (7,) * size) for at, size in enumerate(sizes) if at >= lead)
    return Layout((1,) * head, lead, turns, (2,) * opening)


def broken_pairs(items: Sequence[Item], first: int, lead: int) -> list[str]:
    """Results that are read whose call was in the conversation and is not read."""
    read = [*items[:lead], *items[first:]]
    torn = []
    for at, item in enumerate(items):
        if at >= first and isinstance(item, ToolResultItem):
            before = [i for i in items[:at] if isinstance(i, ToolCallItem) and i.call_id == item.call_id]
            if before and before[-1] not in read:
                torn.append(item.id)
    return torn


talks = st.text(alphabet=KINDS, max_size=24)
ratios = st.floats(0.0, 1.0)


@given(talks, st.integers(0, 2))
def test_a_conversation_may_begin_where_a_person_speaks_and_no_call_is_open(kinds: str, lead: int) -> None:
    items = conversation(kinds, lead=lead)
    points = beginnings(items, lead=lead)
    assert points[0] == lead
    assert sorted(set(points)) == list(points)
    for at in points[1:]:
        assert isinstance(items[at], UserItem)
        assert not broken_pairs(items, at, lead)
    for at, item in enumerate(items):  # and everywhere that this is so
        if at > lead and isinstance(item, UserItem) and at not in points:
            assert broken_pairs(items, at, lead)


@st.composite
def measured(draw: st.DrawFn) -> tuple[tuple[Item, ...], list[int]]:
    items = conversation(draw(talks))
    return items, draw(st.lists(st.integers(0, 20), min_size=len(items), max_size=len(items)))


@given(measured(), st.integers(0, 200), ratios)
def test_the_longest_end_that_fits_stays(
    talk: tuple[tuple[Item, ...], list[int]], limit: int, ratio: float
) -> None:
    items, sizes = talk
    points = beginnings(items)
    first = first_kept(sizes, points, limit=limit, ratio=ratio)
    if sum(sizes) <= limit:
        assert first == 0
        return
    if first is None:
        assert sum(sizes[points[-1] :]) > limit
        return
    kept = sum(sizes[first:])
    assert kept <= limit
    assert kept <= ratio * limit or first == points[-1]
    longer = [at for at in points if 0 < at < first]
    assert all(sum(sizes[at:]) > ratio * limit for at in longer), "a longer end would have fitted"


@given(measured(), st.integers(1, 200), ratios, st.integers(0, 30), st.integers(0, 30))
def test_what_was_left_out_stays_out_and_a_longer_conversation_leaves_out_no_less(
    talk: tuple[tuple[Item, ...], list[int]], limit: int, ratio: float, one: int, other: int
) -> None:
    """The turns of a call, one after the other: the beginning only moves on, and only when the limit is met."""
    items, sizes = talk
    first = 0
    for end in range(1, len(items) + 1):
        points = beginnings(items[:end])
        found = first_kept(sizes[:end], points, limit=limit, ratio=ratio, floor=first)
        if found is None:
            return
        assert found >= max(at for at in points if at <= first)
        moved = found > max(at for at in points if at <= first)
        assert not moved or sum(sizes[max(at for at in points if at <= first) : end]) > limit
        first = found
    shorter, longer = sorted((one, other))
    points = beginnings(items)
    tight = first_kept(sizes, points, limit=shorter, ratio=ratio)
    wide = first_kept(sizes, points, limit=longer, ratio=ratio)
    assert tight is None or (wide is not None and wide <= tight), "more room keeps no less"


@example((conversation("Cu"), [0, 0]), 1, 0, 1, 0.0, 1)  # a room below 0, of which nothing is kept
@given(measured(), st.integers(1, 400), st.integers(0, 30), st.integers(0, 10), ratios, st.integers(1, 60))
def test_instructions_and_the_newest_exchange_are_always_read(
    talk: tuple[tuple[Item, ...], list[int]], context: int, head: int, opening: int, ratio: float, reply: int
) -> None:
    items, sizes = talk
    laid = layout(sizes, head=head, opening=opening)
    newest = beginnings(items)[-1]
    alone = head + opening + sum(sizes[newest:])
    if alone >= context:
        with pytest.raises(InputError) as caught:
            fitted(items, laid, context=context, reply=reply, ratio=ratio)
        assert caught.value.code == TOO_LONG
        assert caught.value.remedy
        return
    first = fitted(items, laid, context=context, reply=reply, ratio=ratio)
    prompt = laid.prompt(first)
    assert first <= newest
    assert prompt.slots[:head] == (1,) * head
    assert prompt.slots[len(prompt.slots) - opening :] == (2,) * opening
    assert len(prompt.slots) == head + opening + sum(sizes[first:])
    assert len(prompt.slots) < context, "a position is left for the reply"
    if first < newest:
        assert len(prompt.slots) + min(reply, context // 4) <= context, "the reply has its room"


def test_behind_an_advised_length_turns_go_and_a_newest_exchange_that_is_longer_is_read() -> None:
    items = conversation("uauaua")
    laid = layout([10, 10, 10, 10, 40, 10], head=30)
    assert fitted(items, laid, context=1000, reply=100, ratio=1.0, advised=70) == 2
    assert fitted(items, laid, context=1000, reply=100, ratio=1.0, advised=40) == 4, "50, and nothing fails"
    assert fitted(items, laid, context=1000, reply=100, ratio=None, advised=40) == 0
    assert room_for(laid, context=1000, reply=100, limit=60, advised=70)[0] == 60


def test_system_items_in_front_stay_and_those_between_go_with_their_turn() -> None:
    items = conversation("uasuaua", lead=2)
    laid = layout([0, 0, 10, 10, 10, 10, 10, 10, 10], lead=2, head=5)
    assert fitted(items, laid, context=60, reply=10, ratio=0.8) == 7  # 45 are too many, 0.8 of it are 36
    assert laid.prompt(7).slots == (1,) * 5 + (7,) * 20
    assert beginnings(items, lead=2) == (2, 5, 7), "never a system item first: it would become an instruction"


def test_a_limit_of_the_client_counts_behind_the_instructions() -> None:
    items = conversation("uauaua")
    laid = layout([10] * 6, head=30)
    assert fitted(items, laid, context=1000, reply=100, ratio=1.0, limit=60) == 0
    assert fitted(items, laid, context=1000, reply=100, ratio=1.0, limit=59) == 2
    assert fitted(items, laid, context=1000, reply=100, ratio=0.5, limit=59) == 4
    with pytest.raises(InputError, match="newest exchange alone"):
        fitted(items, laid, context=1000, reply=100, ratio=0.5, limit=19)


def test_nothing_is_left_out_where_that_is_not_allowed() -> None:
    items = conversation("uaua")
    laid = layout([10] * 4)
    assert fitted(items, laid, context=41, reply=100, ratio=None) == 0
    with pytest.raises(InputError) as caught:
        fitted(items, laid, context=40, reply=100, ratio=None)
    assert caught.value.code == TOO_LONG
    assert "Allow truncation" in caught.value.remedy


def test_the_turn_that_came_first_comes_first_again() -> None:
    items = conversation("uauaua")
    laid = layout([10] * 6)
    assert fitted(items, laid, context=100, reply=10, ratio=0.8, floor="u2") == 2
    assert fitted(items, laid, context=100, reply=10, ratio=0.8, floor="u9 is gone") == 0
