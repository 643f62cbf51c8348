"""Many calls at once through real sockets: every sample of every reply at its place, and nothing after a flush."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import Any

import numpy as np
from server_helpers import Caller, Site, calling, check_numbers, eventually, serving, tight

from voiceagent.core.actions import StartTurn
from voiceagent.core.events import SpeechProb
from voiceagent.core.history import AssistantItem
from voiceagent.engine.fake import Script
from voiceagent.server.door import TIDE_S
from voiceagent.units import MODEL_RATE, TOKEN_SAMPLES, VOICE_RATE

CALLS, TURNS = 8, 15
SCRIPT = Script(speech_ids=20, chunk_ids=3, rtf=0.01, jitter=0.9)
WHOLE = 20 * TOKEN_SAMPLES
LOUD = np.full(VOICE_RATE // 10, 8000, np.int16)  #: 100 ms
SILENT = np.zeros(VOICE_RATE // 10, np.int16)


async def talk(caller: Caller, rng: random.Random, *, lead_ms: int | None) -> None:
    """Turns that are heard whole, cancelled, cleared or truncated, at random moments."""
    await caller.manual(lead_ms=lead_ms)
    for turn in range(TURNS):
        await caller.say(f"question {turn}")
        created = await caller.until("response.created")
        response = created["response"]["id"]
        for _ in range(rng.randrange(4)):
            if caller.responses[response].status:
                break
            await caller.next()
        dice = rng.random()
        if not caller.responses[response].status:
            if dice < 0.25:
                await caller.send("response.cancel")
            elif dice < 0.4:
                await caller.send("output_audio_buffer.clear")
            while not caller.responses[response].status:
                await caller.next()
        if dice > 0.9:
            item = f"{created['response']['id']}"  # not an item: an error, and the call goes on
            await caller.send(
                "conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=rng.randrange(900)
            )


async def test_no_sample_is_lost_doubled_or_crossed() -> None:
    """The numbered-samples run: calls x turns with cancels and clears at random moments."""
    turnstile = asyncio.Lock()

    async def one(site: Site, seed: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with turnstile:
                caller = await stack.enter_async_context(calling(site))
                session = max(site.engine.sessions)
            await talk(caller, random.Random(seed), lead_ms=None if seed % 2 else 1000)
        assert len(caller.responses) == TURNS
        for turn, heard in enumerate(caller.responses.values()):
            check_numbers(heard, session=session, whole=WHOLE)
            assert heard.status in ("completed", "cancelled")
            whole = f"You said: question {turn}"
            assert heard.text == whole or (heard.status == "cancelled" and whole.startswith(heard.text))
        assert "completed" in {heard.status for heard in caller.responses.values()}

    async with serving(SCRIPT) as site:
        await asyncio.gather(*(one(site, seed) for seed in range(CALLS)))


async def speak(caller: Caller, *, loud: int, silent: int) -> None:
    """Tenths of a second of voice and of silence."""
    for _ in range(loud):
        await caller.append(LOUD)
    for _ in range(silent):
        await caller.append(SILENT)


async def test_a_voice_is_answered_and_a_voice_over_the_answer_stops_it() -> None:
    async with serving(Script(speech_ids=100)) as site, calling(site) as caller:
        detection = {"type": "server_vad", "silence_duration_ms": 300}
        await caller.configure(audio={"input": {"turn_detection": detection}}, output_lead_ms=100)
        await speak(caller, loud=6, silent=6)
        kinds = [
            (await caller.until(kind))["type"]
            for kind in (
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "response.created",
                "response.output_audio.delta",
            )
        ]
        assert len(kinds) == 6
        while len(next(iter(caller.responses.values())).pcm) < VOICE_RATE:
            await caller.until("response.output_audio.delta")
        await speak(caller, loud=8, silent=0)  # over the answer
        await caller.until("input_audio_buffer.speech_started")
        await caller.until("output_audio_buffer.cleared")
        done = await caller.until("response.done")
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        cut = await caller.until("conversation.item.truncated")
        await speak(caller, loud=0, silent=6)
        await caller.until("response.created")
        first, second = caller.responses.values()
        check_numbers(first, session=1)
        assert 500 < cut["audio_end_ms"] <= len(first.pcm) * 1000 / VOICE_RATE < 4000
        await caller.send("response.cancel")
        await caller.until("response.done")
        check_numbers(second, session=1)
        starts = [action for action in site.engine.sessions[1].actions if isinstance(action, StartTurn)]
        (kept,) = [item for item in starts[-1].items if isinstance(item, AssistantItem)]
        assert kept.samples * 1000 // VOICE_RATE == cut["audio_end_ms"]  # the model is told what was heard


async def test_a_cough_does_not_stop_the_answer() -> None:
    async with serving(Script(speech_ids=20)) as site, calling(site) as caller:
        detection = {"type": "server_vad", "silence_duration_ms": 300}
        await caller.configure(audio={"input": {"turn_detection": detection}}, output_lead_ms=100)
        await speak(caller, loud=6, silent=6)
        await caller.until("response.output_audio.delta")
        await speak(caller, loud=1, silent=8)
        await caller.until("response.done")
        (heard,) = caller.responses.values()
        check_numbers(heard, session=1, whole=WHOLE)
        assert (heard.status, heard.cleared) == ("completed", False)


async def test_audio_is_paced_ahead_of_its_playing() -> None:
    """With a lead of 100 ms two seconds of speech take longer than 1.5 s to arrive, and no sample is missing."""
    async with serving(Script(speech_ids=50)) as site, calling(site) as caller:
        await caller.manual(lead_ms=100)
        began = asyncio.get_running_loop().time()
        heard = await caller.ask("hello")
        assert asyncio.get_running_loop().time() - began > 1.5
        check_numbers(heard, session=1, whole=50 * TOKEN_SAMPLES)


async def test_a_hang_up_in_the_middle_frees_the_slot() -> None:
    async with serving(Script(speech_ids=1000, rtf=1.0)) as site:
        async with calling(site) as caller:
            await caller.manual()
            await caller.say("hello")
            await caller.until("response.output_audio.delta")
        async with calling(site):
            await eventually(lambda: set(site.engine.sessions) == {2})


async def test_a_file_faster_than_speech_is_heard_to_its_end() -> None:
    """Ten minutes of audio at once: reading waits for the voice detector, nothing is dropped."""
    minute = np.tile(SILENT, 100)  # 10 s
    async with serving() as site, calling(site) as caller:
        for _ in range(60):
            await caller.append(minute)
        await speak(caller, loud=6, silent=10)
        started = await caller.until("input_audio_buffer.speech_started")
        assert 599_000 <= started["audio_start_ms"] <= 600_200
        await caller.until("response.done")
        places: list[Any] = site.engine.sessions[1].heard
        assert all(a + n == b for (a, n), (b, _) in itertools.pairwise(places))


async def test_reading_waits_for_the_voice_detector() -> None:
    """It is everybody's: what one client sends faster than it listens stays with that client."""
    ten_seconds = np.tile(SILENT, 100)
    async with serving() as site, calling(site) as caller, asyncio.TaskGroup() as tasks:
        session = site.engine.sessions[1]
        session._vad.push = lambda at, pcm: []  # it is slow today

        def given() -> float:
            return sum(n for _, n in session.heard) / MODEL_RATE

        async def send() -> None:
            for _ in range(12):
                await caller.append(ten_seconds)

        tasks.create_task(send())
        await eventually(lambda: given() > 29)
        # It would be answered if it were read; here it waits to be sent.
        tasks.create_task(caller.send("response.cancel"))
        await asyncio.sleep(0.2)
        assert given() < 41
        session.on_event(SpeechProb(at=20 * MODEL_RATE, p=0.0))
        await eventually(lambda: given() > 49)
        assert given() < 61
        site.engine.die()  # nobody will listen to it any more: it need not wait
        await eventually(lambda: given() > 119)
        await caller.until("error")
        site.engine.revive()  # what came meanwhile will not be answered: it is not waited for
        await caller.append(SILENT)
        await caller.send("response.cancel")
        await caller.until("error")


