import random

from engine_helpers import OPTIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.engine.scheduler import (
    Chore,
    DecodeStep,
    EncodeStep,
    PrefillStep,
    TranscribeStep,
    TurnView,
    VocodeStep,
    plan,
)
from voiceagent.engine.slots import Stage, Turn

TEXT = OPTIONS.__class__(**{**{f: getattr(OPTIONS, f) for f in OPTIONS.__struct_fields__}, "spoken": False})


def view(session: int = 1, **changes: object) -> TurnView:
    fields = {
        "session": session, "turn": 1, "stage": Stage.DECODING, "deadline": 1.0, "sounding": True,
        "missing_piece": None, "ready_ids": 0, "wanted_ids": 25,
    }  # fmt: skip
    return TurnView(**(fields | changes))  # type: ignore[arg-type]


def test_the_life_of_a_turn() -> None:
    assert plan([], [], 0.0) is None
    assert plan([view(stage=Stage.WAITING, missing_piece=4)], [], 0.0) == EncodeStep(1, 4)
    assert plan([view(stage=Stage.WAITING)], [], 0.0) == PrefillStep(1, 1)
    assert plan([view(ready_ids=24)], [], 0.0) == DecodeStep(1, 1)
    assert plan([view(ready_ids=25)], [], 0.0) == VocodeStep(1, 1, 25, last=False)
    assert plan([view(stage=Stage.DRAINING, ready_ids=26)], [], 0.0) == VocodeStep(1, 1, 25, last=False)
    assert plan([view(stage=Stage.DRAINING, ready_ids=0)], [], 0.0) == VocodeStep(1, 1, 0, last=True)


def test_the_earliest_deadline_runs_first_and_ties_are_settled() -> None:
    assert plan([view(1, deadline=3.0), view(2, deadline=2.0)], [], 0.0) == DecodeStep(2, 1)
    assert plan([view(2), view(1)], [], 0.0) == DecodeStep(1, 1)


def test_transcription_never_delays_a_first_sound() -> None:
    chore = Chore("transcribe", 9, "item", arrived=0.0)
    waiting = view(sounding=False, deadline=100.0)
    assert plan([waiting], [chore], 99.0) == DecodeStep(1, 1)
    assert plan([], [chore], 0.0) == TranscribeStep(9, "item")
    assert plan([view(deadline=3.0)], [chore], 1.0) == TranscribeStep(
        9, "item"
    )  # two seconds of sound in hand
    assert plan([view(deadline=1.5)], [chore], 1.0) == DecodeStep(1, 1)
    assert plan([view(deadline=6.5)], [chore], 6.0) == TranscribeStep(9, "item")  # it has waited long enough


def test_a_piece_is_encoded_ahead_unless_a_turn_is_more_urgent() -> None:
    chore = Chore("encode", 9, 7, arrived=1.0)
    assert plan([view(deadline=2.0)], [chore], 1.0) == EncodeStep(9, 7)
    assert plan([view(deadline=1.2)], [chore], 1.0) == DecodeStep(1, 1)


class World:
    """Turns with random lengths and costs, run by the planner in virtual time."""

    def __init__(self, seed: int, turns: int, arrivals: float) -> None:
        rng = random.Random(seed)
        self.now = 0.0
        self.waiting = [
            (rng.uniform(0, arrivals), Turn(n, 1, (), rng.choice([OPTIONS, OPTIONS, TEXT]), 0.0))
            for n in range(turns)
        ]
        self.left = {n: rng.randint(1, 400) for n in range(turns)}
        self.live: list[Turn] = []
        self.last_served: dict[int, float] = {}
        self.longest_wait = 0.0

    def run(self) -> None:
        while self.waiting or self.live:
            for entry in [e for e in self.waiting if e[0] <= self.now]:
                self.waiting.remove(entry)
                entry[1].arrived = self.last_served[entry[1].session] = self.now
                self.live.append(entry[1])
            if not self.live:
                self.now = min(at for at, _ in self.waiting)
                continue
            self.serve()

    def serve(self) -> None:
        views = [
            view(
                turn.session, stage=turn.stage, deadline=turn.deadline(), sounding=turn.playing_until is not None,
                ready_ids=len(turn.waiting_ids), wanted_ids=25 if turn.options.spoken else 1,
            )
            for turn in self.live
        ]  # fmt: skip
        step = plan(views, [], self.now)
        assert isinstance(step, PrefillStep | DecodeStep | VocodeStep)
        turn = next(t for t in self.live if t.session == step.session)
        # The wait counts only while a listener is short of sound: being passed over with sound in hand is right.
        due = max(self.last_served[turn.session], turn.deadline())
        self.longest_wait = max(self.longest_wait, self.now - due)
        match step:
            case PrefillStep():
                self.now += 0.1
                turn.stage = Stage.DECODING
            case DecodeStep():
                self.now += 0.005
                turn.quiet_tokens += 1
                self.left[turn.session] -= 1
                if turn.options.spoken:
                    turn.waiting_ids.append(0)
                    turn.unsent_ids.append(0)
                if self.left[turn.session] == 0:
                    turn.stage = Stage.DRAINING
            case VocodeStep():
                self.now += 0.15
                turn.waiting_ids = turn.waiting_ids[step.count :]
                turn.sounded(step.count * 960, now=self.now, last=step.last)
        self.last_served[turn.session] = self.now
        if turn.stage is Stage.DRAINING and not turn.waiting_ids:
            assert not turn.unsent_ids
            self.live.remove(turn)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), turns=st.integers(1, 12))
def test_every_turn_ends_and_none_starves(seed: int, turns: int) -> None:
    world = World(seed, turns, arrivals=3.0)
    world.run()
    # Each rival may take one chunk (25 tokens, one vocoder step) or one prefill before it falls behind in line.
    assert world.longest_wait <= 1.0 * turns


def test_a_turn_that_never_makes_a_sound_does_not_hold_up_the_others() -> None:
    silent, other = Turn(1, 1, (), OPTIONS, 0.0), Turn(2, 1, (), OPTIONS, 1.0)
    served = 0
    while other.deadline() >= silent.deadline():
        silent.quiet_tokens += 1
        served += 1
    assert served <= 101
