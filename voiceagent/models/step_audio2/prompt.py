"""Renders a conversation as the model's prompt: which token or which row of which heard audio stands where.

It is pure: it knows the history's types and the tokenizer, and nothing of embeddings, caches or sampling.
Each piece that the reference tokenises on its own is tokenised on its own here too. A Base checkpoint knows no turns:
there the same items stand one behind the other, without roles and ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, assert_never

from voiceagent.core.dictation import PLAIN, Dictation
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
from voiceagent.models.step_audio2.dictation import dictation_instructions
from voiceagent.models.step_audio2.mel import placeholder_count
from voiceagent.models.step_audio2.script import Script
from voiceagent.models.step_audio2.think import BEFORE_ANSWER, CLOSING, OPENING
from voiceagent.models.step_audio2.tokenizer import AUDIO_CODES, SpecialIds, TextTokenizer
from voiceagent.models.step_audio2.variant import Variant

SUMMARISE = "\n\n\n请用口语化形式总结检索结果，简短地回答用户的问题。"
"""The reference's request behind a tool's result (sum it up as one speaks, answer briefly): a piece of its own there.
A client that wants it appends it to the output."""


class AudioRow(NamedTuple):
    """One `<audio_patch>` position: its embedding is row `row` of the encoded piece with the id `piece`."""

    piece: int
    row: int


Said = AssistantItem | SystemItem | UserItem | ToolResultItem
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
        think: what is to be generated is a thought (text); `render_answer` makes the prompt of the reply behind it.
        script: the words of a spoken reply, if they are given.
    """

    slots: tuple[Slot, ...]
    forced: tuple[int, ...]
    spoken: bool
    think: bool = False
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """A conversation rendered in its parts, so that old turns can be left out before it is read.

    Attributes:
        head: the instructions, the system items in front and the tools.
        lead: how many items are in the head.
        turns: the rest, oldest first: the index of a turn's first item, and its slots.
        opening: the beginning of the reply.
        forced, spoken, think, script: as in `Prompt`.
    """

    head: tuple[Slot, ...]
    lead: int
    turns: tuple[tuple[int, tuple[Slot, ...]], ...]
    opening: tuple[Slot, ...]
    forced: tuple[int, ...] = ()
    spoken: bool = False
    think: bool = False
    script: Script | None = None

    def prompt(self, first: int = 0) -> Prompt:
        """The prompt without the turns before item `first`; the head is always in it."""
        turns = (slot for at, slots in self.turns if at >= first for slot in slots)
        slots = (*self.head, *turns, *self.opening)
        return Prompt(slots, self.forced, spoken=self.spoken, think=self.think, script=self.script)


def ta4_interleave(text_ids: Sequence[int], audio_ids: Sequence[int], ids: SpecialIds) -> list[int]:
    """Speech as the model emits it after `<tts_start>`: 1 text : 4 audio, both padded to whole groups, `<tts_end>`.

    Args:
        text_ids: token ids of the spoken text.
        audio_ids: 0-based speech codes (0..6560).
        ids: the special tokens.

    Raises:
        InputError: a speech code out of range (code "audio_id_out_of_range").
    """
    if audio_ids and not 0 <= min(audio_ids) <= max(audio_ids) < AUDIO_CODES:
        raise InputError(
            f"The item holds a speech id outside 0 to {AUDIO_CODES - 1}.",
            code="audio_id_out_of_range",
            param="items",
        )
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
    variant: Variant = Variant.CHAT,
) -> tuple[Slot, ...]:
    """The prompt of `items`, ending in an open assistant turn (of a Base checkpoint: just ending).

    The order is: instructions, leading system items, tools, the rest. An assistant item and the tool calls right
    after it are one turn; items that hold nothing are left out.

    Args:
        items: the conversation, oldest first.
        instructions: the session's system prompt; empty for none.
        tools: functions that the model may call; empty for none. A Base checkpoint is not shown any.
        tokenizer: the checkpoint's.
        spoken: open the turn with `<tts_start>`.
        variant: the checkpoint's.
    """
    layout = _layout(items, instructions=instructions, tools=tools, tokenizer=tokenizer, variant=variant)
    start = [tokenizer.ids.tts_start] if spoken else []
    return (*layout.prompt().slots, *start)


