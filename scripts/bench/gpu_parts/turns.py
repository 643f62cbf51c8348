"""Part 3, one caller: from the commit of a question to the first sound, stage by stage; whole replies at once.

Everything goes through the real engine process and its pipe; times are the client's.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.engine_process import Process, Step, within
from scripts.bench.gpu_parts.measure import Figure
from scripts.bench.gpu_parts.report import Row
from scripts.bench.gpu_parts.talkers import Answer, Script, Talker, spoken_history
from scripts.bench.gpu_parts.weights import TEXT_BYTES, off_schedule

GOALS = {"p50": 100.0, "p99": 150.0, "flat": 1.15}  #: milliseconds at 2k; ratio of 8k to 0
PUBLISHED = {85: 5.45, 160: 6.67, 315: 9.42, 1024: 16.65}  #: seconds, vLLM-Omni on one H100
OFFLINE_GOALS = {85: 0.4, 160: 0.7, 315: 1.4, 1024: 4.4}
CANCEL_GOAL = 20.0
STRAY_IDS = 0.02  #: share of a reply's ids that may be of the wrong kind: they are sampled
STAGES = ("encode", "begin", "read", "decode", "vocode")


@dataclass(frozen=True, slots=True)
class Case:
    """One length of the conversation, and what was answered in it."""

    history: int
    answers: list[Answer]


@dataclass(frozen=True, slots=True)
class Turns:
    """All that one caller asked: answers by length of history, and whole replies by their tokens."""

    cases: list[Case]
    offline: dict[int, list[Answer]]


async def ask(bench: Bench, process: Process, *, asks: int) -> Turns:
    """Asks so many questions in each length of conversation, and for whole replies."""
    cases = [
        Case(history, await _first_sounds(bench, process, history=history, count=asks))
        for history in ((0, 200) if bench.tiny else (0, 2000, 8000))
    ]
    offline = {
        tokens: await _whole(bench, process, tokens=tokens, count=max(2, asks // 15))
        for tokens in ((20, 40) if bench.tiny else PUBLISHED)
    }
    return Turns(cases, offline)


def rows(bench: Bench, turns: Turns, steps: list[Step]) -> None:
    """All rows of the part."""
    bench.report.head("turn", "one caller, 5 s question, through the engine process")
    for case in turns.cases:
        _rows(bench, case, steps)
    _flat(bench, turns.cases)
    _cancel(bench, turns.cases)
    for tokens, answers in turns.offline.items():
        _offline(bench, tokens, answers)


async def _first_sounds(bench: Bench, process: Process, *, history: int, count: int) -> list[Answer]:
    """Answers that were stopped at their first sound; the first three, which read the history, do not count."""
    items = spoken_history(history, audio_0=bench.shape.audio_0, text=TEXT_BYTES[0])
    script = Script(
        history=items, question_s=1.0 if bench.tiny else 5.0, tokens=(200, 200), pause_s=0.0, listens=False,
        cancel_after_first=True, play=False,
    )  # fmt: skip
    talker = Talker(history, script)
    await talker.open(process.engine)
    for _ in range(count + 3):
        await talker.ask()
    talker.close()
    return checked(bench, talker.answers[3:])


async def _whole(bench: Bench, process: Process, *, tokens: int, count: int) -> list[Answer]:
    """Whole replies of so many tokens; the first one does not count."""
    text = "a" * 400 if tokens == 1024 else ""
    talker = Talker(
        tokens, Script(tokens=(tokens, tokens), text=text, pause_s=0.0, listens=False, play=False)
    )
    await talker.open(process.engine)
    for _ in range(count + 1):
        await talker.ask()
    talker.close()
    return checked(bench, talker.answers[1:])


def checked(bench: Bench, answers: list[Answer]) -> list[Answer]:
    """Those from which figures may be taken; raises ValueError if that are not nearly all."""
    faults = [fault(bench, answer) for answer in answers]
    good = [answer for answer, found in zip(answers, faults, strict=True) if found is None]
    if len(good) < 0.9 * len(answers):
        raise ValueError(f"answers cannot be counted: {sorted({found for found in faults if found})}")
    return good


def fault(bench: Bench, answer: Answer) -> str | None:
    """Why no figure may be taken from an answer."""
    if answer.first is None or answer.done is None or answer.reason not in ("max_tokens", "cancelled"):
        return answer.reason or "no sound"
    if not answer.in_order:
        return "chunks out of order"
    stray = off_schedule(answer.ids, bench.shape)
    return "ids off the schedule" if stray > STRAY_IDS * len(answer.ids) else None


def percentile(values: list[float], share: float) -> Figure:
    """A percentile in milliseconds, and how far those of the two halves lie apart."""
    middle = len(values) // 2
    parts = [values, values[:middle], values[middle:]]
    whole, first, second = (1000 * float(np.percentile(part or values, share)) for part in parts)
    return Figure(whole, abs(first - second), 1000 * min(values), 1000 * max(values))


def _rows(bench: Bench, case: Case, steps: list[Step]) -> None:
    times = [answer.first_audio_s for answer in case.answers]
    at_goal = case.history == 2000
    for name, share in (("p50", 50.0), ("p99", 99.0)):
        goal = GOALS[name] if at_goal else None
        label = f"commit to first sound, history {case.history}: {name}"
        bench.report.add(Row("turn", label, percentile(times, share), "ms", goal=goal))
    splits = [split(answer, steps) for answer in case.answers]
    for stage in (*STAGES, "pipe and waiting"):
        spent = [found.get(stage, 0.0) for found in splits]
        if any(spent):
            name = f"  of it {stage}, history {case.history}"
            bench.report.add(Row("turn", name, percentile(spent, 50), "ms"))


def split(answer: Answer, steps: list[Step]) -> dict[str, float]:
    """Seconds of each stage up to the first sound; what the language model does while sound is made is not counted."""
    assert answer.first is not None
    mine = within(steps, answer.asked, answer.first)
    speaks = min((step.began for step in mine if step.name == "vocode"), default=answer.first)
    found: dict[str, float] = {}
    for step in mine:
        length = step.length if step.name == "vocode" else max(0.0, min(step.ended, speaks) - step.began)
        found[step.name] = found.get(step.name, 0.0) + length
    found["pipe and waiting"] = max(0.0, answer.first_audio_s - sum(found.values()))
    return found


def _flat(bench: Bench, cases: list[Case]) -> None:
    first, last = (
        statistics.median(answer.first_audio_s for answer in case.answers) for case in (cases[0], cases[-1])
    )
    ratio = last / first
    name = f"first sound after {cases[-1].history} against after {cases[0].history}"
    bench.report.add(Row("turn", name, Figure.single(ratio), "ratio", goal=GOALS["flat"]))


def _cancel(bench: Bench, cases: list[Case]) -> None:
    """From the client's cancel to the engine's word that the turn is over: nothing is sent after it."""
    answers = [answer for case in cases for answer in case.answers]
    times = [
        answer.done - answer.cancelled
        for answer in answers
        if answer.done is not None and answer.cancelled is not None
    ]
    for name, share in (("p50", 50.0), ("p99", 99.0)):
        label = f"cancel to the turn's end: {name}"
        bench.report.add(Row("turn", label, percentile(times, share), "ms", goal=CANCEL_GOAL))


def _offline(bench: Bench, tokens: int, answers: list[Answer]) -> None:
    times = []
    for answer in answers:
        assert answer.done is not None
        times.append(answer.done - answer.asked)
    middle = len(times) // 2
    figure = Figure.of([times[:middle], times[middle:]])
    kind = "TTS" if tokens == 1024 else "S2ST"
    bench.report.add(
        Row("turn", f"{kind}, {tokens} tokens, whole reply", figure, "s", PUBLISHED.get(tokens),
            "vLLM-Omni, H100, published" if tokens in PUBLISHED else "",
            bench.decode_floor(1, 200 + tokens // 2) * tokens / 1000, OFFLINE_GOALS.get(tokens))
    )  # fmt: skip
