"""The Qwen2-shaped language model over pages of keys and values; it knows no token, no sampling and no session.

`CausalLM.forward` is the plain pass without a past, which can be trained. `CausalLM.extend` goes on where sequences
stand in the pages: many new positions of one sequence (`Chunk`), or one of each of many (`Step`, `host.HostStep`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.models.step_audio2.config import TextConfig
from voiceagent.models.step_audio2.kernels import fused, linear, paged
from voiceagent.models.step_audio2.kernels.int8 import Int8Rows
from voiceagent.models.step_audio2.kernels.sums import Sums
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence


class New(Protocol):
    """Where the new positions of a pass stand: `Step`, `Chunk`, or `host.HostStep`."""

    def rotate(self, qkv: Tensor | Sums, layer: int) -> Tensor:
        """Turns queries and keys of (N, (heads + 2 kv_heads) * head_dim), stores keys and values; the queries.

        On CUDA `qkv` may come in parts (see `linear.joined`).
        """

    def attend(self, q: Tensor, layer: int) -> Tensor:
        """The queries, as `rotate` gives them, to (N, heads * head_dim) mixed values."""


@dataclass(frozen=True, slots=True)
class Step:
    """One new position of each of B sequences; all of it may change between replays of a captured graph.

    Attributes:
        positions: (B,) int64, counted from the beginning of each sequence.
        places: (B,) int64 page * PAGE + offset where its key and value go; -1 for an idle row.
        tables: (B, max_pages) int32 pages of each sequence.
        lengths: (B,) int32 positions with the new one; 0 for an idle row.
        pool: the pages (see `kv.KvPool`).
        rotary: tables of cosines and signed sines, (positions, head_dim).
    """

    positions: Tensor
    places: Tensor
    tables: Tensor
    lengths: Tensor

    pool: Tensor
    rotary: tuple[Tensor, Tensor]

    @classmethod
    def after(
        cls, sequences: Sequence[KvSequence | None], *, pool: KvPool, rotary: tuple[Tensor, Tensor]
    ) -> Step:
        """One position behind each sequence, which must be reserved; None is an idle row."""
        device = pool.tensor.device
        held = [([], -1) if one is None else (one.pages, one.length) for one in sequences]
        longest = max(len(pages) for pages, _ in held)
        tables = [pages + [0] * (longest - len(pages)) for pages, _ in held]
        places = [-1 if one is None else one.place(one.length) for one in sequences]
        positions = torch.tensor([past for _, past in held], device=device)
        return cls(
            positions=positions.clamp(min=0),
            places=torch.tensor(places, device=device),
            tables=torch.tensor(tables, dtype=torch.int32, device=device),
            lengths=(positions + 1).int(),
            pool=pool.tensor,
            rotary=rotary,
        )

    def rotate(self, qkv: Tensor | Sums, layer: int) -> Tensor:
        """Turns queries and keys and stores keys and values; (B, heads, head_dim) queries."""
        return fused.rotate_and_write(qkv, *self.rotary, self.positions, self.pool, layer, self.places)

    def attend(self, q: Tensor, layer: int) -> Tensor:
        """(B, heads, head_dim) queries to (B, heads * head_dim) mixed values."""
        return paged.decode_attention(q, self.pool, layer, self.tables, self.lengths).flatten(1)


@dataclass(frozen=True, slots=True)
class Chunk:
    """New positions of one sequence, behind what it holds.

    Attributes:
        positions: (N,) int64, consecutive.
        places: (N,) int64 page * PAGE + offset where keys and values go.
        table: (pages,) int32, or the first page's number where the pages follow each other.
        length: positions with the new ones.
        mask: (N, length) bool, which key each new position sees; None where there is no past.
        pool: the pages (see `kv.KvPool`).
        rotary: tables of cosines and signed sines, (positions, head_dim).
    """

    positions: Tensor
    places: Tensor
    table: Tensor | int
    length: int
    mask: Tensor | None
    pool: Tensor
    rotary: tuple[Tensor, Tensor]

    @classmethod
    def after(cls, sequence: KvSequence, count: int, *, pool: KvPool, rotary: tuple[Tensor, Tensor]) -> Chunk:
        """`count` positions behind what the sequence holds; they must be reserved."""
        past, device = sequence.length, pool.tensor.device
        pages = sequence.pages[: -(-(past + count) // PAGE)]
        consecutive = pages == list(range(pages[0], pages[0] + len(pages)))
        positions = torch.arange(past, past + count, device=device)
        mask = torch.arange(past + count, device=device) <= positions[:, None] if past else None
        return cls(
            positions=positions,
            places=torch.tensor(sequence.places(past, past + count)).to(device, non_blocking=True),
            table=pages[0] if consecutive else torch.tensor(pages, dtype=torch.int32, device=device),
            length=past + count,
            mask=mask,
            pool=pool.tensor,
            rotary=rotary,
        )

    def rotate(self, qkv: Tensor | Sums, layer: int) -> Tensor:
        """Turns queries and keys and stores keys and values; (N, heads, head_dim) queries."""
        return fused.rotate_and_write(qkv, *self.rotary, self.positions, self.pool, layer, self.places)

    def attend(self, q: Tensor, layer: int) -> Tensor:
        """(N, heads, head_dim) queries to (N, heads * head_dim) mixed values."""
        keys, values = paged.gather(self.pool, layer, self.table, self.length)
        mixed = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=self.mask,
            is_causal=self.mask is None,
            enable_gqa=True,
        )
        return mixed[0].transpose(0, 1).flatten(1)


class Matrix(nn.Linear):
    """A linear map whose weight may lie beside it as int8 rows too, for products of few rows on a CPU."""

    packed: Int8Rows | None = None

    @property
    def factor(self) -> Tensor | Int8Rows:
        """What `kernels.linear` multiplies with."""
        return self.weight if self.packed is None else self.packed


class _Attention(nn.Module):
    """Grouped-query attention with rotary positions; q, k and v have biases, o has none.

    Queries, keys and values come from one matrix, whose rows lie in three tensors of a checkpoint.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        rows = {
            "q_proj": self.heads * self.head_dim,
            "k_proj": self.kv_heads * self.head_dim,
            "v_proj": self.kv_heads * self.head_dim,
        }
        self.qkv = Matrix(config.hidden_size, sum(rows.values()))
        self.o_proj = Matrix(self.heads * self.head_dim, config.hidden_size, bias=False)
        _store_apart(self, "qkv", rows)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        batch, steps, _ = x.shape
        parts = self.qkv(x).view(batch, steps, -1, self.head_dim).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        # Under autocast the rotation is done in float32.
        q, k = _rotate(q, rotary).to(v.dtype), _rotate(k, rotary).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, steps, -1))
        return out


