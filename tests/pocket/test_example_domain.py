"""The worked example of a domain of one's own: its intents are in the corpus, and nothing else changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "pocket"
EXAMPLE = SCRIPTS / "example_domain" / "library.py"


def corpus(tmp_path: Path, *domains: Path) -> dict[str, Any]:
    """A small corpus with these domains, made by the script."""
    out = tmp_path / "corpus.json"
    env = dict(
        os.environ, PYTHONPATH=str(SCRIPTS.parents[1]), POCKET_DOMAIN=os.pathsep.join(map(str, domains))
    )
    command = [sys.executable, str(SCRIPTS / "corpus.py"), "--out", str(out), "--scale", "0.1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    made: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return made


def test_three_intents_are_learned_and_tested(tmp_path: Path) -> None:
    made = corpus(tmp_path, EXAMPLE)
    turns = [turn for part in ("train", "test") for one in made[part] for turn in one["turns"]]
    library = [turn for turn in turns if turn["intent"].startswith("library_")]
    for intent in ("library_renew", "library_reserve", "library_card"):
        own = [turn for turn in library if turn["intent"] == intent]
        assert len({turn["heard"]["text"] for turn in own}) > 10, intent
        assert all(value in turn["reply"] for turn in own for value in turn["slots"].values())
    names = {turn["intent"] for turn in library}
    assert {"library_renew_recall", "library_reserve_more"} <= names


def test_without_it_there_is_none_and_a_broken_file_is_named(tmp_path: Path) -> None:
    assert "library" not in json.dumps(corpus(tmp_path)["train"][:500])
    broken = tmp_path / "empty.py"
    broken.write_text("")
    with pytest.raises(RuntimeError, match=r"empty\.py has no ERRANDS"):
        corpus(tmp_path, broken)
    with pytest.raises(RuntimeError, match="an intent library_card already"):
        corpus(tmp_path, EXAMPLE, EXAMPLE)
