"""What one row of the table measures, and the sound that is sent in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voiceagent.units import VOICE_RATE

NOISE = np.random.default_rng(1).normal(0, 30, 2 * VOICE_RATE).astype("<i2").tobytes()
RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        frame_ms: audio per message, into the server.
        reply: "echo" = the engine sends as much as it hears, as one message per frame; "paced" = it sends the chunks of
            a real reply ahead of time, and the server's mouth paces them out; "floor" = there is no voiceagent, aiohttp
            answers each frame with a frame made beforehand.
        format: of both directions.
    """

    name: str
    frame_ms: int = 20
    reply: str = "echo"
    format: str = "audio/pcm"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame before base64."""
        return RATES[self.format] * self.frame_ms // 1000 * (2 if self.format == "audio/pcm" else 1)
