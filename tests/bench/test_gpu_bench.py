"""The GPU benchmark on tiny sizes: everything is measured, in order, as numbers; speed is not looked at."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.bench import gpu
from scripts.bench.gpu_parts.flow_tensors import flow_tensors
from scripts.bench.gpu_parts.measure import Figure
from scripts.bench.gpu_parts.report import Report, Row
from scripts.bench.gpu_parts.shapes import MINI, TINY
from scripts.bench.gpu_parts.talkers import Playback, spoken_history
from scripts.bench.gpu_parts.weights import (
    KINDS,
    TEXT_BYTES,
    off_schedule,
    true_shape_language_model,
    write_folder,
)
from voiceagent.core.history import TextContent, UserItem
from voiceagent.models.step_audio2.checkpoint import read_headers, weight_count
from voiceagent.models.step_audio2.prompt import render_turn


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one whole run of the benchmark writes; the picture's path is put in."""
    out = tmp_path_factory.mktemp("bench")
    threads = torch.get_num_threads()
    line = [
        "--tiny",
        "--device",
        "cpu",
        "--sessions",
        "1,3",
        "--seconds",
        "1.5",
        "--asks",
        "4",
        "--out",
        str(out),
    ]
    try:
        code = gpu.main(line)
    finally:
        torch.set_num_threads(threads)
    written: dict[str, Any] = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    assert code == 0, written["failures"]
    return written | {"out": out}


def test_every_part_is_measured_in_order(found: dict[str, Any]) -> None:
    parts = list(dict.fromkeys(row["part"] for row in found["rows"]))
    assert parts == ["ceilings", *gpu.PARTS]
    assert found["failures"] == []
    assert set(found["part_seconds"]) == {"weights", "reference", "speech", "language", "turn+sessions"}


def test_every_figure_is_a_positive_number_with_its_spread(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        figure = row["figure"]
        assert all(math.isfinite(value) for value in figure.values()), row
        assert figure["low"] <= figure["value"] <= figure["high"] or figure["spread"] > 0, row
        assert row["unit"], row
    timed = [row for row in found["rows"] if row["unit"] == "ms" and not row["name"].startswith("  of it")]
    assert all(row["figure"]["value"] > 0 for row in timed)


def test_the_table_has_a_line_for_every_row(found: dict[str, Any]) -> None:
    lines = (found["out"] / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + len(found["rows"])
    assert all(row["name"] in line for row, line in zip(found["rows"], lines[2:], strict=True))


def test_the_picture_is_well_formed(found: dict[str, Any]) -> None:
    root = xml.etree.ElementTree.parse(found["out"] / "gpu.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(root) > 20


def test_listeners_of_the_sessions_part_got_every_chunk_in_order(found: dict[str, Any]) -> None:
    names = [row["name"] for row in found["rows"] if row["part"] == "sessions"]
    for number in (1, 3):
        assert f"{number} sessions: first sound p99" in names
        assert f"{number} sessions: chunks before their deadline" in names
        assert f"{number} sessions: runner at work" in names


def test_answers_that_are_stopped_at_their_first_sound_end_there(found: dict[str, Any]) -> None:
    names = [row["name"] for row in found["rows"] if row["part"] == "turn"]
    assert "cancel to the turn's end: p99" in names
    stages = [name.split(",")[0].strip() for name in names if name.endswith("history 0") and "of it" in name]
    assert {"of it decode", "of it vocode", "of it pipe and waiting"} <= set(stages)


def test_a_part_that_breaks_is_noted_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("scripts.bench.gpu_parts.language.measure", broken)
    line = ["--tiny", "--device", "cpu", "--parts", "language,speech", "--out", str(tmp_path)]
    assert gpu.main(line) == 1
    written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert written["failures"] == ["language: RuntimeError: no such kernel"]
    assert any(row["part"] == "speech" for row in written["rows"])
    assert "no such kernel" in capsys.readouterr().out


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SystemExit, match="'lunch' is no part"):
        gpu.main(["--tiny", "--device", "cpu", "--parts", "lunch"])


def test_the_random_checkpoint_has_the_published_sizes(tmp_path: Path) -> None:
    shapes = flow_tensors(MINI.flow)
    assert len(shapes) == 605
    assert sum(math.prod(shape) for shape in shapes.values()) == 155_802_352
    write_folder(TINY, tmp_path)
    assert weight_count(read_headers(tmp_path)) > 0
    assert MINI.config()["text_config"]["vocab_size"] == 158_720
    specials = {entry["content"]: entry["id"] for entry in MINI.tokenizer()["added_tokens"]}
    assert (specials["<|EOT|>"], specials["<audio_0>"], specials["<audio_6561>"]) == (
        151_665,
        151_696,
        158_257,
    )


def test_random_weights_keep_to_the_schedule_of_speech(tmp_path: Path) -> None:
    model = true_shape_language_model(TINY, write_folder(TINY, tmp_path), device="cpu", dtype=torch.float32)
    prompt = render_turn(
        (UserItem("u", (TextContent("Hello."),)),),
        instructions="", tools=(), tool_choice="auto", tokenizer=model.tokenizer, spoken=True,
    )  # fmt: skip
    replies = [model.generate(model.open(), prompt, max_tokens=12 * KINDS) for _ in range(3)]
    for one in replies:
        one.read(len(prompt.slots))
    while any(token is not None for token in model.decode(replies)):
        pass
    for one in replies:
        assert len(one.ids) == 12 * KINDS
        assert off_schedule(one.ids, TINY) == 0
    assert replies[0].ids != replies[1].ids
    assert off_schedule([*replies[0].ids[:-1], TEXT_BYTES[0]], TINY) == 1


def test_playback_counts_what_comes_too_late() -> None:
    playback = Playback()
    for at, samples in ((10.0, 24_000), (10.5, 24_000), (12.05, 24_000), (13.2, 12_000)):
        playback.take(at, samples)
    assert (playback.chunks, playback.late, playback.late_100) == (4, 2, 1)
    assert playback.silent_s == pytest.approx(0.05 + 0.15)
    assert playback.audio_s == pytest.approx(3.5)
    assert playback.until == pytest.approx(13.7)


def test_a_history_takes_the_positions_that_it_should() -> None:
    items = spoken_history(2000, audio_0=MINI.audio_0, text=TEXT_BYTES[0])
    positions = sum(len(item.raw_ids or ()) + 8 for item in items)
    assert positions == pytest.approx(2000, rel=0.02)


def test_a_row_knows_its_gain_its_share_and_its_goal() -> None:
    fast = Row("p", "n", Figure(2.0, 0.1, 1.9, 2.1), "ms", reference=20.0, floor=1.0, goal=3.0)
    assert (fast.gain, fast.of_floor, fast.met) == (10.0, 0.5, True)
    rate = Row(
        "p", "n", Figure(50.0, 1.0, 49.0, 51.0), "1/s", reference=5.0, floor=100.0, goal=60.0, better="higher"
    )
    assert (rate.gain, rate.of_floor, rate.met) == (10.0, 0.5, False)


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        Report({}, {}, quiet=True).add(Row("p", "n", Figure(math.nan, 0.0, 0.0, 0.0), "ms"))
