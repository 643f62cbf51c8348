#!/usr/bin/env python3
"""Fuzzes the protocols: every client event, legal and not, against the dialects alone or against a whole server.

    scripts/fuzz.py                                   100,000 messages to every dialect and decoder
    scripts/fuzz.py --dialect live --count 1000000
    scripts/fuzz.py --server                          100,000 messages to a server with the fake engine, over sockets
    scripts/fuzz.py --dialect live --seed 7 --call 12 one call again
    scripts/fuzz.py --replay FILE                     a call that failed again

A call that fails is saved, and the command that replays it is printed. Exit status 1 if any did.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "wire"), str(ROOT / "tests" / "server")]

from fuzz_grammar import Step, call, frames  # noqa: E402
from fuzz_play import DECODERS, Failure, Outcome, decode, play  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

WEBSOCKETS = ("realtime", "live", "translation")
ALL = (*WEBSOCKETS, *DECODERS)
MESSAGES = 20  #: of one call
console = Console()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialect", choices=(*ALL, "all"), default="all")
    parser.add_argument("--count", type=int, default=100_000, help="messages, of each dialect")
    parser.add_argument("--seed", default="0", help="any word; each call has its own, made of it")
    parser.add_argument("--call", type=int, help="only the call of this number")
    parser.add_argument("--server", action="store_true", help="a whole server, over sockets")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a saved call")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz-failures"), help="where calls that fail are saved"
    )
    parser.add_argument("--stop", type=int, default=10, help="give up after so many failures")
    args = parser.parse_args()
    if args.replay:
        return replay(args.replay)
    if args.server:
        from fuzz_server import fuzz_server

        with bar() as progress:
            task = progress.add_task("server", total=args.count)
            report = asyncio.run(
                fuzz_server(args.seed, count=args.count, on_message=lambda: progress.advance(task))
            )
        show_server(report)
        return 1 if report.problems else 0
    wanted = ALL if args.dialect == "all" else (args.dialect,)
    if args.call is not None:
        return once(wanted[0], make(wanted[0], args.seed, args.call))
    outcomes: dict[str, Outcome] = {}
    failures = 0
    for protocol in wanted:
        outcomes[protocol], failed = fuzz(protocol, args)
        failures += failed
    show(outcomes)
    return 1 if failures else 0


def make(protocol: str, seed: str, number: int) -> list[Step]:
    """The steps of a call; of a plain request there is one."""
    rng = random.Random(f"{seed}/{number}")
    return (
        call(protocol, rng, messages=MESSAGES)
        if protocol in WEBSOCKETS
        else [("send", frames(protocol, rng))]
    )


def run(protocol: str, steps: list[Step]) -> Outcome:
    """Plays them; Failure if something is wrong."""
    return play(protocol, steps) if protocol in WEBSOCKETS else decode(protocol, steps[0][1])


def fuzz(protocol: str, args: argparse.Namespace) -> tuple[Outcome, int]:
    """So many messages of one protocol: what came of them, and how many calls failed."""
    outcome, failures, number = Outcome(), 0, 0
    with bar() as progress:
        task = progress.add_task(protocol, total=args.count)
        while outcome.messages < args.count and failures < args.stop:
            steps = make(protocol, args.seed, number)
            try:
                outcome.add(run(protocol, steps))
            except Failure as failure:
                failures += 1
                outcome.messages += MESSAGES
                path = save(args.out, protocol, args.seed, number, steps)
                progress.console.print(
                    f"[red]{failure}[/]\n  scripts/fuzz.py --replay {path}", soft_wrap=True
                )
            progress.update(task, completed=min(outcome.messages, args.count))
            number += 1
    return outcome, failures


def save(folder: Path, protocol: str, seed: str, number: int, steps: list[Step]) -> Path:
    """Writes a call to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{protocol}-{seed}-{number}.json"
    told = [["bytes", base64.b64encode(v).decode()] if isinstance(v, bytes) else [k, v] for k, v in steps]
    path.write_text(json.dumps({"dialect": protocol, "steps": told}, indent=1) + "\n", encoding="utf-8")
    return path


def replay(path: Path) -> int:
    """Plays a saved call again, and tells what happens."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    steps: list[Step] = [("send", base64.b64decode(v)) if k == "bytes" else (k, v) for k, v in saved["steps"]]
    return once(saved["dialect"], steps)


def once(protocol: str, steps: list[Step]) -> int:
    """Plays one call; prints its end, and where it failed."""
    try:
        outcome = run(protocol, steps)
    except Failure as failure:
        for kind, value in steps[max(0, failure.step - 3) : failure.step + 1]:
            console.print(f"{kind}: {str(value)[:2000]}", markup=False, soft_wrap=True)
        console.print_exception(show_locals=False)
        return 1
    show({protocol: outcome})
    return 0


def bar() -> Progress:
    """A progress bar."""
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def show(outcomes: dict[str, Outcome]) -> None:
    """The table of what came of it."""
    table = Table("dialect", "messages", "errors", "codes", "kinds of answers", "ms p50", "p99", "longest")
    for protocol, found in outcomes.items():
        times = sorted(found.slowest) or [0.0]
        picked = (times[len(times) // 2], times[len(times) * 99 // 100], times[-1])
        cells: list[Any] = [found.messages, found.codes.total(), len(found.codes), len(found.answers)]
        table.add_row(protocol, *(f"{cell:,}" for cell in cells), *(f"{1e3 * t:.3f}" for t in picked))
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"{time.process_time():.0f} s of processor time, {peak:.0f} MiB at most")


def show_server(report: Any) -> None:
    """What the server did."""
    table = Table(
        "messages", "connections", "closed by it", "answers", "questions beside it", "RSS MiB", "problems"
    )
    closed = ", ".join(f"{code}: {count}" for code, count in sorted(report.closed.items(), key=str))
    grown = f"{report.rss_before:.0f} -> {report.rss_after:.0f}"
    row = (
        f"{report.messages:,}",
        f"{report.connections:,}",
        closed,
        f"{report.answers:,}",
        f"{report.asked:,}",
        grown,
    )
    table.add_row(*row, str(len(report.problems)))
    console.print(table)
    for problem in report.problems[:20]:
        console.print(problem, markup=False, soft_wrap=True, style="red")


if __name__ == "__main__":
    sys.exit(main())
