"""Turns pieces of heard audio into rows for the language model; it knows no conversation.

On CUDA, encoder and adapter are captured as graphs for a few lengths: there, calling their operations one by one takes
longer than computing them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from voiceagent.models.step_audio2.graphs import Captured, capture
from voiceagent.models.step_audio2.mel import frame_count, log_mel, placeholder_count
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.units import PIECE_SAMPLES

FRAMES = (128, 256, 384, 512, 768, 1024, 1536, 2048, frame_count(PIECE_SAMPLES))
"""Log-mel frames (10 ms) for which a graph is captured; a shorter piece is padded to the next larger number."""


class Listener:
    """The pass over one piece of audio.

    Args:
        network: the model.
    """

    def __init__(self, network: StepAudio2) -> None:
        self._network = network
        self._graphs: dict[int, tuple[Captured, Tensor, Tensor]] = {}

    @torch.inference_mode()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """As `StepAudio2.encode_audio`, of each.

        Raises:
            InputError: a piece is longer than 25 s or not one-dimensional; none was encoded.
        """
        for wave in waves:
            self._network.check_audio(wave)
        return [self._encode(wave) for wave in waves]

    def _encode(self, wave: Tensor) -> Tensor:
        count = placeholder_count(wave.shape[0])
        frames = frame_count(wave.shape[0])
        size = next((size for size in self._graphs if size >= frames), None)
        if size is None or count == 0:
            return self._network.encode_audio(wave)
        graph, mel, lengths = self._graphs[size]
        found, _ = log_mel(wave.to(mel.device)[None], torch.tensor([wave.shape[0]]))
        mel[:, :, :frames] = found
        mel[:, :, frames:] = 0.0
        lengths.fill_(frames - 2)
        return graph()[0, :count].clone()

    @torch.inference_mode()
    def capture(
        self,
        sizes: Iterable[int] = FRAMES,
        *,
        share: Captured | None = None,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Captures the pass for some numbers of frames, on CUDA; `told` is called after each."""
        self._graphs.clear()
        weight = self._network.lm_head.weight
        found = {}
        for size in sorted(sizes, reverse=True):
            bands = self._network.config.audio.n_mels
            mel = torch.zeros(1, bands, size, dtype=weight.dtype, device=weight.device)
            lengths = torch.full((1,), size - 2, device=weight.device)

            def work(mel: Tensor = mel, lengths: Tensor = lengths) -> Tensor:
                return self._network.hear(mel, lengths)

            share = capture(work, device=weight.device, share=share)
            found[size] = (share, mel, lengths)
            told()
        self._graphs = dict(sorted(found.items()))
