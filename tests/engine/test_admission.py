"""Memory is admitted, not discovered: what a turn can need is set aside before it begins; idle sessions make room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_helpers import said, spoke
from runner_bench import Bench, CountingVocoder, noise, options
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core.history import TextContent, UserItem
from voiceagent.engine import api, mapping
from voiceagent.engine.reply import Reply
from voiceagent.engine.runner import StepAudioRunner
from voiceagent.engine.slots import Turn
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.kv import PAGE, page_bytes

IDS = tiny_tokenizer().ids
Small = Callable[[int], LanguageModel]
TURN_PAGES = 2  # of a short prompt and its 60 tokens


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model whose replies run to their limit, with so many pages of memory."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    folder = write_checkpoint(tmp_path_factory.mktemp("small"), weights)
    page = page_bytes(LanguageModel.load(folder).network.config.text, torch.float32)
    return lambda pages: LanguageModel.load(folder, kv_bytes=pages * page)


def ask(bench: Bench, *sessions: int, turn: int = 1) -> None:
    for session in sessions:
        bench.begin(session, turn, said("hello"), options())


def codes(bench: Bench, session: int) -> list[str]:
    return [getattr(r, "code", "ended") for r in bench.replies
            if isinstance(r, api.Ended | api.Failed) and r.session == session]  # fmt: skip


def test_a_full_memory_fails_one_turn_before_it_begins_and_harms_no_other(small: Small) -> None:
    bench = Bench(small(2 * TURN_PAGES), 1, 2, 3)
    ask(bench, 1, 2, 3)
    bench.run()
    assert [codes(bench, n) for n in (1, 2, 3)] == [["ended"], ["ended"], ["kv_full"]]
    (failed,) = bench.of(api.Failed, 3)
    assert "kv_memory_mb" in failed.message
    assert not bench.of(api.Spoke, 3)
    assert bench.of(api.Ended, 1)[0].raw_ids == bench.of(api.Ended, 2)[0].raw_ids
    ask(bench, 3, turn=2)
    bench.run()
    assert codes(bench, 3) == ["kv_full", "ended"]


def test_who_was_idle_longest_makes_room_and_is_read_anew(small: Small) -> None:
    bench = Bench(small(2 * TURN_PAGES), 1, 2, 3)
    for session in (1, 2, 3):
        ask(bench, session)
        bench.run()
    assert not bench.of(api.Failed, 3)
    ask(bench, 3, 1, turn=2)
    bench.run()
    assert bench.of(api.Ended, 3)[1].usage.input_cached > 0
    assert bench.of(api.Ended, 1)[1].usage.input_cached == 0
    assert bench.of(api.Ended, 1)[1].raw_ids == bench.of(api.Ended, 1)[0].raw_ids


def test_what_was_set_aside_and_not_used_comes_back(small: Small) -> None:
    language = small(3 * TURN_PAGES)
    bench = Bench(language, 1, 2)
    bench.begin(1, 1, said("hello"), options(max_tokens=4 * PAGE))
    while not bench.of(api.Spoke):
        bench.loop.step()
    assert language.pool.ledger.free <= TURN_PAGES
    bench.loop.command(api.Cancel(1, 1))
    assert language.pool.ledger.free == language.pool.ledger.size - 1
    ask(bench, 2)
    bench.run()
    assert codes(bench, 2) == ["ended"]
    for session in (1, 2):
        bench.loop.command(api.CloseSession(session))
    assert language.pool.ledger.free == language.pool.ledger.size


def test_a_turn_without_a_speech_stream_fails_and_holds_nothing(small: Small) -> None:
    language = small(10)
    bench = Bench(language, 1, 2, vocoder=CountingVocoder(room=1))
    ask(bench, 1, 2)
    bench.run()
    assert [codes(bench, n) for n in (1, 2)] == [["ended"], ["speech_full"]]
    assert not bench.runner._live
    bench.begin(2, 2, said("hello"), options(spoken=False))
    bench.run()
    assert codes(bench, 2) == ["speech_full", "ended"]


def test_an_out_of_memory_that_happens_anyway_costs_no_other_turn(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = small(20)
    alone = Bench(language, 1)
    ask(alone, 1)
    alone.run()
    launch, sizes = language.decoder.launch, []

    def full(batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return launch(batch)

    monkeypatch.setattr(language.decoder, "launch", full)
    bench = Bench(language, 1, 2, 3)
    ask(bench, 1, 2, 3)
    bench.run()
    assert 3 in sizes
    assert [bench.of(api.Ended, n)[0].raw_ids for n in (1, 2, 3)] == [alone.replies[-1].raw_ids] * 3


def test_a_conversation_that_was_read_ahead_needs_little_when_it_is_asked_for(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, begun = Bench(small(20), 1), list[Reply]()
    begin = bench.runner.begin

    def noted(_: StepAudioRunner, turn: Turn) -> Reply:
        begun.append(begin(turn))
        return begun[-1]

    monkeypatch.setattr(StepAudioRunner, "begin", noted)
    items = (UserItem("t", (TextContent("one room " * 20),)), *spoke(noise(1)))
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(noise(1))))
    bench.loop.command(api.Prepare(1, tuple(map(mapping.item_to_wire, items)), options()))
    bench.run()
    held = len(bench.runner._contexts[1].slots)
    items = (*items[:1], UserItem("u", (*items[1].content, *spoke(noise(2))[0].content)))  # type: ignore[attr-defined]
    bench.begin(1, 1, items, options())
    bench.run()
    usage, prefill = bench.of(api.Ended)[0].usage, begun[0].generation.prefill
    assert held > prefill.reused > held - 10  # all but the end, which was the assistant's turn
    assert usage.input_audio + usage.input_text > held
    assert usage.input_cached == 0  # it was read for this turn, only before it was asked for


def test_reading_ahead_takes_no_room_from_others(small: Small) -> None:
    bench = Bench(small(2 * TURN_PAGES), 1, 2)
    ask(bench, 1)
    bench.run()
    words = (UserItem("t", (TextContent("one room " * 100),)),)
    bench.loop.command(api.Prepare(2, tuple(map(mapping.item_to_wire, words)), options()))
    bench.run()
    ask(bench, 1, turn=2)
    bench.run()
    assert bench.of(api.Ended)[1].usage.input_cached > 0
