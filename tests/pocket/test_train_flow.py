"""Training of the pocket flow: its masks are what a stream sees, its windows stay in one voice, and it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scripts.pocket import flow_data, train_flow
from voiceagent.models.step_audio2.flow import Flow, FlowNet, frame_noise
from voiceagent.models.step_audio2.flow_config import FlowConfig

TINY = (
    train_flow.FLOW_YAML.replace("256", "16")
    .replace("1024", "16")
    .replace("attention_heads: 4", "attention_heads: 2")
    .replace("num_heads: 4", "num_heads: 2")
    .replace("head_dim: 64", "head_dim: 8")
    .replace("depth: 4", "depth: 1")
)


def test_masks_show_prompt_recent_history_and_the_own_chunk() -> None:
    row = torch.tensor
    tokens, frames = train_flow.stream_masks(row([4, 0]), row([3, 2]), row([5, 60]), 160)
    for b, (prompt, first, size) in enumerate(((4, 3, 5), (0, 2, 60))):
        ends = [prompt, prompt + first]
        while ends[-1] < 160:
            ends.append(ends[-1] + size)
        for query in (0, 3, 4, 6, 7, 11, 12, 99, 159):
            end = next(e for e in ends if query < e)
            start = max([0, *(e for e in ends if e <= query)])
            seen = [key for key in range(160) if key < end and (key < prompt or key >= start - 250)]
            assert tokens[b, query].nonzero().flatten().tolist() == seen
            seen = [
                key for key in range(320) if key < 2 * end and (key < 2 * prompt or key >= 2 * start - 100)
            ]
            assert frames[b, 2 * query + 1].nonzero().flatten().tolist() == seen


@torch.inference_mode()
def test_the_masked_window_is_the_stream() -> None:
    """What training sees under the masks is, frame for frame, what `Flow.step` computes."""
    torch.manual_seed(0)
    net = FlowNet(FlowConfig.from_text(TINY, source="flow.yaml"))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    prompt, first, size, count = 20, 11, 25, 110
    ids = torch.randint(0, 6561, (prompt + count,))
    ids[prompt : prompt + 3] = ids[:3]  # the prompt's stand-in for its look-ahead
    voice = flow_data.Prompt(ids[:prompt], torch.randn(2 * prompt, 80), torch.randn(192))
    flow = Flow(net, steps=2)
    streamed = train_flow.stream(flow, ids[prompt:], voice, first=first, size=size)

    row = torch.tensor
    masks = train_flow.stream_masks(row([prompt]), row([first]), row([size]), prompt + count)
    mu, _ = net.mu(ids[None], mask=masks[0])
    known = torch.zeros(1, 2 * (prompt + count), 160)
    known[:, :, :80] = net.speaker(voice.speaker[None])
    known[:, : 2 * prompt, 80:] = voice.mel
    known = torch.cat([mu, known], dim=2)
    known = torch.cat([known, torch.zeros_like(known)])
    times = 1 - torch.cos(torch.linspace(0, 1, 3) * torch.pi / 2)
    x = frame_noise(0, 0, 2 * (prompt + count))[None]
    for k in range(2):
        modulation = net.decoder.estimator.modulation(times[k : k + 1])
        v = net.decoder.estimator(torch.cat([x.expand(2, -1, -1), known], dim=2), modulation, mask=masks[1])
        x = x + (times[k + 1] - times[k]) * (1.7 * v[:1] - 0.7 * v[1:])
    torch.testing.assert_close(streamed, x[0, 2 * prompt :].T, atol=1e-4, rtol=1e-3)


def voice(base: int, speakers: int) -> flow_data.Voice:
    """40 items of 9 tokens; the token tells its place, the first value of a speaker vector tells the speaker."""
    starts = np.arange(0, 41 * 9, 9)
    tokens = base + torch.arange(int(starts[-1]))
    mel = tokens.repeat_interleave(2)[:, None].expand(-1, 80).half()
    whose = np.arange(40) * speakers // 40
    vectors = base + torch.from_numpy(whose).float()[:, None].expand(-1, 192)
    return flow_data.Voice(tokens, torch.arange(2 * len(tokens)), starts, mel, vectors, whose, whose)


def test_windows_stay_within_one_voice_and_pair_tokens_with_frames() -> None:
    windows = flow_data.Windows([voice(0, 1), voice(1000, 1)], np.random.default_rng(0))
    tokens, mel, speakers = windows.draw(64, 20)
    assert (mel[:, ::2, 0] == tokens).all()
    assert (mel[:, 1::2, 79] == tokens).all()
    assert ((tokens >= 1000) == (speakers[:, :1] == 1000)).all()
    assert 10 < int((speakers[:, 0] == 1000).sum()) < 40
    held_out = tokens % 1000 < 9 * flow_data.HELD_OUT
    assert not held_out.any()


def test_a_window_is_one_speakers_even_where_many_share_a_bank() -> None:
    many = voice(0, 5)
    windows = flow_data.Windows([many], np.random.default_rng(0))
    tokens, _, speakers = windows.draw(64, 100)  # longer than all that one of them says
    whose = torch.from_numpy(many.whose)[tokens // 9]
    assert (whose == speakers[:, :1].long()).all()
    assert len(set(whose[:, 0].tolist())) == 5
    assert not torch.from_numpy(many.held())[tokens // 9].any()
    assert train_flow.examination(many, 3) == [(1, [0]), (9, [8]), (17, [16])]


def bank(folder: Path, tag: str, items: int, *, speakers: int = 1) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(8_000, 24_000, items)
    np.save(folder / f"{tag}_0.npy", rng.integers(-3000, 3000, int(lengths.sum())).astype(np.int16))
    meta = {
        "items": [
            {"text": "x", "voice": f"{tag}{i * speakers // items}", "kind": "speech"} for i in range(items)
        ],
        "shard": [0] * items,
        "offset": (np.cumsum(lengths) - lengths).tolist(),
        "length": lengths.tolist(),
        "shards": 1,
        "rate": 16000,
    }
    (folder / f"{tag}.json").write_text(json.dumps(meta))
    counts = -(-(lengths // 160) // 4)
    offsets = np.cumsum(np.r_[0, counts])
    np.savez(
        folder / f"{tag}_tokens.npz",
        tokens=rng.integers(0, 6561, int(offsets[-1])).astype(np.int16),
        offsets=offsets,
    )


def test_it_trains_resumes_and_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(_bank: object, items: np.ndarray, _network: Path) -> Tensor:
        return torch.ones(len(items), 192)

    for tag in ("agent", "agent_male", "agent_es"):
        bank(tmp_path, tag, 26)
    for tag in ("voices", "voices_new"):
        bank(tmp_path, tag, 16, speakers=4)
    (tmp_path / "speaker.pt").touch()
    monkeypatch.setattr(train_flow, "FLOW_YAML", TINY)
    monkeypatch.setattr(flow_data, "speaker_vectors", vectors)
    arguments = ["train_flow.py", "--data", str(tmp_path), "--out", str(tmp_path), "--device", "cpu", "--dry"]
    monkeypatch.setattr(sys, "argv", arguments)
    train_flow.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--resume"])
    train_flow.main()
    assert torch.load(tmp_path / "flow_state.pt", weights_only=True)["step"] == 8
    assert Flow.load(tmp_path, steps=1).lookahead == 3
    figures = json.loads((tmp_path / "flow_eval.json").read_text())
    assert figures["10_steps"]["voices_new"]["mel_l1_streamed"] > 0
    monkeypatch.setattr(sys, "argv", [*arguments, "--init", str(tmp_path)])
    train_flow.main()
