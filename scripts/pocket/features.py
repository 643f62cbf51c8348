"""Audio banks on the training device: loading, precomputed log-mel features, batching, the run's clock, error rates.

It knows the files that gen_data.py writes and nothing of any network; what disturbs the voices is in augment.py.
Everything runs on the device a bucket of similar lengths at a time and once, before training: a transform per training
step would cost far more than the step.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from scripts.pocket.augment import Dice, Placement, augment, placement, voiced_mel, wander, warp_mel
from voiceagent.models.step_audio2.mel import log_mel

RATE = 16_000
HOP = 160
MELS = 128
ALPHABET = " 'abcdefghijklmnopqrstuvwxyzñ"
"""Characters of the CTC heads; class 0 is the blank, class i the character i - 1. Spanish accents are left out."""

_OTHER = re.compile(r"[^a-záéíóúüñ' ]+")
_FOLDED = str.maketrans("áéíóúü", "aeiouu")
_CLASSES = bytes.maketrans(ALPHABET.encode("latin-1"), bytes(range(1, len(ALPHABET) + 1)))
_ROUND = 8000  # widths are multiples of half a second, so that few FFT plans exist
_BATCH_SAMPLES = 12_000_000
_BATCH_ROWS = 256


# ---------------------------------------------------------------------------------------------------------- banks


class Bank:
    """The utterances of one tag, int16 on the device.

    Attributes: n; texts, voices, kinds, languages (lists of n strings); gentle, cut (n,) bool numpy, see gen_data.py;
    lengths (n,) int64 numpy, samples at 16 kHz.
    """

    def __init__(self, data: Path, tag: str, device: torch.device | str) -> None:
        meta = json.loads(wait_for(Path(data) / f"{tag}.json").read_text())
        items: list[dict[str, Any]] = meta["items"]
        self.n = len(items)
        self.texts = [item["text"] for item in items]
        self.voices = [item["voice"] for item in items]
        self.kinds = [item.get("kind", "speech") for item in items]
        self.languages = [item.get("language", "en") for item in items]
        self.gentle = np.array([bool(item.get("gentle")) for item in items], bool)
        self.cut = np.array([bool(item.get("cut")) for item in items], bool)
        self.lengths = np.asarray(meta["length"], np.int64)
        self.device = torch.device(device)
        shards = [
            np.load(wait_for(Path(data) / f"{tag}_{k}.npy"), mmap_mode="r") for k in range(meta["shards"])
        ]
        base = np.cumsum([0] + [len(shard) for shard in shards])
        self.samples = torch.empty(int(base[-1]), dtype=torch.int16, device=self.device)
        for start, shard in zip(base, shards, strict=False):
            self.samples[start : start + len(shard)] = torch.from_numpy(np.array(shard)).to(self.device)
        self.starts = base[np.asarray(meta["shard"], np.int64)] + np.asarray(meta["offset"], np.int64)

    def batch(self, ids: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(B, L) float32 in [-1, 1] with zeros after each row's end, and (B,) int64 lengths."""
        index = np.asarray(ids, np.int64)
        zero = np.zeros(len(index), np.int64)
        return self.placed(
            index, Placement(np.ones(len(index)), zero, self.lengths[index], self.lengths[index])
        )

    def placed(self, ids: NDArray[np.int64], place: Placement, *, width: int = 0) -> tuple[Tensor, Tensor]:
        """As `batch`, each row resampled (pitch and tempo together) and set into silence as `place` says."""

        def put(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)[:, None]

        width = width or int(place.total.max())
        where = torch.arange(width, device=self.device)[None] - put(place.lead)
        inside = (where >= 0) & (where < put(place.speech))
        ahead = where + wander(where, place) if len(place.depth) else where
        source = (ahead * put(place.speed.astype(np.float32))).clamp_min(0.0)  # float32: exact below 2^24
        left = source.long()
        fraction = source - left
        last = put(self.lengths[ids] - 1)
        start = put(self.starts[ids])
        a = self.samples[start + torch.minimum(left, last)].float()
        b = self.samples[start + torch.minimum(left + 1, last)].float()
        waves = torch.lerp(a, b, fraction) * inside / 32768.0
        return waves, torch.from_numpy(place.total).to(self.device)


# --------------------------------------------------------------------------------------------------- augmentation


def spec_augment(mel: Tensor, probability: float = 0.7) -> Tensor:
    """Blanks two bands of up to 16 bins and two spans of up to 16 frames of (B, M, T), each with `probability`."""
    for axis in (1, 2, 1, 2):
        size, rows = mel.shape[axis], len(mel)
        first = torch.randint(0, size, (rows, 1), device=mel.device)
        count = torch.randint(0, 16, (rows, 1), device=mel.device)
        count = count * (torch.rand(rows, 1, device=mel.device) < probability)
        at = torch.arange(size, device=mel.device)
        blank = (at >= first) & (at < first + count)
        mel = mel.masked_fill(blank.unsqueeze(2 if axis == 1 else 1), 0.0)
    return mel


# ------------------------------------------------------------------------------------------------------- features


