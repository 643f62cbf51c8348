"""The pages of all conversations: against a slow model in which every sequence has a list of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tiny_checkpoint import tiny_config

from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence, PageLedger, page_bytes

SIZE = 12
TEXT = tiny_config().text


@dataclass(slots=True)
class Written:
    """A sequence and what should be readable at its positions."""

    sequence: KvSequence
    expected: list[int] = field(default_factory=list)


class Conversations(RuleBasedStateMachine):
    """Any order of writing, forking, cutting and freeing, over a memory that is often full."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = PageLedger(SIZE)
        self.memory = [[-1] * PAGE for _ in range(SIZE)]
        self.held: list[Written] = []
        self.stamp = 0

    def copy(self, source: int, target: int) -> None:
        self.memory[target] = list(self.memory[source])

    def some(self, data: st.DataObject) -> Written:
        return data.draw(st.sampled_from(self.held))

    @rule()
    def open(self) -> None:
        self.held.append(Written(KvSequence(self.ledger, self.copy)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, 3 * PAGE), ahead=st.sampled_from([0, 1, PAGE]))
    def write(self, data: st.DataObject, count: int, ahead: int) -> None:
        one = self.some(data)
        sequence = one.sequence
        before = (list(sequence.pages), self.ledger.free)
        try:
            sequence.reserve(sequence.length + count + ahead)
        except CapacityError:
            assert (list(sequence.pages), self.ledger.free) == before
            return
        for place in sequence.places(sequence.length, sequence.length + count):
            self.stamp += 1
            self.memory[place // PAGE][place % PAGE] = self.stamp
            one.expected.append(self.stamp)
        sequence.advance(count)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        one = self.some(data)
        before = self.ledger.free
        self.held.append(Written(one.sequence.fork(), list(one.expected)))
        assert self.ledger.free == before

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        one = self.some(data)
        length = data.draw(st.integers(0, one.sequence.length))
        one.sequence.truncate(length)
        del one.expected[length:]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        one = self.some(data)
        one.sequence.free()
        one.sequence.free()
        self.held.remove(one)

    @invariant()
    def everything_is_where_it_was_written(self) -> None:
        for one in self.held:
            places = one.sequence.places(0, one.sequence.length)
            assert [self.memory[place // PAGE][place % PAGE] for place in places] == one.expected

    @invariant()
    def pages_are_counted(self) -> None:
        used = [page for one in self.held for page in one.sequence.pages]
        assert [self.ledger.uses(page) for page in range(SIZE)] == [used.count(p) for p in range(SIZE)]
        assert self.ledger.free == SIZE - len(set(used))

    def teardown(self) -> None:
        for one in self.held:
            one.sequence.free()
        assert self.ledger.free == SIZE


Conversations.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestConversations = Conversations.TestCase


def sequence_of(ledger: PageLedger, pages: int) -> KvSequence:
    sequence = KvSequence(ledger, lambda *_: None)
    sequence.reserve(pages * PAGE)
    sequence.advance(pages * PAGE)
    return sequence


def test_pages_come_in_a_row_and_leave_each_other_room_to_grow() -> None:
    ledger = PageLedger(100)
    first, second = sequence_of(ledger, 3), sequence_of(ledger, 3)
    for length in range(3, 20):
        for sequence in (first, second):
            sequence.reserve((length + 1) * PAGE)
    for sequence in (first, second):
        assert sequence.pages == list(range(sequence.pages[0], sequence.pages[0] + 20))


def test_a_long_prompt_comes_in_a_row_if_any_gap_holds_it() -> None:
    ledger = PageLedger(30)
    sequence_of(ledger, 2)
    long = sequence_of(ledger, 25)
    assert long.pages == list(range(long.pages[0], long.pages[0] + 25))


def test_a_fork_copies_nothing_but_a_shared_page_that_is_written() -> None:
    copies: list[tuple[int, int]] = []
    sequence = KvSequence(PageLedger(10), lambda *pair: copies.append(pair))
    sequence.reserve(PAGE + 5)
    sequence.advance(PAGE + 5)
    twin = sequence.fork()
    assert (twin.pages, twin.length, copies) == (sequence.pages, sequence.length, [])
    twin.reserve(PAGE + 6)
    assert copies == [(sequence.pages[1], twin.pages[1])]
    sequence.reserve(PAGE + 6)  # alone in its page again
    assert len(copies) == 1


def test_truncating_beyond_the_end_is_refused() -> None:
    sequence = sequence_of(PageLedger(3), 1)
    for length in (-1, PAGE + 1):
        with pytest.raises(ValueError, match="truncate"):
            sequence.truncate(length)


def test_the_pool_is_as_large_as_its_budget() -> None:
    pool = KvPool(TEXT, nbytes=5 * page_bytes(TEXT, torch.float32) + 7, device="cpu", dtype=torch.float32)
    assert pool.tensor.shape == (2, 2, 5, PAGE, 2, 8)
    assert pool.tensor.nbytes == 5 * page_bytes(TEXT, torch.float32)
    assert pool.positions == pool.free_positions == 5 * PAGE
    with pytest.raises(CapacityError, match="kv_memory_mb"):
        KvPool(TEXT, nbytes=100, device="cpu", dtype=torch.float32)


def test_the_pools_forks_hold_the_same_values() -> None:
    pool = KvPool(TEXT, nbytes=2 * page_bytes(TEXT, torch.float32), device="cpu", dtype=torch.float32)
    sequence = pool.open()
    sequence.reserve(10)
    sequence.advance(10)
    pool.tensor[:, :, sequence.pages[0]] = 3.0
    twin = sequence.fork()
    twin.reserve(11)
    assert bool((pool.tensor[:, :, twin.pages[0]] == 3.0).all())
    with pytest.raises(CapacityError, match="full") as caught:
        sequence.reserve(PAGE + 1)
    assert caught.value.code == "kv_full"
