"""A session whose line is lost and whose client comes back: nothing is missing, or held longer than said."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from bad_network import network
from server_helpers import Caller, Site, calling, check_numbers, eventually, serving, tight
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.units import TOKEN_SAMPLES

STORY = Script(speech_ids=60)  # 2.4 s
LOUD = np.full(4_800, 8000, np.int16)


class Lossy(Caller):
    """A caller over a network that can be cut."""

    def __init__(self, site: Site, key: str = "") -> None:
        self.site, self.token, self.key = site, "", key
        self.stack = contextlib.AsyncExitStack()
        self.between: Any = None

    async def connect(self, query: str) -> None:
        self.between = await self.stack.enter_async_context(network(self.site.port))
        address = f"ws://127.0.0.1:{self.between.port}/v1/realtime?model=fake&{query}"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        socket = await connect(address, max_size=None, compression=None, additional_headers=headers)
        self.stack.push_async_callback(socket.close)
        if self.token:
            self.socket = socket
        else:
            super().__init__(socket)

    async def begin(self) -> None:
        await self.connect("resumable=true")
        self.token = (await self.until("session.resumable"))["token"]

    @property
    def received(self) -> int:
        return sum(event["type"] != "session.resumed" for event in self.log)

    async def come_back(self) -> None:
        await self.connect(f"resume={self.token}&received={self.received}")
        assert (await self.next())["type"] == "session.resumed"

    async def lose(self) -> None:
        """Cuts the line, and reads what had come before."""
        self.between.reset()
        assert await self.closed() is None


@contextlib.asynccontextmanager
async def lossy(site: Site, *, key: str = "") -> AsyncIterator[Lossy]:
    caller = Lossy(site, key)
    async with caller.stack:
        await caller.begin()
        yield caller


def count(site: Site, outcome: str) -> float:
    found = site.server.telemetry.metrics.registry.get_sample_value(
        "voiceagent_resumptions_total", {"outcome": outcome}
    )
    return found or 0.0


def parked(site: Site) -> float | None:
    return site.server.telemetry.metrics.registry.get_sample_value("voiceagent_sessions_parked")


async def refusal(site: Site, query: str, *, key: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"{site.ws}&{query}", additional_headers=headers)
    response = caught.value.response
    return response.status_code, json.loads(response.body or b"")["error"]["code"]


async def test_an_answer_goes_on_with_not_a_sample_lost_or_repeated() -> None:
    async with serving(STORY) as site, lossy(site) as caller:
        await caller.manual(lead_ms=200)
        await caller.say("a story")
        for _ in range(2):
            await caller.until("response.output_audio.delta")
            await caller.lose()
            await eventually(lambda: parked(site) == 1)
            await caller.come_back()
        await caller.until("response.done")
        (heard,) = caller.responses.values()
        assert heard.status == "completed"
        check_numbers(heard, session=1, whole=60 * TOKEN_SAMPLES)
        ids = [event["event_id"] for event in caller.log]
        assert len(ids) == len(set(ids))  # no event twice
        assert (await caller.ask("and then")).status == "completed"
        assert len(site.engine.sessions) == 1
        assert (count(site, "resumed"), parked(site)) == (2, 0)


async def test_the_conversation_is_the_same_one() -> None:
    async with serving(Script(speech_ids=5)) as site, lossy(site) as caller:
        await caller.manual()
        await caller.ask("my name is Ada")
        item = next(e["item"]["id"] for e in caller.log if e["type"] == "conversation.item.added")
        await caller.lose()
        await caller.come_back()
        await caller.send("conversation.item.retrieve", item_id=item)
        told = await caller.until("conversation.item.retrieved")
        assert told["item"]["content"][0]["text"] == "my name is Ada"


async def test_a_client_may_change_its_network_before_the_old_one_is_known_to_be_dead() -> None:
    async with serving(STORY) as site, lossy(site) as caller:
        await caller.manual(lead_ms=200)
        await caller.say("a story")
        await caller.until("response.output_audio.delta")
        old = caller.socket
        await caller.come_back()
        await caller.until("response.done")
        check_numbers(next(iter(caller.responses.values())), session=1, whole=60 * TOKEN_SAMPLES)
        with contextlib.suppress(ConnectionClosed):
            while True:
                await old.recv()
        assert old.close_code


async def test_who_does_not_come_back_in_time_leaves_nothing() -> None:
    async with serving(STORY, limits=tight(resume_s=0.2)) as site, lossy(site) as caller:
        await caller.say("a story")
        await caller.until("response.output_audio.delta")
        await caller.lose()
        await eventually(lambda: not site.engine.sessions)
        assert await refusal(site, f"resume={caller.token}&received=3") == (400, "resume_unknown")
        assert (count(site, "expired"), count(site, "refused")) == (1, 1)


async def test_only_who_opened_it_may_have_it_back() -> None:
    async with serving(STORY, keys=("mine", "yours")) as site, lossy(site, key="mine") as caller:
        await caller.lose()
        query = f"resume={caller.token}&received={caller.received}"
        assert await refusal(site, query, key="yours") == (400, "resume_forbidden")
        assert await refusal(site, query) == (401, "invalid_api_key")
        gap = f"resume={caller.token}&received={caller.received + 9}"
        assert await refusal(site, gap, key="mine") == (400, "resume_gap")
        assert await refusal(site, f"resume={caller.token}", key="mine") == (400, "invalid_value")
        await caller.come_back()


async def test_who_is_here_goes_before_who_may_come_back() -> None:
    engine = FakeEngine(STORY, max_sessions=1)
    await engine.start()
    async with serving(engine) as site, lossy(site) as caller:
        await caller.lose()
        async with calling(site) as other:
            await other.manual()
            assert (await other.ask("hello")).status == "completed"
            assert len(engine.sessions) == 1
        assert await refusal(site, f"resume={caller.token}&received=2") == (400, "resume_unknown")
        assert count(site, "evicted") == 1
    await engine.stop()


async def test_a_stop_waits_for_nobody() -> None:
    async with serving(STORY) as site, lossy(site) as caller:
        await caller.lose()
        async with asyncio.timeout(5):
            await site.server.stop()
        assert not site.engine.sessions


async def test_a_goodbye_is_one_and_who_did_not_ask_is_not_waited_for() -> None:
    async with serving(STORY) as site:
        async with lossy(site) as caller:
            await caller.socket.close()
            await eventually(lambda: not site.engine.sessions)
        async with network(site.port) as between:
            socket = await connect(f"ws://127.0.0.1:{between.port}/v1/realtime?model=fake")
            await socket.recv()
            between.reset()
            await eventually(lambda: not site.engine.sessions)
            with contextlib.suppress(ConnectionClosed):
                await socket.close()
        async with calling(site) as caller_without:
            assert "session.resumable" not in json.dumps(caller_without.log)
        assert sum(count(site, outcome) for outcome in ("resumed", "expired", "evicted", "refused")) == 0


async def test_of_several_that_come_back_the_last_is_taken_and_the_others_go() -> None:
    async with serving(STORY) as site, lossy(site) as caller:
        await caller.manual()
        query = f"{site.ws}&resume={caller.token}&received={caller.received}"
        sockets = await asyncio.gather(*(connect(query) for _ in range(5)))
        await eventually(lambda: sum(not socket.close_code for socket in sockets) == 1)
        assert len(site.engine.sessions) == 1
        (left,) = [socket for socket in sockets if not socket.close_code]
        assert json.loads(await left.recv())["type"] == "session.resumed"
        await left.close()


async def test_who_breaks_the_rules_is_not_waited_for() -> None:
    small = tight(message_bytes=1 << 16)
    async with serving(STORY, limits=small) as site, connect(f"{site.ws}&resumable=true") as socket:
        caller = Caller(socket)
        await caller.until("session.resumable")
        await caller.send("x" * (1 << 16))
        await eventually(lambda: not site.engine.sessions)


async def test_where_it_is_off_nobody_is_promised_it() -> None:
    off = tight(resume_s=0)
    async with serving(STORY, limits=off) as site, connect(f"{site.ws}&resumable=true") as socket:
        caller = Caller(socket)
        await caller.manual()
        assert all(event["type"] != "session.resumable" for event in caller.log)


async def test_words_that_were_cut_short_by_the_line_are_a_turn() -> None:
    """The rest of them is lost with the line: what had come is heard, and answered once the client is there again."""
    async with serving(Script(speech_ids=5, transcript="half a")) as site, lossy(site) as caller:
        for _ in range(4):
            await caller.append(LOUD)
        await caller.until("input_audio_buffer.speech_started")
        await caller.lose()
        await caller.come_back()
        for _ in range(5):
            await caller.append(np.zeros(4_800, np.int16))
        done = await caller.until("response.done")
        assert done["response"]["status"] == "completed"
