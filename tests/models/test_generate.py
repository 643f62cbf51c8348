from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_checkpoint import UNUSED_ROWS, tiny_weights, write_checkpoint
from tiny_tokenizer import tiny_tokenizer

from voiceagent.core.dictation import Dictation
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    TextContent,
    UserItem,
    cut_to_heard,
)
from voiceagent.errors import CapacityError, CheckpointError, EngineError, InputError
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.decode import Decoder
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.kv import page_bytes
from voiceagent.models.step_audio2.lm import Chunk
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot, render_turn
from voiceagent.models.step_audio2.reply import Generation, Later, Prefill
from voiceagent.models.step_audio2.sampling import GREEDY, Sampling
from voiceagent.models.step_audio2.script import Script

IDS = tiny_tokenizer().ids
WILD = Sampling(temperature=2.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=1)


@pytest.fixture(scope="module", params=[False, True], ids=["in step", "ahead"])
def model(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> LanguageModel:
    """Random weights; the end of a turn is made so unlikely that replies run on.

    Both ways of decoding: as on a CPU, and with the next pass begun early, as on a GPU.
    """
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end):
        weights["lm_head.weight"][stop] = 0
    model = LanguageModel.load(write_checkpoint(tmp_path_factory.mktemp("tiny"), weights))
    model.decoder.ahead = request.param
    return model


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


@torch.inference_mode()
def fresh_scores(model: LanguageModel, slots: Sequence[Slot], *pieces: Piece) -> torch.Tensor:
    """The scores after one pass over everything, without any reuse."""
    rows = {part.id: model.network.encode_audio(torch.tensor(part.audio)) for part in pieces}
    embeds = [
        rows[slot.piece][slot.row] if isinstance(slot, AudioRow) else model.network.embed(torch.tensor(slot))
        for slot in slots
    ]
    return model.network.logits(model.network.hidden(torch.stack(embeds)[None]))[0, -1]


@torch.inference_mode()
def scores_after(model: LanguageModel, context: Context) -> torch.Tensor:
    """The scores of what follows the context's last slot, computed over its pages; the context is not changed."""
    twin = context.fork()
    last = twin.slots[-1]
    assert isinstance(last, int)
    twin.truncate(len(twin.slots) - 1)
    twin.sequence.reserve(len(context.slots))
    chunk = Chunk.after(twin.sequence, 1, pool=model.pool, rotary=model.network.model.tables)
    states = model.network.model.extend(model.network.embed(torch.tensor([last])), chunk)
    return model.network.scores(states)[0]


def read_all(generation: Generation) -> Generation:
    assert generation.read(100_000)
    return generation


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
    """The embeddings that the reference would build: rows of the encoder between the tags."""
    context, first, second = model.open(), piece(1), piece(2, 0.5)
    model.encode([(context, first), (context, second)])
    slots = prompt_of(model, asked(first, second, first)).slots
    assert context.read_prefix(slots)
    expected = fresh_scores(model, slots, first, second)
    torch.testing.assert_close(scores_after(model, context), expected, atol=1e-4, rtol=1e-4)


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
    later = read_all(model.generate(context, longer, GREEDY))
    held = len(prompt.slots) + len(ids) - 1  # the last id was never fed
    assert later.prefill == Prefill(reused=held, computed=len(longer.slots) - held)
    assert later.step() == int(fresh_scores(model, longer.slots, first, second)[: IDS.audio_pad + 1].argmax())
    assert context.slots == longer.slots


def test_a_truncated_or_deleted_past_is_forgotten(model: LanguageModel) -> None:
    context = model.open()
    whole = prompt_of(model, asked("one"), reply_of([5, IDS.audio_0 + 1, IDS.tts_end]), asked("room"))
    context.read_prefix(whole.slots)
    cut = prompt_of(model, asked("one"), asked("room"))
    generation = read_all(model.generate(context, cut, GREEDY))
    first_turn = len(prompt_of(model, asked("one")).slots)
    assert 0 < generation.prefill.reused < first_turn
    assert generation.prefill.reused + generation.prefill.computed == len(cut.slots)
    assert context.slots == cut.slots[:-1]
    generation.step()
    torch.testing.assert_close(scores_after(model, context), fresh_scores(model, cut.slots))


