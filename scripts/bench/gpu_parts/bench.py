"""What all parts of the benchmark share: the model's shape, the clock, the ceilings, the reference's figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from scripts.bench.gpu_parts.measure import Ceilings, Clock, Figure
from scripts.bench.gpu_parts.reference import Reference
from scripts.bench.gpu_parts.report import Report
from scripts.bench.gpu_parts.shapes import MINI, Shape


@dataclass(slots=True)
class Bench:
    """One run.

    Attributes:
        shape: of the model.
        clock: of the device.
        report: where rows go.
        folder: of `weights.write_folder`.
        ceilings: measured at the start.
        dtype: of language model and flow.
        repeat: measurements per round.
        slow: also what takes minutes.
        speech_reference: the wheel's figures by (mode, ids).
        language_reference: transformers' by name.
    """

    shape: Shape
    clock: Clock
    report: Report
    folder: Path
    ceilings: Ceilings
    dtype: torch.dtype
    repeat: int
    slow: bool = False
    speech_reference: dict[tuple[str, int], Reference] = field(default_factory=dict)
    language_reference: dict[str, Figure] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Of everything."""
        return self.clock.device

    @property
    def tiny(self) -> bool:
        """Whether only the harness is tried."""
        return self.shape is not MINI

    # --- what the ceilings allow, in milliseconds -----------------------------------------------------------------

    def decode_floor(self, batch: int, context: int) -> float:
        """Reading every weight of a step once, and every key and value of the batch."""
        text = self.shape.config()["text_config"]
        size = self.dtype.itemsize
        read = size * (_weights(text) + batch * context * _position(text))
        return 1000.0 * read / self.ceilings.bandwidth

    def prefill_floor(self, tokens: int, *, history: int = 0) -> float:
        """The larger of reading the weights and of the arithmetic of so many new positions (head: one row)."""
        text = self.shape.config()["text_config"]
        body: float = _weights(text) - text["vocab_size"] * text["hidden_size"]
        seen = history + tokens / 2
        attention = 4 * text["num_hidden_layers"] * text["num_attention_heads"] * text["head_dim"] * seen
        work: float = tokens * (2 * body + attention)
        read = self.dtype.itemsize * (_weights(text) + history * _position(text))
        return 1000 * max(work / self.ceilings.compute, read / self.ceilings.bandwidth)

    def speech_floor(self, batch: int, ids: int) -> float | None:
        """Token2Wav: arithmetic of the published sizes (per second of speech: DiT 151 + 14 GFLOP, conformer 2.9,
        HiFT 30.6 in float32 counted at the bf16 rate), or ten readings of the DiT's weights without adaLN."""
        if self.tiny:
            return None
        work = batch * ids / 25 * 199e9
        read = 10 * 76.7e6 * self.dtype.itemsize
        return 1000 * max(work / self.ceilings.compute, read / self.ceilings.bandwidth)


def _weights(text: dict[str, int]) -> int:
    """Numbers that a step reads: the layers and the output matrix; of the embedding only single rows."""
    hidden, inner = text["hidden_size"], text["num_attention_heads"] * text["head_dim"]
    keys = text["num_key_value_heads"] * text["head_dim"]
    layer = 2 * hidden * inner + 2 * hidden * keys + 3 * hidden * text["intermediate_size"]
    return text["num_hidden_layers"] * layer + text["vocab_size"] * hidden


def _position(text: dict[str, int]) -> int:
    """Numbers in the keys and values of one position."""
    return 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * text["head_dim"]
