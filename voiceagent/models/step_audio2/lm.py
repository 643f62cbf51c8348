"""The Qwen2-shaped language model over an explicit key-value cache; it knows no token, no sampling and no session."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.models.step_audio2.config import TextConfig

_FIRST_CAPACITY = 256


class KvCache:
    """Keys and values of one conversation, position 0 first; room grows by doubling.

    It belongs to whoever opened it: the model keeps no state. Rows of a batch share one length.
    """

    def __init__(
        self, config: TextConfig, *, device: torch.device | str, dtype: torch.dtype, batch: int = 1
    ) -> None:
        self.length = 0  #: positions held
        self._shape = (batch, config.num_key_value_heads, config.head_dim)
        self._layers = [
            tuple(self._blank(_FIRST_CAPACITY, device, dtype) for _ in range(2))
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes allocated, used or not."""
        return sum(part.nbytes for pair in self._layers for part in pair)

    @property
    def capacity(self) -> int:
        """Positions that fit before the next growth."""
        return self._layers[0][0].shape[2]

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on; its memory stays.

        Raises:
            ValueError: `length` is negative or beyond what is held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} positions to {length}")
        self.length = length

    def fork(self) -> KvCache:
        """An independent copy of the same positions."""
        twin = KvCache.__new__(KvCache)
        twin.length, twin._shape = self.length, self._shape
        twin._layers = [tuple(part.clone() for part in pair) for pair in self._layers]
        return twin

    def reserve(self, positions: int) -> None:
        """Makes room for `positions` in all, so that no later step up to there has to copy."""
        capacity = self.capacity
        if positions <= capacity:
            return
        while capacity < positions:
            capacity *= 2
        for layer, pair in enumerate(self._layers):
            grown = tuple(self._blank(capacity, part.device, part.dtype) for part in pair)
            for new, old in zip(grown, pair, strict=True):
                new[:, :, : self.length] = old[:, :, : self.length]
            self._layers[layer] = grown

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes (B, kv_heads, T, head_dim) after what is held; views of all positions up to and with them.

        `length` moves once, by `advance`, after the last layer.
        """
        end = self.length + keys.shape[2]
        stored_keys, stored_values = self._layers[layer]
        stored_keys[:, :, self.length : end] = keys
        stored_values[:, :, self.length : end] = values
        return stored_keys[:, :, :end], stored_values[:, :, :end]

    def advance(self, positions: int) -> None:
        """Counts `positions` that every layer has written."""
        self.length += positions

    def _blank(self, capacity: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        batch, heads, width = self._shape
        return torch.empty(batch, heads, capacity, width, device=device, dtype=dtype)


class _Attention(nn.Module):
    """Grouped-query attention with rotary positions; q, k and v have biases, o has none."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KvCache | None, layer: int
    ) -> Tensor:
        batch, steps, _ = x.shape
        q = _rotate(self._split(self.q_proj(x), self.heads), rotary)
        k = _rotate(self._split(self.k_proj(x), self.kv_heads), rotary)
        v = self._split(self.v_proj(x), self.kv_heads)
        causal = mask is None and (cache is None or cache.length == 0)
        q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast the rotation is done in float32
        if cache is not None:
            k, v = cache.put(layer, k, v)
        if steps == 1:
            # The query heads of a group stand in for query positions: no key has to be repeated.
            q = q.view(batch, self.kv_heads, -1, self.head_dim)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            mixed = mixed.reshape(batch, 1, -1)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
            mixed = mixed.transpose(1, 2).reshape(batch, steps, -1)
        out: Tensor = self.o_proj(mixed)
        return out

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, self.head_dim).transpose(1, 2)


class _FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, config: TextConfig, *, index: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.index, self.dropout = index, dropout

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KvCache | None
    ) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), rotary, mask, cache, self.index)
        x = x + F.dropout(mixed, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


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

    def new_cache(self, *, batch: int = 1) -> KvCache:
        """An empty cache on the model's device, in its dtype."""
        weight = self.embed_tokens.weight
        return KvCache(self.config, device=weight.device, dtype=weight.dtype, batch=batch)

    def forward(
        self, embeds: Tensor, cache: KvCache | None = None, *, starts: Tensor | None = None
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            embeds: (B, T, hidden) of the new positions only.
            cache: what came before; it is extended by T positions. None for a pass without a past.
            starts: (B,) first real position of each left-padded row, counted from the cache's beginning.

        Returns:
            (B, T, hidden); at padded positions without meaning.
        """
        steps = embeds.shape[1]
        past = 0 if cache is None else cache.length
        if cache is not None:
            cache.reserve(past + steps)
        cos, sin = _rotary_table(
            self.config.rope_theta, self.config.head_dim, _round_up(past + steps), embeds.device, embeds.dtype
        )
        rotary = (cos[past : past + steps], sin[past : past + steps])
        mask = _mask(past, steps, starts, embeds.device)
        x = embeds
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        if cache is not None:
            cache.advance(steps)
        out: Tensor = self.norm(x)
        return out


def _mask(past: int, steps: int, starts: Tensor | None, device: torch.device) -> Tensor | None:
    """Which keys each new position sees; None where plain causal (or, for one step, full) attention says the same."""
    if starts is None and (past == 0 or steps == 1):
        return None
    keys = torch.arange(past + steps, device=device)
    visible = keys <= torch.arange(past, past + steps, device=device)[:, None]
    if starts is None:
        return visible
    # A padded position sees itself, so that no softmax is empty.
    real = (keys >= starts[:, None, None]) | (
        keys == torch.arange(past, past + steps, device=device)[:, None]
    )
    return (visible & real)[:, None]


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