@pytest.mark.parametrize("heard", [0, 1, 7, 12])
def test_a_reply_that_was_cut_ends_in_the_cache_too_at_the_last_token_that_was_heard(
    model: LanguageModel, heard: int
) -> None:
    sound = [IDS.audio_0 + n for n in range(12)]
    raw = [token for n, text in enumerate((5, 6, 7)) for token in (text, *sound[4 * n : 4 * n + 4])]
    whole = AssistantItem(
        "a", "one two three", (5, 6, 7), tuple(range(12)), (*raw, IDS.tts_end), spoken=True, samples=12 * 960,
        marks=((3, 1), (7, 2), (13, 3)),
    )  # fmt: skip
    context = model.open()
    context.read_prefix(prompt_of(model, asked("one"), whole, asked("room")).slots)
    cut = cut_to_heard(whole, heard * 960 + 959)
    prompt = prompt_of(model, asked("one"), cut, asked("room"))
    assert [slot for slot in prompt.slots if slot in sound] == sound[:heard]
    assert [slot for slot in prompt.slots if slot in (5, 6, 7)] == list(cut.text_ids)
    generation = read_all(model.generate(context, prompt, GREEDY))
    assert context.slots == prompt.slots[:-1]
    assert not set(sound[heard:]) & set(context.slots), "what nobody heard is still in the cache"
    assert generation.step() == int(fresh_scores(model, prompt.slots)[: IDS.audio_pad + 1].argmax())


def test_the_same_prompt_again_computes_one_position(model: LanguageModel) -> None:
    context, prompt = model.open(), prompt_of(model, asked("one"))
    first = model.generate(context, prompt, GREEDY).step()
    again = model.generate(context, prompt, GREEDY)
    assert again.prefill == Prefill(reused=len(prompt.slots) - 1, computed=1)
    assert again.ready
    assert again.step() == first