async def test_the_call_ends_at_its_limit() -> None:
    async with serving(limits=tight(session_s=0.2)) as site, calling(site) as caller:
        assert await caller.closed() == (1008, "session limit reached")


async def ended(script: Script, **detection: str) -> dict[str, Any]:
    """How a turn of a second is over; its silence comes bit by bit, so that a verdict can come in it."""
    async with serving(script) as site, calling(site) as caller:
        await caller.configure(audio={"input": {"turn_detection": {"type": "semantic_vad", **detection}}})
        await speak(caller, loud=10, silent=0)
        await caller.until("input_audio_buffer.speech_started")
        for _ in range(90):
            await caller.append(SILENT)
            await asyncio.sleep(2 * TIDE_S)  # what comes sooner goes in together
        return await caller.until("input_audio_buffer.speech_stopped")


async def test_a_turn_ends_by_what_was_said_and_says_why() -> None:
    complete = await ended(Script(transcript="where are you", complete=1.0))
    assert (
        complete["reason"] == "incomplete"
    )  # a voice that is held to the end: less sure, but no plain silence
    assert complete["silence_ms"] < 700
    number = await ended(Script(transcript="it is seven two one", complete=1.0))
    assert (number["reason"], number["silence_ms"] >= 900) == ("spelled", True)
    longest = await ended(Script(transcript="I would like, um", complete=1.0), eagerness="high")
    assert (longest["reason"], 1500 <= longest["silence_ms"] <= 2100) == ("longest_wait", True)


async def test_without_a_verdict_the_silence_decides() -> None:
    for eagerness, silence_ms in (("high", 400), ("medium", 700), ("low", 1200)):
        end = await ended(Script(), eagerness=eagerness)
        assert end["reason"] == "silence"
        assert silence_ms <= end["silence_ms"] <= 2 * silence_ms
