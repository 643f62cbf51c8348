from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import UNUSED_ROWS, tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core.history import AssistantItem, AudioContent, Item, Piece, TextContent, UserItem
from voiceagent.errors import CheckpointError, EngineError, InputError
from voiceagent.models.step_audio2.generate import Context, Generation, LanguageModel, Prefill
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot, render_turn
from voiceagent.models.step_audio2.sampling import GREEDY, Sampling

IDS = tiny_tokenizer().ids
WILD = Sampling(temperature=2.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """Random weights; the end of a turn is made so unlikely that replies run on."""
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end):
        weights["lm_head.weight"][stop] = 0
    return LanguageModel.load(write_checkpoint(tmp_path_factory.mktemp("tiny"), weights))


def piece(number: int, seconds: float = 1.0) -> Piece:
    noise = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
    noise.flags.writeable = False
    return Piece(id=number, audio=noise)


def asked(*content: str | Piece) -> UserItem:
    parts = (TextContent(p) if isinstance(p, str) else AudioContent(pieces=(p,)) for p in content)
    return UserItem(id="u", content=tuple(parts))


def prompt_of(model: LanguageModel, *items: Item, spoken: bool = True, instructions: str = "Hi.") -> Prompt:
    return render_turn(
        items,
        instructions=instructions,
        tools=(),
        tool_choice="auto",
        tokenizer=model.tokenizer,
        spoken=spoken,
    )


def run(generation: Generation) -> list[int]:
    out = []
    while (token := generation.step()) is not None:
        out.append(token)
    assert generation.ids[len(generation.ids) - len(out) :] == out
    return out


def fresh_scores(model: LanguageModel, slots: Sequence[Slot], *pieces: Piece) -> torch.Tensor:
    """The scores after one pass over everything, without any reuse."""
    context = model.open()
    for part in pieces:
        context.encode(part)
    context.prepare(slots)
    return context.scores()


def reply_of(ids: list[int]) -> AssistantItem:
    return replace(AssistantItem("a", "", spoken=True, complete=False), raw_ids=tuple(ids), complete=True)


def test_a_reply_equals_the_slow_way(model: LanguageModel) -> None:
    """Greedy, token by token over the cache, against a whole new pass for each token."""
    context, heard = model.open(), piece(1)
    context.encode(heard)
    prompt = prompt_of(model, asked(heard))
    ids = run(model.generate(context, prompt, GREEDY, max_tokens=12))
    slow: list[int] = []
    for _ in range(12):
        scores = fresh_scores(model, (*prompt.slots, *slow), heard)
        slow.append(int(scores[: IDS.audio_pad + 1].argmax()))
    assert ids == slow
    assert len(set(ids)) > 2, "the tiny model says something"


def test_audio_rows_stand_at_their_places(model: LanguageModel) -> None:
    """The embedding that the reference would build: rows of the encoder between the tags."""
    context, first, second = model.open(), piece(1), piece(2, 0.5)
    for heard in (first, second):
        context.encode(heard)
    slots = prompt_of(model, asked(first, second, first)).slots
    with torch.inference_mode():
        network = model.network
        rows = {p.id: network.encode_audio(torch.tensor(p.audio)) for p in (first, second)}
        embeds = [
            rows[slot.piece][slot.row] if isinstance(slot, AudioRow) else network.embed(torch.tensor(slot))
            for slot in slots
        ]
        expected = network.logits(network.hidden(torch.stack(embeds)[None]))[0, -1]
    context.prepare(slots)
    torch.testing.assert_close(context.scores(), expected, atol=1e-4, rtol=1e-4)


def test_the_next_turn_computes_only_what_is_new(model: LanguageModel) -> None:
    context, first, second = model.open(), piece(1), piece(2)
    context.encode(first)
    prompt = prompt_of(model, asked(first))
    generation = model.generate(context, prompt, WILD, max_tokens=10)
    assert generation.prefill == Prefill(reused=0, computed=len(prompt.slots))
    ids = run(generation)
    assert generation.reason == "length"

    context.encode(second)
    longer = prompt_of(model, asked(first), reply_of([*ids, IDS.tts_end]), asked(second))
    prefill = model.generate(context, longer, GREEDY).prefill
    held = len(prompt.slots) + len(ids) - 1  # the last id was never fed
    assert prefill == Prefill(reused=held, computed=len(longer.slots) - held)
    torch.testing.assert_close(context.scores(), fresh_scores(model, longer.slots, first, second))


def test_a_truncated_or_deleted_past_is_forgotten(model: LanguageModel) -> None:
    context = model.open()
    whole = prompt_of(model, asked("one"), reply_of([5, IDS.audio_0 + 1, IDS.tts_end]), asked("room"))
    context.prepare(whole.slots)
    cut = prompt_of(model, asked("one"), asked("room"))
    prefill = context.prepare(cut.slots)
    first_turn = len(prompt_of(model, asked("one")).slots)
    assert 0 < prefill.reused < first_turn
    assert prefill.reused + prefill.computed == len(cut.slots)
    assert context.slots == cut.slots
    torch.testing.assert_close(context.scores(), fresh_scores(model, cut.slots))


