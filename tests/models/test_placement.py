"""Where a checkpoint's parts go, on machines that are not here; and the published sizes on cards of several sizes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.real_config import REAL_MINI
from tests.models.real_tensors import FLOW_YAML, language_tensors
from voiceagent.errors import CapacityError, ConfigError
from voiceagent.models import placement
from voiceagent.models.placement import Needs, Placement, place
from voiceagent.models.step_audio2.checkpoint import Stored
from voiceagent.models.step_audio2.t2w_room import SpeechRoom

GB = 1_000_000_000


@dataclass
class Imagined:
    """A machine with these GPUs: free bytes of each."""

    cards: list[int] = field(default_factory=list)
    memory: int = 64 * GB
    modern: bool = True

    def gpus(self) -> int:
        return len(self.cards)

    def has_bfloat16(self, device: str) -> bool:
        return self.modern

    def free(self, device: str) -> int:
        return self.memory if device == "cpu" else self.cards[int(device.removeprefix("cuda:"))]


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published folder's sizes; its weight files exist only as headers."""
    (tmp_path / "config.json").write_text(json.dumps(REAL_MINI))
    (tmp_path / "token2wav").mkdir()
    (tmp_path / "token2wav" / "flow.yaml").write_text(FLOW_YAML)
    headers = {name: Stored(tmp_path, shape, "BF16") for name, shape in language_tensors().items()}
    monkeypatch.setattr(placement, "read_headers", lambda folder: headers)
    return tmp_path


def test_the_published_sizes(mini: Path) -> None:
    needs = Needs.of(mini)
    assert 2 * needs.language == 16_630_358_528
    assert (needs.flow, needs.position * 2, needs.positions) == (155_802_352, 57_344, 16384)
    room = SpeechRoom.of(needs.speech, torch.bfloat16)
    assert 60e6 < room.stream < 80e6
    assert room.least < 0.9 * GB


def test_one_large_card(mini: Path) -> None:
    where = place(mini, max_sessions=32, machine=Imagined([140 * GB]))
    assert (where.device, where.speech_device) == ("cuda:0", "cuda:0")
    assert (where.dtype, where.speech_dtype) == (torch.bfloat16, torch.bfloat16)
    assert where.kv_bytes == 32 * 57_344 * 16384  # every session may be as long as the model allows
    assert 18 * GB < where.needed["cuda:0"] < 24 * GB
    assert total(where) < 0.951 * 140 * GB


@pytest.mark.parametrize(
    ("card", "positions", "streams"),
    [(22, 24_000, 1), (25, 60_000, 12), (32, 130_000, 25), (40, 260_000, 32)],
)
def test_smaller_cards_hold_shorter_conversations(
    mini: Path, card: int, positions: int, streams: int
) -> None:
    """24 sessions of some length on 25 GB, 32 long ones on 40: what is there is shared out to the last."""
    where = place(mini, max_sessions=32, machine=Imagined([card * GB]))
    assert where.kv_bytes // where.position_bytes >= positions
    assert where.speech_streams >= streams
    assert total(where) <= 0.951 * card * GB


@pytest.mark.parametrize("card", [24, 25, 40, 48, 80])
def test_what_is_planned_for_speech_is_what_speech_makes_of_it(mini: Path, card: int) -> None:
    where = place(mini, max_sessions=16, machine=Imagined([card * GB]))
    room = SpeechRoom.of(Needs.of(mini).speech, where.speech_dtype)
    found = room.divide(where.speech_bytes)
    assert found["slots"] == where.speech_streams
    assert found["prompt_tokens"] >= 500
    assert (found["slots"] + 1) * room.stream + found["prompt_tokens"] * room.token <= where.speech_bytes


def total(where: Placement) -> int:
    """All that will lie on the first card."""
    return where.fixed["cuda:0"] + where.kv_bytes + where.speech_bytes


def test_a_card_that_is_too_small_names_both_numbers(mini: Path) -> None:
    with pytest.raises(
        CapacityError, match=r"cuda:0 has 16\.0 GB of memory free and 2\d\.\d GB are needed"
    ) as caught:
        place(mini, machine=Imagined([16 * GB]))
    assert caught.value.code == "out_of_memory"
    assert "17.5 GB for the language model and its work, 0.9 GB for one conversation" in caught.value.message
    assert caught.value.remedy.endswith("or use a device with 22 GB free.")
    place(mini, machine=Imagined([22 * GB]))  # the advice is right
    with pytest.raises(CapacityError, match=r"38\.\d GB are needed"):
        place(mini, dtype="float32", machine=Imagined([30 * GB]))