def _layout(
    items: Sequence[Item],
    *,
    instructions: str,
    tools: Sequence[ToolSpec],
    tokenizer: TextTokenizer,
    variant: Variant,
    thought: bool = False,
) -> Layout:
    """All closed turns, and the header of the reply, or of the thought before it."""
    if variant is Variant.BASE:
        turns = tuple(
            (at, tuple(_continued(item, calls, tokenizer))) for at, item, calls in _with_calls(items)
        )
        return Layout(tuple(tokenizer.encode(instructions)), 0, turns, ())
    head: list[Slot] = _turn("system", instructions, tokenizer) if instructions else []
    lead = 0
    while lead < len(items) and isinstance(first := items[lead], SystemItem):
        head += _item(first, tokenizer)
        lead += 1
    if tools:
        head += _turn("tool_json_schemas", tools_json(tools), tokenizer)
    turns = tuple(
        (at, tuple(_assistant(item, calls, tokenizer)))
        if item is None or isinstance(item, AssistantItem)
        else (at, tuple(_item(item, tokenizer)))
        for at, item, calls in _with_calls(items, lead)
    )
    opening = _header("assistant", tokenizer, OPENING if thought else "")
    return Layout(tuple(head), lead, turns, tuple(opening))


def _continued(item: Said | None, calls: Sequence[ToolCallItem], tokenizer: TextTokenizer) -> Sequence[Slot]:
    """A turn as a Base checkpoint takes it: just what was said."""
    match item:
        case None | AssistantItem():
            text, body = _reply(item, calls, tokenizer)
            return [*tokenizer.encode(text), *body]
        case UserItem():
            return _content(_parts(item), tokenizer)
        case SystemItem():
            return tokenizer.encode(item.text)
        case ToolResultItem():
            return tokenizer.encode(item.output)
        case _:
            assert_never(item)


def _with_calls(
    items: Sequence[Item], at: int = 0
) -> Iterator[tuple[int, Said | None, Sequence[ToolCallItem]]]:
    """The items from index `at` on, each reply with the tool calls right after it; None where calls follow no reply."""
    while at < len(items):
        item, end = items[at], at + 1
        if isinstance(item, AssistantItem | ToolCallItem):
            while end < len(items) and isinstance(items[end], ToolCallItem):
                end += 1
        calls = [call for call in items[at:end] if isinstance(call, ToolCallItem)]
        yield at, (None if isinstance(item, ToolCallItem) else item), calls
        at = end


def layout_turn(
    items: Sequence[Item],
    *,
    instructions: str,
    tools: Sequence[ToolSpec],
    tool_choice: str,
    tokenizer: TextTokenizer,
    spoken: bool,
    variant: Variant = Variant.CHAT,
    think: bool = False,
    script: str = "",
) -> Layout:
    """`render` in its parts, with the client's tool choice and its wish for a thought obeyed.

    Args:
        items, instructions, tools, tokenizer, spoken, variant: as for `render`.
        tool_choice: "auto"; "none" (tools are not shown); "required" or a function's name (the reply is that call,
            in text mode, whatever `spoken` says).
        think: open the turn with a thought. A reply that has to be a tool call is not thought about.
        script: a spoken reply is to say exactly this; it then calls no tool and holds no thought.

    Raises:
        InputError: a tool is required but there is none, or none of that name, or the checkpoint cannot call any;
            it is to think and cannot (code "think_unavailable").
    """
    if think and variant is not Variant.THINK:
        raise InputError(
            "This model cannot think before it answers.",
            code="think_unavailable",
            remedy="Ask without it, or load a checkpoint that can.",
            param="think",
        )
    forced: list[int] = []
    lines = Script.of(tokenizer.encode(script), tokenizer.ids) if script and spoken else None
    if lines is not None:
        tool_choice, think = "none", False
    if tool_choice == "none":
        tools = ()
    elif tool_choice != "auto":
        forced = _forced_call(tool_choice, () if variant is Variant.BASE else tools, tokenizer)
        spoken = think = False
    layout = _layout(
        items, instructions=instructions, tools=tools, tokenizer=tokenizer, variant=variant, thought=think
    )
    if think:
        return replace(layout, think=True)
    start = [tokenizer.ids.tts_start] if spoken else []
    return replace(
        layout, opening=(*layout.opening, *start), forced=tuple(forced), spoken=spoken, script=lines
    )


def render_turn(items: Sequence[Item], **asked: Any) -> Prompt:
    """The whole prompt of `layout_turn`, whose arguments it takes; nothing is left out."""
    return layout_turn(items, **asked).prompt()


def render_answer(prompt: Prompt, thought: str, *, tokenizer: TextTokenizer, spoken: bool) -> Prompt:
    """The prompt of the reply behind a thought.

    The assistant's turn so far is one piece, so it is tokenised anew as a whole, as the reference does; as a rule that
    gives the ids that were generated, and the cache still holds them.

    Args:
        prompt: the one that opened the thought.
        thought: what came of it, without the closing tag.
        tokenizer: the checkpoint's.
        spoken: open the reply with `<tts_start>`.
    """
    ids = tokenizer.ids
    start = max(at for at, slot in enumerate(prompt.slots) if slot == ids.bot)
    turn = _header("assistant", tokenizer, f"{OPENING}{thought}{CLOSING}{BEFORE_ANSWER}")
    return Prompt((*prompt.slots[:start], *turn, *([ids.tts_start] if spoken else [])), (), spoken=spoken)


