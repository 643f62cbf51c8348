"""The commands that need the pocket checkpoint: a file answered by a file, starting, stopping, starting again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import wait_for_address
from openai_caller import QUESTIONS, plain, questions

from voiceagent.cli import main


def test_a_file_is_answered_by_a_file(
    pocket_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question, answer = questions()["price"], tmp_path / "answer.wav"
    asked = str(QUESTIONS / question["file"])
    assert main(["ask", asked, "-o", str(answer), "--url", f"ws://{pocket_server}"]) == 0
    said = capsys.readouterr().out
    assert plain(question["reply"]) in plain(said)
    assert plain(question["text"]) in plain(said)
    info = soundfile.info(answer)
    assert (info.samplerate, info.channels) == (24_000, 1)
    assert 1 < info.duration < 8


def serve(port: int, words: Path) -> subprocess.Popen[bytes]:
    with words.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "voiceagent", "serve", "--port", str(port)], stderr=stderr
        )


def test_ctrl_c_while_loading_and_a_second_start(pocket_dir: Path, tmp_path: Path) -> None:
    """It stops at once and quietly, and the same port serves again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    first = serve(port, tmp_path / "first")
    wait_until_listening(port, first)
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0
    assert (tmp_path / "first").read_text() == ""
    second = serve(port, tmp_path / "second")
    try:
        assert wait_for_address(second, tmp_path / "second") == f"127.0.0.1:{port}"
    finally:
        second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert "Traceback" not in (tmp_path / "second").read_text()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it ended by itself")
