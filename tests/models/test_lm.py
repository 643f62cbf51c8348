"""The language model against transformers' Qwen2, its cache against the full pass, the real list of tensors."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.models.real_config import POCKET, REAL_MINI
from voiceagent.errors import InputError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.lm import CausalLM
from voiceagent.models.step_audio2.mel import placeholder_count
from voiceagent.models.step_audio2.model import StepAudio2

SMALL = StepAudio2Config.from_dict(
    {
        "model_type": "step_audio_2",
        "text_config": {
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 100,
            "rope_theta": 10000.0,
        },
        "audio_encoder_config": {
            "n_mels": 128,
            "n_audio_ctx": 1500,
            "n_audio_state": 32,
            "n_audio_head": 4,
            "n_audio_layer": 2,
            "llm_dim": 48,
            "adapter_hidden": 24,
        },
    }
)


def _close(ours: torch.Tensor, theirs: torch.Tensor, *, tolerance: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.fixture(scope="module")
def qwen() -> Qwen2ForCausalLM:
    text = SMALL.text
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        vocab_size=text.vocab_size,
        rms_norm_eps=text.rms_norm_eps,
        rope_theta=text.rope_theta,
        rope_parameters={"rope_type": "default", "rope_theta": text.rope_theta},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def ours(qwen: Qwen2ForCausalLM) -> StepAudio2:
    model = StepAudio2(SMALL).eval()
    result = model.load_state_dict(qwen.state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert all(key.startswith(("encoder.", "adapter.")) for key in result.missing_keys)
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(100, (1, 40), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_full_pass_equals_transformers(ours: StepAudio2, qwen: Qwen2ForCausalLM, ids: torch.Tensor) -> None:
    _close(ours.logits(ours.hidden(ours.embed(ids))), qwen(ids).logits)


@torch.inference_mode()
def test_cached_prefill_and_decode_equal_the_full_pass(
    ours: StepAudio2, qwen: Qwen2ForCausalLM, ids: torch.Tensor
) -> None:
    expected = qwen(ids).logits
    cache = ours.new_cache()
    parts = [ours.hidden(ours.embed(ids[:, a:b]), cache) for a, b in [(0, 13), (13, 30), (30, 31)]]
    parts += [ours.hidden(ours.embed(ids[:, i : i + 1]), cache) for i in range(31, 40)]
    assert cache.length == 40
    _close(ours.logits(torch.cat(parts, 1)), expected)


@torch.inference_mode()
def test_a_truncated_cache_continues_as_if_nothing_had_followed(ours: StepAudio2, ids: torch.Tensor) -> None:
    expected = ours.hidden(ours.embed(ids))
    cache = ours.new_cache()
    ours.hidden(ours.embed(ids[:, :20]), cache)
    ours.hidden(ours.embed(ids[:, 3:12]), cache)
    cache.truncate(20)
    _close(ours.hidden(ours.embed(ids[:, 20:]), cache), expected[:, 20:])


@torch.inference_mode()
def test_a_fork_is_independent(ours: StepAudio2, ids: torch.Tensor) -> None:
    expected = ours.hidden(ours.embed(ids))
    cache = ours.new_cache()
    ours.hidden(ours.embed(ids[:, :20]), cache)
    twin = cache.fork()
    ours.hidden(ours.embed(ids[:, :20]), cache)
    assert (twin.length, cache.length) == (20, 40)
    _close(ours.hidden(ours.embed(ids[:, 20:]), twin), expected[:, 20:])


@torch.inference_mode()
def test_the_cache_grows_by_doubling_and_keeps_what_it_holds(ours: StepAudio2) -> None:
    ids = torch.randint(100, (1, 600), generator=torch.Generator().manual_seed(2))
    cache = ours.new_cache()
    before = cache.nbytes
    steps = [ours.hidden(ours.embed(ids[:, i : i + 100]), cache) for i in range(0, 600, 100)]
    assert cache.nbytes == 4 * before
    _close(torch.cat(steps, 1), ours.hidden(ours.embed(ids)))


def test_truncating_beyond_the_end_is_refused(ours: StepAudio2) -> None:
    with pytest.raises(ValueError, match="truncate"):
        ours.new_cache().truncate(1)


@torch.inference_mode()
def test_left_padded_rows_equal_rows_alone(ours: StepAudio2, ids: torch.Tensor) -> None:
    first, second = ids[:, :25], ids[:, 25:]
    batch = torch.cat([first, torch.cat([torch.zeros(1, 10, dtype=torch.long), second], 1)])
    cache, starts = ours.model.new_cache(batch=2), torch.tensor([0, 10])
    hidden = ours.model(ours.embed(batch[:, :-1]), cache, starts=starts)
    last = ours.model(ours.embed(batch[:, -1:]), cache, starts=starts)
    together = torch.cat([hidden, last], 1)
    _close(together[:1], ours.hidden(ours.embed(first)))
    _close(together[1:, 10:], ours.hidden(ours.embed(second)))


@torch.inference_mode()
def test_bfloat16_stays_near_float32(ours: StepAudio2, ids: torch.Tensor) -> None:
    half = StepAudio2(SMALL).eval()
    half.load_state_dict(ours.state_dict())
    half = half.bfloat16()
    cache = half.new_cache()
    hidden = half.hidden(half.embed(ids), cache)
    assert hidden.dtype == torch.bfloat16
    assert half.logits(hidden).dtype == torch.float32
    _close(hidden.float(), ours.hidden(ours.embed(ids)), tolerance=0.1)


@torch.inference_mode()
@pytest.mark.parametrize("samples", [0, 320, 321, 16000, 20331])
def test_audio_gives_one_row_per_placeholder(ours: StepAudio2, samples: int) -> None:
    rows = ours.encode_audio(torch.randn(samples))
    assert rows.shape == (placeholder_count(samples), 48)
    assert torch.isfinite(rows).all()


def test_audio_beyond_25_seconds_is_refused(ours: StepAudio2) -> None:
    with pytest.raises(InputError, match="400000"):
        ours.encode_audio(torch.zeros(400_001))


def test_real_config_has_the_real_tensors() -> None:
    with torch.device("meta"):
        state = StepAudio2(StepAudio2Config.from_dict(REAL_MINI)).state_dict()
    assert len(state) == 832
    assert sum(t.numel() for t in state.values()) == 8_315_179_264
    shapes = {
        "model.embed_tokens.weight": (158720, 3584),
        "lm_head.weight": (158720, 3584),
        "model.layers.27.self_attn.q_proj.weight": (3584, 3584),
        "model.layers.27.self_attn.q_proj.bias": (3584,),
        "model.layers.0.self_attn.k_proj.weight": (512, 3584),
        "model.layers.0.self_attn.v_proj.bias": (512,),
        "model.layers.0.self_attn.o_proj.weight": (3584, 3584),
        "model.layers.0.mlp.gate_proj.weight": (18944, 3584),
        "model.layers.0.mlp.up_proj.weight": (18944, 3584),
        "model.layers.0.mlp.down_proj.weight": (3584, 18944),
        "model.layers.0.input_layernorm.weight": (3584,),
        "model.layers.0.post_attention_layernorm.weight": (3584,),
        "model.norm.weight": (3584,),
        "encoder.conv1.weight": (1280, 128, 3),
        "encoder.conv2.bias": (1280,),
        "encoder.positional_embedding.weight": (1500, 1280),
        "encoder.blocks.31.attn.query.bias": (1280,),
        "encoder.blocks.31.attn.key.weight": (1280, 1280),
        "encoder.blocks.31.attn.value.weight": (1280, 1280),
        "encoder.blocks.31.attn.out.bias": (1280,),
        "encoder.blocks.0.attn_ln.weight": (1280,),
        "encoder.blocks.0.mlp_ln.bias": (1280,),
        "encoder.blocks.0.mlp.0.weight": (5120, 1280),
        "encoder.blocks.0.mlp.2.weight": (1280, 5120),
        "encoder.after_norm.weight": (1280,),
        "adapter.conv.weight": (1280, 1280, 3),
        "adapter.linear1.weight": (2048, 1280),
        "adapter.linear2.weight": (3584, 2048),
        "adapter.linear2.bias": (3584,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "encoder.blocks.0.attn.key.bias" not in state
    assert "model.layers.0.self_attn.o_proj.bias" not in state


def test_pocket_config_builds() -> None:
    with torch.device("meta"):
        model = CausalLM(POCKET.text)
    assert len(model.layers) == 8
