"""Voices that clients bring, at both ends of the pipe: made beside turns, sent again after a restart, forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from engine_helpers import OPTIONS, Inbox, said, start

from voiceagent.audio.clip import to_wav
from voiceagent.core import events
from voiceagent.engine import api, mapping
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.fake import FakeRunner, Script
from voiceagent.engine.loop import Loop
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.errors import CapacityError, EngineError, InputError


def tone(seconds: float = 4.0) -> bytes:
    wave = 8000 * np.sin(np.arange(int(seconds * 24_000)) * 0.1)
    return to_wav(wave.astype(np.int16), rate=24_000)


class HandDesk:
    """A lane that the test works by hand."""

    def __init__(self) -> None:
        self.job: tuple[Callable[[], Any], Callable[[Any], None]] | None = None

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert self.job is None
        self.job = (work, done)

    def finish(self, error: Exception | None = None) -> None:
        assert self.job is not None
        (work, done), self.job = self.job, None
        done(work() if error is None else error)


class Bench:
    def __init__(self) -> None:
        self.runner = FakeRunner(Script(speech_ids=5))
        self.desk, self.replies = HandDesk(), list[api.Reply]()
        self.loop = Loop(
            self.runner,
            max_sessions=4,
            emit=self.replies.append,
            clock=lambda: 0.0,
            desk=self.desk,  # type: ignore[arg-type]
        )
        self.loop.command(api.OpenSession(1))

    def begin(self, turn: int, voice: str) -> None:
        wire = tuple(mapping.item_to_wire(item) for item in said("hello"))
        self.loop.command(api.Begin(1, turn, wire, msgspec.structs.replace(OPTIONS, voice=voice)))

    def run(self) -> None:
        while self.loop.step():
            pass

    def kinds(self) -> list[str]:
        return [type(reply).__name__ for reply in self.replies]


def test_a_turn_waits_for_its_voice_and_no_other_turn_does() -> None:
    bench = Bench()
    bench.loop.command(api.Enrol("anna", tone()))
    bench.loop.command(api.OpenSession(2))
    bench.begin(1, "anna")
    bench.run()
    assert bench.replies == []
    wire = tuple(mapping.item_to_wire(item) for item in said("hello"))
    bench.loop.command(api.Begin(2, 1, wire, OPTIONS))
    bench.run()
    assert {reply.session for reply in bench.replies} == {2}  # type: ignore[union-attr]
    bench.replies.clear()
    bench.desk.finish()
    bench.run()
    assert bench.kinds()[0] == "Enrolled"
    assert bench.kinds()[-1] == "Ended"
    assert bench.runner.voices == {"anna": 96_000}


def test_one_after_the_other_and_first_what_a_turn_waits_for() -> None:
    bench = Bench()
    for name in ("anna", "bert", "carl"):
        bench.loop.command(api.Enrol(name, tone()))
    bench.begin(1, "carl")
    for _ in range(3):
        bench.desk.finish()
    made = [reply.name for reply in bench.replies if isinstance(reply, api.Enrolled)]
    assert made == ["anna", "carl", "bert"]


def test_a_voice_that_is_dismissed_before_it_is_made_never_is() -> None:
    bench = Bench()
    bench.loop.command(api.Enrol("anna", tone()))
    bench.loop.command(api.Enrol("bert", tone()))
    bench.begin(1, "anna")
    bench.loop.command(api.Dismiss("anna"))
    bench.loop.command(api.Dismiss("bert"))
    bench.desk.finish()
    assert bench.desk.job is None
    assert bench.runner.voices == {}
    bench.run()
    assert bench.kinds()[-1] == "Ended", "the turn has the default voice"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (InputError("no", code="audio_silent"), "input", "audio_silent"),
        (CapacityError("full", code="speech_full"), "overloaded", "speech_full"),
        (MemoryError(), "engine", "internal_error"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_one_is_made(error: Exception, kind: str, code: str) -> None:
    bench = Bench()
    bench.loop.command(api.Enrol("anna", tone()))
    bench.loop.command(api.Enrol("bert", tone()))
    bench.desk.finish(error)
    bench.desk.finish()
    first, second = bench.replies
    assert isinstance(first, api.NotEnrolled)
    assert (first.name, first.kind, first.code) == ("anna", kind, code)
    assert isinstance(second, api.Enrolled)


def test_a_lost_device_ends_the_engine() -> None:
    bench = Bench()
    bench.loop.command(api.Enrol("anna", tone()))
    with pytest.raises(EngineError):
        bench.desk.finish(EngineError("lost"))


# --- over a real pipe -----------------------------------------------------------------------------------------


@asynccontextmanager
async def running() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(WorkerSpec(fake=Script(speech_ids=10, chunk_ids=5)), backoff_s=(0.0,))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def test_a_voice_survives_the_engine_and_a_forgotten_one_falls_back() -> None:
    async with running() as engine:
        made = await engine.voices.enrol("anna", tone())
        assert (made.seconds, engine.voices.names) == (4.0, ("anna",))
        with pytest.raises(InputError, match="already"):
            await engine.voices.enrol("anna", tone())
        with pytest.raises(InputError) as error:
            await engine.voices.enrol("bert", tone(2.0))
        assert error.value.code == "audio_too_short"
        assert engine.voices.names == ("anna",)
        inbox = Inbox()
        session = await engine.open_session(inbox)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await inbox.wait(events.EngineUp)
        session.send(start(1, said("hello"), voice="anna"))
        await inbox.wait(events.TurnEnded)
        engine.voices.dismiss("anna")
        assert engine.voices.known("anna") == ""
        session.send(start(2, said("hello"), voice="anna"))
        assert (await inbox.wait(events.TurnEnded, events.TurnFailed)).turn == 2
        await engine.voices.enrol("anna", tone())
        assert engine.voices.known("anna") == "anna"


async def test_an_engine_that_dies_on_a_recording_is_told_and_does_not_get_it_again() -> None:
    async with running() as engine:
        inbox = Inbox()
        await engine.open_session(inbox)
        asked = asyncio.create_task(engine.voices.enrol("anna", tone()))
        await asyncio.sleep(0)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineError) as error:
            await asked
        assert error.value.code == "engine_down"
        with pytest.raises(EngineError):
            await engine.voices.enrol("anna", tone())
        await inbox.wait(events.EngineUp)
        assert engine.voices.names == ()
        await engine.voices.enrol("anna", tone())
