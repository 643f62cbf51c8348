from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_checkpoint import write_scripted
from test_prompt import call, heard, ids_of, piece, result, said, shown, user
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer, tokenizer_spec

from voiceagent.core.history import Item, SystemItem
from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.prompt import render, render_transcription, render_turn
from voiceagent.models.step_audio2.sampling import GREEDY
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant, find_variant

TOKENIZER = tiny_tokenizer()
IDS = TOKENIZER.ids


def written(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        kind = "jinja" if name == "chat_template" else "json"
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.{kind}").write_text(text, encoding="utf-8")
    return folder


# --- which one a folder holds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "variant"),
    [
        ({}, Variant.CHAT),
        ({"config": {"variant": "base"}}, Variant.BASE),
        ({"config": {"variant": "chat"}, "tokenizer_config": {"chat_template": "</think>"}}, Variant.CHAT),
        ({"tokenizer_config": {"chat_template": "{{ '<think>\\n' }} </think>"}}, Variant.THINK),
        (
            {"tokenizer_config": {"chat_template": [{"name": "default", "template": "</think>"}]}},
            Variant.THINK,
        ),
        ({"tokenizer_config": {"chat_template": "{{ messages }}"}}, Variant.CHAT),
        ({"chat_template": "... </think>"}, Variant.THINK),
        ({"tokenizer": {"added_tokens": [{"id": 3, "content": "</think>"}]}}, Variant.THINK),
        ({"tokenizer": {"added_tokens": [7, {}]}, "config": "[]", "tokenizer_config": "{"}, Variant.CHAT),
    ],
)
def test_a_folder_says_what_it_is(tmp_path: Path, files: dict[str, Any], variant: Variant) -> None:
    assert find_variant(written(tmp_path, **files)) is variant


def test_a_variant_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'large'") as caught:
        find_variant(written(tmp_path, config={"variant": "large"}))
    assert "chat, think, base" in caught.value.remedy


@pytest.mark.parametrize(
    ("config", "eos"),
    [({}, IDS.endoftext), ({"eos_token": "<|EOT|>"}, IDS.eot),
     ({"eos_token": {"content": "<|im_end|>"}}, IDS.im_end), ({"eos_token": "unknown"}, IDS.endoftext)],
)  # fmt: skip
def test_the_tokenizer_says_what_ends_a_text(tmp_path: Path, config: dict[str, Any], eos: int) -> None:
    assert (
        TextTokenizer.from_folder(written(tmp_path, tokenizer=tokenizer_spec(), tokenizer_config=config)).eos
        == eos
    )


# --- Base: a text that goes on ------------------------------------------------------------------------------------

TTS = "以自然的语速读出下面的文字。\n"  # as the published example has it
RAW = ids_of("hello", IDS.audio_0, IDS.audio_0 + 1, IDS.tts_end)

CONTINUED: dict[str, tuple[str, list[Item], bool, list[Any]]] = {
    "nothing": ("", [], False, []),
    "transcribe": ("请记录下你所听到的语音内容。", [user(heard(piece(1)))], False,
                   ["请记录下你所听到的语音内容。", "[1]"]),
    "speak a text": (TTS, [user("你好呀")], True, [TTS, "你好呀", IDS.tts_start]),
    "speech to speech": ("Translate.", [user(heard(piece(1)))], True, ["Translate.", "[1]", IDS.tts_start]),
    "text replies": ("", [user(heard(piece(1))), said("hello", spoken=False), user(heard(piece(2)))], False,
                     ["[1]", "hello", "[2]"]),
    "spoken replies": ("", [user(heard(piece(1))), said("hello", raw_ids=RAW), user(heard(piece(2)))], True,
                       ["[1]", IDS.tts_start, *RAW, "[2]", IDS.tts_start]),
    "the rest": ("", [SystemItem("s", "Be kind."), user("a", "b"), call("f"), result("3")], False,
                 ["Be kind.", "a", "b", IDS.tool_call, "function\nf\n{}", IDS.tool_call_end, "3"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTINUED)
def test_a_base_prompt_is_what_was_said_one_behind_the_other(case: str) -> None:
    instructions, items, spoken, expected = CONTINUED[case]
    slots = render(items, instructions=instructions, tokenizer=TOKENIZER, spoken=spoken, variant=Variant.BASE)
    audio = {f"[{n}]": f"<audio_start>[{n}:0-12]<audio_end>" for n in (1, 2)}
    words = [
        audio.get(part, part) if isinstance(part, str) else TOKENIZER.decode([part]) for part in expected
    ]
    assert shown(slots) == "".join(words)
    text = [part for part in expected if part not in audio]
    assert [slot for slot in slots if isinstance(slot, int) and slot not in audio_tags()] == ids_of(*text)


def audio_tags() -> set[int]:
    return {IDS.audio_start, IDS.audio_end}


def test_a_base_checkpoint_transcribes_without_turns() -> None:
    prompt = render_transcription([piece(4)], TOKENIZER, Variant.BASE)
    assert shown(prompt.slots) == "请记录下你所听到的语音内容。<audio_start>[4:0-12]<audio_end>"


def test_a_base_checkpoint_is_shown_no_tools_and_calls_none() -> None:
    from test_prompt import WEATHER

    def turn(choice: str) -> str:
        prompt = render_turn([user("x")], instructions="", tools=[WEATHER], tool_choice=choice,
                             tokenizer=TOKENIZER, spoken=True, variant=Variant.BASE)  # fmt: skip
        return shown(prompt.slots)

    assert turn("auto") == "x<tts_start>"
    with pytest.raises(InputError) as caught:
        turn("required")
    assert caught.value.param == "tool_choice"


# --- a model that is loaded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "stops"),
    [("chat", {IDS.eot, IDS.im_end, IDS.endoftext}), ("think", {IDS.eot, IDS.im_end, IDS.endoftext}),
     ("base", {IDS.endoftext})],
)  # fmt: skip
def test_a_loaded_model_knows_its_variant_and_its_end(tmp_path: Path, variant: str, stops: set[int]) -> None:
    folder = write_checkpoint(tmp_path, tiny_weights())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written(folder, config=config | {"variant": variant})
    language = LanguageModel.load(folder)
    assert language.variant is Variant(variant)
    assert language.stops == stops
    assert LanguageModel.load(folder, variant=Variant.BASE).variant is Variant.BASE


@pytest.mark.parametrize(("variant", "words"), [("chat", "hello"), ("base", "hello<|EOT|>one")])
def test_where_a_turn_ends_a_base_checkpoint_goes_on(tmp_path: Path, variant: str, words: str) -> None:
    script = ids_of("x", "hello", IDS.eot, "one", IDS.endoftext)
    language = LanguageModel.load(write_scripted(tmp_path, script, [*ids_of("\n", "hello")], variant=variant))
    prompt = render_turn([user("x")], instructions="", tools=(), tool_choice="auto",
                         tokenizer=language.tokenizer, spoken=False, variant=language.variant)  # fmt: skip
    generation = language.generate(language.open(), prompt, GREEDY, max_tokens=9)
    while generation.step() is not None:
        pass
    assert language.tokenizer.decode(generation.ids) == words
    assert generation.reason == "stop"
