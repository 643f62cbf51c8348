"""Draws the language model's lessons from the corpus: which kinds there are, how often each comes, and when.

It knows what the corpus holds and what a caller may do; how a conversation is written as ids is the scribe's business.
Pure Python and numpy, so that worker processes can draw while the GPU trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.pocket.lm_scribe import Sample, Scribe, Talk
from scripts.pocket.task import ASR, heard_of

# lesson -> its share at the beginning and at the end of the training (linear between). Beside those of this file the
# names are those of task.py: one sample of that task. What a corpus does not have leaves its share to the others.
LESSONS: dict[str, tuple[float, float]] = {
    "hear_turns": (0.14, 0.05),  # transcripts of what callers say in dialogues,
    "hear_generic": (0.16, 0.08),  # of sentences of any words, which no context helps to hear,
    "hear_agent": (0.05, 0.02),  # and of the agent's own voice, so that the model can also judge what it says
    "asr": (0.05, 0.03),
    "asr_part": (0.06, 0.07),
    "asr_es": (0.08, 0.05),
    "words": (0.02, 0.02),  # transcripts of nothing: which words follow each other, and where a text ends
    "dialogue": (0.20, 0.30),
    "dialogue_typed": (0.04, 0.05),  # most human turns are typed
    "dialogue_written": (0.03, 0.04),  # replies are text
    "repeat": (0.08, 0.09),  # sentences that nobody answers with, read aloud
    "speak": (0.02, 0.03),
    "s2tt": (0.02, 0.04),
    "s2st": (0.01, 0.04),
    "t2tt": (0.01, 0.02),
    "caption": (0.01, 0.02),
    "paralinguistic": (0.01, 0.02),
    "think": (0.005, 0.015),
    "base": (0.005, 0.015),
    "summary": (0.005, 0.01),
}
# How often a dialogue with such a turn is drawn, others once: what has many values, or hangs on a single word.
EMPHASIS = {
    "count": 4.0, "sum": 4.0, "repeat": 4.0, "spell": 3.0, "name": 3.0, "weather": 3.0,
    "time": 2.0, "order": 1.5, "cancel": 1.5, "change_booking": 1.5,
}  # fmt: skip
SOURCE_EMPHASIS = {"": 1.0, "prompt": 3.0, "history": 2.0}  # where the answer comes from: see task.Turn
CUT_SHARE = 0.15  # of spoken dialogues with several turns: an earlier reply was interrupted
TEXT_PAST_SHARE = 0.15  # of those: the first turns are read as text, as the session condenses them
TYPED_SHARE = 0.8  # of the human turns of a typed dialogue
SPEAK_PHRASES = (
    "repeat after me {}", "say {}", "please say {}", "repeat {}", "please repeat after me {}", "can you say {}",
    "read this aloud: {}", "repeat after me: {}",
)  # fmt: skip
QUESTION_WORDS = frozenset(
    ("what", "when", "where", "who", "how", "is", "are", "do", "does", "can", "could", "will", "which", "why")
)

Made = Mapping[str, Any]
"""A dialogue or a task as corpus.json holds it."""


class Teacher:
    """Draws training samples from the corpus."""

    def __init__(
        self, corpus: Made, scribe: Scribe, *, lessons: Mapping[str, tuple[float, float]] = LESSONS
    ) -> None:
        self.scribe, self.ears = scribe, scribe.ears
        check_bank(corpus, self.ears.texts)
        self.dialogues: list[Made] = corpus["train"]
        self.first_item = first_items(self.dialogues)
        self.emphasis = np.cumsum([emphasis(dialogue) for dialogue in self.dialogues])
        self.tasks = tasks_by_name(corpus["tasks"], first=int(self.first_item[-1]))
        heard = int(self.first_item[-1]) + sum(task["heard"] is not None for task in corpus["tasks"])
        self.generic = range(heard, self.ears.caller_n)
        self.sentences = [text for text in corpus["agent_generic"] if ("en", text) in scribe.speech]
        self.systems = sorted({dialogue["system"] for dialogue in self.dialogues})
        there = {
            "hear_generic": len(self.generic),
            "hear_agent": self.ears.agent_n,
            "words": len(self.generic),
            "repeat": len(self.sentences),
            **dict.fromkeys(("hear_turns", "dialogue", "dialogue_typed", "dialogue_written"), 1),
            **{name: len(found) for name, found in self.tasks.items()},
        }
        self.lessons = tuple(name for name in lessons if there.get(name))
        self.shares = np.array([lessons[name] for name in self.lessons])

    def draw(self, rng: np.random.Generator, progress: float) -> Sample:
        """One sample of a random lesson; `progress` of the training is 0 to 1."""
        shares = (1 - progress) * self.shares[:, 0] + progress * self.shares[:, 1]
        return self.give(self.lessons[_pick(np.cumsum(shares), rng)], rng)

    def give(self, lesson: str, rng: np.random.Generator) -> Sample:
        """One sample of this lesson."""
        if lesson.startswith("hear_"):
            return self.transcript(lesson, rng)
        match lesson:
            case "words":
                return self.scribe.words(self.ears.texts[self.generic[int(rng.integers(len(self.generic)))]])
            case "repeat":
                return self.repeat(rng)
            case "dialogue" | "dialogue_typed" | "dialogue_written":
                typed_in, written = lesson == "dialogue_typed", lesson == "dialogue_written"
                return self.dialogue(rng, typed_in=typed_in, spoken=not written)
            case _:
                listed = self.tasks[lesson]
                return self.task(*listed[int(rng.integers(len(listed)))], rng)

    # ---- transcripts

    def transcript(self, lesson: str, rng: np.random.Generator) -> Sample:
        """Audio to its transcript; noise and foreign speech to nothing."""
        ears, talk = self.ears, Talk(ASR, spoken=False)
        if lesson == "hear_agent":
            item = int(rng.integers(ears.agent_n))
            self.scribe.hear(talk, ears.agent(item))
            return self.scribe.transcript(talk, ears.texts[ears.caller_n + item])
        items = self.generic if lesson == "hear_generic" else range(int(self.first_item[-1]))
        item = items[int(rng.integers(len(items)))]
        self.scribe.hear(talk, ears.caller(item, rng))
        return self.scribe.transcript(talk, ears.texts[item])

    # ---- conversations

    def dialogue(self, rng: np.random.Generator, *, typed_in: bool = False, spoken: bool = True) -> Sample:
        """A whole conversation with every reply to be learned; `typed_in`: most human turns are typed."""
        row = _pick(self.emphasis, rng)
        made, first = self.dialogues[row], int(self.first_item[row])
        talk = Talk(made["system"], made["tools"] or (), spoken)
        self.scribe.recall(talk, made["history"], summary=made["summary"])
        turns: list[Made] = made["turns"]
        cut = past = -1
        if spoken and len(turns) > 1 and rng.random() < CUT_SHARE:
            cut = int(rng.integers(len(turns) - 1))
        elif len(turns) > 1 and rng.random() < TEXT_PAST_SHARE:
            past = int(rng.integers(len(turns) - 1))
        for k, turn in enumerate(turns):
            said = turn["heard"]["text"]
            if k <= past and turn["tool"] is None and said:
                self.scribe.recall(talk, [(said, turn["reply"])])
                continue
            if typed_in and said and rng.random() < TYPED_SHARE:
                self.scribe.read(talk, typed(said, rng))
            else:
                self.scribe.hear(talk, self.ears.caller(first + k, rng))
            if k == cut and turn["tool"] is None:
                self.scribe.cut_reply(talk, turn["reply"], rng, language=turn["language"])
                continue
            self.scribe.reply(talk, turn["reply"], language=turn["language"], call=turn["tool"])
            if turn["tool"] is not None:
                self.scribe.reply(talk, turn["tool"]["final"], language=turn["language"])
        return self.scribe.sample(talk)

    def repeat(self, rng: np.random.Generator) -> Sample:
        """A sentence that nobody answers with, to be repeated aloud."""
        text = self.sentences[int(rng.integers(len(self.sentences)))]
        asked = text if rng.random() < 0.3 else text.rstrip(".?")
        phrase = SPEAK_PHRASES[int(rng.integers(len(SPEAK_PHRASES)))].format(asked)
        talk = Talk(self.systems[int(rng.integers(len(self.systems)))])
        self.scribe.read(talk, phrase[:1].upper() + phrase[1:] if rng.random() < 0.3 else phrase)
        self.scribe.reply(talk, text)
        return self.scribe.sample(talk)

    # ---- tasks

    def task(self, made: Made, item: int, rng: np.random.Generator | None) -> Sample:
        """One task; `item` is the number of what is heard in the caller bank (-1: nothing is)."""
        talk, reply, language = task_talk(made), made["reply"], made["language"]
        self.scribe.recall(talk, made["history"], summary=made["summary"])
        if item >= 0:
            self.scribe.hear(talk, self.ears.caller(item, rng), made["typed"])
        else:
            self.scribe.read(talk, made["typed"])
        if made["name"].startswith("asr"):
            return self.scribe.transcript(talk, reply)
        if made["name"] == "base":
            return self.scribe.continuation(talk, reply, language=language)
        if made["thought"]:
            return self.scribe.thought(talk, made["thought"], reply, language=language)
        return self.scribe.answer(talk, reply, language=language)


def task_talk(made: Made) -> Talk:
    """The conversation that a task begins."""
    return Talk(made["instructions"], spoken=made["spoken"])


def tasks_by_name(tasks: Sequence[Made], *, first: int) -> dict[str, list[tuple[Made, int]]]:
    """Every task with its item in the caller bank, whose first task's is `first`; -1 for what nobody hears."""
    found: dict[str, list[tuple[Made, int]]] = {}
    for made in tasks:
        heard = made["heard"] is not None
        found.setdefault(made["name"], []).append((made, first if heard else -1))
        first += heard
    return found


