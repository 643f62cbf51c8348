"""The benchmark of the wire runs, checks what it hears, and counts; its times mean nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def run(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=SCRIPTS, capture_output=True, text=True, timeout=120, check=True
    ).stdout


@pytest.mark.parametrize("case", ["pcm-20", "pcm-20-paced"])
def test_calls_are_served_and_counted(case: str) -> None:
    row = json.loads(run("wire.py", "--case", case, "--sessions", "3", "--seconds", "1").splitlines()[0])
    assert row["case"] == case
    assert row["in_per_s"] > 0 < row["out_per_s"]
    assert (row["latency_ms"] is not None) == (case == "pcm-20")


def test_the_layers_are_listed() -> None:
    out = run("wire_layers.py", "--calls", "2", "--format", "audio/pcmu")
    assert out.count("|\n") == 13


def test_every_kind_of_socket_answers_every_message() -> None:
    out = run("wire_floors.py", "--connections", "2", "--rounds", "2", "--gap-us", "0", "--times", "1")
    ways = [line.split("|")[1].strip() for line in out.splitlines()]
    assert ways[:2] == ["aiohttp", "asyncio.Protocol"]
