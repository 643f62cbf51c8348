"""The two configurations that the tests build: the published one, as its config.json has it, and the pocket one."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from voiceagent.models.step_audio2.config import StepAudio2Config

REAL_MINI: dict[str, Any] = {
    "architectures": ["StepAudio2ForCausalLM"],
    "model_type": "step_audio_2",
    "torch_dtype": "bfloat16",
    "eos_token_id": 151643,
    "pad_token_id": 151643,
    "text_config": {
        "model_type": "step_audio_2_text",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_attention_groups": 4,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 158720,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "hidden_act": "silu",
        "eos_token_id": 151643,
    },
    "audio_encoder_config": {
        "model_type": "step_audio_2_encoder",
        "n_mels": 128,
        "n_audio_ctx": 1500,
        "n_audio_state": 1280,
        "n_audio_head": 20,
        "n_audio_layer": 32,
        "n_codebook_size": 4096,
        "llm_dim": 3584,
        "kernel_size": 3,
        "adapter_stride": 2,
    },
}

POCKET = StepAudio2Config.from_folder(str(files("voiceagent") / "assets" / "pocket"))
