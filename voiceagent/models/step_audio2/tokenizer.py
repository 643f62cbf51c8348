"""Text to token ids and back, and the ids of the model's special tokens, resolved by name from `tokenizer.json`.

It knows no prompt, no turn and no network. Text that people write can never turn into a special token here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from voiceagent.errors import CheckpointError

AUDIO_CODES = 6561  #: audio ids 0..6560 are speech codes (3 ** 8); 6561 is the pad, never vocoded

_NAMES = {
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "tool_call": "<tool_call>",
    "tool_call_end": "</tool_call>",
    "eot": "<|EOT|>",
    "bot": "<|BOT|>",
    "audio_start": "<audio_start>",
    "audio_end": "<audio_end>",
    "audio_patch": "<audio_patch>",
    "tts_start": "<tts_start>",
    "tts_end": "<tts_end>",
    "tts_pad": "<tts_pad>",
    "audio_0": "<audio_0>",
    "audio_pad": f"<audio_{AUDIO_CODES}>",
}

_TAGS = ("<think>", "</think>")
_TAG = re.compile("(" + "|".join(_TAGS) + ")")


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the special tokens. Text ids lie below `audio_start`; `audio_0`..`audio_pad` are contiguous.

    `eot`/`bot` end and begin a turn; `audio_patch` stands for one embedding row of heard audio; `tts_start` and
    `tts_end` enclose speech, in which `tts_pad` and `audio_pad` fill up whichever of text and audio has ended.
    """

    endoftext: int
    im_start: int
    im_end: int
    tool_call: int
    tool_call_end: int
    eot: int
    bot: int
    audio_start: int
    audio_end: int
    audio_patch: int
    tts_start: int
    tts_end: int
    tts_pad: int
    audio_0: int
    audio_pad: int

    def __post_init__(self) -> None:
        if self.audio_pad - self.audio_0 != AUDIO_CODES:
            raise CheckpointError(
                f"The audio tokens are not contiguous: <audio_0> is {self.audio_0} and <audio_{AUDIO_CODES}> is "
                f"{self.audio_pad}.",
                remedy="Use the tokenizer.json that belongs to this checkpoint.",
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith(("audio", "tts")):
                wrong = value < self.audio_start or (field.name != "audio_pad" and value > self.audio_0)
            else:
                wrong = value >= self.audio_start
            if wrong:
                raise CheckpointError(
                    f"The token {_NAMES[field.name]} has the id {value}, on the wrong side of <audio_start> "
                    f"({self.audio_start}) or <audio_0> ({self.audio_0}).",
                    remedy="Use the tokenizer.json that belongs to this checkpoint.",
                )

    def is_audio(self, token: int) -> bool:
        """Whether `token` is a speech code (the pad is not)."""
        return self.audio_0 <= token < self.audio_pad


class TextTokenizer:
    """Byte-level BPE without any special token, beside the special tokens' ids and every token's bytes.

    Special tokens are looked up by name and put in by id. `encode` treats `"<|EOT|>"` in a text as seven plain
    characters, so that neither a caller nor a tool result can forge a turn (the reference would let them).

    Attributes:
        ids: the special tokens.
        eos: the token that ends a text by the tokenizer's own account; `<|endoftext|>` where it does not say.
        size: one more than the highest id.
    """

    def __init__(
        self, spec: dict[str, Any], *, source: str = "tokenizer.json", eos: str | None = None
    ) -> None:
        model, added = _parts_of(spec, source=source)
        try:
            self._bpe = Tokenizer.from_str(json.dumps({**spec, "added_tokens": []}))
        except Exception as error:  # the library raises bare Exception for every malformed file
            raise _damaged(source, str(error)) from error
        self._bpe.no_truncation()
        self._bpe.no_padding()
        ids: dict[str, int] = {entry["content"]: entry["id"] for entry in added}
        missing = [name for name in _NAMES.values() if name not in ids]
        if missing:
            raise CheckpointError(
                f"{source} lacks the special token {missing[0]!r} among its added_tokens.",
                remedy="Use the tokenizer.json that belongs to this checkpoint.",
            )
        self.ids = SpecialIds(**{field: ids[name] for field, name in _NAMES.items()})
        self.eos = ids.get(eos or "", self.ids.endoftext)
        self._tags = {tag: ids[tag] for tag in _TAGS if tag in ids}
        vocab: dict[str, int] = model["vocab"]
        self.size = 1 + max(max(vocab.values(), default=0), max(ids.values()))
        self._bytes = [b""] * self.size
        for token, number in vocab.items():
            self._bytes[number] = _to_bytes(token)
        for name, number in ids.items():
            self._bytes[number] = name.encode()
        special = {entry["id"] for entry in added if entry.get("special")} - set(self._tags.values())
        self._special = special | {ids[n] for n in _NAMES.values()}

    @classmethod
    def from_folder(cls, folder: str | Path) -> TextTokenizer:
        """Reads `tokenizer.json` of a checkpoint folder, and the name of the eos in `tokenizer_config.json`.

        Raises:
            CheckpointError: the file is missing, damaged, not a byte-level BPE, or lacks a special token.
        """
        path = Path(folder) / "tokenizer.json"
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path} does not exist.", remedy="Point to a folder that holds a whole checkpoint."
            ) from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise _damaged(str(path), str(error)) from error
        return cls(spec, source=str(path), eos=_eos_name(path.with_name("tokenizer_config.json")))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` (normalised as the tokenizer says, NFC for Qwen2); never a special token."""
        if not text:
            return []
        # A lone surrogate (legal in JSON, "\ud800") has no UTF-8 form; the tokenizer library would refuse it.
        whole = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._bpe.encode(whole, add_special_tokens=False).ids
        return ids

    def encode_tagged(self, text: str) -> list[int]:
        """As `encode`, but `<think>` and `</think>` are single tokens where the tokenizer has them as such."""
        if not self._tags:
            return self.encode(text)
        parts = [[self._tags[part]] if part in self._tags else self.encode(part) for part in _TAG.split(text)]
        return [token for part in parts for token in part]

    def is_text(self, token: int) -> bool:
        """Whether `token` is written text: not special, not audio, not an unused row."""
        return 0 <= token < self.ids.audio_start and token not in self._special and bool(self._bytes[token])

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one token, maybe a part of a character; a special token's name; empty if unused."""
        return self._bytes[token] if 0 <= token < self.size else b""

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of `tokens`, special tokens by name, broken UTF-8 as U+FFFD."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", "replace")


def _parts_of(spec: Any, *, source: str) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """The BPE model and the added tokens of a parsed tokenizer.json, checked as far as we rely on them."""
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise _damaged(source, 'it has no "model" with a "vocab"')
    if model.get("type", "BPE") != "BPE" or not _is_byte_level(spec):
        raise _damaged(source, "it is not a byte-level BPE")
    added = spec.get("added_tokens") or []
    if not all(isinstance(entry, dict) and "content" in entry and "id" in entry for entry in added):
        raise _damaged(source, 'an entry of "added_tokens" lacks its content or id')
    return model, added


def _eos_name(path: Path) -> str | None:
    """`eos_token` of a tokenizer_config.json; None where the file or the entry is missing."""
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    if isinstance(named, dict):
        named = named.get("content")
    return named if isinstance(named, str) else None


def _is_byte_level(spec: dict[str, Any]) -> bool:
    """Whether the tokenizer decodes by the byte table of GPT-2 (which `token_bytes` inverts)."""
    decoder = spec.get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    return any(part.get("type") == "ByteLevel" for part in parts)


def _byte_table() -> dict[str, int]:
    """GPT-2's byte alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 onwards."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_table()


def _to_bytes(token: str) -> bytes:
    """Bytes of a vocabulary entry; an entry outside the byte alphabet stands for itself."""
    try:
        return bytes([_BYTES[char] for char in token])
    except KeyError:
        return token.encode("utf-8", "replace")


def _damaged(source: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} cannot be used as a tokenizer: {why}.",
        remedy="Use the tokenizer.json that belongs to this checkpoint.",
    )
