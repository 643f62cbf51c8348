import random
from collections.abc import Sequence
from dataclasses import replace

from engine_helpers import OPTIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.engine.scheduler import (
    HURRY_S,
    JOIN_S,
    READS_SOUNDING,
    READS_WAITING,
    Chore,
    DecodeStep,
    EncodeStep,
    Limits,
    ListenStep,
    Part,
    PrefillStep,
    PrepareStep,
    Step,
    TurnView,
    VocodeStep,
    may_rest,
    may_wait,
    plan,
)
from voiceagent.engine.slots import Stage, Turn

TEXT = OPTIONS.__class__(**{**{f: getattr(OPTIONS, f) for f in OPTIONS.__struct_fields__}, "spoken": False})
WIDE = Limits(batch=8, slice=100, encode=3, speech=4)


def view(session: int = 1, **changes: object) -> TurnView:
    fields: dict[str, object] = {
        "session": session, "turn": 1, "stage": Stage.DECODING, "deadline": 1.0, "sounding": True,
        "missing": (), "ready_ids": 0, "wanted_ids": 25,
    }  # fmt: skip
    fields |= changes
    return TurnView(**({"need": fields["deadline"]} | fields))  # type: ignore[arg-type]


def one(turns: Sequence[TurnView], chores: Sequence[Chore] = (), now: float = 0.0) -> Step | None:
    return plan(turns, chores, now, limits=WIDE)


def test_the_life_of_a_turn() -> None:
    assert one([]) is None
    assert one([view(stage=Stage.WAITING, missing=(4, 5))]) == EncodeStep(((1, 4), (1, 5)))
    assert one([view(stage=Stage.WAITING)]) == PrefillStep(1, 1, 100)
    assert one([view(stage=Stage.READING)]) == PrefillStep(1, 1, 100)
    assert one([view(ready_ids=24)]) == DecodeStep(((1, 1),))
    assert one([view(ready_ids=25)]) == VocodeStep((Part(1, 1, 25, last=False),))
    assert one([view(stage=Stage.DRAINING, ready_ids=26)]) == VocodeStep((Part(1, 1, 25, last=False),))
    assert one([view(stage=Stage.DRAINING, ready_ids=0)]) == VocodeStep((Part(1, 1, 0, last=True),))


def test_the_most_urgent_leads_its_batch_and_who_is_far_ahead_sits_out_a_hurry() -> None:
    turns = [view(3, deadline=1.4), view(1, deadline=2.0 + JOIN_S), view(2, deadline=1.2)]
    assert one(turns, now=1.0) == DecodeStep(((2, 1), (3, 1)))
    assert one(turns, now=0.0) == DecodeStep(((2, 1), (3, 1), (1, 1)))
    assert one([view(2), view(1)]) == DecodeStep(((1, 1), (2, 1)))
    many = [view(n, deadline=1.0) for n in range(20)]
    assert one(many) == DecodeStep(tuple((n, 1) for n in range(8)))


def test_who_comes_to_be_far_behind_the_present_is_joined_by_all_that_are_due() -> None:
    turns = [view(1, deadline=1.0), view(2, deadline=5.0), view(3, deadline=5.5 + JOIN_S)]
    assert one(turns, now=5.0) == DecodeStep(((1, 1), (2, 1)))


def test_tokens_are_needed_later_than_sound() -> None:
    ahead = view(1, deadline=1.0, need=9.0)  # its sound is due, and lies in tokens already
    assert one([ahead, view(2, deadline=2.0)], now=1.8) == DecodeStep(((2, 1),))
    assert one([view(1, deadline=1.0, need=9.0, ready_ids=25), view(2, deadline=2.0)]) == VocodeStep(
        (Part(1, 1, 25, last=False),)
    )


def test_chunks_of_all_sizes_are_spoken_together_by_deadline() -> None:
    turns = [
        view(1, deadline=3.0, ready_ids=30), view(2, deadline=1.0, ready_ids=25),
        view(3, deadline=2.0, ready_ids=15, wanted_ids=15), view(4, deadline=2.5, ready_ids=25),
        view(5, stage=Stage.DRAINING, deadline=0.9, ready_ids=30), view(6, deadline=4.0, ready_ids=25),
    ]  # fmt: skip
    turns[5] = view(6, stage=Stage.DRAINING, deadline=2.6, ready_ids=7)  # an end, which fits in
    step = one(turns)
    assert isinstance(step, VocodeStep)
    assert [part.session for part in step.parts] == [5, 2, 3, 4]
    assert [(part.count, part.last) for part in step.parts] == [(25, False)] * 2 + [(15, False), (25, False)]
    step = one(turns[3:])
    assert isinstance(step, VocodeStep)
    assert [(part.session, part.count, part.last) for part in step.parts] == [
        (5, 25, False), (4, 25, False), (6, 7, True),
    ]  # fmt: skip


