"""Voice prompts: the two ONNX networks, resampling, lengths that fit, and recordings that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_token2wav import speech, write_recording, write_speaker, write_token2wav, write_tokenizer

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.mel import mel_24k
from voiceagent.models.step_audio2.resample import resample
from voiceagent.models.step_audio2.speaker import SpeakerEncoder
from voiceagent.models.step_audio2.speech_tokenizer import SpeechTokenizer
from voiceagent.models.step_audio2.voice import Voice, load_voices, prepare_voice, read_wave


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token2wav(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def networks(folder: Path) -> tuple[SpeechTokenizer, SpeakerEncoder]:
    return SpeechTokenizer(folder / "speech_tokenizer_v2_25hz.onnx"), SpeakerEncoder(folder / "campplus.onnx")


def prepared(
    networks: tuple[SpeechTokenizer, SpeakerEncoder], samples: np.ndarray, rate: int = 16_000
) -> Voice:
    return prepare_voice(samples, rate, name="v", tokenizer=networks[0], encoder=networks[1])


@settings(deadline=None, max_examples=25)
@given(samples=st.integers(8000, 24_000))
def test_mel_and_ids_always_fit(networks: tuple[SpeechTokenizer, SpeakerEncoder], samples: int) -> None:
    voice = prepared(networks, speech(2.0)[:samples])
    frames = samples // 160
    assert voice.tokens.shape == (-(-frames // 4),)
    assert voice.tokens.dtype == torch.int64
    assert voice.mel.shape == (2 * len(voice.tokens), 80)
    assert voice.mel.dtype == voice.speaker.dtype == torch.float32
    assert voice.speaker.shape == (192,)


def test_the_mel_is_that_of_the_24_khz_recording(networks: tuple[SpeechTokenizer, SpeakerEncoder]) -> None:
    samples = speech(1.0, rate=24_000)
    voice = prepared(networks, samples, 24_000)
    torch.testing.assert_close(voice.mel.T, mel_24k(torch.from_numpy(samples)[None])[0])


def test_missing_frames_repeat_the_last_one(networks: tuple[SpeechTokenizer, SpeakerEncoder]) -> None:
    voice = prepared(networks, speech(1.0)[: 160 * 97])  # 97 frames: 25 ids, 48 mel frames
    assert len(voice.tokens) == 25
    assert torch.equal(voice.mel[47], voice.mel[49])
    assert not torch.equal(voice.mel[46], voice.mel[47])


def test_the_rate_of_the_recording_hardly_matters(networks: tuple[SpeechTokenizer, SpeakerEncoder]) -> None:
    low, high = prepared(networks, speech(1.0)), prepared(networks, speech(1.0, rate=48_000), 48_000)
    assert len(low.tokens) == len(high.tokens)
    assert (low.tokens - high.tokens).abs().float().mean() < 20
    loud = low.mel > -4
    assert (low.mel - high.mel)[loud].abs().mean() < 0.1


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (speech(0.4), 16_000, "less than 0.5 s"),
        (speech(31.0), 16_000, "lasts 31.0 s, more than 30 s"),
        (np.zeros(16_000, np.float32), 16_000, "silent"),
        (np.full(16_000, np.nan, np.float32), 16_000, "not finite"),
        (np.zeros((2, 16_000), np.float32), 16_000, "not mono"),
        (speech(1.0), 0, "not positive"),
    ],
)
def test_recordings_that_are_no_prompt(
    networks: tuple[SpeechTokenizer, SpeakerEncoder], samples: np.ndarray, rate: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(networks, samples, rate)


# ------------------------------------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("source", [8000, 11_025, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("target", [16_000, 24_000])
def test_resampling_keeps_tones(source: int, target: int) -> None:
    def tone(rate: int) -> np.ndarray:
        t = np.arange(rate) / rate
        return (np.sin(2 * np.pi * 1000 * t) * np.hanning(rate)).astype(np.float32)

    out = resample(tone(source), source=source, target=target)
    assert out.dtype == np.float32
    assert len(out) == target
    assert np.abs(out - tone(target)).max() < 2e-3


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    t = np.arange(48_000) / 48_000
    high = (np.sin(2 * np.pi * 11_000 * t) * np.hanning(48_000)).astype(np.float32)
    assert np.abs(resample(high, source=48_000, target=16_000)).max() < 5e-3


# ------------------------------------------------------------------------------------------------------------ files


def test_voices_are_named_like_their_files(folder: Path) -> None:
    voices = load_voices(folder, recordings=folder.parent)
    assert list(voices) == ["default_female", "default_male"]
    assert voices["default_male"].name == "default_male"
    assert not torch.equal(voices["default_male"].speaker, voices["default_female"].speaker)


def test_stereo_is_averaged_and_a_cut_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_recording(path, speech(1.0), channels=2)
    samples, rate = read_wave(path)
    assert rate == 16_000
    assert np.abs(samples - speech(1.0)).max() < 1e-4
    path.write_bytes(path.read_bytes()[:-3])
    assert len(read_wave(path)[0]) == len(samples) - 1


def test_what_is_not_a_16_bit_wav_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.wav is not a wav file"):
        read_wave(tmp_path / "text.wav")


def test_a_bad_recording_of_a_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no voice recording"):
        load_voices(folder, recordings=tmp_path)
    write_recording(tmp_path / "default_male.wav", np.zeros(16_000, np.float32))
    with pytest.raises(CheckpointError, match=r"default_male\.wav.*silent"):
        load_voices(folder, recordings=tmp_path)


def test_onnx_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.onnx does not exist"):
        SpeechTokenizer(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match=r"bad\.onnx is not a network"):
        SpeakerEncoder(tmp_path / "bad.onnx")
    write_speaker(tmp_path / "one.onnx")
    with pytest.raises(CheckpointError, match=r"one\.onnx takes 1 inputs, not 2"):
        SpeechTokenizer(tmp_path / "one.onnx")
    write_tokenizer(tmp_path / "two.onnx", highest=9000.0)
    with pytest.raises(CheckpointError, match=r"two\.onnx made 25 ids"):
        SpeechTokenizer(tmp_path / "two.onnx").encode(speech(1.0) * 5)
