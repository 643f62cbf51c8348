"""Replies on a guess: behind everything, only their beginning, within a share of the time, and whole once confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_helpers import OPTIONS, said, spoke
from runner_bench import Bench as RunnerBench
from runner_bench import noise, options
from test_loop import Bench, check_numbered
from test_scheduler import view
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core.history import Item
from voiceagent.engine import api, mapping
from voiceagent.engine.fake import FakeJob, FakeRunner, Script
from voiceagent.engine.guesses import ENOUGH, ENOUGH_TOKENS, SAVED_S
from voiceagent.engine.loop import Loop
from voiceagent.engine.scheduler import Chore, DecodeStep, JudgeStep, PrefillStep, PrepareStep, plan
from voiceagent.engine.slots import Stage, Turn
from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.kv import page_bytes

IDS = tiny_tokenizer().ids
HELLO = said("hello you")


class Guessing(Bench):
    """A loop that may guess, for a second of the clock in every two unless told otherwise."""

    def __init__(self, *sessions: int, runner: FakeRunner | None = None, share: float = 0.5) -> None:
        super().__init__(runner or FakeRunner(Script(speech_ids=100, chunk_ids=5)))
        self.loop = Loop(
            self.runner, max_sessions=8, emit=self.replies.append, clock=self._tick, guess_share=share
        )
        for session in sessions:
            self.loop.command(api.OpenSession(session))

    def guess(
        self, session: int, turn: int, items: tuple[Item, ...] = HELLO, asked: api.Options = OPTIONS
    ) -> None:
        wire = tuple(map(mapping.item_to_wire, items))
        self.loop.command(api.Begin(session, turn, wire, asked, guess=True))

    def samples(self, session: int = 1) -> int:
        return sum(len(sound.pcm) // 2 for sound in self.of(api.Sound, session))


def test_only_the_beginning_is_made_until_it_is_confirmed() -> None:
    bench = Guessing(1)
    bench.guess(1, 1)
    bench.run()
    assert ENOUGH <= bench.samples() < ENOUGH + 5 * 960
    assert bench.of(api.Ended) == []
    bench.loop.command(api.Confirm(1, 1))
    bench.run()
    assert check_numbered(bench.of(api.Sound), session=1, turn=1) == 100 * 960
    (ended,) = bench.of(api.Ended)
    assert ended.reason == "stop"
    assert ended.spent > 0


def test_a_written_one_does_not_go_on_for_ever_either() -> None:
    bench = Guessing(1)
    bench.guess(1, 1, said("word " * 200), options(spoken=False))
    bench.run()
    assert len(bench.of(api.Spoke)) == ENOUGH_TOKENS


def test_where_none_may_be_made_it_waits_and_is_a_turn_when_it_is_confirmed() -> None:
    bench = Guessing(1, share=0.0)
    bench.guess(1, 1)
    bench.run()
    assert bench.replies == []
    bench.loop.command(api.Confirm(1, 1))
    bench.run()
    assert bench.samples() == 100 * 960


def test_a_wrong_one_is_gone_at_once_and_says_what_it_cost() -> None:
    bench = Guessing(1)
    bench.guess(1, 1)
    bench.run(until=lambda: bench.samples() > 0)
    bench.loop.command(api.Cancel(1, 1))
    (ended,) = bench.of(api.Ended)
    assert ended.reason == "cancelled"
    assert 0 < ended.spent <= bench.now
    bench.begin(1, 2)  # the session's next turn does not wait for it
    bench.run()
    assert [reply.turn for reply in bench.of(api.Ended)] == [1, 2]


def test_one_that_is_over_or_was_never_there_cannot_be_confirmed() -> None:
    bench = Guessing(1)
    bench.loop.command(api.Confirm(1, 1))
    bench.begin(1, 2)
    bench.loop.command(api.Confirm(1, 2))
    bench.run()
    assert bench.samples() == 100 * 960


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_nobody_waits_longer_for_a_first_sound_because_of_guesses(steps: int) -> None:
    def steps_until_sound(guessing: bool) -> int:
        bench = Guessing(1, 2, 3)
        for session in (1, 3) if guessing else ():
            bench.guess(session, 1)
        for _ in range(steps):
            bench.loop.step()
        bench.begin(2, 9)
        count = 0
        while not bench.of(api.Sound, 2):
            assert bench.loop.step()
            count += 1
        return count

    assert steps_until_sound(True) == steps_until_sound(False)


def test_a_guess_goes_on_beside_who_has_sound_ahead_and_both_are_whole() -> None:
    bench = Guessing(1, 2)
    bench.begin(2, 9)
    bench.guess(1, 1)
    bench.run(until=lambda: bool(bench.of(api.Spoke, 1)))
    assert bench.of(api.Ended, 2) == [], "it had to wait for the other's end"
    bench.loop.command(api.Confirm(1, 1))
    bench.run()
    assert check_numbered(bench.of(api.Sound, 1), session=1, turn=1) == 100 * 960
    assert check_numbered(bench.of(api.Sound, 2), session=2, turn=9) == 100 * 960


class Slow(FakeRunner):
    """Every token takes half a second of the bench's clock."""

    bench: Bench

    def decode(self, jobs):  # type: ignore[no-untyped-def]
        self.bench.now += 0.5
        return super().decode(jobs)


