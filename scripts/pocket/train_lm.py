"""Trains the pocket encoder, adapter and language model: to hear, to answer by voice and text, and to call tools.

    python3 scripts/pocket/train_lm.py --data DATA --out CK --seconds 780 [--init voiceagent/assets/pocket] [--resume]

First the encoder alone learns to spell what it hears (a CTC head that only training has), for --hear-seconds or until
it makes few errors. Then all parts learn together, for --seconds: transcripts, spoken dialogues, typed questions,
written replies and sentences to be repeated. `--init` begins with the weights of a packaged checkpoint, or of a .pt
file of an earlier run; `--resume` goes on with a joint run that was broken off. All visible GPUs learn together.

Needs CK/agent_tokens.npz, of train_speech_tokenizer.py or tokenise.py. Writes to CK: encoder_ctc.pt, lm.pt (model, ctc,
optimizer, elapsed, step), lm_eval.json, lm_misses.json (what went wrong).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from scripts.pocket.features import (
    Budget,
    FeatureBank,
    cer_wer,
    ctc_greedy,
    length_buckets,
    log,
    lr_at,
    plain_text,
    use_fast_math,
    wait_for,
)
from scripts.pocket.lm_batches import Batches
from scripts.pocket.lm_data import Teacher
from scripts.pocket.lm_eval import Exam, Hearing, examine, load_judge
from scripts.pocket.lm_scribe import CachedTokenizer, Ears, Scribe, SpeechTokens
from scripts.pocket.lm_step import Ints, Learner, Loss
from scripts.pocket.ranks import Descent, Ranks, adamw, run, trainable
from scripts.pocket.warm_start import first_weights
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.model import StepAudio2

PEAK, ENCODER_PEAK, HEAR_PEAK = 1.2e-3, 8e-4, 1e-3
BLANK_OUT = 0.5  # SpecAugment, from the time that the encoder understands something
UNDERSTANDS = 1.2  # nats per character
AGENT_BANKS = ("agent", "agent_es")  # the second is there if the agent speaks Spanish
CLOCK_STEPS = 10  # how often the ranks look at the clock
DRY: dict[str, Any] = {
    "versions": 1, "tokens": 3000, "hear_frames": 4000, "hear_steps": 4, "steps": 5, "pool": 30, "questions": 3,
    "glance_seconds": 1.0, "workers": 1,
}  # fmt: skip


def main() -> None:
    """Runs the stage."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are forked
    run(stage, args, device=args.device, count=args.gpus)