def test_a_prompt_is_read_in_slices_and_its_beginning_early(model: LanguageModel) -> None:
    heard = piece(1)
    prompt = prompt_of(model, asked("hello room", heard, "one two three"))
    whole, early, sliced = model.open(), model.open(), model.open()
    model.encode([(context, heard) for context in (whole, early, sliced)])
    expected = run(model.generate(whole, prompt, WILD, max_tokens=9))
    assert not early.read_prefix(prompt.slots[:30], positions=7)
    assert len(early.slots) == 7
    assert early.read_prefix(prompt.slots[:30])
    generation = model.generate(early, prompt, WILD, max_tokens=9)
    assert generation.prefill.reused == 30
    assert run(generation) == expected

    generation = model.generate(sliced, prompt, WILD, max_tokens=9)
    assert not generation.ready
    refused = model.decode([generation])[0]
    assert isinstance(refused, EngineError)
    assert refused.code == "not_read"
    calls = 1
    while not generation.read(11):
        calls += 1
    assert calls == -(-(len(prompt.slots) - 1) // 11)
    assert run(generation) == expected


def test_another_piece_with_equal_rows_is_not_taken_for_the_first(model: LanguageModel) -> None:
    context = model.open()
    for heard in (piece(1), piece(2)):
        context.encode(heard)
    one = prompt_of(model, asked(piece(1))).slots
    two = prompt_of(model, asked(piece(2))).slots
    context.read_prefix(one)
    assert context.begin(two, keep=len(two)) == one.index(AudioRow(1, 0))
    assert context.read_prefix(two)
    torch.testing.assert_close(scores_after(model, context), fresh_scores(model, two, piece(2)))


def test_a_long_prompt_is_prefilled_in_steps(tmp_path: Path) -> None:
    model = LanguageModel.load(write_checkpoint(tmp_path, positions=4096))
    slots = prompt_of(model, asked("hello room " * 700)).slots
    assert len(slots) > 1200
    context = model.open()
    context.read_prefix(slots)
    expected = fresh_scores(model, slots)
    torch.testing.assert_close(scores_after(model, context), expected, atol=1e-4, rtol=1e-4)


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
    generation = read_all(model.generate(context, prompt, GREEDY, max_tokens=len(forced) + 3))
    assert context.slots == (*plain.slots, *forced)[:-1]
    assert [generation.step() for _ in forced] == list(forced)
    assert len(context.slots) == len(plain.slots) + len(forced) - 1, "nothing was computed"
    run(generation)
    ids = generation.ids
    assert tuple(ids[: len(forced)]) == forced
    joined = Prompt(slots=(*plain.slots, *forced), forced=(), spoken=False)
    assert ids[len(forced) :] == run(model.generate(model.open(), joined, GREEDY, max_tokens=3))


@pytest.mark.parametrize("stop", [IDS.eot, IDS.endoftext, IDS.im_end])
def test_a_stop_id_ends_the_reply_and_is_not_part_of_it(tmp_path: Path, stop: int) -> None:
    weights = tiny_weights()
    model = LanguageModel.load(write_checkpoint(tmp_path, weights))
    context = model.open()
    prompt = prompt_of(model, asked("one"))
    with torch.inference_mode():
        embeds = model.network.embed(torch.tensor(prompt.slots))
        model.network.lm_head.weight[stop] = model.network.hidden(embeds[None])[0, -1] * 100
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
    assert len(run(model.generate(model.open(), prompt, GREEDY))) == room


def test_a_conversation_too_long_is_refused_and_the_context_stays_usable(model: LanguageModel) -> None:
    context = model.open()
    short = prompt_of(model, asked("one"))
    context.read_prefix(short.slots)
    with pytest.raises(InputError, match="512") as caught:
        model.generate(context, prompt_of(model, asked("abcdefgh " * 70)), GREEDY)
    assert caught.value.code == "context_full"
    assert context.slots == short.slots


def test_a_piece_that_was_not_encoded_is_named(model: LanguageModel) -> None:
    context = model.open()
    context.encode(piece(8))
    context.discard(8)
    with pytest.raises(EngineError, match=r"\[8\]"):
        context.read_prefix(prompt_of(model, asked(piece(8))).slots)
    with pytest.raises(EngineError, match="empty"):
        context.read_prefix(())
    context.encode(piece(8))
    within = prompt_of(model, asked(piece(8))).slots
    cut = within[: within.index(AudioRow(8, 0)) + 2]
    assert context.read_prefix(cut)
    with pytest.raises(EngineError, match="within heard audio"):
        model.generate(context, Prompt(slots=cut, forced=(), spoken=True))


def test_a_superseded_reply_cannot_go_on(model: LanguageModel) -> None:
    context, prompt = model.open(), prompt_of(model, asked("one"))
    old = model.generate(context, prompt, WILD)
    old.step()
    new = model.generate(context, prompt, WILD)
    with pytest.raises(EngineError) as caught:
        old.step()
    assert caught.value.code == "superseded"
    assert new.step() is not None


def test_a_failed_pass_leaves_slots_and_pages_in_step(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, prompt = model.open(), prompt_of(model, asked("one"))
    generation = model.generate(context, prompt, WILD)
    generation.step()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    longer = (*prompt.slots, 1, 2, 3)
    with monkeypatch.context() as patch:
        patch.setattr(model.network.model.layers[0], "extend", fail)
        if model.decoder.ahead:
            generation.step()  # was computed before
        with pytest.raises(RuntimeError):
            generation.step()
    expected = run(model.generate(model.open(), prompt, WILD, max_tokens=5))
    while len(generation.ids) < 5:
        generation.step()
    assert generation.ids == expected, "as if nothing had happened"
    with monkeypatch.context() as patch:
        patch.setattr(model.network.model.layers[0], "extend", fail)
        with pytest.raises(RuntimeError):
            context.read_prefix(longer)
    context.read_prefix(longer)
    torch.testing.assert_close(scores_after(model, context), fresh_scores(model, longer))


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
    twin.context.read_prefix(prompt_of(model, asked("room")).slots)
    assert context.slots[:3] == prompt_of(model, asked(heard)).slots[:3]


def test_contexts_do_not_touch_each_other(model: LanguageModel) -> None:
    prompts = [prompt_of(model, asked(text)) for text in ("one", "room", "hello", "two rooms")]
    alone = [run(model.generate(model.open(), prompt, WILD, max_tokens=15)) for prompt in prompts]
    together = [read_all(model.generate(model.open(), prompt, WILD, max_tokens=15)) for prompt in prompts]
    for _ in range(15):
        for generation in together:
            generation.step()
    assert [generation.ids for generation in together] == alone


def test_replies_written_together_equal_replies_written_alone(model: LanguageModel) -> None:
    """Whatever else is in the batch, whoever joins late or ends early."""
    wishes = [
        (WILD, 15),
        (GREEDY, 12),
        (Sampling(temperature=0.9, top_p=0.8, top_k=20, repetition_penalty=1.3, seed=5), 20),
        (Sampling(temperature=1.5, top_p=1.0, top_k=3, repetition_penalty=1.1, seed=6), 4),
        (replace(WILD, seed=9), 18),
    ]
    prompts = [prompt_of(model, asked(text), spoken=at != 2) for at, text in enumerate("abcde")]
    alone = [
        run(model.generate(model.open(), prompt, sampling, max_tokens=limit))
        for prompt, (sampling, limit) in zip(prompts, wishes, strict=True)
    ]
    together = [
        read_all(model.generate(model.open(), prompt, sampling, max_tokens=limit))
        for prompt, (sampling, limit) in zip(prompts, wishes, strict=True)
    ]
    for step in range(30):
        present = together if step > 3 else together[: step + 1]
        for generation, result in zip(present, model.decode(present), strict=True):
            if not isinstance(result, Later):
                assert result is None if generation.reason else result == generation.ids[-1]
    assert [generation.ids for generation in together] == alone
    assert {generation.reason for generation in together} == {"length"}


def settled(model: LanguageModel, replies: list[Generation]) -> list[int | Exception | None]:
    """`decode`, asked again for those who wait for the next pass."""
    results = model.decode(replies)
    for at, result in enumerate(results):
        while isinstance(result, Later):
            result = model.decode([replies[at]])[0]
        results[at] = result
    return results  # type: ignore[return-value]


def test_what_is_wrong_with_one_reply_is_its_own(model: LanguageModel) -> None:
    prompt, heard = prompt_of(model, asked("one")), piece(1)
    sick_prompt = prompt_of(model, asked(heard))
    expected = run(model.generate(model.open(), prompt, WILD, max_tokens=6))
    healthy, sick, old = (model.open() for _ in range(3))
    sick.put(heard.id, torch.full((13, 32), torch.nan))
    replies = [
        read_all(model.generate(context, wanted, WILD, max_tokens=6))
        for context, wanted in ((healthy, prompt), (sick, sick_prompt), (old, prompt))
    ]
    old.read_prefix(prompt.slots[:4])
    for at in range(6):
        token, broken, superseded = settled(model, replies)
        assert token == expected[at]
        assert isinstance(broken, EngineError)
        assert broken.code == "model_failed"
        assert isinstance(superseded, EngineError)
        assert superseded.code == "superseded"


@pytest.mark.parametrize("ahead", [False, True])
def test_a_full_pool_refuses_one_and_the_others_go_on(tmp_path: Path, ahead: bool) -> None:
    weights = tiny_weights()
    for stop in (IDS.eot, IDS.endoftext, IDS.im_end):
        weights["lm_head.weight"][stop] = 0
    folder = write_checkpoint(tmp_path, weights)
    size = page_bytes(LanguageModel.load(folder).network.config.text, torch.float32)
    model = LanguageModel.load(folder, kv_bytes=3 * size)
    model.decoder.ahead = ahead
    prompt = Prompt(slots=tuple(range(40, 40 + 60)), forced=(), spoken=True)
    first, second, third = (model.open() for _ in range(3))
    replies = [read_all(model.generate(context, prompt, WILD)) for context in (first, second)]
    for _ in range(5):
        assert not any(isinstance(result, Exception) for result in model.decode(replies))
    with pytest.raises(CapacityError) as caught:
        third.read_prefix(tuple(range(70)))
    assert caught.value.code == "kv_full"
    assert third.slots == ()
    token, full = model.decode(replies)
    assert isinstance(token, int)
    assert isinstance(full, CapacityError)
    assert full.code == "kv_full"
    first.close()
    assert isinstance(replies[1].step(), int), "with room again it goes on"
    second.close()
    assert model.pool.free_positions == model.pool.positions


def test_nothing_is_left_of_replies_and_contexts_that_are_gone(model: LanguageModel) -> None:
    gc.collect()
    free, rows = model.pool.free_positions, len(model.decoder._free)
    context, heard = model.open(), piece(3)
    context.encode(heard)
    reply = model.generate(context, prompt_of(model, asked(heard)), WILD, max_tokens=8)
    reply.step()
    twin = reply.fork()
    twin.step()
    assert len(model.decoder._free) == rows - 2
    run(reply)
    model.transcribe([heard], context=context)
    assert len(model.decoder._free) == rows - 1
    del twin
    context.close()
    assert len(model.decoder._free) == rows
    assert model.pool.free_positions == free
    assert reply.step() is None


def test_who_joins_while_a_pass_runs_waits_for_the_next_one(model: LanguageModel) -> None:
    prompts = [prompt_of(model, asked(text)) for text in ("one", "room", "hello")]
    first, second, third = (
        read_all(model.generate(model.open(), prompt, WILD, max_tokens=9)) for prompt in prompts
    )
    expected = [run(model.generate(model.open(), prompt, WILD, max_tokens=9)) for prompt in prompts]
    assert model.decode([first]) == expected[0][:1]
    joined = model.decode([first, second])
    assert joined == [expected[0][1], Later.LATER if model.decoder.ahead else expected[1][0]]
    assert model.decode([second]) == [expected[1][0 if model.decoder.ahead else 1]], (
        "one may stay away for a while"
    )
    second.close()
    assert third.step() == expected[2][0], "in the row of one that was closed in the middle of a pass"
    assert run(first) == expected[0][2:]
    assert run(third) == expected[2][1:]


def test_replies_beyond_the_largest_batch_take_several_passes(tmp_path: Path) -> None:
    model = LanguageModel.load(write_checkpoint(tmp_path), max_batch=2)
    prompt = prompt_of(model, asked("one"))
    replies = [read_all(model.generate(model.open(), prompt, replace(WILD, seed=at))) for at in range(5)]
    assert None not in model.decode(replies)


def test_more_replies_than_there_are_rows_are_refused(model: LanguageModel) -> None:
    decoder = Decoder(model.network, model.pool, torch.ones(1, 4, dtype=torch.bool), rows=2)
    rows = [decoder.open(GREEDY, seen=()) for _ in range(2)]
    with pytest.raises(CapacityError) as caught:
        decoder.open(GREEDY, seen=())
    assert caught.value.code == "replies_full"
    decoder.close(rows[0])
    assert decoder.open(GREEDY, seen=()) == rows[0]


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


def test_the_scores_of_a_transcript_are_the_models_own(model: LanguageModel) -> None:
    """Against the scores of every position by itself; the tokens of a language tag are none of the transcript's."""
    free = model.pool.free_positions
    generation = model.transcription([piece(3)], how=Dictation("en", "words"), kept=True)
    assert generation is not None
    prompt = list(generation.slots)
    while len(generation.ids) < 50 and generation.step() is not None:
        pass
    generation.close()
    ids = generation.ids = [*model.tokenizer.encode("<中文>"), *generation.ids]
    found = model.token_scores(generation)
    expected = []
    for at, token in enumerate(ids):
        alone = generation.context.blank()
        behind = torch.log_softmax(alone.scores((*prompt, *ids[:at]), last=1)[0].double(), dim=0)
        expected.append((tuple(model.tokenizer.token_bytes(token)), float(behind[token])))
        alone.close()
    tag = len(model.tokenizer.encode("<中文>"))
    expected = [
        pair for token, pair in zip(ids[tag:], expected[tag:], strict=True) if model.tokenizer.is_text(token)
    ]
    assert [each.text for each in found] == [text for text, _ in expected[len(expected) - len(found) :]]
    assert [each.logprob for each in found] == pytest.approx(
        [p for _, p in expected[-len(found) :]], abs=1e-4
    )
    assert len(found) > 32, "more than one pass"
    generation.context.close()
    assert model.pool.free_positions == free


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
        "conversation_tokens": 99,
    }
    path.write_text(json.dumps(settings))
    model = LanguageModel.load(tmp_path)
    assert model.conversation_tokens == 99
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


def test_given_words_are_said_exactly_and_sound_is_the_models(model: LanguageModel) -> None:
    words = "Hi. Hi, Hi."
    prompt = render_turn(
        (asked("Read."),),
        instructions="",
        tools=(),
        tool_choice="required",  # there is none, and the words say what to do
        tokenizer=model.tokenizer,
        spoken=True,
        script=words,
    )
    given = model.tokenizer.encode(words)
    replies = [
        model.generate(model.open(), prompt, replace(WILD, seed=seed), max_tokens=400) for seed in (1, 2)
    ]
    others = model.generate(model.open(), prompt_of(model, asked("Hi.")), WILD, max_tokens=60)
    for generation in replies:
        while not generation.read(16):
            pass
    others.read(1000)
    while any(generation.reason is None for generation in replies):  # one pass for all, whatever they may say
        model.decode([*replies, others])
    for generation in replies:
        ids = generation.ids
        assert generation.reason == "stop"
        assert ids[: 5 * len(given) : 5] == given
        assert set(ids[5 * len(given) :: 5]) <= {IDS.tts_pad}
        sound = [token for at, token in enumerate(ids) if at % 5]
        assert all(IDS.audio_0 <= token <= IDS.audio_pad for token in sound)
        assert len(ids) % 5 == 0
    assert replies[0].ids != replies[1].ids


def test_given_words_end_at_the_limit_like_all_others(model: LanguageModel) -> None:
    prompt = replace(prompt_of(model, asked("Hi.")), script=Script.of([7] * 40, IDS))
    generation = model.generate(model.open(), prompt, WILD, max_tokens=12)
    run(generation)
    assert generation.reason == "length"
    assert generation.ids[::5] == [7, 7, 7]
