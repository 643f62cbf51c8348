from __future__ import annotations

import json
import shutil
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from scripts.pocket import card
from scripts.pocket.features import MELS
from scripts.pocket.onnx_file import write_onnx
from scripts.pocket.package import LIMIT_BYTES, VOICES, halve, package, rounding
from scripts.pocket.speech_tokenizer_model import Exported, Shape, SpeechTokenizer
from scripts.pocket.train_flow import FLOW_YAML
from scripts.pocket.train_speaker import SpeakerEncoder
from voiceagent.models.folder import missing_files
from voiceagent.models.inspection import checks
from voiceagent.models.step_audio2.checkpoint import load_step_audio2
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import stored_weights
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.model import StepAudio2

ASSETS = Path(__file__).resolve().parents[2] / "voiceagent" / "assets" / "pocket"
SHIPPED_LIMIT = 70_000_000  # version 0 has a flow in half precision; package.py makes nothing above 60 MB now
CARD = "# A card\n\n<!-- files -->\n\nold\n\n<!-- /files -->\n\nafter\n"


def small(config: StepAudio2Config) -> StepAudio2Config:
    text = replace(
        config.text, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    text = replace(text, num_key_value_heads=1, head_dim=16)
    audio = replace(
        config.audio, n_audio_state=32, n_audio_head=2, n_audio_layer=1, llm_dim=32, adapter_hidden=24
    )
    return replace(config, text=text, audio=audio, quantization=None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small config.json, the shipped text tokenizer and a card."""
    folder = tmp_path_factory.mktemp("base")
    config = small(StepAudio2Config.from_folder(ASSETS))
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(ASSETS / name, folder / name)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Random networks where training leaves its own, the language model with a head that only training has."""
    folder = tmp_path_factory.mktemp("ck")
    torch.manual_seed(0)
    language = StepAudio2(StepAudio2Config.from_folder(base)).state_dict()
    torch.save({name: value.half() for name, value in language.items()} | {"ctc.weight": torch.zeros(2, 2)},
               folder / "lm16.pt")  # fmt: skip
    flow = FlowNet(FlowConfig.from_text(FLOW_YAML, source="flow.yaml"))
    torch.save({"model": flow.state_dict(), "step": 1}, folder / "flow.pt")
    widths = {"base_channels": 32, "f0_channels": 32}
    torch.save(stored_weights(HiftNet(HiftConfig(**widths))), folder / "hift.pt")
    (folder / "hift.yaml").write_text("".join(f"{name}: {value}\n" for name, value in widths.items()))
    tokenizer = SpeechTokenizer(Shape(dim=32, heads=2, blocks=1, reader_blocks=1))
    write_onnx(
        Exported(tokenizer).eval(),
        folder / "speech_tokenizer.onnx",
        example=(torch.zeros(1, MELS, 161), torch.tensor([161], dtype=torch.int32)),
        inputs=["feats", "feats_length"],
        output="ids",
        dynamic={"feats": {2: "frames"}, "ids": {1: "tokens"}},
    )
    write_onnx(
        SpeakerEncoder().eval(),
        folder / "campplus.onnx",
        example=(torch.randn(1, 177, 80),),
        inputs=["input"],
        output="output",
        dynamic={"input": {1: "frames"}},
    )
    return folder


def hum(_text: str, speaker: str) -> NDArray[np.int16]:
    """Four seconds of a vowel-like sound instead of flite."""
    time = np.arange(64_000) / 16_000
    pitch = {"slt": 180, "rms": 110}[speaker]
    return (4000 * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))).astype(np.int16)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory, trained: Path, base: Path) -> tuple[Path, int]:
    to = tmp_path_factory.mktemp("packaged") / "pocket"
    return to, package(trained, to, base=base, speak=hum)


def test_folder_is_complete_and_its_size_is_told(packaged: tuple[Path, int]) -> None:
    folder, total = packaged
    assert missing_files(folder) == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert total == sum(path.stat().st_size for path in files if path.name != "README.md")


def test_matrices_are_int8_rows_close_to_what_was_trained(packaged: tuple[Path, int], trained: Path) -> None:
    folder, _ = packaged
    stored = load_file(folder / "model.safetensors")
    assert stored["lm_head.weight"].dtype == torch.int8
    assert stored["model.norm.weight"].dtype == torch.float16
    assert not any(name.startswith("ctc") for name in stored)
    want = torch.load(trained / "lm16.pt", weights_only=True)
    for name, weight in load_step_audio2(folder).state_dict().items():
        error = (weight - want[name].float()).abs().max().item()
        assert error <= want[name].abs().max().item() / 127 * 0.51, name


def test_flow_is_int8_rows_that_sound_as_trained(packaged: tuple[Path, int], trained: Path) -> None:
    folder, total = packaged
    stored = torch.load(folder / "token2wav" / "flow.pt", weights_only=True)
    assert stored["encoder_proj.weight"].dtype == torch.int8
    assert stored["encoder_proj.weight_scale"].shape == (80, 1)
    assert stored["encoder.up_layer.conv.weight"].dtype == torch.int8
    assert total < LIMIT_BYTES
    assert rounding(trained / "flow.pt", folder) < 0.1
    assert all(check() for _, check in checks(folder))  # none finds anything wrong


def test_voices_are_24_khz_mono_16_bit(packaged: tuple[Path, int]) -> None:
    for name in VOICES:
        with wave.open(str(packaged[0] / f"{name}.wav")) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
            assert 3.5 <= file.getnframes() / 24_000 <= 5.0


def test_card_lists_every_file_and_keeps_its_other_text(packaged: tuple[Path, int]) -> None:
    folder, _ = packaged
    text = (folder / "README.md").read_text()
    assert text.startswith("# A card\n")
    assert text.endswith("\n\nafter\n")
    assert card.files_table(folder) in text
    assert "old" not in text


def test_missing_network_leaves_the_target_alone(trained: Path, base: Path, tmp_path: Path) -> None:
    for path in trained.iterdir():
        if path.name != "hift.pt":
            shutil.copyfile(path, tmp_path / path.name)
    to = tmp_path / "to"
    with pytest.raises(FileNotFoundError, match=r"hift\.pt"):
        package(tmp_path, to, base=base, speak=hum)
    assert not to.exists()


def test_missing_tensor_is_named(trained: Path, base: Path, tmp_path: Path) -> None:
    weights = torch.load(trained / "lm16.pt", weights_only=True)
    del weights["adapter.conv.bias"]
    torch.save(weights, tmp_path / "lm16.pt")
    with pytest.raises(ValueError, match=r"adapter\.conv\.bias"):
        package(tmp_path, tmp_path / "to", base=base, speak=hum)


def test_weights_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="big is not finite"):
        halve({"big": torch.tensor([1e6])})


def test_unknown_section_of_a_card_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    with pytest.raises(ValueError, match="'figures'"):
        card.fill(tmp_path / "README.md", "figures", "")


def test_shipped_checkpoint_is_small_and_what_its_card_says(pocket_dir: Path) -> None:
    files = [path for path in pocket_dir.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= SHIPPED_LIMIT
    assert missing_files(pocket_dir) == []
    assert card.files_table(pocket_dir) in (pocket_dir / "README.md").read_text(encoding="utf-8")
