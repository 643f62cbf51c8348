"""Cuts a recording into stretches of speech, by its speech probabilities; it knows no audio and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from unicodedata import east_asian_width

from voiceagent.units import MODEL_RATE, PIECE_SAMPLES

WINDOW = 512  #: samples at 16 kHz behind one probability
PADDING = MODEL_RATE // 5  #: kept around speech
SILENCE = MODEL_RATE * 2 // 5  #: so much of it ends a stretch
SEARCH = 5 * MODEL_RATE  #: a stretch that is too long is cut at the quietest window of its last 5 s


def gap(before: str, after: str) -> str:
    """What stands between the words of two stretches: a space, except beside characters that are written without."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return "" if {east_asian_width(before[-1]), east_asian_width(after[0])} & {"W", "F"} else " "


@dataclass(frozen=True, slots=True)
class Span:
    """Samples [start, end) at 16 kHz."""

    start: int
    end: int


@dataclass(slots=True)
class Utterances:
    """Stretches of speech of at most 25 s, in order, without overlap; what lies between them is silence.

    Args:
        threshold: probability that begins a stretch; it goes on while above 0.15 less.
    """

    threshold: float = 0.5
    _start: int | None = None
    _quiet_from: int | None = None
    _edge: int = 0  #: end of the last stretch
    _windows: list[tuple[int, float]] = field(
        default_factory=list
    )  #: (end, probability) of the stretch so far

    def push(self, at: int, p: float) -> Span | None:
        """Takes the probability of the window that ends at sample `at`; returns a stretch that has ended."""
        if self._start is None:
            if p < self.threshold:
                return None
            self._start = max(self._edge, at - WINDOW - PADDING)
        self._windows.append((at, p))
        if p >= self.threshold - 0.15:
            self._quiet_from = None
        elif self._quiet_from is None:
            self._quiet_from = at - WINDOW
        if self._quiet_from is not None and at - self._quiet_from >= SILENCE:
            return self._close(self._quiet_from + PADDING)
        if at - self._start + WINDOW > PIECE_SAMPLES:
            return self._split(at)
        return None

    def finish(self, end: int) -> Span | None:
        """The stretch that is still open when the recording ends at sample `end`."""
        if self._start is None or end <= self._start:  # nothing has come behind the last cut
            return None
        until = end if self._quiet_from is None else min(end, self._quiet_from + PADDING)
        return self._close(min(until, self._start + PIECE_SAMPLES))

    def _close(self, end: int) -> Span:
        assert self._start is not None
        span = Span(self._start, end)
        self._start, self._quiet_from, self._edge, self._windows = None, None, end, []
        return span

    def _split(self, at: int) -> Span:
        """Cuts where a pause is likeliest; speech goes on right behind the cut."""
        late = [(p, -end) for end, p in self._windows if end > at - SEARCH]
        cut = -min(late)[1]
        rest = [(end, p) for end, p in self._windows if end > cut]
        span = self._close(cut)
        self._start, self._windows = cut, rest
        return span