def test_the_vocoder_waits_for_a_fuller_batch_only_while_nobody_is_short_of_sound() -> None:
    calm = [view(n, deadline=9.0, ready_ids=25) for n in range(3)]
    more, new = [view(7, deadline=5.0)], [view(8, deadline=5.0, sounding=False)]
    assert may_wait(calm, more, 1.0, limits=WIDE)
    assert may_wait(calm, more, 8.5, limits=replace(WIDE, ease=0.4))
    assert not may_wait(calm, more, 8.7, limits=replace(WIDE, ease=0.4))
    assert not may_wait(calm, [], 1.0, limits=WIDE)  # nobody is to come
    assert not may_wait(calm, more, 8.0, limits=WIDE)
    assert not may_wait(calm, more, 1.0, limits=Limits())  # one stream at a time: it is full
    full = [*calm, view(4, deadline=9.0, ready_ids=25)]
    assert not may_wait(full, more, 1.0, limits=WIDE)
    assert may_wait(full, [*more, *new], 1.0, limits=WIDE)  # a first sound should find it free
    assert may_wait(calm, new, 1.0, limits=Limits())
    first = view(4, deadline=9.0, ready_ids=15, sounding=False)
    assert not may_wait([*calm, first], [*more, *new], 1.0, limits=WIDE)


def test_language_leaves_a_shared_device_to_a_first_sound_unless_somebody_needs_it() -> None:
    first = view(1, sounding=False, vocoding=True, deadline=0.4)
    assert may_rest([first], 0.0)
    assert may_rest([first, view(2, deadline=5.0)], 0.0)
    assert not may_rest([first, view(2, deadline=0.4)], 0.0)  # runs dry
    assert not may_rest([first, view(2, deadline=5.0, sounding=False)], 0.0)  # waits for a first sound too
    assert not may_rest([first, view(2, deadline=5.0, stage=Stage.READING)], 0.0)
    assert not may_rest([view(1, vocoding=True)], 0.0)  # it is not the first
    assert not may_rest([], 0.0)


def test_prompts_are_read_at_once_and_in_turns_with_whoever_is_in_a_hurry() -> None:
    new, late, calm = view(1, stage=Stage.READING, deadline=2.0), view(2, deadline=0.1), view(2, deadline=9.0)
    read, write = PrefillStep(1, 1, 100), DecodeStep(((2, 1),))
    assert plan([new, late], (), 0.0, limits=WIDE, reads=0) == read
    assert plan([new, late], (), 0.0, limits=WIDE, reads=READS_SOUNDING) == write
    assert plan([new, calm], (), 0.0, limits=WIDE, reads=9) == read
    silent = view(2, deadline=0.1, sounding=False)  # it waits for a first sound, as the new one does
    assert plan([new, silent], (), 0.0, limits=WIDE, reads=READS_WAITING - 1) == read
    assert plan([new, silent], (), 0.0, limits=WIDE, reads=READS_WAITING) == write


def test_captions_never_delay_a_first_sound() -> None:
    read, write = Chore("listen", 9, "item", arrived=0.0), Chore("write", 9, "item", arrived=0.0)
    listen = ListenStep(9, "item", 100)
    waiting = view(sounding=False, deadline=20.0)
    assert one([waiting], [read], 19.0) == DecodeStep(((1, 1),))
    assert one([waiting], [write], 19.0) == DecodeStep(((1, 1),))
    assert one([], [read]) == listen
    assert one([], [write]) == DecodeStep((), ((9, "item"),))
    assert one([view(deadline=3.0)], [read], 1.0) == listen  # two seconds of sound in hand
    assert one([view(deadline=3.0)], [write], 1.0) == DecodeStep(((1, 1),), ((9, "item"),))
    assert one([view(deadline=1.5)], [read], 1.0) == DecodeStep(((1, 1),))
    assert one([view(deadline=6.5)], [read], 6.0) == listen  # it has waited long enough
    assert plan([view(deadline=6.1)], [read], 6.0, limits=WIDE, reads=1) == DecodeStep(((1, 1),))
    assert one([waiting], [read], 21.0) == listen  # even for those that wait for a first sound