def test_speech_on_a_card_of_its_own(mini: Path) -> None:
    machine = Imagined([20 * GB, 8 * GB])
    where = place(mini, speech_device="cuda:1", speech_dtype="float16", max_sessions=32, machine=machine)
    assert (where.device, where.speech_device, where.speech_dtype) == ("cuda:0", "cuda:1", torch.float16)
    assert where.needed["cuda:0"] < 0.95 * 20 * GB
    with pytest.raises(CapacityError, match=r"cuda:1 has 0\.3 GB"):
        place(mini, speech_device="cuda:1", machine=Imagined([24 * GB, 300_000_000]))


def test_conversations_get_what_speech_has_really_left(mini: Path) -> None:
    """The graphs of speech may take more than was planned; what conversations get is settled after that."""
    card = Imagined([40 * GB])
    where = place(mini, max_sessions=64, machine=card)
    card.cards[0] -= 3 * GB
    room = where.kv_room(card)
    assert where.kv_bytes < room  # nothing but those 3 GB is taken yet, the weights are still to come
    assert room + where.language_bytes <= 0.951 * card.cards[0]
    card.cards[0] = 140 * GB
    assert where.kv_room(card) == 64 * 57_344 * 16384
    card.cards[0] = 18 * GB
    with pytest.raises(CapacityError, match=r"cuda:0 has 18\.0 GB of memory free"):
        where.kv_room(card)
    named = place(mini, kv_memory_mb=2000, machine=Imagined([40 * GB]))
    assert named.kv_room(Imagined([30 * GB])) == 2 * GB
    assert place(mini, machine=Imagined()).kv_room() > 0


def test_budgets_that_are_named_are_kept_or_refused(mini: Path) -> None:
    machine = Imagined([40 * GB])
    where = place(mini, kv_memory_mb=8000, speech_memory_mb=2000, machine=machine)
    assert (where.kv_bytes, where.speech_bytes) == (8 * GB, 2 * GB)
    with pytest.raises(
        CapacityError, match=r"30\.0 GB for conversations \(engine\.kv_memory_mb\)"
    ) as refused:
        place(mini, kv_memory_mb=30_000, machine=machine)
    follow(refused.value, mini, machine, kv_memory_mb=30_000)
    with pytest.raises(
        CapacityError, match=r"speech streams and voices \(engine\.speech_memory_mb\)"
    ) as refused:
        place(mini, speech_memory_mb=25_000, machine=machine)
    follow(refused.value, mini, machine, speech_memory_mb=25_000)
    with pytest.raises(CapacityError) as refused:
        place(mini, kv_memory_mb=30_000, speech_memory_mb=25_000, machine=machine)
    assert "Set engine.kv_memory_mb and engine.speech_memory_mb to 0" in refused.value.remedy


def follow(refused: CapacityError, folder: Path, machine: Imagined, **settings: Any) -> None:
    """Does what the remedy says, after which everything fits; and one megabyte more does not."""
    found = re.fullmatch(r"Set engine\.(\w+) to (\d+) or less; 0 works it out\.", refused.remedy)
    assert found is not None, refused.remedy
    key, most = found[1], int(found[2])
    place(folder, machine=machine, **{**settings, key: most})
    with pytest.raises(CapacityError):
        place(folder, machine=machine, **{**settings, key: most + 1})
    place(folder, machine=machine, **{**settings, key: 0})


def test_budgets_that_are_too_small_say_how_much_there_must_be(mini: Path) -> None:
    machine = Imagined([40 * GB])
    with pytest.raises(
        ConfigError, match=r"100\.0 MB are too little for speech: two streams take 148\.0 MB"
    ) as refused:
        place(mini, speech_memory_mb=100, machine=machine)
    assert refused.value.param == "engine.speech_memory_mb"
    least = int(re.findall(r"to (\d+) or more", refused.value.remedy)[0])
    assert place(mini, speech_memory_mb=least, machine=machine).speech_streams == 1
    with pytest.raises(ConfigError, match="too little for speech"):
        place(mini, speech_memory_mb=least - 1, machine=machine)
    with pytest.raises(ConfigError, match=r"engine\.kv_memory_mb = 2 is too little") as refused:
        place(mini, kv_memory_mb=2, machine=machine)
    assert refused.value.param == "engine.kv_memory_mb"
    assert place(mini, kv_memory_mb=4, machine=machine).kv_bytes == 4_000_000


