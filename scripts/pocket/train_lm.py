"""Trains the pocket encoder, adapter and language model: to hear, to answer by voice and text, and to call tools.

    python3 scripts/pocket/train_lm.py --data DATA --out CK --seconds 600 [--ctc-seconds 240] [--resume]

First the encoder alone learns to spell what it hears (a CTC head that only training has), until the speech tokenizer's
agent_tokens.npz exists or --ctc-seconds are over. Then all parts learn together, for --seconds in all: transcripts,
spoken dialogues, typed questions, written replies and sentences to be repeated. `--resume` goes on with the joint run.

Writes to CK: encoder_ctc.pt, lm.pt (model, ctc, optimizer, elapsed, step), lm_eval.json,
lm_misses.json (what went wrong).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pocket.features import (
    ALPHABET,
    Budget,
    FeatureBank,
    cer_wer,
    ctc_greedy,
    ctc_targets,
    length_buckets,
    log,
    lr_at,
    plain_text,
    spec_augment,
    use_fast_math,
    wait_for,
)
from scripts.pocket.lm_data import Batches, CachedTokenizer, Ears, Scribe, SpeechTokens, Teacher
from scripts.pocket.lm_eval import Exam, Hearing, embed_with_audio, examine, load_judge
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.model import StepAudio2

PEAK, ENCODER_PEAK, CTC_PEAK = 1.2e-3, 6e-4, 8e-4
CTC_WEIGHT = 0.4
RANDOM_AUDIO = 0.05  # of the audio ids that the model reads are replaced, so that a slip does not derail it
AGENT_HEARD = 20_000  # utterances of the agent that the encoder hears


def main() -> None:
    """Runs the stage."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are forked
    use_fast_math(args.device)
    torch.manual_seed(0)
    run = Run(args)
    state_file = args.out / "lm.pt"
    state: dict[str, Any] | None = None
    if args.resume and state_file.exists():
        state = torch.load(state_file, map_location=args.device, weights_only=True)
        run.model.load_state_dict(state["model"])
        run.ctc.load_state_dict(state["ctc"])
        log(f"resumed at step {state['step']}, {state['elapsed']:.0f} s")
    else:
        run.learn_to_hear()
    run.learn_all(state)
    if not run.stopped_early:
        run.report()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="joint training in all, earlier parts included"
    )
    parser.add_argument(
        "--ctc-seconds", type=float, default=420.0, help="longest time that the encoder learns alone"
    )
    parser.add_argument(
        "--stop-after", type=float, help="save and leave after so many seconds of this command"
    )
    parser.add_argument("--resume", action="store_true", help="go on from CK/lm.pt (or CK/encoder_ctc.pt)")
    parser.add_argument(
        "--assets", type=Path, default=Path("voiceagent/assets/pocket"), help="config and tokenizer"
    )
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=max(1, min(12, (os.cpu_count() or 2) - 2)))
    parser.add_argument(
        "--versions", type=int, default=4, help="augmented versions of every caller's utterance"
    )
    parser.add_argument("--tokens", type=int, default=40_000, help="padded tokens of a batch")
    parser.add_argument("--dry", action="store_true", help="a few small steps: proves that everything runs")
    args = parser.parse_args()
    args.began = time.monotonic()
    if args.dry:
        args.versions, args.tokens, args.workers, args.ctc_min = 1, 3000, 1, 3.0
        args.ctc_seconds = max(args.ctc_seconds, 30.0)
    return args


