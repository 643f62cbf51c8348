"""One server for the whole folder, with a plain and a TLS listener, on the pocket checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_site import Site
from self_signed import certificate

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 30.0


@pytest.fixture(scope="session")
def site(pocket_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running server; when it ends it must end well, without a traceback on the way."""
    folder = tmp_path_factory.mktemp("conformance")
    cert, key = certificate(folder)
    words = folder / "stderr"
    with words.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.two_listeners", str(cert), str(key)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
        )
    assert process.stdout is not None
    try:
        told = process.stdout.readline()
        assert told, words.read_text()
        address = json.loads(told)
        yield Site(address["http"], address["https"], address["tools"], cert)
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(END_S)
        process.stdout.close()
    assert (status, "Traceback" in words.read_text()) == (0, False), words.read_text()
