"""Puts the text of the corpus together: dialogues, tasks, generic sentences, what is held out. Makes no audio.

    PYTHONPATH=. python3 scripts/pocket/corpus.py --out corpus.json [--scale X]
    PYTHONPATH=. python3 scripts/pocket/corpus.py --show 5          # samples of every kind, for a person to judge

Held out from training: one sentence in twelve, one wording in seven where there are others, one value of facts in
seven (scene.py); each by a hash, so that every script agrees. task.py says what corpus.json holds.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import describing
import dialogue
import grammar
import hearing
import lexicon as lex
import reading
import thinking
from scene import Scene, held_out
from task import Dialogue, Task, said_of

DIALOGUES, GENERIC, AGENT_GENERIC, AGENT_SPANISH = 52_000, 24_000, 30_000, 9_000
TEST_DIALOGUES, TEST_GENERIC = 900, 300
# How many tasks of each kind training and the test have.
TASKS = {
    "asr": (4000, 110), "asr_part": (9000, 120), "asr_es": (5000, 100), "s2tt": (6500, 120), "s2st": (5500, 120),
    "t2tt": (1500, 40), "caption": (6500, 120), "paralinguistic": (4500, 100), "speak": (8000, 120),
    "think": (5000, 100), "base": (3500, 80), "summary": (2500, 60),
}  # fmt: skip
TEST_SPLITS = {"sentence": 0.5, "template": 0.2, "value": 0.2, "fixed": 0.1}
# Most of the training dialogues are as callers talk; the rest all have a turn that is hard to get right.
PLAIN_SHARE = 0.7
HARD = frozenset(
    {
        "book", "cancel", "change_booking", "count", "name", "name_memory", "order", "price", "repeat", "spell", "sum",
        "time", "weather", "unspell", "spelled_name", "email", "password", "change_phone", "callback", "meal",
        "list_nth", "tool_lookup", "tool_search", "order_lookup", "hours",
    }
)  # fmt: skip
ROUND_SHARE = 0.16  # of the generic sentences: words of the vocabulary in turn
LONGEST, LONGEST_REPLY = 190, 26  # characters of what is heard (12 s), words of what is said


KNOWN_WORDS = dialogue.FIXED_INTENTS - {"unclear"}  # training knows all that is said there


def _held_turns(made: Dialogue) -> list[bool]:
    """Of every turn that may be held out: whether it is."""
    return [
        held_out(turn.heard.text) for turn in made.turns if turn.heard.text and turn.intent not in KNOWN_WORDS
    ]


def _fits(made: Dialogue) -> bool:
    said = [turn.reply for turn in made.turns] + [turn.tool.final for turn in made.turns if turn.tool]
    return all(len(turn.heard.text) <= LONGEST for turn in made.turns) and all(
        len(sentence.split()) <= LONGEST_REPLY for sentence in said
    )


def make_train(rng: Random) -> Dialogue:
    """A conversation that may be trained on."""
    while True:
        made = dialogue.make(rng)
        known = [pair[0] for pair in made.history]
        if _fits(made) and not any(_held_turns(made)) and not any(map(held_out, known)):
            return made


def make_test(rng: Random, split: str) -> Dialogue:
    """A conversation with something that training never had."""
    while True:
        made = dialogue.make(rng, split if split in ("template", "value") else "train")
        held = _held_turns(made)
        fits = {"sentence": any(held), "fixed": not held}.get(split, made.tested == split)
        if split == "value":  # and the answer hangs on it
            fits = fits and any(turn.source == "prompt" or turn.tool for turn in made.turns)
        if fits and _fits(made):
            return Dialogue(**{**{n: getattr(made, n) for n in Dialogue.__slots__}, "tested": split})


def make_dialogues(
    rng: Random, *, train: int, test: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and test dialogues. No training turn holds a held-out sentence, wording or value."""
    tested: dict[str, Dialogue] = {}
    wanted = [split for split, share in TEST_SPLITS.items() for _ in range(round(share * test))]
    for split in wanted:
        for _ in range(50):
            made = make_test(rng, split)
            key = " | ".join((split, *(turn.heard.text or turn.heard.kind for turn in made.turns)))
            if key not in tested:
                tested[key] = made
                break
    kept: list[Dialogue] = []
    while len(kept) < train:
        made = make_train(rng)
        if len(kept) < train * PLAIN_SHARE or any(turn.intent in HARD for turn in made.turns):
            kept.append(made)
    return [asdict(made) for made in kept], [asdict(made) for made in tested.values()]


def make_generic(rng: Random, *, train: int, test: int) -> tuple[list[str], list[str]]:
    """Sentences for hearing, disjoint. Some are words of the vocabulary in turn, so that none is rare."""
    kept: dict[str, None] = {}
    tested: dict[str, None] = {}
    queue: list[str] = []
    while len(kept) < train or len(tested) < test:
        sentence = grammar.sentence(rng)
        if rng.random() < ROUND_SHARE:
            if len(queue) < 8:
                queue = [*queue, *rng.sample(grammar.ALL_WORDS, len(grammar.ALL_WORDS))]
            sentence = " ".join(queue.pop() for _ in range(rng.randint(3, 7)))
        if len(sentence) > LONGEST:
            continue
        if held_out(sentence):
            if len(tested) < test:
                tested[sentence] = None
        elif len(kept) < train:
            kept[sentence] = None
    return list(kept), list(tested)


