"""Reads `config.json` of a checkpoint folder into plain sizes; it knows no tensor and no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voiceagent.errors import CheckpointError

MODEL_TYPE = "step_audio_2"
QUANTIZATIONS = ("int8_rows",)


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Sizes of the Qwen2-shaped language model; the output matrix is never tied to the embedding."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float


@dataclass(frozen=True, slots=True)
class AudioEncoderConfig:
    """Sizes of the Whisper-shaped encoder and of the adapter after it."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    llm_dim: int
    kernel_size: int
    adapter_stride: int
    adapter_hidden: int


@dataclass(frozen=True, slots=True)
class StepAudio2Config:
    """All that `config.json` says about a checkpoint.

    `eos_token_ids` are the ids that the file itself names; stop tokens known by name are the tokenizer's business.
    `quantization` is None or "int8_rows".
    """

    text: TextConfig
    audio: AudioEncoderConfig
    eos_token_ids: tuple[int, ...] = ()
    quantization: str | None = None

    @classmethod
    def from_folder(cls, folder: Path | str) -> StepAudio2Config:
        """Reads `folder/config.json`.

        Raises:
            CheckpointError: the file is missing or not JSON, or a field is missing, of a wrong type or contradictory.
        """
        path = Path(folder) / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{path} does not exist.",
                remedy="Point --model at a checkpoint folder of the Step-Audio 2 layout.",
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as cause:
            raise CheckpointError(f"{path} cannot be read: {cause}.", remedy=_REMEDY) from cause
        return cls.from_dict(raw, source=str(path))

    @classmethod
    def from_dict(cls, raw: object, *, source: str = "config.json") -> StepAudio2Config:
        """Checks an already parsed `config.json`; `source` names it in errors."""
        top = _Fields(raw, source)
        if top.text("model_type") != MODEL_TYPE:
            raise CheckpointError(
                f"{source}: model_type is {top.text('model_type')!r}, not {MODEL_TYPE!r}: "
                "this is the folder of another model.",
                code="wrong_model",
                remedy="Use a checkpoint of the Step-Audio 2 family, for example --model mini.",
            )
        text = _text_config(_Fields(top.get("text_config"), f"{source}: text_config"))
        audio = _audio_config(_Fields(top.get("audio_encoder_config"), f"{source}: audio_encoder_config"))
        if audio.llm_dim != text.hidden_size:
            raise _bad(
                f"{source}: audio_encoder_config.llm_dim is {audio.llm_dim}, "
                f"text_config.hidden_size is {text.hidden_size}."
            )
        return cls(
            text=text, audio=audio, eos_token_ids=top.ids("eos_token_id"), quantization=_quantization(top)
        )

    def to_dict(self) -> dict[str, Any]:
        """The same facts under the real file's key names; `from_dict` reads it back unchanged."""
        text, audio = self.text, self.audio
        out: dict[str, Any] = {
            "architectures": ["StepAudio2ForCausalLM"],
            "model_type": MODEL_TYPE,
            "eos_token_id": list(self.eos_token_ids),
            "text_config": {
                "model_type": "step_audio_2_text",
                **{name: getattr(text, name) for name in TextConfig.__slots__},
                "num_attention_groups": text.num_key_value_heads,
                "rope_scaling": None,
                "hidden_act": "silu",
                "tie_word_embeddings": False,
            },
            "audio_encoder_config": {
                "model_type": "step_audio_2_encoder",
                **{name: getattr(audio, name) for name in AudioEncoderConfig.__slots__},
            },
        }
        if self.quantization is not None:
            out["quantization_config"] = {"quant_method": self.quantization}
        return out


_REMEDY = "Download or export the checkpoint folder again."


def _bad(message: str) -> CheckpointError:
    return CheckpointError(message, remedy=_REMEDY)


@dataclass(frozen=True, slots=True)
class _Fields:
    """One JSON object, with the name that errors call it by."""

    raw: object
    where: str

    def get(self, name: str, default: object = None) -> object:
        if not isinstance(self.raw, Mapping):
            raise _bad(f"{self.where} is not a JSON object.")
        value = self.raw.get(name)
        if value is None and default is None:
            raise _bad(f"{self.where}: the field {name} is missing.")
        return default if value is None else value

    def has(self, name: str) -> bool:
        return isinstance(self.raw, Mapping) and self.raw.get(name) is not None

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise _bad(f"{self.where}: {name} is {value!r}, not a string.")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise _bad(f"{self.where}: {name} is {value!r}, not a positive whole number.")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise _bad(f"{self.where}: {name} is {value!r}, not a positive number.")
        return float(value)

    def ids(self, name: str) -> tuple[int, ...]:
        """One id or a list of ids; nothing when the field is absent."""
        if not self.has(name):
            return ()
        value = self.get(name)
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in listed):
            raise _bad(f"{self.where}: {name} is {value!r}, not a token id or a list of them.")
        return tuple(listed)


def _text_config(fields: _Fields) -> TextConfig:
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    groups = fields.size("num_attention_groups") if fields.has("num_attention_groups") else None
    kv_heads = fields.size("num_key_value_heads", groups)
    if groups not in (None, kv_heads):
        raise _bad(f"{fields.where}: num_attention_groups is {groups}, num_key_value_heads {kv_heads}.")
    if heads % kv_heads:
        raise _bad(
            f"{fields.where}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}."
        )
    if fields.has("rope_scaling"):
        raise _bad(f"{fields.where}: rope_scaling is not supported.")
    head_dim = fields.size("head_dim", max(1, hidden // heads))
    if head_dim % 2:
        raise _bad(f"{fields.where}: head_dim {head_dim} is odd; rotary positions need pairs.")
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=fields.size("intermediate_size"),
        num_hidden_layers=fields.size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=fields.size("vocab_size"),
        max_position_embeddings=fields.size("max_position_embeddings", 16384),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=fields.number("rope_theta", 1_000_000.0),
    )


def _audio_config(fields: _Fields) -> AudioEncoderConfig:
    state, heads = fields.size("n_audio_state"), fields.size("n_audio_head")
    if state % heads:
        raise _bad(f"{fields.where}: n_audio_state {state} is not a multiple of n_audio_head {heads}.")
    kernel, stride = fields.size("kernel_size", 3), fields.size("adapter_stride", 2)
    if (kernel, stride) != (3, 2):
        raise _bad(f"{fields.where}: kernel_size {kernel} and adapter_stride {stride} are not 3 and 2.")
    return AudioEncoderConfig(
        n_mels=fields.size("n_mels"),
        n_audio_ctx=fields.size("n_audio_ctx"),
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=fields.size("n_audio_layer"),
        llm_dim=fields.size("llm_dim"),
        kernel_size=kernel,
        adapter_stride=stride,
        adapter_hidden=fields.size("adapter_hidden", 2048),
    )


def _quantization(top: _Fields) -> str | None:
    if not top.has("quantization_config"):
        return None
    method = _Fields(top.get("quantization_config"), f"{top.where}: quantization_config").text("quant_method")
    if method not in QUANTIZATIONS:
        raise CheckpointError(
            f"{top.where}: quant_method {method!r} is not supported.",
            remedy=f"Use an unquantised checkpoint or one of: {', '.join(QUANTIZATIONS)}.",
        )
    return method
