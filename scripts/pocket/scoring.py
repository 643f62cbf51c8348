"""Marks answers: intent and slots apart, shares, tallies, and how much chance decides about a figure. Asks no model."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Asked(Protocol):
    """A question with its right reply and the values that it should read back."""

    @property
    def reply(self) -> str: ...

    @property
    def slots(self) -> Mapping[str, str]: ...


def same_intent(question: Asked, text: str) -> bool:
    """Whether the reply is the right one but for the words of the slots."""
    words = set(" ".join(question.slots.values()).split())
    parts: list[str] = []
    for word in question.reply.split():
        bare = word.strip(".,?")
        part = r"[^.?]+?" if bare in words else re.escape(bare)
        if not (parts and part == parts[-1] == r"[^.?]+?"):
            parts.append(part)
    return re.fullmatch(r"[ .,?]+".join(parts) + r"[.,?]*", text) is not None


def slots_right(question: Asked, text: str) -> list[bool]:
    """For every slot that the right reply repeats: whether the reply has all of its words."""
    expected, got = (
        question.reply.replace(",", "").strip(".?").split(),
        text.replace(",", "").strip(".?").split(),
    )
    out = []
    for value in question.slots.values():
        words = value.split()
        if words and all(word in expected for word in words):
            out.append(all(got.count(word) >= words.count(word) for word in words))
    return out


def engine(voice: str) -> str:
    """The synthesiser's part of a voice's name."""
    return re.split(r"[:/ ]", voice)[0]


def percent(values: Any) -> float | None:
    """Share of true values in percent; None of nothing."""
    listed = [bool(value) for value in values]
    return round(100 * sum(listed) / len(listed), 1) if listed else None


def tally(pairs: Any) -> dict[str, str]:
    """ "right/all" by name."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, ok in pairs:
        groups[name].append(ok)
    return {name: f"{sum(values)}/{len(values)}" for name, values in sorted(groups.items())}


def rounded(values: tuple[float, float]) -> tuple[float, float]:
    return round(values[0], 1), round(values[1], 1)


def wilson(right: int, count: int, *, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of `right` in `count`, in percent (Wilson 1927); (0, 100) of nothing."""
    if not count:
        return 0.0, 100.0
    share, zz = right / count, z * z / count
    middle = (share + zz / 2) / (1 + zz)
    half = z * math.sqrt(share * (1 - share) / count + zz / (4 * count)) / (1 + zz)
    return round(100 * max(0.0, middle - half), 1), round(100 * min(1.0, middle + half), 1)


def bootstrap(parts: Sequence[tuple[float, float]], *, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of sum(errors) / sum(size) over resampled (errors, size) pairs, in percent."""
    if not parts:
        return 0.0, 100.0
    values = np.array(parts, np.float64)
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    errors, sizes = values[drawn].sum(axis=1).T
    low, high = np.percentile(100 * errors / np.maximum(sizes, 1e-9), [2.5, 97.5])
    return round(float(low), 1), round(float(high), 1)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """How often a positive case scores above a negative one, ties half (Mann and Whitney 1947); None of nothing."""
    if not positive or not negative:
        return None
    scores = np.concatenate([positive, negative])
    order = np.sort(scores)
    ranks = (np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right") + 1) / 2
    n = len(positive)
    return round(float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative))), 3)
