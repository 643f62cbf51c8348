"""The sizes that the benchmark builds: those of the published mini, and tiny ones that a CPU runs in seconds.

It owns numbers and file contents (config.json, tokenizer.json, flow.yaml) and knows no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FIRST_SPECIAL = 151643  # ids of the published tokenizer; a smaller vocabulary moves all of them down alike
_SPECIALS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<tool_call>": 151657,
    "</tool_call>": 151658,
    "<|EOT|>": 151665,
    "<|BOT|>": 151666,
    "<audio_start>": 151688,
    "<audio_end>": 151689,
    "<audio_patch>": 151690,
    "<tts_start>": 151693,
    "<tts_end>": 151694,
    "<tts_pad>": 151695,
}
_AUDIO_0, _AUDIO_PAD = 151696, 6561
_ROWS = 158720  # of the published embedding
_BYTES = 256


@dataclass(frozen=True, slots=True)
class FlowSizes:
    """Of flow.yaml. All else in it is the same for every checkpoint."""

    width: int
    heads: int
    hidden: int
    blocks: int
    up_blocks: int
    dit_width: int
    dit_depth: int
    dit_heads: int
    dit_head: int
    dit_ratio: float


@dataclass(frozen=True, slots=True)
class Shape:
    """One model to measure.

    Attributes:
        name: printed in every table.
        text, audio: the fields of config.json.
        flow: sizes of the flow.
        hift: base and pitch channels of the vocoder.
        first_special: id of `<|endoftext|>`; ids below it that are no bytes stay unused.
        prompt_tokens: length of the random voices, 25 a second.
    """

    name: str
    text: Mapping[str, Any]
    audio: Mapping[str, Any]
    flow: FlowSizes
    hift: tuple[int, int]
    first_special: int
    prompt_tokens: int

    @property
    def audio_0(self) -> int:
        """Id of `<audio_0>`."""
        return _AUDIO_0 - _FIRST_SPECIAL + self.first_special

    @property
    def tts_start(self) -> int:
        """Id of `<tts_start>`."""
        return self.audio_0 - 3

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        moved = self.first_special - _FIRST_SPECIAL
        return {
            "architectures": ["StepAudio2ForCausalLM"],
            "model_type": "step_audio_2",
            "eos_token_id": self.first_special,
            "text_config": {
                "model_type": "step_audio_2_text",
                "vocab_size": _ROWS + moved,
                "rms_norm_eps": 1e-6,
                "rope_scaling": None,
                "hidden_act": "silu",
                **self.text,
            },
            "audio_encoder_config": {
                "model_type": "step_audio_2_encoder",
                "n_mels": 128,
                "n_audio_ctx": 1500,
                "llm_dim": self.text["hidden_size"],
                "kernel_size": 3,
                "adapter_stride": 2,
                **self.audio,
            },
        }

    def tokenizer(self) -> dict[str, Any]:
        """The contents of tokenizer.json: every byte a token, and the special tokens at their real distances."""
        moved = self.first_special - _FIRST_SPECIAL
        names = _SPECIALS | {f"<audio_{code}>": _AUDIO_0 + code for code in range(_AUDIO_PAD + 1)}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        added = [
            {"id": number + moved, "content": name, "special": "tool_call" not in name} | plain
            for name, number in names.items()
        ]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": _byte_vocabulary(), "merges": []},
        }

    def flow_yaml(self) -> str:
        """The contents of flow.yaml."""
        return _FLOW_YAML.format(f=self.flow)


def _byte_vocabulary() -> dict[str, int]:
    """GPT-2's alphabet: byte b is token b; printable Latin-1 stands for itself, the rest for U+0100 onwards."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(_BYTES, 2 * _BYTES))
    return {chr(byte) if byte in shown else chr(next(hidden)): byte for byte in range(_BYTES)}


_FLOW_YAML = """\
flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec
    input_size: {f.width}
    output_size: 80
    spk_embed_dim: 192
    output_type: 'mel'
    vocab_size: 6561
    encoder: !new:cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2
        input_size: {f.width}
        output_size: {f.width}
        input_layer: 'linear'
        pre_lookahead_len: 3
        num_blocks: {f.blocks}
        num_up_blocks: {f.up_blocks}
        up_stride: 2
        up_scale_factor: 2
        attention_heads: {f.heads}
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        key_bias: true
        linear_units: {f.hidden}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
    decoder: !new:cosyvoice2.flow.flow_matching.CausalConditionalCFM
        inference_cfg_rate: 0.7
        estimator: !new:cosyvoice2.flow.decoder_dit.DiT
            in_channels: 320
            out_channels: 80
            mlp_ratio: {f.dit_ratio}
            depth: {f.dit_depth}
            num_heads: {f.dit_heads}
            head_dim: {f.dit_head}
            hidden_size: {f.dit_width}
"""

MINI = Shape(
    name="Step-Audio-2-mini",
    text={
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_attention_groups": 4,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "max_position_embeddings": 16384,
        "rope_theta": 1_000_000.0,
    },
    audio={"n_audio_state": 1280, "n_audio_head": 20, "n_audio_layer": 32, "adapter_hidden": 2048},
    flow=FlowSizes(512, 8, 2048, 6, 4, 512, 16, 8, 64, 4.0),
    hift=(512, 512),
    first_special=_FIRST_SPECIAL,
    prompt_tokens=100,
)
"""The published sizes; voices of 4 s (200 mel frames), as in the measurements of the reference."""

TINY = Shape(
    name="tiny",
    text={
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_attention_groups": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rope_theta": 10_000.0,
    },
    audio={"n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 1, "adapter_hidden": 24},
    flow=FlowSizes(16, 2, 16, 1, 1, 16, 1, 2, 8, 2.0),
    hift=(16, 16),
    first_special=_BYTES,
    prompt_tokens=25,
)
"""For the CPU: the harness runs, the figures mean nothing."""