def make_agent_generic(rng: Random, *, count: int) -> list[str]:
    """Sentences for speaking: goes round the vocabulary, so that every word is spoken equally often."""
    made: dict[str, None] = {}
    queue: list[str] = []
    while len(made) < count:
        if not queue:
            queue = list(grammar.ALL_WORDS)
            rng.shuffle(queue)
        sentence = grammar.spoken_exercise(rng, word=queue.pop())
        if len(sentence.split()) <= 16 and len(sentence) <= 90 and not held_out(sentence):
            made[sentence] = None
    return list(made)


def make_agent_spanish(rng: Random, *, count: int) -> list[str]:
    """Spanish sentences for speaking."""
    made: dict[str, None] = {}
    while len(made) < count:
        _, es, _ = hearing.pair(rng, test=False)
        made[hearing.written(es, "es")] = None
    return list(made)


def _english(dialogues: list[dict[str, Any]]) -> list[str]:
    """What callers say in English, in order."""
    heard = [turn["heard"] for made in dialogues for turn in made["turns"]]
    return [sound["text"] for sound in heard if sound["text"] and sound["language"] == "en"]


def _heard_texts(dialogues: list[dict[str, Any]], generic: list[str]) -> Iterator[str]:
    """Texts to be transcribed, from dialogues and of any words, without end."""
    rng, turns = Random("texts"), _english(dialogues)
    while True:
        yield rng.choice(turns if rng.random() < 0.55 else generic)


def make_tasks(
    rng: Random, *, scale: float, test: bool, texts: Iterator[str], spoken: list[str], spanish: list[str]
) -> list[Task]:
    """All tasks but dialogues, of training or of the test."""
    split = "template" if test else "train"

    def one(name: str) -> Task | None:
        if name == "asr":
            if rng.random() < 0.3:
                return _hinted(rng, next(texts), test=test)
            return hearing.styled(rng, next(texts))
        if name == "asr_part":
            return hearing.part(rng, next(texts), test=test)
        if name == "asr_es":
            return hearing.spanish(rng, test=test)
        if name in ("s2tt", "s2st"):
            if name == "s2tt" and rng.random() < 0.04:
                return hearing.nothing_to_translate(rng)
            return hearing.translation(rng, test=test, aloud=name == "s2st")
        if name == "t2tt":
            return hearing.typed_translation(rng, test=test)
        if name == "caption":
            if rng.random() < 0.15:
                return describing.caption(rng, hearing.bare(hearing.pair(rng, test=test)[1]), "es")
            return (describing.question if rng.random() < 0.25 else describing.caption)(rng, next(texts))
        if name == "paralinguistic":
            return describing.paralinguistic(Scene(rng, split=split))
        if name == "speak":
            return reading.speak(rng, *_to_read(rng, spoken, spanish))
        if name == "think":
            return thinking.think(rng, rng.choice(("template", "value")) if test else "train")
        if name == "base":
            if rng.random() < 0.35:
                return reading.base_aloud(rng, *_to_read(rng, spoken, spanish))
            return reading.base(rng, next(texts), test=test)
        return reading.summing(rng, split)

    made: list[Task] = []
    for name, counts in TASKS.items():
        wanted = max(2, round(counts[test] * scale))
        while wanted:
            task = one(name)
            if task is not None and _task_fits(task, test=test):
                made.append(task)
                wanted -= 1
    return made


def _hinted(rng: Random, text: str, *, test: bool) -> Task:
    """A transcript with something known beforehand, a quarter of them Spanish."""
    others = [rng.choice((grammar.noun(rng), rng.choice(lex.NAMES))) for _ in range(4)]
    if rng.random() < 0.25:
        return hearing.hinted(rng, hearing.bare(hearing.pair(rng, test=test)[1]), "es", others)
    return hearing.hinted(rng, text, "en", others)


def _to_read(rng: Random, english: list[str], spanish: list[str]) -> tuple[str, str]:
    """A sentence to be read aloud, and its language."""
    return (rng.choice(english), "en") if rng.random() < 0.6 else (rng.choice(spanish), "es")


def _task_fits(task: Task, *, test: bool) -> bool:
    """Whether it is short enough and, in training, holds no sentence that is held out."""
    if task.heard is not None and len(task.heard.whole or task.heard.text) > LONGEST:
        return False
    if task.spoken and len(task.reply.split()) > LONGEST_REPLY:
        return False
    if test:
        return True
    if any(held_out(said) for said, _ in task.history):
        return False
    asked = task.heard.text if task.heard else task.typed
    return task.name not in ("think", "asr", "caption") or not held_out(asked)


