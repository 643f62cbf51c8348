"""`voiceagent doctor`: one line for each finding, its remedy with it, and status 2 if something must be mended."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoint import tiny_weights, write_checkpoint, write_shards
from tiny_token2wav import speech, write_recording, write_token2wav

from voiceagent import doctor
from voiceagent.cli import main
from voiceagent.config import load_config

SHARD = "model-00002-of-00003.safetensors"
ONNX = "token2wav/speech_tokenizer_v2_25hz.onnx"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete folder, in shards."""
    folder = write_shards(tmp_path_factory.mktemp("whole"), tiny_weights())
    write_token2wav(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "model")


def examined(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and the findings by subject."""
    status = main(["doctor", "--json", *argv])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] == (status == 0)
    return status, {finding["subject"]: finding for finding in report["findings"]}


def test_this_machine_is_able(capsys: pytest.CaptureFixture[str], pocket_dir: Path) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(str(pocket_dir) in line for line in lines)
    assert lines[-1] == "This machine can run voiceagent."
    assert all(line[:4] in ("  ok", "warn") for line in lines[:-1])


def test_a_whole_folder(capsys: pytest.CaptureFixture[str], whole: Path) -> None:
    status, found = examined(capsys, "--model", str(whole))
    assert status == 0
    assert found["Weights"]["words"].startswith(f"{len(tiny_weights())} tensors")
    assert found["S3 tokenizer"]["words"] == "a, b -> ids, length"
    assert found["Voices"]["words"] == "default_female 1.0 s, default_male 1.3 s"
    assert "needs" in found["Memory"]["words"]


def write_nothing(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2", "hidden_size": 3584}')


def write_pointer(folder: Path) -> None:
    (folder / SHARD).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4932751008\n"
    )


def truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-50])


def lose(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def drop_a_tensor(folder: Path) -> None:
    state = torch.load(folder / "token2wav" / "flow.pt", weights_only=True)
    del state["encoder_proj.bias"]
    torch.save(state, folder / "token2wav" / "flow.pt")


def write_pickle(folder: Path) -> None:
    torch.save({"weights": Path("x")}, folder / "token2wav" / "hift.pt")


def forget_a_token(folder: Path) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "<tts_start>"]
    (folder / "tokenizer.json").write_text(json.dumps(spec))


def record(seconds: float, *, loud: bool = True) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        samples = speech(seconds) if loud else np.zeros(round(seconds * 16_000), np.float32)
        write_recording(folder / "default_male.wav", samples)

    return write


@pytest.mark.parametrize(
    ("damage", "subject", "code", "words"),
    [
        (lose("config.json"), "Model files", "files_missing", "lacks config.json"),
        (lose(SHARD), "Model files", "files_missing", f"lacks {SHARD}"),
        (write_pointer, "Model files", "files_missing", f"{SHARD} is only a pointer of Git LFS"),
        (lose("token2wav/flow.pt"), "Token2Wav files", "token2wav_missing", "lacks token2wav/flow.pt"),
        (lose("token2wav/campplus.onnx"), "Token2Wav files", "token2wav_missing", "lacks token2wav/campplus"),
        (write_nothing, "Configuration", "wrong_model", "model_type is 'qwen2'"),
        (truncate(SHARD), "Weights", "invalid_checkpoint", f"{SHARD} is truncated"),
        (forget_a_token, "Tokenizer", "invalid_checkpoint", "lacks the special token '<tts_start>'"),
        (drop_a_tensor, "Flow", "invalid_checkpoint", "encoder_proj.bias is missing"),
        (truncate("token2wav/flow.pt"), "Flow", "invalid_checkpoint", "flow.pt is truncated"),
        (write_pickle, "Vocoder", "invalid_checkpoint", "hift.pt is truncated or not a plain dictionary"),
        (truncate(ONNX), "S3 tokenizer", "invalid_checkpoint", "truncated or not an ONNX file"),
        (lambda folder: (folder / ONNX).write_bytes(b""), "S3 tokenizer", "invalid_checkpoint", "no network"),
        (record(0.2), "Voices", "audio_too_short", "default_male.wav"),
        (record(300), "Voices", "audio_too_long", "lasts 300.0 s, more than 30 s"),
        (record(3, loud=False), "Voices", "audio_silent", "default_male' is silent"),
        (lambda f: (f / "default_male.wav").write_text("no"), "Voices", "invalid_checkpoint", "not a wav"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(
    damage: Callable[[Path], object],
    subject: str,
    code: str,
    words: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(folder)
    status, found = examined(capsys, "--model", str(folder))
    assert status == 2
    assert (found[subject]["status"], found[subject]["code"]) == ("fail", code)
    assert words in found[subject]["words"]
    assert found[subject]["remedy"]
    assert "\n" not in found[subject]["words"] + found[subject]["remedy"]
    assert "Memory" not in found


# --- the five problems that users report most ---------------------------------------------------------------------


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("no-such-package",))
    assert main(["doctor"]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert "no-such-package is not installed." in line
    assert "pip install no-such-package" in line


def test_missing_recordings(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the published repositories: pocket's are lent. A folder that was named and has none is an error."""
    for name in ("default_female.wav", "default_male.wav"):
        (folder / name).unlink()
    status, found = examined(capsys, "--model", str(folder))
    assert (status, found["Voices"]["status"], found["Voices"]["code"]) == (0, "warn", "voice_missing")
    assert "as default_female.wav" in found["Voices"]["remedy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOICEAGENT_ENGINE__VOICES", str(tmp_path))
        status, found = examined(capsys, "--model", str(folder))
    assert (status, found["Voices"]["code"]) == (2, "voice_missing")


def test_missing_token2wav(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "token2wav")
    status, found = examined(capsys, "--model", str(folder))
    assert (status, found["Token2Wav files"]["code"]) == (2, "token2wav_missing")
    assert "flow.yaml" in found["Token2Wav files"]["words"]


def test_too_little_memory(
    monkeypatch: pytest.MonkeyPatch, pocket_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOICEAGENT_ENGINE__KV_MEMORY_MB", "10000000")
    status, found = examined(capsys, "--device", "cpu")
    assert (status, found["Memory"]["code"]) == (2, "out_of_memory")
    assert "GB are needed" in found["Memory"]["words"]


def test_no_such_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = examined(capsys, "--model", str(tmp_path / "nowhere"))
    assert (status, found["Model"]["code"]) == (2, "model_not_found")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    status, found = examined(capsys, "--model", "mini-think")
    assert (found["Model"]["status"], found["Model"]["code"]) == ("warn", "not_downloaded")
    assert "`voiceagent serve --model mini-think` downloads it" in found["Model"]["remedy"]
    assert "takes 18 GB" in found["Disk"]["words"]


# --- the machine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "code"),
    [
        ({"device": "toaster"}, "device_unavailable"),
        ({"speech_device": "cuda:99"}, "device_unavailable"),
        ({"device": "cpu", "dtype": "float16"}, "dtype_unsupported"),
    ],
)
def test_devices_and_number_types(engine: dict[str, str], code: str) -> None:
    config = load_config(environ={}, overrides={f"engine.{name}": value for name, value in engine.items()})
    found = {finding.subject: finding for finding in doctor.examine(config)}
    assert (found["Device"].status, found["Device"].code) == ("fail", code)


def test_a_taken_port(pocket_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = load_config(environ={}, overrides={"server.port": taken.getsockname()[1]})
        found = {finding.subject: finding for finding in doctor.examine(config)}
    assert (found["Port"].status, "--port" in found["Port"].line) == ("warn", True)


def test_a_folder_with_one_weight_file_of_another_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_token2wav(folder)
    weights = tiny_weights()
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, folder / "model.safetensors")
    status, found = examined(capsys, "--model", str(folder))
    assert status == 2
    assert "model.norm.weight has the shape (31,), not (32,)" in found["Weights"]["words"]
