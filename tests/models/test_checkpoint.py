from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoint import tiny_config, tiny_weights, write_checkpoint, write_config, write_shards
from torch import Tensor, nn

from voiceagent.errors import CapacityError, CheckpointError
from voiceagent.models.step_audio2.checkpoint import (
    dequantize_rows,
    load_step_audio2,
    load_strictly,
    out_of_memory_named,
    quantize_rows,
    widen_rows,
)

WEIGHTS = tiny_weights()
NORM = "model.norm.weight"
UP = "model.layers.1.mlp.up_proj.weight"
INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00003.safetensors"


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, part in expected.items():
        assert torch.equal(state[name], part), name


def test_a_single_file(tmp_path: Path) -> None:
    model = load_step_audio2(write_checkpoint(tmp_path, WEIGHTS))
    assert_same(model.state_dict(), WEIGHTS)
    assert not model.training
    assert not any(part.requires_grad for part in model.parameters())


def test_shards_with_an_index(tmp_path: Path) -> None:
    assert_same(load_step_audio2(write_shards(tmp_path, WEIGHTS)).state_dict(), WEIGHTS)


def test_loading_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[float] = []
    load_step_audio2(write_shards(tmp_path, WEIGHTS), progress=told.append)
    assert told == sorted(told)
    assert 3 < len(told) <= 100
    assert told[-1] > 0.99


def test_weights_are_converted(tmp_path: Path) -> None:
    half = {name: part.half() for name, part in WEIGHTS.items()}
    model = load_step_audio2(write_checkpoint(tmp_path, half), dtype=torch.bfloat16)
    assert {part.dtype for part in model.state_dict().values()} == {torch.bfloat16}


def test_loading_does_not_depend_on_the_file_afterwards(tmp_path: Path) -> None:
    model = load_step_audio2(write_checkpoint(tmp_path, WEIGHTS))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert_same(model.state_dict(), WEIGHTS)


def test_int8_rows_come_back(tmp_path: Path) -> None:
    small = quantize_rows(WEIGHTS)
    assert small[UP].dtype == torch.int8
    assert small[UP + "_scale"].shape == (48, 1)
    assert small[NORM] is WEIGHTS[NORM]
    write_config(tmp_path, tiny_config(quantization="int8_rows"))
    save_file(small, tmp_path / "model.safetensors")
    state = load_step_audio2(tmp_path).state_dict()
    assert state.keys() == WEIGHTS.keys()
    for name, part in WEIGHTS.items():
        limit = 0.501 * small[name + "_scale"] if name + "_scale" in small else torch.zeros(1)
        assert bool(((state[name] - part).abs() <= limit).all()), name


def test_int8_rows_across_shards_and_with_zero_rows(tmp_path: Path) -> None:
    weights = {name: part.clone() for name, part in WEIGHTS.items()}
    weights[UP][3] = 0
    small = quantize_rows(weights)
    write_shards(tmp_path, small)
    write_config(tmp_path, tiny_config(quantization="int8_rows"))
    state = load_step_audio2(tmp_path).state_dict()
    assert torch.equal(state[UP], dequantize_rows(small[UP], small[UP + "_scale"]))
    assert not state[UP][3].any()


CONV = "encoder.conv1.weight"


def test_rows_of_kernels_have_one_factor_each() -> None:
    small = quantize_rows(WEIGHTS)
    assert small[CONV].dtype == torch.int8
    assert small[CONV + "_scale"].shape == (len(WEIGHTS[CONV]), 1, 1)


def test_a_plain_file_may_hold_int8_rows_too() -> None:
    stored = quantize_rows(WEIGHTS)
    whole = widen_rows(stored, source="flow.pt")
    assert whole.keys() == WEIGHTS.keys()
    assert all(part.dtype == torch.float32 for part in whole.values())
    assert bool(((whole[UP] - WEIGHTS[UP]).abs() <= 0.501 * stored[UP + "_scale"]).all())
    assert_same(widen_rows(WEIGHTS, source="flow.pt"), WEIGHTS)  # as published files are
    wrong: list[dict[str, Tensor]] = [{}, {UP + "_scale": torch.ones(48)}]
    for scale in wrong:
        damaged = {name: part for name, part in stored.items() if name != UP + "_scale"} | scale
        with pytest.raises(CheckpointError, match=rf"{UP} is stored as int8 without one factor for each row"):
            widen_rows(damaged, source="flow.pt")


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.__delitem__(name)


