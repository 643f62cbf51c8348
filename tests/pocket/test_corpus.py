"""The corpus keeps its promises: held-out sentences, slots read back, tools that fit, words the tokenizer can say."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "voiceagent" / "assets" / "pocket"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Imports a module of scripts/pocket, whose modules import each other by bare name."""
    sys.path.insert(0, str(ROOT / "scripts" / "pocket"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "scripts" / "pocket"))


@pytest.fixture(scope="module")
def corpus(scripts: Any) -> dict[str, Any]:
    return scripts("corpus").build(dialogues=4000, generic=600, agent=1800)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(ASSETS / "tokenizer.json"))


def turns_of(dialogues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [turn for made in dialogues for turn in made["turns"]]


def spoken(turn: dict[str, Any]) -> list[str]:
    return [turn["reply"], *([turn["tool"]["final"]] if turn["tool"] else [])]


def test_the_same_seed_gives_the_same_corpus(scripts: Any) -> None:
    build = scripts("corpus").build
    small = {"dialogues": 50, "generic": 20, "agent": 20}
    assert build(**small) == build(**small)
    assert build(**small) != build(**small, seed=2)


def test_training_never_holds_a_held_out_sentence(scripts: Any, corpus: dict[str, Any]) -> None:
    text, dialogue = scripts("corpus"), scripts("dialogue")
    trained = [turn["user"] for turn in turns_of(corpus["train"]) if turn["intent"] not in dialogue.FIXED]
    assert not any(text.held_out(user) for user in trained if user)
    assert not any(text.held_out(sentence) for sentence in corpus["generic"])
    assert all(text.held_out(sentence) for sentence in corpus["generic_test"])
    with_slots = [made for made in corpus["test"] if any(turn["slots"] for turn in made["turns"])]
    assert with_slots
    assert all(any(text.held_out(turn["user"]) for turn in made["turns"]) for made in with_slots)


def test_there_are_at_least_sixteen_intents_and_one_to_three_turns(corpus: dict[str, Any]) -> None:
    assert len({turn["intent"] for turn in turns_of(corpus["train"])}) >= 16
    assert {len(made["turns"]) for made in corpus["train"]} == {1, 2, 3}


def test_every_sentence_is_plain_words(corpus: dict[str, Any]) -> None:
    for turn in turns_of(corpus["train"]):
        assert re.fullmatch(r"[a-z' ]*", turn["user"])
        for sentence in spoken(turn):
            assert re.fullmatch(r"[a-z' .,?]+", sentence)
            assert len(sentence.split()) <= 14
    for sentence in corpus["agent_generic"]:
        assert re.fullmatch(r"[a-z' .,?]+", sentence)


def test_slots_are_read_back(corpus: dict[str, Any]) -> None:
    checked = {
        "book": ("people", "when", "time"),
        "order": ("number",),
        "cancel": ("when", "time"),
        "name": ("name",),
    }
    for turn in turns_of(corpus["train"]):
        for slot in checked.get(turn["intent"], ()):
            assert turn["slots"].get(slot, "") in turn["reply"]


def test_tools_are_called_only_where_they_are_offered(scripts: Any, corpus: dict[str, Any]) -> None:
    refusal = scripts("frontdesk").NO_TOOL
    refused = called = 0
    for made in corpus["train"]:
        offered = {tool["function"]["name"] for tool in made["tools"] or []}
        for turn in made["turns"]:
            if turn["tool"]:
                called += 1
                assert turn["tool"]["name"] in offered
                json.loads(turn["tool"]["result"])
            elif turn["reply"] == refusal:
                refused += 1
                assert {"weather": "get_weather", "time": "get_time"}[turn["intent"]] not in offered
    assert called > 200
    assert refused > 100


def test_what_is_no_question_gets_the_one_wording(scripts: Any, corpus: dict[str, Any]) -> None:
    unclear = [turn for turn in turns_of(corpus["train"]) if turn["intent"] == "unclear"]
    assert {turn["kind"] for turn in unclear} == {"speech", "noise", "silence", "babble", "foreign"}
    assert {turn["reply"] for turn in unclear} == {scripts("dialogue").UNCLEAR}
    assert all((turn["user"] == "") == (turn["kind"] != "speech") for turn in turns_of(corpus["train"]))
    share = sum(any(turn["intent"] == "unclear" for turn in made["turns"]) for made in corpus["train"]) / 4000
    assert 0.07 < share < 0.14


def test_the_agent_speaks_every_word(scripts: Any, corpus: dict[str, Any]) -> None:
    said = set(re.findall(r"[a-z']+", " ".join(corpus["agent_generic"])))
    assert set(scripts("lexicon").vocabulary()) <= said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (-3, "minus three"),
        (21, "twenty one"),
        (360, "three hundred sixty"),
        (1005, "one thousand five"),
    ],
)
def test_numbers_are_spelled(scripts: Any, value: int, words: str) -> None:
    assert scripts("lexicon").number_words(value) == words


@pytest.mark.parametrize(
    ("hour", "minute", "words"),
    [
        (14, 30, "two thirty in the afternoon"),
        (0, 5, "twelve oh five in the morning"),
        (12, 0, "twelve o'clock in the afternoon"),
        (23, 59, "eleven fifty nine in the evening"),
    ],
)
def test_times_are_spelled(scripts: Any, hour: int, minute: int, words: str) -> None:
    assert scripts("frontdesk").spoken_time(hour, minute) == words


def test_the_tokenizer_reads_back_what_it_wrote(corpus: dict[str, Any], tokenizer: Tokenizer) -> None:
    texts = [json.dumps(made["tools"]) for made in corpus["test"]] + [
        made["system"] for made in corpus["test"]
    ]
    texts += [sentence for turn in turns_of(corpus["test"]) for sentence in spoken(turn)]
    for text in [*texts, "请记录下你所听到的语音内容。", "déjà vu\n\n🙂 'tis"]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_special_tokens_stand_behind_the_text_in_the_real_order(scripts: Any, tokenizer: Tokenizer) -> None:
    build: ModuleType = scripts("build_tokenizer")
    first = build.TEXT_TOKENS
    names = [*build.SPECIAL, "<audio_0>", "<audio_1>"]
    assert [tokenizer.token_to_id(name) for name in names] == list(range(first, first + len(names)))
    assert tokenizer.token_to_id("<audio_6561>") == tokenizer.get_vocab_size() - 1
    assert len(tokenizer.encode("<|BOT|>human\nhello<|EOT|>").ids) == 5


def test_text_leaves_room_for_its_speech(corpus: dict[str, Any], tokenizer: Tokenizer) -> None:
    """One text token goes with four of speech (0.16 s): a sentence may not have more tokens than letters / 2.5."""
    for turn in turns_of(corpus["train"]):
        for sentence in spoken(turn):
            assert len(tokenizer.encode(sentence).ids) <= 3 + len(sentence) / 2.2
