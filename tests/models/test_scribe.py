"""The words of a transcription, as they come."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceagent.models.step_audio2.scribe import Scribe


class Bytes:
    """A tokenizer whose text tokens are single bytes; 256 is a special token."""

    def is_text(self, token: int) -> bool:
        return token < 256

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


def written(text: str, *, special: Callable[[int], bool] = lambda n: False) -> list[str]:
    scribe = Scribe(Bytes())  # type: ignore[arg-type]
    said = []
    for n, byte in enumerate(text.encode()):
        if special(n):
            said.append(scribe.feed(256))
        said.append(scribe.feed(byte))
    return [*said, scribe.finish()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  hello there \n", "hello there"),
        ("<English> hello", "hello"),
        ("<中文>你好。", "你好。"),
        ("< <English>hello", "< <English>hello"),
        ("<English", "<English"),
        ("<English><French>x", "<French>x"),
        ("a <b> c", "a <b> c"),
        ("", ""),
        ("<English>  ", ""),
    ],
)
def test_language_and_space_around_it_are_left_out(text: str, words: str) -> None:
    assert "".join(written(text)) == words


def test_words_come_as_soon_as_they_are_whole() -> None:
    assert [part for part in written("ab  c é") if part] == ["a", "b", "  c", " é"]
    assert written("é", special=lambda n: True) == ["", "", "", "é", ""]
    scribe = Scribe(Bytes())  # type: ignore[arg-type]
    assert (scribe.feed(0xC3), scribe.finish()) == ("", "\ufffd")


@given(st.text(st.sampled_from("<>a b\né中"), max_size=30))
def test_the_parts_make_the_whole(text: str) -> None:
    assert "".join(written(text)) == re.sub(r"^\s*<[^<>\n]{1,16}>\s*", "", text).strip()
