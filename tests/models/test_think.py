from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_prompt import ids_of, shown, user
from tiny_tokenizer import tiny_tokenizer, tokenizer_spec

from voiceagent.core.history import AssistantItem, Item
from voiceagent.errors import InputError
from voiceagent.models.step_audio2.prompt import Prompt, render_answer, render_turn
from voiceagent.models.step_audio2.think import CLOSING, MAX_THOUGHT, ThoughtReader, thought_limit
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.tokens import SpeechCode, Splitter, TextDelta, ThinkDelta
from voiceagent.models.step_audio2.variant import Variant

TOKENIZER = tiny_tokenizer()
IDS = TOKENIZER.ids


def tagged_tokenizer(*, special: bool) -> TextTokenizer:
    """One that has the tags as tokens of their own, below the others as text is."""
    spec = tokenizer_spec()
    for entry in spec["added_tokens"]:
        entry["id"] += 2
    first = spec["added_tokens"][0]["id"] - 2
    spec["added_tokens"] += [
        {"id": first, "content": "<think>", "special": special},
        {"id": first + 1, "content": "</think>", "special": special},
    ]
    return TextTokenizer(spec)


def thinking(*items: Item, tokenizer: TextTokenizer = TOKENIZER, **changes: object) -> Prompt:
    given_: dict[str, object] = {
        "instructions": "", "tools": (), "tool_choice": "auto", "tokenizer": tokenizer, "spoken": True,
        "variant": Variant.THINK, "think": True,
    }  # fmt: skip
    return render_turn(items, **(given_ | changes))  # type: ignore[arg-type]


# --- reading a thought --------------------------------------------------------------------------------------------


def read(thought: str, cuts: list[int]) -> tuple[ThoughtReader, str, list[bytes]]:
    """Feeds the bytes of a text in pieces; returns the reader, what it told, and the pieces it did not take."""
    raw = thought.encode()
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    pieces = [raw[a:b] for a, b in pairwise(places)]
    reader, told = ThoughtReader(), ""
    while pieces and not reader.closed:
        told += reader.feed(pieces.pop(0))
    return reader, told, pieces


