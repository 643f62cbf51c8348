"""Elementwise steps on CUDA."""

from voiceagent.models.step_audio2.kernels.fused import add_rms_norm_torch as add_rms_norm
from voiceagent.models.step_audio2.kernels.fused import rotate_and_write_torch as rotate_and_write
from voiceagent.models.step_audio2.kernels.fused import silu_mul_torch as silu_mul

__all__ = ["add_rms_norm", "rotate_and_write", "silu_mul"]
