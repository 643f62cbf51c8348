#!/usr/bin/env python3
"""How the server behaves in conversations: turn ends, interruptions, "mm-hm", noise, echo, and what it remembers.

    python3 scripts/eval/duplex.py [--quick] [--only turns overlaps echo live] [--human FILE ...]

Most trials run in simulated time: the real decision layer, voice detector and echo guard on real waveforms, with
replies that the pocket checkpoint made. Latencies are taken from callers of a real server on this machine, in real
time. Everything that is printed goes into results/duplex.json, README.md and duplex.svg, all beside this script; parts
that are not run keep their last figures. A whole run takes about ten minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # one core for each process of the trials
    os.environ.setdefault(_name, "1")

from scripts.bench.turn import machine, server  # noqa: E402
from scripts.eval.duplex_parts import (  # noqa: E402
    echo,
    live,
    overlaps,
    picture,
    replies,
    report,
    sounds,
    turns,
)

PARTS = ("live", "turns", "overlaps", "echo")
LIVE_S, QUICK_LIVE_S = 270.0, 15.0
HERE = Path(__file__).resolve().parent
Found = dict[str, Any]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few trials of every kind; two minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--human", nargs="+", type=Path, default=[], help="recordings of people, a turn each")
    parser.add_argument("--seconds", type=float, help="of the callers of a real server")
    parser.add_argument("--sessions", type=int, default=1, help="callers at once of the real server")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of the trials")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of README.md, duplex.svg and results/")
    parser.add_argument("--draw", action="store_true", help="run nothing: only table and picture anew")
    args = parser.parse_args()
    file = args.out / "results" / "duplex.json"
    found: Found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not args.draw:
        found |= run(args)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (args.out / "duplex.svg").write_text(picture.draw(found), encoding="utf-8")
    text = report.readme(found)
    (args.out / "README.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(goal.met is not False for goal in report.goals(found)) else 1


def run(args: argparse.Namespace) -> Found:
    """Runs the parts that are asked for."""
    found: Found = {}
    for part in (part for part in PARTS if part in args.only):
        print(f"{part} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        made = {"live": run_live, "turns": run_turns, "overlaps": run_overlaps, "echo": run_echo}[part](args)
        found[part] = made | {
            "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "took_s": round(time.monotonic() - began, 1),
            "quick": args.quick,
        }
    return found


def run_live(args: argparse.Namespace) -> Found:
    """Callers of a real server."""
    seconds = args.seconds or (QUICK_LIVE_S if args.quick else LIVE_S)
    with server("pocket") as url:
        figures = asyncio.run(live.measure(url, seconds=seconds, sessions=args.sessions))
    return {"sessions": args.sessions, **live.summary(figures)}


def run_turns(args: argparse.Namespace) -> Found:
    """Ends of turns, under every setting."""
    listed = sounds.utterances(tuple(args.human), most=1 if args.quick else None)
    outcomes: dict[str, list[turns.Outcome]] = {}
    took_s: list[float] = []
    for share, took in spread(turns.run, listed, workers=args.workers, shares=args.workers):
        took_s += took
        for name, some in share.items():
            outcomes.setdefault(name, []).extend(some)
    return {
        "voices": list(sounds.voices()),
        "people": [path.name for path in args.human],
        "verdicts": len(took_s),
        "verdict_ms": turns.percentile(took_s, 50),
        "settings": {name: turns.summary(some) for name, some in outcomes.items()},
    }


def run_overlaps(args: argparse.Namespace) -> Found:
    """What sounds over our voice."""
    conditions = ("quiet", "telephone") if args.quick else tuple(overlaps.CONDITIONS)
    people = [sounds.of_person(path) for path in args.human]
    listed = overlaps.trials(people=people, most=1 if args.quick else None, conditions=conditions)
    said = spoken(args)
    outcomes = [o for share in spread(overlaps.run, listed, said, workers=args.workers) for o in share]
    return {"people": [path.name for path in args.human], **overlaps.summary(outcomes)}


def run_echo(args: argparse.Namespace) -> Found:
    """Our own voice in the microphone."""
    seconds = 45.0 if args.quick else echo.CALL_S
    listed = echo.trials(minutes=5 if args.quick else None)
    outcomes = [
        o for share in spread(echo.run, listed, spoken(args), seconds, workers=args.workers) for o in share
    ]
    names = [line.name for line in echo.LINES]
    return {"lines": {name: echo.summary([o for o in outcomes if o.line == name]) for name in names}}


_spoken: list[replies.Reply] = []


def spoken(args: argparse.Namespace) -> list[replies.Reply]:
    """Replies of the model, made once."""
    if not _spoken:
        _spoken.extend(replies.record(2 if args.quick else None))
    return _spoken


def spread(
    work: Callable[..., Any], listed: Sequence[Any], *more: Any, workers: int, shares: int = 0
) -> list[Any]:
    """The results of `work(share, *more)` for shares of the list, in several processes; 0 shares = enough of them."""
    count = shares or 4 * workers
    parts = [part for n in range(count) if (part := list(listed[n::count]))]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return [job.result() for job in [pool.submit(work, part, *more) for part in parts]]


if __name__ == "__main__":
    sys.exit(main())
