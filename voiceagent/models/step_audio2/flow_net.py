"""The weights of Token2Wav's flow and where they are stored: the networks under their published names, no state.

It knows flow.pt; nothing of guidance, the ODE, streams or voices.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.checkpoint import widen_rows
from voiceagent.models.step_audio2.conformer import Conformer, ConformerCache
from voiceagent.models.step_audio2.dit import DiT, DiTConfig
from voiceagent.models.step_audio2.flow_config import MEL_BANDS, FlowConfig


class FlowNet(nn.Module):
    """The weights of flow.pt, under their names there."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_size, MEL_BANDS)
        self.encoder = Conformer(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.width, MEL_BANDS)
        self.decoder = _Decoder(config.dit)

    def mu(
        self,
        tokens: Tensor,
        *,
        cache: ConformerCache | None = None,
        last: bool = True,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, ConformerCache]:
        """(B, T) tokens -> (B, 2 T', 80), a first guess at the mel; arguments as of `Conformer.forward`."""
        hidden, cache = self.encoder(self.input_embedding(tokens), cache=cache, last=last, mask=mask)
        return self.encoder_proj(hidden), cache

    def speaker(self, vector: Tensor) -> Tensor:
        """(B, 192) of any length -> (B, 80)"""
        y: Tensor = self.spk_embed_affine_layer(F.normalize(vector, dim=1))
        return y


class _Decoder(nn.Module):
    """Gives the DiT its name in the checkpoint."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.estimator = DiT(config)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A flow.pt: a plain dictionary of tensors, int8 rows among them multiplied out; nothing in it is executed.

    Raises:
        CheckpointError: the file is missing, damaged or holds more than tensors, or int8 rows without their factors.
    """
    if not path.is_file():
        raise _damaged(f"{path} does not exist.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError) as cause:
        raise _damaged(f"{path} is truncated or not a plain dictionary of tensors: {cause}.") from cause
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise _damaged(f"{path} does not hold a plain dictionary of tensors.")
    return widen_rows(stored, source=str(path))


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
