"""Stock clients, unmodified from PyPI and npm, against this server on the pocket checkpoint.

`scripts/clients` installs them. A whole run writes RESULTS.md anew: a cell says "yes" only if that client's script
in clients/ went through that scenario just now.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conformance_site import Site

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUESTIONS = HERE.parent / "data" / "questions"
SCENARIOS = (
    "connect",
    "configure",
    "spoken",
    "typed",
    "tool",
    "barge_in",
    "cancel",
    "out_of_band",
    "reconnect",
)
TRANSCRIPTION = ("connect", "spoken", "commit")
LIVE = ("start", "spoken", "tool", "delegate", "append", "mute", "close", "reconnect")
AT_ONCE = 3  #: clients; their audio is paced, so most of the time each of them listens
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Client:
    """A client, how its script is started, and which of the server's addresses it takes."""

    title: str
    command: tuple[str, ...]
    address: str
    absent: frozenset[str] = frozenset()  #: scenarios that the client has no way to ask for
    scenarios: tuple[str, ...] = SCENARIOS


ENVIRONMENT = ROOT / ".venv-clients" / "bin"  #: has node too where the machine's own is too old
PYTHON = str(ENVIRONMENT / "python")
CLIENTS = {
    "openai_py": Client("openai (Python)", (PYTHON, "openai_py.py"), "http"),
    "openai_js": Client("openai (JavaScript, ws)", ("node", "openai_js.mjs"), "https"),
    "openai_web_js": Client(
        "openai (JavaScript, browsers' WebSocket)",
        ("node", "--experimental-websocket", "openai_web_js.mjs"),
        "https",
    ),
    "agents_js": Client("@openai/agents-realtime", ("node", "agents_js.mjs"), "ws"),
    "pipecat": Client(
        "Pipecat OpenAIRealtimeLLMService",
        (PYTHON, "pipecat_client.py"),
        "ws",
        frozenset({"out_of_band"}),
    ),
    "livekit": Client("LiveKit openai.realtime.RealtimeModel", (PYTHON, "livekit_client.py"), "http"),
    "live_openai_py": Client(
        "openai (Python), client.live", (PYTHON, "live_openai_py.py"), "http", scenarios=LIVE
    ),
    "live_pipecat": Client(
        "Pipecat OpenAILiveLLMService",
        (PYTHON, "live_pipecat.py"),
        "ws",
        frozenset({"mute"}),
        scenarios=LIVE,
    ),
    "live_livekit": Client(
        "LiveKit openai.realtime.GPTLiveModel", (PYTHON, "live_livekit.py"), "http", scenarios=LIVE
    ),
    "stt_openai_py": Client("openai (Python)", (PYTHON, "stt_openai_py.py"), "http", scenarios=TRANSCRIPTION),
    "stt_openai_js": Client(
        "openai (JavaScript, ws)", ("node", "stt_openai_js.mjs"), "https", scenarios=TRANSCRIPTION
    ),
    "stt_pipecat": Client(
        "Pipecat OpenAIRealtimeSTTService", (PYTHON, "stt_pipecat.py"), "ws", scenarios=TRANSCRIPTION
    ),
    "stt_livekit": Client(
        "LiveKit openai.STT",
        (PYTHON, "stt_livekit.py"),
        "http",
        frozenset({"commit"}),
        scenarios=TRANSCRIPTION,
    ),
}
CASES = [(name, scenario) for name, client in CLIENTS.items() for scenario in client.scenarios]


@dataclass(slots=True)
class Run:
    """What a client's script printed."""

    versions: Mapping[str, str] = field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: str = ""


Runs = Mapping[str, Future[Run]]


