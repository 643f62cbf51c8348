"""Draws what was found as one SVG file; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, PANEL, LOWER, GAP = 960, 260, 190, 24
BLUE, GREEN, RED, GREY, AMBER = "#1f6feb", "#2a9d5c", "#d1242f", "#b7bec8", "#c77700"
COLOURS = (GREY, "#8a94a6", AMBER, "#7a5cc7", GREEN, "#59a5d8", BLUE, RED)
DELAY_MS, CUT_OFF = 300, 0.05  #: the goal of turn ends


def draw(found: dict[str, Any]) -> str:
    """The picture; of parts that were not run it shows nothing."""
    half = (WIDTH - 3 * GAP) // 2
    panels = [
        (_turn_ends(found["turns"], half) if "turns" in found else []),
        (_yields(found, half) if "overlaps" in found else []),
        (_not_meant(found["overlaps"], half) if "overlaps" in found else []),
        (_echo(found["echo"], half) if "echo" in found else []),
    ]
    body = []
    for number, panel in enumerate(panels):
        x, y = GAP + number % 2 * (half + GAP), GAP + number // 2 * (PANEL + GAP)
        body.append(f'<g transform="translate({x} {y})">{"".join(panel)}</g>')
    bottom = PANEL + LOWER + 3 * GAP
    body.append(f'<g transform="translate({GAP} {bottom})">{"".join(_waterfall(found.get("live")))}</g>')
    height = bottom + 100
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11" fill="#1f2328"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(body)
        + "</svg>\n"
    )


def _title(words: str) -> str:
    return f'<text y="10" font-size="13" font-weight="bold">{escape(words)}</text>'


def _turn_ends(part: dict[str, Any], width: int) -> Iterator[str]:
    """Cut-offs over delay: the fixed silences are a line, the others points."""
    yield _title("Cut off in unfinished words, over the delay of the turn's end")
    left, top, bottom, most = 40, 30, PANEL - 34, 2000.0

    def x(ms: float) -> float:
        return round(left + min(ms, most) / most * (width - left - 10), 1)

    def y(share: float) -> float:
        return round(bottom - share * (bottom - top), 1)

    wide, high = x(DELAY_MS) - x(0), y(0) - y(CUT_OFF)
    yield f'<rect x="{x(0)}" y="{y(CUT_OFF)}" width="{wide}" height="{high}" fill="#cdeccd"/>'
    for share in (0, 0.25, 0.5, 0.75, 1):
        yield f'<path d="M{left} {y(share)}H{width - 10}" stroke="#eee"/>'
        yield f'<text x="{left - 6}" y="{y(share) + 4}" text-anchor="end">{share:.0%}</text>'
    for ms in range(0, 2001, 500):
        yield f'<text x="{x(ms)}" y="{bottom + 16}" text-anchor="middle">{ms} ms</text>'
    points = {
        name: (figures["endpoint_delay_ms"]["p50"], figures["cut_off_unfinished"])
        for name, figures in part["settings"].items()
        if figures["endpoint_delay_ms"]["p50"] is not None
    }
    line = " ".join(f"{x(ms)},{y(cut)}" for name, (ms, cut) in points.items() if name.startswith("server"))
    yield f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>'
    for name, (ms, cut) in points.items():
        fixed = name.startswith("server")
        words = name.removeprefix("server_vad ").removeprefix("semantic_vad ")
        yield f'<circle cx="{x(ms)}" cy="{y(cut)}" r="{3 if fixed else 5}" fill="{BLUE if fixed else RED}"/>'
        down = -4 if fixed else 14
        yield f'<text x="{x(ms) + 6}" y="{y(cut) + down}" fill="{BLUE if fixed else RED}">{escape(words)}</text>'
    yield f'<text x="{left}" y="{PANEL - 2}" fill="#666">median from the last word to the decision; blue: '
    yield "server_vad, red: semantic_vad, green: the goal</text>"


def _yields(found: dict[str, Any], width: int) -> Iterator[str]:
    """Bars: from the first sign of a voice to our last audible sample."""
    yield _title("Yielding: from the first sign of their voice to our last sample")
    rows = [
        (phase, figures["yield_from_hold_ms"], BLUE)
        for phase, figures in found["overlaps"]["interruptions_by_phase"].items()
    ]
    rows += [
        (name, figures["yield_from_hold_ms"], GREEN)
        for name, figures in found["overlaps"]["interruptions_by_condition"].items()
        if name != "quiet"
    ]
    if "live" in found:
        rows.append(("a real server", found["live"]["yield_from_hold_ms"], RED))
    shown = [
        (name, {q: f[q] for q in ("p50", "p99")}, colour) for name, f, colour in rows if f["p50"] is not None
    ]
    most = max([250.0, *(f["p99"] for _, f, _ in shown)])
    yield from _bars(
        [
            (name, f["p50"] / most, f["p99"] / most, f"{f['p50']:.0f}, p99 {f['p99']:.0f} ms", c)
            for name, f, c in shown
        ],
        width,
    )


def _not_meant(part: dict[str, Any], width: int) -> Iterator[str]:
    """Bars: what did not stop us."""
    yield _title("What was not meant for us and did not stop us")
    rows = [
        (kind, f["selectivity"], f["selectivity"], _percent(f["selectivity"]), GREEN)
        for kind, f in part["not_meant_by_kind"].items()
    ]
    whole = part["short"]
    if whole["resumed"] is not None:
        rows.append(
            ("held, then resumed", whole["resumed"], whole["resumed"], _percent(whole["resumed"]), BLUE)
        )
    yield from _bars([row for row in rows if row[1] is not None], width)


def _echo(part: dict[str, Any], width: int) -> Iterator[str]:
    """Bars: how often our echo stopped us."""
    yield _title("Interrupted by our own echo, in 30 minutes of our voice")
    found = {name: f["self_interruptions_per_30_min"] for name, f in part["lines"].items()}
    most = max([1.0, *found.values()])
    rows = [
        (name, rate / most, rate / most, f"{rate:g} ({part['lines'][name]['minutes_of_our_voice']} min)", RED)
        for name, rate in found.items()
    ]
    yield from _bars(rows, width)


def _bars(rows: Sequence[tuple[str, float, float, str, str]], width: int) -> Iterator[str]:
    """Each row: name, length, length of the pale part behind it (both 0..1), words, colour."""
    left = 170
    room = width - left - 110
    step = min(24, (PANEL - 30) // max(1, len(rows)))
    for number, (name, value, pale, words, colour) in enumerate(rows):
        y = 24 + number * step
        yield f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{left}" y="{y}" width="{room * pale:.1f}" height="{step - 9}" fill="{colour}" opacity="0.3"/>'
        yield f'<rect x="{left}" y="{y}" width="{room * value:.1f}" height="{step - 9}" fill="{colour}"/>'
        yield f'<text x="{left + room * pale + 6:.1f}" y="{y + 11}">{escape(words)}</text>'


def _waterfall(part: dict[str, Any] | None) -> Iterator[str]:
    """Where the time of an answer went, on the real server."""
    if not part or not part["latency_parts_ms"]:
        return
    parts = {name: ms for name, ms in part["latency_parts_ms"].items() if ms >= 0.5}
    total = sum(parts.values())
    yield _title(f"An answer's first sound is sent {total:.0f} ms behind the last word (mean, a real server)")
    x = 0.0
    for number, (name, ms) in enumerate(parts.items()):
        wide = ms / total * (WIDTH - 2 * GAP)
        colour = COLOURS[number % len(COLOURS)]
        yield f'<rect x="{x:.1f}" y="24" width="{wide:.1f}" height="22" fill="{colour}"/>'
        yield f'<text x="{x:.1f}" y="{60 + 13 * (number % 3)}">{escape(name)} {ms:.0f}</text>'
        x += wide


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