def test_the_same_prompt_again_computes_one_position(model: LanguageModel) -> None:
    context, slots = model.open(), prompt_of(model, asked("one")).slots
    context.prepare(slots)
    before = context.scores()
    assert context.prepare(slots) == Prefill(reused=len(slots) - 1, computed=1)
    torch.testing.assert_close(context.scores(), before)


def test_another_piece_with_equal_rows_is_not_taken_for_the_first(model: LanguageModel) -> None:
    context = model.open()
    for heard in (piece(1), piece(2)):
        context.encode(heard)
    one = prompt_of(model, asked(piece(1))).slots
    two = prompt_of(model, asked(piece(2))).slots
    context.prepare(one)
    assert context.prepare(two).reused == one.index(AudioRow(1, 0))
    torch.testing.assert_close(context.scores(), fresh_scores(model, two, piece(2)))


def test_a_long_prompt_is_prefilled_in_steps(tmp_path: Path) -> None:
    model = LanguageModel.load(write_checkpoint(tmp_path, positions=4096))
    slots = prompt_of(model, asked("hello room " * 700)).slots
    assert len(slots) > 1200
    context = model.open()
    context.prepare(slots)
    with torch.inference_mode():
        embeds = model.network.embed(torch.tensor(slots))
        expected = model.network.logits(model.network.hidden(embeds[None]))[0, -1]
    torch.testing.assert_close(context.scores(), expected, atol=1e-4, rtol=1e-4)


def test_a_seeded_reply_is_reproducible(model: LanguageModel) -> None:
    prompt = prompt_of(model, asked("one"))
    replies = [run(model.generate(model.open(), prompt, WILD, max_tokens=20)) for _ in range(2)]
    assert replies[0] == replies[1]
    other = run(model.generate(model.open(), prompt, replace(WILD, seed=2), max_tokens=20))
    assert other != replies[0]


def test_text_mode_never_chooses_an_audio_id_nor_speech_an_unused_row(model: LanguageModel) -> None:
    written = prompt_of(model, asked("one"), spoken=False)
    assert max(run(model.generate(model.open(), written, WILD, max_tokens=60))) < IDS.audio_start
    assert model.network.config.text.vocab_size == IDS.audio_pad + 1 + UNUSED_ROWS
    spoken = prompt_of(model, asked("one"))
    ids = run(model.generate(model.open(), spoken, WILD, max_tokens=60))
    assert max(ids) <= IDS.audio_pad
    assert max(ids) >= IDS.audio_0


def test_forced_ids_open_the_reply_and_cost_no_step(model: LanguageModel) -> None:
    forced = (IDS.tool_call, *model.tokenizer.encode("function\nf\n"))
    plain = prompt_of(model, asked("one"), spoken=False)
    prompt = replace(plain, forced=forced)
    context = model.open()
    generation = model.generate(context, prompt, GREEDY, max_tokens=len(forced) + 3)
    assert context.slots == (*plain.slots, *forced)
    ids = run(generation)
    assert tuple(ids[: len(forced)]) == forced
    joined = Prompt(slots=(*plain.slots, *forced), forced=(), spoken=False)
    assert ids[len(forced) :] == run(model.generate(model.open(), joined, GREEDY, max_tokens=3))


@pytest.mark.parametrize("stop", [IDS.eot, IDS.endoftext, IDS.im_end])
def test_a_stop_id_ends_the_reply_and_is_not_part_of_it(tmp_path: Path, stop: int) -> None:
    weights = tiny_weights()
    model = LanguageModel.load(write_checkpoint(tmp_path, weights))
    context = model.open()
    prompt = prompt_of(model, asked("one"))
    context.prepare(prompt.slots)
    with torch.inference_mode():
        hidden = context._last
        assert hidden is not None
        model.network.lm_head.weight[stop] = hidden * 100
    generation = model.generate(context, prompt, GREEDY)
    assert generation.step() is None
    assert (generation.reason, generation.ids) == ("stop", [])
    assert generation.step() is None


def test_the_limit_ends_a_reply(model: LanguageModel) -> None:
    prompt = prompt_of(model, asked("one"))
    generation = model.generate(model.open(), prompt, WILD, max_tokens=0)
    assert generation.step() is None
    assert generation.reason == "length"
    room = model.max_positions - len(prompt.slots)
    assert len(run(model.generate(model.open(), prompt, WILD))) == room


def test_a_conversation_too_long_is_refused_and_the_context_stays_usable(model: LanguageModel) -> None:
    context = model.open()
    short = prompt_of(model, asked("one"))
    context.prepare(short.slots)
    with pytest.raises(InputError, match="512") as caught:
        model.generate(context, prompt_of(model, asked("abcdefgh " * 70)), GREEDY)
    assert caught.value.code == "context_full"
    assert context.slots == short.slots


