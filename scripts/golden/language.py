"""Writes tests/golden/language.npz: what encoder, adapter and language model compute over a prompt with heard audio.

    python scripts/golden/language.py

The reference's own code for these is no package: it lies beside its weights. transformers has the same networks, which
are an independent implementation: the layers of its Qwen2-Audio encoder, and its Qwen2ForCausalLM, whose
`inputs_embeds` take the rows of the audio. The adapter, two lines of the model's description, is spelled out here.
Log-mel comes from the `step-audio2` 1.0.0 wheel, which is needed with librosa and torchaudio.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Qwen2AudioEncoderConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    RepetitionPenaltyLogitsProcessor,
)
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder
from utils import compute_token_num, log_mel_spectrogram

from scripts.golden.fixed_weights import fixed_weight, recording

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS / "models"))
from tiny_tokenizer import tiny_tokenizer  # noqa: E402

CONFIG: dict[str, Any] = {
    "model_type": "step_audio_2",
    "eos_token_id": 151643,
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_attention_groups": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
    },
    "audio_encoder_config": {
        "n_mels": 128,
        "n_audio_ctx": 1500,
        "n_audio_state": 64,
        "n_audio_head": 4,
        "n_audio_layer": 2,
        "llm_dim": 64,
        "kernel_size": 3,
        "adapter_stride": 2,
        "adapter_hidden": 40,
    },
}
PIECES = {"first": 21_500, "second": 12_345}  # samples at 16 kHz
REPLY = 24
PENALTY = 1.5
ENCODER_NAMES = {
    "encoder.positional_embedding": "embed_positions",
    "encoder.after_norm": "layer_norm",
    "encoder.blocks": "layers",
    ".attn.query": ".self_attn.q_proj",
    ".attn.key": ".self_attn.k_proj",
    ".attn.value": ".self_attn.v_proj",
    ".attn.out": ".self_attn.out_proj",
    ".attn_ln": ".self_attn_layer_norm",
    ".mlp.0": ".fc1",
    ".mlp.2": ".fc2",
    ".mlp_ln": ".final_layer_norm",
    "encoder.": "",
}


def published(names: dict[str, str], name: str) -> str:
    """transformers' name of one of the checkpoint's tensors."""
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def weight(name: str, *shape: int) -> Tensor:
    """A tensor of the checkpoint, which stores bfloat16."""
    return fixed_weight(name, shape).bfloat16().float()


def fill(network: nn.Module, stored: dict[str, str]) -> None:
    """Gives every tensor the weight that its name in the checkpoint stands for; `stored` maps the other way round."""
    for name, tensor in network.state_dict().items():
        tensor.copy_(weight(stored[name], *tensor.shape))


def encoder_weights() -> Qwen2AudioEncoder:
    """transformers' encoder under the checkpoint's weights."""
    audio = CONFIG["audio_encoder_config"]
    network = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            d_model=audio["n_audio_state"],
            encoder_layers=audio["n_audio_layer"],
            encoder_attention_heads=audio["n_audio_head"],
            encoder_ffn_dim=4 * audio["n_audio_state"],
            num_mel_bins=audio["n_mels"],
            max_source_positions=audio["n_audio_ctx"],
        )
    ).eval()
    tensors = ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "positional_embedding.weight"]
    tensors += ["after_norm.weight", "after_norm.bias"]
    for i in range(audio["n_audio_layer"]):
        parts = ["attn.query", "attn.value", "attn.out", "attn_ln", "mlp.0", "mlp.2", "mlp_ln"]
        tensors += [f"blocks.{i}.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
        tensors.append(f"blocks.{i}.attn.key.weight")
    ours = [f"encoder.{name}" for name in tensors]
    fill(network, {published(ENCODER_NAMES, name): name for name in ours})
    return network


def encode(network: Qwen2AudioEncoder, mel: Tensor) -> Tensor:
    """(128, F) to all its (T, width) rows, one piece alone: keys beyond (F - 1) // 2 are hidden."""
    x = F.gelu(network.conv2(F.gelu(network.conv1(mel[None])))).transpose(1, 2)
    x = x + network.embed_positions.weight[: x.shape[1]]
    hidden = torch.arange(x.shape[1]) >= (mel.shape[1] - 1) // 2
    mask = torch.where(hidden, -1e10, 0.0)[None, None, None].expand(1, 1, x.shape[1], -1)
    for layer in network.layers:
        out = layer(x, mask)
        x = out[0] if isinstance(out, tuple) else out
    pooled = network.avg_pooler(x.transpose(1, 2)).transpose(1, 2)
    rows: Tensor = network.layer_norm(pooled)[0]
    return rows


