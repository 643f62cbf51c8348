"""Trains the pocket flow: speech tokens and a voice prompt to the 24 kHz mel of Token2Wav.

    python3 scripts/pocket/train_flow.py --data DATA --out CK --seconds 500

It waits for the speech tokens (`agent_tokens.npz`, `agent_male_tokens.npz`) and the speaker network (`campplus.onnx`)
in CK; the budget starts when training does. Three of four rows come from the agent's voice, one from the male voice. A
row is a window of one voice's utterances, one after another in random order; its beginning serves as the prompt, so
that prompt and target look as they do when an answer follows a voice's sample. Six of ten batches see exactly what a
stream of chunks sees (10 to 25 tokens each, look-ahead, bounded history); the others see everything.

Writes to CK: flow.yaml, flow.pt (averaged weights, float32, the checkpoint's names; refreshed every minute),
flow_state.pt (for --resume), flow_eval.json (mean L1 of the log-mel on utterances that were not trained on).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.pocket.features import Bank, Budget, log, lr_at, use_fast_math, wait_for
from scripts.pocket.hift_data import upsample
from voiceagent.models.step_audio2.dit import DiT
from voiceagent.models.step_audio2.flow import RECENT_FRAMES, RECENT_TOKENS, Flow, FlowNet, FlowPrompt
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.mel import kaldi_fbank, mel_24k

FLOW_YAML = """\
flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec
    input_size: 256
    output_size: 80
    spk_embed_dim: 192
    output_type: 'mel'
    vocab_size: 6561
    encoder: !new:cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2
        input_size: 256
        output_size: 256
        input_layer: 'linear'
        pre_lookahead_len: 3
        num_blocks: 2
        num_up_blocks: 2
        up_stride: 2
        up_scale_factor: 2
        attention_heads: 4
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        key_bias: true
        linear_units: 1024
        dropout_rate: 0.0
        positional_dropout_rate: 0.0
        attention_dropout_rate: 0.0
        normalize_before: True
    decoder: !new:cosyvoice2.flow.flow_matching.CausalConditionalCFM
        inference_cfg_rate: 0.7
        estimator: !new:cosyvoice2.flow.decoder_dit.DiT
            in_channels: 320
            out_channels: 80
            mlp_ratio: 2.0
            depth: 4
            num_heads: 4
            head_dim: 64
            hidden_size: 256
