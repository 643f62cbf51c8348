"""Joins encoder, adapter, language model and output matrix under the real tensor names; it knows no text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.encoder import Adapter, AudioEncoder
from voiceagent.models.step_audio2.kernels import int8, linear
from voiceagent.models.step_audio2.lm import CausalLM, Matrix
from voiceagent.models.step_audio2.mel import log_mel, placeholder_count
from voiceagent.units import PIECE_SAMPLES


class StepAudio2(nn.Module):
    """Stateless: all that a conversation needs lies in pages of a `KvPool` and in the rows of its audio.

    `state_dict()` has exactly the checkpoint's keys: `encoder.*`, `adapter.*`, `model.*`, `lm_head.weight`.
    The two dropouts are for training only.
    """

    def __init__(
        self, config: StepAudio2Config, *, dropout: float = 0.0, encoder_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config.audio, dropout=encoder_dropout)
        self.adapter = Adapter(config.audio)
        self.model = CausalLM(config.text, dropout=dropout)
        self.lm_head = Matrix(config.text.hidden_size, config.text.vocab_size, bias=False)

    def encode_audio(self, wave: Tensor) -> Tensor:
        """One piece of heard audio as rows for its `<audio_patch>` positions.

        Args:
            wave: (L,) float32, 16 kHz, at most 25 s, on any device.

        Returns:
            (placeholder_count(L), hidden) in the model's dtype; no row for less than about 20 ms.

        Raises:
            InputError: the piece is longer than 25 s or not one-dimensional.
        """
        self.check_audio(wave)
        weight, count = self.lm_head.weight, placeholder_count(wave.shape[0])
        if count == 0:
            return weight.new_zeros(0, self.config.text.hidden_size)
        wave = wave.to(weight.device)
        mel, frames = log_mel(wave[None], torch.tensor([wave.shape[0]], device=weight.device))
        return self.hear(mel.to(weight.dtype), frames - 2)[0, :count]

    def check_audio(self, wave: Tensor) -> None:
        """Raises InputError for what `encode_audio` refuses."""
        if wave.dim() != 1 or wave.shape[0] > PIECE_SAMPLES:
            raise InputError(
                f"an audio piece is of shape {tuple(wave.shape)}, not one channel of at most "
                f"{PIECE_SAMPLES} samples.",
                remedy="Split longer audio into pieces of 25 s.",
            )

    def hear(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """(B, n_mels, F) log-mel and the encoder's (B,) lengths to (B, rows, hidden) adapted rows."""
        rows: Tensor
        rows, _ = self.adapter(*self.encoder(mel, lengths))
        return rows

    def embed(self, ids: Tensor) -> Tensor:
        """(…) token ids to (…, hidden) input embeddings."""
        out: Tensor = self.model.embed_tokens(ids)
        return out

    def hidden(self, embeds: Tensor) -> Tensor:
        """(B, T, hidden) embeddings of rows without a past to (B, T, hidden) final states."""
        out: Tensor = self.model(embeds)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, hidden) final states to (…, vocabulary) float32 scores."""
        out: Tensor = self.lm_head(hidden)
        return out.float()

    def scores(self, states: Tensor) -> Tensor:
        """(N, hidden) states of `model.extend` to (N, vocabulary) scores in the model's dtype."""
        norm = self.model.norm.weight
        return linear.small(states, self.lm_head.factor, norm=norm, eps=self.config.text.rms_norm_eps)

    def pack_rows(self) -> None:
        """Keeps the language model's matrices as int8 rows too, which must be what they were stored as; see `int8`."""
        for module in self.modules():
            if isinstance(module, Matrix):
                module.packed = int8.pack(module.weight)

    def stored(self) -> dict[str, Tensor]:
        """Where each tensor of a checkpoint lives: its name there to a view of the parameter that holds it.

        The loader copies into these views, so that parameters may be laid out otherwise than the files are.
        """
        return dict(self.state_dict())
