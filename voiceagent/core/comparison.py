"""Two runs of one call side by side: what is the same decision, sooner or later, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from voiceagent.core.replay import Decision


@dataclass(frozen=True, slots=True)
class Row:
    """One decision: when it was taken, and when it would have been; None = not at all. Seconds."""

    what: str
    was: float | None
    would_be: float | None

    @property
    def later(self) -> float:
        """By how many seconds it would have been later; 0 if one run does not have it."""
        return 0.0 if self.was is None or self.would_be is None else self.would_be - self.was


def compare(was: Sequence[Decision], would_be: Sequence[Decision]) -> list[Row]:
    """The decisions of both in order. Turns are told apart by their place in the call, not by their number."""
    old, new = _told(was), _told(would_be)
    return list(_rows(old, new))


def _told(decisions: Sequence[Decision]) -> list[Decision]:
    return [decision for decision in decisions if decision.what]


def _rows(old: Sequence[Decision], new: Sequence[Decision]) -> Iterator[Row]:
    matcher = SequenceMatcher(None, [d.what for d in old], [d.what for d in new], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            yield from (Row(x.what, x.time, y.time) for x, y in zip(old[a:b], new[c:d], strict=True))
        else:
            yield from (Row(x.what, x.time, None) for x in old[a:b])
            yield from (Row(y.what, None, y.time) for y in new[c:d])