def build(
    *, dialogues: int = DIALOGUES, generic: int = GENERIC, agent: int = AGENT_GENERIC, seed: int = 1
) -> dict[str, Any]:
    """The whole corpus.json; the same seed and sizes give the same corpus. Tasks go with the dialogues."""
    scale = dialogues / DIALOGUES
    small = scale < 1
    train_set, _ = make_dialogues(Random(f"{seed}/train"), train=dialogues, test=0)
    kept, _ = make_generic(Random(f"{seed}/generic"), train=generic, test=0)
    spoken = make_agent_generic(Random(f"{seed}/agent"), count=agent)
    spanish = make_agent_spanish(Random(f"{seed}/spanish"), count=max(20, round(AGENT_SPANISH * scale)))
    tasks = make_tasks(
        Random(f"{seed}/tasks"), scale=scale, test=False, texts=_heard_texts(train_set, kept), spoken=spoken,
        spanish=spanish,
    )  # fmt: skip
    return {
        "train": train_set,
        "tasks": [asdict(task) for task in tasks],
        "generic": kept,
        "agent_generic": spoken,
        "agent_spanish": spanish,
        **build_test(
            dialogues=max(40, dialogues // 40) if small else TEST_DIALOGUES,
            generic=max(20, generic // 40) if small else TEST_GENERIC,
            scale=max(0.15, scale) if small else 1.0,
            seed=seed,
        ),
    }


def build_test(
    *, dialogues: int = TEST_DIALOGUES, generic: int = TEST_GENERIC, scale: float = 1.0, seed: int = 1
) -> dict[str, Any]:
    """What is tested, of corpus.json: the same without the training part, which takes most of the time."""
    _, tested = make_dialogues(Random(f"{seed}/test"), train=0, test=dialogues)
    _, sentences = make_generic(Random(f"{seed}/generic_test"), train=0, test=generic)
    spoken = _to_speak(Random(f"{seed}/aloud"), count=40)
    spanish = [hearing.written(hearing.pair(Random(f"{seed}/es/{n}"), test=True)[1], "es") for n in range(40)]
    tasks = make_tasks(
        Random(f"{seed}/task_test"), scale=scale, test=True, texts=_held_texts(tested, sentences), spoken=spoken,
        spanish=spanish,
    )  # fmt: skip
    return {"test": tested, "task_test": [asdict(task) for task in tasks], "generic_test": sentences}


def _held_texts(dialogues: list[dict[str, Any]], generic: list[str]) -> Iterator[str]:
    """Texts that training does not hear."""
    rng, turns = Random("held texts"), [text for text in _english(dialogues) if held_out(text)]
    while True:
        yield rng.choice(turns if rng.random() < 0.55 and turns else generic)


def _to_speak(rng: Random, *, count: int) -> list[str]:
    """Sentences to be read aloud that training does not speak."""
    made: list[str] = []
    while len(made) < count:
        sentence = grammar.spoken_exercise(rng, word=rng.choice(grammar.ALL_WORDS))
        if held_out(sentence) and len(sentence) <= 90:
            made.append(sentence)
    return made


def vocabulary(corpus: dict[str, Any]) -> set[str]:
    """English words that are heard in generic sentences."""
    return {word for sentence in corpus["generic"] for word in re.findall(r"[a-z']+", sentence)}


def replies(corpus: dict[str, Any]) -> list[str]:
    """Every English sentence that the agent says, but for the generic ones."""
    return said_of(corpus | {"agent_generic": []}, "en")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--show", type=int, default=0, help="print so many samples of each kind instead")
    args = parser.parse_args()
    if args.show:
        import show

        print(show.samples(build(dialogues=3000, generic=400, agent=400, seed=args.show), args.show))
        return 0
    began = time.monotonic()
    corpus = build(
        dialogues=round(DIALOGUES * args.scale), generic=round(GENERIC * args.scale),
        agent=round(AGENT_GENERIC * args.scale),
    )  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(corpus, ensure_ascii=False))
    print(sizes(corpus))
    print(f"{time.monotonic() - began:.1f} s")
    return 0


def sizes(corpus: dict[str, Any]) -> str:
    """What there is of everything."""
    turns = [turn for made in corpus["train"] for turn in made["turns"]]
    lines = [str({name: len(items) for name, items in corpus.items()})]
    lines.append(f"{len(turns)} training turns, {len({turn['intent'] for turn in turns})} intents")
    heard = len(turns) + sum(bool(task["heard"]) for task in corpus["tasks"]) + len(corpus["generic"])
    lines.append(f"{heard} items of the caller bank, {len(vocabulary(corpus))} words in generic sentences")
    english, spanish = (len(said_of(corpus, language)) for language in ("en", "es"))
    lines.append(f"said: {english} English ({len(replies(corpus))} replies), {spanish} Spanish")
    for part in ("train", "test"):
        lines.append(f"{part}: {dict(Counter(made['group'] for made in corpus[part]).most_common())}")
    lines.append(f"tested: {dict(Counter(made['tested'] for made in corpus['test']).most_common())}")
    for part in ("tasks", "task_test"):
        lines.append(f"{part}: {dict(Counter(task['name'] for task in corpus[part]))}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
