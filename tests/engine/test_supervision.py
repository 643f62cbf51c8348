"""Supervision of a real engine process; it plays the fake script, so no model is needed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_helpers import Inbox, piece, said, spoke, start, turn_options

from voiceagent.core import events
from voiceagent.core.actions import CancelTurn, EncodePiece, Prepare, Transcribe
from voiceagent.engine import api
from voiceagent.engine.client import LocalEngine, LocalSession
from voiceagent.engine.fake import Script, numbered
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.errors import CapacityError, CheckpointError, ConfigError, EngineError

QUICK = Script(speech_ids=20, chunk_ids=5)
SLOW = Script(speech_ids=2000, chunk_ids=5, rtf=0.05)  # four seconds of work


@asynccontextmanager
async def running(
    script: Script = QUICK, *, max_sessions: int = 8, hang_s: float = 5.0
) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(
        WorkerSpec(fake=script, max_sessions=max_sessions), heartbeat_s=0.1, hang_s=hang_s, backoff_s=(0.0,)
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def opened(engine: LocalEngine, count: int = 1) -> list[tuple[LocalSession, Inbox]]:
    inboxes = [Inbox() for _ in range(count)]
    return [(await engine.open_session(inbox), inbox) for inbox in inboxes]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_stopped_engine_leaves_no_process_behind() -> None:
    for _ in range(5):
        async with running() as engine:
            pid = engine.pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)  # it would find even a zombie


async def whole_turn(session: LocalSession, inbox: Inbox, turn: int) -> None:
    session.send(start(turn, said("hello")))
    await inbox.wait(events.TurnEnded, when=lambda e: e.turn == turn and e.reason == "stop")
    sounds = [e for e in inbox.of(events.AudioOut) if e.turn == turn]
    pcm = np.concatenate([e.pcm for e in sounds])
    assert np.array_equal(pcm, numbered(session=session.number, turn=turn, start=0, count=20 * 960))
    assert [e.seq for e in sounds] == list(range(len(sounds)))


async def test_turns_of_many_sessions_arrive_whole_through_the_pipe() -> None:
    async with running() as engine:
        sessions = await opened(engine, 8)
        await asyncio.gather(*(whole_turn(session, inbox, 1) for session, inbox in sessions))
        assert engine.ready is not None


async def test_voice_activity_is_answered_while_a_turn_computes() -> None:
    async with running(SLOW) as engine:
        ((session, inbox),) = await opened(engine)
        session.send(start(1, said("long")))
        await inbox.wait(events.TurnStarted)
        session.hear(0, np.full(1024, 0.3, np.float32))
        first, second = await inbox.wait(events.SpeechProb), await inbox.wait(events.SpeechProb)
        assert [(first.at, first.p > 0.5), (second.at, second.p > 0.5)] == [(512, True), (1024, True)]
        session.send(CancelTurn(1))
        assert (await inbox.wait(events.TurnEnded)).reason == "cancelled"


async def test_pieces_travel_once() -> None:
    async with running() as engine:
        ((session, inbox),) = await opened(engine)
        first, second = piece(1), piece(2, samples=400_000)
        session.send(EncodePiece(first))
        session.send(start(1, spoke(first, second), modalities="text"))
        await inbox.wait(events.TurnEnded)
        assert session.sent == {1, 2}
        assert "".join(e.text for e in inbox.of(events.TextOut)) == "I heard 401600 samples."
        session.send(Transcribe("item", (second,)))
        assert (await inbox.wait(events.Transcript)).item_id == "item"
        session.send(
            start(2, spoke(second), modalities="text")
        )  # the first piece was deleted from the history
        await inbox.wait(events.TurnEnded)
        assert session.sent == {2}


async def test_a_killed_engine_is_noticed_by_all_restarted_and_sent_the_pieces_again() -> None:
    async with running(SLOW) as engine:
        sessions = await opened(engine, 8)
        heard = piece(1)
        for session, inbox in sessions:
            session.send(start(1, spoke(heard)))
            await inbox.wait(events.AudioOut)
        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        for session, inbox in sessions:
            down = await inbox.wait(events.EngineDown)
            assert down.retry_after >= 0
            assert not session.sent
        session, inbox = sessions[0]
        if engine.ready is None:  # it may be back already
            session.send(start(2, said("too early")))
            await inbox.wait(events.TurnFailed, events.EngineUp)
        for _, inbox in sessions:
            if not inbox.of(events.EngineUp):
                await inbox.wait(events.EngineUp)
        assert engine.pid != before
        for session, inbox in sessions:
            session.send(start(3, spoke(heard)))
            await inbox.wait(events.AudioOut, when=lambda e: e.turn == 3)
        assert not alive(before)


async def test_a_hung_engine_is_found_by_its_heartbeat() -> None:
    async with running(hang_s=0.6) as engine:
        ((session, inbox),) = await opened(engine)
        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        await inbox.wait(events.EngineDown)
        await inbox.wait(events.EngineUp)
        assert not alive(before)
        await whole_turn(session, inbox, 1)


async def test_an_endless_step_is_found_by_the_heartbeat_too() -> None:
    async with running(hang_s=0.6) as engine:
        ((session, inbox),) = await opened(engine)
        session.send(start(1, said("!hang")))
        await inbox.wait(events.EngineDown)
        await inbox.wait(events.EngineUp)
        await whole_turn(session, inbox, 2)


async def test_an_engine_that_dies_in_a_turn_comes_back() -> None:
    async with running() as engine:
        ((session, inbox),) = await opened(engine)
        assert (engine.restarts, engine.slots_used) == (0, 1)
        session.send(start(1, said("!die")))
        await inbox.wait(events.EngineDown)
        await inbox.wait(events.EngineUp)
        assert (engine.restarts, engine.slots_used) == (1, 1)
        await whole_turn(session, inbox, 2)
        assert not engine.crash_looping


async def test_stopping_ends_the_process() -> None:
    async with running() as engine:
        pid = engine.pid
        assert pid is not None
        assert os.getsid(pid) == pid  # a session of its own: Ctrl-C in the terminal is the server's to handle
    assert not alive(pid)
    assert engine.ready is None


def test_no_orphan_outlives_a_killed_server() -> None:
    script = (
        "import asyncio\n"
        "from voiceagent.engine.client import LocalEngine\n"
        "from voiceagent.engine.pipe import WorkerSpec\n"
        "from voiceagent.engine.fake import Script\n"
        "async def main():\n"
        "    engine = LocalEngine(WorkerSpec(fake=Script()))\n"
        "    await engine.start()\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


async def test_a_bad_model_folder_is_a_typed_error_and_no_restart(tmp_path: Path) -> None:
    engine = LocalEngine(WorkerSpec(model=str(tmp_path / "missing")))
    stages: list[api.Loading] = []
    with pytest.raises(CheckpointError, match="missing"):
        await engine.start(stages.append)
    assert stages
    assert engine.pid is None


async def test_a_worker_that_cannot_start_is_an_engine_error() -> None:
    engine = LocalEngine(WorkerSpec(max_sessions="many"))  # type: ignore[arg-type]  # its command line is nonsense
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert caught.value.code == "engine_load_failed"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"device": "nowhere"}, "device_unavailable"),
        ({"speech_device": "cuda:99"}, "device_unavailable"),
        ({"dtype": "int3"}, "dtype_unsupported"),
        ({"speech_dtype": "float16"}, "dtype_unsupported"),
        ({"kv_memory_mb": 1 << 30}, "out_of_memory"),
    ],
)
async def test_what_the_machine_does_not_have_is_a_typed_error(
    wrong: dict[str, Any], code: str, pocket_dir: Path
) -> None:
    engine = LocalEngine(WorkerSpec(model=str(pocket_dir), **wrong))
    with pytest.raises(CapacityError if code == "out_of_memory" else ConfigError) as caught:
        await engine.start()
    assert caught.value.code == code
    assert engine.pid is None


async def test_reading_ahead_sends_its_pieces_once_and_changes_no_answer() -> None:
    async with running() as engine:
        ((session, inbox),) = await opened(engine)
        first, second = piece(1), piece(2)
        session.send(Prepare(spoke(first), turn_options()))
        assert session.sent == {1}
        session.send(start(1, spoke(first, second)))
        assert session.sent == {1, 2}
        ended = await inbox.wait(events.TurnEnded)
        assert ended.reason == "stop"
        assert "".join(e.text for e in inbox.of(events.TextOut)) == "I heard 3200 samples."


async def test_capacity_and_a_down_engine_are_refused() -> None:
    async with running(max_sessions=1) as engine:
        ((session, _),) = await opened(engine)
        with pytest.raises(CapacityError):
            await engine.open_session(Inbox())
        session.close()
        session.close()
        await opened(engine)
    with pytest.raises(EngineError) as caught:
        await engine.open_session(Inbox())
    assert caught.value.code == "engine_down"


async def test_a_session_that_raises_does_not_disturb_the_others() -> None:
    def broken(_: api.EngineEvent) -> None:
        raise RuntimeError("a bug of this session")

    async with running() as engine:
        bad = await engine.open_session(broken)
        ((good, inbox),) = await opened(engine)
        bad.send(start(1, said("hello")))
        await whole_turn(good, inbox, 1)
