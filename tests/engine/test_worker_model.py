"""The whole engine, process and all, on a checkpoint folder of random weights: right samples, no right words."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import Inbox, said, spoke, start
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_token2wav import speech, write_token2wav
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core import events
from voiceagent.core.actions import CancelTurn, EncodePiece, Transcribe
from voiceagent.core.history import Piece
from voiceagent.engine import api
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.token2wav import Token2Wav

IDS = tiny_tokenizer().ids
TOKENS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replies of this checkpoint run to their limit."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    folder = write_checkpoint(tmp_path_factory.mktemp("engine"), weights)
    write_token2wav(folder)
    return folder


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(WorkerSpec(model=str(folder), threads=1, speech_dtype="float32"))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def question(number: int) -> Piece:
    return Piece(number, speech(1.0, seed=number))


async def test_four_conversations_at_once_are_what_each_is_alone(folder: Path) -> None:
    async with running(folder) as engine:
        assert engine.ready is not None
        assert engine.ready.voices == ("default_female", "default_male")
        inboxes = [Inbox() for _ in range(4)]
        sessions = [await engine.open_session(inbox) for inbox in inboxes]
        for number, session in enumerate(sessions):
            session.send(EncodePiece(question(number)))
            session.send(start(1, spoke(question(number)), temperature=0.0, max_tokens=TOKENS))
        ended = [await inbox.wait(events.TurnEnded) for inbox in inboxes]
        session, inbox = sessions[3], inboxes[3]
        session.send(start(2, spoke(question(3)), temperature=0.0, max_tokens=TOKENS))
        assert (await inbox.wait(events.TurnEnded)).raw_ids == ended[3].raw_ids
        assert len({e.raw_ids for e in ended}) == 4
    decoder = Token2Wav.load(folder / "token2wav")
    for inbox, end in zip(inboxes, ended, strict=True):
        sounds = [e for e in inbox.of(events.AudioOut) if e.turn == 1]
        codes = [i - IDS.audio_0 for i in end.raw_ids if IDS.audio_0 <= i < IDS.audio_pad]
        assert [i for e in sounds for i in e.ids] == codes
        assert sum(len(e.pcm) for e in sounds) == 960 * len(codes)
        state = decoder.open(decoder.voices["default_female"])
        alone, _ = decoder.step(codes, state, last=True)
        heard = np.concatenate([e.pcm for e in sounds]).astype(int)
        assert np.abs(heard - alone).max() <= 2


async def test_cancel_stops_within_a_step_and_the_voice_detector_listens_meanwhile(folder: Path) -> None:
    async with running(folder) as engine:
        inbox = Inbox()
        session = await engine.open_session(inbox)
        session.send(start(1, said("hello"), max_tokens=300))
        await inbox.wait(events.AudioOut)
        session.hear(0, np.zeros(1024, np.float32))
        assert (await inbox.wait(events.SpeechProb)).p < 0.5
        session.send(CancelTurn(1))
        assert (await inbox.wait(events.TurnEnded)).reason == "cancelled"
        count = len(inbox.of(events.AudioOut))
        piece = question(7)
        session.send(Transcribe("item", (piece,)))
        await inbox.wait(events.Transcript)
        assert len(inbox.of(events.AudioOut)) == count


async def test_a_truncated_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    shard = damaged / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    stages: list[api.Loading] = []
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        await LocalEngine(WorkerSpec(model=str(damaged))).start(stages.append)
    assert stages
