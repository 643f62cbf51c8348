"""A conversation that outgrows the context, on the real loop and runner with a tiny language model of 512 positions."""

from __future__ import annotations

from typing import Any

import pytest
from engine_helpers import said
from runner_bench import Bench, noise, options
from scripted_checkpoint import write_scripted
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer, tokenizer_spec

from voiceagent.core.history import AssistantItem, AudioContent, Item, TextContent, UserItem
from voiceagent.engine import api, mapping
from voiceagent.models.step_audio2.generate import LanguageModel

IDS = tiny_tokenizer().ids
WORDS = "one room for two nights "


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random weights; ends are unlikely, so replies run to their limit."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    return LanguageModel.load(write_checkpoint(tmp_path_factory.mktemp("tiny"), weights))


class Talk(Bench):
    """A conversation that only grows, turn by turn."""

    def __init__(self, language: LanguageModel) -> None:
        super().__init__(language, 1)
        self.items: list[Item] = []
        self.turn = 0

    def say(self, *content: Any, **changes: Any) -> tuple[api.Started, api.Ended]:
        self.turn += 1
        given = content or (TextContent(WORDS * 4),)
        self.items.append(UserItem(f"u{self.turn}", given))
        self.begin(1, self.turn, self.items, options(**{"spoken": False, "max_tokens": 20} | changes))
        self.run()
        started, ended = self.of(api.Started)[-1], self.of(api.Ended)[-1]
        assert started.turn == ended.turn == self.turn
        self.items.append(AssistantItem(f"a{self.turn}", "", raw_ids=ended.raw_ids))
        return started, ended


def read(usage: Any) -> int:
    return int(usage.input_text + usage.input_audio)


def test_twenty_turns_in_a_context_of_five(language: LanguageModel) -> None:
    """The oldest turns go, the pages stay few, and what is left of the prompt is the end of the conversation."""
    talk = Talk(language)
    pages, dropped = [], []
    for _ in range(20):
        started, ended = talk.say(instructions="Be kind.", keep_ratio=0.5)
        assert started.limit == 512
        assert read(ended.usage) + 20 <= 512
        pages.append(len(talk.runner._contexts[1].sequence.pages))
        dropped.append(len(started.dropped))
        newest = [item.id for item in talk.items if item.id not in started.dropped]
        assert list(started.dropped) == [item.id for item in talk.items[: dropped[-1]]]
        assert newest[-2] == f"u{talk.turn}"
    assert max(pages) <= -(-512 // 16)
    assert dropped[-1] > 20
    assert dropped == sorted(dropped)
    assert len(set(dropped)) < 8, "a cut is deep enough for several turns"


def test_a_deeper_cut_reuses_more(language: LanguageModel) -> None:
    computed = {}
    for ratio in (1.0, 0.6):
        talk = Talk(language)
        ends = [talk.say(keep_ratio=ratio)[1].usage for _ in range(14)]
        computed[ratio] = sum(read(usage) - usage.input_cached for usage in ends)
    assert computed[0.6] < computed[1.0]


def test_usage_tells_what_was_reused_and_what_was_computed(language: LanguageModel) -> None:
    talk = Talk(language)
    heard = AudioContent((noise(1),))
    _, first = talk.say(heard, instructions="Be kind.")
    assert (first.usage.input_cached, first.usage.input_cached_audio) == (0, 0)
    started, second = talk.say(TextContent("two"), instructions="Be kind.")
    reused = talk.runner._contexts[1]
    assert second.usage.input_audio == second.usage.input_cached_audio > 0
    assert 0 < second.usage.input_cached < read(second.usage)
    assert started.usage.input_cached == second.usage.input_cached
    assert read(started.usage) == read(second.usage)
    assert second.usage.kept == len(reused.slots) + 1, "the last id is told and not read"


def test_what_was_read_ahead_is_not_called_reused(language: LanguageModel) -> None:
    talk = Talk(language)
    talk.say(TextContent("one"))
    held = len(talk.runner._contexts[1].slots)
    early = [*talk.items, UserItem("u2", (TextContent("two rooms"),))]
    wire = tuple(api.User(i.id, tuple(api.Text(p.text) for p in i.content)) if isinstance(i, UserItem) else  # type: ignore[union-attr]
                 api.Assistant(i.id, i.text, (), (), i.raw_ids, False, 0, True) for i in early)  # type: ignore[union-attr]  # fmt: skip
    talk.loop.command(api.Prepare(1, wire, options(spoken=False, max_tokens=20)))
    talk.run()
    assert len(talk.runner._contexts[1].slots) > held
    _, ended = talk.say(TextContent("two rooms"))
    assert ended.usage.input_cached <= held


def test_sound_is_forgotten_when_the_turn_that_reads_it_is_over(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    items = (UserItem("u", (AudioContent((noise(1), noise(2))),)),)
    bench.begin(1, 1, items, options(spoken=False))
    bench.loop.step()
    bench.loop.command(api.Forget(1, (1,)))
    bench.run()
    assert [reply.turn for reply in bench.of(api.Ended)] == [1]
    context = bench.runner._contexts[1]
    assert (context.holds(1), context.holds(2)) == (False, True)
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(noise(1))))
    bench.begin(1, 2, items, options(spoken=False))
    bench.run()
    assert [reply.turn for reply in bench.of(api.Ended)] == [1, 2], "it may come again"


def test_without_truncation_the_turn_fails_and_the_session_goes_on(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    items = [UserItem(f"u{n}", (TextContent(WORDS * 8),)) for n in range(12)]
    bench.begin(1, 1, items, options(spoken=False, keep_ratio=None))
    bench.begin(1, 2, items, options(spoken=False))
    bench.run()
    (failed,) = bench.of(api.Failed)
    assert (failed.turn, failed.code) == (1, "context_length_exceeded")
    assert "Allow truncation" in failed.message
    assert bench.of(api.Ended)[0].turn == 2


def test_a_limit_of_the_client_is_kept(language: LanguageModel) -> None:
    talk = Talk(language)
    for _ in range(12):
        _, ended = talk.say(keep_ratio=0.5, keep_tokens=150)
        assert read(ended.usage) <= 150 + 5, "and the opening of the reply"


def test_one_call_is_all_where_calls_must_not_be_parallel(tmp_path_factory: pytest.TempPathFactory) -> None:
    vocab = tokenizer_spec()["model"]["vocab"]
    chain = [vocab["Ċ"], vocab["{"], vocab["}"], IDS.tool_call_end, vocab["o"], vocab["n"], IDS.eot]
    model = LanguageModel.load(write_scripted(tmp_path_factory.mktemp("calls"), chain))
    tools = (api.Function("book", "Books a room.", {"type": "object"}),)
    raw = {}
    for parallel in (True, False):
        bench = Bench(model, 1)
        wanted = options(tools=tools, tool_choice="book", parallel_calls=parallel, repetition_penalty=1.0)
        bench.begin(1, 1, said("x"), wanted)
        bench.run()
        (called,), (ended,) = bench.of(api.Called), bench.of(api.Ended)
        assert (called.name, called.arguments, ended.reason) == ("book", "{}", "stop")
        raw[parallel] = ended.raw_ids
    assert raw[False][-1] == IDS.tool_call_end, "it ends where the first call does"
    assert raw[True] == (*raw[False], vocab["o"], vocab["n"])
