"""Trains the pocket speech tokenizer: 16 kHz log-mel to 25 discrete ids a second.

    python3 scripts/pocket/train_speech_tokenizer.py --data DATA --out CK --seconds 300 [--init FILE.onnx]

It learns from callers of every kind (English, Spanish, whispers, backgrounds, disturbed), the agent's two voices, its
Spanish and the many voices of the flow. With --init its encoder starts as that of an earlier speech tokenizer (the file
that ships): the codes then mean nearly what they meant, so that a language model and a flow may start warm too.

Two heads exist in training only: one reads characters out of the ids (CTC), so that they carry the words; one paints
the clean, mean-subtracted log-mel from the ids and the utterance's mean and deviation, so that they carry the
acoustics, but neither the speaker's average spectrum nor the channel.

Writes to CK: speech_tokenizer.pt (with the heads), {tag}_tokens.npz of SPOKEN and of `voices_new` (every item's ids:
`tokens` int16 flat, `offsets` int64 n + 1), speech_tokenizer.onnx, speech_tokenizer_eval.json. `--seconds` is training
time: features (about a minute) and what follows training (about half a minute) come on top.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.pocket.features import (
    MELS,
    Budget,
    FeatureBank,
    cer_wer,
    ctc_targets,
    ctc_text,
    length_buckets,
    log,
    lr_at,
    plain_text,
    spec_augment,
    use_fast_math,
)
from scripts.pocket.onnx_file import round_to_half, write_onnx
from scripts.pocket.speech_tokenizer_model import (
    CODES,
    Exported,
    SpeechTokenizer,
    encoder_from_onnx,
    inside_mask,
    quantise,
)

CALLERS, VERSIONS = 70_000, 3  # utterances of the caller bank, drawn; disturbed versions of each
SPOKEN = ("agent", "agent_es", "agent_male", "voices")  # banks that the flow learns from, plain; all get ids
# (behind the callers' bank the first two are numbers 1 and 2 in `Mix`)
STRANGERS = "voices_new"  # gets ids, but nothing is learned from it

# --------------------------------------------------------------------------------------------------------- training


class Mix:
    """Several feature banks as one; item numbers run through the banks in order."""

    def __init__(self, banks: Sequence[FeatureBank]) -> None:
        self.banks = banks
        self.starts = np.cumsum([0] + [bank.n for bank in banks])
        self.frames = np.concatenate([bank.frames for bank in banks])
        self.texts = [text for bank in banks for text in bank.texts]
        self.kinds = [kind for bank in banks for kind in bank.kinds]

    def batch(self, items: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """mel (B, 128, T), frames (B,), clean mel (B, 128, T), texts; T is a multiple of 32."""
        width = -(-int(self.frames[items].max()) // 32) * 32
        heard, frames, clean, texts = [], [], [], []
        for k, bank in enumerate(self.banks):
            own = items[(items >= self.starts[k]) & (items < self.starts[k + 1])]
            if not len(own):
                continue
            made = bank.batch(own - self.starts[k])
            room = width - made[0].shape[2]
            heard.append(F.pad(made[0], (0, room)))
            clean.append(F.pad(made[-1], (0, room)) if len(made) == 3 else heard[-1])
            frames.append(made[1])
            texts += [self.texts[i] for i in own]
        return torch.cat(heard), torch.cat(frames), torch.cat(clean), texts


def losses(
    model: SpeechTokenizer, batch: tuple[Tensor, Tensor, Tensor, list[str]], raw: float
) -> tuple[Tensor, Tensor]:
    """CTC per character, and mean L1 of the painted log-mel."""
    mel, frames, clean, texts = batch
    inside = inside_mask(frames, mel.shape[2])[:, None]
    count = frames[:, None].clamp_min(1)
    mean = clean.sum(2) / count
    centred = (clean - mean[..., None]) * inside
    voice = torch.cat([mean, (centred.square().sum(2) / count).sqrt()], dim=1)
    targets, sizes = ctc_targets(texts, mel.device)
    with torch.autocast(mel.device.type, torch.bfloat16, enabled=mel.device.type == "cuda"):
        values, lengths = model.encoder(spec_augment(mel, 0.4), frames)
        codes = quantise(values, raw=raw)
        scores = model.read(codes, lengths)
        painted = model.paint(codes, lengths, voice)
    ctc = F.ctc_loss(scores.transpose(0, 1), targets, lengths, sizes, zero_infinity=True)
    wide = painted[..., : mel.shape[2]]
    paint = ((wide - centred).abs() * inside).sum() / (inside.sum() * MELS)
    return ctc, paint


def trainable_items(mix: Mix, *, twice: Sequence[int]) -> NDArray[np.int64]:
    """Every utterance with words; those of the banks `twice` two times: the language model learns their ids."""
    spoken = np.array(
        [i for i, text in enumerate(mix.texts) if mix.kinds[i] in ("speech", "") and plain_text(text)],
        np.int64,
    )
    again = np.isin(np.searchsorted(mix.starts, spoken, side="right") - 1, twice)
    return np.concatenate([spoken, spoken[again]])


def weights_of(model: SpeechTokenizer) -> list[dict[str, object]]:
    """Parameter groups: the encoder, and the heads that only training has."""
    encoder = list(model.encoder.parameters())
    known = {id(p) for p in encoder}
    return [{"params": encoder}, {"params": [p for p in model.parameters() if id(p) not in known]}]


def encoder_share(fraction: float, *, warm: bool) -> float:
    """Its share of the learning rate: a warm encoder waits until its new heads can read, and moves slower than they."""
    return 0.4 * min(1.0, max(0.0, fraction - 0.05) / 0.05) if warm else 1.0


def train(model: SpeechTokenizer, mix: Mix, test: FeatureBank | None, args: argparse.Namespace) -> None:
    """AdamW, cosine over the wall-clock budget; in the first quarter of a cold start some rows pass unquantised."""
    state_file = args.out / "speech_tokenizer_state.pt"
    optimizer = torch.optim.AdamW(
        weights_of(model),
        1e-3,
        betas=(0.9, 0.98),
        weight_decay=0.02,
        fused=args.device.type == "cuda",
    )
    spent, step = 0.0, 0
    if args.resume and state_file.exists():
        saved = torch.load(state_file, map_location=args.device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        spent, step = saved["elapsed"], saved["step"]
        log(f"resumed at step {step}, {spent:.0f} s")
    rng = np.random.default_rng(step)
    items = trainable_items(mix, twice=[1, 2])
    warm = args.init is not None
    rough = 0.0 if warm else 0.8  # share of rows that may begin unquantised
    budget = Budget(args.seconds, spent=spent)
    next_save, next_eval, last_step = spent + 60.0, 0.25, step + 4 if args.dry else None

    def save_state() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        _save({**state, "elapsed": budget.elapsed(), "step": step}, state_file)

    model.train()
    for batch_items in _forever(items, mix, args, rng):
        fraction = budget.fraction()
        if fraction >= 1 or step == last_step:
            break
        for group, share in zip(
            optimizer.param_groups, (encoder_share(fraction, warm=warm), 1.0), strict=True
        ):
            group["lr"] = lr_at(fraction, 1.2e-3) * share
        ctc, paint = losses(model, mix.batch(batch_items), max(0.0, 1 - fraction / 0.25) * rough)
        optimizer.zero_grad(set_to_none=True)
        (ctc + 2.0 * paint).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0 or step < 4:
            log(f"step {step} {budget.elapsed():.0f} s ctc {ctc.item():.3f} paint {paint.item():.4f}")
        if budget.elapsed() > next_save:
            next_save = budget.elapsed() + 60.0
            save_state()
        if test is not None and fraction > next_eval:
            next_eval += 0.25
            log("so far, test:", evaluate(model, test, limit=200)[0])
            model.train()
    save_state()
    log(f"trained {step} steps, {budget.elapsed():.0f} s")


def _forever(
    items: NDArray[np.int64], mix: Mix, args: argparse.Namespace, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    limit = 2_000 if args.dry else 384 * 320
    while True:
        for group in length_buckets(mix.frames[items], max_total=limit, max_batch=384, rng=rng):
            yield np.sort(items[group])


def _save(values: dict[str, object], path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(values, partial)
    partial.rename(path)


# ---------------------------------------------------------------------------------------- after training: use, judge


def token_rows(
    model: SpeechTokenizer, bank: FeatureBank, items: NDArray[np.int64]
) -> list[NDArray[np.int16]]:
    """The ids of the items, computed in full float32 so that they are the ONNX file's."""
    model.eval()
    rows: list[NDArray[np.int16]] = [np.zeros(0, np.int16)] * len(items)
    order = np.argsort(bank.frames[items], kind="stable")
    with ExactMath():
        for start in range(0, len(order), 256):
            part = order[start : start + 256]
            ids, lengths = model.tokens(*bank.batch(items[part])[:2])
            for k, row, length in zip(part, ids.cpu().numpy(), lengths.tolist(), strict=True):
                rows[k] = row[:length].astype(np.int16)
    return rows


