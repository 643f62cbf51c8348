"""The speaker encoder CAM++: 16 kHz speech to one vector of 192 values that says who speaks, through its ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.mel import kaldi_fbank
from voiceagent.models.step_audio2.onnx_session import OnnxSession

FILE = "campplus.onnx"
SIZE = 192


class SpeakerEncoder:
    """A loaded encoder; stateless.

    Raises:
        CheckpointError: the file is missing or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self._session = OnnxSession(path, inputs=1)

    def encode(self, wave: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The speaker vector of a recording, of any length (the flow normalises it).

        Args:
            wave: (L,) float32 in [-1, 1], 16 kHz.

        Returns:
            (192,)

        Raises:
            InputError: shorter than one filter-bank frame.
            CheckpointError: the network returns something else than 192 finite values.
        """
        bank = kaldi_fbank(torch.from_numpy(wave))
        bank = bank - bank.mean(dim=0, keepdim=True)
        vector = self._session.run(bank[None].numpy()).reshape(-1).astype(np.float32)
        if len(vector) != SIZE or not np.isfinite(vector).all():
            raise CheckpointError(
                f"{self._session.path} returned {len(vector)} values, not {SIZE} finite ones.",
                remedy="Download or export the checkpoint folder again.",
            )
        return vector
