"""The command line without a loaded model: what is wrong is one line on standard error and exit status 2."""

from __future__ import annotations

import json
import socket
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceagent.cli import main

QUESTION = str(Path(__file__).parent / "data" / "questions" / "hours.flac")


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a refused command says."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("voiceagent: ")
    return line


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no file"),
        (lambda path: path.mkdir(), "no file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no sound"), "cannot be read as audio"),
        (
            lambda path: path.write_bytes(Path(QUESTION).read_bytes()[:100]),
            "cannot be read as audio|0 samples",
        ),
        (lambda path: write(path, np.zeros(0)), "holds 0 samples"),
        (lambda path: write(path, np.zeros(100)), "only 0.006 s"),
        (lambda path: write(path, np.full(16_000, np.nan)), "NaN"),
    ],
    ids=["missing", "folder", "empty", "text", "torn", "no samples", "too short", "not finite"],
)
def test_files_that_cannot_be_asked(
    make: Callable[[Path], None], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "question.wav"
    make(file)
    line = complaint(capsys, "ask", str(file))
    assert any(part in line for part in words.split("|"))
    assert str(file) in line


def test_a_folder_for_the_answer_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no folder" in complaint(capsys, "ask", QUESTION, "-o", "/nowhere/answer.wav")


def test_an_answer_in_a_format_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Use .wav" in complaint(capsys, "ask", QUESTION, "-o", "answer.xyz")


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "ask", QUESTION, "--url", "ws://127.0.0.1:1")
    assert "Cannot connect to ws://127.0.0.1:1" in line
    assert "Is the server running?" in line


# --- models and machines --------------------------------------------------------------------------------------------


def test_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model" in complaint(capsys, "ask", QUESTION, "--model", "/nowhere/model")


def test_a_truncated_shard_is_named(
    pocket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint as shards, one of them cut: the file and the remedy in one line, no traceback of the engine."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in pocket_dir.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).symlink_to(file)
    with (pocket_dir / "model.safetensors").open("rb") as whole:
        (size,) = struct.unpack("<Q", whole.read(8))
        names = [name for name in json.loads(whole.read(size)) if name != "__metadata__"]
        whole.seek(0)
        (folder / "model-00001-of-00001.safetensors").write_bytes(whole.read(1_000_000))
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    line = complaint(capsys, "ask", QUESTION, "--model", str(folder))
    assert "model-00001-of-00001.safetensors is truncated" in line


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        (["--device", "toaster"], {}, "The device 'toaster' cannot be used"),
        (["--device", "cuda:99"], {}, "The device 'cuda:99' cannot be used: torch sees"),
        (["--device", "cpu"], {"DTYPE": "float16"}, "engine.dtype = 'float16' does not run on the CPU"),
        (["--device", "cpu"], {"DTYPE": "int4"}, "Use one of: auto, float32, bfloat16, float16"),
        (["--device", "cpu"], {"SPEECH_DEVICE": "cuda:99"}, "The device 'cuda:99' cannot be used"),
        (["--device", "cpu"], {"KV_MEMORY_MB": "10000000"}, "10000."),
        (["--device", "cpu"], {"VOICES": "/nowhere"}, "/nowhere holds no voice recording"),
    ],
)
def test_what_this_machine_cannot_do(
    flags: list[str],
    environ: dict[str, str],
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(f"VOICEAGENT_ENGINE__{name}", value)
    assert main(["ask", QUESTION, *flags]) == 2
    err = capfd.readouterr().err  # the engine's words too
    assert words in err
    assert "Traceback" not in err


def test_another_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper", "d_model": 1280}')
    assert main(["ask", QUESTION, "--model", str(tmp_path)]) == 2
    err = capfd.readouterr().err
    assert "model_type is 'whisper'" in err
    assert "--model mini" in err
    assert "Traceback" not in err


def test_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["ask", QUESTION, "--model", "mini"]) == 2
    out, err = capsys.readouterr()
    *_, last = err.splitlines()
    assert out == ""
    assert last.startswith("voiceagent: stepfun-ai/Step-Audio-2-mini cannot be downloaded: ")
    assert "Check the connection" in last


# --- serving --------------------------------------------------------------------------------------------------------


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = complaint(capsys, "serve", "--port", str(port))
    assert f"Port {port}" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--host", "0.0.0.0"], "API_KEYS"),
        (["--port", "99999"], "from 0 to 65535"),
        (["--host", "192.0.2.1"], "API_KEYS"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_a_server_that_may_not_start(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in complaint(capsys, "serve", *argv)


@pytest.mark.parametrize("argv", [[], ["dance"], ["serve", "--port", "many"], ["ask"]])
def test_misspelt_commands_show_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: voiceagent" in capsys.readouterr().err


# --- config -------------------------------------------------------------------------------------------------------


def test_config_prints_toml_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEAGENT_SERVER__API_KEYS", "top-secret")
    assert main(["config", "--device", "cuda:3"]) == 0
    out = capsys.readouterr().out
    assert "top-secret" not in out
    shown = tomllib.loads(out)
    assert (shown["engine"]["device"], shown["server"]["api_keys"]) == ("cuda:3", ["***"])