def test_captions_take_a_share_of_a_batch_only() -> None:
    writes = [Chore("write", n, "item", arrived=0.0) for n in range(2)]
    step = one([], [*writes, Chore("listen", 9, "item", arrived=0.0)])
    assert step == DecodeStep((), ((0, "item"), (1, "item")))  # a third one is not begun


def test_a_conversation_is_read_ahead_when_nobody_needs_a_token_soon() -> None:
    chore = Chore("prepare", 9, "", arrived=0.0)
    assert one([], [chore]) == PrepareStep(9, 100)
    assert one([view(deadline=1.0)], [chore]) == PrepareStep(9, 100)
    assert one([view(deadline=1.0)], [chore], 0.9) == DecodeStep(((1, 1),))
    assert one([view(stage=Stage.READING, deadline=5.0)], [chore]) == PrefillStep(1, 1, 100)


def test_a_piece_is_encoded_ahead_unless_a_turn_is_more_urgent() -> None:
    chore = Chore("encode", 9, 7, arrived=1.0)
    assert one([view(deadline=2.0)], [chore], 1.0) == EncodeStep(((9, 7),))
    assert one([view(deadline=1.2)], [chore], 1.0) == DecodeStep(((1, 1),))


def test_pieces_that_turns_wait_for_are_encoded_together() -> None:
    turns = [view(n, stage=Stage.WAITING, missing=(n, n + 10), deadline=float(n)) for n in (2, 1)]
    chores = [Chore("encode", 1, 1, arrived=5.0), Chore("encode", 9, 7, arrived=5.0)]
    assert one(turns, chores) == EncodeStep(((1, 1), (1, 11), (2, 2)))


# --- properties of any plan ---------------------------------------------------------------------------------------

times = st.floats(0, 10)
views = st.builds(
    TurnView,
    session=st.integers(1, 50),
    turn=st.just(1),
    stage=st.sampled_from(Stage),
    deadline=times,
    need=times,
    sounding=st.booleans(),
    missing=st.sets(st.integers(1, 3)).map(tuple),
    ready_ids=st.integers(0, 40),
    wanted_ids=st.sampled_from([15, 20, 25]),
).map(
    lambda v: TurnView(
        v.session, 1, v.stage, min(v.deadline, v.need), v.need, v.sounding,
        v.missing if v.stage is Stage.WAITING else (), v.ready_ids, v.wanted_ids,
    )
)  # fmt: skip
crowd = st.lists(views, max_size=12, unique_by=lambda v: v.session)


@settings(max_examples=300, deadline=None)
@given(turns=crowd, reads=st.integers(0, 6), now=times)
def test_a_step_is_led_by_the_most_urgent_and_fits_everyone_in_it(
    turns: list[TurnView], reads: int, now: float
) -> None:
    step = plan(turns, (), now, limits=WIDE, reads=reads)
    assert (step is None) == (not turns)
    of = {v.session: v for v in turns}
    speaking = [v for v in turns if v.may_speak]
    decoding = [v for v in turns if not v.may_speak and not v.reads]
    reading = [v for v in turns if v.reads]
    match step:
        case VocodeStep(parts):
            assert of[parts[0].session].deadline == min(v.deadline for v in speaking)
            assert len({part.session for part in parts}) == len(parts) <= WIDE.speech
            for part in parts:
                assert of[part.session].may_speak
                assert part.count <= of[part.session].ready_ids
                assert not part.last or of[part.session].stage is Stage.DRAINING
        case DecodeStep(named):
            assert of[named[0][0]].need == min(v.need for v in decoding)
            assert len(set(named)) == len(named) <= WIDE.batch
            assert all(of[session] in decoding for session, _ in named)
            if reading:  # it waits for one step of somebody who is in a hurry, no longer
                assert reads >= READS_SOUNDING
                assert of[named[0][0]].need - now < HURRY_S
        case PrefillStep(session):
            if any(v.sounding and v.need - now < HURRY_S for v in decoding):
                assert reads < READS_SOUNDING, "somebody runs dry"
            assert of[session].need == min(v.need for v in reading)
            assert not of[session].missing
        case EncodeStep(pieces):
            assert len(set(pieces)) == len(pieces) <= WIDE.encode
            assert all(piece in of[session].missing for session, piece in pieces)
        case _:
            assert step is None


