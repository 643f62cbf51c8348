"""The pocket speech tokenizer's network, in the shape of S3 tokenizer v2, with the two heads that only training has.

It knows no data, no training and no files but its own checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from scripts.pocket.features import ALPHABET, MELS, ctc_greedy

DIGITS = 8
CODES = 3**DIGITS
FRAMES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; `reader_blocks` belong to the CTC head that only training has."""

    dim: int = 256
    heads: int = 4
    blocks: int = 4
    reader_blocks: int = 2
    dropout: float = 0.1


class Attention(nn.Module):
    """Rotary self-attention plus an FSMN memory: a depthwise convolution over the values and the values themselves."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.fsmn_block = nn.Conv1d(dim, dim, 31, padding=15, groups=dim, bias=False)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """x (B, T, D), inside (B, T) bool -> (B, T, D)."""
        batch, time, dim = x.shape
        split = (batch, time, self.heads, dim // self.heads)
        query = rotate(self.query(x).view(split).transpose(1, 2))
        key = rotate(self.key(x).view(split).transpose(1, 2))
        value = self.value(x) * inside[..., None]
        memory = self.fsmn_block(value.transpose(1, 2)).transpose(1, 2) + value
        heads = value.view(split).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            query.to(heads.dtype), key.to(heads.dtype), heads, attn_mask=inside[:, None, None]
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, time, dim)) + memory * inside[..., None]


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding, half-rotation form, base 10000. x: (B, H, T, D)."""
    time, half = x.shape[2], x.shape[3] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device).float() / half)
    angles = torch.arange(time, device=x.device).float()[:, None] * rates
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Block(nn.Module):
    """Pre-norm attention and a GELU perceptron of four times the width."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attn_ln, self.mlp_ln = nn.LayerNorm(shape.dim), nn.LayerNorm(shape.dim)
        self.attn = Attention(shape.dim, shape.heads)
        self.mlp = nn.Sequential(
            nn.Linear(shape.dim, 4 * shape.dim), nn.GELU(), nn.Linear(4 * shape.dim, shape.dim)
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.attn_ln(x), inside))
        return x + self.dropout(self.mlp(self.mlp_ln(x)))


class Encoder(nn.Module):
    """Log-mel (B, 128, T) to 8 bounded values (B, ceil(ceil(T / 2) / 2), 8) that rounding turns into digits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, shape.dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(shape.dim, shape.dim, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.ln_post = nn.LayerNorm(shape.dim)
        self.project_down = nn.Linear(shape.dim, DIGITS)

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        x = mel * inside_mask(frames, mel.shape[2])[:, None]
        lengths = frames
        for conv in (self.conv1, self.conv2):
            x = F.gelu(conv(x))
            lengths = (lengths + 1) // 2
            inside = inside_mask(lengths, x.shape[2])
            x = x * inside[:, None]
        x = x.transpose(1, 2).float()  # the residual stream stays float32 under autocast
        for block in self.blocks:
            x = block(x, inside)
        return torch.tanh(self.project_down(self.ln_post(x)).float()) * 0.9990000128746033, lengths


class SpeechTokenizer(nn.Module):
    """The encoder with the two heads of training."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.encoder = Encoder(shape)
        self.read_in = nn.Linear(DIGITS, shape.dim)
        self.reader = nn.ModuleList(Block(shape) for _ in range(shape.reader_blocks))
        self.read_ln = nn.LayerNorm(shape.dim)
        self.read_out = nn.Linear(shape.dim, len(ALPHABET) + 1)
        self.paint_in = nn.Linear(DIGITS, shape.dim)
        self.paint_voice = nn.Linear(2 * MELS, shape.dim)
        self.painter = nn.ModuleList(nn.Conv1d(shape.dim, shape.dim, 5, padding=2) for _ in range(3))
        self.paint_out = nn.Linear(shape.dim, FRAMES_PER_TOKEN * MELS)

    @torch.no_grad()
    def tokens(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) int32 ids in 0..6560 and (B,) counts; what lies beyond a row's count means nothing."""
        values, lengths = self.encoder(mel, frames)
        return ids_of(values), lengths

    def read(self, codes: Tensor, lengths: Tensor) -> Tensor:
        """(B, n, 8) values in -1..1 -> (B, n, 30) CTC log-probabilities."""
        inside = inside_mask(lengths, codes.shape[1])
        x = self.read_in(codes).float()
        for block in self.reader:
            x = block(x, inside)
        return self.read_out(self.read_ln(x)).float().log_softmax(-1)

    def paint(self, codes: Tensor, lengths: Tensor, voice: Tensor) -> Tensor:
        """(B, n, 8) values and (B, 256) mean and deviation of the log-mel -> (B, 128, 4 n) mean-subtracted log-mel."""
        inside = inside_mask(lengths, codes.shape[1])[..., None]
        x = (self.paint_in(codes) + self.paint_voice(voice)[:, None]).float()
        for conv in self.painter:
            x = x + F.silu(conv((x * inside).transpose(1, 2)).transpose(1, 2))
        batch, count, _ = x.shape
        frames = self.paint_out(x).float().view(batch, count * FRAMES_PER_TOKEN, MELS)
        return frames.transpose(1, 2)

    @torch.no_grad()
    def texts_of(self, rows: Sequence[Sequence[int] | NDArray[np.integer]]) -> list[str]:
        """What the CTC head reads out of each row of ids; a weak judge, best on the voices that it was trained on."""
        self.eval()
        device = self.read_in.weight.device
        out: list[str] = []
        for start in range(0, len(rows), 128):
            part = [torch.as_tensor(np.asarray(row, np.int64)) for row in rows[start : start + 128]]
            lengths = torch.tensor([len(row) for row in part])
            ids = nn.utils.rnn.pad_sequence(part, batch_first=True)
            if ids.shape[1] == 0:
                out += [""] * len(part)
                continue
            scores = self.read(codes_of(ids).to(device), lengths.to(device))
            out += ctc_greedy(scores, lengths)
        return out


class Exported(nn.Module):
    """What the ONNX file computes: feats (1, 128, T) float32, feats_length (1,) int32 -> (1, n) int32."""

    def __init__(self, model: SpeechTokenizer) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, feats: Tensor, feats_length: Tensor) -> Tensor:
        return ids_of(self.encoder(feats, feats_length)[0])


