"""Measures a packaged checkpoint on what training never heard, through the runtime that the server uses.

    PYTHONPATH=. python3 scripts/pocket/evaluate.py [--limit N] [--card]

Replies, tool calls, transcripts: held-out dialogues with their history, spoken by voices of the training family and by
an engine that training never heard. Speech: replies of the model, streamed, as an independent recogniser hears them,
beside the source voice. Everything is noted as it is done, so a run that was stopped goes on where it was; the notes
belong to the weights and the questions. Needs the synthesisers (flite, espeak-ng, festival, SVOX Pico) and
pocketsphinx.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "scripts" / "pocket"),
]  # the data scripts import each other by bare name

import exam  # noqa: E402

from scripts.pocket import figures  # noqa: E402
from scripts.pocket.card import digest  # noqa: E402

RESULTS = ROOT / "scripts" / "pocket" / "results"
WEIGHTS = ("model.safetensors", "token2wav/flow.pt", "token2wav/hift.pt")

_examiner: exam.Examiner


def main() -> int:
    args = parse_args()
    work = args.work / identity(args.model)
    work.mkdir(parents=True, exist_ok=True)
    notebook = Notebook(work / "notes.jsonl")
    with pool(args, work) as workers:
        run(workers, notebook, questions(args), title="asking")
        run(workers, notebook, spoken(notebook, args.replies), title="speaking")
    notes = notebook.notes([*questions(args), *spoken(notebook, args.replies)])
    found = {"identity": work.name, **figures.figures(notes)}
    (work / "misses.json").write_text(json.dumps(figures.misses(notes), indent=1, ensure_ascii=False))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if args.card:
        figures.write_card(args.model / "README.md", found)
    print(json.dumps({k: v for k, v in found.items() if k != "gates"}, indent=1, ensure_ascii=False))
    print(figures.gate_table(found["gates"]))
    print(f"figures: {args.out}; wrong replies: {work / 'misses.json'}")
    return 0 if all(gate["ok"] for gate in found["gates"]) else 1


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "voiceagent/assets/pocket", help="checkpoint folder"
    )
    parser.add_argument("--texts", type=int, default=350, help="held-out dialogues per bank (at most 700)")
    parser.add_argument("--unclear", type=int, default=25, help="extra unclear turns per kind and bank")
    parser.add_argument(
        "--generic", type=int, default=150, help="sentences to transcribe per bank (at most 300)"
    )
    parser.add_argument(
        "--speech", dest="replies", type=int, default=250, help="replies to judge the speech of"
    )
    parser.add_argument("--limit", type=int, help="at most so many of each: a quick look")
    parser.add_argument("--procs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".pocket" / "evaluation", help="folder of the notes"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "pocket.json", help="figures as JSON")
    parser.add_argument("--card", action="store_true", help="put the figures into the checkpoint's README.md")
    args = parser.parse_args()
    for name in ("texts", "unclear", "generic", "replies") if args.limit is not None else ():
        setattr(args, name, min(getattr(args, name), args.limit))
    return args


def identity(folder: Path) -> str:
    """A short name for these weights and these questions."""
    joined = "".join(digest(folder / name) for name in WEIGHTS) + repr(exam.held_out())
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


class Notebook:
    """Notes by job, on disk line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_job: dict[str, list[exam.Note]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self.by_job[entry["job"]] = entry["notes"]

    def add(self, job: exam.Job, notes: list[exam.Note]) -> None:
        self.by_job[name_of(job)] = notes
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": name_of(job), "notes": notes}, ensure_ascii=False) + "\n")

    def notes(self, jobs: Sequence[exam.Job]) -> list[exam.Note]:
        """Of these jobs, in their order."""
        return [note for job in jobs for note in self.by_job[name_of(job)]]


def name_of(job: exam.Job) -> str:
    """A job's name in the notebook: "speak" jobs go by their text alone."""
    return json.dumps(job[:2] if job[0] == "speak" else job)


def questions(args: argparse.Namespace) -> list[exam.Job]:
    """All jobs but those of the speech, the banks in turn, so that a look at half of them is fair."""

    def listed() -> Iterator[exam.Job]:
        for number in range(max(args.texts, args.unclear, args.generic)):
            for bank in exam.BANKS:
                if number < min(args.texts, len(exam.held_out().dialogues)):
                    yield ("talk", bank, number)
                if number < args.unclear:
                    yield from (("unclear", bank, kind, number) for kind in exam.UNCLEAR_KINDS)
                if number < min(args.generic, len(exam.held_out().sentences)):
                    yield ("hear", bank, number)

    return list(listed())


def spoken(notebook: Notebook, count: int) -> list[exam.Job]:
    """Different replies that the model gave, whatever they were an answer to."""
    found: dict[str, list[int]] = {}
    for name in sorted(notebook.by_job):
        for note in notebook.by_job[name]:
            if note["what"] == "reply" and note["codes"] and note["got"]:
                found.setdefault(note["got"], note["codes"])
    texts = sorted(found)
    Random("speech").shuffle(texts)
    return [("speak", text, found[text]) for text in texts[:count]]


def pool(args: argparse.Namespace, work: Path) -> ProcessPoolExecutor:
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(
        args.procs, mp_context=mp.get_context("spawn"), initializer=_begin, initargs=(args.model, work)
    )


def _begin(folder: Path, work: Path) -> None:
    global _examiner
    scratch = work / f"process-{os.getpid()}"
    scratch.mkdir(exist_ok=True)
    _examiner = exam.Examiner(folder, scratch)


def _do(job: exam.Job) -> tuple[exam.Job, list[exam.Note]]:
    return job, _examiner.do(job)


def run(workers: ProcessPoolExecutor, notebook: Notebook, jobs: Sequence[exam.Job], *, title: str) -> None:
    """Does every job that is not in the notebook yet."""
    todo = [job for job in jobs if name_of(job) not in notebook.by_job]
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    right = asked = 0
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(title, total=len(jobs), completed=len(jobs) - len(todo))
        for future in as_completed([workers.submit(_do, job) for job in todo]):
            job, notes = future.result()
            notebook.add(job, notes)
            replies = [note for note in notes if note["what"] == "reply"]
            right, asked = right + sum(map(figures.exact, replies)), asked + len(replies)
            state = f"{title}: {right} of {asked} replies right" if asked else title
            progress.update(task, advance=1, description=state)


if __name__ == "__main__":
    sys.exit(main())
