"""Finds the quickest way to cut and start the kernels of a decoding step on this GPU.

    python scripts/bench/tiles.py --batch 64 --seconds 50        one line of JSON for each choice that was tried
    python scripts/bench/tiles.py --batch 64 --list              what would be tried, without a GPU

Every choice is timed as a whole captured step of the true shape at 2,000 positions, in turn with the one in force, so
that a GPU which warms up or slows down favours neither. One group of choices after the other takes over what it finds.
The last line has the step before and after, and the tables to write into `kernels/gpu/choices.py` as `MEASURED`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import kernels
import torch

from voiceagent.models.step_audio2.kernels.gpu import choices
from voiceagent.models.step_audio2.kernels.gpu.choices import MEASURED, Attention, Joined, Sampling, Tile

Cut = tuple[int, int, int, int, int]  # the numbers of a `Tile`, `early` apart

CONTEXT = 2048
WORTH = 0.002  #: of the step, that a choice must save to be taken
ROUNDS = 2  #: of a choice beside the one in force

MANY: tuple[Cut, ...] = (
    (128, 128, 4, 4, 3), (128, 128, 4, 4, 4), (128, 64, 4, 6, 3), (128, 64, 4, 4, 7), (64, 64, 4, 6, 3),
    (64, 64, 4, 5, 4), (64, 64, 4, 4, 7), (64, 128, 4, 4, 2), (64, 128, 4, 3, 4), (32, 128, 4, 4, 2),
)  # fmt: skip
FEW: tuple[Cut, ...] = (
    (64, 128, 4, 3, 4),
    (64, 128, 4, 3, 7),
    (64, 64, 4, 5, 4),
    (32, 128, 4, 4, 2),
    (32, 128, 4, 4, 4),
)
ONE: tuple[Cut, ...] = (
    (8, 512, 4, 3, 1),
    (8, 512, 4, 2, 1),
    (4, 512, 4, 3, 1),
    (16, 512, 4, 3, 1),
    (8, 1024, 4, 2, 1),
)
GATES: dict[int, tuple[Cut, ...]] = {
    1: ONE,
    16: ((32, 128, 4, 3, 1), (32, 128, 4, 4, 1), (64, 64, 4, 4, 1), (32, 64, 4, 5, 1)),
    64: ((64, 64, 4, 6, 1), (64, 128, 4, 4, 1), (64, 64, 4, 5, 1), (128, 64, 8, 4, 1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=50.0, help="after which nothing new is tried")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--list", action="store_true", help="name what would be tried")
    options = parser.parse_args()
    if options.list:
        for name in options.groups:
            for changes in GROUPS[name](options.batch, MEASURED):
                with choices.using(**changes):
                    print(json.dumps({"group": name, **tried(changes, options.batch)}))
        return
    if not torch.cuda.is_available():
        sys.exit("No CUDA device; --list needs none.")
    torch.manual_seed(0)
    with torch.inference_mode():
        Sweep(options.batch, time.monotonic() + options.seconds).run(options.groups)


def ends(batch: int) -> int:
    """The end of the range of rows that a batch falls in."""
    return next((most for most in (1, 16, choices.MOST_ROWS) if batch <= most), 1 << 30)


def placed(table: tuple[tuple[int, Any], ...], batch: int, choice: Any) -> tuple[tuple[int, Any], ...]:
    """The table with another choice for a batch's range."""
    return tuple(sorted({**dict(table), ends(batch): choice}.items()))


def tiles_of(batch: int) -> tuple[Cut, ...]:
    return {1: ONE, 16: FEW, choices.MOST_ROWS: MANY}.get(ends(batch), ())