def test_what_they_cost_in_vain_is_a_share_of_the_time() -> None:
    runner = Slow(Script(speech_ids=20, chunk_ids=5))
    runner.bench = bench = Guessing(1, runner=runner, share=0.1)
    for turn in range(1, 40):
        heard = bench.of(api.Sound)[-1:]
        bench.guess(1, turn)
        bench.run(until=lambda heard=heard: bench.of(api.Sound)[-1:] != heard)
        bench.loop.command(api.Cancel(1, turn))
        bench.now += 1.0
    spent = sum(ended.spent for ended in bench.of(api.Ended))
    assert SAVED_S < spent <= SAVED_S + 0.1 * bench.now + 0.6


def test_what_was_confirmed_has_cost_nothing() -> None:
    runner = Slow(Script(speech_ids=20, chunk_ids=5))
    runner.bench = bench = Guessing(1, runner=runner, share=0.001)
    for turn in range(1, 20):
        bench.guess(1, turn)
        bench.run()
        assert len(bench.of(api.Sound)) == 4 * (turn - 1) + 4, "the account is empty"
        bench.loop.command(api.Confirm(1, turn))
        bench.run()


class Full(FakeRunner):
    """Has room for one reply."""

    def __init__(self) -> None:
        super().__init__(Script(speech_ids=100, chunk_ids=5))
        self.taken = 0

    def begin(self, turn: Turn) -> FakeJob:
        if self.taken:
            raise CapacityError("no room", code="kv_full")
        self.taken += 1
        return super().begin(turn)

    def finish(self, job) -> None:  # type: ignore[no-untyped-def]
        self.taken -= 1


def test_a_turn_that_needs_the_memory_gets_it() -> None:
    bench = Guessing(1, 2, runner=Full())
    bench.guess(1, 1)
    bench.run()
    bench.begin(2, 9)
    bench.run()
    assert [(reply.turn, reply.reason) for reply in bench.of(api.Ended, 1)] == [(1, "cancelled")]
    assert bench.samples(2) == 100 * 960


def test_a_guess_that_finds_no_room_fails_alone() -> None:
    bench = Guessing(1, 2, runner=Full())
    bench.begin(2, 9)
    bench.run(until=lambda: bench.samples(2) > ENOUGH)
    bench.guess(1, 1)
    bench.run()
    assert [reply.code for reply in bench.of(api.Failed, 1)] == ["kv_full"]
    assert bench.samples(2) == 100 * 960


# --- the plan -------------------------------------------------------------------------------------------------------


def test_everything_else_is_read_before_a_guess() -> None:
    guess = view(2, stage=Stage.WAITING, guess=True, deadline=1e6)
    assert plan([guess], (), 0.0) == PrefillStep(2, 1, 64)
    aside = view(1, stage=Stage.READING, beside=True, deadline=9.0)
    assert plan([guess, aside], (), 0.0) == PrefillStep(1, 1, 64)
    assert plan([guess], [Chore("prepare", 3, "", 0.0)], 0.0) == PrepareStep(3, 64)
    assert plan([guess], [Chore("judge", 3, "", 0.0)], 0.0) == JudgeStep(3, 64)
    assert plan([guess], [Chore("conclude", 3, "", 0.0)], 0.0) == DecodeStep((), (), (3,))


# --- the runner -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that seldom end a reply."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), weights)


def test_a_guess_takes_no_memory_from_a_conversation_that_is_idle(folder: Path) -> None:
    language = LanguageModel.load(folder)
    small = LanguageModel.load(folder, kv_bytes=3 * page_bytes(language.network.config.text, torch.float32))
    bench = RunnerBench(small, 1, 2)
    bench.begin(1, 1, said("hello"), options(max_tokens=70))
    bench.run()
    turn = Turn(2, 2, said("hello"), options(max_tokens=150), 0.0, guess=True)
    with pytest.raises(CapacityError):
        bench.runner.begin(turn)
    turn.guess = False
    bench.runner.finish(bench.runner.begin(turn))


def test_what_was_guessed_is_what_would_have_been_said_and_a_wrong_one_leaves_no_trace(folder: Path) -> None:
    """Real attention over shared pages: a wrong guess, then a right one, against the same turn without any."""
    language = LanguageModel.load(folder)

    def replies(*, guesses: bool) -> list[tuple[int, ...]]:
        bench = RunnerBench(language, 1)
        bench.loop = Loop(
            bench.runner, max_sessions=8, emit=bench.replies.append, clock=bench.tick, guess_share=1.0
        )
        bench.loop.command(api.OpenSession(1))
        whole = spoke(noise(3))
        if guesses:
            for turn, heard in ((1, spoke(noise(2, samples=4000))), (2, whole)):
                for item in heard:
                    for part in item.content:  # type: ignore[union-attr]
                        for piece in part.pieces:  # type: ignore[union-attr]
                            bench.loop.command(api.Encode(1, piece.id, mapping.piece_to_bytes(piece)))
                wire = tuple(map(mapping.item_to_wire, heard))
                bench.loop.command(api.Begin(1, turn, wire, options(), guess=True))
                for _ in range(12):
                    bench.loop.step()
                bench.loop.command(api.Cancel(1, turn) if turn == 1 else api.Confirm(1, turn))
        else:
            bench.begin(1, 2, whole, options())
        bench.run()
        return [ended.raw_ids for ended in bench.of(api.Ended) if ended.turn == 2]

    assert replies(guesses=True) == replies(guesses=False)