"""

VOICES = (("agent", 3), ("agent_male", 1))  # bank, share of the rows
HELD_OUT = 24  # first items of every bank: judged, not trained on
WINDOWS = (225, 225, 225, 175, 125, 400)  # tokens; the long ones reach every distance that a stream can
STREAMED = 0.6  # share of batches that see what a stream sees
UNGUIDED = 0.2  # share of rows without mu, speaker and prompt, for classifier-free guidance
PROMPT_WEIGHT = 0.2
PEAK_RATE = 1e-3
RESHUFFLE = 1500  # steps
MEL_MEAN = -6.0  # roughly the mean log-mel, where mu starts
SPEAKER_SAMPLES = 32  # utterances per voice whose speaker vectors are drawn from


# ------------------------------------------------------------------------------------------------------------ voices


@dataclass(slots=True)
class Voice:
    """One bank's tokens and mels on the device.

    Attributes:
        tokens: (N,) int64, item after item; starts: (n + 1,) where each item begins.
        mel: (frames, 80) float16; frame_of: (2 N,) its row for every half token.
        speakers: (k, 192) unit vectors of single utterances.
    """

    tokens: Tensor
    frame_of: Tensor
    starts: NDArray[np.int64]
    mel: Tensor
    speakers: Tensor

    def item(self, i: int) -> tuple[Tensor, Tensor]:
        """(n,) tokens and (2 n, 80) float32 mel of an item."""
        a, b = int(self.starts[i]), int(self.starts[i + 1])
        return self.tokens[a:b], self.mel[self.frame_of[2 * a : 2 * b]].float()

    def shuffled(self, rng: np.random.Generator) -> Tensor:
        """Positions of all tokens to train on, the items one after another in random order."""
        items = rng.permutation(np.arange(min(HELD_OUT, len(self.starts) - 2), len(self.starts) - 1))
        counts = np.diff(self.starts)[items]
        jumps = np.repeat(self.starts[items] - (np.cumsum(counts) - counts), counts)
        return torch.from_numpy(np.arange(int(counts.sum())) + jumps).to(self.tokens.device)


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
    return Voice(
        torch.from_numpy(saved["tokens"].astype(np.int64)).to(device),
        torch.from_numpy(frame_of).to(device),
        starts,
        mel,
        speaker_vectors(bank, wait_for(out / "campplus.onnx")).to(device),
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


def speaker_vectors(bank: Bank, network: Path) -> Tensor:
    """(k, 192) unit vectors of utterances spread over the bank, on the CPU."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    vectors = []
    for item in np.unique(np.linspace(0, bank.n - 1, SPEAKER_SAMPLES).astype(int)):
        wave, _ = bank.batch([item])
        features = kaldi_fbank(wave[0].cpu())
        centred = (features - features.mean(0))[None].numpy()
        vectors.append(torch.from_numpy(session.run(None, {name: centred})[0]).float().reshape(-1))
    return F.normalize(torch.stack(vectors), dim=1)


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
            device = stream.device
            start = torch.randint(0, max(1, len(stream) - length), (int(count), 1), device=device)
            at = stream[(start + torch.arange(length, device=device)) % len(stream)]
            frames = voice.frame_of[torch.stack([2 * at, 2 * at + 1], dim=2).flatten(1)]
            speaker = voice.speakers[torch.randint(0, len(voice.speakers), (int(count),), device=device)]
            parts.append((voice.tokens[at], voice.mel[frames].float(), speaker))
        tokens, mel, speakers = zip(*parts, strict=True)
        return torch.cat(tokens), torch.cat(mel), torch.cat(speakers)


# ------------------------------------------------------------------------------------------------------------- masks


def stream_masks(prompt: Tensor, first: Tensor, size: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """What each token and each frame sees when the row is streamed.

    Args:
        prompt, first, size: (B,) tokens of the prompt, of the first chunk and of every later chunk.
        length: tokens of the window.

    Returns:
        (B, L, L) and (B, 2 L, 2 L) bool: the chunk itself, the prompt, and the newest RECENT_TOKENS tokens or
        RECENT_FRAMES frames before the chunk.
    """
    at = torch.arange(length, device=prompt.device)[None]
    prompt, first, size = prompt[:, None], first[:, None], size[:, None]
    past_first = at - prompt - first
    later = torch.div(past_first, size, rounding_mode="floor")
    start = torch.where(past_first >= 0, prompt + first + later * size, prompt)
    start = torch.where(at < prompt, 0, start)
    end = torch.where(past_first >= 0, start + size, prompt + first)
    end = torch.where(at < prompt, prompt, end)
    return _window(at, prompt, start, end, RECENT_TOKENS), _window(
        torch.arange(2 * length, device=prompt.device)[None],
        2 * prompt,
        2 * start.repeat_interleave(2, 1),
        2 * end.repeat_interleave(2, 1),
        RECENT_FRAMES,
    )


def _window(at: Tensor, prompt: Tensor, start: Tensor, end: Tensor, recent: int) -> Tensor:
    key = at[:, None, :]
    return (key < end[:, :, None]) & ((key < prompt[:, :, None]) | (key >= start[:, :, None] - recent))


# ---------------------------------------------------------------------------------------------------------- training


def initialise(net: FlowNet) -> None:
    """Xavier for the DiT, zero for its gates and output, so that every block starts as the identity."""
    estimator = net.decoder.estimator
    for module in estimator.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in estimator.t_embedder.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.02)
    for block in (*estimator.blocks, estimator.final_layer):
        nn.init.zeros_(block.adaLN_modulation[1].weight)
    nn.init.zeros_(estimator.final_layer.linear.weight)
    nn.init.constant_(net.encoder_proj.bias, MEL_MEAN)


