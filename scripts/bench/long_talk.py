"""Holds long talks over a real socket: is the last question answered like the first, and what does it cost?

    python3 scripts/bench/long_talk.py --hours 2 [--summary model] [--json OUT]     a talk of so many hours
    python3 scripts/bench/long_talk.py [--turns 60] [--room 1000] [--model DIR]     a talk that outgrows a small room
    python3 scripts/bench/long_talk.py --ratios 1.0 0.8 [--turns 40]                one talk for each retention ratio

Starts a server of its own. Every question is sent as a whole and committed, and nothing paces the answer: a talk of
hours takes as many exchanges as that (one in 12 s), not as long. The conversation has the model's whole context, or
--room tokens behind the instructions. Old turns are condensed (--audio text, --summary model) or stay as they are
(--audio keep) until there is no room for them. What the server tells (`usage` and `context` of `response.done`,
`conversation.condensed`) gives the tokens; the pages of keys and values are counted from the positions that the
conversation takes in the context, 16 a page; memory is what the processes of server and engine have resident.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from turn import QUESTIONS, machine, questions, server  # noqa: E402

from voiceagent.audio import wavio  # noqa: E402
from voiceagent.client.conn import RealtimeClient  # noqa: E402

PAGE = 16  #: positions in a page of keys and values
AROUND = 5  #: turns that a median is taken over
EXCHANGE_S = 12.0  #: of a talk between people: a question, a pause, an answer, a pause
GOALS = {"slower": 1.15, "grown_mb": 100}


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer; times in seconds from `response.create`.

    Attributes:
        read: tokens of the prompt, of which `cached` were computed by earlier turns.
        held: positions that the conversation takes in the context behind it.
        dropped: items that were left out from this turn on.
        condensed: steps by which old turns were made shorter since the last one.
        right: it is the answer that the model was taught.
        server_mb, engine_mb: resident memory behind it.
    """

    first_s: float
    whole_s: float
    read: int
    cached: int
    held: int
    dropped: int
    status: str
    condensed: tuple[str, ...]
    right: bool
    server_mb: int
    engine_mb: int


async def talk(
    url: str,
    turns: int,
    *,
    truncation: dict[str, Any] | str,
    context: dict[str, str],
    spoken: bool,
    title: str,
) -> list[Turn]:
    """A talk of so many questions, the recorded ones over and over; Ctrl-C ends it early."""
    done: list[Turn] = []
    async with RealtimeClient(url) as client:
        await client.update(
            audio={"input": {"turn_detection": None}},
            output_modalities=["audio" if spoken else "text"],
            output_lead_ms=None,
            truncation=truncation,
            context=context,
            temperature=0.0,
        )
        with contextlib.suppress(asyncio.CancelledError):
            for question in track(questions(turns), title):
                done.append(await ask(client, question))
    return done


async def ask(client: RealtimeClient, question: dict[str, Any]) -> Turn:
    """One question and its whole answer."""
    await client.append(*wavio.read(QUESTIONS / question["file"]))
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    began, first, condensed = time.perf_counter(), 0.0, list[str]()
    while True:
        event = await client.receive()
        if event["type"] == "error":
            raise RuntimeError(event["error"]["message"])
        if event["type"] == "conversation.condensed":
            condensed.append(event["form"])
        if event["type"] in ("response.output_audio.delta", "response.output_text.delta") and not first:
            first = time.perf_counter() - began
        if event["type"] == "response.done" and event["response"]["status"] == "failed":
            raise RuntimeError(event["response"]["status_details"]["error"]["message"])
        if event["type"] == "response.done":
            usage, context = event["response"]["usage"], event["context"]
            return Turn(
                first,
                time.perf_counter() - began,
                usage["input_tokens"],
                usage["input_token_details"]["cached_tokens"],
                context["tokens"],
                len(context["dropped_items"]),
                event["response"]["status"],
                tuple(condensed),
                _said(event["response"]) == question["reply"],
                *memory(),
            )


def _said(response: dict[str, Any]) -> str:
    """The words of a response."""
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return " ".join(part.get("transcript") or part.get("text") or "" for part in parts)


def memory() -> tuple[int, int]:
    """MiB that our child, the server, has resident, and its own children, the engine, together; 0 where unknown."""
    parents, resident = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            pages = int((folder / "statm").read_text().split()[1])
        except OSError:  # it has ended meanwhile
            continue
        resident[int(folder.name)] = pages * os.sysconf("SC_PAGE_SIZE") >> 20
    servers = {pid for pid, parent in parents.items() if parent == os.getpid()}
    engines = {pid for pid, parent in parents.items() if parent in servers}
    return tuple(sum(resident.get(pid, 0) for pid in pids) for pids in (servers, engines))  # type: ignore[return-value]


