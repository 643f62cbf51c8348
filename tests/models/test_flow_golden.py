"""The flow against the published one, whole and streamed over twenty chunks (scripts/golden/flow.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.golden.fixed_weights import fill
from voiceagent.models.step_audio2.flow import Flow, FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "flow.npz"
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: Tensor
    mel: Tensor
    speaker: Tensor


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module", params=TOLERANCE, ids=str)
def flow(request: pytest.FixtureRequest, golden: dict[str, np.ndarray]) -> Flow:
    net = FlowNet(FlowConfig.from_text(str(golden["yaml"]), source="golden"))
    fill(net)
    return Flow(net.to(request.param), steps=10)


@pytest.fixture(scope="module")
def voice(golden: dict[str, np.ndarray]) -> Prompt:
    return Prompt(*(torch.from_numpy(golden[k]) for k in ("prompt_tokens", "prompt_mel", "speaker")))


def relative_error(ours: Tensor, theirs: np.ndarray) -> float:
    wanted = torch.from_numpy(theirs)
    assert ours.shape == wanted.shape
    return float((ours.float() - wanted).norm() / wanted.norm())


def test_provenance_is_recorded(golden: dict[str, np.ndarray]) -> None:
    assert "step-audio2 1.0.0" in str(golden["provenance"])


@torch.inference_mode()
def test_the_encoder_agrees(flow: Flow, voice: Prompt, golden: dict[str, np.ndarray]) -> None:
    ids = torch.cat([voice.tokens, torch.from_numpy(golden["tokens"])])
    assert relative_error(flow.net.mu(ids[None])[0][0], golden["mu"]) < TOLERANCE[flow.dtype]


def test_a_whole_utterance_agrees(flow: Flow, voice: Prompt, golden: dict[str, np.ndarray]) -> None:
    mel = flow.infer(torch.from_numpy(golden["tokens"]), voice, noise=torch.from_numpy(golden["noise"]))
    assert relative_error(mel, golden["whole"]) < TOLERANCE[flow.dtype]


def test_a_stream_agrees_chunk_by_chunk(
    flow: Flow, voice: Prompt, golden: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.from_numpy(golden["noise"])
    # The prompt's own noise is no argument of ours: its frames are the first of the reference's buffer.
    monkeypatch.setattr(
        "voiceagent.models.step_audio2.flow.frame_noise", lambda _seed, start, frames: noise[start:][:frames]
    )
    state, ids, at = flow.open(voice), torch.from_numpy(golden["tokens"]), 0
    for size in [*golden["chunks"].tolist(), None]:
        chunk = ids[at : None if size is None else at + size + flow.lookahead]
        mel, state = flow.step(chunk, state, last=size is None)
        wanted = golden["streamed"][:, 2 * at : 2 * at + mel.shape[1]]
        assert relative_error(mel, wanted) < TOLERANCE[flow.dtype]
        at += size or 0
    assert len(golden["chunks"]) + 1 == 20
    assert state.frames == golden["streamed"].shape[1]
    assert np.abs(golden["streamed"] - golden["whole"]).max() > 0.05
