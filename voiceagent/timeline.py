"""A picture of a call: both voices, how sure the voice detector was, and what was decided when. It decides nothing."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from voiceagent.core import events as ev
from voiceagent.core import journal
from voiceagent.core.comparison import Row

SAME_S = 0.005  #: decisions that differ by less are at the same moment
WIDTH, LONGEST = 1200, 30.0  # pixels and seconds of one line
HEIGHT, HALF = 190, 26  # of a line, and of one voice
STEP = 0.05  # seconds of sound behind a bar


def draw(
    entries: Sequence[journal.Entry], rows: Sequence[Row], sound: Path | None, settings: dict[str, Any]
) -> str:
    """The call as SVG, half a minute a line: the person above, we below, and what was decided.

    Args:
        entries: of the journal.
        rows: the decisions.
        sound: the call's WAV file; without it the voices are not drawn.
        settings: named in the legend; empty = nothing was changed.
    """
    voices = _loudness(sound)
    odds = [(e.time, e.event.p) for e in entries if isinstance(e.event, ev.SpeechProb)]
    end = max([e.time for e in entries] + [len(voices) * STEP, 1.0])
    span = min(LONGEST, float(np.ceil(end)))
    lines = int(np.ceil(end / span))
    legend = "as it was" + (
        " (black), with " + ", ".join(f"{n}={v}" for n, v in settings.items()) + " (red)" if settings else ""
    )
    body = [f'<text x="8" y="16" font-weight="bold">{html.escape(legend)}</text>']
    for number in range(lines):
        start = number * span
        body.append(f'<g transform="translate(0 {24 + number * HEIGHT})">')
        body += _line(start, span, voices, odds, rows)
        body.append("</g>")
    height = 32 + lines * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>' + "".join(body) + "</svg>"
    )


def _line(
    start: float,
    span: float,
    voices: npt.NDArray[np.float64],
    odds: Sequence[tuple[float, float]],
    rows: Sequence[Row],
) -> Iterator[str]:
    def x(time: float) -> float:
        return round((time - start) / span * WIDTH, 1)

    middle = HEIGHT - HALF - 14
    for second in range(int(span) + 1):
        yield f'<path d="M{x(start + second)} {middle - HALF}v{2 * HALF}" stroke="#eee"/>'
        if second % 5 == 0:
            yield f'<text x="{x(start + second) + 2}" y="{HEIGHT - 2}" fill="#888">{start + second:.0f} s</text>'
    first = int(start / STEP)
    for at, (theirs, ours) in enumerate(voices[first : first + int(span / STEP)], start=first):
        bar = f'x="{x(at * STEP)}" width="{STEP / span * WIDTH:.1f}"'
        yield f'<rect {bar} y="{middle - HALF * theirs:.1f}" height="{HALF * theirs:.1f}" fill="#2a7"/>'
        yield f'<rect {bar} y="{middle}" height="{HALF * ours:.1f}" fill="#47c"/>'
    points = " ".join(f"{x(t)},{middle - HALF * p:.1f}" for t, p in odds if start <= t < start + span)
    yield f'<polyline points="{points}" fill="none" stroke="#b60" stroke-width="0.7"/>'
    yield from _marks([(row.was, row.what) for row in rows], x, start + span, "black", depth=0)
    moved = [row for row in rows if row.was is None or abs(row.later) >= SAME_S]
    yield from _marks([(row.would_be, row.what) for row in moved], x, start + span, "#c22", depth=6)


def _marks(
    decisions: Sequence[tuple[float | None, str]],
    x: Callable[[float], float],
    end: float,
    colour: str,
    *,
    depth: int,
) -> Iterator[str]:
    """Lines of falling height, so that the words of neighbours stand below each other."""
    here = [(time, what) for time, what in decisions if time is not None and x(time) >= 0 and time < end]
    for number, (time, what) in enumerate(here, start=depth):
        top = 12 + 12 * (number % 8)
        yield f'<path d="M{x(time)} {top}V{HEIGHT - 14}" stroke="{colour}" stroke-width="0.8"/>'
        yield f'<text x="{x(time) + 3}" y="{top + 4}" fill="{colour}">{html.escape(what)}</text>'


def _loudness(sound: Path | None) -> npt.NDArray[np.float64]:
    """(n, 2): the person's and our loudness, a row per STEP; 0 for silence, 1 for the loudest."""
    if sound is None:
        return np.zeros((0, 2))
    with soundfile.SoundFile(sound) as file:
        size = int(STEP * file.samplerate)
        powers = [np.mean(block**2, axis=0) for block in file.blocks(size, always_2d=True) if len(block)]
    if not powers:
        return np.zeros((0, 2))
    level: npt.NDArray[np.float64] = np.clip(1.0 + np.log10(np.array(powers) + 1e-12) / 6.0, 0.0, 1.0)
    return level
