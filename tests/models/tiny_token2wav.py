"""A token2wav folder with random weights, and ONNX files that compute something simple of the right shapes."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from voiceagent.models.step_audio2.flow import FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import stored_weights
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet

FLOW_YAML = """\
flow: !new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec
    input_size: 16
    output_size: 80
    spk_embed_dim: 192
    output_type: 'mel'
    vocab_size: 6561
    encoder: !new:cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2
        input_size: 16
        output_size: 16
        input_layer: 'linear'
        pre_lookahead_len: 3
        num_blocks: 1
        num_up_blocks: 1
        up_stride: 2
        up_scale_factor: 2
        attention_heads: 2
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        key_bias: true
        linear_units: 16
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
    decoder: !new:cosyvoice2.flow.flow_matching.CausalConditionalCFM
        inference_cfg_rate: 0.7
        estimator: !new:cosyvoice2.flow.decoder_dit.DiT
            in_channels: 320
            out_channels: 80
            mlp_ratio: 2.0
            depth: 1
            num_heads: 2
            head_dim: 8
            hidden_size: 16
"""


def write_token2wav(root: Path, *, voices: tuple[str, ...] = ("default_female", "default_male")) -> Path:
    """Fills `root`/token2wav, and `root` with recordings; returns the token2wav folder."""
    folder = root / "token2wav"
    folder.mkdir()
    torch.manual_seed(11)
    (folder / "flow.yaml").write_text(FLOW_YAML)
    torch.save(FlowNet(FlowConfig.from_file(folder / "flow.yaml")).state_dict(), folder / "flow.pt")
    (folder / "hift.yaml").write_text("base_channels: 16\nf0_channels: 16\n")
    torch.save(stored_weights(HiftNet(HiftConfig(16, 16))), folder / "hift.pt")
    write_tokenizer(folder / "speech_tokenizer_v2_25hz.onnx")
    write_speaker(folder / "campplus.onnx")
    for i, name in enumerate(voices):
        write_recording(root / f"{name}.wav", speech(1.0 + 0.3 * i, seed=i))
    return folder


def write_tokenizer(path: Path, *, highest: float = 6560.0) -> None:
    """Input names unlike the published ones; the id of four frames is their loudest band, scaled to the ids."""
    nodes = [
        helper.make_node("ReduceMax", ["a", "axes"], ["peak"], keepdims=1),
        helper.make_node("MaxPool", ["peak"], ["pooled"], kernel_shape=[4], strides=[4], ceil_mode=1),
        helper.make_node("Sigmoid", ["pooled"], ["unit"]),
        helper.make_node("Mul", ["unit", "top"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Squeeze", ["whole", "axes"], ["ids"]),
        helper.make_node("Identity", ["b"], ["length"]),
    ]
    constants = {"axes": np.array([1], np.int64), "top": np.array(highest, np.float32)}
    inputs = [("a", TensorProto.FLOAT, [1, 128, "t"]), ("b", TensorProto.INT32, [1])]
    outputs = [("ids", TensorProto.INT32, [1, "n"]), ("length", TensorProto.INT32, [1])]
    _write(path, nodes, constants, inputs, outputs)


def write_speaker(path: Path) -> None:
    """The mean square over time, mixed into 192 values."""
    matrix = np.random.default_rng(2).normal(size=(80, 192)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["vector"]),
    ]
    constants = {"axes": np.array([1], np.int64), "matrix": matrix}
    inputs = [("x", TensorProto.FLOAT, [1, "t", 80])]
    _write(path, nodes, constants, inputs, [("vector", TensorProto.FLOAT, [1, 192])])


def _write(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, npt.NDArray[np.generic]],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*part) for part in inputs],
        [helper.make_tensor_value_info(*part) for part in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def speech(seconds: float, *, seed: int = 0, rate: int = 16_000) -> npt.NDArray[np.float32]:
    """Something with a pitch and a rhythm, below 4 kHz."""
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * (120 + 40 * seed) * k * t) / k for k in range(1, 9))
    return (0.1 * tones * (1.1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def write_recording(
    path: Path, samples: npt.NDArray[np.float32], *, rate: int = 16_000, channels: int = 1
) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.repeat(samples, channels) * 32767).astype("<i2").tobytes())
