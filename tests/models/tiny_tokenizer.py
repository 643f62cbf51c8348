"""A small stand-in for a checkpoint's tokenizer.json: real special names, byte alphabet, a handful of merges."""

from __future__ import annotations

from typing import Any

from voiceagent.models.step_audio2.tokenizer import TextTokenizer

SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<|EOT|>",
    "<|BOT|>",
    "<audio_start>",
    "<audio_end>",
    "<audio_patch>",
    "<tts_start>",
    "<tts_end>",
    "<tts_pad>",
    *(f"<audio_{code}>" for code in range(6562)),
]

# GPT-2's byte alphabet in byte order: printable Latin-1 as itself, the rest shifted to U+0100 onwards.
_SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = iter(range(256, 512))
ALPHABET = [chr(byte) if byte in _SHOWN else chr(next(_HIDDEN)) for byte in range(256)]

WORDS = ["system", "human", "assistant", "input", "tool", "function", "hello", "Ġroom", "Ġone"]


def tokenizer_spec() -> dict[str, Any]:
    """A parsed tokenizer.json in the shape of Qwen2's (NFC, byte-level BPE, specials as added tokens)."""
    vocab = {char: number for number, char in enumerate(ALPHABET)}
    merges: list[str] = []
    for word in WORDS:
        left = word[0]
        for char in word[1:]:
            if f"{left} {char}" not in merges:
                merges.append(f"{left} {char}")
            left += char
            vocab.setdefault(left, len(vocab))
    added = [
        {"id": len(vocab) + i, "content": name, "special": "tool_call" not in name}
        | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i, name in enumerate(SPECIALS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def tiny_tokenizer() -> TextTokenizer:
    return TextTokenizer(tokenizer_spec())
