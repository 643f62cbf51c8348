"""The velocity network of Token2Wav: a diffusion transformer over 50 Hz mel frames of whole utterances.

It knows its blocks; guidance, the ODE schedule, noise and voices are the flow's business, streams are `t2w_dit`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TIME_SIZE = 256
_TIME_SCALE = 1000.0
_TAIL = 2  # left context of a causal convolution of 3 taps, frames


@dataclass(frozen=True, slots=True)
class DiTConfig:
    """Sizes; `in_channels` is noisy mel, mu, speaker and condition together."""

    in_channels: int
    out_channels: int
    width: int
    depth: int
    heads: int
    head_size: int
    mlp_ratio: float


@dataclass(frozen=True, slots=True)
class Modulation:
    """Shifts, scales and gates of the layer norms: they depend on the ODE time alone.

    Attributes:
        blocks: (depth, N, 9, width); per block (shift, scale, gate) of attention, feed-forward and convolution.
        final: (N, 2, width); shift and scale before the output.
    """

    blocks: Tensor
    final: Tensor

    def row(self, i: int) -> Modulation:
        """That of the i-th time alone, N = 1."""
        return Modulation(self.blocks[:, i : i + 1], self.final[i : i + 1])


@dataclass(frozen=True, slots=True)
class BlockPast:
    """What one block has seen before.

    Attributes:
        kv: keys and values (2, B, heads, T, head size) in pieces along T.
        tail1, tail2: (B, 2, width) input tails of the two convolutions.
    """

    kv: tuple[Tensor, ...]
    tail1: Tensor
    tail2: Tensor


class DiT(nn.Module):
    """Transformer blocks whose norms are modulated by the ODE time. No positions: only the convolutions know order."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.t_embedder = TimeEmbedder(config.width)
        self.in_proj = nn.Linear(config.in_channels, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.out_channels)

    def modulation(self, times: Tensor) -> Modulation:
        """(N,) ODE times in [0, 1] -> the modulation of every block."""
        embedded = self.t_embedder(times)
        blocks = []
        for block in self.blocks:
            assert isinstance(block, Block)
            blocks.append(block.adaLN_modulation(embedded).unflatten(1, (9, -1)))
        final = self.final_layer.adaLN_modulation(embedded).unflatten(1, (2, -1))
        return Modulation(torch.stack(blocks), final)

    def forward(self, inputs: Tensor, modulation: Modulation, *, mask: Tensor | None = None) -> Tensor:
        """Velocity of every frame of whole utterances; streams are `t2w_dit`'s.

        Args:
            inputs: (B, T, in_channels).
            modulation: of N = B times, or of one for all rows.
            mask: (B, T, T) bool, true where a frame may see another; None: everything. Training only.

        Returns:
            (B, T, out_channels)
        """
        if mask is not None:
            mask = mask[:, None]
        x = self.in_proj(inputs)
        for i, block in enumerate(self.blocks):
            x, _ = block(x, modulation.blocks[i], past=None, mask=mask)
        y: Tensor = self.final_layer(x, modulation.final)
        return y


class TimeEmbedder(nn.Module):
    """Sinusoids of 1000 t (cosines, then sines; longest period 10000), then linear, SiLU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_TIME_SIZE, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """(N,) -> (N, width)"""
        half = _TIME_SIZE // 2
        rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=times.device) / half)
        angle = times.float()[:, None] * _TIME_SCALE * rates
        y: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1).to(next(self.parameters()).dtype))
        return y


class Block(nn.Module):
    """Attention, causal convolution and feed-forward, in this order, each modulated before and gated after.

    The nine modulations are stored in another order than they are applied: attention, feed-forward, convolution.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = Mlp(config.width, int(config.width * config.mlp_ratio))
        self.conv = ConvPath(config.width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 9 * config.width))

    def forward(
        self, x: Tensor, modulation: Tensor, *, past: BlockPast | None, mask: Tensor | None
    ) -> tuple[Tensor, BlockPast]:
        """(B, T, width) -> the same, and everything that the block has seen."""
        shift, scale, gate, shift_ff, scale_ff, gate_ff, shift_conv, scale_conv, gate_conv = modulation[
            :, :, None
        ].unbind(1)
        y, kv = self.attn(_modulate(x, shift, scale), past=past, mask=mask)
        x = torch.addcmul(x, gate, y)
        y, tail1, tail2 = self.conv(_modulate(x, shift_conv, scale_conv), past=past)
        x = torch.addcmul(x, gate_conv, y)
        x = torch.addcmul(x, gate_ff, self.mlp(_modulate(x, shift_ff, scale_ff)))
        return x, BlockPast((kv,), tail1, tail2)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class Attention(nn.Module):
    """Attention without positions; queries and keys are layer-normed per head."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads = config.heads
        self.to_q = nn.Linear(config.width, inner)
        self.to_k = nn.Linear(config.width, inner)
        self.to_v = nn.Linear(config.width, inner)
        self.q_norm = nn.LayerNorm(config.head_size)
        self.k_norm = nn.LayerNorm(config.head_size)
        self.proj = nn.Linear(inner, config.width)

    def forward(self, x: Tensor, *, past: BlockPast | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, width) -> the same, and all keys and values (2, B, heads, T_past + T, head size)."""
        q, k, v = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        kv = torch.stack([self.k_norm(k), v])
        if past is not None:
            kv = torch.cat([*past.kv, kv], dim=3)
        y = F.scaled_dot_product_attention(self.q_norm(q), kv[0], kv[1], attn_mask=mask)
        return self.proj(y.transpose(1, 2).flatten(2)), kv


class Mlp(nn.Module):
    """Linear, GELU (tanh form), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)"""
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


class ConvPath(nn.Module):
    """Causal convolution of 3 taps, layer norm, Mish, causal convolution of 3 taps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Numbered as in the checkpoint: 0, 2, 5 and 7 are transpositions there.
        parts = {1: nn.Conv1d(width, width, 3), 3: nn.LayerNorm(width), 6: nn.Conv1d(width, width, 3)}
        self.block = nn.ModuleDict({str(i): part for i, part in parts.items()})

    def forward(self, x: Tensor, *, past: BlockPast | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, width) -> the same, and both input tails (B, 2, width)."""
        y, tail1 = _causal(self.block["1"], x, past.tail1 if past else None)
        y = F.mish(self.block["3"](y))
        y, tail2 = _causal(self.block["6"], y, past.tail2 if past else None)
        return y, tail1, tail2


def _causal(conv: nn.Module, x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    """Convolution over (B, T, width) that sees two frames back; returns its output and the new tail."""
    assert isinstance(conv, nn.Conv1d)
    x = F.pad(x, (0, 0, _TAIL, 0)) if tail is None else torch.cat([tail, x], dim=1)
    # One matrix product over windows of three frames: a third faster than the convolution on few frames on a CPU.
    windows = x.unfold(1, _TAIL + 1, 1).flatten(2)
    return F.linear(windows, conv.weight.flatten(1), conv.bias), x[:, -_TAIL:]


class FinalLayer(nn.Module):
    """Modulated layer norm and the output projection."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, out_channels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, T, width), (N, 2, width) -> (B, T, out_channels)"""
        shift, scale = modulation[:, :, None].unbind(1)
        y: Tensor = self.linear(_modulate(x, shift, scale))
        return y