@given(thought=st.text(), after=st.text(max_size=3), cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_a_thought_ends_at_its_tag_however_it_is_cut(thought: str, after: str, cuts: list[int]) -> None:
    whole = thought.split(CLOSING)[0]
    reader, told, _ = read(thought + CLOSING + after, cuts)
    assert reader.closed
    assert reader.text == told == whole


@given(thought=st.text(alphabet="</think>ab\n"), cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_a_thought_without_its_tag_is_told_whole_when_it_is_closed(thought: str, cuts: list[int]) -> None:
    thought = thought.replace(CLOSING, "")
    reader, told, _ = read(thought, cuts)
    assert thought.startswith(told)
    assert len(thought) - len(told) < len(CLOSING)  # told as soon as it cannot be the tag
    assert told + reader.close() == thought
    assert reader.text == thought + ("\n" if thought and not thought.endswith("\n") else "")


@pytest.mark.parametrize(
    ("room", "asked", "limit"),
    [(10_000, None, MAX_THOUGHT), (100, None, 50), (10_000, 60, 30), (40, 60, 20), (5, 1, 0), (-3, None, 0)],
)
def test_a_thought_leaves_as_much_for_the_reply(room: int, asked: int | None, limit: int) -> None:
    assert thought_limit(room=room, asked=asked) == limit


# --- the stream ---------------------------------------------------------------------------------------------------


def test_the_splitter_tells_thought_from_speech() -> None:
    splitter = Splitter(TOKENIZER, spoken=True, think=True)
    parts = [part for i in ids_of("one room?\n</think>") for part in splitter.feed(i)]
    assert "".join(part.text for part in parts if isinstance(part, ThinkDelta)) == "one room?\n"
    assert all(isinstance(part, ThinkDelta) for part in parts)
    assert not splitter.thinking
    assert splitter.thought == "one room?\n"
    spoken = [part for i in [*ids_of("hello"), IDS.audio_0 + 7] for part in splitter.feed(i)]
    assert spoken[-1] == SpeechCode(7)
    assert "".join(part.text for part in spoken if isinstance(part, TextDelta)) == "hello"


def test_nothing_but_text_is_thought() -> None:
    splitter = Splitter(TOKENIZER, spoken=True, think=True)
    stray = [IDS.audio_0, IDS.tts_start, IDS.tool_call, *ids_of("x"), IDS.tool_call_end]
    assert [part for i in stray for part in splitter.feed(i)] == [ThinkDelta("x")]
    assert splitter.thinking


def test_a_thought_that_does_not_end_is_ended() -> None:
    splitter = Splitter(TOKENIZER, spoken=True, think=True)
    told = [part for i in ids_of("so </thi") for part in splitter.feed(i)]
    assert "".join(part.text for part in told if isinstance(part, ThinkDelta)) == "so "
    assert splitter.finish() == (ThinkDelta("</thi"),)
    assert splitter.thought == "so </thi\n"
    assert splitter.finish() == ()


# --- prompts ------------------------------------------------------------------------------------------------------


def test_the_prompts_of_thought_and_answer() -> None:
    prompt = thinking(user("x"), instructions="Think.")
    start = "<|BOT|>system\nThink.<|EOT|><|BOT|>human\nx<|EOT|><|BOT|>assistant\n\n<think>\n"
    assert (shown(prompt.slots), prompt.spoken, prompt.think) == (start, False, True)
    answer = render_answer(prompt, "one room\n", tokenizer=TOKENIZER, spoken=True)
    assert shown(answer.slots) == f"{start}one room\n</think>\n\n<tts_start>"
    assert (answer.spoken, answer.think) == (True, False)
    written = render_answer(prompt, "", tokenizer=TOKENIZER, spoken=False)
    assert shown(written.slots) == f"{start}</think>\n\n"


def test_the_turn_is_one_piece_with_the_thought() -> None:
    prompt = thinking(user("x"))
    answer = render_answer(prompt, "hello\n", tokenizer=TOKENIZER, spoken=True)
    turn = answer.slots[max(at for at, slot in enumerate(answer.slots) if slot == IDS.bot) + 1 : -1]
    assert list(turn) == ids_of("assistant\n\n<think>\nhello\n</think>\n\n")
    assert answer.slots[: len(prompt.slots)] == prompt.slots  # the cache holds it


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_are_tokens_are_used_as_such(special: bool) -> None:
    tokenizer = tagged_tokenizer(special=special)
    opening, closing = tokenizer.ids.endoftext - 2, tokenizer.ids.endoftext - 1
    answer = render_answer(thinking(user("x"), tokenizer=tokenizer), "hm", tokenizer=tokenizer, spoken=True)
    assert (answer.slots.count(opening), answer.slots.count(closing)) == (1, 1)
    splitter = Splitter(tokenizer, spoken=True, think=True)
    parts = [part for i in [*tokenizer.encode("hm"), closing] for part in splitter.feed(i)]
    assert "".join(part.text for part in parts if isinstance(part, ThinkDelta)) == "hm"
    assert not splitter.thinking
    assert closing not in tokenizer.encode("a person writes </think>")


def test_the_next_turn_holds_the_reply_and_not_the_thought() -> None:
    raw = ids_of("hello", IDS.audio_0, IDS.tts_end)
    said = AssistantItem("a", "hello", raw_ids=tuple(raw), spoken=True)
    prompt = thinking(user("x"), said, user("y"))
    assert shown(prompt.slots) == (
        "<|BOT|>human\nx<|EOT|><|BOT|>assistant\n<tts_start>hello<audio_0><tts_end><|EOT|>"
        "<|BOT|>human\ny<|EOT|><|BOT|>assistant\n\n<think>\n"
    )


def test_a_call_that_is_demanded_is_not_thought_about() -> None:
    from test_prompt import WEATHER

    prompt = thinking(user("x"), tools=[WEATHER], tool_choice="required")
    assert not prompt.think
    assert prompt.forced


@pytest.mark.parametrize("variant", [Variant.CHAT, Variant.BASE])
def test_a_checkpoint_that_cannot_think_says_so(variant: Variant) -> None:
    with pytest.raises(InputError) as caught:
        thinking(user("x"), variant=variant)
    assert (caught.value.code, caught.value.param) == ("think_unavailable", "think")