def losses(net: FlowNet, batch: tuple[Tensor, Tensor, Tensor], *, streamed: bool) -> tuple[Tensor, Tensor]:
    """Flow-matching loss (prompt frames count less), and the mean L1 between mu and the mel."""
    tokens, mel, speakers = batch
    rows, length = tokens.shape
    device = tokens.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, device=device)

    prompt = torch.randint(10, 126, (rows,), device=device).clamp_max(length // 2) * (uniform() < 0.85)
    masks: tuple[Tensor | None, Tensor | None] = (None, None)
    if streamed:
        first = torch.randint(8, 26, (rows,), device=device)
        size = torch.where(uniform() < 0.6, 25, torch.randint(10, 26, (rows,), device=device))
        masks = stream_masks(prompt, first, size, length)
    in_prompt = (torch.arange(2 * length, device=device)[None] < 2 * prompt[:, None])[..., None]
    time = 1 - torch.cos(uniform() * (0.5 * math.pi))
    noise = torch.randn_like(mel)
    t = time[:, None, None]
    guided = (uniform(1, 1) > UNGUIDED).float()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        mu = net.mu(tokens, mask=masks[0])[0].float()
        known = torch.cat([mu, net.speaker(speakers)[:, None].expand_as(mu).float(), mel * in_prompt], dim=2)
        inputs = torch.cat([torch.lerp(noise, mel, t), known * guided], dim=2)
        estimator: DiT = net.decoder.estimator
        velocity = estimator(inputs, estimator.modulation(time), mask=masks[1]).float()
    weight = torch.where(in_prompt, PROMPT_WEIGHT, 1.0)
    return ((velocity - (mel - noise)).square() * weight).mean(), (mu - mel).abs().mean()


@dataclass(slots=True)
class Averaged:
    """Exponential moving average of the weights."""

    weights: dict[str, Tensor]

    def update(self, net: nn.Module, step: int) -> None:
        decay = min(0.9992, (step + 1) / (step + 10))
        current = net.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1 - decay)


def train(net: FlowNet, voices: Sequence[Voice], args: argparse.Namespace) -> dict[str, Tensor]:
    """Runs the budget; returns the averaged weights."""
    optimizer = torch.optim.AdamW(
        net.parameters(), PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=args.device.type == "cuda"
    )
    average = Averaged({name: value.clone() for name, value in net.state_dict().items()})
    spent, step = 0.0, 0
    state_file = args.out / "flow_state.pt"
    if args.resume and state_file.exists():
        saved = torch.load(state_file, map_location=args.device, weights_only=True)
        net.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average.weights = saved["average"]
        spent, step = saved["elapsed"], saved["step"]
        log(f"resumed at step {step}, {spent:.0f} s")
    rng = np.random.default_rng(step)
    windows = Windows(voices, rng)
    budget = Budget(args.seconds, spent=spent)
    last_step = step + 4 if args.dry else None
    next_save, next_eval = spent + 60.0, 0.3
    while (fraction := budget.fraction()) < 1 and step != last_step:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(fraction, PEAK_RATE)
        length = 40 if args.dry else int(rng.choice(WINDOWS))
        rows = max(1, args.batch * 225 // length)
        matching, prior = losses(net, windows.draw(rows, length), streamed=rng.random() < STREAMED)
        optimizer.zero_grad(set_to_none=True)
        (matching + prior).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            average.update(net, step)
        if step % 200 == 0 or step < 4:
            log(
                f"step {step} {budget.elapsed():.0f} s matching {matching.item():.3f} prior {prior.item():.3f}"
            )
        if step % RESHUFFLE == 0:
            windows.reshuffle()
        if budget.elapsed() > next_save:
            next_save = budget.elapsed() + 60.0
            save(net, optimizer, average, {"elapsed": budget.elapsed(), "step": step}, args.out)
        if fraction > next_eval and not args.dry:
            next_eval += 0.3
            log("so far:", evaluate(net, average.weights, voices, count=4, steps=10))
    save(net, optimizer, average, {"elapsed": budget.elapsed(), "step": step}, args.out)
    log(f"trained {step} steps, {budget.elapsed():.0f} s")
    return average.weights


def save(
    net: FlowNet,
    optimizer: torch.optim.Optimizer,
    average: Averaged,
    progress: dict[str, float],
    out: Path,
) -> None:
    """flow.pt and flow_state.pt, each complete or not there."""
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "average": average.weights}
    weights = {name: value.float().cpu().contiguous() for name, value in average.weights.items()}
    for name, values in (("flow_state.pt", {**state, **progress}), ("flow.pt", weights)):
        partial = out / f"{name}.part"
        torch.save(values, partial)
        partial.rename(out / name)


