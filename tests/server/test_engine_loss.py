"""A real engine process, killed in the middle: every call is told at once, stays open, and goes on with its history."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
from server_helpers import Caller, Heard, Site, calling, check_numbers, eventually, serving

from voiceagent.engine.client import LocalEngine
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.units import TOKEN_SAMPLES

CALLS = 6
SCRIPT = Script(speech_ids=50, chunk_ids=5, rtf=0.05)  # 0.1 s of work a reply
TOLD_S = 0.5


async def killed_in_a_turn(caller: Caller, pid: int | None) -> tuple[Heard, float]:
    """Asks, and is told that the turn failed; how long after the kill. Only the first call kills."""
    await caller.say("a question")
    created = await caller.until("response.created")
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    began = asyncio.get_running_loop().time()
    await caller.until("response.done")
    return caller.responses[created["response"]["id"]], asyncio.get_running_loop().time() - began


async def answered(caller: Caller) -> Heard:
    """The next answer, asked for until the engine is back."""
    while True:
        heard = await caller.ask("still there?")
        if heard.status == "completed":
            return heard
        assert heard.error == "engine_down"
        await asyncio.sleep(0.02)


async def one_call(site: Site, entered: asyncio.Barrier, pid: int | None) -> None:
    async with calling(site) as caller:
        await caller.manual()
        first = await caller.ask("remember me")
        assert first.status == "completed"
        await entered.wait()
        cut, seconds = await killed_in_a_turn(caller, pid)
        if pid is not None:
            assert (cut.status, cut.error) == ("failed", "engine_down")
            assert seconds < 10 * TOLD_S  # the goal is TOLD_S; a busy machine may take longer
        again = await answered(caller)
        assert again.text == "You said: still there?"
        assert speaker(again) == speaker(first)  # the same call as before, at the same place
        check_numbers(again, session=speaker(first), whole=50 * TOKEN_SAMPLES)


def speaker(heard: Heard) -> int:
    """The engine's session that the first sample names."""
    turn, first = int(heard.id.rpartition("_")[2]), heard.pcm[0]
    return next(
        n for n in range(1, CALLS + 1) if numbered(session=n, turn=turn, start=0, count=1)[0] == first
    )


async def test_a_killed_engine_is_told_and_the_next_turn_works() -> None:
    engine = LocalEngine(WorkerSpec(fake=SCRIPT, max_sessions=CALLS), heartbeat_s=0.2, backoff_s=(0.0,))
    await engine.start()
    try:
        async with serving(engine) as site:
            before = engine.pid
            entered = asyncio.Barrier(CALLS)
            await asyncio.gather(*(one_call(site, entered, before if n == 0 else None) for n in range(CALLS)))
            assert engine.pid not in (None, before)
    finally:
        await engine.stop()


async def test_a_loading_engine_is_told_before_the_upgrade() -> None:
    engine = LocalEngine(WorkerSpec(fake=SCRIPT), backoff_s=(3600.0,))
    await engine.start()
    try:
        async with serving(engine) as site, calling(site) as caller:
            await caller.manual()
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            await eventually(lambda: engine.ready is None)
            down = await caller.ask("hello")
            assert (down.status, down.error) == ("failed", "engine_down")
            async with (
                aiohttp.ClientSession() as client,
                client.get(f"{site.http}/readyz") as ready,
                client.get(f"{site.http}/healthz") as health,
            ):
                assert (ready.status, health.status) == (503, 200)
    finally:
        await engine.stop()