def typed(text: str, rng: np.random.Generator) -> str:
    """What a caller says as somebody types it: often with a capital and a closing mark."""
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.5:
        text += "?" if text.split(" ")[0].lower() in QUESTION_WORDS else "."
    return text


def emphasis(dialogue: Made) -> float:
    """How often a dialogue is drawn: as its hardest turn asks."""
    return max(
        max(EMPHASIS.get(turn["intent"], 1.0), SOURCE_EMPHASIS.get(turn["source"], 1.0))
        for turn in dialogue["turns"]
    )


def _pick(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """An index with the probability of its part of the rising sums."""
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def first_items(dialogues: Sequence[Made]) -> NDArray[np.int64]:
    """Number of each dialogue's first utterance in its bank; what the tasks hear begins at the last value."""
    return np.cumsum([0] + [len(dialogue["turns"]) for dialogue in dialogues])


def check_bank(corpus: Made, texts: Sequence[str], *, test: bool = False) -> None:
    """Fails unless the bank's utterances are what the corpus has heard, in order; the agent's may follow."""
    wanted = heard_of(corpus, test=test)
    for i, (sound, text) in enumerate(zip_longest(wanted, texts)):
        if sound is None:
            break
        if text is None:
            raise ValueError(f"the bank has {len(texts)} utterances, the corpus more")
        if sound.text != text:
            raise ValueError(f"utterance {i} of the bank is {text!r}, of the corpus {sound.text!r}")
