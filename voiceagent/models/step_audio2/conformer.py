"""The token encoder of Token2Wav: 25 Hz speech-token embeddings in, 50 Hz hidden rows out, whole or chunk by chunk.

It knows relative-position attention and its own caches; it knows nothing of mel frames, voices or the ODE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAIL = 2  # left context of the second look-ahead convolution, tokens


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """Sizes: `lookahead` in tokens, `stride` in frames per token, `hidden` of the feed-forward layers."""

    input_size: int
    width: int
    heads: int
    hidden: int
    blocks: int
    up_blocks: int
    lookahead: int
    stride: int


@dataclass(frozen=True, slots=True)
class ConformerCache:
    """What the next chunk of one stream needs of the chunks before it; never changed in place.

    Attributes:
        lookahead: (1, width, 2) input tail of the second look-ahead convolution.
        upsample: (1, width, 2 x stride) input tail of the up-sampling convolution, frames.
        low: (blocks, 2, 1, heads, T, width / heads) keys and values at the token rate.
        up: (up_blocks, 2, 1, heads, stride x T, width / heads) keys and values at the frame rate.
    """

    lookahead: Tensor
    upsample: Tensor
    low: Tensor
    up: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that the keys and values cover."""
        return self.low.shape[-2]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def fork(self) -> ConformerCache:
        """A copy that shares no memory."""
        return ConformerCache(*(getattr(self, field.name).clone() for field in fields(self)))

    def trimmed(self, *, prompt: int, recent: int) -> ConformerCache:
        """Keeps the first `prompt` and the newest `recent` tokens.

        Keys carry no position of their own: a relative position is a key's index in the cache. What was cut out
        therefore closes up, and no distance ever exceeds prompt + recent, which is what the weights have seen.
        """
        if self.tokens <= prompt + recent:
            return self
        stride = self.up.shape[-2] // self.tokens
        low, up = (
            torch.cat([kv[..., : prompt * k, :], kv[..., kv.shape[-2] - recent * k :, :]], dim=-2)
            for kv, k in ((self.low, 1), (self.up, stride))
        )
        return ConformerCache(self.lookahead, self.upsample, low, up)


