"""Reads flow.yaml, which describes Token2Wav's flow as constructor calls, as plain sizes; it constructs nothing.

The file names Python classes in `!new:` tags for hyperpyyaml, which would import and call whatever a file says. Here a
tag is a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.conformer import ConformerConfig
from voiceagent.models.step_audio2.dit import DiTConfig

MEL_BANDS = 80

_FIXED: Mapping[str, Any] = {
    "flow.output_size": MEL_BANDS,
    "flow.output_type": "mel",
    "flow.encoder.input_layer": "linear",
    "flow.encoder.pos_enc_layer_type": "rel_pos_espnet",
    "flow.encoder.selfattention_layer_type": "rel_selfattn",
    "flow.encoder.key_bias": True,
    "flow.encoder.normalize_before": True,
    "flow.decoder.estimator.in_channels": 4 * MEL_BANDS,
    "flow.decoder.estimator.out_channels": MEL_BANDS,
}
"""Fields that have one supported value: other values would be another network."""


def _as_mapping(loader: Any, _tag: str, node: Any) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(
            None, None, "a !new: tag needs named arguments", node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


# A SafeLoader that reads a `!new:` mapping as a mapping; every other unknown tag stays an error.
_SizesLoader: Any = type("_SizesLoader", (yaml.SafeLoader,), {})
_SizesLoader.add_multi_constructor("!new:", _as_mapping)


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Sizes of the flow: `vocab_size` speech tokens, `speaker_size` of the speaker vector, `guidance` rate."""

    vocab_size: int
    input_size: int
    speaker_size: int
    encoder: ConformerConfig
    dit: DiTConfig
    guidance: float

    @classmethod
    def from_file(cls, path: Path | str) -> FlowConfig:
        """Reads a flow.yaml.

        Raises:
            CheckpointError: the file is missing, is not YAML, or a field is missing or of an unsupported value; named.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as cause:
            raise _bad(f"{path} cannot be read: {cause}.") from cause
        return cls.from_text(text, source=str(path))

    @classmethod
    def from_text(cls, text: str, *, source: str) -> FlowConfig:
        """As `from_file`, from the file's text; `source` names it in errors."""
        try:
            tree = yaml.load(text, Loader=_SizesLoader)  # a SafeLoader
        except yaml.YAMLError as cause:
            raise _bad(f"{source} is not the YAML that it should be: {cause}.") from cause
        fields = _Fields(tree, source)
        for name, value in _FIXED.items():
            if fields.get(name, type(value), default=value) != value:
                raise _bad(f"{source}: {name} must be {value!r}.")
        encoder = _encoder(fields)
        if fields.integer("flow.encoder.input_size") != fields.integer("flow.input_size"):
            raise _bad(f"{source}: flow.encoder.input_size must equal flow.input_size.")
        return cls(
            vocab_size=fields.integer("flow.vocab_size"),
            input_size=fields.integer("flow.input_size"),
            speaker_size=fields.integer("flow.spk_embed_dim"),
            encoder=encoder,
            dit=_dit(fields),
            guidance=fields.get("flow.decoder.inference_cfg_rate", float),
        )


def _encoder(fields: _Fields) -> ConformerConfig:
    config = ConformerConfig(
        input_size=fields.integer("flow.encoder.input_size"),
        width=fields.integer("flow.encoder.output_size"),
        heads=fields.integer("flow.encoder.attention_heads"),
        hidden=fields.integer("flow.encoder.linear_units"),
        blocks=fields.integer("flow.encoder.num_blocks"),
        up_blocks=fields.integer("flow.encoder.num_up_blocks"),
        lookahead=fields.integer("flow.encoder.pre_lookahead_len"),
        stride=fields.integer("flow.encoder.up_stride"),
    )
    if fields.get("flow.encoder.up_scale_factor", float, default=config.stride) != config.stride:
        raise _bad(f"{fields.source}: flow.encoder.up_scale_factor must equal up_stride.")
    if config.width % (2 * config.heads):
        raise _bad(f"{fields.source}: flow.encoder.output_size must be a multiple of twice attention_heads.")
    return config


def _dit(fields: _Fields) -> DiTConfig:
    prefix = "flow.decoder.estimator"
    return DiTConfig(
        in_channels=fields.integer(f"{prefix}.in_channels"),
        out_channels=fields.integer(f"{prefix}.out_channels"),
        width=fields.integer(f"{prefix}.hidden_size"),
        depth=fields.integer(f"{prefix}.depth"),
        heads=fields.integer(f"{prefix}.num_heads"),
        head_size=fields.integer(f"{prefix}.head_dim"),
        mlp_ratio=fields.get(f"{prefix}.mlp_ratio", float),
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """Dotted access to the parsed file, with errors that name the field."""

    tree: Any
    source: str

    def get(self, name: str, kind: type, *, default: Any = None) -> Any:
        value = self.tree
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        value = default if value is None else value
        if value is None:
            raise _bad(f"{self.source}: the field {name} is missing.")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise _bad(f"{self.source}: {name} must be a {kind.__name__}, not {value!r}.")
        return value

    def integer(self, name: str) -> int:
        value: int = self.get(name, int)
        if value < 1:
            raise _bad(f"{self.source}: {name} must be positive, not {value}.")
        return value


def _bad(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
