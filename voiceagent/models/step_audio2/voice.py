"""Turns a recording of a few seconds into a voice: its ids, its mel and its speaker vector, as the flow wants them.

It knows recordings and the two ONNX networks; nothing of streams.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2 import speaker, speech_tokenizer
from voiceagent.models.step_audio2.mel import mel_24k
from voiceagent.models.step_audio2.resample import resample
from voiceagent.models.step_audio2.speaker import SpeakerEncoder
from voiceagent.models.step_audio2.speech_tokenizer import MAX_SECONDS, SpeechTokenizer
from voiceagent.units import MODEL_RATE, VOICE_RATE

SHORTEST_S = 0.5
"""A recording must last this long to tell a voice."""

LONGEST_S = MAX_SECONDS
"""The speech tokenizer's positions end there."""

_FRAMES_PER_TOKEN = 2
_QUIET = 1e-3  # a peak below -60 dB is no speech

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A prepared prompt; never written. Two voices are the same if they are the same object.

    Attributes:
        name: what a client asks for.
        tokens: (T,) int64 speech ids.
        mel: (2 T, 80) float32.
        speaker: (192,) float32.
    """

    name: str
    tokens: Tensor
    mel: Tensor
    speaker: Tensor


def prepare_voice(
    samples: Float, rate: int, *, name: str, tokenizer: SpeechTokenizer, encoder: SpeakerEncoder
) -> Voice:
    """A voice from a recording of one speaker.

    Args:
        samples: (L,) float32 in [-1, 1], mono; 0.5 to 30 s.
        rate: samples per second, any.
        name: of the voice.
        tokenizer, encoder: the two networks of the checkpoint.

    Raises:
        InputError: too short, too long, silent, not finite or not mono.
    """
    samples = check_recording(samples, rate, name)
    low = resample(samples, source=rate, target=MODEL_RATE)
    tokens = torch.from_numpy(tokenizer.encode(low))
    vector = torch.from_numpy(encoder.encode(low))
    high = resample(samples, source=rate, target=VOICE_RATE)
    mel = mel_24k(torch.from_numpy(high)[None])[0]
    frames = _FRAMES_PER_TOKEN * len(tokens)
    missing = max(0, frames - mel.shape[1])
    mel = F.pad(mel[None], (0, missing), mode="replicate")[0, :, :frames]
    return Voice(name, tokens, mel.T.contiguous(), vector)


def new_voice(samples: Float, rate: int, *, name: str, folder: Path) -> Voice:
    """As `prepare_voice`, with the networks of a token2wav folder, which are opened for this one voice."""
    return prepare_voice(
        samples,
        rate,
        name=name,
        tokenizer=SpeechTokenizer(folder / speech_tokenizer.FILE),
        encoder=SpeakerEncoder(folder / speaker.FILE),
    )


def load_voices(folder: Path, *, recordings: Path) -> dict[str, Voice]:
    """The voices of a checkpoint: one for each `*.wav` in `recordings`, named like the file, in their order.

    The networks are opened for this only; the real one takes half a gigabyte.

    Args:
        folder: holds the two ONNX files.
        recordings: holds the wav files.

    Raises:
        CheckpointError: no recording, or a file that cannot be used; it is named.
    """
    paths = sorted(recordings.glob("*.wav"))
    tokenizer = SpeechTokenizer(folder / speech_tokenizer.FILE)
    encoder = SpeakerEncoder(folder / speaker.FILE)
    if not paths:
        raise CheckpointError(
            f"{recordings} holds no voice recording (default_female.wav, default_male.wav).",
            code="voice_missing",
            remedy="Put a mono 16-bit wav file of 3 to 10 s of clear speech there, or set engine.voices to a folder.",
        )
    voices = {}
    for path in paths:
        samples, rate = read_wave(path)
        try:
            voices[path.stem] = prepare_voice(
                samples, rate, name=path.stem, tokenizer=tokenizer, encoder=encoder
            )
        except InputError as cause:
            raise CheckpointError(f"{path}: {cause.message}", code=cause.code, remedy=cause.remedy) from cause
    return voices


def read_wave(path: Path) -> tuple[Float, int]:
    """Samples (L,) in [-1, 1] and rate of a 16-bit wav file; channels are averaged.

    Raises:
        CheckpointError: not such a file.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as cause:
        raise CheckpointError(f"{path} is not a wav file: {cause!r}.", remedy=_CONVERT) from cause
    if width != 2:
        raise CheckpointError(f"{path} has {8 * width} bits a sample, not 16.", remedy=_CONVERT)
    whole = len(data) // (2 * channels) * 2 * channels  # a truncated file may end within a sample
    values = np.frombuffer(data[:whole], "<i2").reshape(-1, channels)
    return (values.mean(axis=1) / 32768).astype(np.float32), rate


_CONVERT = "Convert it to a mono 16-bit wav file."


def check_recording(samples: Float, rate: int, name: str) -> Float:
    """The samples (L,) as float32, if they can be the prompt of the voice `name`.

    Raises:
        InputError: too short, too long, silent, not finite or not mono.
    """
    samples = np.ascontiguousarray(samples, np.float32)
    if samples.ndim != 1:
        raise InputError(f"the recording of the voice {name!r} is not mono.", remedy="Mix it down first.")
    if rate <= 0:
        raise InputError(f"the sample rate {rate} of the voice {name!r} is not positive.", param="rate")
    if len(samples) > LONGEST_S * rate:
        raise InputError(
            f"the recording of the voice {name!r} lasts {len(samples) / rate:.1f} s, more than {LONGEST_S} s.",
            code="audio_too_long",
            remedy="Cut it to 3 to 10 s of clear speech.",
        )
    if len(samples) < SHORTEST_S * rate:
        raise InputError(
            f"the recording of the voice {name!r} lasts {len(samples) / rate:.2f} s, less than {SHORTEST_S} s.",
            code="audio_too_short",
            remedy="Use 3 to 10 s of clear speech.",
        )
    if not np.isfinite(samples).all():
        raise InputError(f"the recording of the voice {name!r} holds values that are not finite.")
    if np.abs(samples).max() < _QUIET:
        raise InputError(
            f"the recording of the voice {name!r} is silent.",
            code="audio_silent",
            remedy="Use 3 to 10 s of clear speech.",
        )
    return samples
