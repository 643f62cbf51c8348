"""Turns beside a conversation: at the same time as it, never in its way, and each sound in itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_helpers import said, spoke
from runner_bench import Bench, noise, options
from test_loop import Bench as LoopBench
from test_loop import check_numbered
from test_scheduler import view
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer

from voiceagent.engine import api
from voiceagent.engine.fake import FakeJob, FakeRunner, Script
from voiceagent.engine.scheduler import HURRY_S, DecodeStep, PrefillStep, plan, without_idlers
from voiceagent.engine.slots import ASIDE_PACE_S, ASIDE_PATIENCE_S, MAX_WAITING_TURNS, Stage, Turn
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.kv import page_bytes

IDS = tiny_tokenizer().ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that seldom end a reply."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), weights)


@pytest.fixture(scope="module")
def language(folder: Path) -> LanguageModel:
    return LanguageModel.load(folder)


def opened(*sessions: int, runner: FakeRunner | None = None) -> LoopBench:
    bench = LoopBench(runner)
    for session in sessions:
        bench.loop.command(api.OpenSession(session))
    return bench


# --- the plan -------------------------------------------------------------------------------------------------------


def test_one_beside_waits_for_a_calm_moment_but_not_for_ever() -> None:
    patient = view(2, beside=True, deadline=3.0)
    hurried = view(1, deadline=1.0)
    assert without_idlers([hurried, patient], 1.0 - HURRY_S) == [hurried]
    assert without_idlers([hurried, patient], 0.0) == [hurried, patient]
    assert without_idlers([hurried, patient], 3.0) == [hurried, patient]
    assert without_idlers([patient], 0.0) == [patient]
    unheard = view(1, sounding=False, deadline=9.0)
    assert without_idlers([unheard, patient], 0.0) == [unheard], "who waits for a first sound comes first"


def test_one_beside_hurries_nobody() -> None:
    late = view(2, beside=True, deadline=0.1)
    assert plan([view(1, deadline=9.0), late], (), 0.0) == DecodeStep(((2, 1), (1, 1)))
    reading = view(1, stage=Stage.READING, sounding=False, deadline=2.0)
    assert plan([reading, late], (), 0.0, reads=99) == PrefillStep(1, 1, 64)


def test_the_pace_of_one_beside() -> None:
    turn = Turn(1, 1, (), options(beside=True), arrived=10.0)
    assert turn.deadline() == turn.need() == 10.0 + ASIDE_PATIENCE_S
    turn.served_at = 20.0
    assert turn.deadline() == 20.0 + ASIDE_PACE_S


# --- the loop -------------------------------------------------------------------------------------------------------


def test_a_conversation_and_those_beside_it_come_whole_and_at_the_same_time() -> None:
    bench = opened(1)
    bench.begin(1, 1, options=options())
    bench.begin(1, 2, said("apart"), options(beside=True))
    bench.begin(1, 3, said("and apart"), options(beside=True, spoken=False))
    bench.run()
    ends = {reply.turn: n for n, reply in enumerate(bench.replies) if isinstance(reply, api.Ended)}
    begins = {reply.turn: n for n, reply in enumerate(bench.replies) if isinstance(reply, api.Started)}
    assert set(ends) == {1, 2, 3}
    assert begins[2] < ends[1]
    for turn, text in ((1, "You said: hello you"), (2, "You said: apart"), (3, "You said: and apart")):
        assert "".join(r.text for r in bench.of(api.Spoke) if r.turn == turn) == text
    for turn in (1, 2):
        sounds = [sound for sound in bench.of(api.Sound) if sound.turn == turn]
        assert check_numbered(sounds, session=1, turn=turn) == 20 * 960


def test_replies_of_a_conversation_still_come_one_after_the_other() -> None:
    bench = opened(1)
    bench.begin(1, 1, options=options(beside=True))
    bench.begin(1, 2)
    bench.begin(1, 3)
    bench.run()
    order = [(type(r).__name__, r.turn) for r in bench.replies if isinstance(r, api.Started | api.Ended)]
    talk = [entry for entry in order if entry[1] != 1]
    assert talk == [("Started", 2), ("Ended", 2), ("Started", 3), ("Ended", 3)]


def test_each_is_cancelled_alone() -> None:
    bench = opened(1)
    bench.begin(1, 1, options=options(beside=True))
    bench.begin(1, 2)
    bench.run(until=lambda: len(bench.of(api.Sound)) > 1)
    bench.loop.command(api.Cancel(1, 2))
    assert bench.of(api.Ended)[-1].reason == "cancelled"
    bench.run()
    assert [(r.turn, r.reason) for r in bench.of(api.Ended)] == [(2, "cancelled"), (1, "stop")]


def test_those_beside_are_counted_by_themselves() -> None:
    bench = opened(1)
    for turn in range(1, MAX_WAITING_TURNS + 2):
        bench.begin(1, turn, options=options(beside=True))
    assert [reply.turn for reply in bench.of(api.Failed)] == [MAX_WAITING_TURNS + 1]
    bench.begin(1, 99)
    bench.run()
    assert {reply.turn for reply in bench.of(api.Ended)} == {*range(1, MAX_WAITING_TURNS + 1), 99}


class Clumsy(FakeRunner):
    """Fails on what is beside a conversation, and notes whose caches are dropped."""

    def __init__(self) -> None:
        super().__init__(Script(speech_ids=20, chunk_ids=5))
        self.closed: list[int] = []

    def begin(self, turn: Turn) -> FakeJob:
        if turn.beside:
            raise RuntimeError("it fell")
        return super().begin(turn)

    def close(self, session: int) -> None:
        self.closed.append(session)


def test_a_fault_beside_costs_the_conversation_nothing() -> None:
    runner = Clumsy()
    bench = opened(1, runner=runner)
    bench.begin(1, 1)
    bench.begin(1, 2, options=options(beside=True))
    bench.run()
    assert [(reply.turn, reply.code) for reply in bench.of(api.Failed)] == [(2, "internal_error")]
    assert [reply.turn for reply in bench.of(api.Ended)] == [1]
    assert runner.closed == []


# --- the runner -----------------------------------------------------------------------------------------------------


def test_a_reply_and_those_beside_it_say_what_each_says_alone(language: LanguageModel) -> None:
    prompts = {
        1: (spoke(noise(1)), options()),
        2: (spoke(noise(1)), options(beside=True, instructions="Sum it up.")),
        3: (said("What was it about?"), options(beside=True, spoken=False)),
        4: (spoke(noise(2)), options(beside=True)),
    }
    alone = {}
    for turn, (items, wanted) in prompts.items():
        bench = Bench(language, 1)
        bench.begin(1, turn, items, wanted)
        bench.run()
        (ended,) = bench.of(api.Ended)
        alone[turn] = ended.raw_ids
    free = language.pool.ledger.free
    together = Bench(language, 1)
    for turn, (items, wanted) in prompts.items():
        together.begin(1, turn, items, wanted)
    together.run()
    assert {r.turn: r.raw_ids for r in together.of(api.Ended)} == alone
    together.loop.command(api.CloseSession(1))
    assert language.pool.ledger.free >= free, "what was set aside comes back"


def test_one_beside_shares_what_the_conversation_begins_with_and_leaves_it_as_it_was(
    language: LanguageModel,
) -> None:
    bench = Bench(language, 1)
    question = spoke(noise(1), noise(2))
    bench.begin(1, 1, question, options())
    bench.run()
    bench.begin(1, 2, question, options(beside=True, spoken=False))
    bench.begin(1, 3, question, options())
    bench.run()
    usage = {reply.turn: reply.usage for reply in bench.of(api.Ended)}
    assert usage[2].input_cached > usage[2].input_text // 2
    assert usage[3].input_cached == usage[3].input_text + usage[3].input_audio - 1
    replies = {reply.turn: reply.raw_ids for reply in bench.of(api.Ended)}
    assert replies[3] == replies[1]


def test_without_room_one_beside_fails_alone(folder: Path, language: LanguageModel) -> None:
    page = page_bytes(language.network.config.text, torch.float32)
    bench = Bench(LanguageModel.load(folder, kv_bytes=3 * page), 1)
    bench.begin(1, 1, said("hello"), options(max_tokens=70))
    bench.begin(1, 2, said("and now"), options(beside=True, max_tokens=200))
    bench.run()
    assert [(reply.turn, reply.code) for reply in bench.of(api.Failed)] == [(2, "kv_full")]
    assert [reply.turn for reply in bench.of(api.Ended)] == [1]
