"""What the vocoder learns from: 24 kHz waves, their mel frames and their pitch, flat on the training device.

It knows the audio banks and nothing of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.pocket.features import Bank, log
from voiceagent.models.step_audio2.mel import mel_24k

HOP = 480
HOP_16K = 320
_WINDOW = 640  # 40 ms at 16 kHz
_SHORTEST, _LONGEST = 38, 272  # lags searched: 421 to 59 Hz
_ROUND = 8000


@dataclass(frozen=True, slots=True)
class Utterance:
    """One held-out recording of bank `tag`: wave (480 T,) at 24 kHz, mel (80, T), pitch (T,) Hz with 0 = no voice."""

    wave: Tensor
    mel: Tensor
    pitch: Tensor
    tag: str = ""


class Corpus:
    """The first `held` suitable utterances of every bank as `held`, all others end to end.

    Attributes: held; samples (480 N,) int16; mel (80, N) float32; pitch (N,) Hz; starts, frames (utterances,) int64.
    """

    def __init__(
        self,
        data: Path,
        banks: dict[str, int],
        *,
        device: torch.device,
        held: int,
        shortest: int,
        batch: int = 48,
        judged_only: Sequence[str] = (),
    ) -> None:
        """`banks`: how many utterances of each tag at most; `shortest`: frames an utterance must have.

        `judged_only`: tags of which nothing goes to training.
        """
        self.held: list[Utterance] = []
        waves, mels, pitches = [], [], []
        for tag, most in banks.items():
            bank = Bank(data, tag, device)
            chosen = np.random.default_rng(0).permutation(bank.n)[:most]
            first, rest = chosen[: held * 3], chosen[held * 3 :]
            quota = len(self.held) + held
            rest = rest[np.argsort(bank.lengths[rest], kind="stable")]
            for ids in [*np.split(first, len(first)), *np.array_split(rest, max(1, -(-len(rest) // batch)))]:
                for item in utterances(bank, ids):
                    if len(item.pitch) < shortest or not bool((item.pitch > 0).any()):
                        continue
                    if len(ids) == 1 and len(self.held) < quota:
                        self.held.append(replace(item, tag=tag))
                        continue
                    if tag in judged_only:
                        continue
                    waves.append((item.wave * 32767).clamp(-32767, 32767).to(torch.int16))
                    mels.append(item.mel)
                    pitches.append(item.pitch)
        assert waves, f"no utterance of {shortest} frames in {data}"
        self.frames = torch.tensor([len(pitch) for pitch in pitches], device=device)
        self.starts = self.frames.cumsum(0) - self.frames
        self.samples, self.mel, self.pitch = torch.cat(waves), torch.cat(mels, 1), torch.cat(pitches)
        voiced = self.pitch[self.pitch > 0]
        share = len(voiced) / len(self.pitch)
        middle = voiced[:: max(1, len(voiced) // 100_000)].quantile(
            torch.tensor([0.05, 0.5, 0.95], device=device)
        )
        log(
            f"{len(self.frames)} utterances, {len(self.pitch) / 180_000:.2f} h, {share:.0%} voiced, "
            f"pitch 5/50/95 %: {[round(hz) for hz in middle.tolist()]} Hz; {len(self.held)} held out"
        )

    def segments(self, rows: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random pieces: mel (B, 80, F), pitch (B, F), wave (B, 480 F) in [-1, 1]; longer utterances come oftener."""
        device = self.mel.device
        item = torch.multinomial(self.frames.float(), rows, replacement=True)
        room = self.frames[item] - frames + 1
        first = self.starts[item] + (torch.rand(rows, device=device) * room).long()
        at = first[:, None] + torch.arange(frames, device=device)
        samples = first[:, None] * HOP + torch.arange(frames * HOP, device=device)
        return self.mel[:, at].transpose(0, 1), self.pitch[at], self.samples[samples].float() / 32767


