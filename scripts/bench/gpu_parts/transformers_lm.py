"""The language model as `transformers` runs it, with random weights of the same shape: what people have today."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scripts.bench.gpu_parts.measure import Clock, Figure
from scripts.bench.gpu_parts.shapes import Shape
from scripts.bench.gpu_parts.weights import DEVIATION


def missing() -> bool:
    """Whether transformers is not installed."""
    return importlib.util.find_spec("transformers") is None


class Baseline:
    """`Qwen2ForCausalLM` of a shape, eager, in bf16 (float32 on a CPU)."""

    def __init__(self, shape: Shape, clock: Clock) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        fields = dict(shape.config()["text_config"])
        for name in ("model_type", "rope_scaling", "num_attention_groups", "rope_theta"):
            fields.pop(name, None)
        self.clock = clock
        self.config: Any = Qwen2Config(**fields, tie_word_embeddings=False)
        self.dtype = torch.bfloat16 if clock.device.startswith("cuda") else torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(clock.device):
                self.net: Any = Qwen2ForCausalLM(self.config)
        finally:
            torch.set_default_dtype(before)
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                parameter.fill_(1.0) if "norm" in name else parameter.normal_(0.0, DEVIATION)
        self.net.requires_grad_(False)
        self.net.train(False)

    @torch.inference_mode()
    def without_cache(self, length: int, *, repeat: int) -> Figure:
        """One step as the reference makes it: the whole sequence of `length` again (its audio encoder not counted)."""
        ids = self._ids(1, length)
        return self.clock.figure(
            lambda: self.net(input_ids=ids, use_cache=False, logits_to_keep=1).logits.argmax(-1).tolist(),
            repeat=repeat,
        )

    @torch.inference_mode()
    def prefill(self, length: int, *, repeat: int) -> Figure:
        """A prompt of `length` into an empty cache."""
        ids = self._ids(1, length)
        return self.clock.figure(
            lambda: self.net(input_ids=ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist(),
            repeat=repeat,
        )

    @torch.inference_mode()
    def dynamic(self, batch: int, context: int, *, repeat: int) -> Figure:
        """One step of `batch` sequences over a DynamicCache that holds `context` positions."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.config)
        self._fill(cache, batch, context)
        ids = self._ids(batch, 1)

        def step() -> None:
            out = self.net(input_ids=ids, past_key_values=cache, use_cache=True)
            out.logits[:, -1].argmax(-1).tolist()

        return self.clock.figure(step, repeat=repeat)

    @torch.inference_mode()
    def compiled(self, batch: int, context: int, *, repeat: int) -> Figure:
        """One step over a StaticCache with torch.compile(mode="reduce-overhead"): minutes to compile."""
        from transformers import StaticCache

        room = context + 64
        cache = StaticCache(config=self.config, max_cache_len=room)
        ids = self._ids(batch, 1)
        net: Any = torch.compile(self.net, mode="reduce-overhead", fullgraph=False)

        def step() -> None:
            place = torch.tensor([context], device=self.clock.device)
            out = net(input_ids=ids, past_key_values=cache, cache_position=place, use_cache=True)
            out.logits[:, -1].argmax(-1).tolist()

        return self.clock.figure(step, repeat=repeat, warm=6)

    def _fill(self, cache: Any, batch: int, context: int) -> None:
        heads = self.config.num_key_value_heads
        head = (
            getattr(self.config, "head_dim", None)
            or self.config.hidden_size // self.config.num_attention_heads
        )
        for layer in range(self.config.num_hidden_layers):
            keys, values = (
                torch.randn(batch, heads, context, head, device=self.clock.device, dtype=self.dtype)
                for _ in range(2)
            )
            cache.update(keys, values, layer)

    def _ids(self, batch: int, length: int) -> Tensor:
        return torch.randint(0, 256, (batch, length), device=self.clock.device)


def rows(
    shape: Shape,
    clock: Clock,
    *,
    lengths: Sequence[int],
    batches: Sequence[int],
    context: int,
    repeat: int,
    compiled: Sequence[int] = (),
) -> dict[str, Figure]:
    """All baselines by name, the eager ones first; nothing of them remains on the device."""
    baseline = Baseline(shape, clock)
    found = {f"no cache, length {n}": baseline.without_cache(n, repeat=repeat) for n in lengths}
    for batch in batches:
        found[f"DynamicCache, batch {batch}, context {context}"] = baseline.dynamic(
            batch, context, repeat=repeat
        )
    for tokens in (80, 400, context):
        found[f"prefill {tokens}"] = baseline.prefill(tokens, repeat=repeat)
    for batch in compiled:
        clock.free()
        name = f"StaticCache compiled, batch {batch}, context {context}"
        found[name] = baseline.compiled(batch, context, repeat=repeat)
    del baseline
    clock.free()
    return found
