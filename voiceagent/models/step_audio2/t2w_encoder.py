"""The conformer for live streams: one chunk of many streams in one pass, their histories in the pool.

It computes what `Conformer` computes with a cache; positions count from the newest key, so that streams of different
lengths share one table. It knows nothing of mel frames' making, voices or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.models.step_audio2 import t2w_ops as ops
from voiceagent.models.step_audio2.conformer import (
    Conformer,
    FeedForward,
    Layer,
    relative_positions,
)
from voiceagent.models.step_audio2.t2w_pool import TAIL, FlowPool, Places


class ChunkEncoder:
    """A conformer's weights as a stream uses them: q, k and v in one matrix, positions projected once.

    Args:
        conformer: whose weights are used; it is not changed.
        pool: where histories are read and written.
    """

    def __init__(self, conformer: Conformer, pool: FlowPool) -> None:
        self.net, self.pool = conformer, pool
        self._low = [_Packed.of(layer) for layer in conformer.encoders]
        self._up = [_Packed.of(layer) for layer in conformer.up_encoders]
        # How many keys the projections reach, and those of both rates; replaced as a whole, as other threads read it.
        self._distances: tuple[int, tuple[list[Tensor], list[Tensor]]] = (0, ([], []))
        self._outgrown: list[tuple[list[Tensor], list[Tensor]]] = []  # captured graphs may still read them

    def reserve(self, keys: int) -> None:
        """Projects the positions for up to so many keys and queries, in tokens; before a graph is captured."""
        reach, outgrown = self._distances
        if keys <= reach:
            return
        reach = max(keys, 2 * reach)
        self._outgrown.append(outgrown)
        stride = self.net.config.stride
        low, up = (
            [layer.project(rate * reach) for layer in layers]
            for layers, rate in ((self._low, 1), (self._up, stride))
        )
        self._distances = (reach, (low, up))

    def __call__(self, x: Tensor, places: Places, *, span: int) -> Tensor:
        """Encodes the next chunk of every stream and remembers it.

        Args:
            x: (B, T + lookahead, input_size) token embeddings; of row b the first `known` count.
            places: of the streams.
            span: as many tokens of history as the longest of them has, prompt and recent; more only costs time.

        Returns:
            (B, stride x T, width); of row b the first stride x `new` rows are meant.
        """
        config, pool, slots = self.net.config, self.pool, places.column("slot")
        tokens, stride = x.shape[1] - config.lookahead, config.stride
        self.reserve(span + tokens)
        new = places.column("new")
        x = self.net.embed(x)
        x = x * (torch.arange(x.shape[1], device=x.device) < places.column("known")[:, None])[..., None]
        x = self._look_ahead(x, slots, new)
        history = places.history(span)
        own = torch.arange(tokens, device=x.device) < new[:, None]
        bias = _mask(torch.cat([history > 0, own], dim=1), x.dtype)
        targets = places.token_targets(tokens)
        targets = torch.where(targets < 0, pool.token_prompts - 1, targets)  # nobody's last row
        for i, layer in enumerate(self._low):
            x = layer.forward(
                x, pool.low[i], history, targets, self._table(0, i, span + tokens, tokens), bias
            )
        x = self._upsample(x, slots, new)
        x = self.net.up_embed(x)
        history, targets = (_finer(rows, stride) for rows in (history, targets))
        bias = bias.repeat_interleave(stride, dim=1)
        for i, layer in enumerate(self._up):
            table = self._table(1, i, stride * (span + tokens), stride * tokens)
            x = layer.forward(x, pool.up[i], history, targets, table, bias)
        y: Tensor = self.net.after_norm(x)
        return y

    def _table(self, rate: int, layer: int, keys: int, queries: int) -> Tensor:
        """(heads, head size, keys + queries) projections of the distances keys - 1 down to -queries."""
        reach, distances = self._distances
        middle = reach * (self.net.config.stride if rate else 1)
        return distances[rate][layer][..., middle - keys : middle + queries]

    def _look_ahead(self, x: Tensor, slots: Tensor, new: Tensor) -> Tensor:
        part = self.net.pre_lookahead_layer
        ahead = F.leaky_relu(part.conv1(x.transpose(1, 2)))
        ahead = torch.cat([self.pool.lookahead[slots], ahead], dim=2)
        self.pool.lookahead[slots] = _window(ahead, new, TAIL)
        y: Tensor = part.conv2(ahead).transpose(1, 2) + x[:, : x.shape[1] - part.lookahead]
        return y

    def _upsample(self, x: Tensor, slots: Tensor, new: Tensor) -> Tensor:
        part = self.net.up_layer
        repeated = torch.cat(
            [self.pool.upsample[slots], x.transpose(1, 2).repeat_interleave(part.stride, 2)], dim=2
        )
        self.pool.upsample[slots] = _window(repeated, part.stride * new, 2 * part.stride)
        y: Tensor = part.conv(repeated).transpose(1, 2)
        return y


@dataclass(frozen=True, slots=True)
class _Packed:
    """One layer: its modules, and q, k and v as one linear map."""

    layer: Layer
    weight: Tensor
    bias: Tensor
    biases: Tensor  # (2, 1, heads, 1, head size): u and v

    @staticmethod
    def of(layer: nn.Module) -> _Packed:
        assert isinstance(layer, Layer)
        attention = layer.self_attn
        maps = (attention.linear_q, attention.linear_k, attention.linear_v)
        return _Packed(
            layer,
            torch.cat([part.weight for part in maps]),
            torch.cat([part.bias for part in maps]),
            torch.stack([attention.pos_bias_u, attention.pos_bias_v])[:, None, :, None],
        )

    def project(self, reach: int) -> Tensor:
        """(heads, head size, 2 reach) what the distances reach - 1 down to -reach are worth to a query, scaled."""
        attention = self.layer.self_attn
        weight = attention.linear_pos.weight
        positions = relative_positions(reach, reach, weight.shape[1], device=weight.device).to(weight.dtype)
        by_head = F.linear(positions, weight).view(2 * reach, attention.heads, -1)
        return torch.mul(by_head, by_head.shape[2] ** -0.5).permute(1, 2, 0).contiguous()

    def forward(
        self, x: Tensor, memory: Tensor, history: Tensor, targets: Tensor, table: Tensor, mask: Tensor
    ) -> Tensor:
        """(B, T, width) -> the same; reads `history` of `memory` (2, rows, width), writes `targets`."""
        attention = self.layer.self_attn
        heads = tuple(attention.pos_bias_u.shape)
        qkv = F.linear(self.layer.norm_mha(x), self.weight, self.bias)
        batch, _, width = x.shape
        q, kv = qkv[..., :width], qkv[..., width:].view(batch, -1, 2, width)
        keys, values = ops.recall(memory, history, kv).view(2, batch, -1, *heads).transpose(2, 3)
        memory[:, targets] = kv.permute(2, 0, 1, 3)
        with_u, with_v = q.reshape(batch, -1, *heads).transpose(1, 2) + self.biases
        bias = ops.place_bias(with_v @ table, mask)
        y = F.scaled_dot_product_attention(with_u, keys, values, attn_mask=bias)
        x = x + attention.linear_out(y.transpose(1, 2).flatten(2))
        feed: FeedForward = self.layer.feed_forward
        out: Tensor = x + feed(self.layer.norm_ff(x))
        return out


def _mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, keys) bool -> (B, keys) to add to scores."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -1e4)


def _window(x: Tensor, start: Tensor, size: int) -> Tensor:
    """(B, C, T) -> (B, C, size): row b from its `start` on."""
    places = start[:, None] + torch.arange(size, device=x.device)
    return x.gather(2, places[:, None].expand(-1, x.shape[1], -1))


def _finer(rows: Tensor, stride: int) -> Tensor:
    """(B, T) token rows -> (B, stride x T) rows at the frame rate."""
    return (stride * rows[..., None] + torch.arange(stride, device=rows.device)).flatten(1)