def test_a_piece_that_was_not_encoded_is_named(model: LanguageModel) -> None:
    context = model.open()
    context.encode(piece(8))
    context.discard(8)
    with pytest.raises(EngineError, match=r"\[8\]"):
        context.prepare(prompt_of(model, asked(piece(8))).slots)
    with pytest.raises(EngineError, match="empty"):
        context.prepare(())


def test_a_superseded_reply_cannot_go_on(model: LanguageModel) -> None:
    context, prompt = model.open(), prompt_of(model, asked("one"))
    old = model.generate(context, prompt, WILD)
    old.step()
    new = model.generate(context, prompt, WILD)
    with pytest.raises(EngineError) as caught:
        old.step()
    assert caught.value.code == "superseded"
    assert new.step() is not None


def test_a_failed_step_leaves_slots_and_cache_in_step(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, prompt = model.open(), prompt_of(model, asked("one"))
    generation = model.generate(context, prompt, GREEDY)
    generation.step()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.network.lm_head, "forward", fail)
        with pytest.raises(RuntimeError):
            generation.step()
    with monkeypatch.context() as patch:
        patch.setattr(model.network.model.layers[1], "forward", fail)
        with pytest.raises(RuntimeError):
            context.prepare((*prompt.slots, 1, 2, 3))
    longer = (*prompt.slots, 1, 2, 3)
    context.prepare(longer)
    torch.testing.assert_close(context.scores(), fresh_scores(model, longer))


def test_a_fork_goes_on_alone(model: LanguageModel) -> None:
    context, heard = model.open(), piece(1)
    context.encode(heard)
    generation = model.generate(context, prompt_of(model, asked(heard)), WILD, max_tokens=30)
    for _ in range(10):
        generation.step()
    twin = generation.fork()
    ahead = run(twin)
    assert len(generation.ids) == 10
    assert run(generation) == ahead
    assert twin.context is not context
    twin.context.prepare(prompt_of(model, asked("room")).slots)
    assert context.slots[:3] == prompt_of(model, asked(heard)).slots[:3]


def test_contexts_do_not_touch_each_other(model: LanguageModel) -> None:
    prompts = [prompt_of(model, asked(text)) for text in ("one", "room", "hello", "two rooms")]
    alone = [run(model.generate(model.open(), prompt, WILD, max_tokens=15)) for prompt in prompts]
    together = [model.generate(model.open(), prompt, WILD, max_tokens=15) for prompt in prompts]
    for _ in range(15):
        for generation in together:
            generation.step()
    assert [generation.ids for generation in together] == alone


def test_transcription(model: LanguageModel) -> None:
    context, heard = model.open(), piece(3)
    context.encode(heard)
    before = context.slots
    text = model.transcribe([heard], context=context)
    assert text == model.transcribe([heard])
    assert context.slots == before
    assert model.transcribe([Piece(id=9, audio=np.zeros(100, np.float32))]) == ""


def test_the_language_tag_of_a_transcript_is_dropped(model: LanguageModel) -> None:
    generation = model.transcription([piece(3)])
    assert generation is not None
    generation.ids = model.tokenizer.encode("<中文>你好 <b> ")
    assert model.transcript(generation) == "你好 <b>"


def test_defaults_and_a_turns_wishes(model: LanguageModel) -> None:
    assert model.defaults == Sampling(temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.05)
    assert model.sampling(temperature=0.0, seed=4) == replace(model.defaults, temperature=0.0, seed=4)
    with pytest.raises(InputError, match="top_p"):
        model.sampling(top_p=2.0)


def test_generation_config(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "generation_config.json"
    settings = {
        "do_sample": False,
        "temperature": 0.4,
        "top_k": None,
        "max_new_tokens": 9,
        "eos_token_id": [7],
    }
    path.write_text(json.dumps(settings))
    model = LanguageModel.load(tmp_path)
    assert model.defaults == Sampling(temperature=0.0)
    assert model.max_new_tokens == 9
    assert model.stops == {7, IDS.eot, IDS.endoftext, IDS.im_end}
    for damage in ("{", "[]", '{"top_p": 3}', '{"temperature": "warm"}', '{"max_new_tokens": "many"}'):
        path.write_text(damage)
        with pytest.raises(CheckpointError, match=r"generation_config\.json"):
            LanguageModel.load(tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    last = spec["added_tokens"][-1]
    spec["added_tokens"] += [last | {"id": last["id"] + 1 + i, "content": f"<more_{i}>"} for i in range(9)]
    path.write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(CheckpointError, match="vocab_size"):
        LanguageModel.load(tmp_path)


def test_memory_is_accounted_for(model: LanguageModel) -> None:
    context = Context(model)
    empty = context.nbytes
    context.encode(piece(1))
    assert context.nbytes == empty + 13 * 32 * 4
