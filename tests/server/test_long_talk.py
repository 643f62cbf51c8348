"""A call that goes on: the engine is asked about what there is room for, and the client is told what was left out."""

from __future__ import annotations

import numpy as np
from server_helpers import calling, serving

from voiceagent.config import LimitsConfig
from voiceagent.core.actions import StartTurn
from voiceagent.core.history import SystemItem, audio_bytes
from voiceagent.engine.fake import CONTEXT, Script
from voiceagent.units import VOICE_RATE

TURNS = 60


async def test_sixty_turns_over_a_socket() -> None:
    async with serving(Script(speech_ids=3, keeps=10)) as site, calling(site) as caller:
        await caller.manual()
        dropped: list[str] = []
        for turn in range(TURNS):
            await caller.say(f"question {turn}")
            done = await caller.until("response.done")
            assert done["response"]["status"] == "completed"
            assert done["context"]["limit"] == CONTEXT
            assert 0 < done["context"]["tokens"] <= CONTEXT
            dropped += done["context"]["dropped_items"]
        assert len(dropped) == len(set(dropped)) == 2 * TURNS - 1 - 10, "each one once"
        (session,) = site.engine.sessions.values()
        starts = [action for action in session.actions if isinstance(action, StartTurn)]
        assert max(len(start.items) for start in starts) <= 12, "what was left out is not sent again"
        await caller.send("conversation.item.retrieve", item_id=dropped[0])
        assert (await caller.until("conversation.item.retrieved"))["item"]["id"] == dropped[0]


async def test_the_sound_of_a_long_call_stays_in_its_budget() -> None:
    second = np.zeros(VOICE_RATE, np.int16)
    async with serving(Script(speech_ids=25), limits=LimitsConfig(history_audio_mb=1)) as site:
        async with calling(site) as caller:
            await caller.manual()
            for _ in range(30):
                await caller.append(second)
                await caller.send("input_audio_buffer.commit")
                await caller.send("response.create")
                await caller.until("response.done")
            (session,) = site.engine.sessions.values()
        starts = [action for action in session.actions if isinstance(action, StartTurn)]
        held = [sum(map(audio_bytes, start.items)) for start in starts]
        assert max(held) <= 1 << 20
        assert held[5] > held[1] > 0, "what there is room for is kept"
        assert len(starts[-1].items) == 59, "and every item"


async def test_old_turns_become_text_and_then_a_summary_that_the_engine_writes() -> None:
    """Over a socket: every step is told, the last four exchanges stay sound, and the engine reads less and less."""
    script = Script(speech_ids=25, context=800, summary="Something was heard.")
    second = np.zeros(VOICE_RATE, np.int16)
    async with serving(script) as site, calling(site) as caller:
        await caller.manual()
        await caller.send("session.update", session={"type": "realtime", "context": {"summary": "model"}})
        shown = (await caller.until("session.updated"))["session"]["context"]
        assert shown == {"audio": "text", "summary": "model"}
        for _ in range(60):
            await caller.append(second)
            await caller.send("input_audio_buffer.commit")
            await caller.send("response.create")
            await caller.until("response.done")
        told = [event for event in caller.log if event["type"] == "conversation.condensed"]
        (session,) = site.engine.sessions.values()
    forms = [event["form"] for event in told]
    assert {"text", "summary"} == set(forms)
    assert all(event["tokens_after"] < event["tokens_before"] for event in told)
    assert {event["summary"] for event in told if event["form"] == "summary"} == {"Something was heard."}
    starts = [action for action in session.actions if isinstance(action, StartTurn)]
    replies = [start for start in starts if not start.options.sums_up]
    assert len(replies) == 60, "a summary is nobody's response"
    assert max(len(start.items) for start in replies) < 60, "of 119 items"
    last = replies[-1].items
    assert isinstance(last[0], SystemItem)
    assert "Something was heard." in last[0].text
    assert [audio_bytes(item) > 0 for item in last[-7:]].count(True) == 7
