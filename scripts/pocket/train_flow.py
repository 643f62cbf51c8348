"""Trains the pocket flow: speech tokens and a voice prompt to the 24 kHz mel of Token2Wav.

    python3 scripts/pocket/train_flow.py --data DATA --out CK --seconds 560 [--init FOLDER]

It waits for the speech tokens ({tag}_tokens.npz) and the speaker network (speaker.pt) in CK; the budget starts when
training does. Rows come from the two voices that ship, from the many speakers of the `voices` bank and from the voice
that reads Spanish, by the shares in VOICES. A row is a window of one speaker's utterances, one after another in random
order; its beginning serves as the prompt, so that prompt and target look as they do when an answer follows a voice's
sample, and the speaker vector is that of another utterance of the same speaker: so a voice that was never heard can be
taken from a sample, too. Six of ten batches see exactly what a stream of chunks sees (10 to 25 tokens each, look-ahead,
bounded history); the others see everything. A few tokens are replaced at random, as a language model errs now and then.

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
import torch
from torch import Tensor, nn

from scripts.pocket.features import Budget, log, lr_at, use_fast_math
from scripts.pocket.flow_data import HELD_OUT, STRANGERS, VOICES, Prompt, Voice, Windows, load_voice
from scripts.pocket.speech_tokenizer_model import CODES
from voiceagent.models.step_audio2.dit import DiT
from voiceagent.models.step_audio2.flow import RECENT_FRAMES, RECENT_TOKENS, Flow, FlowNet, FlowPrompt
from voiceagent.models.step_audio2.flow_config import FlowConfig

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

WRONG = 0.01  # of the tokens
WINDOWS = (225, 225, 225, 175, 125, 400)  # tokens; the long ones reach every distance that a stream can
STREAMED = 0.6  # share of batches that see what a stream sees
UNGUIDED = 0.2  # share of rows without mu, speaker and prompt, for classifier-free guidance
PROMPT_WEIGHT = 0.2
PEAK_RATE = 1e-3
RESHUFFLE = 1500  # steps
MEL_MEAN = -6.0  # roughly the mean log-mel, where mu starts


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
    tokens = torch.where(uniform(length) < WRONG, torch.randint_like(tokens, CODES), tokens)
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
    """Mean L1 of the natural-log mel, whole and streamed, on held-out utterances of every voice.

    A bank of one speaker is judged on held-out items, prompted by the longest of them; one of many on one
    item of each of up to `count` speakers, prompted by the next item of the same speaker.
    """
    judged = copy.deepcopy(net)
    judged.load_state_dict(weights)
    flow = Flow(judged, steps=steps)
    whole, streamed, apart = [], [], []
    for voice in voices:
        for said, items in examination(voice, count):
            tokens, mel = voice.item(said)
            prompt = Prompt(tokens[:100], mel[:200], voice.speaker(said))
            prepared = flow.prepare(prompt)
            for i in items:
                tokens, mel = voice.item(i)
                a, b = flow.infer(tokens, prompt).T, stream(flow, tokens, prepared).T
                whole.append((a - mel).abs().mean().item())
                streamed.append((b - mel).abs().mean().item())
                apart.append((a - b).abs().mean().item())
    figures = {"mel_l1": whole, "mel_l1_streamed": streamed, "streamed_against_whole": apart}
    return {name: round(float(np.mean(values)), 4) for name, values in figures.items()}


def examination(voice: Voice, count: int) -> list[tuple[int, list[int]]]:
    """(item of the prompt, items to make) of what was not trained on."""
    sizes, held = np.diff(voice.starts), np.flatnonzero(voice.held())
    if len(set(voice.whose.tolist())) == 1:
        return [(int(held[sizes[held].argmax()]), held[:count].tolist())]
    people, first = np.unique(voice.whose, return_index=True)
    return [(int(i) + 1, [int(i)]) for i in first[: min(count, len(people))]]


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
    parser.add_argument("--seconds", type=float, default=560.0, help="training time")
    parser.add_argument("--init", type=Path, help="token2wav folder of a checkpoint whose flow is the start")
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
    if args.init:
        net = Flow.load(args.init).net.train()
    else:
        net = FlowNet(FlowConfig.from_text(FLOW_YAML, source="flow.yaml"))
        initialise(net)
    net.to(args.device).requires_grad_(True)
    log(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters on {args.device}")
    voices = [load_voice(args.data, args.out, tag, args.device) for tag, _ in VOICES]
    strangers = load_voice(args.data, args.out, STRANGERS, args.device)
    weights = train(net, voices, args)
    judged = {tag: [voice] for (tag, _), voice in zip(VOICES, voices, strict=True)} | {STRANGERS: [strangers]}
    results = {
        f"{steps}_steps": {
            tag: evaluate(net, weights, bank, count=1 if args.dry else HELD_OUT, steps=steps)
            for tag, bank in judged.items()
        }
        for steps in (10, 6, 5)
    }
    (args.out / "flow_eval.json").write_text(json.dumps(results, indent=1))
    log("held-out:", json.dumps(results))


if __name__ == "__main__":
    main()
