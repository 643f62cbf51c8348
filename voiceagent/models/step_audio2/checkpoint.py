"""Loads the weights of a checkpoint folder strictly, from safetensors only; it knows no token and no conversation.

What the files hold is compared with what `config.json` promises before a single weight is read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voiceagent.errors import CapacityError, CheckpointError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.model import StepAudio2

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INT8_ROWS = "int8_rows"

_SCALE = "_scale"  # `X.weight` as int8 rows has its factors in `X.weight_scale`
_FLOATS = {"F64", "F32", "F16", "BF16"}
_SUMMED_AT_ONCE = 1 << 24  # a CPU widens what it sums


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as a file's header announces it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def load_step_audio2(
    folder: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], None] = lambda share: None,
) -> StepAudio2:
    """The network of a checkpoint folder, in evaluation mode, without gradients.

    Args:
        folder: holds `config.json` and `model.safetensors`, or shards and their index.
        device: where the weights go, one tensor at a time, so that no second copy of them exists anywhere.
        dtype: of all weights; what is stored in another type is converted, int8 rows are multiplied out.
        progress: takes the share of the weights that is loaded, some hundred times.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, surplus or of a wrong shape, or it holds
            values that are not finite (code "bad_weights"); all named.
        CapacityError: the device has no room for the weights (code "out_of_memory").
    """
    folder = Path(folder)
    config = StepAudio2Config.from_folder(folder)
    with sizes_only():
        model = StepAudio2(config).to(dtype).requires_grad_(False).eval()
    stored = read_headers(folder)
    compare(stored, config=config, where=str(folder))
    with out_of_memory_named(device, what=f"the {_gigabytes(stored, dtype)} of weights in {folder}"):
        model.to_empty(device=device)
        _fill(model.stored(), stored, progress=progress)
    return model


def expected_shapes(config: StepAudio2Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a checkpoint with these sizes (832 for Step-Audio-2-mini); costs no memory."""
    with sizes_only():
        model = StepAudio2(config)
    return {name: tuple(part.shape) for name, part in model.stored().items()}


@contextmanager
def sizes_only() -> Iterator[None]:
    """Modules that are made inside have shapes and number types, but neither memory nor values."""
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    """Leaves out the random values of new modules: to draw them, without memory, torch would import its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[:1])
        return func(*args, **(kwargs or {}))


def weight_count(stored: Mapping[str, Stored]) -> int:
    """How many numbers the network has; the factors of int8 rows do not count."""
    return sum(math.prod(part.shape) for name, part in stored.items() if not name.endswith(_SCALE))


def quantize_rows(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every `X.weight` of two or more axes as int8 rows beside `X.weight_scale`; all other tensors unchanged.

    weight (rows, ...) float becomes int8 in -127..127 and scale (rows, 1, ...) float32, weight ~ int8 * scale, with an
    error of at most half a scale. Beside a model.safetensors of such, `config.json` must say
    `"quant_method": "int8_rows"`.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.dim() < 2 or not name.endswith(".weight"):
            out[name] = tensor
            continue
        rows = tensor.float()
        peak = rows.abs().amax(dim=tuple(range(1, rows.dim())), keepdim=True)
        scale = torch.where(peak > 0, peak / 127, torch.ones_like(peak))
        out[name] = (rows / scale).round().clamp(-127, 127).to(torch.int8)
        out[name + _SCALE] = scale
    return out


def dequantize_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 (rows, ...) times float (rows, 1, ...), as float32."""
    return weight.float() * scale.float()


def is_scale(name: str, weights: Mapping[str, Tensor]) -> bool:
    """Whether a tensor holds the factors of another one, which is stored as int8 rows."""
    of = weights.get(name.removesuffix(_SCALE))
    return name.endswith(_SCALE) and of is not None and of.dtype == torch.int8


