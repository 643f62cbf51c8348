"""One server for the whole folder, started as a person starts it, on the pocket checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LOAD_S = 300.0  #: it takes 3 s on an idle machine


@pytest.fixture(scope="session")
def pocket_server(pocket_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address (host:port) of `voiceagent serve`; when it ends it must end well."""
    words = tmp_path_factory.mktemp("serve") / "stderr"
    with words.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "voiceagent", "serve", "--port", "0"],
            stderr=stderr,
            env={**os.environ, "VOICEAGENT_ENGINE__LOAD_TIMEOUT_S": str(LOAD_S)},
        )
    try:
        yield wait_for_address(process, words)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    said = words.read_text()
    assert status == 0, said
    assert "Traceback" not in said


def wait_for_address(process: subprocess.Popen[bytes], words: Path) -> str:
    """The address that a server prints when its model is loaded."""
    while True:
        found = re.search(r"open http://(\S+)", words.read_text())
        if found:
            return found[1]
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(words.read_text())
