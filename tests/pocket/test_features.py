"""The training scripts' audio banks: loading, augmentation, and that their features are what the model computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pocket import features
from voiceagent.models.step_audio2.mel import log_mel

TEXTS = ["hello there", "what time is it?", "", "book a table for two", "goodbye", "yes", "no, thanks", "um"]


def write_bank(
    data: Path, tag: str, *, n: int = 8, shards: int = 2, seed: int = 0, texts: list[str] | None = None
) -> None:
    """A bank of gen_data.py's format: buzzes whose pitch depends on the voice and whose length on the text."""
    rng = np.random.default_rng(seed)
    texts = texts or TEXTS
    items, shard, offset, length, waves = [], [], [], [], [[] for _ in range(shards)]
    for i in range(n):
        text, voice = texts[i % len(texts)], i % 3
        seconds = np.arange(6000 + 1600 * len(text)) / 16_000
        tone = sum(np.sin(2 * np.pi * (90 + 40 * voice) * k * seconds) / k for k in range(1, 12))
        wave = tone * 4000 * (0.3 + 0.7 * np.sin(9 * seconds + i) ** 2)
        wave = (wave + rng.normal(size=len(seconds)) * 30).astype(np.int16)
        k = i % shards
        items.append({"text": text, "voice": f"voice{voice}", "kind": "speech" if text else "noise"})
        shard.append(k)
        offset.append(sum(map(len, waves[k])))
        length.append(len(wave))
        waves[k].append(wave)
    for k in range(shards):
        np.save(data / f"{tag}_{k}.npy", np.concatenate(waves[k]))
    meta = {
        "items": items,
        "shard": shard,
        "offset": offset,
        "length": length,
        "shards": shards,
        "rate": 16_000,
    }
    (data / f"{tag}.json").write_text(json.dumps(meta))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_bank(tmp_path, "caller")
    return tmp_path


def test_bank_returns_each_utterance_whole(data: Path) -> None:
    bank = features.Bank(data, "caller", "cpu")
    waves, lengths = bank.batch([3, 0])
    meta = json.loads((data / "caller.json").read_text())
    shard = np.load(data / f"caller_{meta['shard'][3]}.npy")
    expected = shard[meta["offset"][3] :][: meta["length"][3]] / 32768
    assert lengths.tolist() == [meta["length"][3], meta["length"][0]]
    assert np.allclose(waves[0, : lengths[0]], expected, atol=1e-6)
    assert not waves[1, lengths[1] :].any()


def test_speed_changes_pitch_and_length_together(data: Path) -> None:
    bank = features.Bank(data, "caller", "cpu")
    ids = np.array([0])
    speech = (bank.lengths[ids] / 1.1).astype(np.int64)
    place = features.Placement(np.array([1.1]), np.array([500]), speech, speech + 900)
    waves, lengths = bank.placed(ids, place)
    assert lengths.tolist() == [int(speech[0]) + 900]
    assert not waves[0, :500].any()
    assert not waves[0, -400:].any()

    def pitch(wave: torch.Tensor) -> float:
        spectrum = torch.fft.rfft(wave, 65536).abs()
        return float(spectrum[200:1000].argmax() + 200) * 16_000 / 65536

    plain, _ = bank.batch(ids)
    assert pitch(waves[0]) / pitch(plain[0]) == pytest.approx(1.1, rel=0.01)


@pytest.mark.parametrize("pad", [0, 479])
def test_plain_features_are_the_models_own(data: Path, pad: int) -> None:
    bank = features.Bank(data, "caller", "cpu")
    made = features.FeatureBank(data, "caller", device="cpu", pad=pad)
    mel, frames = made.batch([5, 1])
    for row, item in enumerate([5, 1]):
        expected, _ = log_mel(*bank.batch([item]), pad=pad)
        assert frames[row] == expected.shape[2] == made.frames[item]
        assert torch.allclose(mel[row, :, : frames[row]], expected[0], atol=2e-3)
        assert not mel[row, :, frames[row] :].any()


def test_variants_differ_and_clean_lines_up(data: Path) -> None:
    made = features.FeatureBank(
        data, "caller", device="cpu", variants=3, augmented=True, pad=0, clean=True, keep=0.0
    )
    assert (made.n, made.base_n) == (24, 8)
    assert made.texts[8:16] == made.texts[:8]
    mel, frames, clean = made.batch([0, 8, 16])
    assert mel.shape == clean.shape
    assert torch.isfinite(mel).all()
    assert len(set(made.frames[[0, 8, 16]])) > 1
    for row in range(3):
        spoken = clean[row, :, : frames[row]].mean(0) > clean[row].min() + 0.3
        assert spoken.any()
        assert not torch.allclose(mel[row], clean[row], atol=1e-2)


def test_features_are_the_same_for_the_same_seed(data: Path) -> None:
    def mel(seed: int) -> torch.Tensor:
        return features.FeatureBank(data, "caller", device="cpu", augmented=True, seed=seed).batch([2, 4])[0]

    a, b, c = mel(1), mel(1), mel(2)
    assert torch.equal(a, b)
    assert a.shape != c.shape or not torch.equal(a, c)


def test_augmentation_of_digital_silence_stays_finite_and_quiet() -> None:
    waves, lengths = torch.zeros(32, 16_000), torch.full((32,), 12_000)
    heard = features.augment(waves, lengths, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(heard).all()
    assert heard.abs().max() < 0.05
    assert not heard[:, 12_000:].any()


def test_warp_moves_a_band_by_the_factor() -> None:
    seconds = torch.arange(16_000) / 16_000
    waves = torch.stack([torch.sin(2 * torch.pi * f * seconds) for f in (1000.0, 1150.0)])
    mel, _ = log_mel(waves, torch.tensor([16_000, 16_000]), pad=0)
    warped = features.warp_mel(mel, torch.tensor([1 / 1.15, 1.0]))
    assert abs(int(warped[0, :, 50].argmax()) - int(mel[1, :, 50].argmax())) <= 1
    assert torch.allclose(warped[1], mel[1], atol=1e-4)


def test_length_buckets_cover_everything_once_within_the_limit() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, 500)
    groups = features.length_buckets(lengths, max_total=4000, max_batch=32, rng=np.random.default_rng(1))
    assert sorted(np.concatenate(groups)) == list(range(500))
    assert all(len(g) <= 32 and len(g) * lengths[g].max() <= 4000 for g in groups)


def test_ctc_round_trip_and_error_rates() -> None:
    texts = ["What's up, doc?", "yes"]
    targets, counts = features.ctc_targets(texts, "cpu")
    path = torch.zeros(2, 2 * targets.shape[1], dtype=torch.int64)
    path[:, ::2] = targets  # a blank after every character
    scores = torch.nn.functional.one_hot(path, len(features.ALPHABET) + 1).float()
    read = features.ctc_greedy(scores, 2 * counts)
    assert read == ["what's up doc", "yes"]
    assert features.cer_wer(texts, read) == (0.0, 0.0)
    assert features.cer_wer(["a b c d"], ["a x c"])[1] == 50.0


def test_budget_and_schedule() -> None:
    assert features.Budget(10.0, spent=5.0).fraction() == pytest.approx(0.5, abs=0.05)
    assert features.lr_at(0.0, 1.0) == 0.0
    assert features.lr_at(0.03, 1.0) == pytest.approx(1.0)
    assert features.lr_at(1.5, 1.0) == pytest.approx(0.02)
