"""The loop under any order of commands, steps and finished speech: no turn is lost, mixed, or worked on when over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from engine_helpers import OPTIONS, piece, said, spoke
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core.history import Item, Piece
from voiceagent.engine import api, mapping
from voiceagent.engine.fake import FakeJob, FakeReading, FakeRunner, Script, numbered
from voiceagent.engine.loop import Loop
from voiceagent.engine.protocol import Pcm, Speech, Written
from voiceagent.engine.scheduler import Limits
from voiceagent.engine.slots import Turn, item_pieces
from voiceagent.errors import CapacityError

ROOM = 3  #: turns that the strict runner has memory for


class StrictRunner(FakeRunner):
    """Plays the script, and insists that every job is begun, read, worked on and finished as it should be."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(Script(speech_ids=40, chunk_ids=5), limits=limits)
        self.unread: dict[int, int] = {}  # by identity of the job
        self.open: dict[int, Any] = {}
        self.over: set[tuple[int, int]] = set()  # turns that were told to be over
        self.vocoding: set[int] = set()

    def begin(self, turn: Turn) -> FakeJob:
        named = {(turn.session, p.id) for item in turn.items for p in item_pieces(item)}
        assert named <= self.encoded, "its audio is not encoded"
        if sum(isinstance(job, FakeJob) for job in self.open.values()) >= ROOM:
            raise CapacityError("The memory is full.", code="kv_full")
        return self._take(super().begin(turn), 3)

    def listen(self, session: int, pieces: tuple[Piece, ...], **_: Any) -> FakeReading:
        return self._take(super().listen(session, pieces), 2)

    def prepare(self, session: int, items: tuple[Item, ...], options: api.Options) -> FakeReading:
        assert not any(isinstance(j, FakeJob) and j.turn.session == session and id(j) not in self.vocoding
                       for j in self.open.values()), "its context is in use"  # fmt: skip
        return self._take(super().prepare(session, items, options), 2)

    def _take(self, job: Any, slices: int) -> Any:
        self.open[id(job)] = job
        self.unread[id(job)] = slices
        return job

    def read(self, job: FakeJob | FakeReading, positions: int) -> bool:
        self.check(job)
        assert self.unread[id(job)] > 0
        self.unread[id(job)] -= 1
        return self.unread[id(job)] == 0

    def decode(self, jobs: Sequence[FakeJob | FakeReading]) -> list[Written | Exception]:
        assert 0 < len(jobs) <= self.limits.batch
        assert len({id(job) for job in jobs}) == len(jobs)
        for job in jobs:
            self.check(job)
            assert self.unread[id(job)] == 0
        return super().decode(jobs)

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        assert 0 < len(parts) <= self.limits.speech
        assert all(len(part.ids) == 5 or part.last for part in parts)
        return super().vocode(parts)

    def finish(self, job: FakeJob | FakeReading) -> None:
        assert id(job) not in self.vocoding, "under the vocoder's hands"
        del self.open[id(job)]

    def is_device_loss(self, error: BaseException) -> bool:
        return False

    def check(self, job: FakeJob | FakeReading) -> None:
        assert id(job) in self.open, "it was finished, or never begun"
        if isinstance(job, FakeJob):
            assert (job.turn.session, job.turn.turn) not in self.over, "its turn is over"


class SlowLane:
    """A lane that finishes its work when the test says so."""

    def __init__(self, runner: StrictRunner, threads: int) -> None:
        self.runner, self.threads = runner, threads
        self.work: list[tuple[Any, Any, list[int]]] = []

    @property
    def busy(self) -> bool:
        return len(self.work) >= self.threads

    def stuck(self, seconds: float) -> bool:
        return False

    def submit(self, work: Any, done: Any) -> None:
        assert not self.busy
        parts = next(c.cell_contents for c in work.__closure__ if isinstance(c.cell_contents, list))
        jobs = [id(part.job) for part in parts]
        assert not self.runner.vocoding.intersection(jobs), "a stream twice at once"
        self.runner.vocoding.update(jobs)
        self.work.append((work, done, jobs))

    def finish(self) -> None:
        if self.work:
            work, done, jobs = self.work.pop(0)
            outcome = work()
            self.runner.vocoding.difference_update(jobs)
            done(outcome)


