"""What the language model is trained on must be what inference feeds it, and only the agent's own words are learned."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.pocket.lm_batches import Batches, collate
from scripts.pocket.lm_data import LESSONS, Teacher, emphasis
from scripts.pocket.lm_eval import Exam, Question
from scripts.pocket.lm_scribe import CachedTokenizer, Ears, Sample, Scribe, SpeechTokens, Talk, tool_specs
from scripts.pocket.scoring import same_intent, slots_right
from scripts.pocket.task import ASR, NAMES, Dialogue, Sound, Task, Tool, Turn
from voiceagent.core.condense import HEADING
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.models.step_audio2.prompt import render, render_answer, render_transcription, render_turn
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant

TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Current time",
        "parameters": {"type": "object", "properties": {}},
    },
}
CHECK = Tool("get_time", {}, '{"time":"14:00"}', "it is two o'clock.")
DIALOGUE = Dialogue(
    "time",
    "Be brief.",
    [TOOL],
    [
        Turn(Sound("hello"), "hi there.", "greeting"),
        Turn(Sound("what time is it"), "let me check the time.", "time", tool=CHECK),
        Turn(Sound("", kind="noise"), "sorry?", "unclear"),
    ],
)
TASKS = [
    Task("asr_part", ASR, Sound("what time", words=2, whole="what time is it"), "", "what time", False),
    Task("asr_es", ASR, Sound("qué hora es", language="es"), "", "qué hora es", False, language="es"),
    Task("s2st", "Into Spanish.", Sound("blue"), "", "azul.", True, language="es"),
    Task("t2tt", "Into Spanish.", None, "blue", "azul", False, language="es"),
    Task("s2tt", "Into Spanish.", Sound("blue"), "", "", False, language="es"),
    Task("think", "Think.", None, "what is one plus one", "two.", True, thought="one and one are two."),
    Task("base", "Read this.\n", None, "two.", "two.", True),
    Task("summary", "", None, "Sum it up.", "they said hello.", False, history=[["hello", "hi there."]]),
]
SPOKEN = ["hi there.", "let me check the time.", "it is two o'clock.", "sorry?", "a blue house.", "two."]
TEXTS = ["hello", "what time is it", "", "what time", "qué hora es", "blue", "blue", "any words at all"]
FRAMES = np.array([130, 245, 101, 140, 150, 90, 90, 200])


def corpus(*dialogues: Dialogue, tasks: list[Task] = TASKS) -> dict[str, Any]:
    made = {"train": list(map(asdict, dialogues)), "tasks": list(map(asdict, tasks))}
    return made | {"generic": ["any words at all"], "agent_generic": ["a blue house."], "agent_spanish": []}


@pytest.fixture(scope="module")
def scribe(pocket_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Scribe:
    folder = tmp_path_factory.mktemp("tokens")
    speech = SpeechTokens()
    for tag, said, lengths in (
        ("agent", [("en", text) for text in SPOKEN], [21, 30, 40, 3, 25, 17]),
        ("agent_es", [("es", "azul.")], [11]),
    ):
        tokens = np.random.default_rng(0).integers(0, 6561, sum(lengths)).astype(np.int16)
        np.savez(folder / f"{tag}.npz", tokens=tokens, offsets=np.cumsum([0, *lengths]))
        speech.add(said, folder / f"{tag}.npz")
    return Scribe(CachedTokenizer(pocket_dir), speech, Ears(FRAMES, len(TEXTS), 1, 0, TEXTS))


@pytest.fixture
def teacher(scribe: Scribe) -> Teacher:
    return Teacher(corpus(DIALOGUE), scribe)


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
    monkeypatch.setattr("scripts.pocket.lm_data.TEXT_PAST_SHARE", 0.0)
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
    for seed in range(60):
        lesson = ("hear_turns", "hear_generic", "asr_part", "asr_es")[seed % 4]
        sample = teacher.give(lesson, np.random.default_rng(seed))
        number = sample.audio[0]
        pieces = next(part for part in _piece(number).content if isinstance(part, AudioContent)).pieces
        slots = render_transcription(pieces, tokenizer).slots
        expected = [slot if isinstance(slot, int) else ids.audio_patch for slot in slots]
        assert sample.ids.tolist() == [*expected, *tokenizer.encode(TEXTS[number]), ids.eot]
        assert _learned(sample) == [[*tokenizer.encode(TEXTS[number]), ids.eot]]
        found.add(number)
    assert found == {0, 1, 2, 3, 4, 7}  # noise too: an empty transcript


def test_words_alone_are_asked_for_as_the_judge_of_ends_asks(teacher: Teacher, scribe: Scribe) -> None:
    tokenizer = scribe.tokenizer
    sample = teacher.give("words", np.random.default_rng(0))
    bare = render((), instructions=ASR, tokenizer=tokenizer, spoken=False)  # type: ignore[arg-type]
    words = [*tokenizer.encode("any words at all"), tokenizer.ids.eot]
    assert sample.ids.tolist() == [*bare, *words]
    assert _learned(sample) == [words]


def test_what_was_said_before_is_read_and_not_learned(scribe: Scribe) -> None:
    before = replace(DIALOGUE, history=[["good morning", "hi there."]], summary="They like tea.")
    teacher = Teacher(corpus(before, tasks=[]), _only(scribe, 3))
    sample = teacher.dialogue(np.random.default_rng(3))
    items = [
        SystemItem("", HEADING + "They like tea."),
        UserItem("", (TextContent("good morning"),)),
        AssistantItem("", "hi there.", spoken=False),
        _piece(0),
    ]
    slots = render(
        items,
        instructions="Be brief.",
        tools=tool_specs([TOOL]),
        tokenizer=scribe.tokenizer,  # type: ignore[arg-type]
        spoken=True,
    )
    start = [slot if isinstance(slot, int) else scribe.tokenizer.ids.audio_patch for slot in slots]
    assert sample.ids[: len(start)].tolist() == start
    assert not sample.weights[: len(start)].any()
    assert len(_learned(sample)) == 4


def _only(scribe: Scribe, heard: int) -> Scribe:
    """The scribe with the first so many utterances, and the generic one."""
    texts = [*TEXTS[:heard], TEXTS[-1]]
    return Scribe(scribe.tokenizer, scribe.speech, Ears(FRAMES[: heard + 1], heard + 1, 1, 0, texts))


def test_turns_that_are_read_as_text_are_not_learned(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.pocket.lm_data.CUT_SHARE", 0.0)
    monkeypatch.setattr("scripts.pocket.lm_data.TEXT_PAST_SHARE", 1.0)
    found = {len(teacher.dialogue(np.random.default_rng(seed)).audio) for seed in range(10)}
    assert found == {2}  # the greeting is read; the question with a tool is heard


def test_a_thought_is_learned_in_the_form_in_which_it_is_read_back(teacher: Teacher, scribe: Scribe) -> None:
    tokenizer, ids = scribe.tokenizer, scribe.tokenizer.ids
    sample = teacher.give("think", np.random.default_rng(0))
    asked: dict[str, Any] = {"instructions": "Think.", "tools": (), "tool_choice": "auto", "spoken": True}
    asked |= {"tokenizer": tokenizer, "variant": Variant.THINK}
    prompt = render_turn([UserItem("", (TextContent("what is one plus one"),))], think=True, **asked)
    whole = sample.ids.tolist()
    assert whole[: len(prompt.slots)] == list(prompt.slots)
    answer = render_answer(prompt, "one and one are two.\n", tokenizer=tokenizer, spoken=True)  # type: ignore[arg-type]
    assert whole == [*answer.slots, *scribe.raw_reply("two.", True), ids.eot]
    assert sample.weights[len(prompt.slots)] > 0
    assert sample.weights[whole.index(ids.tts_start)] == 0


def test_a_base_prompt_has_no_turns(teacher: Teacher, scribe: Scribe) -> None:
    tokenizer, ids = scribe.tokenizer, scribe.tokenizer.ids
    sample = teacher.give("base", np.random.default_rng(0))
    start = [*tokenizer.encode("Read this.\n"), *tokenizer.encode("two."), ids.tts_start]
    assert sample.ids.tolist() == [*start, *scribe.raw_reply("two.", True), tokenizer.eos]
    assert _learned(sample)[0] == sample.ids[len(start) :].tolist()


def test_each_language_has_its_own_speech(teacher: Teacher, scribe: Scribe) -> None:
    sample = teacher.give("s2st", np.random.default_rng(0))
    assert _learned(sample) == [[*scribe.raw_reply("azul.", True, "es"), scribe.tokenizer.ids.eot]]
    assert sample.audio == [5]


def test_a_written_answer_may_be_empty(teacher: Teacher, scribe: Scribe) -> None:
    sample = teacher.give("s2tt", np.random.default_rng(0))
    assert _learned(sample) == [[scribe.tokenizer.ids.eot]]


def test_a_faulty_sample_is_told_and_many_are_an_error(
    teacher: Teacher, capsys: pytest.CaptureFixture[str]
) -> None:
    good = teacher.give("words", np.random.default_rng(0))
    told = iter([good, None, *[good] * 999, *[None] * 9])

    def draw(_rng: np.random.Generator, _progress: float) -> Sample:
        if (sample := next(told)) is None:
            raise KeyError("unheard")
        return sample

    batches = Batches(draw, patch=1, tokens=10**6, pool=1000)
    assert len(next(iter(batches)).ids) > 1
    assert "left out: KeyError('unheard')" in capsys.readouterr().out
    with pytest.raises(KeyError):
        next(iter(batches))


def test_every_kind_of_sample_fits_into_a_batch(teacher: Teacher) -> None:
    rng = np.random.default_rng(0)
    assert set(teacher.lessons) >= {task.name for task in TASKS}
    assert set(LESSONS) >= set(NAMES)
    drawn = [teacher.give(lesson, rng) for lesson in teacher.lessons]
    drawn += [teacher.draw(rng, k / 100) for k in range(100)]
    patch = teacher.scribe.tokenizer.ids.audio_patch
    batch = collate(drawn, patch=patch)
    flat = batch.ids.flatten().numpy()
    assert batch.ids.shape[0] == len(drawn)
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

    def dialogues(progress: float) -> int:
        drawn = [teacher.draw(rng, progress) for _ in range(300)]
        return sum(len(sample.audio) == 3 for sample in drawn)

    assert 0 < dialogues(0.0) < dialogues(1.0)
    easy, hard = ({"intent": name, "source": ""} for name in ("yes", "count"))
    assert emphasis({"turns": [easy, hard]}) > emphasis({"turns": [easy]})
    assert emphasis({"turns": [easy | {"source": "prompt"}]}) > emphasis({"turns": [easy]})


def test_a_bank_that_is_not_the_corpus_is_refused(scribe: Scribe) -> None:
    other = replace(DIALOGUE, turns=[replace(DIALOGUE.turns[0], heard=Sound("good morning"))])
    with pytest.raises(ValueError, match="utterance 0"):
        Teacher(corpus(other), scribe)
    with pytest.raises(ValueError, match="the corpus more"):
        Teacher(
            corpus(DIALOGUE), Scribe(scribe.tokenizer, scribe.speech, Ears(FRAMES[:2], 2, 1, 0, TEXTS[:2]))
        )


def test_an_answer_is_taken_apart(scribe: Scribe) -> None:
    exam = Exam.__new__(Exam)
    exam.scribe = scribe
    raw = scribe.raw_reply("hi there.", True)
    answer = exam.understand(raw)
    assert (answer.text, answer.codes, answer.tail, answer.in_pattern) == (
        "hi there.",
        scribe.speech["en", "hi there."],
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