class Run:
    """Everything that one run holds: banks, networks, and where it writes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device, self.dry = args, args.device, args.dry
        self.stopped_early = False
        self.corpus: dict[str, Any] = json.loads(wait_for(args.data / "corpus.json").read_text())
        self.tokenizer = CachedTokenizer(args.assets)
        config = StepAudio2Config.from_folder(args.assets)
        if self.tokenizer.size > config.text.vocab_size:
            raise SystemExit(
                f"the tokenizer has {self.tokenizer.size} tokens, config.json {config.text.vocab_size}"
            )
        self.model = StepAudio2(config, dropout=0.05, encoder_dropout=0.1).to(self.device)
        initialise(self.model)
        self.ctc = nn.Linear(config.audio.n_audio_state, len(ALPHABET) + 1).to(self.device)
        for name, part in self.model.named_children():
            log(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
        seed = int(time.time()) if args.resume else 2  # a resumed run hears new versions
        common = {"device": self.device, "augmented": True, "seed": seed}
        self.caller = FeatureBank(args.data, "caller", variants=args.versions, **common)
        self.agent = FeatureBank(args.data, "agent", keep=0.4, limit=AGENT_HEARD, **common)
        self.tests = {
            tag: FeatureBank(args.data, tag, device=self.device)
            for tag in ("test_new", "test_seen")
            if (args.data / f"{tag}.json").exists()
        }
        self.hearing = Hearing([self.caller, self.agent])
        callers = texts_of(self.caller)[: self.caller.base_n]
        self.texts = callers + [plain_text(text) for text in self.agent.texts[: self.agent.base_n]]
        self.targets, self.target_counts = ctc_targets(self.texts, self.device)

    def utterances(self, numbers: np.ndarray) -> Tensor:
        """Row of `texts` and `targets` of each audio number."""
        callers = self.caller.n
        rows = np.where(
            numbers < callers, numbers % self.caller.base_n, numbers - callers + self.caller.base_n
        )
        return torch.from_numpy(rows).to(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def ctc_loss(self, rows: Tensor, lengths: Tensor, numbers: np.ndarray) -> Tensor:
        """Of encoder rows (N, T, D) against what the utterances say."""
        at = self.utterances(numbers)
        counts = self.target_counts.to(self.device)[at]
        targets = self.targets[at][:, : max(1, int(counts.max()))]
        scores = self.ctc(rows).float().log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(scores, targets, lengths, counts, zero_infinity=True)

    # ---- phase 1

    def learn_to_hear(self) -> None:
        """The encoder alone, until there are speech tokens to learn from."""
        saved, ready = self.args.out / "encoder_ctc.pt", self.args.out / "agent_tokens.npz"
        shortest = self.args.ctc_min
        if self.args.resume and saved.exists():
            shortest = 0.0
            state = torch.load(saved, map_location=self.device, weights_only=True)
            self.model.encoder.load_state_dict(state["encoder"])
            self.ctc.load_state_dict(state["ctc"])
        parameters = [*self.model.encoder.parameters(), *self.ctc.parameters()]
        optimizer = adamw([{"params": parameters}], self.device)
        rng, budget, step = np.random.default_rng(0), Budget(self.args.ctc_seconds), 0
        self.model.train()
        groups: list[np.ndarray] = []
        while budget.fraction() < 1 and not (ready.exists() and budget.elapsed() > shortest):
            if not groups:
                total = 4000 if self.dry else 256 * 300
                groups = length_buckets(self.caller.frames, max_total=total, max_batch=256, rng=rng)
            numbers = groups.pop()
            optimizer.param_groups[0]["lr"] = CTC_PEAK * min(1.0, (step + 1) / 800)
            mel, frames = self.caller.batch(numbers)
            with self.autocast():
                rows, lengths = self.model.encoder(spec_augment(mel, 0.5), frames - 2)
            loss = self.ctc_loss(rows, lengths, numbers)
            descend(loss, optimizer, parameters)
            step += 1
            if step % 200 == 0 or step < 3:
                log(f"hear {step} {budget.elapsed():.0f} s ctc {loss.item():.3f}")
            if step % 1500 == 0:
                self.spelling()
            if self.dry and step >= 4:
                break
        self.spelling()
        state = {"encoder": self.model.encoder.state_dict(), "ctc": self.ctc.state_dict(), "step": step}
        save(state, saved)

    @torch.inference_mode()
    def spelling(self, limit: int = 600) -> None:
        """Logs the error rates of the CTC head on the test banks."""
        self.model.eval()
        for tag, bank in self.tests.items():
            spoken = [i for i in range(bank.n) if bank.kinds[i] == "speech"][: 10 if self.dry else limit]
            heard: list[str] = []
            for start in range(0, len(spoken), 100):
                mel, frames = bank.batch(spoken[start : start + 100])
                rows, lengths = self.model.encoder(mel, frames - 2)
                heard += ctc_greedy(self.ctc(rows), lengths)
            cer, wer = cer_wer([bank.texts[i] for i in spoken], heard)
            log(f"hear {tag}: CER {cer:.1f} WER {wer:.1f}")
        self.model.train()

    # ---- phase 2

    def learn_all(self, state: dict[str, Any] | None) -> None:
        """Encoder, adapter and language model together."""
        args, model = self.args, self.model
        tokens_file = wait_for(args.out / "agent_tokens.npz")
        agent_texts = [item["text"] for item in json.loads((args.data / "agent.json").read_text())["items"]]
        self.speech = SpeechTokens(agent_texts, tokens_file)
        ears = Ears(self.hearing.frames, self.caller.base_n, args.versions, self.agent.base_n, self.texts)
        teacher = Teacher(self.corpus, Scribe(self.tokenizer, self.speech, ears))
        self.exams = {tag: self.exam(bank) for tag, bank in self.tests.items()}
        hearing = [*model.encoder.parameters(), *self.ctc.parameters()]
        thinking = [*model.adapter.parameters(), *model.model.parameters(), *model.lm_head.parameters()]
        optimizer = adamw([{"params": hearing}, {"params": thinking}], self.device)
        step, spent = 0, 0.0
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            step, spent = state["step"], state["elapsed"]
        dataset = Batches(teacher, tokens=args.tokens, pool=30 if self.dry else 2500, seed=step + 1)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=args.workers, prefetch_factor=6, pin_memory=self.device.type == "cuda"
        )  # fmt: skip
        batches = iter(loader)
        first = next(batches)  # the workers' first pools are drawn before the clock runs
        budget = Budget(args.seconds, spent=spent)
        next_save, next_eval, waited, first_step = spent + 60, spent + 150, 0.0, step
        model.train()
        while budget.fraction() < 1 and not (self.dry and step >= first_step + 5):
            for group, peak in zip(optimizer.param_groups, (ENCODER_PEAK, PEAK), strict=True):
                group["lr"] = lr_at(budget.fraction(), peak)
            before = time.monotonic()
            batch = first if step == first_step else next(batches)
            waited += time.monotonic() - before
            loss, note = self.loss(batch, step, detailed=step % 100 == 0 or step < first_step + 3)
            descend(loss, optimizer, [*hearing, *thinking])
            step += 1
            if note:
                log(
                    f"joint {step} {budget.elapsed():.0f} s, waited {waited:.1f} s, loss {loss.item():.3f}, {note}"
                )
            if budget.elapsed() > next_eval and budget.fraction() < 0.9:
                next_eval = budget.elapsed() + 150
                self.glance()
            leave = args.stop_after is not None and time.monotonic() - args.began > args.stop_after
            if budget.elapsed() > next_save or leave:
                next_save = budget.elapsed() + 60
                self.keep(optimizer, budget.elapsed(), step)
            if leave:
                self.stopped_early = True
                log("stopped early: go on with --resume")
                return
        self.keep(optimizer, budget.elapsed(), step)
        log(f"trained {step} steps, {budget.elapsed():.0f} s")

    def loss(self, batch: tuple[Tensor, Tensor, Tensor], step: int, *, detailed: bool) -> tuple[Tensor, str]:
        """Weighted cross-entropy (plus CTC every second step) of one batch, and a line about its parts."""
        special, model = self.tokenizer.ids, self.model
        numbers = batch[2].numpy()
        ids = batch[0].to(self.device, non_blocking=True).long()
        weights = batch[1].to(self.device, non_blocking=True).float()
        spelling = torch.zeros((), device=self.device)
        with self.autocast():
            rows = counts = None
            if len(numbers):
                mel, frames = self.hearing.batch(numbers)
                heard, lengths = model.encoder(spec_augment(mel, 0.5), frames - 2)
                rows, counts = model.adapter(heard, lengths)
                if step % 2 == 0:
                    spelling = self.ctc_loss(heard, lengths, numbers)
                if detailed:
                    assert int((ids == special.audio_patch).sum()) == int(counts.clamp_min(0).sum())
            is_audio = (ids >= special.audio_0) & (ids < special.audio_pad)
            slips = is_audio & (torch.rand(ids.shape, device=self.device) < RANDOM_AUDIO)
            read = torch.where(slips, torch.randint_like(ids, special.audio_0, special.audio_pad), ids)
            hidden = model.model(embed_with_audio(model, read, rows, counts, patch=special.audio_patch))
            learned = weights[:, 1:] > 0
            targets, weight = ids[:, 1:][learned], weights[:, 1:][learned]
            logits = model.lm_head(hidden[:, :-1][learned])
        entropy = F.cross_entropy(logits.float(), targets, reduction="none")
        loss = (entropy * weight).sum() / weight.sum() + CTC_WEIGHT * spelling
        if not detailed:
            return loss, ""
        sound, words = targets >= special.audio_0, targets < special.audio_start
        parts = {"audio": entropy[sound], "text": entropy[words]}
        shown = ", ".join(f"{name} {part.mean().item():.4f}" for name, part in parts.items() if len(part))
        return (
            loss,
            f"{shown}, ctc {spelling.item():.3f}, batch {tuple(ids.shape)} with {len(numbers)} audios",
        )

    def exam(self, bank: FeatureBank) -> Exam:
        ears = Ears(bank.frames, bank.base_n, 1, 0, texts_of(bank))
        return Exam(self.corpus, Scribe(self.tokenizer, self.speech, ears), bank)

    def glance(self) -> None:
        """A quick look at how far it is."""
        exams = dict(list(self.exams.items())[:1])
        figures, _ = examine(self.model, exams, dialogues=3 if self.dry else 60, transcripts=60)
        for tag, found in figures.items():
            log(f"so far {tag}:", json.dumps({k: v for k, v in found.items() if not isinstance(v, dict)}))

    def keep(self, optimizer: torch.optim.Optimizer, elapsed: float, step: int) -> None:
        state = {
            "model": self.model.state_dict(),
            "ctc": self.ctc.state_dict(),
            "optimizer": optimizer.state_dict(),
            "elapsed": elapsed,
            "step": step,
        }
        save(state, self.args.out / "lm.pt")

    def report(self) -> None:
        """The final figures."""
        judge = load_judge(self.args.out / "speech_tokenizer.pt", self.device)
        many = 3 if self.dry else 10_000
        figures, misses = examine(
            self.model, self.exams, dialogues=many, transcripts=min(many, 600), judge=judge
        )
        (self.args.out / "lm_eval.json").write_text(json.dumps(figures, indent=1))
        (self.args.out / "lm_misses.json").write_text(json.dumps(misses, indent=1, ensure_ascii=False))
        for tag, found in figures.items():
            log(f"{tag}:", json.dumps(found))
            for miss in misses[tag][:12]:
                log("   ", json.dumps(miss, ensure_ascii=False))
        log("done")


def texts_of(bank: FeatureBank) -> list[str]:
    """What each utterance of a bank says; nothing for noise, silence, babble and foreign speech."""
    return [text if kind == "speech" else "" for text, kind in zip(bank.texts, bank.kinds, strict=True)]


def initialise(model: StepAudio2) -> None:
    """Small normal weights for the language model, residual outputs smaller; sinusoids for the encoder's positions."""
    depth = len(model.model.layers)
    for name, parameter in [*model.model.named_parameters(), *model.lm_head.named_parameters()]:
        if parameter.dim() == 2:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=0.02 / ((2 * depth) ** 0.5 if residual else 1.0))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    table = model.encoder.positional_embedding.weight
    count, width = table.shape
    rates = torch.exp(-np.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(count)[:, None] * rates
    with torch.no_grad():
        table.copy_(0.5 * torch.cat([angles.sin(), angles.cos()], 1))


def adamw(groups: list[dict[str, Any]], device: torch.device) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, PEAK, betas=(0.9, 0.98), weight_decay=0.02, fused=device.type == "cuda")


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """One step with the gradient's norm clipped to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def save(state: dict[str, Any], path: Path) -> None:
    """Written under another name first, so that a reader or a crash never meets half a file."""
    partial = path.with_name(path.name + ".part")
    torch.save(state, partial)
    partial.replace(path)


if __name__ == "__main__":
    main()
