import asyncio

import numpy as np
import pytest
from engine_helpers import Inbox, piece, said, spoke, start

from voiceagent.core import events
from voiceagent.core.actions import CancelTurn, Transcribe
from voiceagent.core.options import Tool
from voiceagent.engine.fake import MODULUS, Script, numbered
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.errors import CapacityError


async def opened(script: Script | None = None) -> tuple[FakeEngine, Inbox, object]:
    engine, inbox = FakeEngine(script), Inbox()
    await engine.start()
    return engine, inbox, await engine.open_session(inbox)


def test_every_sample_tells_its_place() -> None:
    samples = numbered(session=1, turn=2, start=0, count=MODULUS)
    assert len(set(samples.tolist())) == MODULUS
    again = numbered(session=1, turn=2, start=100, count=50)
    assert np.array_equal(again, samples[100:150])
    assert not np.array_equal(samples[:50], numbered(session=2, turn=2, start=0, count=50))
    assert not np.array_equal(samples[:50], numbered(session=1, turn=3, start=0, count=50))


async def test_a_turn_plays_its_script() -> None:
    engine, inbox, session = await opened(Script(speech_ids=12, chunk_ids=5))
    session.send(start(3, said("hello there")))
    ended = await inbox.wait(events.TurnEnded)
    assert isinstance(inbox.events[0], events.TurnStarted)
    assert "".join(e.text for e in inbox.of(events.TextOut)) == "You said: hello there"
    pcm = np.concatenate([e.pcm for e in inbox.of(events.AudioOut)])
    assert np.array_equal(pcm, numbered(session=session.number, turn=3, start=0, count=12 * 960))
    assert ended.reason == "stop"
    await engine.stop()


async def test_audio_is_answered_with_its_length_and_tools_with_calls() -> None:
    engine, inbox, session = await opened()
    session.send(start(1, spoke(piece(1), piece(2)), modalities="text"))
    await inbox.wait(events.TurnEnded)
    assert "".join(e.text for e in inbox.of(events.TextOut)) == "I heard 3200 samples."
    session.send(start(2, said("use get_time now"), tools=(Tool("get_time", "", {}),)))
    assert (await inbox.wait(events.ToolCalled)).name == "get_time"
    session.send(Transcribe("item", (piece(1),)))
    assert (await inbox.wait(events.Transcript)).item_id == "item"
    await engine.stop()


async def test_cancel_and_faults() -> None:
    engine, inbox, session = await opened(Script(speech_ids=500, rtf=1.0))
    session.send(start(1, said("long")))
    await inbox.wait(events.TextOut)
    session.send(CancelTurn(1))
    assert (await inbox.wait(events.TurnEnded)).reason == "cancelled"
    session.send(start(2, said("!fail")))
    assert (await inbox.wait(events.TurnFailed)).code == "fake_fault"
    session.send(start(3, said("!die")))
    await inbox.wait(events.EngineDown)
    session.send(start(4, said("hello")))
    assert (await inbox.wait(events.TurnFailed)).code == "engine_down"
    engine.revive()
    await inbox.wait(events.EngineUp)
    session.close()
    count = len(inbox.events)
    session.send(start(5, said("hello")))
    await asyncio.sleep(0)
    assert len(inbox.events) == count
    await engine.stop()


async def test_loud_windows_are_speech() -> None:
    engine, inbox, session = await opened()
    loud = np.sin(np.arange(1024) / 5).astype(np.float32)
    session.hear(0, np.zeros(700, np.float32))
    session.hear(700, np.concatenate([np.zeros(324, np.float32), loud]))
    heard = [await inbox.wait(events.SpeechProb) for _ in range(4)]
    assert [(e.at, e.p > 0.5) for e in heard] == [
        (512, False),
        (1024, False),
        (1536, True),
        (2048, True),
    ]
    await engine.stop()


async def test_capacity() -> None:
    engine = FakeEngine(max_sessions=1)
    await engine.start()
    session = await engine.open_session(Inbox())
    with pytest.raises(CapacityError):
        await engine.open_session(Inbox())
    session.close()
    await engine.open_session(Inbox())
    await engine.stop()


async def test_a_script_with_a_thought_thinks_when_it_is_asked_to() -> None:
    engine, inbox, session = await opened(Script(speech_ids=5, thought="well then"))
    assert engine.ready is not None
    assert engine.ready.can_think
    session.send(start(1, said("hello"), think=True))
    ended = await inbox.wait(events.TurnEnded)
    assert [e.text for e in inbox.of(events.ThoughtOut)] == ["well ", "then "]
    assert ended.usage.output_thought == 2
    session.send(start(2, said("hello")))
    await inbox.wait(events.TurnEnded)
    assert len(inbox.of(events.ThoughtOut)) == 2
    engine.script = Script()
    session.send(start(3, said("hello"), think=True))
    assert (await inbox.wait(events.TurnFailed)).code == "think_unavailable"
    await engine.stop()
