"""Measures how fast a spoken question is answered: time to the first audio, and work per second of speech.

    python3 scripts/bench/turn.py [--url ws://127.0.0.1:8080] [--json OUT] [--plot OUT.png]

Starts a server of its own unless --url names one. Every question goes over a new connection in real time, as a
microphone sends it, with silence behind it; the server's VAD ends the turn, and nothing paces the answer
(output_lead_ms null). The questions are tests/data/questions, in voices that training never heard.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voiceagent.audio import wavio  # noqa: E402
from voiceagent.audio.resample import resample  # noqa: E402
from voiceagent.client.conn import FRAME_S, RealtimeClient  # noqa: E402
from voiceagent.units import VOICE_RATE  # noqa: E402

QUESTIONS = ROOT / "tests" / "data" / "questions"
SILENCE_S = 20.0  # sent behind a question, until it is answered
ANSWER_S = 60.0
START_S = 120.0
LOUD = 0.01  # relative to full scale: where a question's last word ends
LIMITS = {"first_audio_s": 0.9, "rtf": 0.7}  # medians


@dataclass(frozen=True, slots=True)
class Turn:
    """One answered question; times in seconds.

    Attributes:
        first_audio_s: from speech_stopped to the first audio delta.
        response_s: from the true end of speech, as it was sent, to the first audio delta.
        rtf: from the first delta to the last, per second of audio.
        whole_rtf: from speech_stopped to the last delta, per second of audio.
    """

    file: str
    said: str
    right: bool
    audio_s: float
    first_audio_s: float
    response_s: float
    rtf: float
    whole_rtf: float


MEASURES = {
    "first_audio_s": "first audio after the end is detected, s",
    "response_s": "first audio after the true end of speech, s",
    "rtf": "RTF while speaking",
    "whole_rtf": "RTF from the detected end to the last audio",
    "audio_s": "length of the answer, s",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--api-key", default="", help="key for --url")
    parser.add_argument("--model", default="pocket", help="of the server that is started")
    parser.add_argument("--count", type=int, default=22, help="questions to ask; the files are asked in turn")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--plot", type=Path, help="draw the distributions there (needs matplotlib)")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = args.url or stack.enter_context(server(args.model))
        turns = [asyncio.run(ask(url, args.api_key, q)) for q in track(questions(args.count), "asking")]
    found = summary(turns)
    show(turns, found)
    if args.json:
        listed = [asdict(turn) for turn in turns]
        args.json.write_text(
            json.dumps({"machine": machine(), "summary": found, "turns": listed}, indent=1) + "\n"
        )
    if args.plot:
        plot(turns, args.plot)
    return 0 if all(found[name]["median"] <= limit for name, limit in LIMITS.items()) else 1


def questions(count: int) -> list[dict[str, Any]]:
    """`count` questions that need no tool."""
    listed = json.loads((QUESTIONS / "questions.json").read_text(encoding="utf-8"))["questions"]
    plain = [question for question in listed if not question["tool"]]
    return [plain[i % len(plain)] for i in range(count)]


@contextlib.contextmanager
def server(model: str) -> Iterator[str]:
    """A server of our own, ready; gives its address and ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "voiceagent", "serve", "--port", str(port), "--model", model]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
            yield f"ws://127.0.0.1:{port}"
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.terminate()
            process.wait(20)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server answers 200; raises RuntimeError if it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(url, timeout=5),
        ):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready: exit status {process.poll()}")


