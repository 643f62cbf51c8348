"""The S3 speech tokenizer: 16 kHz speech to 25 ids a second, through its ONNX file on the CPU.

It serves voice prompts only; what a caller says never becomes ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.mel import log_mel
from voiceagent.models.step_audio2.onnx_session import OnnxSession
from voiceagent.units import MODEL_RATE

FILE = "speech_tokenizer_v2_25hz.onnx"
CODES = 6561
MAX_SECONDS = 30
"""The network's positions end there."""

_FRAMES_PER_TOKEN = 4


class SpeechTokenizer:
    """A loaded tokenizer; stateless.

    Raises:
        CheckpointError: the file is missing or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self._session = OnnxSession(path, inputs=2)

    def encode(self, wave: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Ids of a recording.

        Args:
            wave: (L,) float32 in [-1, 1], 16 kHz, at most 30 s.

        Returns:
            (T,) in 0..6560 with T = L / 640 rounded up, as far as whole mel frames go.

        Raises:
            InputError: more than 30 s, or too short for a spectrum.
            CheckpointError: the network returns something else than one id for every four frames.
        """
        if len(wave) > MAX_SECONDS * MODEL_RATE:
            raise InputError(
                f"a voice prompt of {len(wave) / MODEL_RATE:.1f} s is too long.",
                code="audio_too_long",
                remedy=f"Use at most {MAX_SECONDS} s; 5 to 10 s are best.",
            )
        mel, _ = log_mel(torch.from_numpy(wave)[None], torch.tensor([len(wave)]), pad=0)
        frames = mel.shape[2]
        ids = self._session.run(mel.numpy(), np.array([frames], np.int32)).reshape(-1)
        expected = -(-frames // _FRAMES_PER_TOKEN)
        if len(ids) != expected or ids.min() < 0 or ids.max() >= CODES:
            raise CheckpointError(
                f"{self._session.path} made {len(ids)} ids of {frames} frames, "
                f"not {expected} ids from 0 to {CODES - 1}.",
                remedy="Download or export the checkpoint folder again.",
            )
        return ids.astype(np.int64)
