"""How every kernel of a decoding step is cut and started, by the number of rows; it starts none.

`MEASURED` holds the quickest found on an H200 for the sizes of Step-Audio-2-mini, and nothing that was not measured:
scripts/bench/tiles.py times other choices with `using`, and whoever has its figures changes the entries here. Some ways
wait for that, and are off: `Joined.turned`, and `Sampling`'s `late` and more than one of its `pivots`.

`early` everywhere: the kernel may start while the one before it ends (see `language.launch`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

Choice = TypeVar("Choice")

MOST_ROWS = 64  #: that one program of a product holds the sums of
_ANY = 1 << 30  # rows


class Tile(NamedTuple):
    """How a product is cut: outputs of a program, inputs of a step, warps, stages of loading, programs per output."""

    outputs: int
    inputs: int
    warps: int
    stages: int
    splits: int = 1
    early: bool = False


class Joined(NamedTuple):
    """The product of queries, keys and values.

    `tile`: None for torch's own product. `turned`: its parts are added up by the pass that rotates and stores them,
    instead of one of their own; for that it needs a tile.
    """

    tile: Tile | None
    turned: bool = False


class Attention(NamedTuple):
    """Programs wanted in all, warps, stages of loading where a row has one program and where it has several.

    512 programs are about four for each of 132 multiprocessors. Many programs of one row's: few stages, since another
    program in a multiprocessor is worth more.
    """

    programs: int
    warps: int
    stages: int
    split_stages: int
    early: bool = True
    merge_early: bool = True


class Sampling(NamedTuple):
    """Of the draw: warps of the shortlist's kernels, numbers that its searches try at once (a power of two), and ids of
    a program that passes over rows which the shortlist has drawn. `late`: only what is near the list is divided by a
    penalty and listed one by one."""

    guess_warps: int = 8
    list_warps: int = 4
    settle_warps: int = 8
    pivots: int = 1
    long_block: int = 8192
    late: bool = False
    early: bool = True


@dataclass(frozen=True, slots=True)
class Choices:
    """One choice for each range of rows, its largest number before it; beyond the last range torch's product is taken.

    Attributes:
        joined: the product of queries, keys and values.
        added: products with a residual behind them, whose parts the next norm adds up.
        gated: products of a gate.
        plain: other products.
        attention: over pages; for any number of rows.
        sampling: the draw; for any number of rows.
        finish_early: the passes that add up a product's parts.
        finish_warps: of the one that makes the next norm too, a program for each row.
        turn_early: the pass that rotates and stores.
        turn_heads: that a program of it takes, a power of two.
    """

    joined: tuple[tuple[int, Joined], ...]
    added: tuple[tuple[int, Tile], ...]
    gated: tuple[tuple[int, Tile], ...]
    plain: tuple[tuple[int, Tile], ...]
    attention: tuple[tuple[int, Attention], ...]
    sampling: tuple[tuple[int, Sampling], ...]
    finish_early: bool = True
    finish_warps: int = 8
    turn_early: bool = True
    turn_heads: int = 4

    def __post_init__(self) -> None:
        for most, joined in self.joined:
            if joined.turned and joined.tile is None:
                raise ValueError(
                    f"joined, {most} rows: torch's own product is whole, there are no parts to turn"
                )
        products = (*self.added, *self.gated, *self.plain, *((most, one.tile) for most, one in self.joined))
        for most, tile in products:
            if tile is not None:
                _check_tile(most, tile)
        for _, sampling in self.sampling:
            if not _power_of_2(sampling.pivots):
                raise ValueError(f"a search tries a power of two of numbers at once, not {sampling.pivots}")
        if not (_power_of_2(self.finish_warps) and _power_of_2(self.turn_heads)):
            raise ValueError("finish_warps and turn_heads are powers of two")
        if any(table[-1][0] < _ANY for table in (self.attention, self.sampling)):
            raise ValueError(
                "attention and sampling have no other way, and need a choice for any number of rows"
            )


def _check_tile(most: int, tile: Tile) -> None:
    """Raises ValueError for what Triton or the kernels cannot do; what the memory of a device allows is cut later."""
    numbers = (tile.outputs, tile.inputs, tile.warps)
    if most > MOST_ROWS:
        raise ValueError(f"{tile}: the sums of {most} rows do not fit one program, which holds {MOST_ROWS}")
    if not all(map(_power_of_2, numbers)) or tile.inputs < 16 or (most > 1 and tile.outputs < 16):
        raise ValueError(f"{tile}: outputs, inputs and warps are powers of two, the first two 16 or more")
    if tile.splits < 1 or tile.stages < 1:
        raise ValueError(f"{tile}: splits and stages are 1 or more")


def _power_of_2(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


_ONE = Tile(8, 512, 4, 3, early=True)  # its weights are under way before the kernel before has ended
_FEW = Tile(64, 128, 4, 3, splits=4)

MEASURED = Choices(
    joined=((1, Joined(_ONE)), (16, Joined(_FEW))),
    added=((1, _ONE), (16, _FEW), (64, Tile(128, 128, 4, 4, splits=3))),
    gated=((1, _ONE), (16, Tile(32, 128, 4, 3)), (64, Tile(64, 64, 4, 6))),
    plain=((1, _ONE), (16, _FEW)),
    attention=((31, Attention(512, 4, 2, 3)), (_ANY, Attention(512, 2, 2, 3))),
    sampling=((_ANY, Sampling()),),
)

_now = MEASURED


def now() -> Choices:
    """The choices in force."""
    return _now


@contextmanager
def using(**changes: object) -> Iterator[Choices]:
    """Other choices for as long as it is open, in this process; for measuring and checking.

    Raises:
        ValueError: one that cannot be; it says why.
    """
    global _now
    before = _now
    _now = replace(before, **changes)  # type: ignore[arg-type]
    try:
        yield _now
    finally:
        _now = before


def of(table: tuple[tuple[int, Choice], ...], rows: int) -> Choice | None:
    """The choice for so many rows, or None beyond the last range."""
    return next((choice for most, choice in table if rows <= most), None)
