"""Paged attention on CUDA."""

from voiceagent.models.step_audio2.kernels.paged import decode_attention_torch as decode_attention
from voiceagent.models.step_audio2.kernels.paged import write_torch as write

__all__ = ["decode_attention", "write"]
