"""Int8 rows beside a matrix: the same numbers, and nearly the same products."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny_checkpoint import tiny_config, tiny_weights, write_config

from voiceagent.models.step_audio2.checkpoint import dequantize_rows, quantize_rows
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.kernels import int8, linear
from voiceagent.models.step_audio2.prompt import Prompt
from voiceagent.models.step_audio2.sampling import GREEDY


def stored(outputs: int, inputs: int) -> torch.Tensor:
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs) * torch.rand(outputs, 1)
    weight[3] = 0.0
    return weight


def test_packing_finds_the_rows_again_that_a_matrix_was_stored_as() -> None:
    weight = stored(40, 64)
    state = quantize_rows({"a.weight": weight})
    rows, scale = state["a.weight"], state["a.weight_scale"]
    packed = int8.pack(dequantize_rows(rows, scale))
    torch.testing.assert_close(packed.rows, rows)
    torch.testing.assert_close(packed.scale, scale[:, 0])


def test_products_are_those_of_the_whole_matrix_and_rows_do_not_touch_each_other() -> None:
    packed = int8.pack(dequantize_rows(*quantize_rows({"a.weight": stored(40, 64)}).values()))
    for count in (1, 3, int8.MOST_ROWS, int8.MOST_ROWS + 1):
        x = torch.randn(count, 64)
        exact = F.linear(x, packed.whole)
        assert (packed.product(x) - exact).norm() < 5e-3 * exact.norm()
        if count <= int8.MOST_ROWS:
            assert torch.equal(packed.product(x)[:1], packed.product(x[:1]))
    x, bias, residual = torch.randn(2, 64), torch.randn(40), torch.randn(2, 40)
    whole = linear.small(x, packed.whole, bias, norm=torch.ones(64), residual=residual)
    found = linear.small(x, packed, bias, norm=torch.ones(64), residual=residual)
    torch.testing.assert_close(found, whole, atol=0.05, rtol=0.05)
    torch.testing.assert_close(linear.gated(x, packed), linear.gated(x, packed.whole), atol=0.1, rtol=0.1)


def test_an_int8_checkpoint_answers_from_its_rows(tmp_path: Path) -> None:
    write_config(tmp_path, tiny_config(quantization="int8_rows"))
    save_file(quantize_rows(tiny_weights()), tmp_path / "model.safetensors")
    model = LanguageModel.load(tmp_path)
    matrix = model.network.model.layers[0].self_attn.qkv
    assert (matrix.packed is not None) == int8.available()
    reply = model.generate(model.open(), Prompt((5, 6, 7), (), spoken=True), GREEDY, max_tokens=4)
    for _ in range(4):
        reply.step()
    assert reply.context.slots[:3] == (5, 6, 7)
