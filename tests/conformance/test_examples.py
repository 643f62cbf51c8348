"""Every file of scripts/examples and the README's client, each run as a newcomer would, on the pocket checkpoint.

Those that are stock clients run in the environments that scripts/clients installs, the others in ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conformance_site import Site

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXAMPLES = ROOT / "scripts" / "examples"
ENVIRONMENT = ROOT / ".venv-clients" / "bin"
QUESTION = ROOT / "tests" / "data" / "questions" / "hours.flac"
AT_ONCE = 3
LIMIT_S = 300.0

OURS, CLIENTS, NODE, SHELL = sys.executable, str(ENVIRONMENT / "python"), "node", "bash"


@dataclass(frozen=True, slots=True)
class Example:
    """How an example is run, and what it must print."""

    runner: str
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    tls: bool = False
    tools: bool = False  #: at the server that runs tools


SUNNY = ("looking up the weather in milan", "agent: it is sunny in milan", "s of speech")
RUNS: dict[str, tuple[str, Example]] = {
    name: (name.partition(" ")[0], example)
    for name, example in {
        "ask_from_file.py": Example(
            OURS, ("you:   how much", "agent: the chocolate cake costs five dollars")
        ),
        "microphone.py": Example(
            OURS,
            ("you: hello when do you open", "agent: on wednesday we are open from eight to five"),
            ("--from-file", str(QUESTION), "--to-file", "heard.wav", "--answers", "1"),
        ),
        "tool_calling.py": Example(OURS, ("tool:  get_weather({'city': 'milan'})", "it is sunny in milan")),
        "server_tool.py": Example(
            OURS,
            ("server: get_weather({'city': 'milan'})", "agent: let me check", "sunny in milan"),
            tools=True,
        ),
        "call_centre_bot.py": Example(
            OURS, ("open from eight to five", "sunny", "parking", "said goodbye; 4 turns")
        ),
        "call_centre_bot.py out of its depth": Example(
            OURS, ("transferred to a person; 2 turns",), ("quiet.wav", "quiet.wav", "goodbye")
        ),
        "openai_python.py": Example(CLIENTS, ("agent: the pool is open", "s of speech in answer.wav")),
        "openai_live.py": Example(
            OURS, ("you:   hello when do you open", "agent: on wednesday", "close_requested")
        ),
        "openai_js.mjs": Example(NODE, ("agent: yes, parking is free",)),
        "openai_js.mjs over TLS": Example(NODE, ("agent: yes, parking is free", "s of speech"), tls=True),
        "agents_js.mjs": Example(NODE, SUNNY),
        "pipecat_bot.py": Example(CLIENTS, ("agent: the pool is open", "s of speech")),
        "livekit_agent.py": Example(CLIENTS, SUNNY),
        "rest.sh": Example(
            SHELL, ("default_female", "a table for two on friday at ten", '"role": "assistant"')
        ),
    }.items()
}
README = "README"

Runs = Mapping[str, Future[str]]


@pytest.fixture(scope="module")
def runs(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All of them, a few at a time, each in a folder of its own."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {
            name: pool.submit(run, site, tmp_path_factory.mktemp("example"), *what)
            for name, what in RUNS.items()
        }
        started[README] = pool.submit(run_readme, site, tmp_path_factory.mktemp("readme"))
        yield started


def run(site: Site, folder: Path, file: str, example: Example) -> str:
    script = EXAMPLES / file
    soundfile.write(folder / "quiet.wav", np.zeros(16_000), 16_000)
    if example.runner == NODE:  # packages are looked for beside the file
        (folder / "node_modules").symlink_to(HERE / "clients" / "node_modules")
        script = folder / file
        script.write_bytes((EXAMPLES / file).read_bytes())
    base = (site.tools if example.tools else site.https if example.tls else site.http).removesuffix("/v1")
    return execute(site, folder, [example.runner, str(script), *example.options, "--url", base])


def run_readme(site: Site, folder: Path) -> str:
    """The Python program of the README, with another address."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "http://127.0.0.1:8080/v1" in program
    script = folder / "readme.py"
    script.write_text(program.replace("http://127.0.0.1:8080/v1", site.http))
    return execute(site, folder, [CLIENTS, str(script)])


def execute(site: Site, folder: Path, command: list[str]) -> str:
    environment = {
        **os.environ,
        "PATH": f"{ENVIRONMENT}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT) if command[0] == OURS else "",
        "NODE_EXTRA_CA_CERTS": str(site.cert),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for log in folder.glob("call.json"):
        assert json.loads(log.read_text())["turns"]
    return done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_example(runs: Runs, name: str) -> None:
    said = runs[name].result()
    for words in RUNS[name][1].words:
        assert words in said, said


def test_the_client_of_the_readme(runs: Runs) -> None:
    assert "breakfast" in runs[README].result()


def test_no_example_is_left_out() -> None:
    listed = {file for file, _ in RUNS.values()}
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    readme = (ROOT / "README.md").read_text()
    assert all(file in readme for file in listed)
