"""Tasks over files, on the pocket checkpoint: words out of sound, sound out of words, and another voice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from openai_caller import QUESTIONS, plain, questions

from voiceagent.cli import main
from voiceagent.config import Config
from voiceagent.core.events import AudioOut, TextOut, TurnEnded
from voiceagent.core.history import TextContent, UserItem
from voiceagent.core.options import TurnOptions
from voiceagent.engine.client import LocalEngine
from voiceagent.launch import worker_spec
from voiceagent.server.job import job
from voiceagent.server.tasks import READ_ALOUD


def test_files_are_written_down(pocket_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [questions()[name] for name in ("price", "hours")]
    files = [str(QUESTIONS / question["file"]) for question in asked]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio")
    out = tmp_path / "out"
    command = ["transcribe", *files, str(broken), "--out", str(out), "--format", "json", "--stats"]
    assert main(command) == 2
    told = capsys.readouterr()
    assert "broken.wav: The file cannot be read as audio" in told.err.replace("\n", " ")
    assert "Traceback" not in told.err
    for question in asked:
        found = json.loads((out / Path(question["file"]).with_suffix(".json")).read_text())
        assert plain(found["text"]) == plain(question["text"])
        assert found["segments"][0]["end"] <= found["duration"]


def test_a_text_is_spoken_and_said_again_in_another_voice(pocket_dir: Path, tmp_path: Path) -> None:
    text = tmp_path / "line.txt"
    text.write_text("the garden is open. thank you for calling.")
    assert main(["speak", str(text), "--out", str(tmp_path / "first"), "--temperature", "0"]) == 0
    spoken = tmp_path / "first" / "line.wav"
    assert main(["convert", str(spoken), "--voice", "default_male", "--out", str(tmp_path / "second")]) == 0
    first, rate = soundfile.read(spoken)
    second, _ = soundfile.read(tmp_path / "second" / "line.wav")
    assert rate == 24_000
    assert abs(len(first) - len(second)) <= 0.08 * rate
    assert 1.0 < len(first) / rate < 8.0
    assert pitch(second, rate) < 0.8 * pitch(first, rate)


def pitch(samples: np.ndarray, rate: int) -> float:
    """Median fundamental of the loud 40 ms windows, by autocorrelation between 60 and 400 Hz."""
    size = rate // 25
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    loud = windows[np.abs(windows).mean(1) > 0.5 * np.abs(windows).mean(1).max()]
    found = []
    for window in loud:
        against = np.correlate(window, window, "full")[size - 1 :]
        low, high = rate // 400, rate // 60
        found.append(rate / (low + int(against[low:high].argmax())))
    return float(np.median(found))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["transcribe", "missing.wav"], "There is no file missing.wav"),
        (["speak"], "required: FILE"),
        (["transcribe", "a.wav", "--format", "docx"], "invalid choice"),
    ],
)
def test_bad_commands_end_in_one_line(
    command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(command)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2
    assert words in capsys.readouterr().err


def test_results_that_would_overwrite_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.wav").write_bytes(b"")
    assert main(["transcribe", str(tmp_path / "a/x.wav"), str(tmp_path / "b/x.wav")]) == 2
    assert "overwrite" in capsys.readouterr().err


async def test_words_that_are_given_are_the_words_that_are_said(pocket_dir: Path) -> None:
    line = "the zebra of aunt mildred costs 47 blue buttons."  # nothing that the model would say by itself
    engine = LocalEngine(worker_spec(Config()), load_s=300.0)
    await engine.start()
    try:
        async with job(engine) as mouth:
            options = TurnOptions(script=line, temperature=0.0, max_tokens=600)
            item = UserItem("text", (TextContent(READ_ALOUD + line),))
            events = [event async for event in mouth.turn((item,), options)]
    finally:
        await engine.stop()
    assert "".join(event.text for event in events if isinstance(event, TextOut)) == line
    assert 2.0 < sum(len(event.pcm) for event in events if isinstance(event, AudioOut)) / 24_000 < 10.0
    assert isinstance(events[-1], TurnEnded)
    assert events[-1].reason == "stop"
