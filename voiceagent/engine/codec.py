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
        if self._buffer:
            self._buffer += chunk
            chunk = self._buffer
        messages: list[T] = []
        start, length = 0, len(chunk)
        with memoryview(chunk) as view:  # nothing is copied but what a message holds in the end
            while length - start >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(view, start)
                if size > self._limit:
                    raise CodecError(
                        f"The peer announces a frame of {size} bytes; the limit is {self._limit}."
                    )
                begin = start + _LENGTH.size
                if length < begin + size:
                    break
                start = begin + size
                messages.append(self._decode(view[begin:start]))
        if chunk is self._buffer:
            del self._buffer[:start]
        elif start < length:
            self._buffer += chunk[start:]
        return messages

    def _decode(self, payload: memoryview) -> T:
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise CodecError(f"The peer sent a frame that does not decode: {error}") from error
