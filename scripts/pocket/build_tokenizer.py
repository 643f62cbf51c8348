"""Trains the pocket text tokenizer (a small Qwen2-style byte-level BPE). Knows nothing of audio.

python3 scripts/pocket/build_tokenizer.py [--out voiceagent/assets/pocket]

Deterministic: the same corpus gives the same two files. The special tokens bear the real model's names, in its order.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpus
import grammar
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT_TOKENS = 3072
AUDIO_TOKENS = 6562  # <audio_0> .. <audio_6561>; the last is the pad
# How Qwen2 cuts text before it merges: contractions, words, single digits, punctuation, line ends, blanks.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPECIAL = [
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
]
NOT_SPECIAL = {"<tool_call>", "</tool_call>"}  # part of the text that a decoder shows, as in Qwen2.5
FIXED_TEXTS = [
    "system\n",
    "human\n",
    "assistant\n",
    "input\n",
    "tool_json_schemas\n",
    "function_output\n",
    "function\nget_weather\n",
    "function\nget_time\n",
    "请记录下你所听到的语音内容。",
    "\n\n\n请用口语化形式总结检索结果，简短地回答用户的问题。",
]
FIXED_COUNT = 3000
WORD_COUNT = 300


def texts(made: dict[str, Any]) -> Iterator[str]:
    """Everything the model reads or writes, as often as it does, the fixed strings of the prompt included."""
    for index, dialogue in enumerate(made["train"]):
        if index % 4 == 0:
            yield dialogue["system"]
            if dialogue["tools"]:
                yield json.dumps(dialogue["tools"], ensure_ascii=False)
        for turn in dialogue["turns"]:
            yield turn["user"]
            yield turn["reply"]
            if tool := turn["tool"]:
                yield from (tool["result"], tool["final"], json.dumps(tool["arguments"], ensure_ascii=False))
    for sentence in made["generic"]:
        yield sentence
        yield "a " + sentence  # every first word also in its form inside a sentence
    yield from made["agent_generic"]
    for (
        word
    ) in grammar.ALL_WORDS:  # rare words become whole tokens too: speech leaves room for 6 tokens a second
        for _ in range(WORD_COUNT):
            yield " " + word
    for _ in range(FIXED_COUNT):
        yield from FIXED_TEXTS


def train(made: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts(made), trainer)
    names = SPECIAL + [f"<audio_{index}>" for index in range(AUDIO_TOKENS)]
    for name in names:
        token = AddedToken(name, special=name not in NOT_SPECIAL, normalized=False)
        tokenizer.add_special_tokens([token]) if token.special else tokenizer.add_tokens([token])
    return tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("voiceagent/assets/pocket"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train(corpus.build())
    tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|EOT|>",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(f"{tokenizer.get_vocab_size()} tokens")
    for text in [*FIXED_TEXTS, "okay anna, a table for four on friday at seven thirty.", '{"city": "paris"}']:
        print(len(tokenizer.encode(text).ids), repr(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
