"""The Whisper-shaped audio encoder and the adapter into the language model's width; it knows no prompt and no file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.models.step_audio2.config import AudioEncoderConfig


class _Attention(nn.Module):
    """Full self-attention, Whisper style: the key projection has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected


class _Block(nn.Module):
    """Pre-norm attention, then a GELU feed-forward of four times the width."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = _Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + F.dropout(self.attn(self.attn_ln(x), mask), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.mlp_ln(x)), self.dropout, self.training)


class AudioEncoder(nn.Module):
    """Log-mel frames (100 Hz) to hidden rows (25 Hz); a row of a batch comes out as if it were alone."""

    def __init__(self, config: AudioEncoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positional_embedding = nn.Embedding(config.n_audio_ctx, width)
        self.blocks = nn.ModuleList(
            _Block(width, config.n_audio_head, dropout) for _ in range(config.n_audio_layer)
        )
        self.after_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a padded batch.

        Args:
            mel: (B, n_mels, F) log-mel, zero beyond each row's own frames.
            lengths: (B,) integer, valid frames v = F - 2 of each row (two frames count as padding).

        Returns:
            rows: (B, T, n_audio_state) at 25 Hz; up to one row beyond a length is not zero.
            lengths: (B,) ((v + 1) // 2) // 2.

        The reference builds its key mask from every second frame, with a phase that hangs on the longest row, so a
        batched row may lose its last key. Here every row gets the (v + 1) // 2 keys that it has when alone.
        """
        # A row alone ends with its last frame: what conv1 spills beyond it must not reach conv2.
        x = F.gelu(self.conv1(mel)) * _below(lengths + 2, mel.shape[2])[:, None]
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positional_embedding.weight[: x.shape[1]]
        keys = (lengths + 1) // 2
        mask = _below(keys, x.shape[1])[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        x = self.after_norm(F.avg_pool1d(x.transpose(1, 2), 2, 2).transpose(1, 2))
        # Alone, a row has keys + 1 positions before the pooling. The adapter sees the last pooled row even when it is
        # not counted, and zeros beyond.
        return x * _below((keys + 1) // 2, x.shape[1])[..., None], keys // 2


def _below(counts: Tensor, width: int) -> Tensor:
    """(B, width) bool: position < count."""
    return torch.arange(width, device=counts.device) < counts[:, None]


class Adapter(nn.Module):
    """Halves the rate to 12.5 Hz and lifts the rows to the language model's width."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv = nn.Conv1d(width, width, config.kernel_size, stride=config.adapter_stride, padding=1)
        self.linear1 = nn.Linear(width, config.adapter_hidden)
        self.linear2 = nn.Linear(config.adapter_hidden, config.llm_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, n_audio_state) and its lengths to (B, n, llm_dim) and (B,) placeholder counts."""
        x = F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.linear2(F.relu(self.linear1(x))), (lengths - 1) // 2 + 1
