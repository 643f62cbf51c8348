"""Conversations of the kinds that the reference's examples show, in its form and in ours, and a stand-in tokenizer.

The tokenizer has the real special tokens under their real ids, Qwen2's way of cutting a text into words, and merges
that reach across a line's end, so that it matters which text is tokenised together with which.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tiny_tokenizer import tokenizer_spec

from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.units import PIECE_SAMPLES

Message = Any
"""In the reference's form; a number in the place of an audio file stands for so many silent samples at 16 kHz."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_REAL_IDS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<tool_call>": 151657,
    "</tool_call>": 151658,
    "<|EOT|>": 151665,
    "<|BOT|>": 151666,
    "<audio_start>": 151688,
    "<audio_end>": 151689,
    "<audio_patch>": 151690,
    "<tts_start>": 151693,
    "<tts_end>": 151694,
    "<tts_pad>": 151695,
}
_AUDIO_0 = 151696
_NEWLINES = ["Ċ Ċ", "ĊĊ Ċ", "> Ċ", "> ĊĊ", ". Ċ", ". ĊĊ", ". ĊĊĊ", "] Ċ", "} ĊĊ"]
_FULL_STOP = [
    "ã Ģ",
    "ãĢ Ĥ",
    "ãĢĤ Ċ",
    "ãĢĤ ĊĊĊ",
]  # the three bytes of the Chinese one, and lines that end with it


