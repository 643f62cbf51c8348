"""How a budget of memory for speech is divided among streams and voices' prompts, before anything is loaded.

It knows sizes; `t2w_pool` knows what lies there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from voiceagent.errors import ConfigError
from voiceagent.models.step_audio2.flow import ODE_STEPS, PROMPT_TOKENS
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.t2w_pool import FlowPool

LEAST_PROMPT_TOKENS = 500
"""Of the prompts there is room for at least: two voices of 10 s."""
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class SpeechRoom:
    """Bytes of one stream and of one token of a voice's prompt."""

    stream: int
    token: int

    @classmethod
    def of(cls, config: FlowConfig, dtype: torch.dtype) -> SpeechRoom:
        """Of a flow in a number type."""
        return cls(
            FlowPool.slot_bytes(config, steps=ODE_STEPS, dtype=dtype),
            FlowPool.token_bytes(config, steps=ODE_STEPS, dtype=dtype),
        )

    @property
    def least(self) -> int:
        """Bytes of one stream, of a stream that is nobody's, and of the prompts there must be room for."""
        return 2 * self.stream + LEAST_PROMPT_TOKENS * self.token

    def wanted(self, streams: int) -> int:
        """Bytes of so many streams at once, and of 60 s of prompts."""
        return (streams + 1) * self.stream + PROMPT_TOKENS * self.token

    def divide(self, size: int) -> dict[str, int]:
        """How many `slots` and `prompt_tokens` fit: prompts take up to a quarter, and what they need at least.

        Raises:
            ConfigError: it is less than `least`.
        """
        self.check(size)
        prompts = min(PROMPT_TOKENS, max(LEAST_PROMPT_TOKENS, size // 4 // self.token))
        return {"slots": (size - prompts * self.token) // self.stream - 1, "prompt_tokens": prompts}

    def check(self, size: int) -> None:
        """Raises ConfigError for a budget that holds no stream."""
        if size >= self.least:
            return
        prompts = LEAST_PROMPT_TOKENS * self.token
        raise ConfigError(
            f"{size / MB:.1f} MB are too little for speech: two streams take {2 * self.stream / MB:.1f} MB (one is "
            f"nobody's), and the prompts of two voices {prompts / MB:.1f} MB.",
            param="engine.speech_memory_mb",
            remedy=f"Set engine.speech_memory_mb to {-(-self.least // MB)} or more; 0 works it out.",
        )
