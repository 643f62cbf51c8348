"""The flow: configuration, loading, whole utterances, streams of any chunking and any length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from real_tensors import FLOW_YAML
from torch import Tensor, nn

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.checkpoint import quantize_rows
from voiceagent.models.step_audio2.flow import (
    RECENT_TOKENS,
    Flow,
    FlowChunk,
    FlowNet,
    FlowState,
    frame_noise,
)
from voiceagent.models.step_audio2.flow_config import FlowConfig

TINY_YAML = (
    FLOW_YAML.replace("512", "16")
    .replace("2048", "16")
    .replace("num_blocks: 6", "num_blocks: 1")
    .replace("num_up_blocks: 4", "num_up_blocks: 1")
    .replace("attention_heads: 8", "attention_heads: 2")
    .replace("num_heads: 8", "num_heads: 2")
    .replace("head_dim: 64", "head_dim: 8")
    .replace("depth: 16", "depth: 2")
    .replace("mlp_ratio: 4.0", "mlp_ratio: 1")
    .replace("vocab_size: 6561", "vocab_size: 40")
)


@dataclass(frozen=True, slots=True)
class Prompt:
    tokens: Tensor
    mel: Tensor
    speaker: Tensor


def tiny_net() -> FlowNet:
    torch.manual_seed(2)
    net = FlowNet(FlowConfig.from_text(TINY_YAML, source="flow.yaml"))
    for name, parameter in net.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.15)
    return net


@pytest.fixture(scope="module")
def flow() -> Flow:
    return Flow(tiny_net(), steps=3)


@pytest.fixture(scope="module")
def voice() -> Prompt:
    generator = torch.Generator().manual_seed(5)
    return Prompt(
        torch.randint(0, 40, (20,), generator=generator),
        torch.randn(40, 80, generator=generator),
        torch.randn(192, generator=generator),
    )


def tokens(count: int, *, seed: int = 0) -> Tensor:
    return torch.randint(0, 40, (count,), generator=torch.Generator().manual_seed(seed))


def streamed(flow: Flow, ids: Tensor, state: FlowState, sizes: list[int]) -> Tensor:
    """Feeds `ids` in chunks of `sizes` new tokens; what remains is the last chunk."""
    parts, at = [], 0
    for size in sizes:
        mel, state = flow.step(ids[at : at + size + flow.lookahead], state, last=False)
        parts.append(mel)
        at += size
    mel, state = flow.step(ids[at:], state, last=True)
    return torch.cat([*parts, mel], dim=1)


# ----------------------------------------------------------------------------------------------------- configuration


def test_the_real_shape_has_the_published_tensors() -> None:
    assert len(FLOW_YAML) == 1099
    with torch.device("meta"):
        net = FlowNet(FlowConfig.from_text(FLOW_YAML, source="flow.yaml"))
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert len(shapes) == 605
    assert sum(tensor.numel() for tensor in net.state_dict().values()) == 155_802_352
    expected = {
        "input_embedding.weight": (6561, 512),
        "spk_embed_affine_layer.bias": (80,),
        "encoder.embed.out.1.weight": (512,),
        "encoder.up_embed.out.0.weight": (512, 512),
        "encoder.pre_lookahead_layer.conv1.weight": (512, 512, 4),
        "encoder.encoders.5.self_attn.linear_pos.weight": (512, 512),
        "encoder.up_encoders.3.self_attn.pos_bias_v": (8, 64),
        "encoder.up_layer.conv.weight": (512, 512, 5),
        "encoder.encoders.0.feed_forward.w_1.weight": (2048, 512),
        "encoder.after_norm.bias": (512,),
        "encoder_proj.weight": (80, 512),
        "decoder.estimator.t_embedder.mlp.0.weight": (512, 256),
        "decoder.estimator.in_proj.weight": (512, 320),
        "decoder.estimator.blocks.15.attn.q_norm.weight": (64,),
        "decoder.estimator.blocks.15.attn.to_k.bias": (512,),
        "decoder.estimator.blocks.0.conv.block.6.weight": (512, 512, 3),
        "decoder.estimator.blocks.0.conv.block.3.bias": (512,),
        "decoder.estimator.blocks.7.adaLN_modulation.1.weight": (4608, 512),
        "decoder.estimator.final_layer.adaLN_modulation.1.bias": (1024,),
        "decoder.estimator.final_layer.linear.weight": (80, 512),
    }
    assert {name: shapes.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("    vocab_size: 40\n", "", "flow.vocab_size"),
        ("depth: 2", "depth: zwei", "flow.decoder.estimator.depth"),
        ("depth: 2", "depth: 0", "flow.decoder.estimator.depth"),
        ("'rel_selfattn'", "'selfattn'", "selfattention_layer_type"),
        ("key_bias: true", "key_bias: false", "key_bias"),
        ("up_scale_factor: 2", "up_scale_factor: 3", "up_scale_factor"),
        ("attention_heads: 2", "attention_heads: 5", "attention_heads"),
        ("decoder: !new:", "decoder: !apply:", "YAML"),
        ("flow: !new:cosyvoice2", "flow: !new:cosyvoice2 [1]\nx: !new:y", "YAML"),
    ],
)
def test_a_bad_configuration_names_its_field(old: str, new: str, field: str) -> None:
    text = TINY_YAML.replace(old, new)
    assert text != TINY_YAML
    with pytest.raises(CheckpointError, match=field):
        FlowConfig.from_text(text, source="flow.yaml")


def test_an_empty_configuration_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="missing"):
        FlowConfig.from_text("", source="flow.yaml")


def test_tags_are_never_executed(tmp_path: Path) -> None:
    target = tmp_path / "made"
    with pytest.raises(CheckpointError):
        FlowConfig.from_text(f"flow: !!python/object/apply:os.mkdir ['{target}']", source="flow.yaml")
    with pytest.raises(CheckpointError):
        FlowConfig.from_text(f"flow: !new:os.mkdir\n    path: '{target}'", source="flow.yaml")
    assert not target.exists()


# ----------------------------------------------------------------------------------------------------------- loading


def write(folder: Path, net: FlowNet) -> None:
    (folder / "flow.yaml").write_text(TINY_YAML)
    torch.save(net.state_dict(), folder / "flow.pt")


def test_a_folder_loads_and_speaks_like_the_network_it_came_from(
    tmp_path: Path, flow: Flow, voice: Prompt
) -> None:
    write(tmp_path, tiny_net())
    loaded = Flow.load(tmp_path, steps=3)
    assert torch.equal(loaded.infer(tokens(5), voice), flow.infer(tokens(5), voice))
    assert not any(parameter.requires_grad for parameter in loaded.net.parameters())


def test_half_precision_files_load(tmp_path: Path, voice: Prompt) -> None:
    write(tmp_path, tiny_net().half())
    assert Flow.load(tmp_path, steps=1).infer(tokens(5), voice).dtype == torch.float32


def test_int8_rows_load(tmp_path: Path, flow: Flow, voice: Prompt) -> None:
    write(tmp_path, tiny_net())
    torch.save(quantize_rows(tiny_net().state_dict()), tmp_path / "flow.pt")
    rounded = Flow.load(tmp_path, steps=3).infer(tokens(5), voice)
    assert (rounded - flow.infer(tokens(5), voice)).abs().mean() < 0.05


def test_weights_may_run_in_half_precision_and_mels_stay_float32(
    tmp_path: Path, flow: Flow, voice: Prompt
) -> None:
    write(tmp_path, tiny_net())
    half = Flow.load(tmp_path, steps=3, dtype=torch.bfloat16)
    mel = streamed(half, tokens(30), half.open(voice), [10])
    assert mel.dtype == torch.float32
    exact = streamed(flow, tokens(30), flow.open(voice), [10])
    assert (mel - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_missing_surplus_and_misshaped_tensors_are_named(tmp_path: Path) -> None:
    write(tmp_path, tiny_net())
    good = torch.load(tmp_path / "flow.pt", weights_only=True)
    name = "decoder.estimator.in_proj.weight"
    for change in (lambda s: s.pop(name), lambda s: s.update({name: torch.zeros(2, 2)})):
        state = dict(good)
        change(state)
        torch.save(state, tmp_path / "flow.pt")
        with pytest.raises(CheckpointError, match=r"decoder\.estimator\.in_proj\.weight"):
            Flow.load(tmp_path)
    torch.save({**good, "extra.weight": torch.zeros(1)}, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match=r"extra\.weight"):
        Flow.load(tmp_path)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"flow\.yaml"):
        Flow.load(tmp_path)
    write(tmp_path, tiny_net())
    data = (tmp_path / "flow.pt").read_bytes()
    (tmp_path / "flow.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"flow\.pt is truncated"):
        Flow.load(tmp_path)
    torch.save([1, 2], tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match="dictionary"):
        Flow.load(tmp_path)
    (tmp_path / "flow.pt").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        Flow.load(tmp_path)


# ------------------------------------------------------------------------------------------------ utterances, streams


def test_an_utterance_gives_two_frames_a_token(flow: Flow, voice: Prompt) -> None:
    mel = flow.infer(tokens(7), voice)
    assert mel.shape == (80, 14)
    assert mel.dtype == torch.float32
    assert torch.isfinite(mel).all()
    assert torch.equal(mel, flow.infer(tokens(7).tolist(), voice))
    assert not torch.equal(mel, flow.infer(tokens(7), voice, seed=1))
    assert flow.infer([], voice).shape == (80, 0)


def test_chunks_may_have_any_size_and_each_gives_its_frames(flow: Flow, voice: Prompt) -> None:
    state = flow.open(voice)
    ids, at = tokens(60), 0
    for size in (10, 25, 1, 3):
        mel, state = flow.step(ids[at : at + size + 3], state, last=False)
        assert mel.shape == (80, 2 * size)
        at += size
    mel, state = flow.step(ids[at:], state, last=True)
    assert mel.shape == (80, 2 * (60 - at))
    assert state.frames == 120
    assert state.finished


def test_the_first_chunk_does_not_depend_on_what_comes_later(flow: Flow, voice: Prompt) -> None:
    a, b = tokens(40), tokens(40, seed=1)
    b[:13] = a[:13]
    ours, theirs = (streamed(flow, ids, flow.open(voice), [10, 10]) for ids in (a, b))
    assert torch.equal(ours[:, :20], theirs[:, :20])
    assert not torch.allclose(ours[:, 20:], theirs[:, 20:])


def test_a_prepared_prompt_serves_any_number_of_interleaved_streams(flow: Flow, voice: Prompt) -> None:
    prompt = flow.prepare(voice)
    ids = [tokens(30, seed=seed) for seed in range(3)]
    alone = [streamed(flow, row, flow.open(voice, seed=i), [8, 9]) for i, row in enumerate(ids)]
    states = [flow.open(prompt, seed=i) for i in range(3)]
    parts: list[list[Tensor]] = [[], [], []]
    for start, stop, last in ((0, 11, False), (8, 20, False), (17, 30, True)):
        for i in range(3):
            mel, states[i] = flow.step(ids[i][start:stop], states[i], last=last)
            parts[i].append(mel)
    for i in range(3):
        assert torch.equal(torch.cat(parts[i], dim=1), alone[i])


def test_a_fork_goes_its_own_way(flow: Flow, voice: Prompt) -> None:
    ids = tokens(40)
    state = flow.open(voice)
    _, state = flow.step(ids[:13], state, last=False)
    fork = state.fork()
    assert fork.nbytes == state.nbytes
    flow.step(tokens(20, seed=9), fork, last=True)
    kept, _ = flow.step(ids[10:], state, last=True)
    whole = streamed(flow, ids, flow.open(voice), [10])
    assert torch.equal(kept, whole[:, 20:])


def test_noise_belongs_to_a_frame_not_to_a_chunk() -> None:
    whole = frame_noise(7, 0, 500)
    assert torch.equal(whole[37:411], frame_noise(7, 37, 374))
    assert torch.equal(whole[64:128], frame_noise(7, 64, 64))
    assert not torch.equal(whole, frame_noise(8, 0, 500))
    assert whole.std() == pytest.approx(1, abs=0.02)
    assert frame_noise(7, 10, 0).shape == (0, 80)
    far = frame_noise(2**62, 1_500_000, 100)
    assert far.std() == pytest.approx(1, abs=0.05)


def test_every_chunk_gets_fresh_noise(flow: Flow, voice: Prompt) -> None:
    """Equal tokens long after the history was first trimmed still differ by their noise."""
    state = flow.open(voice)
    mels = []
    for _ in range(20):
        mel, state = flow.step([5] * 28, state, last=False)
        mels.append(mel)
    assert not torch.allclose(mels[-1], mels[-2], atol=1e-2)


def test_given_noise_is_used(flow: Flow, voice: Prompt) -> None:
    noise = frame_noise(0, 40, 20)
    mine, _ = flow.step(tokens(13), flow.open(voice), last=False, noise=noise)
    assert torch.equal(mine, flow.step(tokens(13), flow.open(voice), last=False)[0])
    zero, _ = flow.step(tokens(13), flow.open(voice), last=False, noise=torch.zeros(20, 80))
    assert not torch.allclose(mine, zero)


def test_a_ten_minute_stream_stays_bounded_in_memory_and_level(voice: Prompt) -> None:
    flow = Flow(tiny_net(), steps=2)
    state = flow.open(voice)
    ids = tokens(15_003)
    sizes, levels = set(), []
    for at in range(0, 15_000, 25):
        mel, state = flow.step(ids[at : at + 28], state, last=False)
        levels.append(mel.abs().mean().item())
        if at > RECENT_TOKENS:
            sizes.add(state.nbytes)
    assert len(sizes) == 1
    assert state.frames == 30_000
    early, late = sum(levels[10:60]), sum(levels[-50:])
    assert late == pytest.approx(early, rel=0.05)


def test_a_step_leaves_the_modules_as_they_were(flow: Flow, voice: Prompt) -> None:
    def snapshot() -> list[tuple[str, list[str]]]:
        return [(name, sorted(vars(module))) for name, module in flow.net.named_modules()]

    before, weights = snapshot(), {k: v.clone() for k, v in flow.net.state_dict().items()}
    streamed(flow, tokens(30), flow.open(voice), [10])
    assert snapshot() == before
    assert all(torch.equal(value, weights[name]) for name, value in flow.net.state_dict().items())


# ------------------------------------------------------------------------------------------------------------ refusals


def test_tokens_outside_the_vocabulary_are_refused(flow: Flow, voice: Prompt) -> None:
    for bad in (40, -1):
        with pytest.raises(InputError, match="outside 0 to 39"):
            flow.step([1, 2, 3, bad], flow.open(voice), last=False)
        with pytest.raises(InputError, match="outside 0 to 39"):
            flow.infer([bad], voice)


def test_a_chunk_without_new_tokens_is_refused_unless_it_is_the_last(flow: Flow, voice: Prompt) -> None:
    state = flow.open(voice)
    with pytest.raises(InputError, match="more than 3"):
        flow.step([1, 2, 3], state, last=False)
    mel, state = flow.step([], state, last=True)
    assert mel.shape == (80, 0)
    with pytest.raises(InputError, match="ended"):
        flow.step([1], state, last=True)


def test_a_voice_that_does_not_fit_is_refused(flow: Flow, voice: Prompt) -> None:
    with pytest.raises(InputError, match="mel has the shape"):
        flow.open(Prompt(voice.tokens, voice.mel[:-1], voice.speaker))
    with pytest.raises(InputError, match="too short"):
        flow.open(Prompt(voice.tokens[:2], voice.mel[:4], voice.speaker))
    with pytest.raises(InputError, match="speaker vector"):
        flow.open(Prompt(voice.tokens, voice.mel, voice.speaker[:10]))


# ------------------------------------------------------------------------------------------------------ many at once


def test_chunks_of_many_streams_equal_each_alone(flow: Flow, voice: Prompt) -> None:
    """Other voices, places and noises beside it do not reach a stream; neither do chunks of another size."""
    other = Prompt(voice.tokens[:9], voice.mel[:18], voice.speaker + 1)
    prompts = [flow.prepare(voice), flow.prepare(other)]
    ids = [tokens(60, seed=k) for k in range(4)]
    begun = [[], [10], [25, 8], [5]]
    alone, together = ([flow.open(prompts[k % 2], seed=k) for k in range(4)] for _ in range(2))
    for states in (alone, together):
        for k, sizes in enumerate(begun):
            at = 0
            for size in sizes:
                flow.step(ids[k][at : at + size + 3], states[k], last=False)
                at += size
    parts = [(k, ids[k][sum(begun[k]) :][: 15 if k < 3 else 12], k == 3) for k in range(4)]
    single = [flow.step(part, alone[k], last=last)[0] for k, part, last in parts]
    joint = flow.advance([FlowChunk(part, together[k], last) for k, part, last in parts])
    for ours, theirs in zip(joint, single, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert [state.finished for state in together] == [False, False, False, True]
    again = [flow.step([7] * 20, states[2], last=True)[0] for states in (alone, together)]
    torch.testing.assert_close(again[1], again[0], atol=1e-4, rtol=1e-4)


def test_a_pass_of_a_larger_size_computes_the_same(
    flow: Flow, voice: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs have fixed sizes: shorter chunks, last ones too, are filled up and nobody notices."""
    ids, state = tokens(60), flow.open(voice)
    exact = streamed(flow, ids, state, [10, 25, 12])
    for size in (25, 28):
        monkeypatch.setattr(flow, "_sizes", (size,))
        monkeypatch.setattr(flow, "_span", 1000)
        padded = streamed(flow, ids, flow.open(voice), [10, 25, 12])
        torch.testing.assert_close(padded, exact, atol=1e-4, rtol=1e-4)


def test_no_stream_moves_when_one_chunk_is_refused(flow: Flow, voice: Prompt) -> None:
    good, bad = flow.open(voice), flow.open(voice)
    with pytest.raises(InputError):
        flow.advance([FlowChunk(tokens(13), good, False), FlowChunk([99], bad, True)])
    assert good.frames == 0
    assert not good.finished
