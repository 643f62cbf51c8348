"""What the flow learns from: tokens, mels and speaker vectors of many voices, and windows of one speaker each.

It knows the audio banks, the speech tokenizer's files and the speaker encoder, and not the flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scripts.pocket.features import Bank, log, wait_for
from scripts.pocket.hift_data import upsample
from scripts.pocket.train_speaker import batched_fbank, load_speaker
from voiceagent.models.step_audio2.mel import mel_24k

VOICES = (("agent", 4.0), ("agent_male", 2.5), ("voices", 3.0), ("agent_es", 0.5))  # bank, share of the rows
STRANGERS = "voices_new"  # judged only
HELD_OUT = 24  # first items of a bank of one speaker: judged, not trained on
SPEAKER_SAMPLES = 2000  # utterances of a bank of one speaker whose vectors are drawn from


@dataclass(slots=True)
class Voice:
    """One bank's tokens and mels on the device.

    Attributes:
        tokens: (N,) int64, item after item; starts: (n + 1,) where each item begins.
        mel: (frames, 80) float16; frame_of: (2 N,) its row for every half token.
        speakers: (k, 192) unit vectors of single utterances; speaker_of: (k,) whose they are, 0.. in order.
        whose: (n,) the speaker of every item; the items of one stand together.
    """

    tokens: Tensor
    frame_of: Tensor
    starts: NDArray[np.int64]
    mel: Tensor
    speakers: Tensor
    speaker_of: NDArray[np.int64]
    whose: NDArray[np.int64]

    def item(self, i: int) -> tuple[Tensor, Tensor]:
        """(n,) tokens and (2 n, 80) float32 mel of an item."""
        a, b = int(self.starts[i]), int(self.starts[i + 1])
        return self.tokens[a:b], self.mel[self.frame_of[2 * a : 2 * b]].float()

    def speaker(self, i: int) -> Tensor:
        """(192,) the mean vector of the speaker of item `i`."""
        own = np.flatnonzero(self.speaker_of == self.whose[i])
        return self.speakers[torch.from_numpy(own).to(self.speakers.device)].mean(0)

    def held(self) -> NDArray[np.bool_]:
        """(n,) the items that are not trained on: the first HELD_OUT of one speaker, or the first two of each."""
        count = len(self.whose)
        first = np.maximum.accumulate(np.where(np.r_[True, np.diff(self.whose) != 0], np.arange(count), 0))
        most = min(HELD_OUT, count - 1) if len(set(self.whose.tolist())) == 1 else 2
        return np.arange(count) - first < most

    def shuffled(self, rng: np.random.Generator) -> Stream:
        """All tokens to train on, speaker after speaker, the items of each one after another in random order."""
        items = np.flatnonzero(~self.held())
        items = items[np.lexsort((rng.random(len(items)), self.whose[items]))]
        counts = np.diff(self.starts)[items]
        jumps = np.repeat(self.starts[items] - (np.cumsum(counts) - counts), counts)
        people, first = np.unique(self.whose[items], return_index=True)
        begins = (np.cumsum(counts) - counts)[first]
        ends = np.r_[begins[1:], int(counts.sum())]
        vectors = [np.flatnonzero(self.speaker_of == person) for person in people]
        device = self.tokens.device
        return Stream(
            torch.from_numpy(np.arange(int(counts.sum())) + jumps).to(device),
            torch.from_numpy(begins).to(device),
            torch.from_numpy(ends).to(device),
            torch.tensor([own[0] for own in vectors], device=device),
            torch.tensor([len(own) for own in vectors], device=device),
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """Positions of a bank's tokens in the order in which windows are cut from them.

    Attributes:
        at: (N,) positions; begins, ends: (speakers,) the part of `at` that is one speaker's.
        vector, vectors: (speakers,) the first of its speaker vectors, and how many there are.
    """

    at: Tensor
    begins: Tensor
    ends: Tensor
    vector: Tensor
    vectors: Tensor

    def windows(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """(rows, length) positions, each row of one speaker, and (rows,) a vector of that speaker."""
        sizes = (self.ends - self.begins).float()
        who = torch.multinomial(sizes, rows, replacement=True)
        room = (sizes[who] - length + 1).clamp_min(1)
        first = self.begins[who] + (torch.rand(rows, device=who.device) * room).long()
        span = self.ends[who] - self.begins[who]
        inside = first[:, None] - self.begins[who][:, None] + torch.arange(length, device=who.device)
        at = self.begins[who][:, None] + inside % span[:, None]  # one who says too little begins again
        chosen = self.vector[who] + (torch.rand(rows, device=who.device) * self.vectors[who]).long()
        return self.at[at], chosen


@dataclass(frozen=True, slots=True)
class Prompt:
    """A voice for `Flow`: tokens (T,), mel (2 T, 80), speaker (192,)."""

    tokens: Tensor
    mel: Tensor
    speaker: Tensor


def load_voice(data: Path, out: Path, tag: str, device: torch.device) -> Voice:
    """Mels first, then waits for the tokens and the speaker network."""
    bank = Bank(data, tag, device)
    mel, valid = mel_bank(bank)
    mel_starts = np.cumsum(np.r_[0, valid])[:-1]
    log(f"{tag}: {bank.n} utterances, {len(mel) / 50 / 3600:.1f} h of mel")
    saved = np.load(wait_for(out / f"{tag}_tokens.npz"))
    starts = saved["offsets"].astype(np.int64)
    counts = np.diff(starts)
    # A token is two frames; where the last token's second frame is missing, the last frame stands in.
    local = np.arange(2 * int(starts[-1])) - np.repeat(2 * starts[:-1], 2 * counts)
    last = np.repeat(np.asarray(valid) - 1, 2 * counts)
    frame_of = np.repeat(mel_starts, 2 * counts) + np.minimum(local, last)
    names = list(dict.fromkeys(bank.voices))
    whose = np.array([names.index(voice) for voice in bank.voices], np.int64)
    if (np.diff(whose) < 0).any():
        raise ValueError(f"the utterances of one speaker do not stand together in {tag}")
    few = (
        np.arange(bank.n)
        if len(names) > 1
        else np.unique(np.linspace(0, bank.n - 1, SPEAKER_SAMPLES).astype(int))
    )
    return Voice(
        torch.from_numpy(saved["tokens"].astype(np.int64)).to(device),
        torch.from_numpy(frame_of).to(device),
        starts,
        mel,
        speaker_vectors(bank, few, wait_for(out / "speaker.pt")).to(device),
        whose[few],
        whose,
    )


def mel_bank(bank: Bank) -> tuple[Tensor, NDArray[np.int64]]:
    """All mels of a bank, flat (frames, 80) float16 in item order, and the frames of every item."""
    valid = bank.lengths // 320
    starts = np.cumsum(np.r_[0, valid])
    flat = torch.empty(int(starts[-1]), 80, dtype=torch.float16, device=bank.device)
    order = np.argsort(bank.lengths, kind="stable")
    for part in np.array_split(order, max(1, bank.n // 192)):
        waves, _ = bank.batch(part)
        wide = -(-waves.shape[1] // 8000) * 8000  # few widths, few FFT plans
        mel = mel_24k(upsample(F.pad(waves, (0, wide - waves.shape[1])))).transpose(1, 2)
        count = torch.from_numpy(valid[part]).to(bank.device)[:, None]
        frame = torch.arange(mel.shape[1], device=bank.device)[None]
        inside = frame < count
        target = torch.from_numpy(starts[part]).to(bank.device)[:, None] + frame
        flat[target[inside]] = mel[inside].half()
    return flat, valid


@torch.no_grad()
def speaker_vectors(bank: Bank, items: NDArray[np.int64], network: Path) -> Tensor:
    """(items, 192) unit vectors of utterances, each of the whole of it."""
    encoder = load_speaker(network, bank.device)
    made = []
    for part in np.array_split(items, max(1, -(-len(items) // 64))):
        rows = batched_fbank(*bank.batch(part))
        width = max(map(len, rows))  # shorter ones begin again: their statistics stay
        again = [row[torch.arange(width, device=row.device) % len(row)] - row.mean(0) for row in rows]
        made.append(encoder(torch.stack(again)).float())
    return F.normalize(torch.cat(made), dim=1)


class Windows:
    """Draws training windows; every row lies within one voice."""

    def __init__(self, voices: Sequence[Voice], rng: np.random.Generator) -> None:
        self.voices = voices
        self.rng = rng
        self.reshuffle()

    def reshuffle(self) -> None:
        self.streams = [voice.shuffled(self.rng) for voice in self.voices]

    def draw(self, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (B, L), mel (B, 2 L, 80) float32, speakers (B, 192)."""
        shares = np.array([share for _, share in VOICES[: len(self.voices)]], float)
        counts = self.rng.multinomial(rows, shares / shares.sum())
        parts = []
        for voice, stream, count in zip(self.voices, self.streams, counts, strict=True):
            if not count:
                continue
            at, speaker = stream.windows(int(count), length)
            frames = voice.frame_of[torch.stack([2 * at, 2 * at + 1], dim=2).flatten(1)]
            parts.append((voice.tokens[at], voice.mel[frames].float(), voice.speakers[speaker]))
        tokens, mel, speakers = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(mel), torch.cat(speakers)