@pytest.fixture(scope="module")
def runs(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All scripts, a few at a time; a whole run of them writes the table of results."""
    folder = tmp_path_factory.mktemp("questions")
    questions = [pcm(folder, name) for name in ("hours", "weather")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {name: pool.submit(drive, client, site, questions) for name, client in CLIENTS.items()}
        yield started
        done = {name: run.result() for name, run in started.items()}
    (HERE / "RESULTS.md").write_text(table(done))


def pcm(folder: Path, name: str) -> str:
    """A spoken question as a file of 24 kHz samples, which a client needs no library for."""
    samples, rate = soundfile.read(QUESTIONS / f"{name}.flac", dtype="float32")
    voice = np.clip(soxr.resample(samples, rate, 24_000) * 32767, -32768, 32767).astype("<i2")
    path = folder / f"{name}.pcm"
    path.write_bytes(voice.tobytes())
    return str(path)


def drive(client: Client, site: Site, questions: list[str]) -> Run:
    """Runs a client's script to its end."""
    assert ENVIRONMENT.is_dir(), "scripts/clients installs the clients"
    path = f"{ENVIRONMENT}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        [*client.command, getattr(site, client.address), *questions],
        cwd=HERE / "clients",
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(site.cert), "PYTHONPATH": "", "PATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    run = Run(errors=finished.stderr[-3000:])
    for line in map(json.loads, finished.stdout.splitlines()):
        if "versions" in line:
            run.versions = line["versions"]
        else:
            run.lines[line["scenario"]] = line
    return run


HEAD = """\
# Stock clients against this server

Written by `tests/conformance/test_clients.py`. Each client is what PyPI or npm publish, unmodified, and
talks to the pocket checkpoint.
"""
REALTIME_HEAD = """\
## Realtime protocol

The scenarios: connect, configure the session, a spoken question answered in audio, a typed question, a tool call
with its result, an interruption with truncation, a cancelled response, a response outside of the conversation,
and a second connection.
"""
TRANSCRIPTION_HEAD = """\
## Realtime protocol, transcription

The scenarios: connect and configure, an utterance that the server finds, an utterance that the client ends; each
written down word by word.
"""
LIVE_HEAD = """\
## Live protocol

The scenarios: start a session, a spoken question answered in audio with transcripts of both sides, a function called
by the model ("responses" delegation) and its result told, a task handed to the application ("client" delegation),
instructions, thinking and commentary appended, mute at the server, the reason of the close, and another session that
begins with what was said in the first.

The `openai` package for JavaScript and `@openai/agents-realtime` have no WebSocket for this protocol (the former
has its types, and WebRTC).
"""


def table(done: Mapping[str, Run]) -> str:
    """RESULTS.md: nothing in it changes from run to run unless a result or a version does."""
    rows = [HEAD]
    tables = ((REALTIME_HEAD, SCENARIOS), (TRANSCRIPTION_HEAD, TRANSCRIPTION), (LIVE_HEAD, LIVE))
    for head, scenarios in tables:
        rows.append(head)
        rows.append("| client | version | " + " | ".join(name.replace("_", " ") for name in scenarios) + " |")
        rows.append("|---|---|" + "---|" * len(scenarios))
        of_this = {name: run for name, run in done.items() if CLIENTS[name].scenarios is scenarios}
        for name, run in of_this.items():
            versions = ", ".join(f"{package} {number}" for package, number in run.versions.items())
            cells = " | ".join(cell(run.lines.get(scenario)) for scenario in scenarios)
            rows.append(f"| {CLIENTS[name].title} | {versions} | {cells} |")
        absent = [
            f"\\* {CLIENTS[name].title}, {scenario.replace('_', ' ')}: not in this client, {line['detail']}."
            for name, run in of_this.items()
            for scenario, line in run.lines.items()
            if line.get("absent")
        ]
        rows += ["", *absent, ""]
    return "\n".join(rows).rstrip() + "\n"


def cell(line: Mapping[str, Any] | None) -> str:
    if line is None or not line["ok"]:
        return "**no**"
    return "\\*" if line.get("absent") else "yes"


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_scenario(runs: Runs, name: str, scenario: str) -> None:
    run = runs[name].result()
    line = run.lines.get(scenario)
    assert line is not None, run.errors
    assert line["ok"], line["detail"] + run.errors
    assert bool(line.get("absent")) == (scenario in CLIENTS[name].absent), line
