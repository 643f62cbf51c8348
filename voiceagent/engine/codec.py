"""Frames on the pipe between server and engine: four bytes of length, then msgpack; it knows bytes, not meanings."""

from __future__ import annotations

import struct
from typing import Any, Generic, TypeVar

import msgspec

from voiceagent.errors import EngineError

MAX_FRAME_BYTES = 32 * 1024 * 1024  #: a 25 s piece is 1.6 MB, a long history of raw ids below 10 MB
_LENGTH = struct.Struct(">I")

T = TypeVar("T")


class CodecError(EngineError):
    """A frame that is too long or does not decode; the peer is broken and the pipe must be closed."""

    default_code = "engine_protocol"


_encoder = msgspec.msgpack.Encoder()


def encode(message: Any, *, limit: int = MAX_FRAME_BYTES) -> bytes:
    """One message (a msgspec struct) to a whole frame; `CodecError` when it is longer than `limit`."""
    payload = _encoder.encode(message)
    size = len(payload)
    if size > limit:
        raise CodecError(
            f"A message of {size} bytes is over the limit of {limit}.", remedy="Shorten the request."
        )
    return _LENGTH.pack(size) + payload


class FrameReader(Generic[T]):
    """Cuts a byte stream, fed in arbitrary chunks, into decoded messages of one type (a tagged union).

    `feed` raises `CodecError` on the first bad frame; the reader is of no use after that.
    """

    def __init__(self, kind: Any, *, limit: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[T]:
        """Take bytes as they came and return the messages that are now whole, in order."""
        self._buffer += chunk
        messages: list[T] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > self._limit:
                raise CodecError(f"The peer announces a frame of {size} bytes; the limit is {self._limit}.")
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            messages.append(self._decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages

    def _decode(self, payload: bytes) -> T:
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise CodecError(f"The peer sent a frame that does not decode: {error}") from error
