"""Trains the pocket vocoder, a narrow HiFT, on many voices: 80 mel bands and a pitch to 24 kHz samples.

    python3 scripts/pocket/train_hift.py --data DATA --out CK --seconds 560 [--init FOLDER]

More than half of what it hears are the two voices that ship. What it is given later is the flow's mel, which is
smoother than a recording's and errs: half of the pieces are therefore blurred and disturbed, while the samples to be
made stay those of the recording.

Learns from pieces of 0.64 s: first only spectra (multi-resolution) and the pitch of our own tracker, from 30 % of the
time on with critics too. Half of the pieces hear the tracked pitch, half the predicted one. The weights are plain while
they are trained; weight norm is applied when they are written, so that hift.pt has the published names. What is kept
is a running average of the weights.

Writes to CK: hift.pt (half precision), hift.yaml, hift_eval.json, hift_sample_*.wav (made) and hift_truth_*.wav.
"""

from __future__ import annotations

import argparse
import json
import time
import wave
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pocket.features import Budget, log, lr_at, use_fast_math
from scripts.pocket.hift_data import HOP, Corpus, Utterance
from scripts.pocket.hift_loss import Critics, critic_loss, maker_loss, spectral_loss
from voiceagent.models.step_audio2.hift import Hift, stored_weights
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.mel import mel_24k

SEGMENT = 32  # mel frames
CRITICS_FROM = 0.3
DEVICE_BANKS = {"agent": 9000, "agent_male": 5000, "voices": 11_000, "agent_es": 600, "voices_new": 36}
JUDGED_ONLY = ("voices_new",)


