"""Bad input through a running engine: a typed error for whoever caused it, and nothing for the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_helpers import Inbox, said, start
from safetensors.torch import load_file, save_file
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_token2wav import speech, write_recording, write_token2wav

from voiceagent.core import events
from voiceagent.core.history import AssistantItem, TextContent, UserItem
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("engine"), tiny_weights())
    write_token2wav(folder)
    return folder


async def test_what_one_session_does_wrong_costs_no_other(folder: Path) -> None:
    """A prompt longer than the context, and token ids of no model, while another session speaks."""
    engine = LocalEngine(WorkerSpec(model=str(folder), threads=1))
    await engine.start()
    try:
        good, bad = Inbox(), Inbox()
        talking, wrong = await engine.open_session(good), await engine.open_session(bad)
        talking.send(start(1, said("hello"), temperature=0.0, max_tokens=60))
        wrong.send(start(1, said("hello " * 600)))
        failed = await bad.wait(events.TurnFailed)
        assert (failed.turn, failed.code) == (1, "context_length_exceeded")
        assert "the model has 512" in failed.message
        ask = UserItem(id="u", content=(TextContent("hello"),))
        ids = [
            (AssistantItem(id="a", text="x", raw_ids=(1 << 40,), spoken=True), "token_out_of_range"),
            (AssistantItem(id="a", text="x", raw_ids=(-5,), spoken=True), "token_out_of_range"),
            (AssistantItem(id="a", text="x", audio_ids=(6561,), spoken=True), "audio_id_out_of_range"),
        ]
        for turn, (item, code) in enumerate(ids, 2):
            wrong.send(start(turn, (ask, item, ask)))
            failed = await bad.wait(events.TurnFailed)
            assert (failed.turn, failed.code) == (turn, code)
        wrong.send(start(9, said("hello"), temperature=0.0, max_tokens=60))
        ends = [await inbox.wait(events.TurnEnded) for inbox in (good, bad)]
        assert ends[0].raw_ids == ends[1].raw_ids
        assert not good.of(events.TurnFailed)
    finally:
        await engine.stop()


def another_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 3584}))


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][7, 7] = torch.nan
    save_file(weights, folder / "model.safetensors")


def voice(samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Callable[[Path], None]:
    return lambda folder: write_recording(folder / "default_male.wav", samples)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (another_model, "wrong_model"),
        (not_a_number, "bad_weights"),
        (voice(speech(0.2)), "audio_too_short"),
        (voice(speech(300)), "audio_too_long"),
        (voice(np.zeros(48_000, np.float32)), "audio_silent"),
    ],
    ids=["another model", "not a number", "0.2 s", "5 minutes", "silence"],
)
async def test_a_folder_that_cannot_be_loaded(
    damage: Callable[[Path], None], code: str, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy)
    engine = LocalEngine(WorkerSpec(model=str(copy), threads=1))
    with pytest.raises(CheckpointError) as caught:
        await engine.start()
    assert caught.value.code == code
    assert str(copy) in caught.value.message
    assert engine.pid is None
