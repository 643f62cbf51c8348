"""Draws a report as one SVG file: bars of our figures beside the reference's and the floor; it measures nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from scripts.bench.gpu_parts.report import Report, Row, number

_OURS, _REFERENCE, _FLOOR = "#1f6feb", "#b7bec8", "#d1242f"
_WIDTH, _LABEL, _BAR, _GAP = 960, 400, 11, 9
_TITLE, _HEAD = 34, 46


@dataclass(frozen=True, slots=True)
class Panel:
    """One group of bars with a common logarithmic axis."""

    title: str
    rows: tuple[Row, ...]


def panels(report: Report) -> list[Panel]:
    """One panel for each part and unit that has more than one row."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.part, row.unit), []).append(row)
    return [
        Panel(f"{part} ({unit}, logarithmic)", tuple(rows))
        for (part, unit), rows in groups.items()
        if len(rows) > 1 and any(row.figure.value > 0 for row in rows)
    ]


def draw(report: Report, path: Path) -> None:
    """Writes the picture."""
    y, body = _HEAD, [_legend()]
    for panel in panels(report):
        text, height = _panel(panel, y)
        body.append(text)
        y += height
    name = f"{report.conditions.get('model', '')} on {report.machine.get('name', '')}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 10}" '
        f'viewBox="0 0 {_WIDTH} {y + 10}" font-family="sans-serif" font-size="12" fill="#1f2328">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="12" y="22" font-size="15" font-weight="bold">{escape(name)}</text>'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(body) + "</svg>\n", encoding="utf-8")


def _legend() -> str:
    parts = []
    for i, (colour, name) in enumerate(((_OURS, "ours"), (_REFERENCE, "reference"), (_FLOOR, "floor"))):
        x = _WIDTH - 250 + 85 * i
        parts.append(
            f'<rect x="{x}" y="13" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="22">{name}</text>'
        )
    return "".join(parts)


def _panel(panel: Panel, top: int) -> tuple[str, int]:
    """The group's SVG and its height."""
    values = [row.figure.value for row in panel.rows]
    values += [value for row in panel.rows for value in (row.reference, row.floor) if value is not None]
    positive = [value for value in values if value > 0]
    low = 10 ** math.floor(math.log10(min(positive) / 1.5))
    high = max(positive) * 1.6

    def x(value: float) -> float:
        share = math.log(max(value, low) / low) / math.log(high / low)
        return _LABEL + share * (_WIDTH - _LABEL - 70)

    parts = [f'<text x="12" y="{top + 16}" font-weight="bold">{escape(panel.title)}</text>']
    y = top + _TITLE
    for row in panel.rows:
        bars = [(row.figure.value, _OURS)]
        if row.reference is not None:
            bars.append((row.reference, _REFERENCE))
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 9}" text-anchor="end">{escape(row.name)}</text>')
        for i, (value, colour) in enumerate(bars):
            end = x(value)
            at = y + i * _BAR
            parts.append(
                f'<rect x="{_LABEL}" y="{at}" width="{max(1.0, end - _LABEL):.1f}" height="{_BAR - 1}" '
                f'fill="{colour}"/>'
                f'<text x="{end + 4:.1f}" y="{at + 9}" font-size="10">{number(value)}</text>'
            )
        if row.floor is not None and row.floor > 0:
            at_x = x(row.floor)
            parts.append(
                f'<line x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{y - 2}" y2="{y + _BAR + 1}" '
                f'stroke="{_FLOOR}" stroke-width="2"/>'
            )
        y += len(bars) * _BAR + _GAP
    return "".join(parts), y - top + 12