def joined(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    """The product of queries, keys and values: in parts that the rotation adds up."""
    for cut in tiles_of(batch):
        for early in (False, True):
            tile = Tile(*cut, early)
            yield {"joined": placed(now.joined, batch, Joined(tile, turned=True))}


def attention(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    """Overlaps first, then sizes."""
    held = choices.of(now.attention, batch)
    assert held is not None, "there is one for any number of rows"
    some = [
        held._replace(early=early, merge_early=merge) for early in (False, True) for merge in (False, True)
    ]
    for cut in (
        (512, 4, 2, 3),
        (512, 2, 3, 3),
        (512, 8, 2, 2),
        (512, 4, 4, 4),
        (1024, 2, 2, 2),
        (256, 4, 3, 4),
        (256, 4, 4, 4),
        (256, 8, 2, 2),
        (256, 2, 4, 4),
    ):
        some += [Attention(*cut, early=early, merge_early=early) for early in (False, True)]
    yield from ({"attention": placed(now.attention, batch, one)} for one in some)


def sampling(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    """One setting after the other would need a sweep each: these are the likely ones."""
    for late in (False, True):
        for lister in (4, 8):
            yield {"sampling": placed(now.sampling, batch, Sampling(list_warps=lister, late=late))}
    for pivots, guesser, settler in ((4, 8, 8), (8, 8, 8), (8, 8, 16), (4, 4, 16), (1, 8, 4), (16, 8, 16)):
        held = choices.of(now.sampling, batch) or Sampling()
        one = held._replace(pivots=pivots, guess_warps=guesser, settle_warps=settler, late=True, list_warps=8)
        yield {"sampling": placed(now.sampling, batch, one)}


def long_blocks(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    """Fewer programs where nearly all have nothing to do."""
    held = choices.of(now.sampling, batch) or Sampling()
    for block in (4096, 16384, 32768):
        yield {"sampling": placed(now.sampling, batch, held._replace(long_block=block))}
    yield {"sampling": placed(now.sampling, batch, held._replace(early=not held.early))}


def added(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    for cut in tiles_of(batch):
        for early in (False, True):
            yield {"added": placed(now.added, batch, Tile(*cut, early))}


def gated(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    for cut in GATES.get(ends(batch), ()):
        for early in (False, True):
            yield {"gated": placed(now.gated, batch, Tile(*cut, early))}


def passes(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    for finish, turn in ((False, True), (True, False), (False, False)):
        yield {"finish_early": finish, "turn_early": turn}


def widths(batch: int, now: choices.Choices) -> Iterator[dict[str, Any]]:
    for warps, heads in ((4, 4), (16, 4), (8, 2), (8, 8)):
        yield {"finish_warps": warps, "turn_heads": heads}


GROUPS: dict[str, Callable[[int, choices.Choices], Iterator[dict[str, Any]]]] = {
    "joined": joined,
    "sampling": sampling,
    "attention": attention,
    "passes": passes,
    "widths": widths,
    "long_blocks": long_blocks,
    "gated": gated,
    "added": added,
}


def shown(changes: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in changes.items()}


def tried(changes: dict[str, Any], batch: int) -> dict[str, Any]:
    """Of each changed table the choice for the batch, as plain numbers."""
    found = {}
    for name, value in changes.items():
        choice = choices.of(value, batch) if isinstance(value, tuple) else value
        found[name] = list(choice) if isinstance(choice, tuple) else choice
    return found


@dataclass
class Sweep:
    """One batch size; `kept` are the changes to the table that are in force."""

    batch: int
    until: float
    kept: dict[str, Any] = field(default_factory=dict)
    graphs: dict[str, Any] = field(default_factory=dict)  #: of the choices in force

    def run(self, groups: list[str]) -> None:
        self.step, self.bytes_read = kernels.step_of(batch=self.batch, context=CONTEXT)
        first = [self.time({}) for _ in range(3)][-1]  # the clocks of an idle GPU are slow
        for name in groups:
            self.one_group(name)
        before, after = self.pair(self.kept, against={})
        print(
            json.dumps(
                {
                    "batch": self.batch,
                    "first_ms": first,
                    "before_ms": before,
                    "after_ms": after,
                    "tb_per_s": round(self.bytes_read / after / 1e9, 3),
                    "tables": shown(self.kept),
                }
            ),
            flush=True,
        )

    def one_group(self, name: str) -> None:
        """Tries all choices of a group against what is in force, and keeps the best if it is worth it twice."""
        with choices.using(**self.kept) as now:
            wanted = list(GROUPS[name](self.batch, now))
        best, saved = None, 0.0
        for changes in wanted:
            if time.monotonic() > self.until:
                break
            try:
                before, after = self.pair({**self.kept, **changes}, against=self.kept)
            except Exception as error:  # what a device cannot do says so in many ways; the sweep goes on
                torch.cuda.synchronize()
                words = {"group": name, "failed": str(error)[:200]}
                print(json.dumps({**words, **tried(changes, self.batch)}), flush=True)
                continue
            line = {"batch": self.batch, "group": name, "ms": after, "in_force_ms": before}
            print(json.dumps({**line, **tried(changes, self.batch)}), flush=True)
            if before - after > max(saved, WORTH * before):
                best, saved = changes, before - after
        if best is not None:
            before, after = self.pair({**self.kept, **best}, against=self.kept)
            if before - after > WORTH * before:
                self.kept |= best

    def pair(self, changes: dict[str, Any], *, against: dict[str, Any]) -> tuple[float, float]:
        """Milliseconds of a step in force and of a step with changes, in turn."""
        found = [(self.time(against), self.time(changes)) for _ in range(ROUNDS)]
        before, after = (round(statistics.mean(column), 4) for column in zip(*found, strict=True))
        return before, after

    def time(self, changes: dict[str, Any]) -> float:
        key = str(changes)
        graph = self.graphs.get(key)
        if graph is None:
            with choices.using(**changes):
                graph = kernels.captured(self.step)
        if changes is self.kept or not changes:
            self.graphs[key] = graph
        return kernels.timed(graph, repeats=9) * 1e3


if __name__ == "__main__":
    main()
