"""Many callers in simulated time: the real loop and its plan over a device of which only the costs are known.

The costs are those of one H200 with weights of the true shape. Language and speech slow each other down when both
compute; a step of the vocoder is one pass of the flow, and one of the vocoder's network for each kind of place.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from engine_helpers import OPTIONS, piece, spoke

from voiceagent.core.events import Usage
from voiceagent.core.history import Item, Piece
from voiceagent.engine import api, mapping
from voiceagent.engine.loop import Loop
from voiceagent.engine.protocol import Pcm, Speech, Summary, Written
from voiceagent.engine.runner import EASE_S, ENCODE, SPEECH
from voiceagent.engine.scheduler import Limits
from voiceagent.engine.slots import Turn
from voiceagent.models.step_audio2.token2wav import CHUNKS
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

LOOKAHEAD = 3  #: ids
TAIL = 2400  #: samples that the vocoder keeps back
BUCKETS = (1, 2, 4, 8, 16, 32)
GROUP = 5  #: tokens; the first of each is text
LANGUAGE_SHARE, SPEECH_SHARE = 0.35, 0.47  #: how fast each goes on beside the other
GPU = Limits(
    batch=64,
    slice=512,
    encode=ENCODE["cuda"],
    speech=SPEECH["cuda"],
    ease=EASE_S["cuda"],
    lanes=1,
    shared=True,
)


def decode_cost(batch: int) -> float:
    """Seconds of a decoding step."""
    return 0.0040 + 0.000035 * batch


def vocode_cost(places: Sequence[tuple[int, bool]]) -> float:
    """Seconds of a step over streams at these places: the chunk's number, and whether it is the last."""
    size = CHUNKS[min(max(place for place, _ in places), 2)]
    rows = _bucket(len(places))
    seconds = 0.0060 + rows * 0.00055 * (size + 5) / 30
    for kind in set(places):
        seconds += 0.0040 + 0.0003 * _bucket(places.count(kind))
    return seconds


def _bucket(rows: int) -> int:
    return min(size for size in BUCKETS if size >= rows)


@dataclass(eq=False)
class Job:
    tokens: int
    done: int = 0
    chunk: int = 0
    taken: int = 0  #: ids that went into chunks
    held: int = 0  #: ids that the stream has and has not spoken
    sent: int = 0  #: samples


class CostRunner:
    """Takes its time, and makes silence."""

    limits = GPU

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def encode(self, pieces: Sequence[tuple[int, Piece]]) -> list[Exception | None]:
        self._sim.compute("encode", 0.0012 + 0.0012 * len(pieces), len(pieces))
        return [None] * len(pieces)

    def begin(self, turn: Turn) -> Job:
        self._sim.compute("begin", 0.001, 1)
        assert turn.options.max_tokens is not None
        return Job(turn.options.max_tokens)

    def read(self, job: Job, positions: int) -> bool:
        self._sim.compute("read", 0.0006, 1)
        return True

    def decode(self, jobs: Sequence[Job]) -> list[Written | Exception]:
        self._sim.compute("decode", decode_cost(len(jobs)), len(jobs))
        written: list[Written | Exception] = []
        for job in jobs:
            job.done += 1
            ids = () if job.done % GROUP == 1 else (7,)
            written.append(Written(audio_ids=ids, ended="max_tokens" if job.done == job.tokens else None))
        return written

    def wanted(self, job: Job) -> int:
        return max(1, CHUNKS[min(job.chunk, 2)] + LOOKAHEAD - job.held)

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        made: list[Pcm | Exception] = []
        for part in parts:
            job = part.job
            job.held += len(part.ids)
            size = job.held if part.last else min(job.held, CHUNKS[min(job.chunk, 2)])
            job.held, job.taken, job.chunk = job.held - size, job.taken + size, job.chunk + 1
            ready = TOKEN_SAMPLES * job.taken - (0 if part.last else TAIL)
            made.append(np.zeros(ready - job.sent, np.int16))
            job.sent = ready
        return made

    def summary(self, job: Job) -> Summary:
        return Summary(Usage(), ())

    def forget(self, session: int, pieces: tuple[int, ...]) -> None: ...
    def finish(self, job: Any) -> None: ...
    def close(self, session: int) -> None: ...
    def is_device_loss(self, error: BaseException) -> bool:
        return False

    def prepare(self, session: int, items: tuple[Item, ...], options: api.Options) -> Any:
        raise AssertionError("nobody asks for it")

    listen = completeness = add_voice = drop_voice = prepare  # type: ignore[assignment]


@dataclass
class SimLane:
    """The speech lane: what is under way, and how many seconds of it are left if it computes alone."""

    sim: Simulation
    job: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
    left: float = 0.0
    size: int = 0
    began: float = 0.0
    over: bool = False

    @property
    def busy(self) -> bool:
        return self.job is not None

    def stuck(self, seconds: float) -> bool:
        return False

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert self.job is None
        self.job, self.over, self.began = (work, done), False, self.sim.now
        places = self.sim.places(work)
        self.left, self.size = vocode_cost(places), len(places)