def widen_rows(weights: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """A file's tensors with int8 rows multiplied out, as float32; the others as they are.

    Raises:
        CheckpointError: int8 rows without their factors, or with factors of a wrong shape.
    """
    out: dict[str, Tensor] = {}
    for name, part in weights.items():
        if is_scale(name, weights):
            continue
        out[name] = part
        if part.dtype == torch.int8:
            scale = weights.get(name + _SCALE)
            if scale is None or tuple(scale.shape) != scale_shape(tuple(part.shape)):
                raise _damaged(
                    f"{source}: the tensor {name} is stored as int8 without one factor for each row."
                )
            out[name] = dequantize_rows(part, scale)
    return out


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of the factors of int8 rows: (rows, 1, ...), as many axes as the tensor has."""
    return (shape[0] if shape else 1, *(1 for _ in shape[1:]))


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copies `weights` into `module`; the keys and shapes must match exactly.

    Raises:
        CheckpointError: a tensor is missing, surplus or of a wrong shape; it is named, and `source` with it.
    """
    expected = {name: tuple(part.shape) for name, part in module.state_dict().items()}
    compare_shapes({name: tuple(part.shape) for name, part in weights.items()}, expected, where=source)
    check_finite(weights, source=source)
    module.load_state_dict(dict(weights), strict=True)


def read_headers(folder: Path) -> dict[str, Stored]:
    """Name, place, shape and type of every tensor in the folder's safetensors files; no weight is read.

    Raises:
        CheckpointError: a file is missing, truncated or not safetensors, or the index does not fit the files.
    """
    if (folder / SINGLE).is_file():
        return _read_header(folder / SINGLE)
    if not (folder / INDEX).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f"; {pickled[0]} is not loaded, because a pickle can run code" if pickled else ""
        raise _damaged(f"{folder} has neither {SINGLE} nor {INDEX}{why}.")
    places = _read_index(folder / INDEX)
    stored: dict[str, Stored] = {}
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file():
            raise _damaged(f"{folder / shard} does not exist, but {INDEX} names it.")
        header = _read_header(folder / shard)
        for name in header:
            if places.get(name) != shard:
                raise _damaged(
                    f"{folder / shard} holds the tensor {name}, which {INDEX} does not place there."
                )
        stored |= header
    for name, shard in places.items():
        if name not in stored:
            raise _damaged(f"{folder / shard} lacks the tensor {name}, which {INDEX} places there.")
    return stored


def _read_index(path: Path) -> dict[str, str]:
    """Which shard holds which tensor."""
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as cause:
        raise _damaged(f"{path} cannot be read as an index with a weight_map: {cause!r}.") from cause
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise _damaged(f"{path}: weight_map does not map tensor names to file names.")
    for shard in places.values():
        if Path(shard).name != shard:
            raise _damaged(f"{path}: {shard!r} is not a file name in the checkpoint folder.")
    return places


def _read_header(path: Path) -> dict[str, Stored]:
    """A file's tensors by name; the library checks that the file is as long as its header says."""
    try:
        with safe_open(str(path), framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return {
                name: Stored(path, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }
    except (SafetensorError, OSError) as cause:
        raise _damaged(f"{path} is truncated or not a safetensors file: {cause}.") from cause


def compare(stored: Mapping[str, Stored], *, config: StepAudio2Config, where: str) -> None:
    """Checks types, and that names and shapes are exactly those of the network.

    Raises:
        CheckpointError: the first tensor that differs, and `where`.
    """
    wanted = expected_shapes(config)
    for name, tensor in stored.items():
        if tensor.dtype == "I8" and config.quantization == INT8_ROWS and name.endswith(".weight"):
            wanted[name + _SCALE] = scale_shape(tensor.shape)
        elif tensor.dtype not in _FLOATS:
            raise _damaged(f"{tensor.file}: the tensor {name} has the unsupported type {tensor.dtype}.")
    compare_shapes({name: tensor.shape for name, tensor in stored.items()}, wanted, where=where)


def compare_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, where: str
) -> None:
    """Checks that names and shapes are exactly the expected ones.

    Raises:
        CheckpointError: the first tensor that is missing, surplus or of another shape, and `where`.
    """
    missing = [name for name in expected if name not in found]
    if missing:
        raise _damaged(f"{where}: the tensor {missing[0]} is missing{_more(missing)}.")
    surplus = [name for name in found if name not in expected]
    if surplus:
        raise _damaged(f"{where}: the tensor {surplus[0]} does not belong to this model{_more(surplus)}.")
    for name, shape in expected.items():
        if found[name] != shape:
            raise _damaged(f"{where}: the tensor {name} has the shape {found[name]}, not {shape}.")


def _fill(
    places: Mapping[str, Tensor], stored: Mapping[str, Stored], *, progress: Callable[[float], None]
) -> None:
    """Copies the files' tensors into `places`, file by file; int8 rows multiplied out."""
    check, total, loaded, told = FiniteCheck(), weight_count(stored), 0, 0.0
    for path in sorted({tensor.file for tensor in stored.values()}):
        with safe_open(str(path), framework="pt") as file:
            for name, tensor in stored.items():
                if tensor.file == path and not name.endswith(_SCALE):
                    value = file.get_tensor(name)
                    if tensor.dtype == "I8":
                        value = dequantize_rows(value, _scale_of(name, stored))
                    check.add(f"{path}: the tensor {name}", places[name].copy_(value))
                    loaded += value.numel()
                    if loaded / total >= told + 0.01:
                        told = loaded / total
                        progress(told)
    check.finish()


def check_finite(weights: Mapping[str, Tensor], *, source: str) -> None:
    """Raises CheckpointError (code "bad_weights") for the first tensor with a value that is not finite."""
    check = FiniteCheck()
    for name, part in weights.items():
        if part.is_floating_point():
            check.add(f"{source}: the tensor {name}", part)
    check.finish()


class FiniteCheck:
    """Finds weights that are NaN or infinite: a sum of each on its own device, one look at all sums in the end."""

    def __init__(self) -> None:
        self._sums: list[tuple[str, Tensor]] = []

    def add(self, name: str, part: Tensor) -> None:
        """Notes a tensor as `name`, which begins the error's message."""
        # A NaN or an infinity makes the sum so. Float32 cannot overflow otherwise: finite weights are far too small.
        for block in torch.split(part.detach().flatten(), _SUMMED_AT_ONCE):
            self._sums.append((name, block.sum(dtype=torch.float32)))

    def finish(self) -> None:
        """Raises CheckpointError (code "bad_weights") for the first tensor that is not finite."""
        if not self._sums:
            return
        finite = torch.stack([total for _, total in self._sums]).isfinite().tolist()
        bad = list(
            dict.fromkeys(name for (name, _), good in zip(self._sums, finite, strict=True) if not good)
        )
        if bad:
            raise CheckpointError(
                f"{bad[0]} holds values that are not finite{_more(bad)}.",
                code="bad_weights",
                remedy="Download or export the checkpoint again; with float16, try bfloat16 or float32.",
            )


@contextmanager
def out_of_memory_named(device: torch.device | str, *, what: str) -> Iterator[None]:
    """Turns a device's or the machine's lack of memory into CapacityError "out_of_memory", which says what for."""
    try:
        yield
    except (MemoryError, RuntimeError) as cause:  # torch has a class of its own for GPUs, none for the CPU
        if not isinstance(cause, MemoryError) and not re.search(
            "not enough memory|out of memory|allocate memory", str(cause)
        ):
            raise
        raise CapacityError(
            f"{device} has no room for {what}.",
            code="out_of_memory",
            remedy="End other programs on it, use a smaller dtype (bfloat16), or another device; "
            "`voiceagent doctor` compares what is needed with what is there.",
        ) from cause


def _gigabytes(stored: Mapping[str, Stored], dtype: torch.dtype) -> str:
    return f"{weight_count(stored) * dtype.itemsize / 1e9:.1f} GB"


def _scale_of(name: str, stored: Mapping[str, Stored]) -> Tensor:
    """The row factors of an int8 weight, wherever they are stored."""
    with safe_open(str(stored[name + _SCALE].file), framework="pt") as file:
        scale: Tensor = file.get_tensor(name + _SCALE)
    return scale


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _damaged(message: str) -> CheckpointError:
    return CheckpointError(message, remedy="Download or export the checkpoint folder again.")
