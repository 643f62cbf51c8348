"""Our vocoder against what the published one computed (scripts/golden/hift.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scripts.golden.fixed_weights import vocoder_weight
from voiceagent.models.step_audio2.hift import Hift, load_weights, stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet

GOLDEN = Path(__file__).parent.parent / "golden" / "hift.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        assert "step-audio2 1.0.0" in str(file["provenance"])
        numbers = [name for name in file.files if name != "provenance"]
        return {name: torch.from_numpy(file[name].astype(np.float32)) for name in numbers}


@pytest.fixture(scope="module")
def hift() -> Hift:
    net = HiftNet(HiftConfig(32, 24))
    weights = {name: vocoder_weight(name, shape) for name, shape in stored_shapes(net).items()}
    load_weights(net, weights, source=str(GOLDEN))
    return Hift(net)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_pitch_is_the_published_one(hift: Hift, golden: dict[str, Tensor]) -> None:
    assert relative(hift.net.f0_predictor(golden["mel"][None])[0], golden["pitch"]) < 1e-4


def test_samples_are_the_published_ones(hift: Hift, golden: dict[str, Tensor]) -> None:
    samples = hift.synthesize(golden["mel"], source=golden["source"])
    assert samples.shape == golden["samples"].shape
    assert relative(samples, golden["samples"]) < 1e-3


def test_sines_are_the_published_ones(hift: Hift, golden: dict[str, Tensor]) -> None:
    hertz = golden["hertz"][None]
    voiced = (hertz[0] > 10).repeat_interleave(480)
    voiced[:240] = (
        False  # the published one stands still until the centre of the first frame; ours is already running
    )
    silence = torch.zeros(1, hertz.shape[1] * 480)
    sines = hift.net.excite(hertz, silence, phase=torch.zeros(1, dtype=torch.float64))[0, 0]
    assert relative(sines[voiced], golden["sines"][voiced]) < 1e-3
    mute = (hertz[0] <= 10).repeat_interleave(480)
    assert torch.equal(sines[mute], golden["sines"][mute])
