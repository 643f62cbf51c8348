"""G.711 mu-law and A-law (ITU-T G.711, 8 kHz telephony): bytes to int16 samples and back, nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from voiceagent.audio.pcm import Int16

_BIAS = 132  # mu-law adds 33 on a 14-bit scale, i.e. 132 on a 16-bit one
_MU_CLIP = 32635  # the largest magnitude that does not overflow the last segment once biased
_ALAW_TOGGLE = 0x55  # A-law inverts every other bit on the line


def _mulaw_table() -> Int16:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    segment, step = (code >> 4) & 7, code & 0xF
    magnitude = (((step << 3) + _BIAS) << segment) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Int16:
    code = np.arange(256, dtype=np.int32) ^ _ALAW_TOGGLE
    segment, step = (code >> 4) & 7, code & 0xF
    linear = (step << 4) + 8  # middle of the step
    magnitude = np.where(segment == 0, linear, (linear + 256) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_MULAW, _ALAW = _mulaw_table(), _alaw_table()


def _segments(magnitude: npt.NDArray[np.int32], *, lowest_bit: int) -> npt.NDArray[np.int32]:
    """Index of the highest set bit above `lowest_bit`, at least 0."""
    bit = np.frexp(np.maximum(magnitude, 1))[1] - 1
    segment: npt.NDArray[np.int32] = np.maximum(bit - lowest_bit, 0).astype(np.int32)
    return segment


def mulaw_decode(raw: bytes | bytearray | memoryview) -> Int16:
    """Mu-law bytes to int16 samples (n,)."""
    return _MULAW[np.frombuffer(raw, dtype=np.uint8)]


def alaw_decode(raw: bytes | bytearray | memoryview) -> Int16:
    """A-law bytes to int16 samples (n,)."""
    return _ALAW[np.frombuffer(raw, dtype=np.uint8)]


def mulaw_encode(samples: Int16) -> bytes:
    """Int16 samples (n,) to mu-law bytes, one per sample."""
    return _TO_MULAW[samples.view(np.uint16)].tobytes()


def alaw_encode(samples: Int16) -> bytes:
    """Int16 samples (n,) to A-law bytes, one per sample."""
    return _TO_ALAW[samples.view(np.uint16)].tobytes()


def _mulaw_codes(samples: Int16) -> npt.NDArray[np.uint8]:
    wide = samples.astype(np.int32)
    magnitude = np.minimum(np.abs(wide), _MU_CLIP) + _BIAS
    segment = _segments(magnitude, lowest_bit=7)
    code = (segment << 4) | ((magnitude >> (segment + 3)) & 0xF) | np.where(wide < 0, 0x80, 0)
    return (~code & 0xFF).astype(np.uint8)


def _alaw_codes(samples: Int16) -> npt.NDArray[np.uint8]:
    wide = samples.astype(np.int32) >> 3  # 13 significant bits; the shift floors, as the standard's tables do
    magnitude = np.where(wide < 0, -wide - 1, wide)
    segment = _segments(magnitude, lowest_bit=4)
    step = (magnitude >> np.maximum(segment, 1)) & 0xF
    code = (segment << 4) | step | np.where(wide < 0, 0, 0x80)
    return (code ^ _ALAW_TOGGLE).astype(np.uint8)


_EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
_TO_MULAW, _TO_ALAW = _mulaw_codes(_EVERY), _alaw_codes(_EVERY)
