"""Reads what an ONNX file announces - its inputs and outputs - without loading its weights; it runs nothing.

The format is protobuf: a message is a sequence of (field number, kind, value), and a model holds a graph. Fields used
here, from onnx.proto: model.graph 7; graph.initializer 5, input 11, output 12; value.name 1; tensor.name 8.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from voiceagent.errors import CheckpointError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """Names of what a network takes and gives; constants that old files list as inputs are left out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx_header(path: Path) -> OnnxHeader:
    """Looks through a file; a few kilobytes of it are read.

    Raises:
        CheckpointError: the file is missing, truncated or not ONNX.
    """
    try:
        with path.open("rb") as file:
            for field, length in _fields(file, path.stat().st_size):
                if field == 7 and length is not None:
                    return _read_graph(file, file.tell() + length)
    except OSError as cause:
        raise _damaged(path, str(cause)) from cause
    except ValueError as cause:
        raise _damaged(path, f"{cause}; it is truncated or not an ONNX file") from cause
    raise _damaged(path, "it holds no network")


def _read_graph(file: BinaryIO, end: int) -> OnnxHeader:
    named: dict[int, list[str]] = {5: [], 11: [], 12: []}
    for field, length in _fields(file, end):
        if field in named and length is not None:
            named[field].append(_name(file, file.tell() + length, field=8 if field == 5 else 1))
    return OnnxHeader(tuple(name for name in named[11] if name not in named[5]), tuple(named[12]))


def _name(file: BinaryIO, end: int, *, field: int) -> str:
    """The name within a message; afterwards the file stands at the message's end."""
    name = ""
    for number, length in _fields(file, end):
        if number == field and length is not None:
            name = file.read(length).decode("utf-8", "replace")
    return name


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | None]]:
    """Each field's number and, for text, bytes and messages, their length; the caller may read them or not.

    Raises:
        ValueError: the bytes are no message of that length.
    """
    while (at := file.tell()) < end:
        key = _varint(file)
        field, kind = key >> 3, key & 7
        if kind == _BYTES:
            length = _varint(file)
            after = file.tell() + length
            if field == 0 or after > end:
                raise ValueError(f"a field at byte {at} reaches beyond the end")
            yield field, length
            file.seek(after)
        elif kind in (_VARINT, _FIXED64, _FIXED32):
            if kind == _VARINT:
                _varint(file)
            else:
                file.seek(8 if kind == _FIXED64 else 4, os.SEEK_CUR)
            yield field, None
        else:
            raise ValueError(f"the bytes at {at} are no field")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number has too many bytes")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be used: {why}.", remedy="Download or export the checkpoint folder again."
    )