def stage(ranks: Ranks, args: argparse.Namespace) -> None:
    """One rank's part of the stage."""
    use_fast_math(ranks.device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every shape, and our shapes never end
    torch.manual_seed(0)  # always the same, so that the CTC head of --init begins near where it was left
    training = Training(args, ranks)
    state: dict[str, Any] | None = None
    saved, ear = args.out / "lm.pt", args.out / "encoder_ctc.pt"
    if args.resume and saved.exists():
        state = torch.load(saved, map_location=ranks.device, weights_only=True)
        training.model.load_state_dict(state["model"])
        training.learner.ctc.load_state_dict(state["ctc"])
        training.say(f"resumed at step {state['step']}, {state['elapsed']:.0f} s")
    elif args.resume and ear.exists():
        heard = torch.load(ear, map_location=ranks.device, weights_only=True)
        training.model.encoder.load_state_dict(heard["encoder"])
        training.learner.ctc.load_state_dict(heard["ctc"])
    else:
        training.begin()
        training.learn_to_hear()
    if training.learn_all(state) and ranks.first:
        training.report()
    ranks.meet()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; --dry only changes values that have options of their own."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    option("--out", type=Path, required=True, help="folder for the results")
    option("--seconds", type=float, default=780.0, help="joint training in all, earlier parts included")
    option("--hear-seconds", type=float, default=300.0, help="longest time that the encoder learns alone")
    option("--hear-cer", type=float, default=5.0, help="percent of wrong characters that end it earlier")
    option("--hear-steps", type=int, default=10**9, help="most steps that the encoder learns alone")
    option("--hear-frames", type=int, default=256 * 300, help="padded frames of a batch of the encoder alone")
    option("--steps", type=int, default=10**9, help="most steps of joint training in this command")
    option("--tokens", type=int, default=40_000, help="padded tokens of a GPU's batch")
    option("--pool", type=int, default=2500, help="samples from which a worker makes batches")
    option("--init", type=Path, help="checkpoint folder or .pt file of weights to begin with")
    option("--resume", action="store_true", help="go on from CK/lm.pt (or CK/encoder_ctc.pt)")
    option(
        "--stop-after", type=float, default=1e9, help="save and leave after so many seconds of this command"
    )
    option("--assets", type=Path, default=Path("voiceagent/assets/pocket"), help="config and tokenizer")
    option(
        "--device", type=torch.device, default=torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    option("--gpus", type=int, help="processes that learn together; default: as many as there are GPUs")
    option("--workers", type=int, help="processes that write batches, for each GPU")
    option(
        "--versions", type=int, default=4, help="augmented versions of every caller's utterance, on each GPU"
    )
    option("--compile", action=argparse.BooleanOptionalAction, help="fuse operations; default: on a GPU")
    option("--glance-seconds", type=float, default=150.0, help="time between two looks at the figures")
    option("--save-seconds", type=float, default=100.0, help="time between two saves")
    option("--questions", type=int, default=300, help="test dialogues of the final figures")
    option("--dry", action="store_true", help="a few small steps: proves that everything runs")
    args = parser.parse_args(argv)
    args.began = time.time()
    if args.dry:
        vars(args).update(DRY)
    if args.gpus is None:
        args.gpus = max(1, torch.cuda.device_count()) if args.device.type == "cuda" else 1
    if args.workers is None:
        args.workers = max(1, min(14, cores // args.gpus - 2))
    if args.compile is None:
        args.compile = args.device.type == "cuda"
    return args


class Training:
    """Everything that one rank holds: banks, networks, and where it writes."""

    def __init__(self, args: argparse.Namespace, ranks: Ranks) -> None:
        self.args, self.ranks, self.device = args, ranks, ranks.device
        self.corpus: dict[str, Any] = json.loads(wait_for(args.data / "corpus.json").read_text())
        self.tokenizer = CachedTokenizer(args.assets)
        config = StepAudio2Config.from_folder(args.assets)
        if self.tokenizer.size > config.text.vocab_size:
            raise SystemExit(
                f"the tokenizer has {self.tokenizer.size} tokens, config.json {config.text.vocab_size}"
            )
        seed = (int(args.began) if args.resume else 2) + 1000 * ranks.rank  # every rank hears other versions
        common = {"device": self.device, "augmented": True, "seed": seed}
        self.caller = FeatureBank(args.data, "caller", variants=args.versions, **common)
        self.agent = FeatureBank(args.data, "agent", keep=0.4, limit=20_000, **common)
        self.tests = {
            tag: FeatureBank(args.data, tag, device=self.device)
            for tag in ("test_seen", "test_new")
            if ranks.first and (args.data / f"{tag}.json").exists()
        }
        callers = texts_of(self.caller)[: self.caller.base_n]
        self.texts = callers + [plain_text(text) for text in self.agent.texts[: self.agent.base_n]]
        self.learner = Learner(
            config,
            self.tokenizer.ids,
            device=self.device,
            hearing=Hearing([self.caller, self.agent]),
            texts=self.texts,
            rows_of=self.rows_of,
        )
        self.model = self.learner.model
        for name, part in self.model.named_children():
            self.say(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
        self.say(f"{ranks.count} GPUs, {args.workers} workers each")
        if args.compile:
            self.learner.compile()

    def say(self, *parts: object) -> None:
        """Logs once, not once a rank."""
        if self.ranks.first:
            log(*parts)

    def rows_of(self, numbers: Ints) -> Ints:
        """Row of `texts` of each audio number."""
        callers = self.caller.n
        return np.where(
            numbers < callers, numbers % self.caller.base_n, numbers - callers + self.caller.base_n
        )

    def begin(self) -> None:
        """The first weights: of --init, or random; the same on all ranks."""
        initialise(self.model)
        if self.args.init is not None:
            rows = self.model.config.text.vocab_size
            self.model.load_state_dict(first_weights(self.args.init, self.args.assets, rows=rows))
            self.say(f"begins with the weights of {self.args.init}")
        self.ranks.equalise(trainable(self.model, self.learner.ctc))

    # ---- phase 1

    def learn_to_hear(self) -> None:
        """The encoder alone. Where it has learned before, its new CTC head learns a little first."""
        args, learner, ranks = self.args, self.learner, self.ranks
        warm, first_seconds = args.init is not None, 0.0
        groups = [{"params": trainable(self.model.encoder)}, {"params": trainable(learner.ctc)}]
        descent = Descent(adamw(groups, fused=self.device.type == "cuda"), ranks)
        rng, budget, step = np.random.default_rng(ranks.rank), Budget(args.hear_seconds), 0
        learner.blank_out = BLANK_OUT if warm else 0.0
        buckets: list[Ints] = []
        errors, next_look = 100.0, 40.0
        torch.manual_seed(1 + ranks.rank)
        self.model.train()
        while step < args.hear_steps:
            if step % CLOCK_STEPS == 0:
                seconds, errors = ranks.agree(budget.elapsed(), errors)
                if self.heard_enough(seconds, errors):
                    break
                if seconds > next_look:
                    next_look = seconds + 40.0
                    errors = self.spelling() if ranks.first else errors
            if not buckets:
                buckets = length_buckets(
                    self.caller.frames, max_total=args.hear_frames, max_batch=256, rng=rng
                )
            numbers = buckets.pop()
            rates = (min(1.0, max(0.0, step - 150) / 400), 1.0) if warm else (min(1.0, step / 800),) * 2
            for group, rate in zip(descent.optimizer.param_groups, rates, strict=True):
                group["lr"] = HEAR_PEAK * rate
            with learner.autocast():
                heard, counts = learner.hear(numbers)
                loss = learner.spelling(heard, counts, numbers)
            descent.step(loss)
            step += 1
            if step % 100 == 0 or step < 3:
                value = loss.item()
                if value < UNDERSTANDS:
                    learner.blank_out = BLANK_OUT
                first_seconds = first_seconds or budget.elapsed()
                pace = (step - 1) / max(1e-3, budget.elapsed() - first_seconds)
                self.say(f"hear {step} {budget.elapsed():.0f} s ctc {value:.3f}, {pace:.1f} steps/s")
        descent.release()
        learner.blank_out = BLANK_OUT
        args.seconds += ranks.agree(max(0.0, args.hear_seconds - budget.elapsed()))[0]  # what is left over
        if ranks.first:
            self.spelling()
            state = {"encoder": self.model.encoder.state_dict(), "ctc": learner.ctc.state_dict()}
            save(state, args.out / "encoder_ctc.pt")

    def heard_enough(self, seconds: float, errors: float) -> bool:
        """Whether the time is over or the errors are few, and there is something to go on with."""
        over = seconds >= self.args.hear_seconds or errors <= self.args.hear_cer
        ready = bool(self.ranks.agree(float((self.args.out / "agent_tokens.npz").exists()))[0])
        return over and (ready or seconds >= 2 * self.args.hear_seconds)

    @torch.inference_mode()
    def spelling(self, limit: int = 600) -> float:
        """Logs the error rates of the CTC head on the test banks; the characters' of the first, in percent."""
        self.model.eval()
        rates = []
        for tag, bank in self.tests.items():
            spoken = [i for i in range(bank.n) if bank.kinds[i] == "speech"][: self.args.questions * 10]
            spoken = spoken[:: max(1, len(spoken) // limit)]
            heard: list[str] = []
            for start in range(0, len(spoken), 100):
                mel, frames = bank.batch(spoken[start : start + 100])
                mel = F.pad(mel, (0, -mel.shape[2] % 32))
                rows, lengths = self.model.encoder(mel, frames - 2)
                heard += ctc_greedy(self.learner.ctc(rows), lengths)
            cer, wer = cer_wer([bank.texts[i] for i in spoken], heard)
            self.say(f"hear {tag}: CER {cer:.1f} WER {wer:.1f}")
            rates.append(cer)
        self.model.train()
        return rates[0] if rates else 100.0

    # ---- phase 2

    def learn_all(self, state: dict[str, Any] | None) -> bool:
        """Encoder, adapter and language model together; whether it came to the end."""
        args, model, ranks = self.args, self.model, self.ranks
        teacher = self.teacher()
        parts = [
            trainable(model.encoder, self.learner.ctc),
            trainable(model.adapter, model.model, model.lm_head),
        ]
        optimizer = adamw([{"params": part} for part in parts], fused=self.device.type == "cuda")
        step, spent = 0, 0.0
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            step, spent = state["step"], state["elapsed"]
        descent, progress = Descent(optimizer, ranks), torch.zeros(1).share_memory_()
        seed = 1 + step + 100_000 * ranks.rank
        dataset = Batches(
            teacher.draw, patch=self.tokenizer.ids.audio_patch,
            tokens=args.tokens, pool=args.pool, seed=seed, progress=progress,
        )  # fmt: skip
        pinned = self.device.type == "cuda"
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=args.workers, prefetch_factor=4, pin_memory=pinned,
            multiprocessing_context="fork",  # the corpus is in memory once, whatever this process was started by
        )  # fmt: skip
        gc.freeze()  # and stays so
        batches = iter(loader)
        batch = next(batches)  # the workers' first pools are drawn before the clock runs
        ranks.meet()
        torch.manual_seed(seed)
        budget, first, waited = Budget(args.seconds, spent=spent), step, 0.0
        next_save, next_glance = spent + args.save_seconds, spent + args.glance_seconds
        model.train()
        while step < first + args.steps:
            if (step - first) % CLOCK_STEPS == 0:
                seconds, age = ranks.agree(budget.elapsed(), time.time() - args.began)
                progress.fill_(seconds / args.seconds)
                for group, peak in zip(optimizer.param_groups, (ENCODER_PEAK, PEAK), strict=True):
                    group["lr"] = lr_at(seconds / args.seconds, peak)
                if seconds >= args.seconds or age > args.stop_after:
                    break
                if seconds > next_glance and seconds < 0.9 * args.seconds:
                    next_glance = seconds + args.glance_seconds
                    self.glance()
                if seconds > next_save:
                    next_save = seconds + args.save_seconds
                    self.keep(optimizer, seconds, step)
            loss = self.learner.loss(batch)
            descent.step(loss.total)
            step += 1
            if step % 100 == 0 or step < first + 3:
                pace = (step - first) / (budget.elapsed() - spent)
                self.say(
                    f"joint {step} {budget.elapsed():.0f} s, {pace:.1f} steps/s, waited {waited:.1f} s, "
                    f"{self.told(loss)}, batch {tuple(batch.ids.shape)} with {len(batch.audio)} audios"
                )
            before = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - before
        self.keep(optimizer, budget.elapsed(), step)
        self.say(f"trained {step} steps, {budget.elapsed():.0f} s")
        return budget.fraction() >= 1 or step >= first + args.steps

    def teacher(self) -> Teacher:
        """Draws this rank's samples; on the first rank the exams are set too."""
        speech = self.speech()
        frames, caller = self.learner.hearing.frames, self.caller
        ears = Ears(frames, caller.base_n, self.args.versions, self.agent.base_n, self.texts)
        self.exams = {}
        for tag, bank in self.tests.items():
            heard = Ears(bank.frames, bank.base_n, 1, 0, texts_of(bank))
            self.exams[tag] = Exam(self.corpus, Scribe(self.tokenizer, speech, heard), bank)
        teacher = Teacher(self.corpus, Scribe(self.tokenizer, speech, ears))
        shares = zip(teacher.lessons, teacher.shares, strict=True)
        self.say("lessons:", ", ".join(f"{name} {first:g}-{last:g}" for name, (first, last) in shares))
        return teacher

    def speech(self) -> SpeechTokens:
        """What the agent says in every language, once the speech tokenizer has made its codes."""
        speech = SpeechTokens()
        for tag in AGENT_BANKS:
            index = self.args.data / f"{tag}.json"
            if tag == "agent" or index.exists():
                items = json.loads(index.read_text())["items"]
                said = [(item.get("language", "en"), item["text"]) for item in items]
                speech.add(said, wait_for(self.args.out / f"{tag}_tokens.npz"))
        return speech

    def told(self, loss: Loss) -> str:
        """The parts of a loss in words."""
        sound = loss.targets >= self.tokenizer.ids.audio_0
        words = loss.targets < self.tokenizer.ids.audio_start
        parts = {"audio": loss.entropy[sound], "text": loss.entropy[words], "ctc": loss.spelling[None]}
        shown = [f"{name} {part.mean().item():.4f}" for name, part in parts.items() if len(part)]
        return f"loss {loss.total.item():.3f}, " + ", ".join(shown)

    def glance(self) -> None:
        """A quick look at how far it is."""
        if self.ranks.first:
            figures, _ = examine(
                self.model, self.exams, dialogues=min(60, self.args.questions), transcripts=60
            )
            for tag, found in figures.items():
                short = {name: value for name, value in found.items() if not isinstance(value, dict)}
                log(f"so far {tag}:", json.dumps(short))

    def keep(self, optimizer: torch.optim.Optimizer, elapsed: float, step: int) -> None:
        """Saves the state of the joint run."""
        if self.ranks.first:
            state = {"model": self.model.state_dict(), "ctc": self.learner.ctc.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "elapsed": elapsed, "step": step}
            save(state, self.args.out / "lm.pt")

    def report(self) -> None:
        """The final figures."""
        judge = load_judge(self.args.out / "speech_tokenizer.pt", self.device)
        many = self.args.questions
        figures, misses = examine(
            self.model, self.exams, dialogues=many, transcripts=min(many, 150), judge=judge
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


def save(state: dict[str, Any], path: Path) -> None:
    """Written under another name first, so that a reader or a crash never meets half a file."""
    partial = path.with_name(path.name + ".part")
    torch.save(state, partial)
    partial.replace(path)


if __name__ == "__main__":
    main()
