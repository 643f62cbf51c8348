"""`voiceagent replay`: a recorded call's decisions, as they were and as other settings would make them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from voiceagent.core import journal
from voiceagent.core.comparison import Row, compare
from voiceagent.core.replay import changed, replay
from voiceagent.errors import InputError
from voiceagent.server.recorder import JOURNAL, SOUND
from voiceagent.timeline import SAME_S, draw

NAMES = {"silence_ms": "silence_duration_ms"}  #: as the configuration calls them


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's parser."""
    parser = commands.add_parser(
        "replay",
        help="decide a recorded call again, with other settings",
        description="Decides a recorded call again and says what other settings would have done: turn ends, replies, "
        "interruptions. The words stay those of the recording; the model is not needed.",
        epilog="Example: voiceagent replay recordings/3f2a --set silence_ms=300 --picture call.svg. Settings are "
        "those of turn detection (threshold, silence_ms, interrupt_response, ...) and of the session (lead_ms, ...).",
    )
    parser.add_argument("call", type=Path, help=f"folder of a recording, or its {JOURNAL}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="a setting; may be repeated",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw both voices and all decisions")
    parser.set_defaults(run=run_replay)


def run_replay(arguments: argparse.Namespace) -> int:
    """Prints the comparison; draws it if asked to."""
    path = arguments.call / JOURNAL if arguments.call.is_dir() else arguments.call
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(
            f"There is no journal at {path}.", code="file_not_found", remedy="Name the folder of a recording."
        ) from cause
    opened, entries = journal.read(lines)
    settings = dict(_setting(text) for text in arguments.settings)
    was = replay(opened, entries)
    would_be = replay(opened, entries, changed(settings)) if settings else was
    rows = compare(was, would_be)
    console = Console(highlight=False)
    console.print(_table(rows, settings))
    console.print(_summary(rows, settings))
    if arguments.picture is not None:
        sound = path.parent / SOUND
        picture = draw(entries, rows, sound if sound.is_file() else None, settings)
        arguments.picture.write_text(picture, encoding="utf-8")
        console.print(f"-> {arguments.picture}", soft_wrap=True)
    return 0


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} is no setting.", remedy="Write --set NAME=VALUE.", param="--set")
    name = name.strip().rpartition(".")[2]
    try:
        return NAMES.get(name, name), json.loads(value)
    except ValueError:
        return NAMES.get(name, name), value


def _table(rows: Sequence[Row], settings: dict[str, Any]) -> Table:
    table = Table(box=None)
    table.add_column("seconds", justify="right")
    if settings:
        table.add_column(" ".join(f"{name}={value}" for name, value in settings.items()), justify="right")
    table.add_column("decision")
    for row in rows:
        cells = [_time(row.was), _time(row.would_be), row.what] if settings else [_time(row.was), row.what]
        changed_ = settings and (row.was is None or row.would_be is None or abs(row.later) >= SAME_S)
        table.add_row(*cells, style="bold" if changed_ else None)
    return table


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def _summary(rows: Sequence[Row], settings: dict[str, Any]) -> str:
    if not settings:
        return f"{len(rows)} decisions."
    gone = sum(row.would_be is None for row in rows)
    new = sum(row.was is None for row in rows)
    moved = [row.later for row in rows if abs(row.later) >= SAME_S]
    words = f"{len(rows) - new} decisions: {gone} would be gone, {new} new, {len(moved)} at another time"
    return f"{words} ({median(moved):+.2f} s)." if moved else f"{words}."
