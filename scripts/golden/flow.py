"""Writes tests/golden/flow.npz: what the published flow computes, at small sizes and with fixed weights.

    TORCHDYNAMO_DISABLE=1 python scripts/golden/flow.py

Needs the `step-audio2` 1.0.0 wheel and einops (both with --no-deps; its flow needs only torch and onnxruntime besides),
which are no dependencies of the project. Weights come from `fixed_weights`, all of them, so that no gate is zero as it
is before training. Noise is drawn once and used as the wheel uses its buffer: whole utterances from its beginning,
streams from the position that their history has reached. Streams stay shorter than the 100 frames after which the
reference cuts its history.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import torch
import yaml
from cosyvoice2.flow.decoder_dit import DiT
from cosyvoice2.flow.flow import CausalMaskedDiffWithXvec
from cosyvoice2.flow.flow_matching import CausalConditionalCFM
from cosyvoice2.transformer.upsample_encoder_v2 import UpsampleConformerEncoderV2
from torch import Tensor, nn

from scripts.golden.fixed_weights import fill
from scripts.pocket.train_flow import FLOW_YAML

SIZES = {"256": "32", "1024": "48", "6561": "101", "attention_heads: 4": "attention_heads: 2"}
DIT_SIZES = {"depth: 4": "depth: 3", "num_heads: 4": "num_heads: 2", "head_dim: 64": "head_dim: 16"}
PROMPT, TOKENS, STEPS = 17, 60, 10
CHUNKS = (8, 2, 3, 2, 2, 4, 2, 2, 3, 2, 2, 2, 3, 2, 2, 2, 2, 2, 2)
"""New tokens of each chunk; the rest is the twentieth. The reference forgets context after a chunk of one."""


def small_yaml() -> str:
    """The pocket's flow.yaml with smaller sizes."""
    text = FLOW_YAML
    for old, new in (SIZES | DIT_SIZES).items():
        assert old in text, old
        text = text.replace(old, new)
    return text


class _Arguments(yaml.SafeLoader):
    """Reads a `!new:` mapping as its arguments."""


_Arguments.add_multi_constructor(
    "!new:", lambda loader, _tag, node: loader.construct_mapping(node, deep=True)
)


def reference(text: str, *, room: int = 400) -> CausalMaskedDiffWithXvec:
    """The wheel's network of a flow.yaml. Its cache buffers have the real model's sizes built in: made anew,
    for `room` frames."""
    arguments = yaml.load(text, Loader=_Arguments)["flow"]
    decoder = arguments.pop("decoder")
    sizes = decoder["estimator"]
    encoder = UpsampleConformerEncoderV2(**arguments.pop("encoder"))
    estimator = DiT(**sizes)
    depth, heads = sizes["depth"], sizes["num_heads"]
    keys = torch.zeros(depth, 2, heads, room, 2 * sizes["head_dim"])
    tails = torch.zeros(depth, 2, 2 * sizes["hidden_size"], 2)
    estimator.att_cache_buffer, estimator.cnn_cache_buffer = keys, tails
    solver = CausalConditionalCFM.__new__(CausalConditionalCFM)  # its constructor would take 2 GB
    nn.Module.__init__(solver)
    solver.estimator = estimator
    solver.inference_cfg_rate = decoder["inference_cfg_rate"]
    solver.out_channels = sizes["out_channels"]
    solver.att_cache_buffer = keys[None].repeat(STEPS, 1, 1, 1, 1, 1)
    solver.cnn_cache_buffer = tails[None].repeat(STEPS, 1, 1, 1, 1)
    network = CausalMaskedDiffWithXvec(**arguments, encoder=encoder, decoder=solver)
    fill(network)
    return network.eval()


def streamed(network: CausalMaskedDiffWithXvec, inputs: dict[str, Tensor]) -> Tensor:
    """(80, 2 n): the prompt with its own beginning as look-ahead, then chunks; caches are views, so they are copied."""
    prompt, speaker = inputs["prompt_tokens"][None], inputs["speaker"][None]
    ahead = torch.cat([prompt, prompt[:, :3]], dim=1)
    cache = network.setup_cache(ahead, inputs["prompt_mel"][None], speaker, n_timesteps=STEPS)
    parts, at = [], 0
    for size in (*CHUNKS, None):
        chunk = inputs["tokens"][None, at : None if size is None else at + size + 3]
        cache = {name: value.clone() for name, value in cache.items()}
        mel, cache = network.inference_chunk(
            chunk, speaker, cache, last_chunk=size is None, n_timesteps=STEPS
        )
        parts.append(mel[0].clone())
        at += size or 0
    return torch.cat(parts, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "tests" / "golden" / "flow.npz"
    parser.add_argument("--out", type=Path, default=default)
    path = parser.parse_args().out
    torch.set_num_threads(1)
    text = small_yaml()
    network = reference(text)
    generator = torch.Generator().manual_seed(20)
    inputs = {
        "prompt_tokens": torch.randint(0, 101, (PROMPT,), generator=generator),
        "prompt_mel": torch.randn(2 * PROMPT, 80, generator=generator),
        "speaker": torch.randn(192, generator=generator),
        "tokens": torch.randint(0, 101, (TOKENS,), generator=generator),
        "noise": torch.randn(2 * (PROMPT + TOKENS), 80, generator=generator),
    }
    network.decoder.rand_noise = inputs["noise"].T[None].contiguous()
    everything = torch.cat([inputs["prompt_tokens"], inputs["tokens"]])[None]
    length = torch.tensor([everything.shape[1]])
    with torch.inference_mode():
        hidden, _ = network.encoder(network.input_embedding(everything), length)
        outputs = {
            "mu": network.encoder_proj(hidden)[0],
            "whole": network.inference(
                inputs["tokens"][None],
                torch.tensor([TOKENS]),
                inputs["prompt_tokens"][None],
                torch.tensor([PROMPT]),
                inputs["prompt_mel"][None],
                None,
                inputs["speaker"][None],
                n_timesteps=STEPS,
            )[0],
            "streamed": streamed(network, inputs),
        }
    made_by = (
        f"step-audio2 1.0.0 (cosyvoice2.flow), torch {torch.__version__}, CPU float32, {platform.machine()}"
    )
    arrays = {name: value.numpy() for name, value in (inputs | outputs).items()}
    np.savez_compressed(path, **arrays, yaml=text, chunks=np.array(CHUNKS), provenance=made_by)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
