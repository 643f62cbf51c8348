from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import tiny_tokenizer

from voiceagent.models.step_audio2.prompt import ta4_interleave, tool_call_ids
from voiceagent.models.step_audio2.tokens import (
    BrokenToolCall,
    Part,
    SpeechCode,
    Splitter,
    TextDelta,
    ToolCall,
    parse_tool_call,
)

TOKENIZER = tiny_tokenizer()
IDS = TOKENIZER.ids
ANY_ID = st.one_of(
    st.integers(0, IDS.endoftext - 1),
    st.integers(IDS.endoftext, IDS.audio_0 - 1),
    st.integers(IDS.audio_0, TOKENIZER.size + 3),
)


def split(tokens: Iterable[int], *, spoken: bool) -> list[Part]:
    splitter = Splitter(TOKENIZER, spoken=spoken)
    parts = [part for token in tokens for part in splitter.feed(token)]
    return [*parts, *splitter.finish()]


def text_of(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


def codes_of(parts: Iterable[Part]) -> list[int]:
    return [part.code for part in parts if isinstance(part, SpeechCode)]


@given(text=st.text(), audio=st.lists(st.integers(0, 6560), max_size=60))
def test_a_spoken_reply_comes_apart_again(text: str, audio: list[int]) -> None:
    text_ids = TOKENIZER.encode(text)
    parts = split(ta4_interleave(text_ids, audio, IDS), spoken=True)
    assert text_of(parts) == unicodedata.normalize("NFC", text)
    assert codes_of(parts) == audio
    deltas = [part for part in parts if isinstance(part, TextDelta)]
    assert [i for part in deltas for i in part.ids] == text_ids
    assert all("\ufffd" not in part.text for part in deltas) or "\ufffd" in text


@given(st.lists(ANY_ID, max_size=60), st.booleans())
def test_any_ids_at_all_split_without_an_error(tokens: list[int], spoken: bool) -> None:
    parts = split(tokens, spoken=spoken)
    speech = tokens[: tokens.index(IDS.tts_end)] if IDS.tts_end in tokens else tokens
    assert codes_of(parts) == ([t - IDS.audio_0 for t in speech if IDS.is_audio(t)] if spoken else [])
    assert all(part.text for part in parts if isinstance(part, TextDelta))
    if spoken:
        written = [t for t in speech if TOKENIZER.is_text(t)]
        assert text_of(parts) == TOKENIZER.decode(written)
    elif IDS.tool_call not in tokens:
        assert text_of(parts) == TOKENIZER.decode(t for t in tokens if TOKENIZER.is_text(t))


def test_a_character_waits_until_it_is_whole() -> None:
    splitter = Splitter(TOKENIZER, spoken=True)
    ids = TOKENIZER.encode("é喂😀")
    assert len(ids) == 9
    deltas = [splitter.feed(token) for token in ids]
    assert [bool(parts) for parts in deltas] == [False, True, *[False] * 2, True, *[False] * 3, True]
    assert deltas[4] == (TextDelta("喂", tuple(ids[2:5])),)
    assert splitter.finish() == ()


def test_half_a_character_at_the_end_is_marked() -> None:
    half = TOKENIZER.encode("喂")[:2]
    assert split(half, spoken=False) == [TextDelta("\ufffd", tuple(half))]
    assert split([*half, IDS.tts_end], spoken=True) == [TextDelta("\ufffd", tuple(half))]


def test_pads_and_stray_special_tokens_vanish() -> None:
    stray = [IDS.tts_pad, IDS.audio_pad, IDS.audio_patch, IDS.bot, IDS.tts_start, IDS.im_end, IDS.tool_call]
    assert split([*stray, IDS.audio_0 + 6560], spoken=True) == [SpeechCode(6560)]


@pytest.mark.parametrize("spoken", [True, False])
def test_tool_calls_after_the_words(spoken: bool) -> None:
    hello = TOKENIZER.encode("hello")
    calls = [*tool_call_ids("f", '{"q": "é"}', TOKENIZER), *tool_call_ids("g", "{}", TOKENIZER)]
    before = ta4_interleave(hello, [1, 2], IDS) if spoken else hello
    said = [TextDelta("hello", tuple(hello)), *([SpeechCode(1), SpeechCode(2)] if spoken else [])]
    assert split([*before, *calls], spoken=spoken) == [
        *said,
        ToolCall("f", '{"q": "é"}'),
        ToolCall("g", "{}"),
    ]


def test_text_between_the_speech_and_a_call_is_not_part_of_the_reply() -> None:
    tokens = [IDS.tts_end, *TOKENIZER.encode("\n\nhm"), *tool_call_ids("f", "{}", TOKENIZER)]
    assert split(tokens, spoken=True) == [ToolCall("f", "{}")]


def test_text_mode_goes_on_after_a_call() -> None:
    tokens = [*tool_call_ids("f", "{}", TOKENIZER), *TOKENIZER.encode("hello")]
    assert split(tokens, spoken=False) == [
        ToolCall("f", "{}"),
        TextDelta("hello", (*TOKENIZER.encode("hello"),)),
    ]


def test_an_unclosed_call_is_read_if_it_is_whole() -> None:
    whole = tool_call_ids("f", '{"a": 1}', TOKENIZER)[:-1]
    assert split(whole, spoken=False) == [ToolCall("f", '{"a": 1}')]
    assert split([*whole, *whole], spoken=False) == [ToolCall("f", '{"a": 1}')] * 2
    (broken,) = split(whole[:-1], spoken=False)
    assert isinstance(broken, BrokenToolCall)
    assert broken.text == 'function\nf\n{"a": 1'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "three lines"),
        ("function\nf", "three lines"),
        ("search\nf\n{}", "three lines"),
        ("function\n \n{}", "names no function"),
        ("function\nf\n", "not JSON"),
        ("function\nf\n{", "not JSON"),
        ('function\nf\n{"a": NaN}', "not JSON"),
        ("function\nf\n[1]", "not a JSON object"),
        ("function\nf\n" + "[" * 100_000, "not JSON"),
    ],
)
def test_a_malformed_call_is_a_result(text: str, problem: str) -> None:
    out = parse_tool_call(text)
    assert isinstance(out, BrokenToolCall)
    assert out.text == text
    assert problem in out.problem


@given(st.text())
def test_parsing_never_raises(text: str) -> None:
    for candidate in (text, f"function\n{text}", f"function\nf\n{text}"):
        out = parse_tool_call(candidate)
        assert isinstance(out, ToolCall) or out.text == candidate