class Story:
    """A loop with the strict runner, and what a listener of each turn has got."""

    def __init__(self, limits: Limits, lanes: int) -> None:
        self.runner = StrictRunner(limits)
        self.lane = SlowLane(self.runner, lanes) if lanes else None
        self.now = 0.0
        self.turns = 0
        self.begun: dict[tuple[int, int], str] = {}
        self.ended: dict[tuple[int, int], api.Reply] = {}
        self.samples: dict[tuple[int, int], int] = {}
        self.captions: list[tuple[int, str]] = []
        self.loop = Loop(self.runner, max_sessions=4, emit=self.emit, clock=self.clock, lane=self.lane)  # type: ignore[arg-type]
        for session in range(4):
            self.loop.command(api.OpenSession(session))

    def clock(self) -> float:
        self.now += 0.003
        return self.now

    def emit(self, reply: api.Reply) -> None:
        key = (getattr(reply, "session", -1), getattr(reply, "turn", -1))
        if key in self.begun:
            assert key not in self.ended, "something came after the end"
        match reply:
            case api.Sound():
                pcm = np.frombuffer(reply.pcm, "<i2")
                start = self.samples.get(key, 0)
                assert np.array_equal(pcm, numbered(session=key[0], turn=key[1], start=start, count=len(pcm)))
                self.samples[key] = start + len(pcm)
            case api.Ended() | api.Failed():
                self.ended[key] = reply
                self.runner.over.add(key)
            case api.Wrote():
                self.captions.append((reply.session, reply.item_id))
            case _:
                pass

    def do(self, what: str, session: int) -> None:
        wire = tuple(mapping.item_to_wire(item) for item in said("hello you"))
        match what:
            case "begin" | "begin heard":
                self.turns += 1
                self.begun[session, self.turns] = what
                if what == "begin heard":
                    self.loop.command(
                        api.Encode(session, self.turns, mapping.piece_to_bytes(piece(self.turns)))
                    )
                    wire = tuple(mapping.item_to_wire(item) for item in spoke(piece(self.turns)))
                self.loop.command(api.Begin(session, self.turns, wire, OPTIONS))
            case "cancel":
                for key in [key for key in self.begun if key[0] == session and key not in self.ended][:1]:
                    self.loop.command(api.Cancel(*key))
                    assert key in self.ended, "a cancel is answered at once"
            case "reopen":
                self.runner.over |= {key for key in self.begun if key[0] == session}
                self.ended |= {key: api.Pong(0) for key in self.begun if key[0] == session}
                self.loop.command(api.CloseSession(session))
                self.loop.command(api.OpenSession(session))
            case "caption":
                self.turns += 1
                self.loop.command(api.Encode(session, self.turns, mapping.piece_to_bytes(piece(self.turns))))
                self.loop.command(api.Write(session, str(self.turns), (self.turns,)))
            case "prepare":
                self.loop.command(api.Prepare(session, wire, OPTIONS))
            case "speech" if self.lane is not None:
                self.lane.finish()
            case _:
                self.loop.step()

    def finish(self) -> None:
        for _ in range(5000):
            if not self.loop.step():
                if self.lane is None or not self.lane.work:
                    break
                self.lane.finish()
        assert not self.runner.open, "jobs that nobody finished"
        assert set(self.begun) == set(self.ended), "turns that nobody ended"
        for key, reply in self.ended.items():
            if isinstance(reply, api.Ended) and reply.reason == "stop":
                assert self.samples[key] == 40 * 960
            elif isinstance(reply, api.Failed):
                assert reply.code in {"kv_full", "overloaded"}


deeds = st.sampled_from(
    [
        "begin",
        "begin",
        "begin heard",
        "cancel",
        "reopen",
        "caption",
        "prepare",
        "speech",
        "step",
        "step",
        "step",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    deeds=st.lists(st.tuples(deeds, st.integers(0, 3)), max_size=80),
    limits=st.sampled_from([Limits(), Limits(batch=1), Limits(batch=3, encode=4, speech=4, shared=True)]),
    lanes=st.integers(0, 2),
)
def test_no_order_of_events_loses_or_mixes_a_turn(
    deeds: list[tuple[str, int]], limits: Limits, lanes: int
) -> None:
    story = Story(limits, lanes)
    for what, session in deeds:
        story.do(what, session)
    story.finish()


def test_a_full_memory_fails_the_turn_that_it_is_full_for_and_frees_with_the_others() -> None:
    story = Story(Limits(batch=8), lanes=0)
    for session in range(4):
        story.do("begin", session)
    story.finish()
    assert [type(story.ended[n, n + 1]) for n in range(4)] == [api.Ended] * ROOM + [api.Failed]
    story.do("begin", 3)
    story.finish()
    assert story.samples[3, 5] == 40 * 960


class Fragile(StrictRunner):
    """A batch with session 1 in it fails as a whole; so does session 1 alone."""

    def decode(self, jobs: Sequence[FakeJob | FakeReading]) -> list[Written | Exception]:
        if any(isinstance(job, FakeJob) and job.turn.session == 1 for job in jobs):
            raise MemoryError("no room for this batch")
        return super().decode(jobs)

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        if any(part.job.turn.session == 2 for part in parts):
            raise ValueError("nor this one's voice")
        return super().vocode(parts)


def test_a_batch_that_fails_as_a_whole_costs_only_whose_fault_it_is() -> None:
    story = Story(Limits(batch=8, speech=8), lanes=0)
    story.loop._runner = story.runner = Fragile(story.runner.limits)
    for session in range(3):
        story.do("begin", session)
    for _ in range(5000):
        if not story.loop.step():
            break
    assert isinstance(story.ended[0, 1], api.Ended)
    failed = [story.ended[1, 2], story.ended[2, 3]]
    assert [r.code for r in failed if isinstance(r, api.Failed)] == ["internal_error"] * 2
    assert not story.runner.open