def real_tokenizer_spec() -> dict[str, Any]:
    """A parsed tokenizer.json."""
    spec = tokenizer_spec()
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    for merge in _NEWLINES + _FULL_STOP:
        merges.append(merge)
        vocab.setdefault(merge.replace(" ", ""), len(vocab))
    for entry in spec["added_tokens"]:
        name = entry["content"]
        code = name.removeprefix("<audio_").removesuffix(">")
        entry["id"] = _AUDIO_0 + int(code) if code.isdigit() else _REAL_IDS[name]
    split = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Isolated", "invert": False}
    bytes_only = {**spec["pre_tokenizer"], "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, bytes_only]}
    return spec


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt.

    Attributes:
        name: of the example.
        messages: what the reference is given.
        items, instructions, tools, spoken: the same for `render_turn`.
        variant: "chat", "think" or "base".
        thought: of a turn that thinks: None while the prompt opens the thought, else what came of it.
        think: the turn thinks.
    """

    name: str
    messages: tuple[Message, ...]
    items: tuple[Item, ...]
    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    spoken: bool = False
    variant: str = "chat"
    think: bool = False
    thought: str | None = None


@dataclass(slots=True)
class _Talk:
    """Builds items with ids and pieces of their own."""

    made: int = 0
    heard: int = 0
    items: list[Item] = field(default_factory=list)

    def human(self, *parts: str | int) -> _Talk:
        content = tuple(TextContent(part) if isinstance(part, str) else self._audio(part) for part in parts)
        return self._add(UserItem(self._id(), content))

    def said(self, text: str = "", *, raw: tuple[int, ...] = ()) -> _Talk:
        return self._add(AssistantItem(self._id(), text, raw_ids=raw or None, spoken=bool(raw)))

    def call(self, name: str, arguments: str) -> _Talk:
        return self._add(ToolCallItem(self._id(), "call", name, arguments))

    def result(self, output: str) -> _Talk:
        return self._add(ToolResultItem(self._id(), "call", output))

    def _audio(self, samples: int) -> AudioContent:
        pieces = []
        for start in range(0, samples, PIECE_SAMPLES):
            size = min(PIECE_SAMPLES, samples - start)
            pieces.append(Piece(self.heard, np.zeros(size, np.float32)))
            self.heard += 1
        return AudioContent(tuple(pieces))

    def _id(self) -> str:
        self.made += 1
        return f"item_{self.made}"

    def _add(self, item: Item) -> _Talk:
        self.items.append(item)
        return self


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


def _human(*parts: str | int) -> Message:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "audio", "audio": part}
        for part in parts
    ]
    return {"role": "human", "content": content}


def _spoken(tokens: tuple[int, ...]) -> Message:
    """A spoken reply as the examples keep it."""
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": "<tts_start>"}, {"type": "token", "token": [*tokens]}],
    }


_WRITE: Message = {"role": "assistant", "content": None}
_SPEAK: Message = {"role": "assistant", "content": "<tts_start>", "eot": False}

RECOGNISE = "请记录下你所听到的语音内容。"
TRANSLATE = "请仔细聆听这段语音，然后将其内容翻译成中文。"
INTERPRET = "请仔细聆听这段语音，然后将其内容翻译成中文并用语音播报。"
CAPTION = "Please briefly explain the important events involved in this audio clip."
EXPERT = "You are an expert in audio analysis, please analyze the audio content and answer the questions accurately."
QUESTION = "Which one? [Soft, Loud]\n\nAnswer in <RESPONSE> </RESPONSE>."
READ_ALOUD = "以自然的语速读出下面的文字。\n"
SAY_IN_ENGLISH = "将下面的文本翻译成英文，并用语音播报。\n"
HELPFUL = "You are a helpful assistant."
WALL = "Give me a brief introduction to the Great Wall."
POEM = "Now write a 4-line poem about it."
PERSONA = "你叫小跃，会使用工具。\n今天是星期四\n请用默认女声与用户交流"
THINKER = "你叫小跃，先想好再回答。"
SUMMARISE = "\n\n\n请用口语化形式总结检索结果，简短地回答用户的问题。"
FOUND = "上证指数今天开盘。\n报3796.71点。"
THOUGHT = "The user asks about a town.\nThey sound curious.\n"
SEARCH = Tool(
    "search",
    "搜索工具",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "搜索关键词"}},
        "required": ["query"],
        "additionalProperties": False,
    },
)
SCHEMAS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "search",
                "description": "搜索工具",
                "parameters": {
                    "type": "object",
                    "properties": {"query": {"type": "string", "description": "搜索关键词"}},
                    "required": ["query"],
                    "additionalProperties": False,
                },
            },
        }
    ],
    ensure_ascii=False,
)
_PAD, _TEXT_PAD, _END, _CALL, _CALL_END = _AUDIO_0 + 6561, 151695, 151694, 151657, 151658
SPEECH = (72, *(_AUDIO_0 + i for i in (5, 77, 6560, 0)), _TEXT_PAD, _AUDIO_0 + 9, _PAD, _PAD, _PAD, _END)
CALLING = (*SPEECH, _CALL, 102, 10, 103, _CALL_END)
SHORT, LONG, LONGER = 32_123, 78_000, 2 * PIECE_SAMPLES + 50_001  # samples

CASES = (
    Case(
        "text to text",
        (_system(HELPFUL), {"role": "human", "content": WALL}, _WRITE),
        tuple(_Talk().human(WALL).items),
        HELPFUL,
    ),
    Case(
        "a user is a human",
        (_system(HELPFUL), {"role": "user", "content": WALL}, _WRITE),
        tuple(_Talk().human(WALL).items),
        HELPFUL,
    ),
    Case(
        "text to speech",
        (_system(HELPFUL), {"role": "human", "content": WALL}, _SPEAK),
        tuple(_Talk().human(WALL).items),
        HELPFUL,
        spoken=True,
    ),
    Case(
        "speech to text", (_system(HELPFUL), _human(LONG), _WRITE), tuple(_Talk().human(LONG).items), HELPFUL
    ),
    Case(
        "speech to speech",
        (_system(HELPFUL), _human(LONG), _SPEAK),
        tuple(_Talk().human(LONG).items),
        HELPFUL,
        spoken=True,
    ),
    Case(
        "text after speech",
        (_system(HELPFUL), _human(LONG), _spoken(SPEECH), {"role": "human", "content": POEM}, _WRITE),
        tuple(_Talk().human(LONG).said(raw=SPEECH).human(POEM).items),
        HELPFUL,
    ),
    Case(
        "text, then audio",
        (_system(HELPFUL), _human("Translate the speech into Chinese.", LONG), _WRITE),
        tuple(_Talk().human("Translate the speech into Chinese.", LONG).items),
        HELPFUL,
    ),
    Case(
        "recognition",
        (_system(RECOGNISE), _human(SHORT), _WRITE),
        tuple(_Talk().human(SHORT).items),
        RECOGNISE,
    ),
    Case(
        "translation of speech",
        (_system(TRANSLATE), _human(SHORT), _WRITE),
        tuple(_Talk().human(SHORT).items),
        TRANSLATE,
    ),
    Case(
        "spoken translation",
        (_system(INTERPRET), _human(SHORT), _SPEAK),
        tuple(_Talk().human(SHORT).items),
        INTERPRET,
        spoken=True,
    ),
    Case("caption", (_system(CAPTION), _human(SHORT), _WRITE), tuple(_Talk().human(SHORT).items), CAPTION),
    Case(
        "caption of three pieces",
        (_system(HELPFUL), _human(LONGER), _WRITE),
        tuple(_Talk().human(LONGER).items),
        HELPFUL,
    ),
    Case(
        "question about audio",
        (_system(EXPERT), _human(SHORT, QUESTION), _WRITE),
        tuple(_Talk().human(SHORT, QUESTION).items),
        EXPERT,
    ),
    Case(
        "paralinguistic",
        (_system("请用语音与我交流。"), _human(SHORT), _SPEAK),
        tuple(_Talk().human(SHORT).items),
        "请用语音与我交流。",
        spoken=True,
    ),
    Case(
        "rounds of text",
        (_system(HELPFUL), _human(SHORT), {"role": "assistant", "content": "\nYes.\n"}, _human(LONG), _WRITE),
        tuple(_Talk().human(SHORT).said("\nYes.\n").human(LONG).items),
        HELPFUL,
    ),
    Case(
        "rounds of speech",
        (_system(HELPFUL), _human(SHORT), _spoken(SPEECH), _human(LONG), _SPEAK),
        tuple(_Talk().human(SHORT).said(raw=SPEECH).human(LONG).items),
        HELPFUL,
        spoken=True,
    ),
    Case(
        "page, first round",
        (
            _system(PERSONA),
            _human(SHORT),
            {"role": "assistant", "content": [{"type": "text", "text": "<tts_start>"}], "eot": False},
        ),
        tuple(_Talk().human(SHORT).items),
        PERSONA,
        spoken=True,
    ),
    Case(
        "tools",
        (_system(PERSONA), {"role": "tool_json_schemas", "content": SCHEMAS}, _human(SHORT), _SPEAK),
        tuple(_Talk().human(SHORT).items),
        PERSONA,
        (SEARCH,),
        spoken=True,
    ),
    Case(
        "result of a tool",
        (
            _system(PERSONA),
            {"role": "tool_json_schemas", "content": SCHEMAS},
            _human(SHORT),
            _spoken(CALLING),
            {
                "role": "input",
                "content": [{"type": "text", "text": FOUND}, {"type": "text", "text": SUMMARISE}],
            },
            _SPEAK,
        ),
        tuple(_Talk().human(SHORT).said(raw=CALLING).call("search", "{}").result(FOUND + SUMMARISE).items),
        PERSONA,
        (SEARCH,),
        spoken=True,
    ),
    Case(
        "result of a tool as one text",
        (
            _system(PERSONA),
            {"role": "tool_json_schemas", "content": SCHEMAS},
            _human(SHORT),
            _spoken(CALLING),
            {"role": "input", "content": f"\n{FOUND}"},
            _SPEAK,
        ),
        tuple(_Talk().human(SHORT).said(raw=CALLING).call("search", "{}").result(f"\n{FOUND}").items),
        PERSONA,
        (SEARCH,),
        spoken=True,
    ),
    Case(
        "thought",
        (_system(THINKER), _human(SHORT), {"role": "assistant", "content": "\n<think>\n", "eot": False}),
        tuple(_Talk().human(SHORT).items),
        THINKER,
        variant="think",
        think=True,
        spoken=True,
    ),
    Case(
        "answer behind a thought",
        (
            _system(THINKER),
            _human(SHORT),
            {"role": "assistant", "content": f"\n<think>\n{THOUGHT}</think>\n\n<tts_start>", "eot": False},
        ),
        tuple(_Talk().human(SHORT).items),
        THINKER,
        variant="think",
        think=True,
        thought=THOUGHT,
        spoken=True,
    ),
    Case(
        "thought of the second round",
        (
            _system(THINKER),
            _human(SHORT),
            _spoken(SPEECH),
            _human(LONG),
            {"role": "assistant", "content": "\n<think>\n", "eot": False},
        ),
        tuple(_Talk().human(SHORT).said(raw=SPEECH).human(LONG).items),
        THINKER,
        variant="think",
        think=True,
        spoken=True,
    ),
    Case(
        "base recognition",
        (RECOGNISE, {"type": "audio", "audio": SHORT}),
        tuple(_Talk().human(SHORT).items),
        RECOGNISE,
        variant="base",
    ),
    Case(
        "base caption",
        (CAPTION, {"type": "audio", "audio": LONGER}),
        tuple(_Talk().human(LONGER).items),
        CAPTION,
        variant="base",
    ),
    Case(
        "base reads aloud",
        (READ_ALOUD, "你好呀！<tts_start>"),
        tuple(_Talk().human("你好呀！").items),
        READ_ALOUD,
        variant="base",
        spoken=True,
    ),
    Case(
        "base spoken translation of text",
        (SAY_IN_ENGLISH, "\n\n你好呀！<tts_start>"),
        tuple(_Talk().human("\n\n你好呀！").items),
        SAY_IN_ENGLISH,
        variant="base",
        spoken=True,
    ),
    Case(
        "base spoken translation",
        (INTERPRET, {"type": "audio", "audio": SHORT}, "<tts_start>"),
        tuple(_Talk().human(SHORT).items),
        INTERPRET,
        variant="base",
        spoken=True,
    ),
    Case(
        "base rounds of text",
        ({"type": "audio", "audio": SHORT}, "Yes.\n", {"type": "audio", "audio": LONG}),
        tuple(_Talk().human(SHORT).said("Yes.\n").human(LONG).items),
        variant="base",
    ),
    Case(
        "base rounds of speech",
        (
            {"type": "audio", "audio": SHORT},
            "<tts_start>",
            {"type": "token", "token": [*SPEECH]},
            {"type": "audio", "audio": LONG},
            "<tts_start>",
        ),
        tuple(_Talk().human(SHORT).said(raw=SPEECH).human(LONG).items),
        variant="base",
        spoken=True,
    ),
)
