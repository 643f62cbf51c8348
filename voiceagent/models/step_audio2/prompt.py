"""Renders a conversation as the model's prompt: which token or which row of which heard audio stands where.

It is pure: it knows the history's types and the tokenizer, and nothing of embeddings, caches or sampling.
Each piece that the reference tokenises on its own is tokenised on its own here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, assert_never

from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.errors import InputError
from voiceagent.models.step_audio2.mel import placeholder_count
from voiceagent.models.step_audio2.tokenizer import SpecialIds, TextTokenizer

ASR_INSTRUCTIONS = (
    "请记录下你所听到的语音内容。"  #: the system prompt that the model was taught for transcription
)


class AudioRow(NamedTuple):
    """One `<audio_patch>` position: its embedding is row `row` of the encoded piece with the id `piece`."""

    piece: int
    row: int


Slot = int | AudioRow
"""One position of the prompt. Two equal slots mean the same embedding, so prompts compare by common prefix."""


class ToolSpec(Protocol):
    """A function that the model may call; `parameters` is a JSON schema."""

    @property
    def name(self) -> str:
        """The function's name."""

    @property
    def description(self) -> str:
        """What it does, for the model to read."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of its arguments."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to prefill, and how the reply begins.

    Attributes:
        slots: the rendered conversation, open at the assistant's turn (`<tts_start>` included when `spoken`).
        forced: first ids of the reply that are not the model's choice (a required tool call); often empty.
        spoken: whether the reply is a text-and-audio stream; else it is text.
    """

    slots: tuple[Slot, ...]
    forced: tuple[int, ...]
    spoken: bool


