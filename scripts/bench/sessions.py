"""Measures many sessions that are answered at once by one engine: what each of their listeners gets.

    python3 scripts/bench/sessions.py [--sessions 4] [--turns 3] [--model DIR] [--device cuda:0] [--json OUT]

Starts an engine process of its own (no server, no sockets) and speaks to it as the server does: every session hears
a question, and all of them ask for their answer at the same moment (or spread over --spread seconds). Nothing paces
the answers. A listener starts to play with the first sound that comes; whenever the next sound is not there when the
one before has been played, that is an underrun.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voiceagent.core import events  # noqa: E402
from voiceagent.core.actions import EncodePiece, StartTurn  # noqa: E402
from voiceagent.core.history import (  # noqa: E402
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    TextContent,
    UserItem,
)
from voiceagent.core.options import TurnOptions  # noqa: E402
from voiceagent.engine.client import LocalEngine  # noqa: E402
from voiceagent.engine.pipe import WorkerSpec  # noqa: E402
from voiceagent.units import MODEL_RATE, VOICE_RATE  # noqa: E402

QUESTIONS = ROOT / "tests" / "data" / "questions"
POCKET = ROOT / "voiceagent" / "assets" / "pocket"
TOKENS_PER_S = 31.25  # 25 of speech and a quarter as many of text
TURN_S = 300.0  # longest time for one round of answers


@dataclass(slots=True)
class Answer:
    """One answer as its listener got it; times in seconds on the clock of the event loop.

    Attributes:
        asked: when the engine was asked.
        first, last: when the first and the last sound came.
        playing_until: when the listener has played all that came so far.
        chunks: messages with sound.
        underruns: how often the next sound was late, and by how much in all.
        late_s: the sum of these delays.
        error: code of the failure, empty if there was none.
    """

    session: int
    turn: int
    asked: float
    first: float = 0.0
    last: float = 0.0
    playing_until: float = 0.0
    audio_s: float = 0.0
    chunks: int = 0
    underruns: int = 0
    late_s: float = 0.0
    error: str = ""

    def sound(self, samples: int, now: float) -> None:
        """Some sound has come."""
        if not self.chunks:
            self.first = self.playing_until = now
        elif now > self.playing_until:
            self.underruns += 1
            self.late_s += now - self.playing_until
            self.playing_until = now
        self.chunks += 1
        self.last = now
        self.audio_s += samples / VOICE_RATE
        self.playing_until += samples / VOICE_RATE

    def figures(self) -> dict[str, float]:
        """What is reported of it."""
        audio = max(self.audio_s, 1e-9)
        return {
            "first_audio_s": round(self.first - self.asked, 4),
            "rtf": round((self.last - self.first) / audio, 4),
            "whole_rtf": round((self.last - self.asked) / audio, 4),
            "audio_s": round(self.audio_s, 3),
            "underruns": self.underruns,
            "late_s": round(self.late_s, 4),
        }


@dataclass(slots=True)
class Speaker:
    """One session with its conversation so far."""

    number: int
    question: Piece
    engine: Any = None
    items: list[Item] = field(default_factory=list)
    answer: Answer | None = None
    text: str = ""
    audio_ids: list[int] = field(default_factory=list)
    text_ids: list[int] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, event: object) -> None:
        """What the engine says of the running answer."""
        answer, now = self.answer, asyncio.get_running_loop().time()
        if answer is None:
            return
        match event:
            case events.AudioOut():
                self.audio_ids += event.ids
                answer.sound(len(event.pcm), now)
            case events.TextOut():
                self.text += event.text
                self.text_ids += event.ids
            case events.TurnEnded():
                self.items.append(
                    AssistantItem(
                        f"a{answer.turn}", self.text, text_ids=tuple(self.text_ids), raw_ids=event.raw_ids,
                        audio_ids=tuple(self.audio_ids), spoken=True, samples=len(self.audio_ids) * 960,
                    )
                )  # fmt: skip
                self.over.set()
            case events.TurnFailed():
                answer.error = event.code
                self.over.set()
            case events.EngineDown():
                answer.error = "engine_down"
                self.over.set()
            case _:
                pass

    async def ask(self, turn: int, options: TurnOptions, *, after_s: float) -> Answer:
        """Speak, then ask for the answer and wait until it is over."""
        piece = Piece(turn, self.question.audio)
        self.items.append(UserItem(f"u{turn}", (AudioContent((piece,)),)))
        self.text, self.audio_ids, self.text_ids = "", [], []
        self.over.clear()
        await asyncio.sleep(after_s)
        self.answer = Answer(self.number, turn, asyncio.get_running_loop().time())
        self.engine.send(EncodePiece(piece))
        self.engine.send(StartTurn(turn, tuple(self.items), options))
        await asyncio.wait_for(self.over.wait(), TURN_S)
        return self.answer


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=4, help="simultaneous speakers")
    parser.add_argument("--turns", type=int, default=3, help="questions that each asks in its conversation")
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which the questions come")
    parser.add_argument("--history", type=int, default=0, help="words of typed conversation before it")
    parser.add_argument("--seconds", type=float, default=0.0, help="longest answer; 0 = the model's own end")
    parser.add_argument("--noise", type=float, default=0.0, help="ask with so many seconds of noise instead")
    parser.add_argument("--model", default=str(POCKET), help="checkpoint folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--engine", default="{}", help="more of the engine's settings, as JSON")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    ready, answers = asyncio.run(measure(args))
    found = summary(answers)
    report = {"machine": machine(), "engine": ready, "sessions": args.sessions, "summary": found}
    show(answers, report)
    if args.json:
        listed = [{k: v for k, v in asdict(a).items() if k in ("session", "turn", "error")} | a.figures()
                  for a in answers]  # fmt: skip
        args.json.write_text(json.dumps(report | {"answers": listed}, indent=1) + "\n")
    return 1 if found["failed"] else 0


async def measure(args: argparse.Namespace) -> tuple[dict[str, Any], list[Answer]]:
    """All answers of all sessions, round by round; the first round is a warm-up and does not count."""
    spec = WorkerSpec(
        model=args.model, device=args.device, dtype=args.dtype, threads=args.threads,
        max_sessions=args.sessions, **json.loads(args.engine),
    )  # fmt: skip
    engine = LocalEngine(spec)
    began = time.monotonic()
    ready = await engine.start()
    described = {
        "model": ready.model, "device": ready.device, "dtype": ready.dtype,
        "max_sessions": ready.max_sessions, "start_s": round(time.monotonic() - began, 2),
    }  # fmt: skip
    limit = int(args.seconds * TOKENS_PER_S) or None
    options = TurnOptions(max_tokens=limit)
    questions = [noise(args.noise)] if args.noise else recorded()
    history = typed(args.history)
    answers: list[Answer] = []
    worked = 0.0
    try:
        speakers = [
            Speaker(n, questions[n % len(questions)], items=list(history)) for n in range(args.sessions)
        ]
        for speaker in speakers:
            speaker.engine = await engine.open_session(speaker.on_event)
        for turn in range(args.turns + 1):
            worked = cpu_seconds(engine.pid) if turn == 1 else worked
            waits = np.linspace(0, args.spread, len(speakers), endpoint=False)
            got = await asyncio.gather(
                *(s.ask(turn, options, after_s=float(w)) for s, w in zip(speakers, waits, strict=True))
            )
            answers += got if turn else []
        said = sum(answer.audio_s for answer in answers)
        described["cpu_s_per_audio_s"] = round((cpu_seconds(engine.pid) - worked) / max(said, 1e-9), 3)
    finally:
        await engine.stop()
    return described, answers


def cpu_seconds(pid: int | None) -> float:
    """Processor time that the engine has used so far; 0 where the kernel does not tell (not Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def recorded() -> list[Piece]:
    """The recorded questions that need no tool."""
    from voiceagent.audio import wavio  # here: it needs libsndfile, and noise does not
    from voiceagent.audio.resample import resample

    listed = json.loads((QUESTIONS / "questions.json").read_text(encoding="utf-8"))["questions"]
    pieces = []
    for question in listed:
        if not question["tool"]:
            samples, rate = wavio.read(QUESTIONS / question["file"])
            pieces.append(Piece(0, resample(samples, source=rate, target=MODEL_RATE)))
    return pieces


def noise(seconds: float) -> Piece:
    """Noise of this length: as much work as speech."""
    samples = np.random.default_rng(0).normal(0, 0.05, int(seconds * MODEL_RATE))
    return Piece(0, samples.astype(np.float32))


def typed(words: int) -> list[Item]:
    """A typed conversation of about so many words."""
    if not words:
        return []
    half = " ".join(["one"] * (words // 2))
    return [UserItem("h0", (TextContent(half),)), AssistantItem("h1", half)]


def summary(answers: list[Answer]) -> dict[str, Any]:
    """Distribution of each figure, over all answers that were not failures."""
    good = [answer.figures() for answer in answers if not answer.error and answer.chunks]
    out: dict[str, Any] = {"answers": len(answers), "failed": len(answers) - len(good)}
    if not good:
        return out
    for name in ("first_audio_s", "rtf", "whole_rtf", "audio_s"):
        values: npt.NDArray[np.float64] = np.array([figures[name] for figures in good])
        p50, p90, p99 = (round(float(np.percentile(values, q)), 4) for q in (50, 90, 99))
        out[name] = {"median": p50, "p90": p90, "p99": p99, "max": round(float(values.max()), 4)}
    chunks = sum(answer.chunks for answer in answers)
    late = sum(answer.underruns for answer in answers)
    out["underruns"] = late
    out["on_time"] = round(1 - late / max(chunks, 1), 5)
    out["late_s"] = round(sum(answer.late_s for answer in answers), 3)
    return out


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "platform": platform.platform()}


def show(answers: list[Answer], report: dict[str, Any]) -> None:
    """Prints one line per session and the summary."""
    print(f"{report['engine']}  {report['machine']}")
    print("session  first audio (median, worst)  RTF (median, worst)  whole RTF  underruns")
    for number in sorted({answer.session for answer in answers}):
        own = [a for a in answers if a.session == number]
        got = [a.figures() for a in own if not a.error and a.chunks]
        if not got:
            print(f"{number:7d}  failed: {', '.join(sorted({a.error for a in own}))}")
            continue
        first, rtf = [f["first_audio_s"] for f in got], [f["rtf"] for f in got]
        whole = statistics.median(f["whole_rtf"] for f in got)
        print(
            f"{number:7d}  {statistics.median(first):11.3f} {max(first):7.3f}  "
            f"{statistics.median(rtf):18.3f} {max(rtf):6.3f}  {whole:16.3f} {sum(a.underruns for a in own):9d}"
        )
    for name, value in report["summary"].items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    sys.exit(main())
