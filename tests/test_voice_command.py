"""`voiceagent voices` on a folder, and a server that brings back what it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voiceagent.audio import wavio
from voiceagent.cli import main
from voiceagent.config import ServerConfig
from voiceagent.engine.fake_engine import FakeEngine
from voiceagent.server.voice_book import VoiceBook


def recording(folder: Path, seconds: float = 4.0) -> Path:
    path = folder / "me.flac"
    wavio.write(path, (8000 * np.sin(np.arange(int(seconds * 16_000)) * 0.1)).astype(np.int16), rate=16_000)
    return path


async def test_what_is_added_a_server_speaks_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voices = str(tmp_path / "voices")
    file = str(recording(tmp_path))
    assert main(["voices", "add", "anna", file, "--folder", voices, "--consent", "her letter"]) == 0
    assert main(["voices", "add", "bert", file, "--folder", voices]) == 0
    assert main(["voices", "remove", "bert", "--folder", voices]) == 0
    capsys.readouterr()
    assert main(["voices", "list", "--folder", voices]) == 0
    assert capsys.readouterr().out == "anna  4.0 s  her letter\n"
    engine = FakeEngine()
    await engine.start()
    book = VoiceBook(engine, ServerConfig(voice_folder=voices))
    await book.restore()
    assert "anna" in book
    await engine.stop()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["list"], "server.voice_folder"),
        (["add", "a/b", "FILE", "--folder", "F"], "cannot be the name"),
        (["add", "anna", "nothing.wav", "--folder", "F"], "Cannot read"),
        (["add", "anna", "SHORT", "--folder", "F"], "less than 3 s"),
        (["remove", "anna", "--folder", "F"], "no voice 'anna'"),
    ],
)
def test_what_cannot_be_done(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").mkdir()
    named = {
        "FILE": str(recording(tmp_path)),
        "SHORT": str(recording(tmp_path / "short", 1.0)),
        "F": str(tmp_path / "f"),
    }
    assert main(["voices", *(named.get(word, word) for word in argv)]) == 2
    assert words in capsys.readouterr().err