def adapt(rows: Tensor) -> Tensor:
    """(T, width) to (n, llm width): convolution of stride 2, GELU, linear, ReLU, linear."""
    audio = CONFIG["audio_encoder_config"]
    width, inner, out = audio["n_audio_state"], audio["adapter_hidden"], audio["llm_dim"]
    kernel = weight("adapter.conv.weight", width, width, 3)
    y = F.conv1d(rows.T[None], kernel, weight("adapter.conv.bias", width), stride=2, padding=1)
    y = F.gelu(y[0].T) @ weight("adapter.linear1.weight", inner, width).T
    y = F.relu(y + weight("adapter.linear1.bias", inner))
    y = y @ weight("adapter.linear2.weight", out, inner).T
    return y + weight("adapter.linear2.bias", out)


def language_model(vocabulary: int) -> Qwen2ForCausalLM:
    """transformers' language model under the checkpoint's weights, whose names are its own."""
    text = {key: value for key, value in CONFIG["text_config"].items() if key not in ("num_attention_groups")}
    config = Qwen2Config(**text, vocab_size=vocabulary, tie_word_embeddings=False)
    network = Qwen2ForCausalLM(config).eval().float()
    fill(network, {name: name for name in network.state_dict()})
    return network


def greedy(network: Qwen2ForCausalLM, prompt: list[int], embeds: Tensor, limit: int) -> list[int]:
    """The ids below `limit` that score highest, one after the other, those that have been penalised by PENALTY."""
    penalised, ids = RepetitionPenaltyLogitsProcessor(PENALTY), list(prompt)
    for _ in range(REPLY):  # everything is computed anew for each
        scores = penalised(torch.tensor([ids]), network(inputs_embeds=embeds[None]).logits[:, -1])
        ids.append(int(scores[0, :limit].argmax()))
        embeds = torch.cat([embeds, network.get_input_embeddings()(torch.tensor(ids[-1:]))])
    return ids[len(prompt) :]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=TESTS / "golden" / "language.npz")
    path = parser.parse_args().out
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    special, vocabulary = tokenizer.ids, tokenizer.size + 3
    arrays: dict[str, Any] = {}
    prompt = [
        special.bot,
        *tokenizer.encode("human\n" + "what is this? " * 8),
    ]  # longer than one page of the cache
    with torch.inference_mode():
        encoder, places = encoder_weights(), []
        for name, count in PIECES.items():
            mel = log_mel_spectrogram(recording(name, count), n_mels=128, padding=479)
            rows = encode(encoder, mel)
            valid = (mel.shape[1] - 1) // 2 // 2
            arrays[f"encoder/{name}"] = rows[:valid].numpy()
            patches = compute_token_num(mel.shape[1])
            adapted = adapt(rows)[:patches]
            arrays[f"adapter/{name}"] = adapted.numpy()
            prompt.append(special.audio_start)
            places.append((len(prompt), adapted))
            prompt += [special.audio_patch] * patches + [special.audio_end]
        prompt += [*tokenizer.encode(" hello"), special.eot, special.bot, *tokenizer.encode("assistant\n")]
        network = language_model(vocabulary)
        embeds = network.get_input_embeddings()(torch.tensor(prompt)).clone()
        for start, adapted in places:
            embeds[start : start + len(adapted)] = adapted
        logits = network(inputs_embeds=embeds[None]).logits[0]
        half = network.bfloat16()(inputs_embeds=embeds[None].bfloat16()).logits[0].float()
        print(f"transformers' own error in bfloat16: {(half - logits).norm() / logits.norm():.5f}")
        network.float()
        speech = torch.cat([embeds, network.get_input_embeddings()(torch.tensor([special.tts_start]))])
        arrays["reply/text"] = np.array(greedy(network, prompt, embeds, special.audio_start))
        arrays["reply/speech"] = np.array(
            greedy(network, [*prompt, special.tts_start], speech, special.audio_pad + 1)
        )
    arrays["penalty"] = PENALTY
    arrays["prompt"], arrays["logits_last"] = np.array(prompt), logits[-1].numpy()
    arrays["columns"] = np.arange(0, vocabulary, 47)
    arrays["logits"] = logits[:, arrays["columns"]].numpy().astype(np.float32)
    stops = {special.eot, special.endoftext, special.im_end}
    assert not stops & {*arrays["reply/text"].tolist(), *arrays["reply/speech"].tolist()}
    CONFIG["text_config"]["vocab_size"] = vocabulary
    provenance = (
        f"transformers (Qwen2-Audio encoder layers, Qwen2ForCausalLM), torch {torch.__version__}, CPU float32"
    )
    np.savez_compressed(path, **arrays, config=json.dumps(CONFIG), provenance=provenance)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, {len(prompt)} positions")
    print(arrays["reply/text"].tolist(), arrays["reply/speech"].tolist())


if __name__ == "__main__":
    main()
