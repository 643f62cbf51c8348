"""The text tokenizer: the same corpus gives the same files, the runtime reads them, and prompts are few tokens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from scripts.eval.pocket_parts import figures, report
from scripts.pocket import task
from scripts.pocket.build_tokenizer import train, write
from scripts.pocket.task import Dialogue, Sound, Task, Turn
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant, find_variant


@pytest.fixture(scope="module")
def corpus() -> dict[str, Any]:
    turns = [Turn(Sound("qué hora es", language="es"), "son las dos.", "time", language="es")]
    dialogue = Dialogue("time", "You are the voice of a hotel.", None, turns, history=[["hi", "hello."]])
    tasks = [Task("think", "Think.", None, "one plus one", "two.", True, thought="it is two.")]
    return {
        "train": [asdict(dialogue)],
        "tasks": list(map(asdict, tasks)),
        "generic": ["the wheel turns slowly", "please spell it"],
        "agent_generic": ["a blue house."],
        "agent_spanish": ["el niño come."],
    }


@pytest.fixture(scope="module")
def folder(corpus: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, pocket_dir: Path) -> Path:
    to = tmp_path_factory.mktemp("base")
    write(train(corpus, size=700), to, base=pocket_dir)
    return to


def test_the_runtime_reads_it_and_config_json_has_its_ids(folder: Path) -> None:
    tokenizer, config = TextTokenizer.from_folder(folder), StepAudio2Config.from_folder(folder)
    assert config.text.vocab_size >= tokenizer.size
    assert config.text.vocab_size % 64 == 0
    assert config.eos_token_ids == (tokenizer.ids.eot,)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [tokenizer.ids.eot]
    assert tokenizer.eos == tokenizer.ids.eot


def test_accents_and_every_other_text_come_back(folder: Path) -> None:
    tokenizer = TextTokenizer.from_folder(folder)
    for text in ("el niño dijo qué", "unheard words", task.ASR, '{"city": "málaga"}'):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_prompts_and_words_are_few_tokens(folder: Path) -> None:
    tokenizer = TextTokenizer.from_folder(folder)
    assert len(tokenizer.encode(task.ASR)) < len(task.ASR) / 2
    assert len(tokenizer.encode(task.DESCRIBE)) < len(task.DESCRIBE) / 4


def test_a_thought_has_tokens_of_its_own(folder: Path) -> None:
    assert find_variant(folder) is Variant.THINK
    tokenizer = TextTokenizer.from_folder(folder)
    opening = tokenizer.encode_tagged("assistant\n\n<think>\n")
    assert (
        tokenizer.encode_tagged("assistant\n\n<think>\nit is two.\n</think>\n\n")[: len(opening)] == opening
    )


def test_the_same_corpus_gives_the_same_file(corpus: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    train(corpus, size=700).save(str(tmp_path / "again.json"), pretty=False)
    assert (tmp_path / "again.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_the_card_has_a_place_for_every_table(folder: Path) -> None:
    empty: dict[str, dict[str, str]] = {"by_group": {}, "by_intent": {}, "by_unclear": {}}
    found = figures.figures([]) | {"replies": {"x": empty}}
    text = (folder / "README.md").read_text()
    assert "<!-- files -->" in text
    assert all(f"<!-- {name} -->" in text for name in report.sections(found) if name != "by_engine")
