"""The language model against Qwen2 of transformers, over pages against whole passes; the real list of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.models.real_config import POCKET, REAL_MINI
from voiceagent.errors import InputError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.host import HostStep
from voiceagent.models.step_audio2.kv import KvPool, KvSequence, page_bytes
from voiceagent.models.step_audio2.lm import CausalLM, Chunk, Step
from voiceagent.models.step_audio2.mel import placeholder_count
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.read import Reader

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


class Pages:
    """Sequences in a pool of their own."""

    def __init__(self, model: StepAudio2, *, pages: int = 16) -> None:
        self.model, weight = model, model.lm_head.weight
        nbytes = pages * page_bytes(SMALL.text, weight.dtype)
        self.pool = KvPool(SMALL.text, nbytes=nbytes, device="cpu", dtype=weight.dtype)

    def read(self, sequence: KvSequence, ids: torch.Tensor) -> torch.Tensor:
        """(N,) ids behind what the sequence holds; (N, vocabulary) scores."""
        sequence.reserve(sequence.length + len(ids))
        chunk = Chunk.after(sequence, len(ids), pool=self.pool, rotary=self.model.model.tables)
        states = self.model.model.extend(self.model.embed(ids), chunk)
        sequence.advance(len(ids))
        return self.model.scores(states)

    def step(
        self, sequences: Sequence[KvSequence | None], ids: list[int], *, host: bool = False
    ) -> torch.Tensor:
        """One id behind each sequence, None being an idle row; (N, vocabulary) scores."""
        for sequence in sequences:
            if sequence is not None:
                sequence.reserve(sequence.length + 1)
        tables = self.model.model.tables
        new: Step | HostStep = Step.after(sequences, pool=self.pool, rotary=tables)
        if host:
            real = [(sequence, sequence.length) for sequence in sequences if sequence is not None]
            new = HostStep(real, self.pool, rotary=tables, heads=SMALL.text.num_attention_heads)
        states = self.model.model.extend(self.model.embed(torch.tensor(ids)), new)
        for sequence in sequences:
            if sequence is not None:
                sequence.advance(1)
        return self.model.scores(states)


@torch.inference_mode()
@pytest.mark.parametrize("host", [False, True])
def test_chunks_and_steps_equal_the_full_pass(
    ours: StepAudio2, qwen: Qwen2ForCausalLM, ids: torch.Tensor, host: bool
) -> None:
    pages = Pages(ours)
    sequence = pages.pool.open()
    parts = [pages.read(sequence, ids[0, a:b]) for a, b in [(0, 13), (13, 30), (30, 31)]]
    parts += [pages.step([sequence], [int(ids[0, at])], host=host) for at in range(31, 40)]
    assert sequence.length == 40
    _close(torch.cat(parts), qwen(ids).logits[0])


@torch.inference_mode()
@pytest.mark.parametrize("host", [False, True])
def test_a_long_past_over_scattered_pages_equals_the_full_pass(ours: StepAudio2, host: bool) -> None:
    ids = torch.randint(100, (600,), generator=torch.Generator().manual_seed(2))
    pages = Pages(ours, pages=20)
    for taken in (3, 7, 8):
        pages.pool.ledger.take(1, after=taken - 1)
    sequence = pages.pool.open()
    parts = [pages.read(sequence, ids[start : start + 59]) for start in range(0, 590, 59)]
    parts += [pages.step([sequence], [int(token)], host=host) for token in ids[590:]]
    assert sequence.pages != list(range(sequence.pages[0], sequence.pages[0] + len(sequence.pages)))
    _close(torch.cat(parts), ours.logits(ours.hidden(ours.embed(ids[None])))[0])


@torch.inference_mode()
def test_a_batch_of_steps_equals_each_step_alone(ours: StepAudio2, ids: torch.Tensor) -> None:
    pages = Pages(ours)
    lengths = [5, 17, 30]
    sequences = [pages.pool.open() for _ in lengths]
    for sequence, length in zip(sequences, lengths, strict=True):
        pages.read(sequence, ids[0, :length])
    tokens = [int(ids[0, length]) for length in lengths]
    scores = pages.step([sequences[0], None, sequences[1], sequences[2]], [tokens[0], 0, *tokens[1:]])
    expected = ours.logits(ours.hidden(ours.embed(ids)))[0, lengths]
    _close(scores[[0, 2, 3]], expected)
    for sequence, length in zip(sequences, lengths, strict=True):
        sequence.truncate(length)
    _close(pages.step(sequences, tokens, host=True), expected)


@torch.inference_mode()
@pytest.mark.parametrize("past", [0, 70])
def test_a_padded_slice_stores_what_a_chunk_stores(ours: StepAudio2, past: int) -> None:
    """What a GPU replays: positions, places and pages as numbers on the device, idle rows behind the real ones."""
    ids = torch.randint(100, (past + 20,), generator=torch.Generator().manual_seed(2))
    pages = Pages(ours)
    expected, sequence = pages.pool.open(), pages.pool.open()
    pages.read(expected, ids)
    if past:
        pages.read(sequence, ids[:past])
    sequence.reserve(past + 20)
    reader = Reader(ours, pages.pool)
    embeds = torch.cat([ours.embed(ids[past:]), torch.zeros(12, 48)])
    reader._compute(embeds, torch.from_numpy(reader._pack(sequence, 20, size=32)))
    places = pages.pool.tensor.flatten(2, 3)
    stored = places[:, :, sequence.places(0, past + 20)]
    torch.testing.assert_close(stored, places[:, :, expected.places(0, past + 20)], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_truncated_sequence_continues_as_if_nothing_had_followed(
    ours: StepAudio2, ids: torch.Tensor
) -> None:
    expected = ours.logits(ours.hidden(ours.embed(ids)))[0]
    pages = Pages(ours)
    sequence = pages.pool.open()
    pages.read(sequence, ids[0, :20])
    pages.read(sequence, ids[0, 3:12])
    sequence.truncate(20)
    _close(pages.read(sequence, ids[0, 20:]), expected[20:])


@torch.inference_mode()
def test_a_fork_is_independent(ours: StepAudio2, ids: torch.Tensor) -> None:
    expected = ours.logits(ours.hidden(ours.embed(ids)))[0]
    pages = Pages(ours)
    sequence = pages.pool.open()
    pages.read(sequence, ids[0, :20])
    twin = sequence.fork()
    pages.read(sequence, ids[0, :20])
    assert (twin.length, sequence.length) == (20, 40)
    _close(pages.read(twin, ids[0, 20:]), expected[20:])


@torch.inference_mode()
def test_bfloat16_stays_near_float32(ours: StepAudio2, ids: torch.Tensor) -> None:
    half = StepAudio2(SMALL).eval()
    half.load_state_dict(ours.state_dict())
    half = half.bfloat16()
    expected = ours.logits(ours.hidden(ours.embed(ids)))
    hidden = half.hidden(half.embed(ids))
    assert hidden.dtype == torch.bfloat16
    assert half.logits(hidden).dtype == torch.float32
    _close(half.logits(hidden), expected, tolerance=0.1)
    pages = Pages(half)
    scores = pages.read(pages.pool.open(), ids[0])
    assert scores.dtype == torch.bfloat16
    _close(scores.float(), expected[0], tolerance=0.1)


@torch.inference_mode()
@pytest.mark.parametrize("samples", [0, 320, 321, 16000, 20331])
def test_audio_gives_one_row_per_placeholder(ours: StepAudio2, samples: int) -> None:
    rows = ours.encode_audio(torch.randn(samples))
    assert rows.shape == (placeholder_count(samples), 48)
    assert torch.isfinite(rows).all()


def test_weights_are_stored_as_the_reference_names_them(ours: StepAudio2) -> None:
    layer, state = ours.model.layers[0], ours.state_dict()
    prefix = "model.layers.0."
    assert not any("qkv" in name or "gate_up" in name for name in state)
    for part, whole, rows in [
        ("self_attn.q_proj.weight", layer.self_attn.qkv.weight, slice(0, 96)),
        ("self_attn.k_proj.bias", layer.self_attn.qkv.bias, slice(96, 128)),
        ("mlp.up_proj.weight", layer.mlp.gate_up.weight, slice(96, 192)),
    ]:
        assert state[prefix + part].data_ptr() == whole[rows].data_ptr(), "a view that the loader can fill"
    del state[prefix + "self_attn.k_proj.bias"]
    with pytest.raises(RuntimeError, match=r"qkv\.bias"):
        StepAudio2(SMALL).load_state_dict(state)


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