@torch.no_grad()
def utterances(bank: Bank, ids: np.ndarray) -> list[Utterance]:  # type: ignore[type-arg]
    """The items `ids` of a bank, cut to whole mel frames."""
    if not len(ids):
        return []
    width = -(-int(bank.lengths[ids].max()) // _ROUND) * _ROUND  # few widths, few FFT plans
    short, lengths = bank.batch(ids)
    short = F.pad(short, (0, width - short.shape[1]))
    wide = upsample(short)
    mel, pitch = mel_24k(wide), track_pitch(short)
    counts = (lengths // HOP_16K).tolist()
    return [Utterance(wide[i, : n * HOP], mel[i, :, :n], pitch[i, :n]) for i, n in enumerate(counts) if n > 0]


def upsample(wave: Tensor) -> Tensor:
    """(B, L) at 16 kHz to (B, 1.5 L) at 24 kHz by padding the spectrum with zeros; L a multiple of 8000."""
    size = wave.shape[1] + _ROUND  # the silence behind keeps the end from ringing into the beginning
    spectrum = torch.fft.rfft(wave, size)
    spectrum = F.pad(spectrum, (0, size * 3 // 4 + 1 - spectrum.shape[1]))
    return 1.5 * torch.fft.irfft(spectrum, size * 3 // 2)[:, : wave.shape[1] * 3 // 2]


def track_pitch(wave: Tensor) -> Tensor:
    """Fundamental frequency every 20 ms at the centres of the 24 kHz mel frames, 0 where there is no voice.

    The normalised cross-correlation of 40 ms with themselves up to 17 ms later: the shortest lag whose peak reaches
    88 % of the highest (a longer one would be an octave low), refined by a parabola, smoothed by a median of five.

    Args:
        wave: (B, L) at 16 kHz.

    Returns:
        (B, L // 320) Hz.
    """
    count = wave.shape[1] // HOP_16K
    reach = _WINDOW + _LONGEST
    before = reach // 2 - HOP_16K // 2  # centres the span that is compared on sample 320 t + 160
    frames = F.pad(wave, (before, reach)).unfold(1, reach, HOP_16K)[:, :count]
    frames = frames - frames.mean(-1, keepdim=True)
    size = 2048
    product = torch.fft.rfft(frames[..., :_WINDOW], size).conj() * torch.fft.rfft(frames, size)
    raw = torch.fft.irfft(product, size)[..., :_LONGEST]
    total = F.pad(frames.square().cumsum(-1), (1, 0))
    energy = total[..., _WINDOW : _WINDOW + _LONGEST] - total[..., :_LONGEST]
    score = raw / (energy[..., :1] * energy).clamp_min(1e-9).sqrt()
    score[..., :_SHORTEST] = 0.0
    best = score.amax(-1, keepdim=True)
    middle = score[..., 1:-1]
    peak = (middle >= score[..., :-2]) & (middle > score[..., 2:]) & (middle > 0.88 * best)
    lags = torch.arange(1, _LONGEST - 1, device=wave.device)
    lag = torch.where(peak, lags, _LONGEST).amin(-1, keepdim=True)
    found = lag < _LONGEST
    lag = lag.clamp_max(_LONGEST - 2)
    left, top, right = (score.gather(-1, lag + d) for d in (-1, 0, 1))
    bend = (left - 2 * top + right).clamp_max(-1e-6)
    hertz = 16_000 / (lag + (0.5 * (left - right) / bend).clamp(-0.5, 0.5))
    loud = energy[..., :1] / _WINDOW > 2e-5
    pitch = torch.where(found & (best > 0.55) & loud, hertz, 0.0)[..., 0]
    median = F.pad(pitch, (2, 2)).unfold(1, 5, 1).median(-1).values
    stray = (pitch > 0) & (median > 0) & ((pitch / median.clamp_min(1.0) - 1).abs() > 0.2)
    return torch.where(stray, median, pitch) * (median > 0)
