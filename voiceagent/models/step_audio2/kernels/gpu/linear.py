"""Products of few rows on CUDA."""

from voiceagent.models.step_audio2.kernels.linear import gated_torch as gated
from voiceagent.models.step_audio2.kernels.linear import small_torch as small

__all__ = ["gated", "small"]