class _FeedForward(nn.Module):
    """SwiGLU; gate and up are one matrix, whose rows lie in two tensors of a checkpoint."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_up = Matrix(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = Matrix(config.intermediate_size, config.hidden_size, bias=False)
        _store_apart(
            self, "gate_up", {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size}
        )

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class _Layer(nn.Module):
    def __init__(self, config: TextConfig, *, index: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.index, self.dropout, self.eps = index, dropout, config.rms_norm_eps

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), rotary)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)

    def fill(self, x: Tensor, normed: Tensor | None, new: New) -> Tensor:
        """Stores keys and values of (N, hidden) new positions; their queries."""
        qkv, norm = self.self_attn.qkv, self.input_layernorm.weight
        joined = linear.joined(x, qkv.factor, qkv.bias, norm=norm, normed=normed, eps=self.eps)
        return new.rotate(joined, self.index)

    def extend(
        self, x: Tensor, normed: Tensor | None, new: New, *, behind: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """(N, hidden) new positions to the same, storing their keys and values.

        `normed` and what is returned beside the states are these behind the norm that comes next, if it cost nothing;
        `behind` is the weight of the norm behind this layer.
        """
        mlp, norm = self.mlp, self.post_attention_layernorm.weight
        mixed = new.attend(self.fill(x, normed, new), self.index)
        x, normed = linear.added(mixed, self.self_attn.o_proj.factor, residual=x, norm=norm, eps=self.eps)
        gated = linear.gated(x, mlp.gate_up.factor, norm=norm, normed=normed, eps=self.eps)
        return linear.added(gated, mlp.down_proj.factor, residual=x, norm=behind, eps=self.eps)


class CausalLM(nn.Module):
    """Embedding, decoder layers and final norm; the output matrix lies beside it, not in it."""

    def __init__(self, config: TextConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            _Layer(config, index=i, dropout=dropout) for i in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, embeds: Tensor) -> Tensor:
        """Hidden states after the final norm, of rows without a past: (B, T, hidden) to (B, T, hidden)."""
        steps = embeds.shape[1]
        cos, sin = self.rotary(steps, embeds.device, embeds.dtype)
        x = embeds
        for layer in self.layers:
            x = layer(x, (cos[:steps], sin[:steps]))
        out: Tensor = self.norm(x)
        return out

    def extend(self, embeds: Tensor, new: New) -> Tensor:
        """States before the final norm of new positions, whose keys and values are stored.

        Args:
            embeds: (N, hidden).
            new: where the positions stand.

        Returns:
            (N, hidden); in idle rows without meaning.
        """
        return self._extend(embeds, new, len(self.layers))[0]

    def fill(self, embeds: Tensor, new: New) -> None:
        """`extend`, where nobody wants to know the states: the last layer only stores keys and values."""
        *body, last = cast("Iterable[_Layer]", self.layers)
        last.fill(*self._extend(embeds, new, len(body)), new)

    def _extend(self, x: Tensor, new: New, count: int) -> tuple[Tensor, Tensor | None]:
        """Behind the first `count` layers: the states, and these behind the next norm, if it cost nothing."""
        layers = list(cast("Iterable[_Layer]", self.layers))
        norms = [*(layer.input_layernorm for layer in layers), self.norm]
        normed: Tensor | None = None
        for layer, following in zip(layers[:count], norms[1:], strict=False):
            x, normed = layer.extend(x, normed, new, behind=following.weight)
        return x, normed

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of all positions, float32, for `Step` and its like."""
        device = self.embed_tokens.weight.device
        return self.rotary(self.config.max_position_embeddings, device, torch.float32)

    def rotary(self, steps: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of at least `steps` positions, (>= steps, head_dim) each."""
        return _rotary_table(self.config.rope_theta, self.config.head_dim, _round_up(steps), device, dtype)


def _store_apart(module: nn.Module, joined: str, rows: Mapping[str, int]) -> None:
    """Lets a checkpoint hold the child `joined` as several tensors, each with so many of its rows.

    `state_dict()` gives views of the joined parameters under the parts' names; `load_state_dict` takes those names.
    """

    def part(owner: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for kind in ("weight", "bias"):
            whole = state.pop(f"{prefix}{joined}.{kind}", None)
            if whole is not None:
                for name, piece in zip(rows, whole.split(list(rows.values())), strict=True):
                    state[f"{prefix}{name}.{kind}"] = piece

    def join(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for kind in ("weight", "bias"):
            names = [f"{prefix}{name}.{kind}" for name in rows]
            if all(name in state for name in names):
                state[f"{prefix}{joined}.{kind}"] = torch.cat([state.pop(name) for name in names])

    module.register_state_dict_post_hook(part)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(join)  # type: ignore[no-untyped-call]


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate-half: (a, b) -> (a cos - b sin, b cos + a sin); the table's first sine half is negated."""
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _round_up(positions: int) -> int:
    """The next power of two from 2048 on, so that few tables are made."""
    return max(2048, 1 << (positions - 1).bit_length())


@lru_cache(maxsize=8)
def _rotary_table(
    theta: float, width: int, size: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(size, width) cosines and signed sines, computed in float32."""
    with torch.inference_mode(False):
        rates = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
        angles = torch.arange(size, dtype=torch.float32)[:, None] * rates
        cos, sin = angles.cos(), angles.sin()
        return (
            torch.cat([cos, cos], 1).to(device=device, dtype=dtype),
            torch.cat([-sin, sin], 1).to(device=device, dtype=dtype),
        )