def show_talk(turns: list[Turn], console: Console) -> dict[str, float]:
    """The talk as a table, and its figures: medians over some turns around the tenth and at the end."""
    table = Table("turn", "first output s", "whole s", "read", "cached", "held", "left out", "status")
    for number, turn in enumerate(turns, 1):
        if number % 10 == 0 or number == len(turns):
            row = (number, f"{turn.first_s:.3f}", f"{turn.whole_s:.2f}", turn.read, turn.cached, turn.held)
            table.add_row(*map(str, (*row, sum(t.dropped for t in turns[:number]), turn.status)))
    console.print(table)
    early, late = turns[10 - AROUND : 10 + AROUND], turns[-2 * AROUND :]
    found = {
        "turns": len(turns),
        "completed": sum(turn.status == "completed" for turn in turns),
        "first_s_around_10": statistics.median(turn.first_s for turn in early),
        "first_s_at_the_end": statistics.median(turn.first_s for turn in late),
        "items_left_out": sum(turn.dropped for turn in turns),
        "pages_at_10": -(-turns[min(9, len(turns) - 1)].held // PAGE),
        "pages_at_the_end": -(-turns[-1].held // PAGE),
        "most_pages": -(-max(turn.held for turn in turns) // PAGE),
    }
    for name, value in found.items():
        console.print(
            f"{name.replace('_', ' ')}: {value:.3f}"
            if "_s_" in name
            else f"{name.replace('_', ' ')}: {value}"
        )
    return found


def show_hours(turns: list[Turn], console: Console) -> dict[str, float]:
    """How the last tenth of a talk differs from the first."""
    tenth = max(1, len(turns) // 10)
    table = Table("tenth", "first output s", "read", "computed", "held", "right", "server MiB", "engine MiB")
    rows = []
    for number in range(0, len(turns) - tenth + 1, tenth):
        part = turns[number : number + tenth]
        rows.append(
            (
                statistics.median(turn.first_s for turn in part),
                statistics.mean(turn.read for turn in part),
                statistics.mean(turn.read - turn.cached for turn in part),
                max(turn.held for turn in part),
                sum(turn.right for turn in part) / len(part),
                part[-1].server_mb,
                part[-1].engine_mb,
            )
        )
        first, read, computed, held, right, server_mb, engine_mb = rows[-1]
        cells = (len(rows), f"{first:.3f}", f"{read:.0f}", f"{computed:.0f}", held, f"{right:.0%}")
        table.add_row(*map(str, (*cells, server_mb, engine_mb)))
    console.print(table)
    steps = [form for turn in turns for form in turn.condensed]
    found = {
        "turns": len(turns),
        "completed": sum(turn.status == "completed" for turn in turns),
        "right": sum(turn.right for turn in turns),
        "first_s_of_the_first_tenth": rows[0][0],
        "first_s_of_the_last_tenth": rows[-1][0],
        "slower": rows[-1][0] / rows[0][0],
        "most_positions": max(turn.held for turn in turns),
        "steps_to_text": steps.count("text"),
        "summaries": steps.count("summary"),
        "summaries_not_used": steps.count("none"),
        "items_left_out": sum(turn.dropped for turn in turns),
        "server_mb": rows[-1][5],
        "engine_mb": rows[-1][6],
        "grown_mb": rows[-1][5] + rows[-1][6] - rows[0][5] - rows[0][6],
    }
    for name, value in found.items():
        goal = f" (at most {GOALS[name]})" if name in GOALS else ""
        console.print(f"{name.replace('_', ' ')}: {value:.3g}{goal}")
    return found


def show_ratios(talks: dict[float, list[Turn]], console: Console) -> dict[str, Any]:
    """What each ratio costs in prompt tokens that had to be computed."""
    table = Table("ratio", "turns", "read", "computed", "cuts", "saved")
    found, most = {}, 0
    for ratio, turns in sorted(talks.items(), reverse=True):
        read, computed = sum(t.read for t in turns), sum(t.read - t.cached for t in turns)
        most = most or computed
        cuts, saved = sum(t.dropped > 0 for t in turns), 1 - computed / most
        table.add_row(*map(str, (ratio, len(turns), read, computed, cuts)), f"{saved:.0%}")
        found[str(ratio)] = {
            "turns": len(turns),
            "read": read,
            "computed": computed,
            "cuts": cuts,
            "saved": saved,
        }
    console.print(table)
    return found


def main() -> int:
    """Runs the talks and prints them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pocket", help="what the server loads")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--hours", type=float, help="as many turns as a talk of this length has")
    parser.add_argument("--room", type=int, help="tokens of the conversation; 1000, or with --hours all")
    parser.add_argument("--ratio", type=float, default=0.8, help="of the one talk")
    parser.add_argument("--audio", choices=("text", "keep"), help="old turns; text with --hours, else keep")
    parser.add_argument("--summary", choices=("model", "off"), default="off", help="of the oldest turns")
    parser.add_argument("--ratios", type=float, nargs="+", help="a talk for each of them, answered in text")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    console = Console()
    given.turns = round(given.hours * 3600 / EXCHANGE_S) if given.hours else given.turns
    given.room = given.room or (None if given.hours else 1000)
    context = {"audio": given.audio or ("text" if given.hours else "keep"), "summary": given.summary}

    def policy(ratio: float) -> dict[str, Any]:
        limits = {"post_instructions": given.room} if given.room else {}
        return {"type": "retention_ratio", "retention_ratio": ratio, "token_limits": limits}

    with server(given.model) as url:
        talks = {
            ratio: asyncio.run(
                talk(
                    url,
                    given.turns,
                    truncation=policy(ratio),
                    context=context,
                    spoken=not given.ratios,
                    title=f"ratio {ratio}",
                )
            )
            for ratio in given.ratios or [given.ratio]
        }
    if given.ratios:
        found = show_ratios(talks, console)
    else:
        found = (show_hours if given.hours else show_talk)(talks[given.ratio], console)
    if given.json:
        all_turns = {str(ratio): [asdict(turn) for turn in turns] for ratio, turns in talks.items()}
        figures = {"machine": machine(), "room": given.room, "found": found, "turns": all_turns}
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