def test_another_card_is_named_if_it_would_do(mini: Path) -> None:
    with pytest.raises(CapacityError) as refused:
        place(mini, machine=Imagined([20 * GB, 8 * GB]))
    assert "Set engine.speech_device to cuda:1, which has room for speech." in refused.value.remedy
    place(mini, speech_device="cuda:1", machine=Imagined([20 * GB, 8 * GB]))
    with pytest.raises(CapacityError) as refused:
        place(mini, machine=Imagined([20 * GB, 1 * GB, 40 * GB]))
    assert "Set engine.device to cuda:2, which has room for all of it." in refused.value.remedy
    with pytest.raises(CapacityError) as refused:
        place(mini, speech_device="cuda:1", machine=Imagined([24 * GB, 1 * GB, 8 * GB]))
    assert "Set engine.speech_device to cuda:2" in refused.value.remedy
    with pytest.raises(CapacityError) as refused:
        place(mini, dtype="float32", machine=Imagined([30 * GB]))
    assert "Set engine.dtype to bfloat16" in refused.value.remedy
    with pytest.raises(CapacityError) as refused:
        place(mini, device="cpu", machine=Imagined(memory=8 * GB))
    assert "cuda" not in str(refused.value)


@pytest.mark.parametrize("head_dim", [96, 8, 80])
def test_sizes_that_no_kernel_can_be_cut_for_run_on_a_cpu_only(mini: Path, head_dim: int) -> None:
    config = json.loads((mini / "config.json").read_text())
    config["text_config"]["head_dim"] = head_dim
    (mini / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=f"head_dim is {head_dim}; its kernels take powers of two"
    ) as refused:
        place(mini, machine=Imagined([140 * GB]))
    assert refused.value.code == "device_unavailable"
    assert "--device cpu" in refused.value.remedy
    place(mini, device="cpu", machine=Imagined([140 * GB]))
    (mini / "token2wav" / "flow.yaml").write_text(FLOW_YAML.replace("num_heads: 8", "num_heads: 6"))
    with pytest.raises(ConfigError, match=r"heads of"):
        place(mini, device="cpu", speech_device="cuda:0", machine=Imagined([140 * GB]))


def test_a_cpu_and_an_old_card(mini: Path) -> None:
    where = place(mini, machine=Imagined(memory=64 * GB, modern=False))
    assert (where.device, where.dtype, where.speech_dtype) == ("cpu", torch.float32, torch.float32)
    where = place(mini, machine=Imagined(memory=64 * GB))
    assert (where.dtype, where.speech_dtype) == (torch.float32, torch.bfloat16)
    where = place(mini, machine=Imagined([40 * GB], modern=False))
    assert (where.dtype, where.speech_dtype) == (torch.float16, torch.float16)


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (
            {"device": "cuda:3"},
            "device_unavailable",
            "torch sees 2 CUDA GPU(s). Here are cpu, cuda:0, cuda:1",
        ),
        ({"speech_device": "cuda:2"}, "device_unavailable", "'cuda:2' cannot be used"),
        ({"device": "gpu"}, "device_unavailable", "neither cpu nor cuda:N"),
        ({"device": "cuda:"}, "device_unavailable", "neither cpu nor cuda:N"),
        ({"dtype": "int3"}, "dtype_unsupported", "engine.dtype = 'int3'"),
        (
            {"device": "cpu", "dtype": "float16"},
            "dtype_unsupported",
            "engine.dtype = 'float16' does not run on the CPU",
        ),
        (
            {"speech_device": "cpu", "speech_dtype": "float16"},
            "dtype_unsupported",
            "engine.speech_dtype = 'float16' does not run on the CPU",
        ),
    ],
)
def test_wrong_combinations(asked: dict[str, Any], code: str, words: str, mini: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        place(mini, machine=Imagined([140 * GB, 140 * GB]), **asked)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cuda_without_a_gpu_and_bfloat16_on_an_old_one(mini: Path) -> None:
    with pytest.raises(ConfigError, match="torch sees no CUDA GPU"):
        place(mini, device="cuda", machine=Imagined())
    with pytest.raises(ConfigError, match="too old for it"):
        place(mini, dtype="bfloat16", machine=Imagined([140 * GB], modern=False))


def test_pocket_on_a_small_machine(pocket_dir: Path) -> None:
    where = place(pocket_dir, device="cpu", machine=Imagined([40 * GB], memory=2 * GB))
    assert (where.device, where.speech_device) == ("cpu", "cpu")
    assert where.kv_bytes + where.speech_bytes < GB


def test_this_machine(pocket_dir: Path) -> None:
    where = place(pocket_dir, device="cpu")
    assert 100_000_000 < where.needed["cpu"] < where.free["cpu"]
