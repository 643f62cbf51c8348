"""What one training step of the pocket language model computes. It knows no files, no schedule and no clock.

Nothing here asks the GPU for a value: sizes and places come from the CPU, so that the GPU never waits for Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.pocket.features import ALPHABET, ctc_targets, log, spec_augment
from scripts.pocket.lm_batches import Batch
from scripts.pocket.lm_eval import Hearing
from voiceagent.models.step_audio2 import lm
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.tokenizer import SpecialIds

CTC_WEIGHT = 0.4
RANDOM_AUDIO = 0.05  # of the audio ids that the model reads are replaced, so that a slip does not derail it
LENGTH_GROUPS = 3  # the audio of a batch is encoded in so many groups of similar length
ROUND_ROWS, ROUND_FRAMES = 16, 32  # few shapes: convolutions are planned anew for every shape

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Loss:
    """What a step is made of; `entropy` of each of `targets`, the mean `spelling` loss per character."""

    total: Tensor
    entropy: Tensor
    targets: Tensor
    spelling: Tensor


class Learner:
    """The networks that learn: the model, and a CTC head on its encoder that only training has.

    Args:
        config: sizes. special: ids by name. device: where all lives.
        hearing: all audio; texts: what its utterances say. rows_of: audio numbers to rows of `texts`.
    """

    def __init__(
        self,
        config: StepAudio2Config,
        special: SpecialIds,
        *,
        device: torch.device,
        hearing: Hearing,
        texts: Sequence[str],
        rows_of: Callable[[Ints], Ints],
    ) -> None:
        self.special, self.device, self.hearing, self.rows_of = special, device, hearing, rows_of
        self.model = StepAudio2(config, dropout=0.08, encoder_dropout=0.1).to(device)
        self.ctc = nn.Linear(config.audio.n_audio_state, len(ALPHABET) + 1).to(device)
        self.blank_out = 0.5  # probability of each span that SpecAugment blanks
        targets, counts = ctc_targets(texts, device)
        self.targets, self.counts = targets, counts.cpu().numpy()
        self._encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self.model.encoder
        self._think: Callable[[lm.CausalLM, Tensor, Tensor, Tensor], Tensor] = think
        self._entropy: Callable[[Tensor, Tensor, Tensor], Tensor] = entropy

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def compile(self) -> None:
        """Fuses the small operations; if the compiler fails, training goes on uncompiled."""
        began, plain = time.monotonic(), (self._encode, self._think, self._entropy)
        self._encode = torch.compile(self.model.encoder, dynamic=True)
        self._think = torch.compile(think, dynamic=True)
        self._entropy = torch.compile(entropy, dynamic=True)
        config = self.model.config
        self.model.train()
        try:
            for rows, steps in ((48, 96), (32, 160)):
                with self.autocast():
                    mel = torch.randn(rows, config.audio.n_mels, 4 * steps, device=self.device)
                    frames = torch.full((rows,), 4 * steps - 2, device=self.device)
                    heard, _ = self._encode(mel, frames)
                    embeds = torch.randn(
                        rows, steps, config.text.hidden_size, device=self.device, requires_grad=True
                    )
                    hidden = self._think(self.model.model, embeds, *self._rotary(embeds))
                    ids = torch.zeros(rows * steps // 2, dtype=torch.int64, device=self.device)
                    loss = self._entropy(hidden.flatten(0, 1)[: len(ids)], self.model.lm_head.weight, ids)
                (loss.mean() + heard.float().mean()).backward()
            for parameter in self.model.parameters():
                parameter.grad = None
            log(f"compiled in {time.monotonic() - began:.0f} s")
        except Exception as problem:  # whatever a compiler may raise: it costs speed only
            self._encode, self._think, self._entropy = plain
            log(f"not compiled: {str(problem)[:300]!r}")

    def put(self, values: Ints) -> Tensor:
        """On the device, without waiting for it."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    # ---- hearing

    def hear(self, numbers: Ints) -> tuple[Tensor, Ints]:
        """Encoder rows (N', T, D) of some audio of similar length and their counts (N,) <= N': see ROUND_ROWS."""
        spare = -len(numbers) % ROUND_ROWS
        filled = np.concatenate([numbers, np.repeat(numbers[:1], spare)])
        mel, frames = self.hearing.batch(filled)
        mel = F.pad(mel, (0, -mel.shape[2] % ROUND_FRAMES))
        if self.blank_out:
            mel = spec_augment(mel, self.blank_out)
        rows, _ = self._encode(mel, frames - 2)
        return rows, encoder_rows(self.hearing.frames[numbers])

    def spelling(self, heard: Tensor, counts: Ints, numbers: Ints) -> Tensor:
        """CTC loss per character, mean over the utterances, of encoder rows against what the utterances say."""
        at = self.rows_of(numbers)
        sizes = self.counts[at]
        targets = self.targets[self.put(at)][:, : max(1, int(sizes.max()))]
        scores = self.ctc(heard[: len(numbers)]).float().log_softmax(-1).transpose(0, 1)
        # The lengths stay on the CPU: ctc_loss would fetch them from the GPU.
        return F.ctc_loss(
            scores, targets, torch.from_numpy(counts), torch.from_numpy(sizes), zero_infinity=True
        )

    # ---- all together

    def loss(self, batch: Batch) -> Loss:
        """Of a batch: weighted cross-entropy, plus CTC of all that is heard."""
        model, numbers = self.model, batch.audio.numpy()
        ids = batch.ids.to(self.device, non_blocking=True).long()
        learned, weights = (t.to(self.device, non_blocking=True) for t in (batch.learned, batch.weights))
        spelling = torch.zeros((), device=self.device)
        with self.autocast():
            embeds = model.embed(self._slips(ids))
            groups = length_groups(self.hearing.frames[numbers])
            heard = [self.hear(numbers[group]) for group in groups]
            if heard:
                embeds = self._fill_in(embeds, heard, groups, batch)
            hidden = self._think(model.model, embeds, *self._rotary(embeds))
            targets = ids.flatten()[learned + 1]
            each = self._entropy(hidden.flatten(0, 1).index_select(0, learned), model.lm_head.weight, targets)
            # Last, because it makes the CPU wait: by now the GPU has plenty to do.
            for group, (rows, counts) in zip(groups, heard, strict=True):
                share = len(group) / len(numbers)
                spelling = spelling + share * self.spelling(rows, counts, numbers[group])
        total = (each * weights).sum() / weights.sum() + CTC_WEIGHT * spelling
        return Loss(total, each.detach(), targets, spelling.detach())

    def _slips(self, ids: Tensor) -> Tensor:
        """The ids as the model reads them: a few audio ids are wrong."""
        special = self.special
        spoken = (ids >= special.audio_0) & (ids < special.audio_pad)
        slips = spoken & (torch.rand(ids.shape, device=self.device) < RANDOM_AUDIO)
        return torch.where(slips, torch.randint_like(ids, special.audio_0, special.audio_pad), ids)

    def _fill_in(
        self, embeds: Tensor, heard: list[tuple[Tensor, Ints]], groups: list[Ints], batch: Batch
    ) -> Tensor:
        """(B, T, D) embeddings with the heard rows at the patches."""
        counts = adapter_rows(encoder_rows(self.hearing.frames[batch.audio.numpy()]))
        if int(counts.sum()) != len(batch.patches):
            raise ValueError(f"{len(batch.patches)} patches for {int(counts.sum())} rows of audio")
        starts = np.cumsum(counts) - counts
        places, parts = [], []
        for group, (rows, lengths) in zip(groups, heard, strict=True):
            full = torch.zeros(len(rows), dtype=torch.int64, device=self.device)  # counts are known already
            lifted, _ = self.model.adapter(rows, full)
            own = counts[group]
            assert np.array_equal(own, adapter_rows(lengths))
            pick = runs(np.arange(len(group)) * lifted.shape[1], own)
            parts.append(lifted.flatten(0, 1).index_select(0, self.put(pick)))
            places.append(batch.patches.numpy()[runs(starts[group], own)])
        values = torch.cat(parts).to(embeds.dtype)
        filled = embeds.flatten(0, 1).index_copy(0, self.put(np.concatenate(places)), values)
        return filled.view_as(embeds)

    def _rotary(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of all positions."""
        steps = embeds.shape[1]
        cos, sin = self.model.model.rotary(steps, embeds.device, embeds.dtype)
        return cos[:steps], sin[:steps]


def think(model: lm.CausalLM, embeds: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The language model without a past, (B, T, D) to (B, T, D), in a form that can be compiled whole."""
    x = embeds
    for layer in model.layers:
        x = layer(x, (cos, sin))
    out: Tensor = model.norm(x)
    return out


def entropy(hidden: Tensor, matrix: Tensor, targets: Tensor) -> Tensor:
    """(L, D) states against (L,) targets: (L,) float32 cross-entropy."""
    return F.cross_entropy(F.linear(hidden, matrix).float(), targets, reduction="none")


def length_groups(frames: Ints) -> list[Ints]:
    """Indices in order of length in up to LENGTH_GROUPS parts, so that little of a batch is padding."""
    if not len(frames):
        return []
    count = min(LENGTH_GROUPS, max(1, len(frames) // (2 * ROUND_ROWS)))
    return np.array_split(np.argsort(frames, kind="stable"), count)


def runs(starts: Ints, counts: Ints) -> Ints:
    """start, start + 1, ... of `count` numbers each, one run after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def encoder_rows(frames: Ints) -> Ints:
    """As mel.encoder_rows, of many."""
    return np.maximum(0, (frames - 1) // 2 // 2)


def adapter_rows(rows: Ints) -> Ints:
    """As mel.adapter_rows, of many."""
    return (rows - 1) // 2 + 1
