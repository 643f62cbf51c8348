"""The evaluation of conversations runs from end to end on a few trials; its times mean nothing here, its counts do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "eval" / "duplex.py"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("duplex")
    command = [sys.executable, str(SCRIPT), "--quick", "--workers", "2", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a goal was missed, as it may be on so few trials
    return folder


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "results" / "duplex.json").read_text(encoding="utf-8"))
    return report


def test_callers_of_a_real_server_are_answered(found: dict[str, Any]) -> None:
    live = found["live"]
    assert sum(spread["count"] for spread in live["response_latency_ms"].values()) > 0
    assert live["spoken_s"] > 1.0
    assert not live["errors"]


def test_interruptions_stop_us_and_coughs_do_not(found: dict[str, Any]) -> None:
    overlaps = found["overlaps"]
    assert overlaps["interruptions_by_condition"]["quiet"]["yield_rate"] == 1.0
    assert overlaps["interruptions"]["take_over_rate"] == 1.0
    assert overlaps["not_meant_by_kind"]["cough"]["unharmed"] == 1.0
    assert overlaps["underruns"] == 0


def test_history_never_holds_more_than_was_played(found: dict[str, Any]) -> None:
    drift = found["overlaps"]["interruptions"]
    assert drift["drift_ms_with_acks"]["most"] <= 0
    assert drift["drift_words_with_acks"]["most"] <= 0


def test_our_echo_does_not_interrupt_us_where_it_is_cancelled(found: dict[str, Any]) -> None:
    lines = found["echo"]["lines"]
    bare = lines.pop("-12 dB, no echo cancellation")
    assert bare["self_interruptions"] + bare["held_and_resumed"] > 0  # so the trial can tell
    assert {name: line["self_interruptions"] for name, line in lines.items()} == dict.fromkeys(lines, 0)
    assert all(line["answers"] == line["questions"] for line in lines.values())


def test_longer_silences_cut_off_less_and_take_longer(found: dict[str, Any]) -> None:
    settings = found["turns"]["settings"]
    short, long = settings["server_vad 200 ms"], settings["server_vad 1500 ms"]
    assert short["cut_off"] > long["cut_off"]
    assert short["endpoint_delay_ms"]["p50"] < long["endpoint_delay_ms"]["p50"]
    assert found["turns"]["verdicts"] >= 0


def test_readme_and_picture_are_made(out: Path) -> None:
    text = (out / "README.md").read_text(encoding="utf-8")
    for heading in (
        "A real server",
        "Sounds over our voice",
        "Our own echo",
        "Ends of turns",
        "what the words mean",
    ):
        assert heading in text
    assert ElementTree.parse(out / "duplex.svg").getroot().tag.endswith("svg")
