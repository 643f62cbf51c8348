"""A short recording out of the bytes of a sound file that a stranger sent: checked before it is believed.

Decoders of compressed sound have bugs, so this belongs into a process that may die. It knows no voices.
"""

from __future__ import annotations

import io

import numpy as np
import soundfile

from voiceagent.audio.pcm import Int16, float_to_int16, to_mono
from voiceagent.audio.resample import ResampleStream
from voiceagent.errors import InputError

RATES = (8_000, 192_000)  #: Hz that a file may claim: how much is read at a time goes by it
CHANNELS = 8
QUIET = 1e-3  #: a peak below -60 dB is no speech
SLACK_S = 0.01  #: a length may miss its bounds by this much: other rates round it
_CONVERT = "Send a WAV, FLAC, MP3 or OGG file of clear speech."


def read_clip(data: bytes, *, rate: int, shortest_s: float, longest_s: float) -> Int16:
    """(n,) mono samples at `rate` Hz; no more of the file is decoded than its longest form has.

    Raises:
        InputError: not one of the four kinds (`unsupported_format`), broken (`unreadable_audio`), too short or too
            long (`audio_too_short`, `audio_too_long`), silent (`audio_silent`) or not finite; `param` is audio.
    """
    if not _known(data):
        raise _error("The file is no WAV, FLAC, MP3 or OGG.", "unsupported_format")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as source:
            if not RATES[0] <= source.samplerate <= RATES[1] or not 1 <= source.channels <= CHANNELS:
                words = f"{source.channels} channels at {source.samplerate} Hz cannot be used."
                raise _error(words, "unsupported_rate")
            blocks, frames = [], 0
            while len(block := source.read(source.samplerate, dtype="float32", always_2d=True)):
                frames += len(block)
                blocks.append(to_mono(block))
                if frames > (longest_s + SLACK_S) * source.samplerate:
                    raise _length("more than", longest_s, "audio_too_long", shortest_s, longest_s)
            if frames < (shortest_s - SLACK_S) * source.samplerate:
                raise _length("less than", shortest_s, "audio_too_short", shortest_s, longest_s)
            stream = ResampleStream(source=source.samplerate, target=rate)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        raise _error(f"The file cannot be read as audio: {error}.", "unreadable_audio") from error
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise _error("The file holds samples that are not finite numbers.", "not_finite")
    if np.abs(samples).max() < QUIET:
        raise _error("The recording is silent.", "audio_silent")
    return float_to_int16(np.concatenate([stream.push(samples), stream.finish()]))


def _known(data: bytes) -> bool:
    """Whether it begins like one of the kinds; what libsndfile could read besides is not let near it."""
    mp3 = data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2)
    return mp3 or data[:4] in (b"fLaC", b"OggS") or (data[:4] == b"RIFF" and data[8:12] == b"WAVE")


def _length(what: str, bound: float, code: str, shortest_s: float, longest_s: float) -> InputError:
    remedy = f"Use {shortest_s:g} to {longest_s:g} s of clear speech of one person."
    return InputError(f"The recording lasts {what} {bound:g} s.", code=code, param="audio", remedy=remedy)


def _error(message: str, code: str) -> InputError:
    return InputError(message, code=code, param="audio", remedy=_CONVERT)


def to_wav(samples: Int16, *, rate: int) -> bytes:
    """(n,) samples as a WAV file of 16 bits."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
