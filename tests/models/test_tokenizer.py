from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizer import SPECIALS, tiny_tokenizer, tokenizer_spec
from tokenizers import Tokenizer

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.tokenizer import TextTokenizer

TOKENIZER = tiny_tokenizer()


def test_special_ids_are_resolved_by_name() -> None:
    first = len(tokenizer_spec()["model"]["vocab"])
    ids = TOKENIZER.ids
    assert ids.endoftext == first
    assert ids.tool_call == first + 3
    assert (ids.eot, ids.bot) == (first + 5, first + 6)
    assert ids.audio_start == first + 7
    assert ids.tts_pad == first + 12
    assert ids.audio_0 == first + 13
    assert ids.audio_pad == ids.audio_0 + 6561
    assert TOKENIZER.size == ids.audio_pad + 1
    assert ids.is_audio(ids.audio_0 + 6560)
    assert not ids.is_audio(ids.audio_pad)
    assert not ids.is_audio(ids.tts_pad)


def test_merges_are_applied() -> None:
    assert len(TOKENIZER.encode("hello room one")) == 3
    assert TOKENIZER.encode("") == []


@given(st.text())
def test_decode_inverts_encode_up_to_nfc(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == unicodedata.normalize("NFC", text)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))))
def test_encoding_equals_the_library_where_no_special_name_occurs(text: str) -> None:
    whole = Tokenizer.from_str(json.dumps(tokenizer_spec()))
    if not any(name in text for name in SPECIALS):
        assert TOKENIZER.encode(text) == whole.encode(text, add_special_tokens=False).ids


@given(st.lists(st.sampled_from([*SPECIALS[:20], "hello", " ", "\n"])).map("".join))
def test_written_special_names_stay_text(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert all(token < TOKENIZER.ids.endoftext for token in tokens)
    assert TOKENIZER.decode(tokens) == text


def test_a_lone_surrogate_is_replaced() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"


def test_special_tokens_decode_to_their_names_and_unused_rows_to_nothing() -> None:
    ids = TOKENIZER.ids
    assert TOKENIZER.decode([ids.bot, *TOKENIZER.encode("hello"), ids.eot]) == "<|BOT|>hello<|EOT|>"
    assert TOKENIZER.token_bytes(TOKENIZER.size + 5) == b""


def test_folder_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json does not exist"):
        TextTokenizer.from_folder(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": ', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be used"):
        TextTokenizer.from_folder(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be used"):
        TextTokenizer.from_folder(tmp_path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match='no "model"'):
        TextTokenizer.from_folder(tmp_path)
    path.write_text(json.dumps(tokenizer_spec()), encoding="utf-8")
    assert TextTokenizer.from_folder(tmp_path).ids == TOKENIZER.ids


def test_a_missing_special_token_is_named() -> None:
    spec = tokenizer_spec()
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] != "<tts_end>"]
    with pytest.raises(CheckpointError, match="<tts_end>"):
        TextTokenizer(spec)


def test_scattered_audio_tokens_are_refused() -> None:
    spec = tokenizer_spec()
    spec["added_tokens"][-1]["id"] += 1
    with pytest.raises(CheckpointError, match="not contiguous"):
        TextTokenizer(spec)


def test_a_text_token_among_the_audio_tokens_is_refused() -> None:
    spec = tokenizer_spec()
    eot = next(entry for entry in spec["added_tokens"] if entry["content"] == "<|EOT|>")
    eot["id"] = spec["added_tokens"][-1]["id"] + 1
    with pytest.raises(CheckpointError, match="EOT"):
        TextTokenizer(spec)


def test_another_kind_of_tokenizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="byte-level"):
        TextTokenizer(tokenizer_spec() | {"decoder": {"type": "WordPiece"}})
    with pytest.raises(CheckpointError, match="cannot be used"):
        TextTokenizer(tokenizer_spec() | {"pre_tokenizer": {"type": "Nonsense"}})
