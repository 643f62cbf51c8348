"""Writes tests/golden/front.npz: the features and speech ids that the reference makes of recordings.

    python scripts/golden/front.py

Log-mel and its placeholder counts come from the `step-audio2` 1.0.0 wheel's `utils`, the prompt's mel from its
`flashcosyvoice.utils.audio`; the filter bank from torchaudio and, as a second opinion, from kaldi-native-fbank; other
sample rates from torchaudio; the speech ids from the `s3tokenizer` package, log-mel included, on a small network with
fixed weights. A whole voice is made of a recording by the wheel's `Token2wav`, over these small networks. Besides all
this it needs librosa, hyperpyyaml, soundfile and einops; none of them is a dependency of the project. A torchaudio
that cannot load its compiled part will do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kaldi_native_fbank
import numpy as np
import onnxruntime
import s3tokenizer
import soundfile
import torch
import torchaudio
import torchaudio.compliance.kaldi as kaldi
from flashcosyvoice.utils.audio import mel_spectrogram
from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
from token2wav import Token2wav
from torch import Tensor
from utils import compute_token_num, log_mel_spectrogram

from scripts.golden.fixed_weights import fixed_weight, recording
from scripts.golden.stream import OnCpu

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS / "models"))
from tiny_token2wav import write_recording, write_speaker  # noqa: E402

LOG_MEL = {"long": 20_773, "short": 4321}
FBANK, PROMPT_MEL, SPEECH = 17_017, 15_333, 40_961
VOICE = 41_777  # samples at 24 kHz
RATES = ((24_000, 16_000), (44_100, 16_000), (44_100, 24_000), (16_000, 24_000))
COUNTS = (*range(400, 4000, 37), 79_999, 80_000, 159_840, 300_001, 400_000)
WIDTH, BLOCKS = 64, 2


def speech_tokenizer() -> S3TokenizerV2:
    """The published network, small, its matrices rounded to half precision, as our exporter stores them."""
    network = S3TokenizerV2(
        "speech_tokenizer_v2_25hz",
        ModelConfig(n_audio_state=WIDTH, n_audio_head=1, n_audio_layer=BLOCKS),
    ).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            weight = fixed_weight(name, tuple(value.shape))
            value.copy_(weight.half() if value.dim() > 1 else weight)
    return network


def second_opinion(wave: Tensor) -> Tensor:
    """(T, 80) filter bank of kaldi-native-fbank with Kaldi's defaults and no dither."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither, options.mel_opts.num_bins = 0.0, 80
    options.frame_opts.samp_freq = 16_000
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16_000, wave.tolist())
    bank.input_finished()
    return torch.from_numpy(np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]))


def prepared(folder: Path) -> dict[str, Any]:
    """What the wheel makes of a recording at 24 kHz: tokens, speaker vector and mel."""
    write_speaker(folder / "speaker.onnx")
    write_recording(folder / "voice.wav", recording("voice", VOICE, rate=24_000).numpy(), rate=24_000)
    wheel = Token2wav.__new__(Token2wav)  # its constructor needs CUDA and the real files
    wheel.audio_tokenizer, wheel.flow = speech_tokenizer(), SimpleNamespace(up_rate=2)
    wheel.spk_model = onnxruntime.InferenceSession(
        folder / "speaker.onnx", providers=["CPUExecutionProvider"]
    )
    torchaudio.load = read  # its own readers are another package by now
    torch.Tensor.cuda = lambda tensor: tensor
    with OnCpu():
        tokens, _, speaker, mel, _ = wheel._prepare_prompt(str(folder / "voice.wav"))
    parts = {"tokens": tokens[0], "speaker": speaker[0], "mel": mel[0]}
    return {f"voice/{name}": part.numpy() for name, part in parts.items()}


def read(path: str, **_: Any) -> tuple[Tensor, int]:
    """(channels, L) in [-1, 1] and the sample rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T.copy()), rate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=TESTS / "golden" / "front.npz")
    path = parser.parse_args().out
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    for name, count in LOG_MEL.items():
        mel = log_mel_spectrogram(recording(name, count), n_mels=128, padding=479)
        arrays[f"log_mel/{name}"] = mel.numpy()
    frames = [log_mel_spectrogram(torch.zeros(count), n_mels=128, padding=479).shape[1] for count in COUNTS]
    arrays["samples"] = np.array(COUNTS)
    arrays["placeholders"] = np.array([compute_token_num(count) for count in frames])
    wave = recording("fbank", FBANK)
    bank = kaldi.fbank(wave[None], num_mel_bins=80, dither=0, sample_frequency=16_000)
    assert (bank - second_opinion(wave)).abs().max() < 1e-3 * bank.abs().max()
    arrays["fbank"] = bank.numpy()
    arrays["prompt_mel"] = mel_spectrogram(recording("prompt", PROMPT_MEL, rate=24_000)[None])[0].numpy()
    spectrum, lengths = s3tokenizer.padding([s3tokenizer.log_mel_spectrogram(recording("ids", SPEECH))])
    ids, counts = speech_tokenizer().quantize(spectrum, lengths)
    arrays["ids"] = ids[0, : int(counts[0])].numpy()
    for source, target in RATES:
        wave = recording("rates", source // 10 + 1, rate=source)
        arrays[f"rates/{source}/{target}"] = torchaudio.functional.resample(wave, source, target).numpy()
    with tempfile.TemporaryDirectory() as folder:
        arrays |= prepared(Path(folder))
    provenance = f"step-audio2 1.0.0, s3tokenizer 0.3.0, torchaudio, torch {torch.__version__}, CPU float32"
    np.savez_compressed(path, **arrays, provenance=provenance)
    print(
        f"{path}: {path.stat().st_size / 1024:.0f} KiB, {len(set(arrays['ids'].tolist()))} different ids of "
        f"{len(arrays['ids'])}"
    )


if __name__ == "__main__":
    main()