class Trainer:
    """Network, critics, their optimisers and the running average, saved and loaded as one."""

    def __init__(self, config: HiftConfig, device: torch.device, *, init: Path | None = None) -> None:
        """`init`: folder of a trained vocoder whose weights are the start; `config` is then its own."""
        if init:
            self.net = Hift.load(init).net.requires_grad_(True)
        else:
            self.net = HiftNet(config)
            _start_small(self.net)
        self.net.to(device)
        self.critics = Critics().to(device)
        fused = device.type == "cuda"
        self.maker = torch.optim.AdamW(self.net.parameters(), 6e-4, betas=(0.8, 0.99), fused=fused)
        self.judge = torch.optim.AdamW(self.critics.parameters(), 3e-4, betas=(0.8, 0.99), fused=fused)
        self.average = [p.detach().clone() for p in self.net.parameters()]
        self.step = 0

    def state(self) -> dict[str, object]:
        return {
            "net": self.net.state_dict(),
            "critics": self.critics.state_dict(),
            "maker": self.maker.state_dict(),
            "judge": self.judge.state_dict(),
            "average": self.average,
            "step": self.step,
        }

    def load(self, state: dict[str, object]) -> None:
        for name in ("net", "critics", "maker", "judge"):
            getattr(self, name).load_state_dict(state[name])
        with torch.no_grad():
            torch._foreach_copy_(self.average, state["average"])
        self.step = state["step"]  # type: ignore[assignment]

    def averaged(self) -> HiftNet:
        """A copy on the CPU with the averaged weights, as they will be stored."""
        net = HiftNet(self.net.config)
        with torch.no_grad():
            for target, value in zip(net.parameters(), self.average, strict=True):
                target.copy_(value.half())
        return net

    def train_on(self, mel: Tensor, pitch: Tensor, real: Tensor, fraction: float) -> dict[str, Tensor]:
        """One step; `fraction` of the run is over. Returns losses for the log."""
        rows, device = len(mel), mel.device
        mel = as_from_a_flow(mel)
        guess = self.net.f0_predictor(mel)
        pitch_loss = F.l1_loss(guess, pitch)
        ours = torch.rand(rows, 1, device=device) < (0.5 if fraction > 0.1 else 0.0)
        heard = torch.where(ours, guess.detach(), pitch)
        phase = torch.rand(rows, device=device, dtype=torch.float64)
        noise = torch.randn(rows, HOP * mel.shape[2], device=device)
        made = self.net.decode(mel, self.net.excite(heard, noise, phase=phase))
        losses = {"spectral": spectral_loss(made, real), "pitch": pitch_loss}
        loss = 15 * losses["spectral"] + 0.02 * pitch_loss
        if fraction > CRITICS_FROM:
            losses["critics"] = self._train_critics(real, made.detach())
            with self._half(device):
                judged = self.critics(torch.cat([real, made]))
            losses["maker"] = maker_loss(judged, rows)
            loss = loss + losses["maker"]
        self.maker.zero_grad(set_to_none=True)
        loss.backward()
        _tame(self.net)
        self.maker.step()
        self.step += 1
        with torch.no_grad():  # fast at first, then over about 1000 steps
            torch._foreach_lerp_(
                self.average, list(self.net.parameters()), max(0.001, 1 / (self.step / 4 + 1))
            )
        return losses

    def _train_critics(self, real: Tensor, made: Tensor) -> Tensor:
        self.critics.requires_grad_(True)
        with self._half(real.device):
            judged = self.critics(torch.cat([real, made]))
        loss = critic_loss(judged, len(real))
        self.judge.zero_grad(set_to_none=True)
        loss.backward()
        _tame(self.critics)
        self.judge.step()
        self.critics.requires_grad_(False)
        return loss

    @staticmethod
    def _half(device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def as_from_a_flow(mel: Tensor) -> Tensor:
    """Half of the rows of (B, 80, T): up to 0.7 of the way to their mean over 3 x 3, with slow and fast errors."""
    rows, device = len(mel), mel.device

    def share(most: float) -> Tensor:
        return most * torch.rand(rows, 1, 1, device=device)

    near = F.avg_pool2d(F.pad(mel[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)[:, 0]
    slow = F.interpolate(
        torch.randn(rows, 1, 10, max(2, mel.shape[2] // 4), device=device), mel.shape[1:], mode="bilinear"
    )
    wrong = torch.lerp(mel, near, share(0.7)) + share(0.25) * slow[:, 0] + share(0.1) * torch.randn_like(mel)
    return torch.where(torch.rand(rows, 1, 1, device=device) < 0.5, wrong, mel)


def _tame(module: nn.Module) -> None:
    """Clips the gradients to a norm of 20, and drops them all if one is not finite: a run is too dear to lose."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), 20.0)
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.masked_fill_(~norm.isfinite(), 0.0)


def _start_small(net: HiftNet) -> None:
    """HiFi-GAN's start: residual branches and upsampling near zero."""
    for part in (net.ups, net.resblocks, net.source_resblocks, net.conv_post):
        for module in part.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, 0.01)


def train(trainer: Trainer, corpus: Corpus, args: argparse.Namespace) -> None:
    """Runs until the budget is used up; saves the state every minute."""
    state_file = args.out / "hift_state.pt"
    spent = 0.0
    if args.resume and state_file.exists():
        saved = torch.load(state_file, map_location=args.device, weights_only=True)
        trainer.load(saved)
        spent = saved["elapsed"]
    rows, segment, most = (2, 16, trainer.step + 3) if args.dry else (args.batch, SEGMENT, None)
    budget = Budget(args.seconds, spent=spent)
    next_save, began = spent + 60.0, trainer.step
    while budget.fraction() < 1 and trainer.step != most:
        fraction = (
            (trainer.step % 3) / 3 if args.dry else budget.fraction()
        )  # a dry run meets the critics too
        peak = 6e-4 if fraction <= CRITICS_FROM else 4e-4
        for optimizer, rate in ((trainer.maker, peak), (trainer.judge, 3e-4)):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(fraction, rate, warm=0.01)
        losses = trainer.train_on(*corpus.segments(rows, segment), fraction)
        if trainer.step % 200 == 0 or trainer.step < began + 4:
            shown = " ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            log(f"step {trainer.step} {budget.elapsed():.0f} s {shown}")
        if budget.elapsed() > next_save:
            next_save = budget.elapsed() + 60.0
            save({**trainer.state(), "elapsed": budget.elapsed()}, state_file)
    save({**trainer.state(), "elapsed": budget.elapsed()}, state_file)
    log(f"trained {trainer.step} steps, {budget.elapsed():.0f} s")


def export(net: HiftNet, out: Path) -> int:
    """Writes hift.yaml and, last, hift.pt; returns the size of hift.pt."""
    fields = {name: getattr(net.config, name) for name in HiftConfig.__slots__}
    (out / "hift.yaml").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    weights = {name: value.half().contiguous() for name, value in stored_weights(net).items()}
    save(weights, out / "hift.pt")
    return (out / "hift.pt").stat().st_size


@torch.inference_mode()
def judge(hift: Hift, held: list[Utterance], out: Path) -> dict[str, object]:
    """Mel distance, pitch errors and what streaming changes, on the held-out utterances, by the shipped class."""
    distance, gross, missed, seams, seconds = [], [], [], [], 0.0
    for i, item in enumerate(held):
        mel, truth, pitch = item.mel.float().cpu(), item.wave.float().cpu(), item.pitch.cpu()
        began = time.perf_counter()
        made = hift.synthesize(mel)
        seconds += time.perf_counter() - began
        distance.append(F.l1_loss(mel_24k(made[None])[0], mel).item())
        guess = hift.net.f0_predictor(mel[None])[0]
        voiced, heard = pitch > 0, guess > 10
        wrong = ((guess / pitch.clamp_min(1) - 1).abs() > 0.1) & voiced & heard
        gross.append(wrong.sum().item() / max(1, (voiced & heard).sum().item()))
        missed.append((voiced != heard).float().mean().item())
        streamed = stream(hift, mel, [24, *[50] * 100])
        seams.append(((streamed - made).norm() / made.norm()).item())
        if i % max(1, len(held) // 2) == 0:
            write_wave(out / f"hift_sample_{item.tag}_{i}.wav", made)
            write_wave(out / f"hift_truth_{item.tag}_{i}.wav", truth)
    return {
        "mel_l1": round(float(np.mean(distance)), 4),
        "pitch_gross_error_percent": round(100 * float(np.mean(gross)), 2),
        "voicing_error_percent": round(100 * float(np.mean(missed)), 2),
        "streamed_against_whole": round(float(np.max(seams)), 5),
        "cpu_real_time_factor": round(seconds / sum(len(item.wave) / 24_000 for item in held), 3),
        "utterances": len(held),
    }


def stream(hift: Hift, mel: Tensor, chunks: list[int]) -> Tensor:
    """The mel (80, T) in chunks of these sizes."""
    state, parts, at = hift.open(), [], 0
    for count in chunks:
        part = mel[:, at : at + count]
        at += count
        samples, state = hift.step(part, state, last=at >= mel.shape[1])
        parts.append(samples)
        if at >= mel.shape[1]:
            break
    return torch.cat(parts)


def write_wave(path: Path, samples: Tensor) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes((samples.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().tobytes())


def save(values: object, path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(values, partial)
    partial.rename(path)


def main() -> None:
    """Runs the stage."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    use_fast_math(args.device)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    banks = {tag: min(most, 20) if args.dry else most for tag, most in DEVICE_BANKS.items()}
    corpus = Corpus(
        args.data,
        banks,
        device=args.device,
        held=1 if args.dry else 12,
        shortest=SEGMENT,
        judged_only=JUDGED_ONLY,
    )
    config = HiftConfig(32, 32) if args.dry else HiftConfig(args.base, 256)
    trainer = Trainer(config, args.device, init=args.init)
    log(f"{sum(p.numel() for p in trainer.net.parameters()) / 1e6:.2f} M parameters")
    train(trainer, corpus, args)
    size = export(trainer.averaged(), args.out)
    report: dict[str, object] = {}
    for tag in banks:
        own = [item for item in corpus.held if item.tag == tag]
        report[tag] = judge(Hift.load(args.out), own, args.out) if own else {}
    report |= {"steps": trainer.step, "bytes": size, "seconds": args.seconds}
    (args.out / "hift_eval.json").write_text(json.dumps(report, indent=1))
    log("done", report)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=560.0, help="training time; about 40 s come on top")
    parser.add_argument(
        "--init", type=Path, help="token2wav folder of a checkpoint whose vocoder is the start"
    )
    parser.add_argument("--batch", type=int, default=64, help="pieces of 0.64 s per step")
    parser.add_argument("--base", type=int, default=192, help="channels of the widest layer")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the state that an earlier run left")
    parser.add_argument("--dry", action="store_true", help="three small steps: proves that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