def with_(name: str, part: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.__setitem__(name, part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(NORM), rf"the tensor {NORM} is missing\."),
        (with_("model.extra.weight", torch.zeros(2)), r"model\.extra\.weight does not belong"),
        (with_(NORM, torch.zeros(31)), rf"{NORM} has the shape \(31,\), not \(32,\)"),
        (with_(NORM, torch.zeros(32, dtype=torch.int64)), rf"{NORM} has the unsupported type I64"),
        (with_(UP, torch.zeros(48, 32, dtype=torch.int8)), rf"{UP} has the unsupported type I8"),
        (with_(UP + "_scale", torch.ones(48, 1)), rf"{UP}_scale does not belong"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    weights = dict(WEIGHTS)
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_step_audio2(write_checkpoint(tmp_path, weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(UP + "_scale"), rf"{UP}_scale is missing"),
        (with_(UP + "_scale", torch.ones(48)), rf"{UP}_scale has the shape \(48,\), not \(48, 1\)"),
    ],
)
def test_a_scale_that_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    small = quantize_rows(WEIGHTS)
    change(small)
    write_config(tmp_path, tiny_config(quantization="int8_rows"))
    save_file(small, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_step_audio2(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    weights = {name: part.clone() for name, part in WEIGHTS.items()}
    weights[UP][3, 5] = value
    with pytest.raises(CheckpointError, match=rf"{UP} holds values that are not finite\.") as caught:
        load_step_audio2(write_checkpoint(tmp_path, weights))
    assert caught.value.code == "bad_weights"


def test_weights_too_large_for_the_dtype_are_named(tmp_path: Path) -> None:
    weights = {name: part.clone() for name, part in WEIGHTS.items()}
    weights[UP][0, 0] = 1e5
    folder = write_checkpoint(tmp_path, weights)
    assert load_step_audio2(folder, dtype=torch.bfloat16).config.text.hidden_size == 32
    with pytest.raises(CheckpointError, match=rf"{UP} holds values .*bfloat16"):
        load_step_audio2(folder, dtype=torch.float16)


def test_a_nan_among_the_factors_of_int8_rows(tmp_path: Path) -> None:
    small = quantize_rows(WEIGHTS)
    small[UP + "_scale"][7] = float("nan")
    write_config(tmp_path, tiny_config(quantization="int8_rows"))
    save_file(small, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{UP} holds values that are not finite"):
        load_step_audio2(tmp_path)


def test_a_device_without_room(tmp_path: Path) -> None:
    with (
        pytest.raises(CapacityError, match=r"has no room for the 1\.0 GB of weights") as caught,
        out_of_memory_named("cuda:0", what="the 1.0 GB of weights"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.06 GiB.")
    assert caught.value.code == "out_of_memory"
    with pytest.raises(CapacityError, match="cpu has no room"), out_of_memory_named("cpu", what="a tensor"):
        torch.empty(1 << 60, dtype=torch.int8)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), out_of_memory_named("cpu", what="a product"):
        torch.ones(2, 3) @ torch.ones(2, 3)


def truncate(folder: Path) -> None:
    whole = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(whole[:-100])


def shuffle_index(folder: Path) -> None:
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    places[NORM] = next(shard for shard in places.values() if shard != places[NORM])
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def promise_more(folder: Path) -> None:
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": places | {"ghost": FIRST}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, rf"{FIRST} is truncated"),
        (lambda folder: (folder / FIRST).write_bytes(b"PK\x03\x04pickle"), rf"{FIRST} is truncated or not"),
        (lambda folder: (folder / FIRST).unlink(), rf"{FIRST} does not exist"),
        (lambda folder: (folder / INDEX).write_text("{"), r"index\.json cannot be read"),
        (lambda folder: (folder / INDEX).write_text("[]"), r"index\.json cannot be read"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": 1}'), "does not map"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "../x"}}'), "not a file name"),
        (shuffle_index, rf"holds the tensor {NORM}"),
        (promise_more, "lacks the tensor ghost"),
        (lambda folder: (folder / INDEX).unlink(), r"neither model\.safetensors nor"),
    ],
)
def test_a_damaged_folder_names_its_file(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_shards(tmp_path, WEIGHTS))
    with pytest.raises(CheckpointError, match=message):
        load_step_audio2(tmp_path)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    write_config(tmp_path, tiny_config())
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is not loaded, because a pickle"):
        load_step_audio2(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        load_step_audio2(tmp_path / "nowhere")


def test_strict_loading_of_any_module() -> None:
    module = nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    load_strictly(module, state, source="hift.pt")
    assert torch.equal(module.weight, state["weight"])
    with pytest.raises(CheckpointError, match=r"hift\.pt: the tensor bias is missing"):
        load_strictly(module, {"weight": state["weight"]}, source="hift.pt")
    with pytest.raises(CheckpointError, match=r"flow\.pt: the tensor bias holds values that are not finite"):
        load_strictly(module, state | {"bias": torch.full((3,), torch.nan)}, source="flow.pt")