@dataclass
class Heard:
    """One answer as its caller hears it."""

    asked: float
    first: float | None = None
    until: float = 0.0
    late: list[int] = field(default_factory=list)  #: numbers of the chunks that came too late
    chunks: int = 0
    ended: float | None = None
    audio: float = 0.0


class Simulation:
    """So many callers, as the benchmark's: 6 to 10 s of speech, then a short pause, then the next question.

    Args:
        play: they listen to the answer before they ask again; else they ask at once.
        tokens: shortest and longest reply.
    """

    def __init__(
        self, callers: int, *, play: bool = True, tokens: tuple[int, int] = (190, 310), ramp: float = 8.0
    ) -> None:
        self.now = 0.0
        self.steps: list[tuple[str, float, float, int]] = []  # kind, began, length, how many it served
        self.answers: list[Heard] = []
        self._random = random.Random(callers)
        self._play, self._tokens = play, tokens
        self._lane = SimLane(self)
        self.loop = Loop(
            CostRunner(self), max_sessions=callers, emit=self._hear, clock=lambda: self.now, lane=self._lane
        )  # type: ignore[arg-type]
        self._order = itertools.count()
        self._asks: list[tuple[float, int, int]] = []  # when, order, session
        self._open: dict[int, Heard] = {}
        for session in range(callers):
            self.loop.command(api.OpenSession(session))
            self._ask_at(self._random.uniform(0.0, ramp), session)

    def run(self, seconds: float, *, turns: int | None = None) -> None:
        """Until this time; with `turns`, no longer than so many answers."""
        while self.now < seconds and (
            turns is None or sum(h.ended is not None for h in self.answers) < turns
        ):
            while self._asks and self._asks[0][0] <= self.now:
                self._ask(heapq.heappop(self._asks)[2])
            self._deliver()
            if not self.loop.step():
                self._idle()

    def compute(self, kind: str, work: float, served: int) -> None:
        """The language model is at work."""
        began = self.now
        while work > 1e-12:
            if self._lane.busy and not self._lane.over:
                length = min(work / LANGUAGE_SHARE, self._lane.left / SPEECH_SHARE)
                work -= length * LANGUAGE_SHARE
                self._lane_on(length, SPEECH_SHARE)
            else:
                length, work = work, 0.0
            self.now += length
        self.steps.append((kind, began, self.now - began, served))

    def places(self, work: Callable[[], Any]) -> list[tuple[int, bool]]:
        parts = next(cell.cell_contents for cell in work.__closure__ or () if _speech(cell.cell_contents))
        return [(min(part.job.chunk, 3), part.last) for part in parts]

    def _lane_on(self, length: float, rate: float) -> None:
        self._lane.left -= length * rate
        if self._lane.left <= 1e-12:
            self._lane.over = True
            ended = self.now + length
            self.steps.append(("vocode", self._lane.began, ended - self._lane.began, self._lane.size))

    def _deliver(self) -> None:
        if self._lane.over and self._lane.job is not None:
            (work, done), self._lane.job = self._lane.job, None
            done(work())

    def _idle(self) -> None:
        """Nothing to decide until the vocoder is done, or somebody asks."""
        until = self._asks[0][0] if self._asks else float("inf")
        if self._lane.busy and not self._lane.over:
            length = min(self._lane.left, max(0.0, until - self.now))
            self._lane_on(length, 1.0)
            self.now += length
        elif not self._lane.busy:
            assert until < float("inf"), "nobody will ever ask"
            self.now = max(self.now, until)

    def _ask_at(self, when: float, session: int) -> None:
        heapq.heappush(self._asks, (when, next(self._order), session))

    def _ask(self, session: int) -> None:
        heard = self._open[session] = Heard(self.now)
        self.answers.append(heard)
        sound = piece(len(self.answers))
        self.loop.command(api.Encode(session, sound.id, mapping.piece_to_bytes(sound)))
        wire = tuple(mapping.item_to_wire(item) for item in spoke(sound))
        fields = {name: getattr(OPTIONS, name) for name in OPTIONS.__struct_fields__}
        options = api.Options(**(fields | {"max_tokens": self._random.randint(*self._tokens)}))
        self.loop.command(api.Begin(session, len(self.answers), wire, options))

    def _hear(self, reply: api.Reply) -> None:
        heard = self._open.get(getattr(reply, "session", -1))
        match reply:
            case api.Sound():
                assert heard is not None
                length = len(reply.pcm) / 2 / VOICE_RATE
                if heard.first is None:
                    heard.first = heard.until = self.now
                elif self.now > heard.until:
                    heard.late.append(heard.chunks)
                heard.chunks += 1
                heard.audio += length
                heard.until = max(heard.until, self.now) + length
            case api.Ended():
                assert heard is not None
                heard.ended = self.now
                pause = self._random.uniform(0.0, 0.5) if self._play else 0.0
                self._ask_at(max(self.now, heard.until if self._play else 0.0) + pause, reply.session)
            case api.Failed():
                raise AssertionError(reply)
            case _:
                pass


def _speech(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Speech)
