"""Trains the pocket text tokenizer (a small Qwen2-style byte-level BPE) and sizes config.json for it. No audio here.

    PYTHONPATH=. python3 scripts/pocket/build_tokenizer.py --corpus DATA/corpus.json --out CK/base

The result is the base of a checkpoint folder: tokenizer.json and tokenizer_config.json, config.json and
generation_config.json of --from with the new ids, and the model card, still without figures. Deterministic: the same
corpus gives the same files. The special tokens bear the real model's names, in its order.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from scripts.pocket import task
from voiceagent.core.condense import HEADING, REQUEST
from voiceagent.models.step_audio2.prompt import SUMMARISE

SHIPPED = Path("voiceagent/assets/pocket")
CARD = Path(__file__).resolve().with_name("card.md")
TEXT_TOKENS = 4096
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
THOUGHTS = ["<think>", "</think>"]  # whose presence says that the checkpoint can think (variant.py)
NOT_SPECIAL = {
    "<tool_call>",
    "</tool_call>",
    *THOUGHTS,
}  # part of the text that a decoder shows, as in Qwen2.5
FIXED_TEXTS = [
    "system\n",
    "human\n",
    "assistant\n",
    "input\n",
    "tool_json_schemas\n",
    "function_output\n",
    task.ASR,
    task.TALK_ZH,
    task.DESCRIBE,
    task.BASE_SPEAK,
    task.BASE_SPEAK_ZH,
    *(
        prompt.format(language=names[zh])
        for names in task.LANGUAGES.values()
        for zh, prompts in enumerate(
            (
                (task.TRANSLATE, task.TRANSLATE_ALOUD, task.BASE_TRANSLATE),
                (task.TRANSLATE_ZH, task.TRANSLATE_ALOUD_ZH, task.BASE_TRANSLATE_ZH),
            )
        )
        for prompt in prompts
    ),
    HEADING,
    REQUEST,
    SUMMARISE,
]
FIXED_COUNT = 3000
WORD_COUNT = 40  # rare words are short in tokens too: speech leaves room for 6 tokens a second


def texts(corpus: dict[str, Any]) -> Iterator[str]:
    """Everything the model reads or writes, as often as it does, the fixed strings of the prompt included."""
    words: Counter[str] = Counter()
    for text in _said(corpus):
        words.update(word.strip(".,?:") for word in text.split())
        yield text
    for index, made in enumerate(corpus["train"]):
        if index % 4 == 0:
            yield made["system"]
            if made["tools"]:
                yield json.dumps(made["tools"], ensure_ascii=False)
        yield made["summary"]
        for turn in made["turns"]:
            if tool := turn["tool"]:
                yield from (tool["result"], f"function\n{tool['name']}\n{json.dumps(tool['arguments'])}")
    for made in corpus["tasks"]:
        yield from (made["instructions"], made["typed"], made["thought"])
    for word in sorted(words):
        if word.islower() and word.replace("'", "").isalpha():
            yield from [" " + word] * WORD_COUNT
    for _ in range(FIXED_COUNT):
        yield from FIXED_TEXTS


def _said(corpus: dict[str, Any]) -> Iterator[str]:
    """Every sentence, heard or said, also as it begins inside of a text."""
    for made in corpus["train"]:
        for turn in made["turns"]:
            yield from (turn["heard"]["text"], turn["reply"], turn["tool"]["final"] if turn["tool"] else "")
        for exchange in made["history"]:
            yield from exchange
    for made in corpus["tasks"]:
        yield from (made["heard"]["text"] if made["heard"] else "", made["reply"])
    for name in ("generic", "agent_generic", "agent_spanish"):
        for sentence in corpus[name]:
            yield from (sentence, " " + sentence)


def train(corpus: dict[str, Any], *, size: int = TEXT_TOKENS) -> Tokenizer:
    """The tokenizer of a corpus; fewer tokens than `size` if its texts do not give so many."""
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
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts(corpus), trainer)
    names = SPECIAL[:5] + THOUGHTS + SPECIAL[5:] + [f"<audio_{index}>" for index in range(AUDIO_TOKENS)]
    for name in names:
        token = AddedToken(name, special=name not in NOT_SPECIAL, normalized=False)
        tokenizer.add_special_tokens([token]) if token.special else tokenizer.add_tokens([token])
    return tokenizer


def write(tokenizer: Tokenizer, to: Path, *, base: Path = SHIPPED) -> None:
    """The base of a checkpoint folder: the tokenizer, and the other small files of `base` with its ids."""
    to.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(to / "tokenizer.json"), pretty=False)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|EOT|>",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    end = tokenizer.token_to_id("<|EOT|>")
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"eos_token_id": end}
    config["text_config"]["vocab_size"] = -(-tokenizer.get_vocab_size() // 64) * 64
    config.pop("quantization_config", None)  # package.py says it when it is so
    generation = json.loads((base / "generation_config.json").read_text(encoding="utf-8"))
    generation["eos_token_id"] = [end]
    listed = {"tokenizer_config": described, "config": config, "generation_config": generation}
    for name, values in listed.items():
        (to / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(CARD, to / "README.md")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="corpus.json of gen_data.py")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--from", dest="base", type=Path, default=SHIPPED, help="whose sizes the model has")
    args = parser.parse_args()
    tokenizer = train(json.loads(args.corpus.read_text(encoding="utf-8")))
    write(tokenizer, args.out, base=args.base)
    print(f"{tokenizer.get_vocab_size()} tokens")
    for text in [*FIXED_TEXTS, "okay anna, a table for four on friday at seven thirty.", "¿qué hora es?"]:
        print(len(tokenizer.encode(text).ids), repr(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