def ta4_interleave(text_ids: Sequence[int], audio_ids: Sequence[int], ids: SpecialIds) -> list[int]:
    """Speech as the model emits it after `<tts_start>`: 1 text : 4 audio, both padded to whole groups, `<tts_end>`.

    Args:
        text_ids: token ids of the spoken text.
        audio_ids: 0-based speech codes (0..6560).
        ids: the special tokens.
    """
    groups = max(-(-len(audio_ids) // 4), len(text_ids))
    text = [*text_ids, *[ids.tts_pad] * (groups - len(text_ids))]
    audio = [*(ids.audio_0 + code for code in audio_ids), *[ids.audio_pad] * (4 * groups - len(audio_ids))]
    out: list[int] = []
    for i in range(groups):
        out.append(text[i])
        out += audio[4 * i : 4 * i + 4]
    out.append(ids.tts_end)
    return out


def tool_call_ids(name: str, arguments: str, tokenizer: TextTokenizer) -> list[int]:
    """`<tool_call>function\\n{name}\\n{arguments}</tool_call>`; valid JSON is put into the canonical spacing."""
    ids = tokenizer.ids
    # A broken call that the model itself made stays what it was.
    with suppress(ValueError, RecursionError):
        arguments = json.dumps(json.loads(arguments), ensure_ascii=False)
    return [ids.tool_call, *tokenizer.encode(f"function\n{name}\n{arguments}"), ids.tool_call_end]


def tools_json(tools: Sequence[ToolSpec]) -> str:
    """The JSON array of OpenAI function tools that the `tool_json_schemas` turn holds."""
    objects = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in tools
    ]
    return json.dumps(objects, ensure_ascii=False)


def render(
    items: Sequence[Item],
    *,
    instructions: str,
    tools: Sequence[ToolSpec] = (),
    tokenizer: TextTokenizer,
    spoken: bool,
) -> tuple[Slot, ...]:
    """The prompt of `items`, ending in an open assistant turn.

    The order is: instructions, leading system items, tools, the rest. An assistant item and the tool calls right
    after it are one turn; items that hold nothing are left out.

    Args:
        items: the conversation, oldest first.
        instructions: the session's system prompt; empty for none.
        tools: functions that the model may call; empty for none.
        tokenizer: the checkpoint's.
        spoken: open the turn with `<tts_start>`.
    """
    out: list[Slot] = []
    if instructions:
        out += _turn("system", instructions, tokenizer)
    at = 0
    while at < len(items) and isinstance(lead := items[at], SystemItem):
        out += _item(lead, tokenizer)
        at += 1
    if tools:
        out += _turn("tool_json_schemas", tools_json(tools), tokenizer)
    while at < len(items):
        item = items[at]
        at += 1
        if isinstance(item, AssistantItem | ToolCallItem):
            calls = [item] if isinstance(item, ToolCallItem) else []
            while at < len(items) and isinstance(call := items[at], ToolCallItem):
                calls.append(call)
                at += 1
            out += _assistant(item if isinstance(item, AssistantItem) else None, calls, tokenizer)
        else:
            out += _item(item, tokenizer)
    out += _header("assistant", tokenizer)
    if spoken:
        out.append(tokenizer.ids.tts_start)
    return tuple(out)


def render_turn(
    items: Sequence[Item],
    *,
    instructions: str,
    tools: Sequence[ToolSpec],
    tool_choice: str,
    tokenizer: TextTokenizer,
    spoken: bool,
) -> Prompt:
    """`render`, with the client's tool choice obeyed.

    Args:
        items, instructions, tools, tokenizer, spoken: as for `render`.
        tool_choice: "auto"; "none" (tools are not shown); "required" or a function's name (the reply is that call,
            in text mode, whatever `spoken` says).

    Raises:
        InputError: a tool is required but there is none, or none of that name.
    """
    forced: list[int] = []
    if tool_choice == "none":
        tools = ()
    elif tool_choice != "auto":
        forced = _forced_call(tool_choice, tools, tokenizer)
        spoken = False
    slots = render(items, instructions=instructions, tools=tools, tokenizer=tokenizer, spoken=spoken)
    return Prompt(slots=slots, forced=tuple(forced), spoken=spoken)


def render_transcription(pieces: Sequence[Piece], tokenizer: TextTokenizer) -> Prompt:
    """The prompt that asks the model to write down what it hears."""
    item = UserItem(id="", content=(AudioContent(pieces=tuple(pieces), transcript=None),))
    slots = render((item,), instructions=ASR_INSTRUCTIONS, tokenizer=tokenizer, spoken=False)
    return Prompt(slots=slots, forced=(), spoken=False)


def audio_slots(piece: int, rows: int, ids: SpecialIds) -> list[Slot]:
    """`<audio_start>`, `rows` audio rows of the piece, `<audio_end>`; nothing at all for 0 rows."""
    if rows <= 0:
        return []
    return [ids.audio_start, *(AudioRow(piece, row) for row in range(rows)), ids.audio_end]


def _header(role: str, tokenizer: TextTokenizer) -> list[Slot]:
    return [tokenizer.ids.bot, *tokenizer.encode(f"{role}\n")]


def _turn(role: str, text: str, tokenizer: TextTokenizer) -> list[Slot]:
    """A turn whose content is one string: header and content are one piece."""
    return [tokenizer.ids.bot, *tokenizer.encode(f"{role}\n{text}"), tokenizer.ids.eot]


def _item(item: SystemItem | UserItem | ToolResultItem, tokenizer: TextTokenizer) -> list[Slot]:
    """The turn of an item that is not the assistant's."""
    match item:
        case SystemItem():
            return _turn("system", item.text, tokenizer) if item.text else []
        case UserItem():
            return _human(item, tokenizer)
        case ToolResultItem():
            return _turn("input", item.output, tokenizer)
        case _:
            assert_never(item)


def _human(item: UserItem, tokenizer: TextTokenizer) -> list[Slot]:
    """A person's turn: a single text is one piece with its header, a list of parts is tokenised part by part."""
    parts = [
        TextContent(part.transcript or "") if isinstance(part, AudioContent) and not part.pieces else part
        for part in item.content
    ]
    parts = [part for part in parts if isinstance(part, AudioContent) or part.text]
    if len(parts) == 1 and isinstance(parts[0], TextContent):
        return _turn("human", parts[0].text, tokenizer)
    body: list[Slot] = []
    for part in parts:
        if isinstance(part, TextContent):
            body += tokenizer.encode(part.text)
        else:
            for piece in part.pieces:
                body += audio_slots(piece.id, placeholder_count(piece.audio.size), tokenizer.ids)
    return [*_header("human", tokenizer), *body, tokenizer.ids.eot] if body else []


def _assistant(
    item: AssistantItem | None, calls: Sequence[ToolCallItem], tokenizer: TextTokenizer
) -> list[Slot]:
    """The assistant's turn: what was said, then its tool calls. Generated ids are kept verbatim where they hold."""
    ids = tokenizer.ids
    body: list[int] = []
    header = _header("assistant", tokenizer)
    if item is not None and item.raw_ids:
        body, calls = _verbatim(item, calls, ids)
        if not body and not calls:
            return []
    elif item is not None and item.spoken and item.audio_ids:
        body = [ids.tts_start, *ta4_interleave(item.text_ids, item.audio_ids, ids)]
    elif item is not None and item.text:
        header = [ids.bot, *tokenizer.encode(f"assistant\n{item.text}")]
    elif not calls:
        return []
    for call in calls:
        body += tool_call_ids(call.name, call.arguments, tokenizer)
    return [*header, *body, ids.eot]


def _verbatim(
    item: AssistantItem, calls: Sequence[ToolCallItem], ids: SpecialIds
) -> tuple[list[int], Sequence[ToolCallItem]]:
    """An unchanged reply's own ids, and the calls still to be appended.

    The raw ids hold the tool calls too. When the history holds as many, they stay verbatim; when an item was deleted
    or added, the raw ids are cut before the first call and the calls that remain are rendered anew.
    """
    raw = list(item.raw_ids or ())
    made = raw.count(ids.tool_call)
    if made and made == len(calls):
        calls = ()
    elif made:
        raw = raw[: raw.index(ids.tool_call)]
    # A reply that begins with a call was forced and had no speech, whatever the turn asked for.
    if item.spoken and raw and raw[0] != ids.tool_call:
        raw = [ids.tts_start, *raw] if ids.tts_end in raw else [ids.tts_start, *raw, ids.tts_end]
    return raw, calls


def _forced_call(tool_choice: str, tools: Sequence[ToolSpec], tokenizer: TextTokenizer) -> list[int]:
    """The beginning of the call that the client demands: with the name if it is known, else up to the name."""
    names = [tool.name for tool in tools]
    if tool_choice == "required" and names:
        name = names[0] if len(names) == 1 else ""
    elif tool_choice in names:
        name = tool_choice
    else:
        raise InputError(
            f"tool_choice is {tool_choice!r}, but the tools are: {', '.join(names) or 'none'}.",
            remedy="Name one of the session's or the response's tools, or use 'auto'.",
            param="tool_choice",
        )
    return [tokenizer.ids.tool_call, *tokenizer.encode(f"function\n{name}\n" if name else "function\n")]