class ExactMath:
    """TF32 off inside the block."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self.before


def evaluate(
    model: SpeechTokenizer, bank: FeatureBank, *, limit: int = 600
) -> tuple[dict[str, object], list[str]]:
    """Error rates of the CTC head on the ids, use of the codes, and a few examples."""
    spoken = np.array([i for i in range(bank.n) if plain_text(bank.texts[i])], np.int64)
    items = np.random.default_rng(1).permutation(spoken)[:limit]
    rows = token_rows(model, bank, items)
    heard = model.texts_of(rows)
    said = [ctc_text(bank.texts[i]) for i in items]
    cer, wer = cer_wer(said, heard)
    share = np.bincount(np.concatenate(rows).astype(np.int64), minlength=CODES) / max(1, sum(map(len, rows)))
    used = share[share > 0]
    result: dict[str, object] = {
        "utterances": len(items),
        "cer": round(cer, 2),
        "wer": round(wer, 2),
        "codes": len(used),
        "entropy_bits": round(float(-(used * np.log2(used)).sum()), 2),
    }
    engines = [f"{bank.voices[i].split('/')[0]} {bank.languages[i]}" for i in items]
    if 1 < len(set(engines)) <= 24:
        result["cer_by_engine"] = {
            name: round(cer_wer(*_only(name, engines, said, heard))[0], 2) for name in sorted(set(engines))
        }
    return result, [f"{s!r} -> {h!r}" for s, h in list(zip(said, heard, strict=True))[:3]]


def _only(name: str, engines: list[str], *columns: list[str]) -> list[list[str]]:
    return [
        [value for value, engine in zip(column, engines, strict=True) if engine == name] for column in columns
    ]


def write_tokens(model: SpeechTokenizer, bank: FeatureBank, path: Path) -> None:
    rows = token_rows(model, bank, np.arange(bank.n))
    partial = path.with_name(path.stem + "_part.npz")
    np.savez(
        partial,
        tokens=np.concatenate(rows),
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
    )
    partial.rename(path)
    top = Counter(np.concatenate(rows[:2000]).tolist()).most_common(1)[0]
    log(f"{path.name}: {len(rows)} items, {sum(map(len, rows))} ids; commonest {top[0]}")


def export(model: SpeechTokenizer, bank: FeatureBank, path: Path) -> dict[str, object]:
    """Writes the ONNX file and compares its ids with the network's on real features and on up to 30 s."""
    import onnxruntime

    network = Exported(model).cpu().eval()
    example = (torch.zeros(1, MELS, 161), torch.tensor([161], dtype=torch.int32))
    size = write_onnx(
        network,
        path,
        example=example,
        inputs=["feats", "feats_length"],
        output="ids",
        dynamic={"feats": {2: "frames"}, "ids": {1: "tokens"}},
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    stream = torch.cat([bank.batch([i])[0][0].cpu() for i in range(min(bank.n, 40))], dim=1)
    stream = stream.repeat(1, -(-3000 // stream.shape[1]))
    wrong = total = 0
    for frames in (1, 2, 3, 4, 7, 100, 161, 399, 998, 1500, 3000):
        feats, length = stream[None, :, :frames].contiguous(), torch.tensor([frames], dtype=torch.int32)
        with torch.no_grad():
            ours = network(feats, length).numpy()
        theirs = session.run(None, dict(zip(names, [feats.numpy(), length.numpy()], strict=True)))[0]
        assert theirs.shape == ours.shape == (1, -(-frames // 4)), (frames, theirs.shape, ours.shape)
        assert theirs.dtype == np.int32
        wrong += int((ours != theirs).sum())
        total += ours.size
    result: dict[str, object] = {"bytes": size, "ids_compared": total, "ids_different": wrong}
    log("onnx", result)
    assert wrong <= total // 100, "the ONNX file does not compute the network's ids"
    return result


def main() -> None:
    """Runs the stage."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    use_fast_math(args.device)
    torch.manual_seed(0)
    common = {"device": args.device, "pad": 0}
    caller = FeatureBank(
        args.data,
        "caller",
        variants=1 if args.dry else VERSIONS,
        augmented=True,
        clean=True,
        seed=1,
        sample=CALLERS,
        **common,
    )
    spoken = {tag: FeatureBank(args.data, tag, **common) for tag in SPOKEN}
    tests = {
        tag: FeatureBank(args.data, tag, limit=2000, **common)
        for tag in ("test_seen", "test_new")
        if (args.data / f"{tag}.json").exists()
    }
    model = SpeechTokenizer().to(args.device)
    if args.init:
        model.encoder.load_state_dict(encoder_from_onnx(args.init))
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters with the heads of training")
    train(model, Mix([caller, *spoken.values()]), tests.get("test_new") or tests.get("test_seen"), args)
    round_to_half(model)
    _save({"model": model.state_dict(), "shape": asdict(model.shape)}, args.out / "speech_tokenizer.pt")
    agent = spoken["agent"]
    strangers = FeatureBank(args.data, STRANGERS, **common)
    for tag, bank in {**spoken, STRANGERS: strangers}.items():
        write_tokens(model, bank, args.out / f"{tag}_tokens.npz")
    report: dict[str, object] = {}
    for name, bank in {**tests, **spoken, STRANGERS: strangers}.items():
        report[name], examples = evaluate(model, bank)
        log(name, report[name], *examples)
    report["onnx"] = export(model, agent, args.out / "speech_tokenizer.onnx")
    (args.out / "speech_tokenizer_eval.json").write_text(json.dumps(report, indent=1))
    log("done")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py's banks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--seconds", type=float, default=300.0, help="training time")
    parser.add_argument(
        "--init", type=Path, help="ONNX file of a speech tokenizer whose encoder is the start"
    )
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the state that an earlier run left")
    parser.add_argument("--dry", action="store_true", help="four small steps: proves that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
