"""Rows of figures: kept in the order in which they were measured, printed as a table, written as JSON."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from scripts.bench.gpu_parts.measure import Figure

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        part: which part of the benchmark measured it.
        name: what was measured, with its conditions.
        figure: ours.
        unit: of all figures of the row.
        reference: the reference's, measured in the same process; None where there is none.
        reference_name: which mode of the reference.
        floor: what the ceilings allow; None where no such bound was worked out.
        goal: what the project set itself.
        better: whether a small or a large figure is good.
        note: anything that a reader must know.
    """

    part: str
    name: str
    figure: Figure
    unit: str
    reference: float | None = None
    reference_name: str = ""
    floor: float | None = None
    goal: float | None = None
    better: Better = "lower"
    note: str = ""

    def against(self, other: Figure | None, name: str, *, times: float | None = None) -> Row:
        """The row beside a reference's figure, if there is one; `times` better than it is then the goal."""
        if other is None:
            return self
        goal = (
            self.goal
            if times is None
            else other.value / times
            if self.better == "lower"
            else times * other.value
        )
        return replace(self, reference=other.value, reference_name=name, goal=goal)

    @property
    def gain(self) -> float | None:
        """How many times better than the reference."""
        return self._ratio(self.reference)

    @property
    def of_floor(self) -> float | None:
        """Which share of what the ceilings allow is reached: 1 is the bound."""
        return self._ratio(self.floor)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met."""
        if self.goal is None:
            return None
        value = self.figure.value
        return value <= self.goal if self.better == "lower" else value >= self.goal

    def _ratio(self, other: float | None) -> float | None:
        if other is None or not self.figure.value or not other:
            return None
        return other / self.figure.value if self.better == "lower" else self.figure.value / other


@dataclass(slots=True)
class Report:
    """All rows of a run and what they were measured under; prints each row as it comes."""

    machine: dict[str, Any]
    conditions: dict[str, Any]
    quiet: bool = False
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def add(self, row: Row) -> None:
        """Take a row; a figure that is not a number is an error of the benchmark."""
        if not all(math.isfinite(part) for part in asdict(row.figure).values()):
            raise ValueError(f"{row.part}: {row.name} is {row.figure}")
        self.rows.append(row)
        if not self.quiet:
            print(_line(row), flush=True)

    def head(self, part: str, title: str) -> None:
        """Begin a part."""
        if not self.quiet:
            print(f"\n{part}: {title}\n{_HEADER}", flush=True)

    def say(self, text: str) -> None:
        """How far it is."""
        if not self.quiet:
            print(f"  {text} ({time.monotonic() - self.began:.0f} s)", flush=True)

    def failed(self, part: str, error: BaseException) -> None:
        """A part that could not be measured; the others go on."""
        self.failures.append(f"{part}: {type(error).__name__}: {error}")
        print(f"{part} FAILED: {type(error).__name__}: {error}", flush=True)
        traceback.print_exception(error)

    def named(self, part: str) -> Iterator[Row]:
        """The rows of a part."""
        return (row for row in self.rows if row.part == part)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every row with its derived figures."""
        rows = []
        for row in self.rows:
            found = asdict(row)
            found |= {"gain": row.gain, "of_floor": row.of_floor, "met": row.met}
            rows.append(found)
        return {
            "machine": self.machine,
            "conditions": self.conditions,
            "seconds": round(time.monotonic() - self.began, 1),
            "part_seconds": {part: round(seconds, 1) for part, seconds in self.parts.items()},
            "failures": self.failures,
            "rows": rows,
            "details": self.details,
        }

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def markdown(self) -> str:
        """All rows as a table for a README."""
        lines = [
            "| part | what | ours | unit | of the floor | reference | gain | goal |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            reference = "" if row.reference is None else f"{number(row.reference)} ({row.reference_name})"
            goal = "" if row.goal is None else f"{number(row.goal)} {'met' if row.met else 'missed'}"
            cells = [
                row.part,
                row.name + (f" ({row.note})" if row.note else ""),
                f"{number(row.figure.value)} ± {number(row.figure.spread)}",
                row.unit,
                "" if row.of_floor is None else f"{100 * row.of_floor:.0f} %",
                reference,
                "" if row.gain is None else f"{row.gain:.1f}x",
                goal,
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Three digits, no more."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if digits <= 6 else f"{value:.2g}"


_HEADER = f"  {'what':<58} {'ours':>9} {'±':>7} {'unit':<8} {'floor':>6} {'reference':>10} {'gain':>7}  goal"


def _line(row: Row) -> str:
    share = "" if row.of_floor is None else f"{100 * row.of_floor:.0f} %"
    reference = "" if row.reference is None else number(row.reference)
    gain = "" if row.gain is None else f"{row.gain:.1f}x"
    goal = "" if row.goal is None else f"{number(row.goal)} {'met' if row.met else 'MISSED'}"
    tail = " ".join(
        part for part in (goal, f"[{row.reference_name}]" if row.reference_name else "", row.note) if part
    )
    return (
        f"  {row.name:<58} {number(row.figure.value):>9} {number(row.figure.spread):>7} {row.unit:<8} "
        f"{share:>6} {reference:>10} {gain:>7}  {tail}"
    )
