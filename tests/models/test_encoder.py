"""A padded batch must encode each row as if it were alone, and every length must follow the placeholder law."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from voiceagent.models.step_audio2.config import AudioEncoderConfig
from voiceagent.models.step_audio2.encoder import Adapter, AudioEncoder
from voiceagent.models.step_audio2.mel import log_mel, placeholder_count

CONFIG = AudioEncoderConfig(
    n_mels=128,
    n_audio_ctx=1500,
    n_audio_state=32,
    n_audio_head=4,
    n_audio_layer=2,
    llm_dim=24,
    kernel_size=3,
    adapter_stride=2,
    adapter_hidden=20,
)


def _networks() -> tuple[AudioEncoder, Adapter]:
    torch.manual_seed(0)
    return AudioEncoder(CONFIG).eval(), Adapter(CONFIG).eval()


@torch.inference_mode()
def test_batched_rows_equal_rows_alone_for_every_length_phase() -> None:
    encoder, adapter = _networks()
    lengths = [16_000 + 160 * phase for phase in range(8)] + [24_321]
    waves = torch.randn(len(lengths), max(lengths))  # what lies beyond a length must not matter
    mel, frames = log_mel(waves, torch.tensor(lengths))
    rows, counts = adapter(*encoder(mel, frames - 2))
    for i, length in enumerate(lengths):
        alone_mel, alone_frames = log_mel(waves[i : i + 1, :length], torch.tensor([length]))
        alone, count = adapter(*encoder(alone_mel, alone_frames - 2))
        n = placeholder_count(length)
        assert counts[i] == count[0] == n
        torch.testing.assert_close(rows[i, :n], alone[0, :n], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_one_row_equals_the_formula_written_out() -> None:
    encoder, adapter = _networks()
    mel = torch.randn(1, 128, 101)
    length = torch.tensor([99])
    got, counts = adapter(*encoder(mel, length))

    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel))))[0].T
    x = x + encoder.positional_embedding.weight[: len(x)]
    mask = (torch.arange(101) < 99)[(101 + 1) % 2 :: 2]
    bias = torch.where(mask, 0.0, -1e10)
    for block in encoder.blocks:
        y, attention = block.attn_ln(x), block.attn
        q, k, v = (
            p(y).view(len(y), 4, 8).transpose(0, 1) for p in (attention.query, attention.key, attention.value)
        )
        weights = (q * 8**-0.25 @ (k * 8**-0.25).transpose(1, 2) + bias).softmax(-1)
        x = x + attention.out((weights @ v).transpose(0, 1).reshape(len(y), 32))
        x = x + block.mlp(block.mlp_ln(x))
    x = encoder.after_norm(F.avg_pool1d(x.T[None], 2, 2)[0].T)
    x = F.gelu(adapter.conv(x.T[None]))[0].T
    expected = adapter.linear2(F.relu(adapter.linear1(x)))[: int(counts[0])]

    assert int(counts[0]) == 13
    torch.testing.assert_close(got[0, :13], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_longest_piece_fits() -> None:
    encoder, adapter = _networks()
    mel, frames = log_mel(torch.randn(1, 400_000), torch.tensor([400_000]))
    rows, counts = adapter(*encoder(mel, frames - 2))
    assert (int(frames[0]), int(counts[0])) == (2502, 313)
    assert torch.isfinite(rows[0, :313]).all()