class Conformer(nn.Module):
    """Pre-norm encoder: embed, look 3 tokens ahead, attend, double the rate, attend again."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config.input_size, config.width)
        self.pre_lookahead_layer = Lookahead(config.width, config.lookahead)
        self.encoders = nn.ModuleList(Layer(config) for _ in range(config.blocks))
        self.up_layer = Upsample(config.width, config.stride)
        self.up_embed = Embed(config.width, config.width)
        self.up_encoders = nn.ModuleList(Layer(config) for _ in range(config.up_blocks))
        self.after_norm = nn.LayerNorm(config.width, eps=1e-5)

    def forward(
        self, x: Tensor, *, cache: ConformerCache | None = None, last: bool = True, mask: Tensor | None = None
    ) -> tuple[Tensor, ConformerCache]:
        """Encodes a whole sequence (no cache, last) or the next chunk of one.

        Args:
            x: (B, T, input_size) token embeddings. Unless `last`, the final `lookahead` tokens are only looked at:
                they give no output and must come again at the start of the next chunk.
            cache: of the chunks before, batch 1; None at the start.
            last: nothing follows; the look-ahead reads zeros.
            mask: (B, T, T) bool, true where a query may see a key; None: everything. Training only.

        Returns:
            (B, stride x T', width) with T' = T, or T - lookahead unless `last`; and the cache for the next chunk.
        """
        x = self.embed(x)
        x, lookahead = self.pre_lookahead_layer(x, tail=cache.lookahead if cache else None, last=last)
        x, low = _stack(self.encoders, x, cache.low if cache else None, mask)
        x, upsample = self.up_layer(x, tail=cache.upsample if cache else None)
        x = self.up_embed(x)
        if mask is not None:
            stride = self.config.stride
            mask = mask.repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        x, up = _stack(self.up_encoders, x, cache.up if cache else None, mask)
        return self.after_norm(x), ConformerCache(lookahead, upsample, low, up)


def _stack(
    layers: nn.ModuleList, x: Tensor, past: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Runs the layers; returns the output and all keys and values (layers, 2, B, heads, T, head size)."""
    queries = x.shape[1]
    keys = queries + (0 if past is None else past.shape[-2])
    positions = relative_positions(keys, queries, x.shape[2], device=x.device).to(x.dtype)
    kept = []
    for i, layer in enumerate(layers):
        x, kv = layer(x, positions, past=None if past is None else past[i], mask=mask)
        kept.append(kv)
    return x, torch.stack(kept)


def relative_positions(keys: int, queries: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Sinusoids (sine in even, cosine in odd columns) of the distances keys - 1 down to -queries.

    Returns:
        (keys + queries, width) float32; row m is the distance keys - 1 - m between a query and a key before it.
    """
    distance = torch.arange(keys - 1, -queries - 1, -1, dtype=torch.float32, device=device)[:, None]
    rate = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float32, device=device) * -(math.log(10000.0) / width)
    )
    return torch.stack([(distance * rate).sin(), (distance * rate).cos()], dim=2).flatten(1)


def relative_shift(scores: Tensor, keys: int) -> Tensor:
    """Turns scores by distance into scores by key: out[i, j] = scores[i, queries - 1 - i + j].

    Moving one row down moves one distance to the left, so the wanted elements lie one column fewer apart in memory.

    Args:
        scores: (..., queries, keys + queries), the columns as in `relative_positions`.
        keys: number of keys; the queries are the last of them.

    Returns:
        (..., queries, keys)
    """
    queries, distances = scores.shape[-2:]
    flat = scores.flatten(-2)[..., queries - 1 : -1]
    return flat.reshape(*scores.shape[:-2], queries, distances - 1)[..., :keys]


class Embed(nn.Module):
    """Linear, layer norm, times the square root of the width."""

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(input_size, width), nn.LayerNorm(width, eps=1e-5))
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, input_size) -> (B, T, width)"""
        y: Tensor = self.out(x)
        return y * self.scale


class Lookahead(nn.Module):
    """Two convolutions: the first sees `lookahead` tokens ahead, the second two outputs back; residual."""

    def __init__(self, width: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.conv1 = nn.Conv1d(width, width, lookahead + 1)
        self.conv2 = nn.Conv1d(width, width, _TAIL + 1)

    def forward(self, x: Tensor, *, tail: Tensor | None, last: bool) -> tuple[Tensor, Tensor]:
        """(B, T, width) -> (B, T or T - lookahead, width) and the new tail (B, width, 2)."""
        if last:
            x = F.pad(x, (0, 0, 0, self.lookahead))
        ahead = F.leaky_relu(self.conv1(x.transpose(1, 2)))
        ahead = F.pad(ahead, (_TAIL, 0)) if tail is None else torch.cat([tail, ahead], dim=2)
        y = self.conv2(ahead).transpose(1, 2) + x[:, : x.shape[1] - self.lookahead]
        return y, ahead[..., -_TAIL:].clone()


class Upsample(nn.Module):
    """Repeats every row `stride` times, then a causal convolution."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(width, width, 2 * stride + 1)

    def forward(self, x: Tensor, *, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, width) -> (B, stride x T, width) and the new tail (B, width, 2 x stride)."""
        repeated = x.transpose(1, 2).repeat_interleave(self.stride, 2)
        context = 2 * self.stride
        repeated = F.pad(repeated, (context, 0)) if tail is None else torch.cat([tail, repeated], dim=2)
        return self.conv(repeated).transpose(1, 2), repeated[..., -context:].clone()


class Layer(nn.Module):
    """Relative-position attention and a SiLU feed-forward layer, both pre-norm with a residual."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(config.width, config.heads)
        self.feed_forward = FeedForward(config.width, config.hidden)
        self.norm_ff = nn.LayerNorm(config.width, eps=1e-12)
        self.norm_mha = nn.LayerNorm(config.width, eps=1e-12)

    def forward(
        self, x: Tensor, positions: Tensor, *, past: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, T, width) -> the same, and keys and values (2, B, heads, T_past + T, head size)."""
        attended, kv = self.self_attn(self.norm_mha(x), positions, past=past, mask=mask)
        x = x + attended
        return x + self.feed_forward(self.norm_ff(x)), kv


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width)"""
        y: Tensor = self.w_2(F.silu(self.w_1(x)))
        return y


class RelativeAttention(nn.Module):
    """Attention with Transformer-XL's relative positions (arXiv 1901.02860, section 3.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(
        self, x: Tensor, positions: Tensor, *, past: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attends from x to the past and x.

        Args:
            x: (B, T, width).
            positions: (T_past + 2 T, width) as `relative_positions` makes them.
            past: (2, B, heads, T_past, head size) keys and values, or None.
            mask: (B, T, T) bool, or None.

        Returns:
            (B, T, width) and keys and values (2, B, heads, T_past + T, head size).
        """
        q, k, v = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        kv = torch.stack([k, v])
        if past is not None:
            kv = torch.cat([past, kv], dim=3)
        by_distance = self.linear_pos(positions).unflatten(1, (self.heads, -1)).transpose(0, 1)
        scale = q.shape[-1] ** -0.5
        bias = (q + self.pos_bias_v[:, None]) @ by_distance.transpose(1, 2)
        bias = relative_shift(bias, kv.shape[3]) * scale
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None], -torch.inf)
        y = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None], kv[0], kv[1], attn_mask=bias)
        out: Tensor = self.linear_out(y.transpose(1, 2).flatten(2))
        return out, kv
