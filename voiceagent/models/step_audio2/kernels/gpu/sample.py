"""The draw on CUDA."""

from voiceagent.models.step_audio2.kernels.sample import choose_torch as choose

__all__ = ["choose"]
