import contextlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.engine.codec import CodecError, FrameReader, encode


class Number(msgspec.Struct, tag=True, frozen=True):
    value: int


class Blob(msgspec.Struct, tag=True, frozen=True):
    raw: bytes
    name: str


messages = st.lists(
    st.builds(Number, st.integers(-(2**63), 2**63 - 1))
    | st.builds(Blob, st.binary(max_size=300), st.text(max_size=20)),
    max_size=8,
)


@given(messages=messages, cuts=st.lists(st.integers(1, 50), max_size=100))
def test_any_chunking_gives_the_same_messages(messages: list[Number | Blob], cuts: list[int]) -> None:
    stream = b"".join(encode(message) for message in messages)
    reader: FrameReader[Number | Blob] = FrameReader(Number | Blob)
    heard, start = [], 0
    for cut in [*cuts, len(stream)]:
        heard += reader.feed(stream[start : start + cut])
        start += cut
    assert heard == messages


@given(st.binary(max_size=200))
def test_junk_never_raises_anything_but_a_codec_error(junk: bytes) -> None:
    reader: FrameReader[Number] = FrameReader(Number, limit=1000)
    with contextlib.suppress(CodecError):
        reader.feed(junk)


def test_a_frame_over_the_limit_is_refused_at_both_ends() -> None:
    with pytest.raises(CodecError, match="111"):
        encode(Blob(raw=b"", name="x" * 87), limit=100)
    with pytest.raises(CodecError, match="limit"):
        FrameReader(Blob, limit=100).feed(struct.pack(">I", 101))


def test_another_type_is_refused() -> None:
    with pytest.raises(CodecError, match="does not decode"):
        FrameReader(Number).feed(encode(Blob(raw=b"", name="")))
