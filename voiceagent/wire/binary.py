"""Audio of responses as binary frames, for clients that asked for them: a header of 16 bytes, then the audio."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from voiceagent.errors import InputError

_HEADER = struct.Struct("<BBHIQ")  # version, kind, zero, response, sample
VERSION = 1
RESPONSE_AUDIO = 1


@dataclass(frozen=True, slots=True)
class AudioFrame:
    """A frame as a client sees it.

    Attributes:
        number: of the response; its id ends with it.
        at: place of the first sample in the response's audio.
        audio: bytes of the output format.
    """

    number: int
    at: int
    audio: bytes


def audio_frame(raw: bytes, *, number: int, at: int) -> bytes:
    """A frame of response `number` whose audio begins at its sample `at`."""
    return _HEADER.pack(VERSION, RESPONSE_AUDIO, 0, number & 0xFFFFFFFF, at) + raw


def read_frame(frame: bytes) -> AudioFrame | None:
    """The other end's view of it; None for a version or a kind that is not known here.

    Raises:
        InputError: it is shorter than its header.
    """
    if len(frame) < _HEADER.size:
        raise InputError(f"A binary frame of {len(frame)} bytes has no header.", code="invalid_message")
    version, kind, _, number, at = _HEADER.unpack_from(frame)
    if (version, kind) != (VERSION, RESPONSE_AUDIO):
        return None
    return AudioFrame(number, at, frame[_HEADER.size :])
