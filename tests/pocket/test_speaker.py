"""The speaker encoder that training builds: batched filter bank, error rate, and the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pocket import train_speaker as stage
from voiceagent.models.step_audio2.mel import kaldi_fbank

SMALL = stage.Shape(front=4, first=32, bottleneck=16, growth=8, layers=(1, 2, 1))


def test_batched_filter_bank_is_each_rows_own() -> None:
    lengths = torch.tensor([5000, 4801, 16_003])
    waves = torch.randn(3, 16_003) * 0.1 * (torch.arange(16_003) < lengths[:, None])
    for row, made in enumerate(stage.batched_fbank(waves, lengths)):
        assert torch.allclose(made, kaldi_fbank(waves[row, : lengths[row]]), atol=1e-4)


def test_equal_error_rate_of_known_cases() -> None:
    apart = torch.eye(2).repeat_interleave(4, 0)
    assert stage.equal_error_rate(apart, list("aaaabbbb")) == pytest.approx(0.0)
    assert stage.equal_error_rate(apart, list("abababab")) > 30


def test_onnx_file_gives_the_networks_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = stage.SpeakerEncoder(SMALL).train()
    model(torch.randn(8, 120, 80))  # statistics for the normalisers
    bank = stage.VoiceBank(torch.device("cpu"))
    bank._parts, bank._counts = [torch.randn(250, 80).half()], [250]
    bank.finish()
    report = stage.export(model, bank, tmp_path / "campplus.onnx")
    assert report["least_cosine"] > 0.999
    assert bank.crops(np.array([0, 0]), frames=400).shape == (2, 400, 80)