def render_transcription(
    pieces: Sequence[Piece],
    tokenizer: TextTokenizer,
    variant: Variant = Variant.CHAT,
    *,
    how: Dictation = PLAIN,
) -> Prompt:
    """The prompt that asks the model to write down what it hears."""
    item = UserItem(id="", content=(AudioContent(pieces=tuple(pieces), transcript=None),))
    asked = dictation_instructions(how)
    slots = render((item,), instructions=asked, tokenizer=tokenizer, spoken=False, variant=variant)
    return Prompt(slots=slots, forced=(), spoken=False)


def audio_slots(piece: int, rows: int, ids: SpecialIds) -> list[Slot]:
    """`<audio_start>`, `rows` audio rows of the piece, `<audio_end>`; nothing at all for 0 rows."""
    if rows <= 0:
        return []
    return [ids.audio_start, *(AudioRow(piece, row) for row in range(rows)), ids.audio_end]


def _header(role: str, tokenizer: TextTokenizer, more: str = "") -> list[Slot]:
    """The beginning of a turn; `more` is in one piece with it, and may hold the tags of a thought."""
    return [tokenizer.ids.bot, *tokenizer.encode_tagged(f"{role}\n{more}")]


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
            return _result(item, tokenizer)
        case _:
            assert_never(item)


def _result(item: ToolResultItem, tokenizer: TextTokenizer) -> list[Slot]:
    """The turn of a tool's result: one piece, or three if the reference's request stands behind it."""
    result = item.output.removesuffix(SUMMARISE)
    if result == item.output:
        return _turn("input", item.output, tokenizer)
    body = [*tokenizer.encode(result), *tokenizer.encode(SUMMARISE)]
    return [*_header("input", tokenizer), *body, tokenizer.ids.eot]


def _human(item: UserItem, tokenizer: TextTokenizer) -> list[Slot]:
    """A person's turn: a single text is one piece with its header, a list of parts is tokenised part by part."""
    parts = _parts(item)
    if len(parts) == 1 and isinstance(parts[0], TextContent):
        return _turn("human", parts[0].text, tokenizer)
    body = _content(parts, tokenizer)
    return [*_header("human", tokenizer), *body, tokenizer.ids.eot] if body else []


def _parts(item: UserItem) -> list[TextContent | AudioContent]:
    """The parts that hold something; audio that is gone is replaced by its transcript."""
    parts = [
        TextContent(part.transcript or "") if isinstance(part, AudioContent) and not part.pieces else part
        for part in item.content
    ]
    return [part for part in parts if isinstance(part, AudioContent) or part.text]


def _content(parts: Sequence[TextContent | AudioContent], tokenizer: TextTokenizer) -> list[Slot]:
    """What a person said, part by part."""
    body: list[Slot] = []
    for part in parts:
        if isinstance(part, TextContent):
            body += tokenizer.encode(part.text)
        else:
            for piece in part.pieces:
                body += audio_slots(piece.id, placeholder_count(piece.audio.size), tokenizer.ids)
    return body


def _assistant(
    item: AssistantItem | None, calls: Sequence[ToolCallItem], tokenizer: TextTokenizer
) -> list[Slot]:
    """The assistant's turn: what was said, then its tool calls. A text is one piece with the header."""
    text, body = _reply(item, calls, tokenizer)
    if not text and not body:
        return []
    ids = tokenizer.ids
    return [ids.bot, *tokenizer.encode(f"assistant\n{text}"), *body, ids.eot]


def _reply(
    item: AssistantItem | None, calls: Sequence[ToolCallItem], tokenizer: TextTokenizer
) -> tuple[str, list[int]]:
    """What was said as a text yet to be encoded and the ids behind it. Generated ids are kept where they hold."""
    text, body = "", list[int]()
    if item is not None and item.raw_ids:
        body, calls = _verbatim(item, calls, tokenizer.ids)
    elif item is not None and item.spoken and item.audio_ids:
        ids = tokenizer.ids
        body = [ids.tts_start, *ta4_interleave(item.text_ids, item.audio_ids, ids)]
    elif item is not None:
        text = item.text
    for call in calls:
        body += tool_call_ids(call.name, call.arguments, tokenizer)
    return text, body


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
