"""Audio files of any length, piece by piece: decoding to one rate, encoding to a growing file. It knows no sessions."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from voiceagent.audio.pcm import Float, Int16, int16_to_bytes, to_mono
from voiceagent.audio.resample import ResampleStream
from voiceagent.errors import InputError

FORMATS = {"flac": ("FLAC", "PCM_16"), "mp3": ("MP3", None), "opus": ("OGG", "OPUS")}
CONTENT_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
}
_BLOCK_S = 10


def decode(file: BinaryIO, *, rate: int) -> Iterator[Float]:
    """Mono float32 at `rate` Hz, in blocks of about 10 s.

    Raises:
        InputError: it is not audio that libsndfile reads, or breaks off, or holds samples that are not numbers.
    """
    try:
        with soundfile.SoundFile(file) as source:
            stream = ResampleStream(source=source.samplerate, target=rate)
            for block in source.blocks(source.samplerate * _BLOCK_S, dtype="float32", always_2d=True):
                mono = to_mono(block)
                if not np.isfinite(mono).all():
                    raise InputError(
                        "The file holds samples that are not finite numbers.", code="not_finite", param="file"
                    )
                yield stream.push(mono)
            yield stream.finish()
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        raise InputError(
            f"The file cannot be read as audio: {error}",
            code="unreadable_audio",
            param="file",
            remedy="Send a WAV, FLAC, MP3, OGG or Opus file.",
        ) from error


class Encoder:
    """One sound file in the making, to be sent as it grows: nothing that was sent is changed later.

    So a WAV header says that the length is not known, which players take for a stream; MP3 goes without the frame
    that would tell it. FLAC readers insist on the length: that file comes whole, from `finish`.

    Args:
        kind: wav, flac, mp3, opus (in Ogg) or pcm (bare 16-bit little-endian).
        rate: of the samples, Hz.
    """

    def __init__(self, kind: str, *, rate: int) -> None:
        self._kind = kind
        self._buffer = io.BytesIO()
        self._sent = 0
        self._head = _wav_header(rate) if kind == "wav" else b""
        self._file: soundfile.SoundFile | None = None
        if kind in FORMATS:
            container, coding = FORMATS[kind]
            # A constant rate lets players tell places without the frame of lengths.
            rates: dict[str, Any] = (
                {"bitrate_mode": "CONSTANT", "compression_level": 0.6} if kind == "mp3" else {}
            )
            self._file = soundfile.SoundFile(
                self._buffer, "w", rate, 1, format=container, subtype=coding, **rates
            )

    def push(self, samples: Int16) -> bytes:
        """Takes (n,) samples; returns the bytes that are ready."""
        if self._file is None:
            head, self._head = self._head, b""
            return head + int16_to_bytes(samples)
        self._file.write(samples)
        return b"" if self._kind == "flac" else self._new()

    def finish(self) -> bytes:
        """The rest of the file."""
        if self._file is None:
            return self.push(np.zeros(0, np.int16))
        self._file.close()
        return self._new()

    def close(self) -> None:
        """Gives everything up, whether or not it was finished."""
        if self._file is not None:
            self._file.close()

    def _new(self) -> bytes:
        data = self._buffer.getvalue()
        if self._kind == "mp3" and not self._sent:
            self._sent = _information_frame(data)
        new = data[self._sent :]
        self._sent += len(new)
        return new


def _information_frame(mp3: bytes) -> int:
    """Bytes of the first MP3 frame if it only tells length and delay, else 0. It is written last, too late for us."""
    at = max(mp3[:64].find(b"Xing"), mp3[:64].find(b"Info"))
    if at < 0:
        return 0
    # The next frame begins with the same version, layer, rate and channels.
    following = mp3.find(mp3[:2], at)
    return max(0, following)


def _wav_header(rate: int) -> bytes:
    """The 44 bytes before mono 16-bit samples whose number is not known."""
    size = 0xFFFFFFFF
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", size, b"WAVE") + chunk + struct.pack("<4sI", b"data", size - 36)
