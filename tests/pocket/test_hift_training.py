"""What the vocoder learns from, and that what is written is what was trained."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pocket.hift_data import Corpus, track_pitch, upsample
from scripts.pocket.hift_loss import Critics, critic_loss, maker_loss, spectral_loss
from scripts.pocket.train_hift import Trainer, as_from_a_flow, export, judge, stream, train
from voiceagent.models.step_audio2.hift import Hift
from voiceagent.models.step_audio2.hift_net import HiftConfig


def voice(hertz: float, seconds: float = 1.0, rate: int = 16_000) -> torch.Tensor:
    t = torch.arange(round(seconds * rate)) / rate
    return 0.1 * sum(torch.sin(2 * math.pi * hertz * k * t) / k for k in range(1, 8))


@pytest.mark.parametrize("hertz", [70, 110, 150, 220, 330])
def test_pitch_of_steady_tones(hertz: int) -> None:
    pitch = track_pitch(voice(hertz)[None])[0]
    assert pitch.shape == (50,)
    assert (pitch[3:-3] - hertz).abs().max() < 0.01 * hertz


def test_noise_and_silence_have_no_pitch() -> None:
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    assert not track_pitch(torch.cat([noise, torch.zeros(1, 16_000)])).any()


def test_pitch_belongs_to_the_centre_of_its_mel_frame() -> None:
    rate = 100 + 50 * torch.arange(32_000) / 16_000
    phase = 2 * math.pi * (rate / 16_000).cumsum(0)
    pitch = track_pitch((0.1 * sum(torch.sin(k * phase) / k for k in range(1, 8)))[None])[0]
    centres = 100 + 50 * (torch.arange(100) * 320 + 160) / 16_000
    assert (pitch - centres)[5:-5].abs().max() < 0.5


def test_upsampling_keeps_a_tone() -> None:
    out = upsample(voice(200, 1.0)[None])[0]
    assert out.shape == (24_000,)
    assert (out - voice(200, 1.0, 24_000))[2000:-2000].abs().max() < 5e-3


def test_losses_know_the_truth() -> None:
    torch.manual_seed(0)
    real, made = voice(150, 0.3, 24_000)[None], 0.1 * torch.randn(1, 7200)
    assert spectral_loss(real, real).item() == 0.0
    assert spectral_loss(made, real).item() > 1.0
    judged = Critics()(torch.cat([real, made]))
    assert len(judged) == 8
    assert critic_loss(judged, 1).isfinite()
    assert maker_loss(judged, 1).isfinite()


def test_half_of_the_mels_are_made_to_look_like_a_flows() -> None:
    torch.manual_seed(0)
    mel = torch.randn(200, 80, 32) - 6
    made = as_from_a_flow(mel)
    same = (made == mel).flatten(1).all(1)
    assert 60 < int(same.sum()) < 140
    assert 0.05 < (made - mel)[~same].abs().mean() < 1.0


def test_what_is_only_judged_is_not_learned(tmp_path: Path) -> None:
    for tag in ("agent", "voices_new"):
        np.save(tmp_path / f"{tag}_0.npy", (voice(150.0, 40.0) * 32767).to(torch.int16).numpy())
        offsets = list(range(0, 640_000, 16_000))
        meta = {
            "items": [{"text": "a", "voice": tag, "kind": "speech"}] * 40,
            "shard": [0] * 40,
            "offset": offsets,
            "length": [16_000] * 40,
            "shards": 1,
            "rate": 16_000,
        }
        (tmp_path / f"{tag}.json").write_text(json.dumps(meta))
    banks = {"agent": 10, "voices_new": 40}
    corpus = Corpus(
        tmp_path, banks, device=torch.device("cpu"), held=2, shortest=32, judged_only=("voices_new",)
    )
    assert [item.tag for item in corpus.held] == ["agent"] * 2 + ["voices_new"] * 2
    assert len(corpus.frames) == 8  # of the agent only


def test_a_short_run_resumes_and_its_files_load(tmp_path: Path) -> None:
    for tag, hertz in (("agent", 180.0), ("agent_male", 110.0)):
        samples = (voice(hertz, 12.0) * 32767).to(torch.int16).numpy()
        np.save(tmp_path / f"{tag}_0.npy", samples)
        count, length = 8, len(samples) // 8
        meta = {
            "items": [{"text": "a", "voice": tag, "kind": "speech"}] * count,
            "shard": [0] * count,
            "offset": [i * length for i in range(count)],
            "length": [length] * count,
            "shards": 1,
            "rate": 16_000,
        }
        (tmp_path / f"{tag}.json").write_text(json.dumps(meta))
    device = torch.device("cpu")
    corpus = Corpus(tmp_path, {"agent": 8, "agent_male": 8}, device=device, held=1, shortest=32)
    assert [item.tag for item in corpus.held] == ["agent", "agent_male"]
    assert len(corpus.frames) == 14
    assert corpus.samples.shape == (480 * corpus.mel.shape[1],)
    args = Namespace(out=tmp_path, device=device, resume=False, dry=True, seconds=60.0, batch=2)
    trainer = Trainer(HiftConfig(16, 16), device)
    before = trainer.net.conv_pre.weight.clone()
    train(trainer, corpus, args)
    assert trainer.step == 3
    assert not torch.equal(before, trainer.net.conv_pre.weight)
    again = Trainer(HiftConfig(16, 16), device)
    args.resume = True
    train(again, corpus, args)
    assert again.step == 6
    net = trainer.averaged()
    export(net, tmp_path)
    loaded = Hift.load(tmp_path)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(loaded.net.state_dict()[name], value, rtol=2e-3, atol=1e-5)
    warm = Trainer(HiftConfig(16, 16), device, init=tmp_path)
    torch.testing.assert_close(warm.net.conv_pre.weight, net.conv_pre.weight, rtol=2e-3, atol=1e-5)
    assert all(p.requires_grad for p in warm.net.parameters())
    mel = corpus.held[0].mel
    assert stream(loaded, mel, [24, 50, 50]).shape == (480 * mel.shape[1],)
    assert judge(loaded, corpus.held, tmp_path)["utterances"] == 2
    assert (tmp_path / "hift_sample_agent_0.wav").stat().st_size == 44 + 2 * 480 * mel.shape[1]
