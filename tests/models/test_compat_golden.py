"""`reference_compatible` against the published stream, samples and all (scripts/golden/stream.py made the file)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.golden.fixed_weights import fill, samples, vocoder_weight
from voiceagent.errors import InputError
from voiceagent.models.step_audio2 import compat
from voiceagent.models.step_audio2.compat import ReferenceSpeech
from voiceagent.models.step_audio2.flow import Flow, FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import Hift, load_weights, stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "stream.npz"
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Voice:
    tokens: Tensor
    mel: Tensor
    speaker: Tensor


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def speech(golden: dict[str, np.ndarray]) -> ReferenceSpeech:
    net = FlowNet(FlowConfig.from_text(str(golden["yaml"]), source="golden"))
    fill(net)
    vocoder = HiftNet(HiftConfig(16, 16))
    weights = {name: vocoder_weight(name, shape) for name, shape in stored_shapes(vocoder).items()}
    load_weights(vocoder, weights, source="golden")
    noise = samples("flow", 80 * compat.LONGEST_HISTORY).view(-1, 80)
    return ReferenceSpeech(Flow(net), Hift(vocoder), noise=noise)


@pytest.fixture(scope="module")
def excitation_noise(golden: dict[str, np.ndarray]) -> np.ndarray:
    return samples("excitation", 480 * 2 * max(len(golden["short/ids"]), len(golden["long/ids"]))).numpy()


def voice(golden: dict[str, np.ndarray], name: str) -> Voice:
    parts = (golden[f"{name}/{key}"] for key in ("tokens", "mel_prompt", "speaker"))
    tokens, mel, speaker = (torch.from_numpy(part) for part in parts)
    return Voice(tokens, mel.float(), speaker)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    difference = np.linalg.norm(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(difference / np.linalg.norm(theirs.astype(np.float64)))


def test_the_stream_has_the_published_samples(
    speech: ReferenceSpeech,
    golden: dict[str, np.ndarray],
    excitation_noise: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        compat, "stream_noise", lambda _seed, frame, frames: excitation_noise[480 * frame :][: 480 * frames]
    )
    ids, wanted = golden["short/ids"].tolist(), golden["short/sound"]
    state = speech.open(voice(golden, "short"))
    parts = []
    for at in range(0, len(ids), 7):  # however they come in
        parts.append(speech.step(ids[at : at + 7], state))
    parts.append(speech.step([], state, last=True))
    sizes = [len(part) for part in parts if len(part)]
    assert sizes == [24_000 - 3840, 24_000, 24_000, 24_000, 11 * 960 + 3840]
    ours, at = np.concatenate(parts), 0
    for size in sizes:
        assert relative_error(ours[at : at + size], wanted[at : at + size]) < TOLERANCE
        at += size
    assert at == len(wanted)
    # Apart from the last digit, which a cut-off of the same number at another order of sums can change.
    assert np.abs(ours.astype(int) - wanted).max() <= 3


def test_a_prompt_longer_than_what_a_trim_keeps_is_cut_like_the_published_one(
    speech: ReferenceSpeech, golden: dict[str, np.ndarray]
) -> None:
    ids, wanted = golden["long/ids"].tolist(), golden["long/mel"].astype(np.float32)
    state = speech.open(voice(golden, "long"))
    mels: list[np.ndarray] = []
    plain = speech._solve

    def recording(*args: object) -> object:
        mel, history = plain(*args)  # type: ignore[arg-type]
        mels.append(mel.numpy().T)
        return mel, history

    speech._solve = recording  # type: ignore[method-assign, assignment]
    speech.step(ids, state, last=True)
    del speech._solve
    assert len(mels) == 8
    assert state.history.frames == 120 + 100
    at = 0
    for mel in mels:
        assert relative_error(mel, wanted[:, at : at + mel.shape[1]]) < TOLERANCE
        at += mel.shape[1]
    assert at == wanted.shape[1]


def test_a_stream_ends_where_the_published_one_fails(
    speech: ReferenceSpeech, golden: dict[str, np.ndarray]
) -> None:
    state = speech.open(voice(golden, "short"))
    state.tokens = int(golden["longest"]) - state.prompt.tokens - compat.CHUNK  # all but its last chunk
    assert len(speech.step([7] * (compat.CHUNK + 3), state)) > 0
    with pytest.raises(InputError, match="100 s"):
        speech.step([7] * compat.CHUNK, state)
