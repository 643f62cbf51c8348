"""Examines a packaged checkpoint on what training never heard, through the runtime that the server uses.

    python3 scripts/eval/pocket.py [--limit N] [--card] [--human FILE=TEXT ...]    everything, as far as it fits
    python3 scripts/eval/pocket.py --quick                 recordings of tests/data/pocket only: under two minutes
    python3 scripts/eval/pocket.py --freeze                makes these recordings anew (after the corpus has changed)

Dialogues with their history as it really came to be, every task by its own prompt, transcripts in voices and over lines
that training never heard; its own speech as an independent recogniser hears it, cloned voices, seams, speed, size.
Everything is noted as it is done, so a run that was stopped goes on where it was; the notes belong to the weights and
the questions. Writes results/pocket.json, pocket.md, two pictures and, with --card, the model card. All but --quick
needs the synthesisers (scripts/pocket/tts_libs.sh names them) and pocketsphinx.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The data scripts import each other by bare name.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "pocket")]

import torch  # noqa: E402
from rich.progress import track  # noqa: E402

from scripts.eval.pocket_parts import figures, quick, report  # noqa: E402
from scripts.eval.pocket_parts.asking import Asker, Note  # noqa: E402
from scripts.pocket.card import digest  # noqa: E402
from voiceagent.models.step_audio2.generate import LanguageModel  # noqa: E402

HERE = Path(__file__).resolve().parent
WEIGHTS = ("model.safetensors", "token2wav/flow.pt", "token2wav/hift.pt")
BEGAN = time.monotonic()
Job = tuple[Any, ...]


def main() -> int:
    args = parse_args()
    if args.freeze:
        print(quick.freeze(paper_of(args), quick.FOLDER))
        return 0
    if args.quick:
        return show_quick(args)
    notebook = Notebook(args.work / identity(args) / "notes.jsonl")
    asked = jobs(args, notebook)
    found = figures.figures(notebook.notes(asked)) | {
        "size_mb": size_mb(args.model), "identity": notebook.path.parent.name, "machine": f"{os.cpu_count()} cores",
        "made": time.strftime("%Y-%m-%d"), "asked": sum(name_of(job) in notebook.by_job for job in asked),
        "planned": len(asked),
    }  # fmt: skip
    missed = figures.misses(notebook.notes(asked))
    (notebook.path.parent / "misses.json").write_text(json.dumps(missed, indent=1, ensure_ascii=False))
    write(args, found)
    print(report.goals(found))
    print(f"wrong replies: {notebook.path.parent / 'misses.json'}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--model", type=Path, default=ROOT / "voiceagent/assets/pocket", help="checkpoint folder")
    option(
        "--corpus",
        type=Path,
        help="the corpus.json of its training; default: made anew, which takes a minute",
    )
    option("--talks", type=int, default=350, help="held-out dialogues per bank")
    option("--tasks", type=int, default=60, help="of every task and bank")
    option("--sentences", type=int, default=150, help="sentences to transcribe per bank")
    option("--speech", dest="replies", type=int, default=200, help="replies to judge the speech of")
    option("--clones", type=int, default=30, help="voices to enrol")
    option("--paced", type=int, default=12, help="answers whose speed is measured")
    option(
        "--human",
        action="append",
        default=[],
        metavar="FILE=TEXT",
        help="a recording of a person, and its words",
    )
    option("--seconds", type=float, default=1e9, help="ask no longer than so, and tell what is known by then")
    option("--limit", type=int, help="at most so many of each: a quick look")
    option("--procs", type=int, default=min(2, os.cpu_count() or 1))
    option("--work", type=Path, default=ROOT / ".pocket" / "examination", help="folder of the notes")
    option("--out", type=Path, default=HERE, help="folder of results/pocket.json, pocket.md and the pictures")
    option("--card", action="store_true", help="put the figures into the checkpoint's README.md")
    option(
        "--quick",
        action="store_true",
        help="ask the recordings of tests/data/pocket only, and check the gates",
    )
    option("--freeze", action="store_true", help="write these recordings")
    args = parser.parse_args()
    for name in (
        ("talks", "tasks", "sentences", "replies", "clones", "paced") if args.limit is not None else ()
    ):
        setattr(args, name, min(getattr(args, name), args.limit))
    return args


def paper_of(args: argparse.Namespace) -> Any:
    from scripts.eval.pocket_parts.paper import Paper  # it imports the synthesisers

    return Paper.load(args.corpus, cache=args.work)


def identity(args: argparse.Namespace) -> str:
    """A short name for these weights and these questions."""
    joined = "".join(digest(args.model / name) for name in WEIGHTS) + paper_of(args).identity
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def size_mb(folder: Path) -> float:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    return round(sum(path.stat().st_size for path in files) / 1e6, 1)


def write(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """All results."""
    results = args.out / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "pocket.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    pictures = {"pocket.svg": report.bars(found), "pocket_confusion.svg": report.matrix(found["confusion"])}
    for name, picture in pictures.items():
        (args.out / name).write_text(picture)
    note = (
        f"Made {found['made']} on {found['machine']}, of `{args.model.name}` ({found['identity']}); "
        f"{found['asked']} of the {found['planned']} questions of this run were asked."
    )
    (args.out / "pocket.md").write_text(report.page(found, note=note, pictures=list(pictures)))
    if args.card:
        report.write_card(args.model / "README.md", found)


# ---- the notebook and the workers


class Notebook:
    """Notes by job, on disk line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.by_job: dict[str, list[Note]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            entry = json.loads(line)
            self.by_job[entry["job"]] = entry["notes"]

    def add(self, job: Job, notes: list[Note]) -> None:
        self.by_job[name_of(job)] = notes
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": name_of(job), "notes": notes}, ensure_ascii=False) + "\n")

    def notes(self, jobs: Sequence[Job]) -> list[Note]:
        """Of these jobs, in their order; of those that are not done, none."""
        return [note for job in jobs for note in self.by_job.get(name_of(job), ())]


def name_of(job: Job) -> str:
    """A job's name in the notebook; what it makes of earlier answers is no part of it."""
    return json.dumps(job[:2] if job[0] in ("speak", "clone") else job, ensure_ascii=False)


def jobs(args: argparse.Namespace, notebook: Notebook) -> list[Job]:
    """Does everything that is not in the notebook yet; -> all jobs."""
    from scripts.eval.pocket_parts.paper import jobs as questions

    os.environ["OMP_NUM_THREADS"] = "1"
    asked = questions(paper_of(args), talks=args.talks, tasks=args.tasks, sentences=args.sentences)
    asked += [("human", *recording.split("=", 1)) for recording in args.human]
    start = (args.model, args.corpus, args.work, notebook.path.parent)
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(args.procs, mp_context=context, initializer=_begin, initargs=start) as workers:
        run(workers, notebook, asked, title="asking", until=0.7 * args.seconds)
        about_speech = spoken(args, notebook)
        Random("speaking").shuffle(about_speech)
        run(workers, notebook, about_speech, title="speaking", until=args.seconds)
    return asked + about_speech


def spoken(args: argparse.Namespace, notebook: Notebook) -> list[Job]:
    """Jobs about its speech: different English replies that it gave, whatever they were an answer to."""
    found: dict[str, list[int]] = {}
    for name in sorted(notebook.by_job):
        for note in notebook.by_job[name]:
            if (
                note.get("codes")
                and note.get("got")
                and note.get("language", "en") == "en"
                and "audio_s" not in note
            ):
                found.setdefault(note["got"], note["codes"])
    texts = sorted(found)
    Random("speech").shuffle(texts)
    listed: list[Job] = [("speak", text, found[text]) for text in texts[: args.replies]]
    long = [found[text] for text in texts if len(found[text]) >= 50]
    for number in range(min(args.clones, len(long) // 3 and args.clones)):
        listed.append(("clone", number, [long[(3 * number + k) % len(long)] for k in range(3)]))
    return listed + [("pace", "test_seen", number) for number in range(args.paced)]


def run(
    workers: ProcessPoolExecutor, notebook: Notebook, jobs: Sequence[Job], *, title: str, until: float
) -> None:
    """Does every job that is not in the notebook yet, until so many seconds after the beginning."""
    todo = [job for job in jobs if name_of(job) not in notebook.by_job]
    futures = [workers.submit(_do, job) for job in todo]
    for future in track(as_completed(futures), title, total=len(futures)):
        if future.cancelled():
            continue
        notebook.add(*future.result())
        if time.monotonic() - BEGAN > until:
            for other in futures:
                other.cancel()


_worker: Any = None


def _begin(model: Path, corpus: Path | None, work: Path, scratch: Path) -> None:
    global _worker
    from scripts.eval.pocket_parts.worker import Worker

    torch.set_num_threads(1)
    own = scratch / f"process-{os.getpid()}"
    own.mkdir(exist_ok=True)
    _worker = Worker(model, corpus=corpus, work=work, scratch=own)


def _do(job: Job) -> tuple[Job, list[Note]]:
    return job, _worker.do(job)


# ---- the quick set


def show_quick(args: argparse.Namespace) -> int:
    """Asks the frozen recordings and checks the gates."""
    torch.set_num_threads(1)
    asker = Asker(LanguageModel.load(args.model))
    notes = [note for question in track(quick.questions(), "asking") for note in quick.ask(asker, question)]
    found = figures.figures(notes) | {"size_mb": size_mb(args.model)}
    kept = figures.gates(found, quick.GATES)
    for gate in kept:
        state = "kept" if gate["ok"] else "NOT KEPT"
        print(f"{state}: {gate['figure']} {gate['value']} (at {gate['at']} {gate['limit']})")
    return 0 if all(gate["ok"] for gate in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
