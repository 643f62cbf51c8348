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
from voiceagent.models.step_audio2.t2w_pool import TAIL, FlowPool, Places


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
        self._out = dit.final_layer.linear
        self.dtype = weight.dtype

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
        depth, width, x = self.depth, self._in_bias.shape[0], noise
        fixed = noise.new_empty(batch, 2, frames, width)  # the guidance row without knowledge sees zeros
        fixed[:, 0] = F.linear(known, self._in_known, self._in_bias)
        fixed[:, 1] = self._in_bias
        qkv = known.new_empty(depth, batch, 2, frames, 3, self.heads, self.size)
        slots = places.column("slot")
        tail_rows = places.stride * places.column("new")[:, None] + torch.arange(TAIL, device=slots.device)
        tail_rows = tail_rows[:, None, :, None].expand(-1, 2, -1, width)
        for k, span in enumerate(self._spans):
            residual = fixed + F.linear(x.to(self.dtype), self._in_x)[:, None]
            for i, block in enumerate(self._blocks):
                tails = self.pool.tails[k, i]
                old = tails[:, slots].flatten(1, 2)
                padded = block.forward(
                    residual, self._blocks_at[k, i], qkv[i], self.pool.kv[k, i], old, places
                )
                for c, rows in enumerate(padded):
                    tails[c, slots] = rows.gather(2, tail_rows)
                ops.keep(qkv[i], self.pool.kv[k, i], places)
            shift, scale = self._final_at[k]
            y = self._out(ops.norm(residual, shift, scale, dtype=self.dtype)).float()
            x = x + span * ((1 + self.guidance) * y[:, 0] - self.guidance * y[:, 1])
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
        self, residual: Tensor, modulation: Tensor, qkv: Tensor, memory: Tensor, tails: Tensor, places: Places
    ) -> tuple[Tensor, Tensor]:
        """Adds the block's three parts to `residual` (B, 2, T, width).

        Args:
            modulation: (9, width), in the order in which the weights store it.
            qkv: (B, 2, T, 3, heads, size), which is filled.
            memory: of this step and block.
            tails: (2, B x 2, 2, width) input rows before the chunk of both convolutions.

        Returns:
            Both convolutions' input rows, (B, 2, 2 + T, width) each.
        """
        shift, scale, gate, shift_ff, scale_ff, gate_ff, shift_conv, scale_conv, gate_conv = modulation
        dtype, rows = qkv.dtype, residual.flatten(0, 1)
        x = ops.norm(rows, shift, scale, dtype=dtype)
        torch.addmm(self.qkv[1], x.flatten(0, 1), self.qkv[0].T, out=qkv.view(-1, self.qkv[0].shape[0]))
        ops.head_norm(qkv.flatten(0, 2), *self.heads)
        y = ops.attend(qkv, memory, places).flatten(0, 1)
        ops.add(rows, F.linear(y, *self.proj), gate)
        first = ops.pad(ops.norm(rows, shift_conv, scale_conv, dtype=dtype), tails[0])
        y = ops.norm_mish(ops.convolve(first, *self.conv1), *self.between)
        second = ops.pad(y, tails[1])
        ops.add(rows, ops.convolve(second, *self.conv2), gate_conv)
        x = ops.norm(rows, shift_ff, scale_ff, dtype=dtype)
        y = F.gelu(F.linear(x, *self.fc1), approximate="tanh")
        ops.add(rows, F.linear(y, *self.fc2), gate_ff)
        return first.view(-1, 2, *first.shape[1:]), second.view(-1, 2, *second.shape[1:])


def _taps_first(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv1d)
    assert conv.bias is not None
    return conv.weight.permute(2, 0, 1).contiguous(), conv.bias


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight, norm.bias
