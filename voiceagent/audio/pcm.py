"""Sample formats: 16-bit little-endian bytes, int16 and float32 arrays; it knows no files, codecs or protocols."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from voiceagent.errors import InputError

Float = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

_S16 = np.dtype("<i2")
_SCALE = 32768.0  # symmetric, so that s16 -> float -> s16 is exact for every value
TO_FLOAT = 1 / _SCALE  #: an int16 sample times this is its float32 sample, exactly: it is a power of two


def bytes_to_int16(raw: bytes | bytearray | memoryview) -> Int16:
    """Little-endian 16-bit bytes to an int16 array (n,), perhaps read-only; `InputError` for an odd byte count."""
    if len(raw) % 2:
        raise InputError(
            f"16-bit audio holds {len(raw)} bytes, which is not a whole number of samples.",
            code="odd_audio_length",
            remedy="Send an even number of bytes of little-endian 16-bit PCM.",
        )
    return np.frombuffer(raw, _S16).astype(np.int16, copy=False)


def int16_to_bytes(samples: Int16) -> bytes:
    """An int16 array (n,) to little-endian bytes."""
    return samples.astype(_S16, copy=False).tobytes()


def int16_to_float(samples: Int16) -> Float:
    """Int16 (n,) to float32 in [-1, 1)."""
    return np.multiply(samples, np.float32(TO_FLOAT), dtype=np.float32)


SILENT_DB = -100.0  #: level of digital silence


def level_db(samples: Float) -> float:
    """Loudness of float32 samples (n,): root mean square in decibels of full scale, to a tenth, `SILENT_DB` at least.

    Samples that are not finite count as silence.
    """
    power = float(np.dot(samples, samples)) / max(len(samples), 1)
    return round(10.0 * math.log10(power), 1) if math.isfinite(power) and power > 1e-10 else SILENT_DB


def float_to_int16(samples: Float) -> Int16:
    """Float32 (n,) to int16, rounded and clipped; `InputError` when a sample is NaN or infinite."""
    check_finite(samples)
    return round_to_int16(samples * np.float32(_SCALE))


def round_to_int16(samples: Float) -> Int16:
    """Finite float32 (n,) on the scale of int16 to int16, rounded and clipped."""
    # np.clip would take three times as long for a frame of 20 ms.
    within: Float = np.minimum(np.maximum(np.rint(samples), np.float32(-32768)), np.float32(32767))
    return within.astype(np.int16)


def s16_to_float(raw: bytes | bytearray | memoryview) -> Float:
    """Little-endian 16-bit bytes to float32 (n,) in [-1, 1); `InputError` for an odd byte count."""
    return int16_to_float(bytes_to_int16(raw))


def float_to_s16(samples: Float) -> bytes:
    """Float32 (n,) to little-endian 16-bit bytes, clipped; `InputError` when a sample is NaN or infinite."""
    return int16_to_bytes(float_to_int16(samples))


def check_finite(samples: Float) -> None:
    """Raise `InputError` unless every sample is a finite number: one NaN poisons every filter behind it."""
    if not np.isfinite(samples).all():
        raise InputError(
            "The audio holds NaN or infinite samples.",
            code="audio_not_finite",
            remedy="Send finite samples between -1 and 1.",
        )


def to_mono(samples: npt.NDArray[Any]) -> Float:
    """(n,) or (n, channels) to the float32 mean over the channels, (n,)."""
    if samples.ndim == 1:
        return samples.astype(np.float32, copy=False)
    mono: Float = samples.mean(axis=1, dtype=np.float32)
    return mono
