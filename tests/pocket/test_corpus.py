"""The corpus keeps its promises: nothing held out leaks, answers are true, every string can be said and written."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEARD = {"en": r"[a-z' ]*", "es": r"[a-záéíóúüñ' ]*"}
SAID = {"en": r"[a-z' .,?:]+", "es": r"[a-záéíóúüñ' .,?¿:]+"}


@pytest.fixture(scope="module")
def scripts() -> Any:
    """Imports a module of scripts/pocket, whose modules import each other by bare name."""
    sys.path.insert(0, str(ROOT / "scripts" / "pocket"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "scripts" / "pocket"))


@pytest.fixture(scope="module")
def corpus(scripts: Any) -> dict[str, Any]:
    return scripts("corpus").build(dialogues=6000, generic=5000, agent=6000)


def turns_of(dialogues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [turn for made in dialogues for turn in made["turns"]]


def spoken(turn: dict[str, Any]) -> list[str]:
    return [turn["reply"], *([turn["tool"]["final"]] if turn["tool"] else [])]


def heard(corpus: dict[str, Any], *parts: str) -> Iterator[dict[str, Any]]:
    """Every sound of these parts of the corpus but for the generic sentences."""
    for part in parts:
        for made in corpus[part]:
            if "turns" in made:
                yield from (turn["heard"] for turn in made["turns"])
            elif made["heard"]:
                yield made["heard"]


def core(text: str, scene: Any) -> str:
    """What a caller said without courtesies around it."""
    for lead in sorted(scene.LEADS, key=len, reverse=True):
        if text.startswith(lead + " "):
            text = text.removeprefix(lead + " ")
            break
    for tail in sorted(scene.TAILS, key=len, reverse=True):
        if text.endswith(" " + tail):
            return text.removesuffix(" " + tail)
    return text


# --- the same again -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_corpus(scripts: Any) -> None:
    build = scripts("corpus").build
    small = {"dialogues": 60, "generic": 20, "agent": 20}
    assert build(**small) == build(**small)
    assert build(**small) != build(**small, seed=2)


def test_what_is_tested_does_not_hang_on_what_is_trained(scripts: Any) -> None:
    text = scripts("corpus")
    whole = text.build(dialogues=60, generic=20, agent=20)
    alone = text.build_test(dialogues=40, generic=20, scale=0.15)
    assert alone == {name: whole[name] for name in alone}


# --- leaks ----------------------------------------------------------------------------------------------------------


def test_training_never_holds_a_held_out_sentence(scripts: Any, corpus: dict[str, Any]) -> None:
    scene, dialogue = scripts("scene"), scripts("dialogue")
    trained = [
        turn["heard"]["text"]
        for turn in turns_of(corpus["train"])
        if turn["intent"] not in dialogue.FIXED_INTENTS - {"unclear"}
    ]
    trained += [said for made in corpus["train"] for said, _ in made["history"]]
    trained += [said for made in corpus["tasks"] if made["name"] == "summary" for said, _ in made["history"]]
    trained += corpus["generic"] + corpus["agent_generic"]
    trained += [made["heard"]["text"] for made in corpus["tasks"] if made["name"] == "asr_part"]
    assert not [text for text in trained if text and scene.held_out(text)]
    assert all(scene.held_out(sentence) for sentence in corpus["generic_test"])


def test_sentences_of_the_test_are_not_heard_in_training(scripts: Any, corpus: dict[str, Any]) -> None:
    scene = scripts("scene")
    trained = {sound["text"] for sound in heard(corpus, "train", "tasks")} | set(corpus["generic"])
    held = {
        sound["text"]
        for sound in heard(corpus, "test", "task_test")
        if sound["language"] == "en" and scene.held_out(sound["text"]) and not sound["words"]
    }
    assert len(held) > 60
    open_words = {text for text in held & trained if text}
    fixed = {form for phrasings in scene.REGISTRY for form in phrasings.split("|")}
    assert not [text for text in open_words if core(text, scene) not in fixed and text not in fixed]


def test_translations_of_the_test_are_in_no_task_of_training(scripts: Any, corpus: dict[str, Any]) -> None:
    names = ("asr_es", "s2tt", "s2st", "t2tt")

    def pairs(part: str) -> set[str]:
        made = [task for task in corpus[part] if task["name"] in names]
        return {re.sub(r"[¿?.]", "", task["reply"]) for task in made} | {
            task["heard"]["text"] for task in made if task["heard"]
        }

    assert not {text for text in pairs("tasks") & pairs("task_test") if text}


def test_training_uses_no_held_out_wording(scripts: Any, corpus: dict[str, Any]) -> None:
    scene = scripts("scene")
    kept = {form for forms, _ in scene.REGISTRY.values() for form in forms}
    out = {form for _, forms in scene.REGISTRY.values() for form in forms} - kept
    assert len(out) > 150
    plain = {form for form in out if "{" not in form}
    slotted = [
        re.compile(re.sub(r"\\\{\w+\\\}", r"[a-z' ]+", re.escape(form)))
        for form in out
        if "{" in form and len(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", form))) >= 5
    ]
    assert len(slotted) > 20
    also = [re.compile(re.sub(r"\\\{\w+\\\}", r"[a-z' ]+", re.escape(form))) for form in kept if "{" in form]
    for turn in turns_of(corpus["train"]):
        said = core(turn["heard"]["text"], scene)
        assert said not in plain or turn["heard"]["text"] in kept, said
        if any(form.fullmatch(said) for form in slotted):
            assert turn["intent"] == "unclear" or any(form.fullmatch(said) for form in also), said


def test_training_never_reads_a_held_out_value(scripts: Any, corpus: dict[str, Any]) -> None:
    scene, facts = scripts("scene"), scripts("facts")
    free = ("parking", "pets", "payment", "today", "gym")
    for turn in turns_of(corpus["train"]):
        name = turn["intent"].removeprefix("fact_")
        if (
            turn["intent"].startswith("fact_")
            and turn["source"] == "prompt"
            and turn["slots"]
            and name not in free
        ):
            value = turn["slots"]["value"]
            assert value == facts.FACTS[name].default or not scene.value_held_out(f"{name}/{value}"), value
    tested = [made for made in corpus["test"] if made["tested"] == "value"]
    assert tested
    for made in tested:
        assert any(turn["source"] == "prompt" or turn["tool"] for turn in made["turns"])


def test_the_agent_does_not_speak_the_test_in_training(scripts: Any, corpus: dict[str, Any]) -> None:
    said_of = scripts("task").said_of
    for language in ("en", "es"):
        trained, tested = said_of(corpus, language), said_of(corpus, language, test=True)
        assert len(trained) == len(set(trained))
        # Answers without values, and such as have few values, are the same in every call.
        assert len(set(tested) - set(trained)) > 0.3 * len(tested)
    read = {made["reply"] for made in corpus["task_test"] if made["name"] == "speak"}
    assert not read & set(said_of(corpus, "en") + said_of(corpus, "es"))


# --- what there is --------------------------------------------------------------------------------------------------


def test_there_are_intents_turns_and_words_enough(scripts: Any, corpus: dict[str, Any]) -> None:
    turns = turns_of(corpus["train"])
    whole = {
        turn["intent"].removesuffix("_more").removesuffix("_repair").removesuffix("_recall") for turn in turns
    }
    assert len(whole) >= 100
    assert {len(made["turns"]) for made in corpus["train"]} == {1, 2, 3, 4}
    said = re.findall(r"[a-z']+", " ".join(sound["text"] for sound in heard(corpus, "train")))
    assert len(set(said)) > 1500
    assert len(scripts("grammar").ALL_WORDS) >= 3000
    assert len(scripts("corpus").vocabulary(corpus)) >= 3000


def test_every_task_is_trained_and_tested(scripts: Any, corpus: dict[str, Any]) -> None:
    names = set(scripts("task").NAMES)
    assert {made["name"] for made in corpus["tasks"]} == names
    assert {made["name"] for made in corpus["task_test"]} == names


def test_the_agent_speaks_every_word(scripts: Any, corpus: dict[str, Any]) -> None:
    said = set(re.findall(r"[a-z']+", " ".join(corpus["agent_generic"])))
    assert len(set(scripts("grammar").ALL_WORDS) - said) < 0.03 * len(scripts("grammar").ALL_WORDS)


def test_long_sentences_numbers_and_letters_are_heard(scripts: Any, corpus: dict[str, Any]) -> None:
    generic = corpus["generic"]
    assert sum(len(sentence) > 150 for sentence in generic) > 20
    assert sum(bool(list(scripts("task").letter_runs(sentence))) for sentence in generic) > 100
    assert sum(" at " in sentence and " dot " in sentence for sentence in generic) > 30
    assert max(map(len, generic)) <= scripts("corpus").LONGEST


# --- what can be said -----------------------------------------------------------------------------------------------


def test_every_sentence_is_plain_words(corpus: dict[str, Any]) -> None:
    for sound in heard(corpus, "train", "test", "tasks", "task_test"):
        assert re.fullmatch(HEARD[sound["language"]], sound["text"]), sound
        assert sound["text"] == " ".join(sound["text"].split())
    for turn in [*turns_of(corpus["train"]), *turns_of(corpus["test"])]:
        for sentence in spoken(turn):
            assert re.fullmatch(SAID[turn["language"]], sentence), sentence
            assert len(sentence.split()) <= 26
    for made in [*corpus["tasks"], *corpus["task_test"]]:
        if made["reply"] and made["name"] not in ("asr", "asr_part", "asr_es"):
            # Descriptions are English whatever is spoken in them.
            assert re.fullmatch(SAID["es" if not made["spoken"] else made["language"]], made["reply"]), made
        assert re.fullmatch(SAID["en"], made["thought"]) or not made["thought"]
    for sentence in corpus["agent_generic"]:
        assert re.fullmatch(SAID["en"], sentence), sentence
    for sentence in corpus["agent_spanish"]:
        assert re.fullmatch(SAID["es"], sentence), sentence


def test_forms_have_no_empty_alternative(scripts: Any, corpus: dict[str, Any]) -> None:
    assert corpus
    for phrasings in scripts("scene").REGISTRY:
        forms = phrasings.split("|")
        assert all(forms[1:]), phrasings
        assert forms == list(dict.fromkeys(forms)), phrasings


def test_only_what_is_no_speech_has_no_text(scripts: Any, corpus: dict[str, Any]) -> None:
    for sound in heard(corpus, "train", "test", "tasks", "task_test"):
        assert bool(sound["text"]) == (sound["kind"] == "speech"), sound
        if sound["words"]:
            assert sound["text"] == " ".join(sound["whole"].split()[: sound["words"]])
            assert sound["words"] < len(sound["whole"].split())
        assert sound["style"] in scripts("task").STYLES
        assert sound["background"] in ("", *scripts("task").BACKGROUNDS)


def test_reading_back_gives_the_same_objects(scripts: Any, corpus: dict[str, Any]) -> None:
    task, as_json = scripts("task"), json.loads(json.dumps(corpus))
    from dataclasses import asdict

    assert [asdict(task.dialogue_of(made)) for made in as_json["train"][:200]] == as_json["train"][:200]
    assert [asdict(task.task_of(made)) for made in as_json["tasks"][::20]] == as_json["tasks"][::20]
    bank = sum(1 for _ in task.heard_of(corpus))
    assert bank == sum(1 for _ in heard(corpus, "train", "tasks")) + len(corpus["generic"])


def test_prompts_are_those_that_the_server_sends(scripts: Any) -> None:
    from voiceagent.models.step_audio2.dictation import ASR_INSTRUCTIONS
    from voiceagent.models.step_audio2.prompt import SUMMARISE
    from voiceagent.server import tasks

    task = scripts("task")
    assert (ASR_INSTRUCTIONS, SUMMARISE) == (task.ASR, task.SUMMARISE)
    sent = (tasks.TRANSLATE, tasks.TRANSLATE_ALOUD, tasks.DESCRIBE)
    assert sent == (task.TRANSLATE, task.TRANSLATE_ALOUD, task.DESCRIBE)
    assert any(form.startswith(tasks.READ_ALOUD) for form in scripts("reading").READ)


def test_an_errand_of_ones_own_is_asked_for_in_every_way(scripts: Any) -> None:
    from random import Random

    errands, houses, scene = scripts("errands"), scripts("houses"), scripts("scene")
    own = errands.Errand(
        "rent a {what}|i want a {what}", "okay, one {what}.", lambda rng: {"what": rng.choice(("boat", "bike"))},
        "i want to rent something", "what would you like to rent?", "a {what}|{what}", "what",
        recall=("what did i rent", "it was a {what}."),
    )  # fmt: skip
    talks = [errands.play(scene.Scene(Random(n), houses.HARBOR), "rent", own) for n in range(60)]
    assert {turn.intent for talk in talks for turn in talk} == {"rent", "rent_repair", "rent_recall"}
    assert {turn.reply for talk in talks for turn in talk} > {
        "what would you like to rent?",
        "okay, one boat.",
    }
    for talk in talks:
        if talk[-1].intent == "rent_repair":
            assert talk[-1].slots["what"] != talk[-2].slots["what"]
