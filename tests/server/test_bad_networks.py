"""Calls over bad networks (R25) and lines that break (R15): order, heard truth, and that nothing is left behind.

There is no resumption of a session: a line that broke is a call that is over, and a client that comes back opens
another, with the items that it wants to keep (the Python client does that by itself).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from bad_network import Network, Weather, network
from server_helpers import Caller, Event, Site, calling, check_numbers, eventually, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from voiceagent.audio.g711 import mulaw_encode
from voiceagent.engine.fake import Script
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

WEATHERS = {
    "losses": Weather(delay_s=0.02, jitter_s=0.01, lost=0.05),
    "far": Weather(delay_s=0.15),
    "jitter": Weather(delay_s=0.02, jitter_s=0.2),
    "narrow": Weather(delay_s=0.03, bytes_per_s=8_000),  # 64 kbit/s, for G.711 and JSON around it
}
LOUD, SILENT = (np.full(VOICE_RATE // 50, level, np.int16) for level in (8000, 0))  # 20 ms
IDS = 120  # of a reply: 4.8 s


class Player(Caller):
    """A caller with a loudspeaker: it plays what comes at 24 kHz, says where it is, and stops when it is told."""

    def __init__(self, socket: Any) -> None:
        super().__init__(socket)
        self.played: dict[str, int] = {}  # samples
        self.dry = 0  # times that it had nothing left in the midst of a response
        self.rate, self.width = VOICE_RATE, 2  # of its format

    def _note(self, event: Event) -> None:
        super()._note(event)
        if event["type"] == "response.output_audio.delta":
            self.played.setdefault(event["response_id"], 0)

    async def listen(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        last, told = loop.time(), 0.0
        while True:
            await asyncio.sleep(0.01)
            now = loop.time()
            run, last = int((now - last) * self.rate), now
            for name in self.played:
                heard = self.responses[name]
                left = len(heard.audio) // self.width - self.played[name]
                self.dry += bool(left < run and not heard.status and self.played[name])
                self.played[name] += 0 if heard.cleared else min(run, left)
            if self.played and now - told > 0.05:
                told = now
                name = list(self.played)[-1]
                ms = self.played[name] * 1000 // self.rate
                with contextlib.suppress(ConnectionClosed):
                    await self.send("output_audio_buffer.played", response_id=name, audio_end_ms=ms)

    async def stream(self, seconds: float, level: int) -> None:
        """Sound as a microphone sends it, 100 ms at once."""
        pcm = np.full(self.rate // 10, level, np.int16)
        raw = pcm.astype("<i2").tobytes() if self.width == 2 else mulaw_encode(pcm)
        for _ in range(round(seconds * 10)):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(raw).decode())
            await asyncio.sleep(0.095)


@contextlib.asynccontextmanager
async def playing(between: Network) -> AsyncIterator[Player]:
    address = f"ws://127.0.0.1:{between.port}/v1/realtime?model=fake"
    async with connect(address, max_size=None, compression=None) as socket:
        player = Player(socket)
        await player.next()
        listening = asyncio.create_task(player.listen())
        try:
            yield player
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def talk_over(player: Player, number: int, *, narrow: bool) -> None:
    """A response that is cut off by a voice, while the player says where it is."""
    detection = {"type": "server_vad", "silence_duration_ms": 300, "create_response": False}
    audio: dict[str, Any] = {"input": {"turn_detection": detection}}
    if narrow:
        player.rate, player.width = 8_000, 1
        audio["output"] = {"format": {"type": "audio/pcmu"}}
        audio["input"]["format"] = {"type": "audio/pcmu"}
    await player.configure(audio=audio, output_lead_ms=200)
    await player.say("a long answer")
    await player.until("response.created")
    (response,) = player.responses.values()
    while player.played.get(response.id, 0) < player.rate // 2:
        await player.next()
    await player.stream(0.2, 0)
    speaking = asyncio.create_task(player.stream(1.0, 8000))
    await player.until("output_audio_buffer.cleared")
    while True:  # the last word of the player may be on its way
        heard = await player.until("response.heard")
        stood = player.played[response.id] * 1000 // player.rate
        assert heard["heard_ms"] <= stood + 1, "more is kept than was heard"
        if stood - heard["heard_ms"] <= 41:
            break
    await speaking
    if narrow:
        return  # an item takes too long to be shown
    await player.send("conversation.item.retrieve", item_id=heard["item_id"])
    item = (await player.until("conversation.item.retrieved"))["item"]
    heard = [event for event in player.log if event["type"] == "response.heard"][-1]
    kept = len(base64.b64decode(item["content"][0].get("audio") or "")) // 2
    assert 0 <= heard["heard_ms"] - kept * 1000 // VOICE_RATE <= 41
    assert len(item["content"][0]["transcript"].split()) == heard["heard_words"]
    check_numbers(response, session=number)


async def call_through(site: Site, name: str, number: int) -> None:
    async with network(site.port, WEATHERS[name], seed=3) as between, playing(between) as player:
        await talk_over(player, number, narrow=name == "narrow")


async def test_bad_networks_lose_no_sound_and_the_history_is_what_was_heard() -> None:
    async with serving(Script(speech_ids=IDS, chunk_ids=5, rtf=0.1)) as site:
        async with asyncio.timeout(60), asyncio.TaskGroup() as calls:
            for name in WEATHERS:
                before = len(site.engine.sessions)
                calls.create_task(call_through(site, name, before + 1), name=name)
                await eventually(lambda n=before: len(site.engine.sessions) > n)  # type: ignore[misc]
        await eventually(lambda: not site.engine.sessions)


async def until_state(caller: Caller, state: str) -> None:
    """Brings a call into a state."""
    detection = {"type": "server_vad", "silence_duration_ms": 300}
    await caller.configure(audio={"input": {"turn_detection": detection}}, output_lead_ms=200)
    if state in ("speech", "trailing"):
        for _ in range(20):
            await caller.append(LOUD)
        await caller.until("input_audio_buffer.speech_started")
        for _ in range(5 if state == "trailing" else 0):
            await caller.append(SILENT)
    elif state != "quiet":
        await caller.say("a question")
        await caller.until("response.created")
    if state in ("speaking", "held"):
        await caller.until("response.output_audio.delta")
    if state == "held":
        for _ in range(8):
            await caller.append(LOUD)
        await caller.until("response.interruption")


@pytest.mark.parametrize("end", ["reset", "closed"])
async def test_a_line_that_breaks_in_any_state_leaves_nothing_behind(end: str) -> None:
    script = Script(speech_ids=100, chunk_ids=5, rtf=0.3)
    async with serving(script) as site, calling(site) as other:
        await other.manual()
        for state in ("quiet", "speech", "trailing", "thinking", "speaking", "held"):
            async with network(site.port) as between:
                address = f"ws://127.0.0.1:{between.port}/v1/realtime?model=fake"
                socket = await connect(address, max_size=None, compression=None)
                caller = Caller(socket)
                await caller.next()
                await until_state(caller, state)
                assert len(site.engine.sessions) == 2
                between.reset() if end == "reset" else await between.close()
                await eventually(lambda: len(site.engine.sessions) == 1)
                with contextlib.suppress(ConnectionClosed):
                    await socket.close()
        heard = await other.ask("are you still there")
        check_numbers(heard, session=1, whole=100 * TOKEN_SAMPLES)
        assert not other.socket.close_code


async def test_who_comes_back_brings_what_was_heard_and_is_answered() -> None:
    """What a client can do without resumption: the items that it was told of, in a new session."""
    async with serving(Script(speech_ids=20)) as site:
        async with network(site.port) as between, playing(between) as player:
            await player.configure(audio={"input": {"turn_detection": None}}, output_lead_ms=200)
            await player.say("what was that")
            await player.until("response.heard")
            told = [event for event in player.log if event["type"] == "conversation.item.done"]
            between.reset()
            assert await player.closed() is None
        async with calling(site) as again:
            await again.manual()
            for event in told:
                item = {key: event["item"][key] for key in ("type", "role", "content", "id")}
                if item["role"] == "assistant":
                    text = item["content"][0]["transcript"]
                    item["content"] = [{"type": "output_text", "text": text}]
                await again.send("conversation.item.create", item=item)
            heard = await again.ask("and then")
            assert heard.status == "completed"
            check_numbers(heard, session=2, whole=20 * TOKEN_SAMPLES)
            assert json.dumps(told).count('"message"') == 2
