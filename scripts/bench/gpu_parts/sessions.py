"""Part 4, many callers at once: what each listener gets while all of them are spoken to."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.engine_process import Process, Step, within
from scripts.bench.gpu_parts.measure import Figure
from scripts.bench.gpu_parts.report import Row
from scripts.bench.gpu_parts.talkers import Answer, Script, Talker, spoken_history, stagger
from scripts.bench.gpu_parts.turns import checked, percentile
from scripts.bench.gpu_parts.weights import TEXT_BYTES

HISTORY = 2000
RAMP_S = 8.0  #: over which callers begin; answers asked for within it do not count
P99_GOALS = {32: 250.0, 64: 350.0}
ON_TIME_GOAL = {96: 99.9}


@dataclass(frozen=True, slots=True)
class Run:
    """One number of callers: from when to when it counts, and what was answered."""

    number: int
    began: float
    ended: float
    answers: list[Answer]


async def speak(bench: Bench, process: Process, *, number: int, seconds: float) -> Run:
    """So many callers for so long, after a ramp."""
    tiny = bench.tiny
    script = Script(
        history=spoken_history(100 if tiny else HISTORY, audio_0=bench.shape.audio_0, text=TEXT_BYTES[0]),
        question_s=1.0 if tiny else 5.0,
        tokens=(50, 80) if tiny else (190, 310),
    )
    ramp = 0.5 if tiny else RAMP_S
    talkers = [Talker(i, script, seed=number) for i in range(number)]
    for talker in talkers:
        await talker.open(process.engine)
    began = time.monotonic() + ramp
    ended = began + seconds
    await asyncio.gather(
        *(
            talker.run(until=ended, wait_s=wait)
            for talker, wait in zip(talkers, stagger(number, ramp), strict=True)
        )
    )
    for talker in talkers:
        talker.close()
    answers = [checked(bench, answer) for talker in talkers for answer in talker.answers]
    return Run(number, began, ended, sorted(answers, key=lambda answer: answer.asked))


def rows(bench: Bench, runs: list[Run], steps: list[Step]) -> None:
    """All rows of the part."""
    head = f"callers at once, history {HISTORY}, replies of 6 to 10 s played in real time"
    bench.report.head("sessions", head)
    for run in runs:
        _rows(bench, run, steps)


def _rows(bench: Bench, run: Run, steps: list[Step]) -> None:
    """What the listeners had, and what the engine did meanwhile."""
    counted = [answer for answer in run.answers if answer.asked >= run.began] or run.answers
    label = f"{run.number} sessions"
    times = [answer.first_audio_s for answer in counted]
    for name, share in (("p50", 50.0), ("p99", 99.0)):
        goal = P99_GOALS.get(run.number) if name == "p99" else None
        note = f"{len(times)} turns"
        bench.report.add(
            Row(
                "sessions",
                f"{label}: first sound {name}",
                percentile(times, share),
                "ms",
                goal=goal,
                note=note,
            )
        )
    chunks = sum(answer.playback.chunks - 1 for answer in counted)  # the first one has no deadline
    late = sum(answer.playback.late for answer in counted)
    late_100 = sum(answer.playback.late_100 for answer in counted)
    silent = sum(answer.playback.silent_s for answer in counted)
    for name, missed, goal in (
        ("", late, ON_TIME_GOAL.get(run.number)),
        (" (100 ms allowed)", late_100, None),
    ):
        share = 100 * (1 - missed / max(1, chunks))
        bench.report.add(
            Row("sessions", f"{label}: chunks before their deadline{name}", Figure.single(share), "%",
                goal=goal, better="higher", note=f"{missed} of {chunks} late")
        )  # fmt: skip
    bench.report.add(Row("sessions", f"{label}: silence in all", Figure.single(silent), "s"))
    _engine(bench, run, steps)


def _engine(bench: Bench, run: Run, steps: list[Step]) -> None:
    """Steps of the engine in two halves of the time that counts."""
    middle = (run.began + run.ended) / 2
    halves = [(run.began, middle), (middle, run.ended)]
    for name, label in (("decode", "language model's step"), ("vocode", "Token2Wav's slice")):
        found = within(steps, run.began, run.ended, name)
        if len(found) < 2:
            continue
        parts = [found[: len(found) // 2], found[len(found) // 2 :]]
        lengths = Figure.of([[1000 * step.length for step in part] for part in parts])
        batch = statistics.fmean(step.served for step in found)
        row = Row(
            "sessions", f"{run.number} sessions: {label}", lengths, "ms", note=f"mean batch {batch:.1f}"
        )
        bench.report.add(row)
    spent = [sum(step.length for step in within(steps, *half)) for half in halves]
    busy = [100 * seconds / (middle - run.began) for seconds in spent]
    figure = Figure(statistics.fmean(busy), abs(busy[0] - busy[1]), min(busy), max(busy))
    bench.report.add(
        Row("sessions", f"{run.number} sessions: runner at work", figure, "%", note="both threads")
    )
