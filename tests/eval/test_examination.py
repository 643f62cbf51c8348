"""The examination of a checkpoint: how notes become figures and tables, and the frozen questions with their gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from scripts.eval.pocket_parts import figures, quick, report
from scripts.eval.pocket_parts.asking import Asker
from scripts.pocket import card, recogniser
from scripts.pocket.scoring import auc, bootstrap, wilson
from voiceagent.models.step_audio2.generate import LanguageModel

SORRY = "sorry, i did not catch that. could you say it again?"


def note(intent: str, reply: str, got: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "what": "reply", "bank": "test_seen", "voice": "espeak/en+m1", "kind": "speech", "said": "a b", "heard": "a b",
        "intent": intent, "slots": {}, "place": 0, "reply": reply, "got": got, "wanted": [], "calls": [],
        "broken": 0, "codes": [1], "ended": "stop", "source": "", "language": "en", "group": "frontdesk",
    }  # fmt: skip
    return plain | changes


def task(name: str, reply: str, got: str, **changes: Any) -> dict[str, Any]:
    return {"what": name, "bank": "test_seen", "reply": reply, "got": got, "tested": "", "said": ""} | changes


PARIS, ROME = [["get_weather", {"city": "paris"}]], [["get_weather", {"city": "rome"}]]
NOTES = [
    note("order", "order one two is ready.", "order one two is ready.", slots={"number": "one two"}),
    note("order", "order one two is ready.", "order one nine is ready.", slots={"number": "one two"}, place=1),
    note("weather", "let me check.", "let me check.", wanted=PARIS, calls=PARIS, source="prompt"),
    note("weather", "let me check.", "let me check.", wanted=PARIS, calls=ROME, heard="a c"),
    note("after get_weather", "it is sunny.", "<no call>"),
    note("repeat", "ab cd", "ab cx"),
    note("unclear", SORRY, SORRY, kind="noise", heard="", said=""),
    note("unclear", SORRY, "hello.", kind="speech"),
    {"what": "hear", "bank": "test_seen", "voice": "espeak/en", "said": "one two three four",
     "heard": "one two three", "complete": 0.9},
    task("s2tt", "el gato come", "el gato come"),
    task("caption", "a woman speaks slowly. rain.", "a man speaks slowly. rain."),
    task("think", "two.", "two.", thought="one and one.", thinks="one and two."),
    task("asr_part", "what time", "", heard="what time", complete=0.1),
    task("asr_part", "what time", "", heard="what time is it", complete=0.95),
    {"what": "said", "text": "a b c d", "own": {"desk": "a b c x"}, "source": {"desk": "a b c d"}, "audio_s": 1.0,
     "rtf": 0.3, "seams": [[2.0, 1.0], [1.0, 1.0]]},
    {"what": "said", "text": "a b c d", "own": {"desk": "a b c d"}, "source": {"desk": "a b c y"}, "audio_s": 1.0,
     "rtf": 0.5, "seams": []},
    {"what": "clone", "voice": "a", "nearest": "a", "nearest_spectrum": "b", "likeness": 0.9, "best_other": 0.4,
     "pitch": 200.0, "pitch_wanted": 100.0},
    {"what": "pace", "first_s": 0.3, "rtf": 0.2},
]  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return figures.figures(NOTES) | {"size_mb": 59.0}


def test_replies(found: dict[str, Any]) -> None:
    seen = found["replies"]["test_seen"]
    assert seen["exact"]["value"] == 50.0  # the reply after a tool counts, too
    assert seen["exact"]["of"] == 6
    assert seen["exact_from_prompt"] == {"value": 100.0, "low": 20.7, "high": 100.0, "of": 1}
    assert seen["slots"]["value"] == 50.0
    assert seen["tool_calls"]["value"] == 50.0
    assert seen["repeat_cer"]["value"] == 20.0
    assert seen["unclear"]["value"] == 50.0
    assert seen["by_unclear"] == {"noise": "1/1", "out_of_domain": "0/1"}


def test_hearing_and_tasks(found: dict[str, Any]) -> None:
    assert found["hearing"]["test_seen"]["wer_sentences"]["value"] == 25.0
    assert found["hearing"]["test_seen"]["nothing_heard"]["value"] == 100.0
    tasks = found["tasks"]["test_seen"]
    assert tasks["s2tt"]["chrf"] == 100.0
    assert tasks["caption"]["attributes"]["value"] == 50.0  # slowly and rain, but neither woman nor man
    assert tasks["think"]["thought_exact"]["value"] == 0.0
    part = tasks["asr_part"]
    assert (part["exact"]["value"], part["invented"]["value"], part["auc_of_the_end"]) == (50.0, 50.0, 0.5)


def test_speech_is_compared_with_its_source(found: dict[str, Any]) -> None:
    assert found["speech"]["desk"]["ratio"]["value"] == 1.0
    assert found["speech"]["seams"]["ratio"]["value"] == 1.5
    assert found["clones"]["nearest_is_the_prompt"]["value"] == 100.0
    assert found["clones"]["pitch_off_semitones"] == 12.0
    assert found["pace"]["first_audio_s"] == 0.3


def test_an_answer_counts_for_the_intent_that_it_is_most_like(found: dict[str, Any]) -> None:
    confusion = found["confusion"]
    assert confusion["order"] == {"order": 2}  # a wrong digit is no other intent
    assert confusion["after get_weather"] == {"other": 1}
    assert figures.confusion([*NOTES[:1], note("weather", "let me check.", "order one two is late.")])[
        "weather"
    ] == {"order": 1}


def test_gates_fail_where_a_figure_is_missing_or_short(found: dict[str, Any]) -> None:
    limits = {"size_mb": (60.0, False), "replies.test_seen.exact": (60.0, True), "pace.none": (1.0, True)}
    assert [gate["ok"] for gate in figures.gates(found, limits)] == [True, False, False]


def test_misses_are_wrong_replies_and_wrong_calls() -> None:
    missed = [miss.get("intent", miss["what"]) for miss in figures.misses(NOTES)]
    assert missed == [
        "order", "weather", "after get_weather", "repeat", "unclear", "caption", "asr_part", "asr_part",
    ]  # fmt: skip


def test_page_pictures_and_card(found: dict[str, Any], tmp_path: Path) -> None:
    page = report.page(found, note="", pictures=["pocket.svg"])
    assert "| size, MB | 59 | at most 60 | yes |" in page
    for picture in (report.bars(found), report.matrix(found["confusion"])):
        assert ElementTree.fromstring(picture).tag.endswith("svg")
    path = tmp_path / "README.md"
    path.write_text("<!-- goals -->\n<!-- /goals -->\n<!-- replies -->\n<!-- /replies -->\n")
    report.write_card(path, found)
    assert "| tool calls exact, % | 50 (9.5 to 90.5) |" in path.read_text()


def test_intervals_hold_the_value_and_shrink() -> None:
    assert wilson(50, 100) == (40.4, 59.6)
    assert wilson(0, 0) == (0.0, 100.0)
    few, many = bootstrap([(1, 4), (0, 4)] * 5), bootstrap([(1, 4), (0, 4)] * 500)
    assert few[0] < many[0] < 12.5 < many[1] < few[1]
    assert auc([0.9, 0.8], [0.1, 0.8]) == 0.875


def test_chrf_rises_with_likeness() -> None:
    same, near, far = (
        figures.chrf([("el gato come", got)]) for got in ("el gato come", "el gato corre", "xyz")
    )
    assert same == 100.0
    assert near is not None
    assert far is not None
    assert 100 > near > far


def test_the_frozen_questions_keep_the_gates(pocket_dir: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other where others work, too
    try:
        asker = Asker(LanguageModel.load(pocket_dir))
        notes = [heard for question in quick.questions() for heard in quick.ask(asker, question)]
    finally:
        torch.set_num_threads(threads)
    files = sum(path.stat().st_size for path in pocket_dir.rglob("*") if path.is_file())
    kept = figures.gates(figures.figures(notes) | {"size_mb": files / 1e6}, quick.GATES)
    assert all(gate["ok"] for gate in kept), kept


def test_table_shows_what_is_missing_as_a_dash() -> None:
    assert card.table(("a", "b"), [("x", None)]) == "| a | b |\n| --- | ---: |\n| x | - |"


def test_bigram_is_a_distribution() -> None:
    lines = recogniser.bigram([["a", "b"], ["a", "c"], ["b"]]).splitlines()
    single = [line.split() for line in lines[lines.index("\\1-grams:") + 1 : lines.index("\\2-grams:") - 1]]
    chance = {word: 10 ** float(value) for value, word, _ in single if word != "<s>"}
    assert sum(chance.values()) == pytest.approx(1.0, abs=1e-3)
    pairs = [line.split() for line in lines[lines.index("\\2-grams:") + 1 : lines.index("\\end\\") - 1]]
    after_a = {second: 10 ** float(value) for value, first, second in pairs if first == "a"}
    backed_off = sum(value for word, value in chance.items() if word not in after_a) * recogniser.BACKOFF
    assert sum(after_a.values()) + backed_off == pytest.approx(1.0, abs=1e-3)
