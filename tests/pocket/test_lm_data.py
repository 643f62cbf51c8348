"""What the language model is trained on must be what inference feeds it, and only the agent's own words are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.pocket.lm_data import (
    CachedTokenizer,
    Ears,
    Sample,
    Scribe,
    SpeechTokens,
    Talk,
    Teacher,
    collate,
    emphasis,
    tool_specs,
)
from scripts.pocket.lm_eval import Exam, Question, same_intent, slots_right
from voiceagent.core.history import AssistantItem, AudioContent, Piece, ToolCallItem, ToolResultItem, UserItem
from voiceagent.models.step_audio2.prompt import render, render_transcription
from voiceagent.models.step_audio2.tokenizer import TextTokenizer

TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Current time",
        "parameters": {"type": "object", "properties": {}},
    },
}
DIALOGUE: dict[str, Any] = {
    "intent": "time",
    "system": "Be brief.",
    "tools": [TOOL],
    "turns": [
        {
            "user": "hello",
            "reply": "hi there.",
            "intent": "greeting",
            "slots": {},
            "kind": "speech",
            "tool": None,
        },
        {
            "user": "what time is it",
            "reply": "let me check the time.",
            "intent": "time",
            "slots": {},
            "kind": "speech",
            "tool": {
                "name": "get_time",
                "arguments": {},
                "result": '{"time":"14:00"}',
                "final": "it is two o'clock.",
            },
        },
        {"user": "", "reply": "sorry?", "intent": "unclear", "slots": {}, "kind": "noise", "tool": None},
    ],
}
SPOKEN = ["hi there.", "let me check the time.", "it is two o'clock.", "sorry?", "a blue house."]
FRAMES = np.array([130, 245, 101])
TEXTS = ["hello", "what time is it", ""]


@pytest.fixture(scope="module")
def scribe(pocket_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Scribe:
    path = tmp_path_factory.mktemp("tokens") / "agent_tokens.npz"
    lengths = [21, 30, 40, 3, 25]
    tokens = np.random.default_rng(0).integers(0, 6561, sum(lengths)).astype(np.int16)
    np.savez(path, tokens=tokens, offsets=np.cumsum([0, *lengths]))
    return Scribe(CachedTokenizer(pocket_dir), SpeechTokens(SPOKEN, path), Ears(FRAMES, 3, 1, 0, TEXTS))


@pytest.fixture
def teacher(scribe: Scribe) -> Teacher:
    return Teacher({"train": [DIALOGUE], "agent_generic": ["a blue house."]}, scribe)


def _learned(sample: Sample) -> list[list[int]]:
    """The runs of ids with a weight."""
    inside = np.flatnonzero(np.diff(np.r_[0, sample.weights > 0, 0]))
    return [sample.ids[a:b].tolist() for a, b in inside.reshape(-1, 2)]


def _piece(number: int) -> UserItem:
    audio = np.zeros(int(FRAMES[number]) * 160 - 479, np.float32)
    return UserItem("", (AudioContent((Piece(number, audio),)),))


def test_each_learned_reply_follows_the_prompt_of_inference(
    teacher: Teacher, scribe: Scribe, pocket_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.pocket.lm_data.CUT_SHARE", 0.0)
    sample = teacher.dialogue(np.random.default_rng(0))
    tokenizer, ids = TextTokenizer.from_folder(pocket_dir), scribe.tokenizer.ids
    assert sample.audio == [0, 1, 2]
    runs = _learned(sample)
    assert [run[-1] for run in runs] == [ids.eot] * 4
    assert runs[0] == [*scribe.raw_reply("hi there.", True), ids.eot]
    call = [ids.tool_call, *tokenizer.encode("function\nget_time\n{}"), ids.tool_call_end]
    assert runs[1] == [*scribe.raw_reply("let me check the time.", True), *call, ids.eot]

    def prompt(*items: Any) -> list[int]:
        slots = render(
            items, instructions="Be brief.", tools=tool_specs([TOOL]), tokenizer=tokenizer, spoken=True
        )
        return [slot if isinstance(slot, int) else ids.audio_patch for slot in slots]

    def said(text: str, raw: list[int]) -> Any:
        return AssistantItem("", text, raw_ids=tuple(raw), spoken=True)

    whole = sample.ids.tolist()
    first = [_piece(0)]
    second = [*first, said("hi there.", runs[0][:-1]), _piece(1)]
    third = [
        *second,
        said("let me check the time.", runs[1][:-1]),
        ToolCallItem("", "", "get_time", "{}"),
        ToolResultItem("", "", '{"time":"14:00"}'),
    ]
    for items, run in zip((first, second, third), runs, strict=False):
        start = prompt(*items)
        assert whole[: len(start)] == start
        assert whole[len(start) : len(start) + len(run)] == run


def test_an_interrupted_reply_is_shorter_and_not_learned(
    teacher: Teacher, scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.pocket.lm_data.CUT_SHARE", 1.0)
    seen = set()
    for seed in range(30):
        sample = teacher.dialogue(np.random.default_rng(seed))
        runs = _learned(sample)
        if len(runs) == 3:  # the turn without a tool was cut
            assert runs[0][: 5 * 6] == scribe.raw_reply("let me check the time.", True)[:30]
            special = scribe.tokenizer.ids
            seen.add(int(((sample.ids >= special.audio_0) & (sample.ids < special.audio_pad)).sum()))
    assert len(seen) > 3
    assert max(seen) < 21 + 30 + 40 + 3


def test_a_transcript_follows_the_prompt_of_inference(
    teacher: Teacher, scribe: Scribe, pocket_dir: Path
) -> None:
    ids = scribe.tokenizer.ids
    tokenizer = TextTokenizer.from_folder(pocket_dir)
    found = set()
    for seed in range(20):
        sample = teacher.asr(np.random.default_rng(seed))
        number = sample.audio[0]
        pieces = next(part for part in _piece(number).content if isinstance(part, AudioContent)).pieces
        slots = render_transcription(pieces, tokenizer).slots
        expected = [slot if isinstance(slot, int) else ids.audio_patch for slot in slots]
        assert sample.ids.tolist() == [*expected, *tokenizer.encode(TEXTS[number]), ids.eot]
        assert _learned(sample) == [[*tokenizer.encode(TEXTS[number]), ids.eot]]
        found.add(number)
    assert found == {0, 1, 2}  # noise too: an empty transcript


def test_every_kind_of_sample_fits_into_a_batch(teacher: Teacher) -> None:
    rng = np.random.default_rng(0)
    drawn = [teacher.draw(rng, progress=k / 200) for k in range(200)]
    patch = teacher.scribe.tokenizer.ids.audio_patch
    batch = collate(drawn, patch=patch)
    flat = batch.ids.flatten().numpy()
    assert batch.ids.shape[0] == 200
    assert batch.ids.shape[1] % 8 == 0
    assert batch.audio.tolist() == [number for sample in drawn for number in sample.audio]
    assert np.array_equal(np.flatnonzero(flat == patch), batch.patches.numpy())
    assert all((sample.weights > 0).any() for sample in drawn)
    learned = np.concatenate([sample.ids[sample.weights > 0] for sample in drawn])
    weights = np.concatenate([sample.weights[sample.weights > 0] for sample in drawn])
    assert np.array_equal(flat[batch.learned.numpy() + 1], learned)
    assert np.array_equal(batch.weights.numpy(), weights)


def test_transcripts_grow_rarer_and_hard_dialogues_come_often(teacher: Teacher) -> None:
    rng = np.random.default_rng(0)

    def transcripts(progress: float) -> int:
        special = teacher.scribe.tokenizer.ids
        drawn = [teacher.draw(rng, progress=progress) for _ in range(400)]
        return sum(special.tts_start not in sample.ids and len(sample.audio) == 1 for sample in drawn)

    assert transcripts(0.0) > transcripts(1.0) > 0
    assert emphasis({"turns": [{"intent": "yes"}, {"intent": "count"}]}) > emphasis(
        {"turns": [{"intent": "yes"}]}
    )


def test_a_bank_that_is_not_the_corpus_is_refused(scribe: Scribe) -> None:
    other = {**DIALOGUE, "turns": [{**DIALOGUE["turns"][0], "user": "good morning"}]}
    with pytest.raises(ValueError, match="utterance 0"):
        Teacher({"train": [other], "agent_generic": []}, scribe)


def test_an_answer_is_taken_apart(scribe: Scribe) -> None:
    exam = Exam.__new__(Exam)
    exam.scribe = scribe
    raw = scribe.raw_reply("hi there.", True)
    answer = exam.understand(raw)
    assert (answer.text, answer.codes, answer.tail, answer.in_pattern) == (
        "hi there.",
        scribe.speech["hi there."],
        [],
        True,
    )
    assert not exam.understand(raw[:-1]).in_pattern
    assert not exam.understand([raw[0], *raw]).in_pattern


def _question(reply: str, **slots: str) -> Question:
    return Question([], [], "book", "", reply, [], slots, "", "speech")


def test_intent_and_slots_are_judged_apart() -> None:
    asked = _question("a table for two on friday at six.", people="two", when="on friday", time="six")
    assert same_intent(asked, "a table for two on friday at six.")
    assert same_intent(asked, "a table for three on sunday at half past seven.")
    assert not same_intent(asked, "your booking on friday at six is canceled.")
    assert slots_right(asked, "a table for two on sunday at six.") == [True, False, True]
    assert slots_right(_question("we are closed.", day="monday"), "we are closed.") == []


def test_the_same_talk_is_rendered_for_speech_and_text(scribe: Scribe) -> None:
    talk = Talk("Be brief.", spoken=True)
    scribe.hear(talk, 0)
    assert scribe.prompt(talk, spoken=True) == [
        *scribe.prompt(talk, spoken=False),
        scribe.tokenizer.ids.tts_start,
    ]
