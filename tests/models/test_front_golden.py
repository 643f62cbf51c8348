"""Features and speech ids against what the reference makes of the same recordings (scripts/golden/front.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_token2wav import write_recording, write_speaker
from torch import Tensor, nn

from scripts.golden.fixed_weights import fixed_weight, recording
from scripts.pocket import speech_tokenizer_model
from scripts.pocket.onnx_file import write_onnx
from voiceagent.models.step_audio2.mel import kaldi_fbank, log_mel, mel_24k, placeholder_count
from voiceagent.models.step_audio2.resample import resample
from voiceagent.models.step_audio2.speaker import SpeakerEncoder
from voiceagent.models.step_audio2.speech_tokenizer import SpeechTokenizer
from voiceagent.models.step_audio2.voice import prepare_voice, read_wave

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "front.npz"
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def relative_error(ours: Tensor, theirs: np.ndarray) -> float:
    wanted = torch.from_numpy(theirs)
    assert ours.shape == wanted.shape
    return float((ours - wanted).norm() / wanted.norm())


def test_log_mel_agrees_alone_and_in_a_batch(golden: dict[str, np.ndarray]) -> None:
    waves = [recording("long", 20_773), recording("short", 4321)]
    batch = nn.utils.rnn.pad_sequence(waves, batch_first=True)
    together, frames = log_mel(batch, torch.tensor([len(wave) for wave in waves]))
    for i, name in enumerate(("long", "short")):
        wanted = golden[f"log_mel/{name}"]
        alone, _ = log_mel(waves[i][None], torch.tensor([len(waves[i])]))
        assert relative_error(alone[0], wanted) < TOLERANCE
        assert relative_error(together[i, :, : frames[i]], wanted) < TOLERANCE


def test_every_length_takes_as_many_placeholders(golden: dict[str, np.ndarray]) -> None:
    assert [placeholder_count(int(count)) for count in golden["samples"]] == golden["placeholders"].tolist()


def test_filter_bank_agrees(golden: dict[str, np.ndarray]) -> None:
    assert relative_error(kaldi_fbank(recording("fbank", 17_017)), golden["fbank"]) < TOLERANCE


def test_mel_of_a_voice_agrees(golden: dict[str, np.ndarray]) -> None:
    wave = recording("prompt", 15_333, rate=24_000)
    assert relative_error(mel_24k(wave[None])[0], golden["prompt_mel"]) < TOLERANCE


@pytest.mark.parametrize(
    ("source", "target"), [(24_000, 16_000), (44_100, 16_000), (44_100, 24_000), (16_000, 24_000)]
)
def test_other_rates_agree_sample_for_sample(golden: dict[str, np.ndarray], source: int, target: int) -> None:
    wave = recording("rates", source // 10 + 1, rate=source).numpy()
    wanted = golden[f"rates/{source}/{target}"]
    ours = resample(wave, source=source, target=target)
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 1e-5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SpeechTokenizer:
    """The pocket's network under the published weights, through an ONNX file as checkpoints have it."""
    shape = speech_tokenizer_model.Shape(dim=64, heads=1, blocks=2, reader_blocks=0, dropout=0.0)
    network = speech_tokenizer_model.SpeechTokenizer(shape)
    network.encoder.ln_post = nn.Identity()  # the pocket's own addition
    with torch.no_grad():
        for name, value in network.encoder.named_parameters():
            below = name.startswith("project_down")
            published = f"quantizer._codebook.{name}" if below else f"encoder.{name}"
            value.copy_(fixed_weight(published, tuple(value.shape)))
    path = tmp_path_factory.mktemp("s3") / "speech_tokenizer_v2_25hz.onnx"
    write_onnx(
        speech_tokenizer_model.Exported(network),
        path,
        example=(torch.zeros(1, 128, 161), torch.tensor([161], dtype=torch.int32)),
        inputs=["feats", "feats_length"],
        output="ids",
        dynamic={"feats": {2: "frames"}, "ids": {1: "tokens"}},
    )
    return SpeechTokenizer(path)


def test_speech_ids_are_the_published_ones(tokenizer: SpeechTokenizer, golden: dict[str, np.ndarray]) -> None:
    ids = tokenizer.encode(recording("ids", 40_961).numpy())
    assert ids.tolist() == golden["ids"].tolist()
    assert len(set(ids.tolist())) > 20


def test_a_voice_is_what_the_reference_makes_of_the_recording(
    tokenizer: SpeechTokenizer, golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_speaker(tmp_path / "speaker.onnx")
    encoder, path = SpeakerEncoder(tmp_path / "speaker.onnx"), tmp_path / "voice.wav"
    write_recording(path, recording("voice", 41_777, rate=24_000).numpy(), rate=24_000)
    samples, rate = read_wave(path)
    voice = prepare_voice(samples, rate, name="voice", tokenizer=tokenizer, encoder=encoder)
    assert voice.tokens.tolist() == golden["voice/tokens"].tolist()
    assert relative_error(voice.mel, golden["voice/mel"]) < TOLERANCE
    assert relative_error(voice.speaker, golden["voice/speaker"]) < TOLERANCE