def ids_of(values: Tensor) -> Tensor:
    """Rounds (..., 8) values to digits 0, 1, 2 and sums digit i times 3^i: (...) int32."""
    powers = torch.tensor([3.0**i for i in range(DIGITS)], device=values.device)
    return ((values.round() + 1.0) * powers).sum(-1).to(torch.int32)


def codes_of(ids: Tensor) -> Tensor:
    """The rounded values (..., 8) in {-1, 0, 1} that `ids_of` made the ids from."""
    powers = torch.tensor([3**i for i in range(DIGITS)], device=ids.device)
    return (ids.long()[..., None] // powers % 3 - 1).float()


def quantise(values: Tensor, *, raw: float) -> Tensor:
    """Rounded with straight-through gradients; a share `raw` of the rows keeps its unrounded values."""
    rounded = values + (values.round() - values).detach()
    if raw <= 0:
        return rounded
    return torch.where(torch.rand(len(values), 1, 1, device=values.device) < raw, values, rounded)


def inside_mask(lengths: Tensor, width: int) -> Tensor:
    """(B, width) bool"""
    return torch.arange(width, device=lengths.device)[None] < lengths[:, None]


def load_speech_tokenizer(path: Path, device: torch.device | str = "cpu") -> SpeechTokenizer:
    """The trained network with its heads, from CK/speech_tokenizer.pt."""
    saved = torch.load(path, map_location=device, weights_only=True)
    model = SpeechTokenizer(Shape(**saved["shape"])).to(device)
    model.load_state_dict(saved["model"])
    return model.eval()


def encoder_from_onnx(path: Path) -> dict[str, Tensor]:
    """The weights of `SpeechTokenizer.encoder` out of the file that `Exported` was written to.

    Tensors that the exporter kept by name come by name; the matrices of linear layers, which it renamed and transposed,
    come in the order in which the graph multiplies by them, which is the order of the network.
    """
    graph = onnx.load(str(path)).graph
    stored = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).astype(np.float32)) for t in graph.initializer
    }
    halves = {node.output[0]: stored[node.input[0]] for node in graph.node if node.input[:1] and node.op_type == "Cast"
              and node.input[0] in stored}  # fmt: skip
    stored |= halves
    prefix = "encoder."
    named = {
        name.removeprefix(prefix): value
        for name, value in stored.items()
        if name.startswith(prefix) and not name.endswith(".half")
    }
    blocks = 1 + max(int(name.split(".")[1]) for name in named if name.startswith("blocks."))
    layers = ("attn.query", "attn.key", "attn.value", "attn.out", "mlp.0", "mlp.2")
    order = [f"blocks.{block}.{layer}" for block in range(blocks) for layer in layers] + ["project_down"]
    matrices = [
        stored[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored
    ]
    if len(matrices) != len(order):
        raise ValueError(f"{path} multiplies by {len(matrices)} matrices, not {len(order)}")
    return named | {
        f"{name}.weight": value.T.contiguous() for name, value in zip(order, matrices, strict=True)
    }


@lru_cache(maxsize=2)
def _judge(path: Path, device: str) -> SpeechTokenizer:
    return load_speech_tokenizer(path, device)


def ctc_text_of_tokens(
    tokens: Sequence[int] | NDArray[np.integer], checkpoint: Path, device: str = "cpu"
) -> str:
    """What the CTC head of CK/speech_tokenizer.pt reads in one utterance's ids (`texts_of` takes many at once)."""
    return _judge(checkpoint, device).texts_of([tokens])[0]
