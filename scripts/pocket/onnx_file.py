"""Writes a small network as an ONNX file of half the size: weights stored as float16, computed in float32."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


def write_onnx(
    network: nn.Module,
    path: Path,
    *,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    output: str,
    dynamic: dict[str, dict[int, str]],
) -> int:
    """Traces `network` on `example`, halves its weights, checks and writes the file; returns its bytes.

    `dynamic` names the axes of inputs and output that vary, as torch.onnx.export takes them.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated, but needs no further package
        torch.onnx.export(
            network.eval(),
            example,
            buffer,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _halve_weights(model)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    partial = path.with_suffix(".tmp")
    partial.write_bytes(data)
    partial.rename(path)
    return len(data)


def _halve_weights(model: onnx.ModelProto) -> None:
    """Stores float32 matrices and kernels as float16 behind a Cast, which a runtime folds when it loads."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)


def round_to_half(network: nn.Module) -> None:
    """Rounds matrices and kernels to float16 in place, so that the network computes what its file will compute."""
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.dtype == torch.float32 and tensor.ndim >= 2:
                tensor.copy_(tensor.half().float())
