"""Which turns of a conversation are read when it is longer than the context: old ones are left out whole.

It is pure: it knows items and lengths, no tokenizer and no cache. Instructions, tools and the newest exchange always
stay, and a tool's result never loses its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from voiceagent.core.history import Item
from voiceagent.core.history import beginnings as beginnings
from voiceagent.errors import TOO_LONG, InputError
from voiceagent.models.step_audio2.prompt import Layout

REPLY_SHARE = 4
"""A fourth of the context at most is kept free for the reply."""


def first_kept(
    sizes: Sequence[int],
    points: Sequence[int],
    *,
    limit: int,
    ratio: float,
    hard: int | None = None,
    floor: int = 0,
) -> int | None:
    """The item with which what is read begins.

    What fits stays. Otherwise turns go until no more than `ratio` of the limit is left, so that the turns that follow
    have room and begin alike: what the model has read of them stays good until the limit is met again. In a talk of 40
    spoken questions in a room of 1000 positions, a ratio of 0.8 computes 76 % fewer prompt positions than 1.0, and 0.5
    computes 88 % fewer (`scripts/bench/long_talk.py --turns 40 --ratios 1.0 0.8 0.5`, pocket).

    Args:
        sizes: positions that each item takes.
        points: the items that may be the first, ascending (see `beginnings`).
        limit: positions that the items may take together.
        ratio: 0 to 1; 1 = no more goes than has to.
        hard: the newest exchange may be as long as this; None = as the limit.
        floor: the item that was the first one last time; what was left out stays out.

    Returns:
        One of the points; None if even the last one leaves too much.
    """
    left = [0, *accumulate(reversed(sizes))]  # left[n] = what the newest n items take
    size = {at: left[len(sizes) - at] for at in points}
    start = max((at for at in points if at <= floor), default=points[0])
    if size[start] <= limit:
        return start
    later = [at for at in points if at > start]
    for at in later:
        if size[at] <= min(limit, ratio * limit):  # of a room below 0, a share of 0 is no room either
            return at
    last = later[-1] if later else start
    return last if size[last] <= (limit if hard is None else hard) else None


def room_for(
    layout: Layout, *, context: int, reply: int, limit: int | None = None, advised: int | None = None
) -> tuple[int, int]:
    """Positions that the items behind the head may take together; and the newest exchange, if it needs more.

    Args:
        layout: the conversation, rendered.
        context: positions of the model.
        reply: how long the reply may get.
        limit: positions that the client allows.
        advised: positions behind which the model still answers well.
    """
    fixed = len(layout.head) + len(layout.opening) + len(layout.forced)
    hard = context - 1 - fixed  # one position for the reply at least
    room = min(hard, context - min(reply, context // REPLY_SHARE) - fixed)
    hard = hard if limit is None else min(hard, limit)
    return min(room, *(most for most in (limit, advised) if most is not None), hard), hard


def fit(
    items: Sequence[Item],
    layout: Layout,
    *,
    context: int,
    room: int,
    hard: int,
    ratio: float | None,
    floor: str = "",
) -> int:
    """The first item to be read of a conversation, so that a reply has room behind it.

    Args:
        items: the conversation.
        layout: the same, rendered.
        context: positions of the model.
        room, hard: see `room_for`.
        ratio: see `first_kept`; None = leave nothing out.
        floor: id of the item that came first the last time.

    Raises:
        InputError: nothing may be left out, or the newest exchange alone is too long (code `TOO_LONG`).
    """
    sizes = [0] * len(items)
    for at, slots in layout.turns:
        sizes[at] = len(slots)
    fixed = len(layout.head) + len(layout.opening) + len(layout.forced)
    if ratio is None:
        if sum(sizes) > hard:
            raise _too_long(
                fixed + sum(sizes), context, "Allow truncation, delete older items, or begin anew."
            )
        return 0
    at = next((n for n, item in enumerate(items) if item.id == floor), 0) if floor else 0
    points = beginnings(items, lead=layout.lead)
    first = first_kept(sizes, points, limit=room, ratio=ratio, hard=hard, floor=at)
    if first is None:
        newest = fixed + sum(sizes[points[-1] :])
        raise _too_long(newest, context, "Make the last message or the instructions shorter.", alone=True)
    return first


def _too_long(tokens: int, context: int, remedy: str, *, alone: bool = False) -> InputError:
    what = "The newest exchange alone" if alone else "The conversation"
    return InputError(
        f"{what} takes {tokens} positions with its instructions, and the model has {context}.",
        code=TOO_LONG,
        remedy=remedy,
    )