# -------------------------------------------------------------------------------------------------------- evaluation


def evaluate(
    net: FlowNet, weights: dict[str, Tensor], voices: Sequence[Voice], *, count: int, steps: int
) -> dict[str, float]:
    """Mean L1 of the natural-log mel, whole and streamed, on held-out utterances of every voice."""
    judged = copy.deepcopy(net)
    judged.load_state_dict(weights)
    flow = Flow(judged, steps=steps)
    whole, streamed, apart = [], [], []
    for voice in voices:
        prompt_tokens, prompt_mel = voice.item(
            max(range(HELD_OUT), key=lambda i: voice.starts[i + 1] - voice.starts[i])
        )
        prompt = Prompt(prompt_tokens[:100], prompt_mel[:200], voice.speakers.mean(0))
        prepared = flow.prepare(prompt)
        for i in range(min(count, HELD_OUT, len(voice.starts) - 1)):
            tokens, mel = voice.item(i)
            a, b = flow.infer(tokens, prompt).T, stream(flow, tokens, prepared).T
            whole.append((a - mel).abs().mean().item())
            streamed.append((b - mel).abs().mean().item())
            apart.append((a - b).abs().mean().item())
    figures = {"mel_l1": whole, "mel_l1_streamed": streamed, "streamed_against_whole": apart}
    return {name: round(float(np.mean(values)), 4) for name, values in figures.items()}


def stream(
    flow: Flow, tokens: Tensor, voice: Prompt | FlowPrompt, *, first: int = 12, size: int = 25
) -> Tensor:
    """The mel (80, 2 n), made in chunks as a conversation makes it."""
    state = flow.open(voice)
    parts, at, width = [], 0, first
    while at < len(tokens):
        last = at + width + flow.lookahead >= len(tokens)
        chunk = tokens[at:] if last else tokens[at : at + width + flow.lookahead]
        mel, state = flow.step(chunk, state, last=last)
        parts.append(mel)
        at, width = (len(tokens) if last else at + width), size
    return torch.cat(parts, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of gen_data.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--seconds", type=float, default=500.0, help="training time")
    parser.add_argument("--batch", type=int, default=64, help="rows of 225 tokens per step")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true", help="go on from flow_state.pt")
    parser.add_argument("--dry", action="store_true", help="a few tiny steps: proves that everything runs")
    args = parser.parse_args()
    args.device = torch.device(args.device)
    args.batch = 1 if args.dry else args.batch
    use_fast_math(args.device)
    torch.manual_seed(3)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "flow.yaml").write_text(FLOW_YAML)
    net = FlowNet(FlowConfig.from_text(FLOW_YAML, source="flow.yaml"))
    initialise(net)
    net.to(args.device)
    log(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters on {args.device}")
    voices = [load_voice(args.data, args.out, tag, args.device) for tag, _ in VOICES]
    weights = train(net, voices, args)
    results = {
        f"{steps}_steps": evaluate(net, weights, voices, count=1 if args.dry else HELD_OUT, steps=steps)
        for steps in (10, 6, 5)
    }
    (args.out / "flow_eval.json").write_text(json.dumps(results, indent=1))
    log("held-out:", json.dumps(results))


if __name__ == "__main__":
    main()