# --- properties of many plans in a row ----------------------------------------------------------------------------


class World:
    """Turns with random lengths and costs, run by the planner in virtual time."""

    def __init__(self, seed: int, turns: int, *, arrivals: float, limits: Limits) -> None:
        rng = random.Random(seed)
        self.now = 0.0
        self.limits = limits
        self.waiting = [
            (rng.uniform(0, arrivals), Turn(n, 1, (), rng.choice([OPTIONS, OPTIONS, TEXT]), 0.0))
            for n in range(turns)
        ]
        self.unread = {n: rng.randint(1, 400) for n in range(turns)}
        self.left = {n: rng.randint(1, 400) for n in range(turns)}
        self.live: dict[int, Turn] = {}
        self.last_served: dict[int, float] = {}
        self.longest_wait = 0.0
        self.reads = 0

    def run(self) -> None:
        while self.waiting or self.live:
            for entry in [e for e in self.waiting if e[0] <= self.now]:
                self.waiting.remove(entry)
                turn = entry[1]
                turn.arrived = self.last_served[turn.session] = self.now
                self.live[turn.session] = turn
            if not self.live:
                self.now = min(at for at, _ in self.waiting)
                continue
            self.serve()

    def serve(self) -> None:
        views = [
            view(
                turn.session, stage=turn.stage, deadline=turn.deadline(), need=turn.need(),
                sounding=turn.playing_until is not None, ready_ids=len(turn.waiting_ids),
                wanted_ids=25 if turn.options.spoken else 1,
            )
            for turn in self.live.values()
        ]  # fmt: skip
        step = plan(views, (), self.now, limits=self.limits, reads=self.reads)
        if not isinstance(step, VocodeStep):
            self.reads = 0 if isinstance(step, DecodeStep) else self.reads + 1
        match step:
            case PrefillStep(session, _, positions):
                self.now += 0.03
                self.serve_one(session)
                self.unread[session] -= positions
                self.live[session].stage = Stage.READING if self.unread[session] > 0 else Stage.DECODING
            case DecodeStep(turns):
                self.now += 0.004 + 0.001 * len(turns)
                for session, _ in turns:
                    self.serve_one(session)
                    self.decode(self.live[session])
            case VocodeStep(parts):
                self.now += 0.1 + 0.02 * len(parts)
                for part in parts:
                    self.serve_one(part.session)
                    turn = self.live[part.session]
                    turn.waiting_ids = turn.waiting_ids[part.count :]
                    turn.sounded(part.count * 960, now=self.now, last=part.last)
                    self.end(turn)
            case _:
                raise AssertionError(step)

    def serve_one(self, session: int) -> None:
        # The wait counts only while a listener is short of sound: being passed over with sound in hand is right.
        due = max(self.last_served[session], self.live[session].deadline())
        self.longest_wait = max(self.longest_wait, self.now - due)
        self.last_served[session] = self.now

    def decode(self, turn: Turn) -> None:
        turn.quiet_tokens += 1
        self.left[turn.session] -= 1
        if turn.options.spoken:
            turn.waiting_ids.append(0)
            turn.unsent_ids.append(0)
        if self.left[turn.session] == 0:
            turn.stage = Stage.DRAINING
            self.end(turn)

    def end(self, turn: Turn) -> None:
        if turn.stage is Stage.DRAINING and not turn.waiting_ids:
            assert not turn.unsent_ids
            del self.live[turn.session]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    turns=st.integers(1, 16),
    limits=st.sampled_from([Limits(), Limits(batch=1), WIDE]),
)
def test_every_turn_ends_and_none_starves(seed: int, turns: int, limits: Limits) -> None:
    world = World(seed, turns, arrivals=3.0, limits=limits)
    world.run()
    # Each rival may take one chunk (25 tokens, one vocoder step) or one prompt before it falls behind in line.
    assert world.longest_wait <= 0.5 + 0.4 * turns


def test_a_turn_that_never_makes_a_sound_does_not_hold_up_the_others() -> None:
    silent, other = Turn(1, 1, (), OPTIONS, 0.0), Turn(2, 1, (), OPTIONS, 1.0)
    served = 0
    while other.deadline() >= silent.deadline():
        silent.quiet_tokens += 1
        served += 1
    assert served <= 101
