"""Holds long talks over a real socket: is the sixtieth question answered like the tenth, and what does cutting save?

    python3 scripts/bench/long_talk.py [--turns 60] [--model DIR] [--json OUT]      a talk of spoken questions
    python3 scripts/bench/long_talk.py --ratios 1.0 0.8 [--turns 40]                one talk for each retention ratio

Starts a server of its own. Every question is sent as a whole and committed, nothing paces the answer, and the room of
the conversation (--room tokens behind the instructions) is so small that the oldest turns have to be left out. What the
server tells (`usage` and `context` of `response.done`) gives the tokens; the pages of keys and values are counted from
the positions that the conversation takes in the context, 16 a page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
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


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer; times in seconds from `response.create`.

    Attributes:
        read: tokens of the prompt, of which `cached` were computed by earlier turns.
        held: positions that the conversation takes in the context behind it.
        dropped: items that were left out from this turn on.
    """

    first_s: float
    whole_s: float
    read: int
    cached: int
    held: int
    dropped: int
    status: str


async def talk(
    url: str, turns: int, *, truncation: dict[str, Any] | str, spoken: bool, title: str
) -> list[Turn]:
    """A talk of so many questions, the recorded ones over and over."""
    asked = [wavio.read(QUESTIONS / question["file"]) for question in questions(turns)]
    async with RealtimeClient(url) as client:
        await client.update(
            audio={"input": {"turn_detection": None}},
            output_modalities=["audio" if spoken else "text"],
            output_lead_ms=None,
            truncation=truncation,
            temperature=0.0,
        )
        return [await ask(client, *question) for question in track(asked, title)]


async def ask(client: RealtimeClient, samples: np.ndarray[Any, np.dtype[np.float32]], rate: int) -> Turn:
    """One question and its whole answer."""
    await client.append(samples, rate)
    await client.send("input_audio_buffer.commit")
    await client.send("response.create")
    began, first = time.perf_counter(), 0.0
    while True:
        event = await client.receive()
        if event["type"] == "error":
            raise RuntimeError(event["error"]["message"])
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
            )


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
    parser.add_argument(
        "--room", type=int, default=1000, help="tokens of the conversation behind the instructions"
    )
    parser.add_argument("--ratio", type=float, default=0.8, help="of the one talk")
    parser.add_argument("--ratios", type=float, nargs="+", help="a talk for each of them, answered in text")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    console = Console()

    def policy(ratio: float) -> dict[str, Any]:
        limits = {"post_instructions": given.room}
        return {"type": "retention_ratio", "retention_ratio": ratio, "token_limits": limits}

    with server(given.model) as url:
        talks = {
            ratio: asyncio.run(
                talk(
                    url,
                    given.turns,
                    truncation=policy(ratio),
                    spoken=not given.ratios,
                    title=f"ratio {ratio}",
                )
            )
            for ratio in given.ratios or [given.ratio]
        }
    found = show_ratios(talks, console) if given.ratios else show_talk(talks[given.ratio], console)
    if given.json:
        all_turns = {str(ratio): [asdict(turn) for turn in turns] for ratio, turns in talks.items()}
        figures = {"machine": machine(), "room": given.room, "found": found, "turns": all_turns}
        given.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
