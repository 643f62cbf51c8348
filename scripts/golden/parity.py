"""Measures how far the project's networks are from what the reference computed, on a device and in a number type.

    PYTHONPATH=. python scripts/golden/parity.py --device cuda --dtype bfloat16

Prints the relative error, |ours - theirs| / |theirs|, of every golden file of networks under tests/golden. The tests
hold the same numbers to 1e-3 in float32 and 1e-2 in half precision on the CPU.
"""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from scripts.golden.fixed_weights import fill, recording, samples, vocoder_weight
from voiceagent.models.step_audio2 import compat
from voiceagent.models.step_audio2.compat import ReferenceSpeech
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import Flow, FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import Hift, load_weights, stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.kv import PAGE, KvPool, page_bytes
from voiceagent.models.step_audio2.lm import Chunk, Step
from voiceagent.models.step_audio2.mel import log_mel
from voiceagent.models.step_audio2.model import StepAudio2

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
FLOW_NOISE = "voiceagent.models.step_audio2.flow.frame_noise"
SLICE = 31  # positions of a prompt that are read at a time

Errors = dict[str, float]


@dataclass(frozen=True, slots=True)
class Voice:
    """A prompt as the golden files hold it."""

    tokens: Tensor
    mel: Tensor
    speaker: Tensor


def golden(name: str) -> dict[str, Any]:
    """The arrays of tests/golden/NAME.npz."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def error(ours: Tensor | np.ndarray, theirs: np.ndarray) -> float:
    """Relative, over all values.

    Raises:
        ValueError: the shapes differ.
    """
    left = torch.as_tensor(ours).double().cpu()
    right = torch.as_tensor(theirs).double()
    if left.shape != right.shape:
        raise ValueError(f"{tuple(left.shape)} is not {tuple(right.shape)}")
    return float((left - right).norm() / right.norm())


# ---------------------------------------------------------------------------------------------------- language model


def language_network(device: str, dtype: torch.dtype) -> StepAudio2:
    """Encoder, adapter and language model under the fixed weights."""
    network = StepAudio2(StepAudio2Config.from_dict(json.loads(str(golden("language")["config"]))))
    with torch.no_grad():
        fill_stored(network)
    return network.to(device, dtype).requires_grad_(False).eval()


def fill_stored(network: StepAudio2) -> None:
    """As `fill`, by the names of the checkpoint, which stores bfloat16."""
    stored = torch.nn.Module()
    stored.state_dict = network.stored  # type: ignore[method-assign, assignment]
    fill(stored, dtype=torch.bfloat16)


@torch.inference_mode()
def language(device: str, dtype: torch.dtype) -> Errors:
    """Encoder and adapter on a batch of two pieces; scores over a prompt with both, in one pass and over pages."""
    wanted, network = golden("language"), language_network(device, dtype)
    waves = [recording("first", 21_500), recording("second", 12_345)]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    mel, frames = log_mel(padded.to(device), torch.tensor([len(wave) for wave in waves], device=device))
    rows, lengths = network.encoder(mel.to(dtype), frames - 2)
    adapted, places = network.adapter(rows, lengths)
    found: Errors = {}
    for i, name in enumerate(("first", "second")):
        found[f"encoder, {name}"] = error(rows[i, : lengths[i]], wanted[f"encoder/{name}"])
        found[f"adapter, {name}"] = error(adapted[i, : places[i]], wanted[f"adapter/{name}"])
    ids = torch.from_numpy(wanted["prompt"])
    embeds = network.embed(ids.to(device))
    patch_id = ids.mode().values  # nothing is as frequent as the placeholder
    embeds[ids == patch_id] = torch.cat([network.encode_audio(wave) for wave in waves])
    whole, paged = network.logits(network.hidden(embeds[None])[0]), paged_scores(network, embeds)
    for name, scores in (("one pass", whole), ("pages", paged)):
        found[f"scores, {name}"] = error(scores[:, wanted["columns"]], wanted["logits"])
        found[f"last scores, {name}"] = error(scores[-1], wanted["logits_last"])
    return found


def paged_scores(network: StepAudio2, embeds: Tensor) -> Tensor:
    """(T, vocabulary) scores as the engine computes them: two thirds read in slices, the rest step by step."""
    text, device = network.config.text, embeds.device
    pages = -(-len(embeds) // PAGE) + 1
    pool = KvPool(text, nbytes=pages * page_bytes(text, embeds.dtype), device=device, dtype=embeds.dtype)
    sequence, out, at = pool.open(), [], 0
    while at < len(embeds):
        count = min(SLICE, len(embeds) - at) if at < 2 * len(embeds) // 3 else 1
        sequence.reserve(at + count)
        where = {"pool": pool, "rotary": network.model.tables}
        new = Step.after([sequence], **where) if count == 1 else Chunk.after(sequence, count, **where)
        out.append(network.scores(network.model.extend(embeds[at : at + count], new)))
        sequence.advance(count)
        at += count
    return torch.cat(out)


# ------------------------------------------------------------------------------------------------------------- speech


def flow_network(text: str, device: str, dtype: torch.dtype) -> Flow:
    """A flow of a flow.yaml's text under the fixed weights."""
    net = FlowNet(FlowConfig.from_text(text, source="golden"))
    fill(net)
    return Flow(net.to(device, dtype))


