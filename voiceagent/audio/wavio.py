"""Reading and writing audio files through libsndfile; it knows formats and errors, not models or sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from voiceagent.audio.pcm import Float, Int16, check_finite, to_mono
from voiceagent.errors import InputError

ENDINGS = (".wav", ".flac", ".ogg")  #: formats that `write` is meant for


def read(path: str | Path) -> tuple[Float, int]:
    """Read a whole file as (mono float32 (n,), rate in Hz); several channels become their mean.

    Raises:
        InputError: the file is missing, empty, not audio, damaged, or holds no or non-finite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.", code="file_not_found", remedy="Check the path.")
    if path.stat().st_size == 0:
        raise InputError(
            f"The file {path} is empty.", code="empty_audio", remedy="Give a file with audio in it."
        )
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise InputError(
            f"The file {path} cannot be read as audio: {error}",
            code="unreadable_audio",
            remedy="Give a WAV, FLAC, OGG or MP3 file.",
        ) from error
    if not len(samples):
        raise InputError(
            f"The file {path} holds 0 samples.", code="empty_audio", remedy="Give a file with audio in it."
        )
    mono = to_mono(samples)
    try:
        check_finite(mono)
    except InputError as error:
        raise InputError(f"The file {path}: {error.message}", code=error.code, remedy=error.remedy) from error
    return mono, int(rate)


def write(path: str | Path, samples: Float | Int16, *, rate: int) -> None:
    """Write mono samples (n,) as 16-bit PCM; the format follows the name's ending (.wav, .flac, .ogg).

    Raises:
        InputError: the folder does not exist, is not writable, or the ending names no known format.
    """
    try:
        soundfile.write(Path(path), np.asarray(samples), rate, subtype=None if _lossy(path) else "PCM_16")
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The file {path} cannot be written: {error}",
            code="unwritable_file",
            remedy="Check that the folder exists and that the name ends in .wav, .flac or .ogg.",
        ) from error


def _lossy(path: str | Path) -> bool:
    return Path(path).suffix.lower() in {".ogg", ".mp3", ".opus"}