async def ask(url: str, api_key: str, question: dict[str, Any]) -> Turn:
    """Asks one question on a connection of its own."""
    samples, rate = wavio.read(QUESTIONS / question["file"])
    samples = resample(samples, source=rate, target=VOICE_RATE)
    heard_end = int(np.flatnonzero(np.abs(samples) > LOUD)[-1]) / VOICE_RATE
    sent = np.concatenate([samples, np.zeros(int(SILENCE_S * VOICE_RATE), np.float32)])
    async with RealtimeClient(url, api_key=api_key) as client:
        await client.update(output_lead_ms=None, audio={"input": {"turn_detection": {"type": "server_vad"}}})
        began = asyncio.get_running_loop().time()
        microphone = asyncio.create_task(client.append(sent, VOICE_RATE, realtime=True))
        try:
            async with asyncio.timeout(ANSWER_S):
                times = await listen(client)
        finally:
            microphone.cancel()
            await asyncio.gather(microphone, return_exceptions=True)
    # The frame that holds the end of the last word is sent at its own beginning.
    true_end = began + heard_end // FRAME_S * FRAME_S
    speaking = times.last - times.first
    return Turn(
        file=question["file"],
        said=times.said,
        right=times.said == question["reply"],
        audio_s=round(times.audio_s, 3),
        first_audio_s=round(times.first - times.stopped, 3),
        response_s=round(times.first - true_end, 3),
        rtf=round(speaking / times.audio_s, 3),
        whole_rtf=round((times.last - times.stopped) / times.audio_s, 3),
    )


@dataclass(slots=True)
class Times:
    """When the events of a turn came, on the loop's clock."""

    stopped: float = 0.0
    first: float = 0.0
    last: float = 0.0
    audio_s: float = 0.0
    said: str = ""


async def listen(client: RealtimeClient) -> Times:
    """The events of one turn; raises RuntimeError if it fails or is silent."""
    times, clock = Times(), asyncio.get_running_loop().time
    async for event in client.events():
        match event["type"]:
            case "input_audio_buffer.speech_stopped":
                times.stopped = clock()
            case "response.output_audio.delta":
                times.last = clock()
                times.first = times.first or times.last
                times.audio_s += len(base64.b64decode(event["delta"])) / 2 / VOICE_RATE
            case "response.output_audio_transcript.done":
                times.said = event["transcript"]
            case "error":
                raise RuntimeError(f"the server reports: {event['error']['message']}")
            case "response.done" if event["response"]["status"] == "failed":
                raise RuntimeError(f"the response failed: {event['response']['status_details']}")
            case "response.done" if event["response"]["status"] != "cancelled":  # a pause, not the end
                if not times.audio_s:
                    raise RuntimeError("the answer has no audio")
                return times
            case _:
                pass
    raise RuntimeError("the connection ended before the answer")


def summary(turns: list[Turn]) -> dict[str, Any]:
    """Median and 90th percentile of every measure, and how many answers were right."""
    out: dict[str, Any] = {}
    for name in MEASURES:
        values: npt.NDArray[np.float64] = np.array([getattr(turn, name) for turn in turns])
        out[name] = {
            "median": round(statistics.median(values), 3),
            "p90": round(float(np.percentile(values, 90)), 3),
            "limit": LIMITS.get(name),
        }
    return out | {"questions": len(turns), "right": sum(turn.right for turn in turns)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "platform": platform.platform()}


def show(turns: list[Turn], found: dict[str, Any]) -> None:
    """Prints every turn and the summary."""
    out = Console(width=None if sys.stdout.isatty() else 140)
    each = Table("question", "answer", "first audio", "after true end", "RTF", "whole RTF", "answer s")
    for t in turns:
        mark = t.said if t.right else f"[red]{t.said}[/]"
        numbers = (t.first_audio_s, t.response_s, t.rtf, t.whole_rtf, t.audio_s)
        each.add_row(t.file, mark, *(f"{value:.2f}" for value in numbers))
    out.print(each)
    table = Table("", "median", "p90", "limit of the median", title=f"{found['questions']} questions")
    for name, title in MEASURES.items():
        limit = LIMITS.get(name)
        table.add_row(title, str(found[name]["median"]), str(found[name]["p90"]), str(limit or ""))
    out.print(table)
    out.print(f"{found['right']} of {found['questions']} answers right; {machine()}")


def plot(turns: list[Turn], path: Path) -> None:
    """One histogram per measure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 3))
    for axis, (name, title) in zip(axes, MEASURES.items(), strict=True):
        axis.hist([getattr(turn, name) for turn in turns], bins=12)
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