def vocoder_network(base: int, pitch: int, device: str) -> Hift:
    """A vocoder of these widths under the fixed weights."""
    net = HiftNet(HiftConfig(base, pitch))
    weights = {name: vocoder_weight(name, shape) for name, shape in stored_shapes(net).items()}
    load_weights(net, weights, source="golden")
    return Hift(net.to(device))


@torch.inference_mode()
def flow(device: str, dtype: torch.dtype) -> Errors:
    """The encoder, a whole utterance, and a stream of twenty chunks."""
    wanted = golden("flow")
    network = flow_network(str(wanted["yaml"]), device, dtype)
    who = Voice(*(torch.from_numpy(wanted[key]) for key in ("prompt_tokens", "prompt_mel", "speaker")))
    ids, noise = torch.from_numpy(wanted["tokens"]), torch.from_numpy(wanted["noise"])
    mu, _ = network.net.mu(torch.cat([who.tokens, ids])[None].to(device))
    found = {"flow's encoder": error(mu[0], wanted["mu"])}
    found["flow, whole"] = error(network.infer(ids, who, noise=noise), wanted["whole"])
    # The prompt's own noise is no argument of ours: its frames are the first of the reference's buffer.
    with patch(FLOW_NOISE, lambda _seed, start, frames: noise[start:][:frames]):
        state, at, made = network.open(who), 0, []
        for size in [*wanted["chunks"].tolist(), None]:
            chunk = ids[at : None if size is None else at + size + network.lookahead]
            start, count = 2 * (len(who.tokens) + at), 2 * (len(chunk) if size is None else size)
            own = noise[start : start + count]
            mel, state = network.step(chunk, state, last=size is None, noise=own)
            made.append(mel)
            at += size or 0
    found[f"flow, {len(made)} chunks"] = error(torch.cat(made, dim=1), wanted["streamed"])
    return found


@torch.inference_mode()
def vocoder(device: str) -> Errors:
    """Pitch and samples of a mel and an excitation."""
    wanted, network = golden("hift"), vocoder_network(32, 24, device)
    mel, source = (torch.from_numpy(wanted[key].astype(np.float32)).to(device) for key in ("mel", "source"))
    return {
        "vocoder, pitch": error(network.net.f0_predictor(mel[None])[0], wanted["pitch"]),
        "vocoder, samples": error(network.synthesize(mel, source=source), wanted["samples"]),
    }


def reference_speech(device: str) -> ReferenceSpeech:
    """The published rules over the networks of stream.npz, with its noise."""
    network = flow_network(str(golden("stream")["yaml"]), device, torch.float32)
    noise = samples("flow", 80 * compat.LONGEST_HISTORY).view(-1, 80)
    return ReferenceSpeech(network, vocoder_network(16, 16, device), noise=noise)


def stream(device: str) -> Errors:
    """The samples of the published stream, by the published rules."""
    wanted, speech = golden("stream"), reference_speech(device)
    who = golden_voice(wanted, "short")
    with shared_excitation(wanted):
        sound = speech.step(wanted["short/ids"].tolist(), speech.open(who), last=True)
    return {"stream, samples": error(sound, wanted["short/sound"])}


def shared_excitation(arrays: dict[str, Any]) -> AbstractContextManager[object]:
    """While it lasts, streams by the published rules have the excitation's noise of stream.npz."""
    count = 480 * 2 * max(len(arrays["short/ids"]), len(arrays["long/ids"]))
    noise = samples("excitation", count).numpy()
    return patch.object(compat, "stream_noise", lambda _seed, frame, n: noise[480 * frame :][: 480 * n])


def golden_voice(arrays: dict[str, Any], name: str) -> Voice:
    """A voice of stream.npz."""
    parts = (torch.from_numpy(arrays[f"{name}/{key}"]) for key in ("tokens", "mel_prompt", "speaker"))
    tokens, mel, speaker = parts
    return Voice(tokens, mel.float(), speaker)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    chosen = parser.parse_args()
    device, dtype = chosen.device, getattr(torch, chosen.dtype)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = language(device, dtype) | flow(device, dtype)
    if dtype is torch.float32:
        found |= vocoder(device) | stream(device)
    for name, value in found.items():
        print(f"{chosen.device:5} {chosen.dtype:8} {name:24} {value:.1e}")


if __name__ == "__main__":
    main()
