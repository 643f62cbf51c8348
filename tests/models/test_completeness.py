"""How likely nothing follows, on the pocket checkpoint: whole questions, and the same ones broken off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core.history import Piece
from voiceagent.models.step_audio2.completeness import end_marks
from voiceagent.models.step_audio2.generate import LanguageModel

QUESTIONS = Path(__file__).resolve().parent.parent / "data" / "questions"


@pytest.fixture(scope="module")
def model(pocket_dir: Path) -> LanguageModel:
    return LanguageModel.load(pocket_dir)


def said(name: str, *, share: float = 1.0) -> Piece:
    """So much of a question, broken off where it is quietest near there, and a tenth of a second of silence."""
    samples, rate = soundfile.read(QUESTIONS / f"{name}.flac", dtype="float32")
    voice: npt.NDArray[np.float32] = soxr.resample(samples, rate, 16_000).astype(np.float32)
    if share < 1.0:
        loudness = np.convolve(np.abs(voice), np.ones(320), "same")
        middle = int(share * len(voice))
        voice = voice[: middle - 2400 + int(np.argmin(loudness[middle - 2400 : middle + 2400]))]
    last = int(np.flatnonzero(np.abs(voice) > 0.01)[-1])
    return Piece(1, np.concatenate([voice[:last], np.zeros(1600, np.float32)]))


@pytest.mark.parametrize("name", ["hours", "price", "order", "name", "book"])
def test_a_whole_question_is_complete(model: LanguageModel, name: str) -> None:
    _, complete = model.judge([said(name)])
    assert complete > 0.8


@pytest.mark.parametrize(("name", "share"), [("name", 0.6), ("sum", 0.75), ("spell", 0.45), ("book", 0.6)])
def test_one_that_is_broken_off_is_not(model: LanguageModel, name: str, share: float) -> None:
    text, complete = model.judge([said(name, share=share)])
    assert text
    assert complete < 0.2


def test_silence_says_nothing_and_every_page_is_given_back(model: LanguageModel) -> None:
    free = model.pool.free_positions
    model.judge([said("name")])
    assert model.judge([Piece(1, np.zeros(100, np.float32))]) == ("", 0.0)
    text, complete = model.judge([Piece(1, np.zeros(8000, np.float32))])
    assert text or complete == 0.0
    assert model.pool.free_positions == free


def test_marks_at_which_sentences_end() -> None:
    tokenizer = tiny_tokenizer()
    marks = {tokenizer.token_bytes(token).decode() for token in end_marks(tokenizer)}
    assert {".", "?", "!"} <= marks
    assert not {",", "a", "-"} & marks
    assert all(".." not in mark for mark in marks)
