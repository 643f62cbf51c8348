"""What config.json may say, and how its mistakes are named."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.models.real_config import POCKET, REAL_MINI
from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.tokenizer import TextTokenizer


def _with(path: str, value: Any) -> dict[str, Any]:
    """The real config with one field set, or removed for None."""
    raw = deepcopy(REAL_MINI)
    *parents, name = path.split(".")
    target = raw
    for parent in parents:
        target = target[parent]
    if value is None:
        del target[name]
    else:
        target[name] = value
    return raw


def test_the_published_config_is_read() -> None:
    config = StepAudio2Config.from_dict(REAL_MINI)
    assert (config.text.num_hidden_layers, config.text.vocab_size, config.text.rope_theta) == (
        28,
        158720,
        1e6,
    )
    assert (config.audio.n_audio_state, config.audio.adapter_hidden) == (1280, 2048)
    assert config.eos_token_ids == (151643,)
    assert config.quantization is None


def test_what_is_written_is_read_back() -> None:
    for config in (StepAudio2Config.from_dict(REAL_MINI), POCKET):
        assert StepAudio2Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_several_end_tokens_and_quantisation() -> None:
    raw = _with("eos_token_id", [1, 2]) | {"quantization_config": {"quant_method": "int8_rows"}}
    config = StepAudio2Config.from_dict(raw)
    assert (config.eos_token_ids, config.quantization) == ((1, 2), "int8_rows")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("model_type", "qwen2", "model_type"),
        ("text_config", None, "text_config"),
        ("text_config.hidden_size", None, "hidden_size"),
        ("text_config.vocab_size", "many", "vocab_size"),
        ("text_config.num_hidden_layers", 0, "num_hidden_layers"),
        ("text_config.num_key_value_heads", 2, "num_attention_groups"),
        ("text_config.num_attention_heads", 27, "num_attention_heads"),
        ("text_config.rope_scaling", {"type": "yarn"}, "rope_scaling"),
        ("text_config.rms_norm_eps", -1, "rms_norm_eps"),
        ("audio_encoder_config.n_audio_layer", None, "n_audio_layer"),
        ("audio_encoder_config.n_audio_head", 19, "n_audio_head"),
        ("audio_encoder_config.llm_dim", 4096, "llm_dim"),
        ("audio_encoder_config.adapter_stride", 4, "adapter_stride"),
        ("eos_token_id", "end", "eos_token_id"),
        ("quantization_config", {"quant_method": "gptq"}, "gptq"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        StepAudio2Config.from_dict(_with(path, value))


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        StepAudio2Config.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        StepAudio2Config.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        StepAudio2Config.from_folder(tmp_path)


def test_the_pocket_config_fits_its_tokenizer(pocket_dir: Path) -> None:
    tokenizer = TextTokenizer.from_folder(pocket_dir)
    assert tokenizer.size <= POCKET.text.vocab_size
    assert POCKET.eos_token_ids == (tokenizer.ids.eot,)
