"""The paged memory of keys and values that all conversations share; it knows no token and no network.

`PageLedger` and `KvSequence` are pure bookkeeping. `KvPool` adds the tensor that the pages number. A page is used by
as many sequences as share that part of their past; it is copied when one of them is about to write into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.config import TextConfig

PAGE = 64  #: positions of a page


class PageLedger:
    """How many sequences use each page; 0 is free.

    Attributes:
        free: pages that nobody uses.
    """

    def __init__(self, size: int) -> None:
        self._uses: NDArray[np.int32] = np.zeros(size, np.int32)
        self.free = size

    @property
    def size(self) -> int:
        """All pages."""
        return len(self._uses)

    def uses(self, page: int) -> int:
        """How many sequences share a page."""
        return int(self._uses[page])

    def take(self, count: int, *, after: int | None = None) -> list[int]:
        """Free pages for one sequence, right behind page `after` and in a row as far as there is room.

        Raises:
            CapacityError: fewer than `count` are free (code "kv_full"); nothing was taken.
        """
        if count > self.free:
            raise CapacityError(
                f"The memory for conversations is full: {count} pages wanted, {self.free} of {self.size} are free.",
                code="kv_full",
                remedy="Try again when another conversation has ended, or raise engine.kv_memory_mb.",
            )
        taken: list[int] = []
        page = -1 if after is None else after + 1
        for missing in range(count, 0, -1):
            if not 0 <= page < self.size or self._uses[page]:
                page = self._widest(missing)
            self._uses[page] = 1
            taken.append(page)
            page += 1
        self.free -= count
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """Counts one more user of pages that are in use."""
        for page in pages:
            assert self._uses[page] > 0, "a free page cannot be shared"
            self._uses[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Counts one user less; without any, a page is free."""
        for page in pages:
            assert self._uses[page] > 0, "a free page cannot be released"
            self._uses[page] -= 1
            self.free += int(self._uses[page] == 0)

    def _widest(self, count: int) -> int:
        """Where `count` pages go: into the middle of the widest gap, so that its neighbour below can grow too."""
        edges = np.flatnonzero(np.diff(self._uses == 0, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        widest = int((ends - starts).argmax())
        start, end = int(starts[widest]), int(ends[widest])
        return start if start == 0 else max(start, min((start + end) // 2, end - count))


class KvSequence:
    """The positions of one conversation: which pages, in order, and how many positions of them are held.

    Args:
        ledger: of the pool.
        copy: copies the contents of one page to another.

    Attributes:
        pages: numbers of the pages; position p lies in `pages[p // PAGE]` at p % PAGE.
        length: positions held. Room may be reserved beyond it.
        changes: grows whenever `pages` changes.
    """

    __slots__ = ("_copy", "_ledger", "changes", "length", "pages")

    def __init__(self, ledger: PageLedger, copy: Callable[[int, int], None]) -> None:
        self._ledger, self._copy = ledger, copy
        self.pages: list[int] = []
        self.length = self.changes = 0

    @property
    def room(self) -> int:
        """Positions that may be held before another page is needed."""
        return len(self.pages) * PAGE

    def reserve(self, length: int) -> None:
        """Makes everything from the present length up to `length` this sequence's own, ready to be written.

        Raises:
            CapacityError: there are not enough free pages (code "kv_full"); nothing has changed.
        """
        if length <= self.length:
            return
        first = self.length // PAGE
        end = min(-(-length // PAGE), len(self.pages))
        shared = [at for at in range(first, end) if self._ledger.uses(self.pages[at]) > 1]
        more = max(0, -(-length // PAGE) - len(self.pages))
        if not shared and not more:
            return
        taken = self._ledger.take(len(shared) + more, after=self.pages[-1] if self.pages else None)
        for at, page in zip(shared, taken[: len(shared)], strict=True):
            self._copy(self.pages[at], page)
            self._ledger.release([self.pages[at]])
            self.pages[at] = page
        self.pages += taken[len(shared) :]
        self.changes += 1

    def advance(self, positions: int) -> None:
        """Counts positions that were reserved and are now written."""
        assert self.length + positions <= self.room, "reserve comes first"
        self.length += positions

    def truncate(self, length: int) -> None:
        """Forgets everything from position `length` on and gives back pages that are not needed for the rest.

        Raises:
            ValueError: `length` is negative or beyond what is held.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a sequence of {self.length} positions to {length}")
        keep = -(-length // PAGE)
        if self.pages[keep:]:
            self._ledger.release(self.pages[keep:])
            del self.pages[keep:]
            self.changes += 1
        self.length = length

    def fork(self) -> KvSequence:
        """Another sequence with the same positions; nothing is copied until one of the two writes."""
        twin = KvSequence(self._ledger, self._copy)
        twin.pages = self.pages[: -(-self.length // PAGE)]
        twin.length = self.length
        self._ledger.share(twin.pages)
        return twin

    def free(self) -> None:
        """Gives everything back; the sequence is empty then and may be used again."""
        self.truncate(0)

    def place(self, position: int) -> int:
        """Where a position lies in the pool: page * PAGE + offset."""
        return self.pages[position // PAGE] * PAGE + position % PAGE

    def places(self, start: int, stop: int) -> list[int]:
        """`place` of start..stop-1."""
        return [self.place(at) for at in range(start, stop)]


class KvPool:
    """The keys and values of all conversations of one model; its size is fixed.

    Attributes:
        tensor: (layers, 2, pages, PAGE, kv_heads, head_dim), keys at 0 and values at 1.
        ledger: who uses which page.
    """

    def __init__(
        self, config: TextConfig, *, nbytes: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        pages = nbytes // page_bytes(config, dtype)
        if pages < 1:
            raise CapacityError(
                f"{nbytes} bytes do not hold a single page of keys and values.",
                code="kv_full",
                remedy="Raise engine.kv_memory_mb.",
            )
        shape = (config.num_hidden_layers, 2, pages, PAGE, config.num_key_value_heads, config.head_dim)
        # What was never written is never read on the CPU, so that its memory need not even exist.
        make = torch.empty if torch.device(device).type == "cpu" else torch.zeros
        self.tensor: Tensor = make(shape, device=device, dtype=dtype)
        self.ledger = PageLedger(pages)

    @property
    def positions(self) -> int:
        """Positions of all pages together."""
        return self.ledger.size * PAGE

    @property
    def free_positions(self) -> int:
        """Positions of the pages that nobody uses."""
        return self.ledger.free * PAGE

    def open(self) -> KvSequence:
        """An empty sequence."""
        return KvSequence(self.ledger, self._copy_page)

    @torch.inference_mode()
    def _copy_page(self, source: int, target: int) -> None:
        self.tensor[:, :, target].copy_(self.tensor[:, :, source])


def page_bytes(config: TextConfig, dtype: torch.dtype) -> int:
    """Bytes of one page over all layers."""
    width = config.num_key_value_heads * config.head_dim
    return 2 * config.num_hidden_layers * PAGE * width * dtype.itemsize
