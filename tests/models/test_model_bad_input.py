"""Folders and inputs that cannot be used, through the doors that load a model: each is a typed error that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_token2wav import speech, write_recording, write_token2wav

from voiceagent.errors import CheckpointError, InputError, VoiceAgentError
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.prompt import Prompt
from voiceagent.models.step_audio2.token2wav import Token2Wav

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
}
WHISPER = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": 1280}
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel.load(write_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (
            QWEN2,
            "wrong_model",
            "model_type is 'qwen2', not 'step_audio_2': this is the folder of another model",
        ),
        (WHISPER, "wrong_model", "model_type is 'whisper'"),
        ({}, "invalid_checkpoint", "the field model_type is missing"),
        ([], "invalid_checkpoint", "not a JSON object"),
    ],
)
def test_the_folder_of_another_model(config: Any, code: str, words: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        LanguageModel.load(tmp_path)
    assert caught.value.code == code
    assert words in caught.value.message
    assert str(tmp_path / "config.json") in caught.value.message


def test_weights_of_another_size(tmp_path: Path) -> None:
    weights = tiny_weights()
    weights[UP] = torch.zeros(64, 32)
    with pytest.raises(CheckpointError, match=rf"{UP} has the shape \(64, 32\), not \(48, 32\)"):
        LanguageModel.load(write_checkpoint(tmp_path, weights))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    folder, weights = write_checkpoint(tmp_path), tiny_weights()
    weights[UP][0, 0] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{UP} holds values that are not finite") as caught:
        LanguageModel.load(folder)
    assert caught.value.code == "bad_weights"


@pytest.mark.parametrize(
    ("file", "name"),
    [("flow.pt", "encoder_proj.weight"), ("hift.pt", "conv_pre.parametrizations.weight.original1")],
)
def test_speech_weights_that_are_no_numbers(file: str, name: str, tmp_path: Path) -> None:
    folder = write_token2wav(tmp_path)
    weights = torch.load(folder / file, weights_only=True)
    weights[name].view(-1)[3] = torch.nan
    torch.save(weights, folder / file)
    with pytest.raises(
        CheckpointError, match=f"{file}: the tensor {name} holds values that are not"
    ) as caught:
        Token2Wav.load(folder)
    assert caught.value.code == "bad_weights"


# --- prompts and ids ----------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_model(model: LanguageModel) -> None:
    context = model.open()
    with pytest.raises(InputError, match="takes 513 positions and the model has 512") as caught:
        model.generate(context, Prompt(slots=(40,) * 513, forced=(), spoken=False))
    assert caught.value.code == "context_full"
    assert_usable(model)


@pytest.mark.parametrize("wrong", [-1, 1 << 20, 1 << 40])
def test_a_token_id_out_of_range(wrong: int, model: LanguageModel) -> None:
    context = model.open()
    with pytest.raises(InputError, match="a token id outside 0 to") as caught:
        model.generate(context, Prompt(slots=(40, wrong, 41), forced=(), spoken=False)).step()
    assert caught.value.code == "token_out_of_range"
    assert_usable(model)
    reply = model.generate(context, Prompt(slots=(40, 41), forced=(), spoken=False), max_tokens=1)
    reply.step()
    assert context.slots == (40, 41)


def assert_usable(model: LanguageModel) -> None:
    """Another conversation is none the worse."""
    reply = model.generate(model.open(), Prompt(slots=(40, 41), forced=(), spoken=False), max_tokens=2)
    assert reply.step() is not None or reply.reason == "stop"


@pytest.mark.parametrize("wrong", [-1, 6561, 1 << 40])
def test_an_audio_id_out_of_range(wrong: int, tmp_path: Path) -> None:
    decoder = Token2Wav.load(write_token2wav(tmp_path))
    voice = decoder.voices["default_female"]
    state, other = decoder.open(voice), decoder.open(voice)
    with pytest.raises(InputError, match="a speech id is outside 0 to 6560"):
        decoder.step([5, wrong], state)
    for stream in (state, other):
        pcm, _ = decoder.step([5] * 3, stream, last=True)
        assert len(pcm) == 3 * 960


# --- voices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "code", "words"),
    [
        (lambda path: write_recording(path, speech(0.2)), "audio_too_short", "lasts 0.20 s, less than 0.5 s"),
        (lambda path: write_recording(path, speech(300)), "audio_too_long", "lasts 300.0 s, more than 30 s"),
        (lambda path: write_recording(path, np.zeros(48_000, np.float32)), "audio_silent", "is silent"),
        (lambda path: path.write_bytes(b"RIFF"), "invalid_checkpoint", "is not a wav file"),
        (lambda path: path.unlink(), "voice_missing", "holds no voice recording"),
    ],
)
def test_a_voice_that_cannot_be_used(
    write: Callable[[Path], None], code: str, words: str, tmp_path: Path
) -> None:
    folder = write_token2wav(tmp_path, voices=("default_female",))
    write(tmp_path / "default_female.wav")
    with pytest.raises(VoiceAgentError) as caught:
        Token2Wav.load(folder)
    assert caught.value.code == code
    assert words in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy


def test_voices_from_a_folder_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_recording(own / "anna.wav", speech(1.0, seed=3))
    folder = write_token2wav(tmp_path, voices=())
    assert list(Token2Wav.load(folder, recordings=own).voices) == ["anna"]
