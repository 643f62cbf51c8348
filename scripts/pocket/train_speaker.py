"""Trains the pocket speaker encoder, a small CAM++: Kaldi filter bank to a 192-value vector that tells voices apart.

    python3 scripts/pocket/train_speaker.py --data DATA --out CK --seconds 150

A frequency-wise convolutional front, densely connected TDNN layers whose outputs are masked by their context (utterance
mean plus the mean of about two seconds around), statistics pooling, one linear layer (CAM++, Wang et al. 2023, at small
size). It is trained to name the voice of two-second crops, with an additive angular margin: the many speakers of the
`voices` bank and both agents, plain and disturbed, and each played slower and faster, which makes another speaker.

Writes to CK: speaker.pt, campplus.onnx (input (1, T, 80) float32, minus its mean over time -> (1, 192)),
speaker_eval.json. `--seconds` is training time; features and export take about half a minute more.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.pocket.augment import Placement, augment
from scripts.pocket.features import Bank, Budget, log, lr_at, use_fast_math
from scripts.pocket.onnx_file import round_to_half, write_onnx
from voiceagent.models.step_audio2.mel import kaldi_fbank

BINS = 80
VECTOR = 192
HOP = 160
WINDOW = 400
CROP = 200
SPEEDS = (0.89, 1.12)


# -------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes: channels of the 2-D front, of the first TDNN and of each bottleneck; layers per dense block."""

    front: int = 16
    first: int = 128
    bottleneck: int = 96
    growth: int = 32
    layers: tuple[int, ...] = (4, 8, 6)
    dilations: tuple[int, ...] = (1, 2, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; halves the frequency axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride=(2, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class MaskedTdnn(nn.Module):
    """One dense layer: normalise, squeeze, convolve, and mask by context; its output joins its input."""

    def __init__(self, channels: int, shape: Shape, dilation: int) -> None:
        super().__init__()
        self.bn1, self.squeeze = (
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, shape.bottleneck, 1, bias=False),
        )
        self.bn2 = nn.BatchNorm1d(shape.bottleneck)
        self.local = nn.Conv1d(
            shape.bottleneck, shape.growth, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.context1 = nn.Conv1d(shape.bottleneck, shape.bottleneck // 2, 1)
        self.context2 = nn.Conv1d(shape.bottleneck // 2, shape.growth, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.squeeze(F.relu(self.bn1(x)))))
        around = F.avg_pool1d(y, 101, stride=1, padding=50, count_include_pad=False)
        context = y.mean(dim=2, keepdim=True) + around
        mask = torch.sigmoid(self.context2(F.relu(self.context1(context))))
        return torch.cat([x, self.local(y) * mask], dim=1)


class SpeakerEncoder(nn.Module):
    """Filter bank (B, T, 80), minus its mean over time, to (B, 192)."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.front = nn.Sequential(
            nn.Conv2d(1, shape.front, 3, padding=1, bias=False),
            nn.BatchNorm2d(shape.front),
            nn.ReLU(),
            Residual(shape.front),
            Residual(shape.front),
            Residual(shape.front),
        )
        self.tdnn = nn.Conv1d(shape.front * BINS // 8, shape.first, 5, stride=2, padding=2, bias=False)
        self.tdnn_bn = nn.BatchNorm1d(shape.first)
        layers: list[nn.Module] = []
        channels = shape.first
        for count, dilation in zip(shape.layers, shape.dilations, strict=True):
            for _ in range(count):
                layers.append(MaskedTdnn(channels, shape, dilation))
                channels += shape.growth
            layers += [nn.BatchNorm1d(channels), nn.ReLU(), nn.Conv1d(channels, channels // 2, 1, bias=False)]
            channels //= 2
        self.dense = nn.Sequential(*layers)
        self.out_bn = nn.BatchNorm1d(channels)
        self.vector = nn.Linear(2 * channels, VECTOR, bias=False)
        self.vector_bn = nn.BatchNorm1d(VECTOR, affine=False)

    def forward(self, fbank: Tensor) -> Tensor:
        x = self.front(fbank.transpose(1, 2)[:, None]).flatten(1, 2)
        x = F.relu(self.tdnn_bn(self.tdnn(x)))
        x = F.relu(self.out_bn(self.dense(x))).float()
        mean = x.mean(dim=2)
        deviation = ((x - mean[:, :, None]).square().mean(dim=2) + 1e-5).sqrt()
        return self.vector_bn(self.vector(torch.cat([mean, deviation], dim=1)))


class MarginHead(nn.Module):
    """Cosine classifier with an additive angular margin (ArcFace) at scale 30."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, VECTOR) * 0.05)

    def forward(self, vectors: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """(loss, cosines (B, classes))"""
        cosines = F.linear(F.normalize(vectors.float()), F.normalize(self.weight)).clamp(-0.9999, 0.9999)
        own = torch.cos(torch.acos(cosines.gather(1, labels[:, None])) + margin)
        return F.cross_entropy(30.0 * cosines.scatter(1, labels[:, None], own), labels), cosines


def load_speaker(path: Path, device: torch.device | str = "cpu") -> SpeakerEncoder:
    """The trained encoder, from CK/speaker.pt."""
    saved = torch.load(path, map_location=device, weights_only=True)
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["shape"].items()}
    model = SpeakerEncoder(Shape(**sizes)).to(device)
    model.load_state_dict(saved["model"])
    return model.eval()


# --------------------------------------------------------------------------------------------------------- features


def batched_fbank(waves: Tensor, lengths: Tensor) -> list[Tensor]:
    """Kaldi filter bank (T, 80) of each row of (B, L).

    All rows go through one transform, end to end: each starts on a multiple of the hop, so that its frames are the ones
    that it would have alone, and the frames that straddle two rows are dropped.
    """
    width = -(-waves.shape[1] // HOP) * HOP
    flat = F.pad(waves, (0, width - waves.shape[1])).flatten()
    frames = kaldi_fbank(F.pad(flat, (0, WINDOW)))
    per_row = width // HOP
    return [
        frames[row * per_row : row * per_row + 1 + (length - WINDOW) // HOP]
        for row, length in enumerate(lengths.tolist())
    ]


class VoiceBank:
    """Filter banks of many utterances, flat fp16 on the device, with their voices as strings."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.voices: list[str] = []
        self._parts: list[Tensor] = []
        self._counts: list[int] = []

    def add(
        self, bank: Bank, items: NDArray[np.int64], *, disturbed: bool, speed: float = 1.0, seed: int = 0
    ) -> None:
        """Appends the items that last 0.3 s or longer, with tone, room, noise and telephone when `disturbed`.

        Played at another `speed`, pitch and formants are another speaker's.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        items = items[bank.lengths[items] >= 4800 * speed + 1]
        items = items[np.argsort(bank.lengths[items], kind="stable")]
        suffix = "" if speed == 1.0 else f" x{speed}"
        for start in range(0, len(items), 128):
            part = items[start : start + 128]
            count = (bank.lengths[part] / speed).astype(np.int64)
            still = np.zeros(len(part), np.int64)
            waves, lengths = bank.placed(part, Placement(np.full(len(part), speed), still, count, count))
            if disturbed:
                waves = augment(waves, lengths, generator=generator)
            for rows in batched_fbank(waves, lengths):
                self._parts.append(rows.half())
                self._counts.append(len(rows))
            self.voices += [bank.voices[i] + suffix for i in part]

    def finish(self) -> None:
        self._flat = torch.cat(self._parts)
        self._parts = []
        counts = np.array(self._counts, np.int64)
        self._sizes = torch.from_numpy(counts).to(self.device)
        self._starts = torch.from_numpy(np.cumsum(counts) - counts).to(self.device)

    def crops(self, items: NDArray[np.int64], *, frames: int = CROP, random: bool = True) -> Tensor:
        """(B, frames, 80) minus its mean over time; a random place of each item, repeated when it is shorter."""
        index = torch.from_numpy(items).to(self.device)
        size = self._sizes[index]
        room = (size - frames).clamp_min(0)
        first = (torch.rand(len(items), device=self.device) * (room + 1)).long() if random else room // 2
        at = first[:, None] + torch.arange(frames, device=self.device)
        rows = self._flat[self._starts[index][:, None] + at % size[:, None]].float()
        return rows - rows.mean(dim=1, keepdim=True)


def load_voices(data: Path, device: torch.device, *, dry: bool) -> tuple[VoiceBank, VoiceBank]:
    """The training voices (each utterance plain and disturbed), and voices that training never hears."""
    rng = np.random.default_rng(0)
    known, new = VoiceBank(device), VoiceBank(device)
    for tag, most in (("voices", 60_000), ("agent", 3000), ("agent_male", 3000)):
        bank = Bank(data, tag, device)
        items = rng.permutation(bank.n)[: 60 if dry else most]
        known.add(bank, items, disturbed=False)
        for number, speed in enumerate((1.0, *SPEEDS)):
            if speed == 1.0 or tag == "voices":
                known.add(bank, items, disturbed=True, speed=speed, seed=number)
    known.finish()
    bank = Bank(data, "voices_new", device)
    new.add(bank, np.arange(bank.n), disturbed=False)
    new.finish()
    log(
        f"{len(known.voices)} utterances of {len(set(known.voices))} voices; {len(set(new.voices))} new voices"
    )
    return known, new


# --------------------------------------------------------------------------------------------------------- training


def train(
    model: SpeakerEncoder, bank: VoiceBank, labels: NDArray[np.int64], args: argparse.Namespace
) -> NDArray[np.int64]:
    """Trains on 97 % of the items; returns the others. A voice is drawn by the square root of its share."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    held, kept = np.split(order, [max(1, len(order) // 33)])
    head = MarginHead(int(labels.max()) + 1).to(args.device)
    weights = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 2e-3, weight_decay=0.05, fused=args.device.type == "cuda")
    state_file = args.out / "speaker_state.pt"
    spent, step = 0.0, 0
    if args.resume and state_file.exists():
        saved = torch.load(state_file, map_location=args.device, weights_only=True)
        model.load_state_dict(saved["model"])
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        spent, step = saved["elapsed"], saved["step"]
    sizes = np.bincount(labels[kept], minlength=int(labels.max()) + 1)
    chance = 1.0 / np.sqrt(sizes[labels[kept]])
    chance /= chance.sum()
    pool = rng.choice(kept, 300_000, p=chance)
    rows, most = (16, step + 4) if args.dry else (256, None)
    budget = Budget(args.seconds, spent=spent)
    next_save = spent + 30.0

    def save_state() -> None:
        state = {"model": model.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
        _save({**state, "elapsed": budget.elapsed(), "step": step}, state_file)

    model.train()
    while budget.fraction() < 1 and step != most:
        fraction = budget.fraction()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(fraction, 2e-3)
        items = rng.choice(pool, rows)
        target = torch.from_numpy(labels[items]).to(args.device)
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.device.type == "cuda"):
            vectors = model(bank.crops(items))
        loss, cosines = head(vectors, target, 0.2 * min(1.0, fraction / 0.5))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
        step += 1
        if step % 100 == 0 or step < 4:
            right = (cosines.argmax(1) == target).float().mean().item()
            log(f"step {step} {budget.elapsed():.0f} s loss {loss.item():.3f} right {right:.3f}")
        if budget.elapsed() > next_save:
            next_save = budget.elapsed() + 30.0
            save_state()
    save_state()
    log(f"trained {step} steps, {budget.elapsed():.0f} s")
    return held


def _save(values: dict[str, object], path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(values, partial)
    partial.rename(path)


# ----------------------------------------------------------------------------------------------------------- judging


@torch.no_grad()
def vectors_of(model: SpeakerEncoder, bank: VoiceBank, items: NDArray[np.int64]) -> Tensor:
    """(n, 192) of the middle three seconds of each item, on the CPU."""
    model.eval()
    parts = [
        model(bank.crops(items[k : k + 256], frames=300, random=False)) for k in range(0, len(items), 256)
    ]
    return torch.cat(parts).float().cpu()


def equal_error_rate(vectors: Tensor, voices: Sequence[str]) -> float:
    """Percent: the rate at which as many same-voice pairs are rejected as different-voice pairs accepted, by cosine."""
    unit = F.normalize(vectors)
    pairs = torch.triu_indices(len(unit), len(unit), offset=1)
    scores = (unit @ unit.T)[pairs[0], pairs[1]].numpy()
    names = np.array(voices)
    same = names[pairs[0].numpy()] == names[pairs[1].numpy()]
    if same.all() or not same.any():
        return float("nan")
    order = np.argsort(scores)
    rejected = np.cumsum(same[order]) / same.sum()
    accepted = 1 - np.cumsum(~same[order]) / (~same).sum()
    at = int(np.argmin(np.abs(rejected - accepted)))
    return float(50 * (rejected[at] + accepted[at]))


def nearest_right(vectors: Tensor, voices: Sequence[str]) -> float:
    """Percent of the utterances that are nearer to the mean of their own voice's others than to any other voice's."""
    unit, names = F.normalize(vectors), sorted(set(voices))
    own = torch.tensor([names.index(voice) for voice in voices])
    sums = torch.zeros(len(names), unit.shape[1]).index_add_(0, own, unit)
    scores = unit @ F.normalize(sums).T
    without = F.normalize(sums[own] - unit)
    scores[torch.arange(len(own)), own] = (unit * without).sum(1)
    return 100 * (scores.argmax(1) == own).float().mean().item()


def judge(
    model: SpeakerEncoder, known: VoiceBank, held: NDArray[np.int64], new: VoiceBank
) -> dict[str, object]:
    held = held[:1500]
    strangers = vectors_of(model, new, np.arange(len(new.voices)))
    result: dict[str, object] = {
        "eer_known_voices_percent": round(
            equal_error_rate(vectors_of(model, known, held), [known.voices[i] for i in held]), 2
        ),
        "eer_new_voices_percent": round(equal_error_rate(strangers, new.voices), 2),
        "new_voices_nearest_to_themselves_percent": round(nearest_right(strangers, new.voices), 1),
        "voices": len(set(known.voices)),
    }
    return result


def export(model: SpeakerEncoder, bank: VoiceBank, path: Path) -> dict[str, object]:
    """Writes the ONNX file and compares its vectors with the network's at several lengths."""
    import onnxruntime

    network = model.cpu().eval()
    size = write_onnx(
        network,
        path,
        example=(torch.randn(1, 177, BINS),),
        inputs=["input"],
        output="output",
        dynamic={"input": {1: "frames"}},
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    nearest = 1.0
    for frames in (4, 30, 100, 333, 1000, 3000):
        fbank = bank.crops(np.array([0]), frames=frames, random=False).cpu()
        theirs = torch.from_numpy(session.run(None, {"input": fbank.numpy()})[0])
        with torch.no_grad():
            ours = network(fbank)
        assert theirs.shape == ours.shape == (1, VECTOR)
        nearest = min(nearest, F.cosine_similarity(ours, theirs).item())
    assert nearest > 0.999, f"the ONNX file does not compute the network's vectors: cosine {nearest}"
    return {"bytes": size, "least_cosine": round(nearest, 6)}


def main() -> None:
    """Runs the stage."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    use_fast_math(args.device)
    torch.manual_seed(0)
    known, new = load_voices(args.data, args.device, dry=args.dry)
    names = [name for name, _ in Counter(known.voices).most_common()]
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[voice] for voice in known.voices], np.int64)
    model = SpeakerEncoder().to(args.device)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(names)} voices")
    held = train(model, known, labels, args)
    round_to_half(model)
    _save({"model": model.state_dict(), "shape": asdict(model.shape)}, args.out / "speaker.pt")
    report = judge(model, known, held, new)
    report["onnx"] = export(model, known, args.out / "campplus.onnx")
    (args.out / "speaker_eval.json").write_text(json.dumps(report, indent=1))
    log("done", report)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=150.0, help="training time")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the state that an earlier run left")
    parser.add_argument("--dry", action="store_true", help="four small steps: proves that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
