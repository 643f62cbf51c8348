"""The DiT's ten-step solve for live streams: one chunk of many streams in one pass, their histories in the pool.

It computes what `DiT` computes with a cache, with guidance and Euler's method around it. It knows no tokens or voices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.models.step_audio2 import t2w_ops as ops
from voiceagent.models.step_audio2.dit import Block, DiT
from voiceagent.models.step_audio2.flow_config import MEL_BANDS
from voiceagent.models.step_audio2.t2w_pool import FlowPool, Places


class ChunkSolver:
    """A DiT's weights as a stream uses them.

    Args:
        dit: whose weights are used; it is not changed.
        pool: where histories are read and written.
        times: (steps + 1,) float32 ODE times, from 0 to 1.
        guidance: rate of the classifier-free guidance.
    """

    def __init__(self, dit: DiT, pool: FlowPool, *, times: Tensor, guidance: float) -> None:
        self.pool, self.guidance, self.depth = pool, guidance, dit.config.depth
        self.heads, self.size = dit.config.heads, dit.config.head_size
        self._spans: list[float] = times.diff().tolist()
        modulation = dit.modulation(times[:-1])
        self._blocks_at = modulation.blocks.float().transpose(0, 1).contiguous()  # (steps, depth, 9, width)
        self._final_at = modulation.final.float()
        weight, self._in_bias = dit.in_proj.weight, dit.in_proj.bias
        self._in_x, self._in_known = (
            part.contiguous() for part in (weight[:, :MEL_BANDS], weight[:, MEL_BANDS:])
        )
        self._blocks = [_Packed.of(block) for block in dit.blocks]
        out = dit.final_layer.linear
        self._out = (out.weight, out.bias)
        self.dtype = weight.dtype

    @property
    def recordable(self) -> bool:
        """Whether a pass asks the device for no number, so that a CUDA graph can hold it."""
        like = self._in_bias
        return all(ops.gpu(like.new_empty(size), like) for size in (len(like), self.size))

    def __call__(self, known: Tensor, noise: Tensor, places: Places) -> Tensor:
        """Mel of the next chunk of every stream, which is remembered.

        Args:
            known: (B, T, 240) mu, speaker and condition.
            noise: (B, T, 80) float32.
            places: of the streams.

        Returns:
            (B, T, 80) float32
        """
        batch, frames, _ = noise.shape
        pool, width = self.pool, self._in_bias.shape[0]
        fixed = noise.new_empty(batch, 2, frames, width)  # the guidance row without knowledge sees zeros
        fixed[:, 0] = F.linear(known, self._in_known, self._in_bias)
        fixed[:, 1] = self._in_bias
        qkv = known.new_empty(self.depth, 2 * batch, frames, 3, self.heads, self.size)
        kept = known.new_empty(self.depth, 2, 2 * batch, frames, width)
        slots = places.column("slot").contiguous()
        x, rounded = noise.clone(), noise.to(self.dtype, copy=True)
        fixed = fixed.flatten(0, 1)
        residual, normed = torch.empty_like(fixed), torch.empty_like(fixed, dtype=self.dtype)
        for k, span in enumerate(self._spans):
            base, gate = fixed, None
            update = F.linear(rounded, self._in_x)[None]
            for i, block in enumerate(self._blocks):
                at = self._blocks_at[k, i]
                ops.add_norm(base, update, gate, at[0], at[1], residual=residual, out=normed)
                memory = (pool.kv[k, i], pool.tails[k, i])
                update = block.forward(residual, normed, at, qkv[i], kept[i], memory, slots, places)
                base, gate = residual, at[5]
            ops.keep(qkv, kept, pool.kv[k], pool.tails[k], places)
            shift, scale = self._final_at[k]
            ops.add_norm(base, update, gate, shift, scale, residual=residual, out=normed)
            ops.euler(x, ops.linear(normed, self._out), span, self.guidance, rounded)
        return x


@dataclass(frozen=True, slots=True)
class _Packed:
    """One block's weights: q, k and v as one map, convolutions with their taps first."""

    qkv: tuple[Tensor, Tensor]
    heads: tuple[Tensor, Tensor]  # (2, head size) norms of q and k
    proj: tuple[Tensor, Tensor]
    conv1: tuple[Tensor, Tensor]
    between: tuple[Tensor, Tensor]
    conv2: tuple[Tensor, Tensor]
    fc1: tuple[Tensor, Tensor]
    fc2: tuple[Tensor, Tensor]

    @staticmethod
    def of(block: nn.Module) -> _Packed:
        assert isinstance(block, Block)
        attention = block.attn
        maps = (attention.to_q, attention.to_k, attention.to_v)
        norms = (attention.q_norm, attention.k_norm)
        first, between, second = (block.conv.get_submodule(f"block.{i}") for i in (1, 3, 6))
        return _Packed(
            qkv=(torch.cat([part.weight for part in maps]), torch.cat([part.bias for part in maps])),
            heads=(torch.stack([n.weight for n in norms]), torch.stack([n.bias for n in norms])),
            proj=(attention.proj.weight, attention.proj.bias),
            conv1=_taps_first(first),
            between=_affine(between),
            conv2=_taps_first(second),
            fc1=(block.mlp.fc1.weight, block.mlp.fc1.bias),
            fc2=(block.mlp.fc2.weight, block.mlp.fc2.bias),
        )

    def forward(
        self,
        residual: Tensor,
        x: Tensor,
        modulation: Tensor,
        qkv: Tensor,
        kept: Tensor,
        memory: tuple[Tensor, Tensor],
        slots: Tensor,
        places: Places,
    ) -> Tensor:
        """Adds the attention and the convolution to `residual` (R, T, width), R = B x 2.

        Args:
            residual: float32.
            x: (R, T, width) its modulated norm; is overwritten.
            modulation: (9, width): shift, scale and gate of attention, feed-forward and convolution.
            qkv: (R, T, 3, heads, size), is filled.
            kept: (2 convolutions, R, T, width), is filled with what is convolved.
            memory: keys and values, and tails, of this step and block.
            slots: (B,)
            places: of the streams.

        Returns:
            The feed-forward layer's output (parts, R, T, width), still to be gated and added.
        """
        kv, tails = memory
        ops.project(x, self.qkv, self.heads, qkv)
        y = ops.linear(ops.attend(qkv, kv, places), self.proj)
        ops.add_norm(residual, y, modulation[2], modulation[6], modulation[7], residual=residual, out=kept[0])
        ops.mish(ops.convolve(kept[0], self.conv1, tails[0], slots), self.between, kept[1])
        y = ops.convolve(kept[1], self.conv2, tails[1], slots)
        ops.add_norm(residual, y, modulation[8], modulation[3], modulation[4], residual=residual, out=x)
        return ops.linear(ops.expand(x, self.fc1), self.fc2)


def _taps_first(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv1d)
    assert conv.bias is not None
    # In memory the taps of an output lie side by side, so that windows of three rows can be multiplied at once.
    return conv.weight.transpose(1, 2).contiguous().transpose(0, 1), conv.bias


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight, norm.bias
