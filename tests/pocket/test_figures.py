from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.pocket import card, figures, recogniser

SORRY = "sorry, i did not catch that. could you say it again?"
CARD_SECTIONS = ("gates", "replies", "hearing", "unclear", "speech", "intents")


def note(intent: str, reply: str, got: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "what": "reply", "bank": "test_seen", "voice": "espeak/en+m1", "kind": "speech", "said": "a b", "heard": "a b",
        "intent": intent, "slots": {}, "place": 0, "reply": reply, "got": got, "wanted": [], "calls": [],
        "broken": 0, "codes": [1], "ended": "stop",
    }  # fmt: skip
    return plain | changes


PARIS, ROME = [["get_weather", {"city": "paris"}]], [["get_weather", {"city": "rome"}]]
NOTES = [
    note("order", "order one two is ready.", "order one two is ready.", slots={"number": "one two"}),
    note("order", "order one two is ready.", "order one nine is ready.", slots={"number": "one two"}, place=1),
    note("weather", "let me check.", "let me check.", wanted=PARIS, calls=PARIS),
    note("weather", "let me check.", "let me check.", wanted=PARIS, calls=ROME, heard="a c"),
    note("after get_weather", "it is sunny.", "<no call>"),
    note("unclear", SORRY, SORRY, kind="noise", heard="", said=""),
    note("unclear", SORRY, "hello.", kind="speech"),
    {"what": "hear", "bank": "test_seen", "voice": "espeak/en", "said": "one two three four", "heard": "one two three"},
    {"what": "speak", "text": "a b c d", "own": {"desk": "a b c x", "stock": "a"},
     "source": {"desk": "a b c d", "stock": "a"}, "audio_s": 1.0, "rtf": 0.3},
    {"what": "speak", "text": "a b c d", "own": {"desk": "a b c d", "stock": "a"},
     "source": {"desk": "a b c y", "stock": "a"}, "audio_s": 1.0, "rtf": 0.5},
]  # fmt: skip


def test_figures_of_replies_and_hearing() -> None:
    found = figures.figures(NOTES)["test_seen"]
    assert found["turns"] == 5
    assert found["reply_exact"] == 60.0  # the replies after tools count
    assert found["intent"] == 100.0  # a wrong digit is a wrong slot of the right intent
    assert found["slots"] == 50.0
    assert found["tool_calls"] == 50.0
    assert found["unclear"] == 50.0
    assert found["unclear_by_kind"] == {"noise": "1/1", "out_of_domain": "0/1"}
    assert found["asr_domain_wer"] == 12.5  # one word of four turns of two words; unclear turns are left out
    assert found["asr_generic_wer"] == 25.0
    assert found["asr_no_speech_empty"] == 100.0


def test_figures_of_speech_compare_with_the_source_voice() -> None:
    found = figures.figures(NOTES)["speech"]
    assert (found["desk"]["own"], found["desk"]["source"], found["ratio"]) == (12.5, 12.5, 1.0)
    assert found["stock"]["own"] == 75.0


def test_gates_fail_where_a_figure_is_missing_or_short() -> None:
    kept = {gate["gate"]: gate["ok"] for gate in figures.figures(NOTES)["gates"]}
    assert len(kept) == len(figures.GATES)
    assert [name for name, ok in kept.items() if ok] == [figures.GATES[-1][0]]


def test_misses_are_wrong_replies_and_wrong_calls() -> None:
    assert [miss["intent"] for miss in figures.misses(NOTES)] == [
        "order", "weather", "after get_weather", "unclear",
    ]  # fmt: skip


def test_card_gets_every_table(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in CARD_SECTIONS))
    figures.write_card(path, figures.figures(NOTES))
    text = path.read_text()
    assert "| tool calls exact, % | 50.0 |" in text
    assert "| front-desk bigram | 12.5 % | 12.5 % | 1.0 | 0.0 to 2.0 |" in text
    assert "| noise | 1/1 |" in text


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
