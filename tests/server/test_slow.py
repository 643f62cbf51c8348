"""Answers that take long to make: in between others are served, and who asked waits for the end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import numpy as np
from server_helpers import calling, serving

from voiceagent.server.slow import SlowFrames
from voiceagent.units import VOICE_RATE
from voiceagent.wire.dialect import Slow


async def test_the_loop_turns_once_for_every_part() -> None:
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns < 200:
            loop.call_soon(turn)

    def parts(name: str) -> Iterator[str]:
        for at in range(50):
            seen.append(turns)
            yield f"{name}{at} "

    loop, seen, sent = asyncio.get_running_loop(), list[int](), list[str]()
    slow = SlowFrames(sent.append, lambda: None)
    loop.call_soon(turn)
    slow.add(Slow(parts("a")))
    slow.add(Slow(parts("b")))
    for _ in range(200):
        await asyncio.sleep(0)
    assert sent == ["".join(f"{name}{at} " for at in range(50)) for name in "ab"]
    assert seen == sorted(set(seen)), "another part only when all others had a turn"


async def test_what_fails_is_told_once_and_what_nobody_wants_is_not_made() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise ValueError("a bug")

    failures, sent = list[str](), list[str]()
    slow = SlowFrames(sent.append, lambda: failures.append("told"))
    slow.add(Slow(broken()))
    slow.add(Slow(iter("bc")))
    for _ in range(9):
        await asyncio.sleep(0)
    assert (failures, sent, slow.busy) == (["told"], [], False)
    slow.add(Slow(iter("de")))
    slow.drop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not sent


async def test_a_long_item_is_retrieved_before_the_next_request_is_read() -> None:
    second = np.full(VOICE_RATE, 1000, np.int16)
    async with serving() as site, calling(site) as caller:
        await caller.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        for _ in range(30):
            await caller.append(second)
        await caller.send("input_audio_buffer.commit")
        item_id = (await caller.until("conversation.item.done"))["item"]["id"]
        await caller.send("conversation.item.retrieve", item_id=item_id)
        await caller.send("conversation.item.delete", item_id=item_id)
        told = (await caller.until("conversation.item.retrieved"))["item"]
        assert told["id"] == item_id
        assert len(base64.b64decode(told["content"][0]["audio"])) == 30 * 2 * VOICE_RATE
        await caller.until("conversation.item.deleted")
