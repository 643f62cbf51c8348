"""Part 4, many callers at once: what each listener gets while all of them are spoken to."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace

from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.engine_process import Process, Step, within
from scripts.bench.gpu_parts.measure import Figure
from scripts.bench.gpu_parts.report import Row, number
from scripts.bench.gpu_parts.talkers import Answer, Script, Talker, spoken_history, stagger
from scripts.bench.gpu_parts.turns import fault, percentile
from scripts.bench.gpu_parts.weights import TEXT_BYTES

HISTORY = 2000
RAMP_S = 8.0  #: over which callers begin; answers asked for within it do not count
P99_GOALS = {32: 250.0, 64: 350.0}
ON_TIME_GOAL = {96: 99.9}
SPEECH_GOAL = 100.0  #: seconds of speech per second


@dataclass(frozen=True, slots=True)
class Run:
    """One number of callers: from when to when it counts, and what was answered to questions of that time.

    Attributes:
        failed: how answers ended from which no figure is taken, by reason.
    """

    number: int
    began: float
    ended: float
    answers: list[Answer]
    failed: dict[str, int]


class Crowd:
    """Callers who stay on the line while their number grows, so that each reads the history once."""

    def __init__(self, bench: Bench, process: Process) -> None:
        self._bench, self._process = bench, process
        self._talkers: list[Talker] = []
        tiny = bench.tiny
        self._script = Script(
            history=spoken_history(100 if tiny else HISTORY, audio_0=bench.shape.audio_0, text=TEXT_BYTES[0]),
            question_s=1.0 if tiny else 5.0,
            tokens=(50, 80) if tiny else (190, 310),
        )

    async def speak(self, number: int, *, seconds: float) -> Run:
        """So many callers for so long, after a ramp, each listening to its answers in real time."""
        return await self._run(
            number, self._script, seconds=seconds, ramp=0.5 if self._bench.tiny else RAMP_S
        )

    async def flood(self, number: int, *, seconds: float) -> Run:
        """So many callers who do not wait for the sound: as much speech as the engine can make."""
        script = replace(self._script, play=False, pause_s=0.0, listens=False)
        return await self._run(number, script, seconds=seconds, ramp=1.0, all_count=True)

    def close(self) -> None:
        """All of them hang up."""
        for talker in self._talkers:
            talker.close()

    async def _run(
        self, number: int, script: Script, *, seconds: float, ramp: float, all_count: bool = False
    ) -> Run:
        while len(self._talkers) < number:
            talker = Talker(len(self._talkers), script)
            await talker.open(self._process.engine)
            self._talkers.append(talker)
        callers = self._talkers[:number]
        for talker in callers:
            talker.script, talker.answers = script, []
        began = time.monotonic() + ramp
        ended = began + seconds
        waits = stagger(number, ramp)
        runs = (talker.run(until=ended, wait_s=wait) for talker, wait in zip(callers, waits, strict=True))
        await asyncio.gather(*runs)
        answers = [answer for talker in callers for answer in talker.answers]
        counted = [answer for answer in answers if answer.asked >= began or all_count] or answers
        good = [answer for answer in counted if fault(self._bench, answer) is None]
        failed = Counter(fault(self._bench, answer) or "" for answer in counted)
        del failed[""]
        return Run(number, began, ended, sorted(good, key=lambda answer: answer.asked), dict(failed))


def rows(bench: Bench, runs: list[Run], steps: list[Step]) -> None:
    """All rows of the part."""
    head = f"callers at once, history {HISTORY}, replies of 6 to 10 s played in real time"
    bench.report.head("sessions", head)
    for run in runs:
        if not run.answers:
            raise ValueError(f"no turn of {run.number} sessions can be counted: {run.failed}")
        _rows(bench, run, steps)


def flood_rows(bench: Bench, run: Run) -> None:
    """Seconds of speech that came per second, in the time that counts."""
    middle = (run.began + run.ended) / 2
    made = [0.0, 0.0]
    for at, seconds in (chunk for answer in run.answers for chunk in answer.playback.log):
        if run.began <= at <= run.ended:
            made[at > middle] += seconds
    rates = [seconds / (middle - run.began) for seconds in made]
    figure = Figure(statistics.fmean(rates), abs(rates[0] - rates[1]), min(rates), max(rates))
    name = f"{run.number} callers who do not wait: seconds of speech per second"
    bench.report.add(Row("sessions", name, figure, "s/s", goal=SPEECH_GOAL, better="higher"))


def _rows(bench: Bench, run: Run, steps: list[Step]) -> None:
    """What the listeners had, and what the engine did meanwhile."""
    label, counted = f"{run.number} sessions", run.answers
    times = [answer.first_audio_s for answer in counted]
    if run.failed:
        bench.report.details[f"{label}: failed turns"] = run.failed
        count = Figure.single(sum(run.failed.values()))
        bench.report.add(Row("sessions", f"{label}: turns that failed", count, "turns", goal=0.0))
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
            "sessions",
            f"{run.number} sessions: {label}",
            lengths,
            "ms",
            note=f"mean batch {batch:.1f}, slowest {number(lengths.high)} ms",
        )
        bench.report.add(row)
    spent = [sum(step.length for step in within(steps, *half)) for half in halves]
    busy = [100 * seconds / (middle - run.began) for seconds in spent]
    figure = Figure(statistics.fmean(busy), abs(busy[0] - busy[1]), min(busy), max(busy))
    bench.report.add(
        Row("sessions", f"{run.number} sessions: runner at work", figure, "%", note="both threads")
    )
