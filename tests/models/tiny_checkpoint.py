"""A checkpoint folder with random weights, small enough to be made anew for every test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_tokenizer import tiny_tokenizer, tokenizer_spec
from torch import Tensor

from voiceagent.models.step_audio2.config import AudioEncoderConfig, StepAudio2Config, TextConfig
from voiceagent.models.step_audio2.model import StepAudio2

UNUSED_ROWS = 5  # embedding rows beyond the tokenizer, as the real checkpoint has them


def tiny_config(*, quantization: str | None = None, positions: int = 512) -> StepAudio2Config:
    return StepAudio2Config(
        text=TextConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=tiny_tokenizer().size + UNUSED_ROWS,
            max_position_embeddings=positions,
            rms_norm_eps=1e-6,
            rope_theta=10_000.0,
        ),
        audio=AudioEncoderConfig(
            n_mels=128,
            n_audio_ctx=1500,
            n_audio_state=32,
            n_audio_head=2,
            n_audio_layer=1,
            llm_dim=32,
            kernel_size=3,
            adapter_stride=2,
            adapter_hidden=24,
        ),
        eos_token_ids=(tiny_tokenizer().ids.endoftext,),
        quantization=quantization,
    )


def tiny_weights(seed: int = 0) -> dict[str, Tensor]:
    """Random weights, strong enough that a prompt's words matter."""
    torch.manual_seed(seed)
    state = StepAudio2(tiny_config()).state_dict()
    return {
        name: part + 0.2 * torch.randn_like(part) if part.dim() == 2 else part for name, part in state.items()
    }


def write_config(folder: Path, config: StepAudio2Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_spec()), encoding="utf-8")


def write_checkpoint(folder: Path, weights: dict[str, Tensor] | None = None, *, positions: int = 512) -> Path:
    """A whole folder with one weight file."""
    write_config(folder, tiny_config(positions=positions))
    save_file(tiny_weights() if weights is None else weights, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, weights: dict[str, Tensor], *, shards: int = 3) -> Path:
    """The same, its tensors dealt out over several files with an index."""
    write_config(folder, tiny_config())
    names = sorted(weights)
    places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for shard in sorted(set(places.values())):
        save_file({name: weights[name] for name in names if places[name] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
