"""The runner behind the real loop: a random-weight language model, and a stand-in vocoder that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_helpers import said, spoke
from runner_bench import Bench, CountingVocoder, noise, options
from scripted_checkpoint import write_scripted
from tiny_checkpoint import tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer, tokenizer_spec

from voiceagent.engine import api, mapping
from voiceagent.engine.runner import StepAudioRunner
from voiceagent.models.step_audio2.generate import LanguageModel

IDS = tiny_tokenizer().ids


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random weights; ends are unlikely, so replies run to their limit."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end, IDS.tts_end, IDS.tool_call):
        weights["lm_head.weight"][stop] = -weights["lm_head.weight"][stop].abs()
    return LanguageModel.load(write_checkpoint(tmp_path_factory.mktemp("tiny"), weights))


def test_a_spoken_turn_sounds_each_of_its_ids_once_and_in_order(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, spoke(noise(1), noise(2)), options())
    bench.run()
    ended = bench.replies[-1]
    assert isinstance(ended, api.Ended)
    assert ended.reason == "max_tokens"
    codes = [i - IDS.audio_0 for i in ended.raw_ids if IDS.audio_0 <= i < IDS.audio_pad]
    assert [i for r in bench.of(api.Sound) for i in r.ids] == codes
    assert bench.sound().tolist() == np.repeat(codes, 960).tolist()
    assert ended.usage.output_audio == len(codes)
    assert ended.usage.output_audio + ended.usage.output_text == len(ended.raw_ids) == 60
    assert ended.usage.input_audio > 0
    for before, reply in enumerate(bench.of(api.Sound)):
        assert len(reply.pcm) // 2 // 960 == len(reply.ids)
        assert reply.seq == before


def test_sessions_together_say_what_each_says_alone(language: LanguageModel) -> None:
    def alone(session: int) -> Any:
        bench = Bench(language, session)
        bench.begin(session, 1, spoke(noise(session)), options())
        bench.run()
        return bench.replies[-1].raw_ids

    together = Bench(language, 1, 2, 3, 4)
    for session in (1, 2, 3, 4):
        together.begin(session, 1, spoke(noise(session)), options())
    together.run()
    for session in (1, 2, 3, 4):
        assert together.of(api.Ended, session)[0].raw_ids == alone(session)


def test_the_second_turn_reuses_the_first_ones_cache(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, said("hello"), options())
    bench.run()
    first = bench.replies[-1]
    assert first.usage.input_cached == 0
    bench.begin(1, 2, (*said("hello"), *said("one room")), options())
    bench.run()
    assert bench.replies[-1].usage.input_cached > 0


def test_a_text_turn_opens_no_stream(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, said("hello"), options(spoken=False))
    bench.run()
    assert bench.runner.token2wav.opened == 0  # type: ignore[attr-defined]
    assert not bench.of(api.Sound)
    assert bench.replies[-1].usage.output_audio == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"voice": "unknown"}, "invalid_input"), ({"temperature": -1.0}, "invalid_input"),
     ({"tool_choice": "required"}, "invalid_input")],
)  # fmt: skip
def test_a_wrong_option_fails_its_turn_only(
    language: LanguageModel, changes: dict[str, Any], code: str
) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, said("hello"), options(**changes))
    bench.begin(1, 2, said("hello"), options())
    bench.run()
    assert [r.code for r in bench.of(api.Failed)] == [code]
    assert bench.of(api.Ended)[0].turn == 2


def test_a_conversation_that_does_not_fit_says_so(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, said("one room " * 400), options())
    bench.run()
    assert bench.of(api.Failed)[0].code == "context_length_exceeded"


def test_a_turn_that_fails_in_the_vocoder_leaves_the_session_usable(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    step = bench.runner.token2wav.step
    bench.runner.token2wav.step = lambda *_, **__: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    bench.begin(1, 1, spoke(noise(1)), options())
    bench.run()
    assert bench.of(api.Failed)[0].code == "internal_error"
    bench.runner.token2wav.step = step  # type: ignore[method-assign]
    bench.begin(1, 2, spoke(noise(1)), options())
    bench.run()
    assert bench.of(api.Ended)[0].turn == 2


def test_a_forced_call_of_nonsense_is_an_error_of_the_turn(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    tools = (api.Function("book", "Books a room.", {"type": "object"}),)
    bench.begin(1, 1, said("hello"), options(tools=tools, tool_choice="book", max_tokens=30))
    bench.run()
    assert bench.of(api.Failed)[0].code == "invalid_tool_call"


def test_captions_come_while_nothing_else_is_urgent(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    piece = noise(1)
    bench.loop.command(api.Encode(1, 1, mapping.piece_to_bytes(piece)))
    bench.loop.command(api.Write(1, "item", (1,)))
    bench.run()
    (wrote,) = bench.of(api.Wrote)
    assert wrote.text == language.transcribe([piece])
    assert wrote.text == "".join(reply.text for reply in bench.of(api.Writing))


def test_cuda_errors_lose_the_device_and_a_full_memory_does_not(language: LanguageModel) -> None:
    runner = StepAudioRunner(language, CountingVocoder())  # type: ignore[arg-type]
    assert runner.is_device_loss(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not runner.is_device_loss(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert not runner.is_device_loss(ValueError("CUDA error"))


def test_closing_frees_the_context(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    bench.begin(1, 1, spoke(noise(1)), options())
    bench.run()
    assert bench.runner._contexts
    bench.loop.command(api.Forget(1, (1,)))
    bench.loop.command(api.CloseSession(1))
    assert not bench.runner._contexts


# --- a checkpoint that thinks -------------------------------------------------------------------------------------


def ids_of(*parts: str | int) -> list[int]:
    return [i for part in parts for i in ([part] if isinstance(part, int) else tiny_tokenizer().encode(part))]


SPEECH = [IDS.tts_start, *ids_of("hello"), *range(IDS.audio_0, IDS.audio_0 + 4), IDS.tts_end, IDS.eot]
THOUGHT = ids_of("\n", "so</think>")  # the opening ends with a line break


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel.load(write_scripted(tmp_path_factory.mktemp("t"), THOUGHT, SPEECH, variant="think"))


@pytest.fixture(scope="module")
def brooder(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """It never comes to an end."""
    endless = [*ids_of("\n", "so"), *ids_of("s")]
    return LanguageModel.load(write_scripted(tmp_path_factory.mktemp("b"), endless, SPEECH, variant="think"))


def thoughts(bench: Bench) -> str:
    return "".join(reply.text for reply in bench.of(api.Thought))


def test_a_turn_that_thinks_tells_its_thought_and_speaks_its_reply(thinker: LanguageModel) -> None:
    bench = Bench(thinker, 1)
    bench.begin(1, 1, said("x"), options(think=True, repetition_penalty=1.0))
    bench.run()
    assert thoughts(bench) == "so"
    assert "".join(reply.text for reply in bench.of(api.Spoke)) == "hello"
    assert bench.sound().tolist() == np.repeat([0, 1, 2, 3], 960).tolist()
    (ended,) = bench.of(api.Ended)
    assert (ended.reason, list(ended.raw_ids)) == ("stop", SPEECH[1:-1])
    assert ended.usage.output_thought == len(THOUGHT) - 1
    assert ended.usage.output_text == ended.usage.output_thought + 2  # "hello" and the end of speech
    kinds = [type(reply) for reply in bench.replies]
    assert max(i for i, kind in enumerate(kinds) if kind is api.Thought) < kinds.index(api.Spoke)


def test_the_same_checkpoint_answers_without_a_thought(thinker: LanguageModel) -> None:
    bench = Bench(thinker, 1)
    bench.begin(1, 1, said("x"), options(repetition_penalty=1.0))
    bench.run()
    assert thoughts(bench) == ""
    (ended,) = bench.of(api.Ended)
    assert list(ended.raw_ids) == SPEECH[1:-1]
    assert ended.usage.output_thought == 0


@pytest.mark.parametrize(("limit", "thought"), [(30, 15), (None, 240)])
def test_a_thought_without_an_end_is_bounded_and_the_reply_still_comes(
    brooder: LanguageModel, limit: int | None, thought: int
) -> None:
    bench = Bench(brooder, 1)
    bench.begin(1, 1, said("x"), options(think=True, repetition_penalty=1.0, max_tokens=limit))
    bench.run()
    (ended,) = bench.of(api.Ended)
    assert ended.reason == "stop"
    assert list(ended.raw_ids) == SPEECH[1:-1]
    assert abs(ended.usage.output_thought - thought) < 10  # half of what there is for both
    assert len(thoughts(bench)) == ended.usage.output_thought


def test_the_limit_holds_for_thought_and_reply_together(thinker: LanguageModel) -> None:
    bench = Bench(thinker, 1)
    bench.begin(1, 1, said("x"), options(think=True, repetition_penalty=1.0, max_tokens=12))
    bench.run()
    (ended,) = bench.of(api.Ended)
    assert ended.reason == "max_tokens"
    assert ended.usage.output_text + ended.usage.output_audio == 12


def test_a_thought_can_be_cancelled_and_the_next_turn_is_not_harmed(brooder: LanguageModel) -> None:
    bench = Bench(brooder, 1)
    bench.begin(1, 1, said("x"), options(think=True, repetition_penalty=1.0))
    while not bench.of(api.Thought):
        bench.loop.step()
    bench.loop.command(api.Cancel(1, 1))
    bench.begin(1, 2, said("x"), options(repetition_penalty=1.0))
    bench.run()
    first, second = bench.of(api.Ended)
    assert (first.reason, first.raw_ids) == ("cancelled", ())
    assert first.usage.output_thought > 0
    assert list(second.raw_ids) == SPEECH[1:-1]


def test_a_text_reply_is_thought_about_too(thinker: LanguageModel) -> None:
    bench = Bench(thinker, 1)
    bench.begin(1, 1, said("x"), options(think=True, spoken=False, repetition_penalty=1.0, max_tokens=40))
    bench.run()
    assert thoughts(bench) == "so"
    assert "".join(reply.text for reply in bench.of(api.Spoke)).startswith(
        "so</think>"
    )  # all that it can write
    assert not bench.of(api.Sound)


def test_a_model_that_cannot_think_fails_a_turn_that_is_to(language: LanguageModel) -> None:
    bench = Bench(language, 1)
    assert not bench.runner.can_think
    bench.begin(1, 1, said("x"), options(think=True))
    bench.run()
    assert [reply.code for reply in bench.of(api.Failed)] == ["think_unavailable"]


def test_a_thought_in_tokens_of_its_own_is_read_anew(tmp_path: Path) -> None:
    """The model writes letters where the tokenizer has a word: the prompt of the reply has the word."""
    letters = ["Ġ", "o", "n", "e", "Ġ"]
    vocab = tokenizer_spec()["model"]["vocab"]
    endless = [*ids_of("\n"), *(vocab[letter] for letter in letters)]
    language = LanguageModel.load(write_scripted(tmp_path, endless, SPEECH, variant="think"))
    bench = Bench(language, 1)
    bench.begin(1, 1, said("x"), options(think=True, repetition_penalty=1.0, max_tokens=80))
    bench.run()
    assert thoughts(bench) == " one" * 10
    (ended,) = bench.of(api.Ended)
    assert list(ended.raw_ids) == SPEECH[1:-1]
    assert bench.runner._contexts[1].slots.count(vocab["Ġone"]) == 10
    assert vocab["o"] not in bench.runner._contexts[1].slots


def test_thinking_sessions_do_not_hear_each_other(thinker: LanguageModel) -> None:
    bench = Bench(thinker, 1, 2, 3)
    for session in (1, 2, 3):
        bench.begin(session, 1, said("x" * session), options(think=session != 2, repetition_penalty=1.0))
    bench.run()
    for session in (1, 2, 3):
        (ended,) = bench.of(api.Ended, session)
        assert list(ended.raw_ids) == SPEECH[1:-1]
        told = "".join(reply.text for reply in bench.of(api.Thought, session))
        assert told == ("" if session == 2 else "so")