class FeatureBank:
    """Log-mel features of `variants` versions of every utterance, flat fp16 on the device.

    Item `v * base_n + i` is version v of utterance i.
    Attributes: n, base_n; frames (n,) int64 numpy; texts, voices, kinds, languages of all n items.
    """

    def __init__(
        self,
        data: Path,
        tag: str,
        *,
        device: torch.device | str,
        variants: int = 1,
        augmented: bool = False,
        pad: int = 479,
        clean: bool = False,
        keep: float = 0.1,
        seed: int = 0,
        limit: int | None = None,
        sample: int | None = None,
    ) -> None:
        """`clean` also keeps the features without channel and noise; `keep`: share left clean.

        `limit`: only so many first items; `sample`: only so many, drawn from all.
        """
        began = time.monotonic()
        bank = Bank(data, tag, device)
        self.device = bank.device
        chosen = np.arange(bank.n)[:limit]
        if sample is not None and sample < len(chosen):
            chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:sample])
        self.base_n = len(chosen)
        self.n = self.base_n * variants
        self.texts, self.voices, self.kinds, self.languages = (
            [values[i] for i in chosen] * variants
            for values in (bank.texts, bank.voices, bank.kinds, bank.languages)
        )
        rng = np.random.default_rng(seed)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        lengths, gentle, cut = bank.lengths[chosen], bank.gentle[chosen], bank.cut[chosen]
        places = [
            placement(lengths, rng, augmented=augmented, gentle=gentle, cut=cut) for _ in range(variants)
        ]
        self.frames = np.concatenate([(place.total + pad) // HOP for place in places])
        total = int(self.frames.sum())
        self._flat = torch.empty(total, MELS, dtype=torch.float16, device=self.device)
        self._clean = torch.empty_like(self._flat) if clean else None
        starts = np.zeros(self.n, np.int64)
        at = 0
        with torch.no_grad():
            for version, place in enumerate(places):
                for ids in _even(place.total):
                    items = version * self.base_n + ids
                    counts = self.frames[items]
                    starts[items] = at + np.cumsum(counts) - counts
                    noisy, plain = self._compute(
                        bank, chosen[ids], place.take(ids), pad, augmented=augmented, keep=keep
                    )
                    stop = at + int(counts.sum())
                    self._flat[at:stop] = noisy
                    if self._clean is not None:
                        self._clean[at:stop] = plain
                    at = stop
        self._starts = torch.from_numpy(starts).to(self.device)
        self._counts = torch.from_numpy(self.frames).to(self.device)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        log(
            f"features {tag} x{variants}: {self.n} items, {total / 360_000:.1f} h, {time.monotonic() - began:.1f} s"
        )

    def _compute(
        self, bank: Bank, ids: NDArray[np.int64], place: Placement, pad: int, *, augmented: bool, keep: float
    ) -> tuple[Tensor, Tensor]:
        """(sum of frames, 128) fp16 as heard, and the same clean."""
        width = -(-int(place.total.max()) // _ROUND) * _ROUND
        waves, lengths = bank.placed(ids, place, width=width)
        if not augmented:
            plain = self._mel(waves, lengths, pad)
            return plain, plain
        dice = Dice(len(waves), self.device, self._generator)
        gentle = torch.from_numpy(bank.gentle[ids]).to(self.device)
        factor = torch.where(dice.chance(0.6), dice.uniform(0.8, 1.25), 1.0)[:, 0]
        factor = torch.where(gentle, dice.uniform(0.98, 1.02)[:, 0], factor)
        depth = torch.where(dice.chance(0.4), dice.uniform(0.25, 1.2), 1.0)[:, 0]
        depth = torch.where(gentle, 1.0, depth)
        heard = augment(waves, lengths, generator=self._generator, gentle=gentle)
        heard = torch.where(dice.chance(keep), waves, heard)
        noisy = self._mel(heard, lengths, pad, factor, depth)
        return noisy, noisy if self._clean is None else self._mel(waves, lengths, pad, factor)

    def _mel(
        self,
        waves: Tensor,
        lengths: Tensor,
        pad: int,
        factor: Tensor | None = None,
        depth: Tensor | None = None,
    ) -> Tensor:
        # One silent row as long as the batch is wide keeps the number of frames, and so of FFT plans, small.
        waves = F.pad(waves, (0, 0, 0, 1))
        lengths = torch.cat([lengths, lengths.new_tensor([waves.shape[1]])])
        mel, frames = log_mel(waves, lengths, pad=pad)
        mel, frames = mel[:-1], frames[:-1]
        if factor is not None:
            mel = warp_mel(mel, factor)
        if depth is not None:
            mel = voiced_mel(mel, depth)
        inside = torch.arange(mel.shape[2], device=mel.device) < frames[:, None]
        return mel.transpose(1, 2)[inside].half()

    def batch(self, ids: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, ...]:
        """mel (B, 128, T) float32, zero beyond frames (B,) int64; with `clean`, the clean mel as a third."""
        index = np.asarray(ids, np.int64)
        width = int(self.frames[index].max())
        on_device = torch.from_numpy(index).to(self.device, non_blocking=True)
        frames = self._counts[on_device]
        at = torch.arange(width, device=self.device)
        inside = at < frames[:, None]
        rows = (self._starts[on_device][:, None] + at).clamp_max(len(self._flat) - 1)
        mel = (self._flat[rows].float() * inside[..., None]).transpose(1, 2).contiguous()
        if self._clean is None:
            return mel, frames
        return mel, frames, (self._clean[rows].float() * inside[..., None]).transpose(1, 2).contiguous()


def _even(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Indices in order of length, at most 256 rows and 12 million samples at a time."""
    order = np.argsort(lengths, kind="stable")
    at = 0
    while at < len(order):
        widest = int(lengths[order[min(at + _BATCH_ROWS, len(order)) - 1]])
        rows = max(1, min(_BATCH_ROWS, _BATCH_SAMPLES // max(widest, 1)))
        yield order[at : at + rows]
        at += rows


def length_buckets(
    lengths: NDArray[np.int64], *, max_total: int, max_batch: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """All indices once, grouped by similar length: rows x longest <= max_total; groups in random order."""
    order = np.argsort(lengths * rng.uniform(1.0, 1.08, len(lengths)), kind="stable")
    groups, start = [], 0
    while start < len(order):
        stop, longest = start, 0
        while stop < len(order) and stop - start < max_batch:
            longest = max(longest, int(lengths[order[stop]]))
            if stop > start and (stop - start + 1) * longest > max_total:
                break
            stop += 1
        groups.append(order[start:stop])
        start = stop
    rng.shuffle(groups)  # type: ignore[arg-type]
    return groups


# ------------------------------------------------------------------------------------------------ the training run


class Budget:
    """Wall-clock budget of a run, `spent` seconds of which an earlier part of it has used."""

    def __init__(self, seconds: float, *, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._began = time.monotonic() - spent

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def fraction(self) -> float:
        """0 at the start, 1 and more when the budget is used up."""
        return self.elapsed() / max(self.seconds, 1e-9)


def lr_at(fraction: float, peak: float, *, warm: float = 0.03, floor: float = 0.02) -> float:
    """Linear warm-up over the first `warm` of the run, then a cosine down to `floor` x peak."""
    if fraction < warm:
        return peak * fraction / warm
    rest = min(1.0, (fraction - warm) / (1 - warm))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest)))


def log(*parts: object) -> None:
    """One flushed line with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}]", *parts, flush=True)


def wait_for(path: Path, *, seconds: float = 1800.0) -> Path:
    """The path once it exists: another stage may still be writing it (to a temporary name, then renamed)."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise FileNotFoundError(f"{path} did not appear within {seconds:.0f} s")
        time.sleep(1.0)
    return path


def use_fast_math(device: torch.device | str) -> None:
    """TF32 matrix products and convolutions on CUDA."""
    if torch.device(device).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


# ---------------------------------------------------------------------------------------------- CTC and error rates


def plain_text(text: str) -> str:
    """Lower case, only letters, apostrophes and single blanks: what error rates compare."""
    return " ".join(_OTHER.sub(" ", text.lower()).split())


def ctc_text(text: str) -> str:
    """What the CTC heads spell: `plain_text` without accents, which are not heard; ñ is."""
    return plain_text(text).translate(_FOLDED)


def ctc_targets(texts: Sequence[str], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """(B, S) int64 classes padded with 0, and (B,) int64 counts."""
    rows = [np.frombuffer(ctc_text(text).encode("latin-1").translate(_CLASSES), np.uint8) for text in texts]
    counts = np.array([len(row) for row in rows])
    out = np.zeros((len(rows), max(1, counts.max(initial=0))), np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out).to(device), torch.from_numpy(counts).to(device)


def ctc_greedy(scores: Tensor, lengths: Tensor) -> list[str]:
    """Best path of (B, T, classes) scores: repeats merged, blanks dropped."""
    best = scores.argmax(-1).cpu().numpy()
    out = []
    for row, length in zip(best, lengths.tolist(), strict=True):
        path = row[:length]
        kept = path[np.r_[True, path[1:] != path[:-1]]] if length else path
        out.append("".join(ALPHABET[c - 1] for c in kept if c > 0))
    return out


def cer_wer(refs: Sequence[str], hyps: Sequence[str]) -> tuple[float, float]:
    """Character and word error rate in percent over all pairs, on `plain_text`."""
    edits = [0, 0]
    totals = [0, 0]
    for ref, hyp in zip(refs, hyps, strict=True):
        a, b = plain_text(ref), plain_text(hyp)
        for k, (x, y) in enumerate(((list(a), list(b)), (a.split(), b.split()))):
            edits[k] += edit_distance(x, y)
            totals[k] += len(x)
    return 100 * edits[0] / max(1, totals[0]), 100 * edits[1] / max(1, totals[1])


def edit_distance(a: Sequence[object], b: Sequence[object]) -> int:
    """Insertions, deletions and substitutions that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
