"""Puts the text of the corpus together: dialogues, generic sentences, what is held out. Makes no audio.

python3 scripts/pocket/corpus.py --out corpus.json [--dialogues N --generic N --agent N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import dialogue
import grammar

DIALOGUES, GENERIC, AGENT_GENERIC = 90_000, 26_000, 42_000
TEST_DIALOGUES, TEST_GENERIC = 700, 300
TEST_SHARE = 12  # one of so many sentences is never in training
FIXED_TEST_SHARE = 0.15  # of the test dialogues: fixed phrases, whose words training knows
PLAIN_SHARE = (
    0.5  # of the training dialogues are as callers talk; the rest all have a turn that is hard to get right
)
HARD = frozenset(
    {
        "book", "cancel", "change_booking", "count", "name", "name_memory", "order", "price", "repeat", "spell", "sum",
        "time", "weather",
    }
)  # fmt: skip


def held_out(sentence: str) -> bool:
    """True for the sentences that training must not hear: decided by a hash, so every script agrees."""
    return int(hashlib.md5(sentence.encode()).hexdigest()[:8], 16) % TEST_SHARE == 0


def _may_hold_out(turn: dialogue.Turn) -> bool:
    return turn.kind == "speech" and turn.intent not in dialogue.FIXED and turn.user != ""


def make_dialogue(rng: Random) -> dict[str, Any]:
    """One dialogue in the form of corpus.json."""
    tools = dialogue.tool_schemas(rng)
    names = frozenset(tool["function"]["name"] for tool in tools or [])
    turns = dialogue.turns(dialogue.Scene(rng, names))
    intent = next((turn.intent for turn in turns if turn.intent not in dialogue.FIXED), turns[0].intent)
    return {
        "intent": intent,
        "system": dialogue.system_prompt(rng),
        "tools": tools,
        "turns": [asdict(turn) for turn in turns],
    }


def make_dialogues(
    rng: Random, *, train: int, test: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and test dialogues. No training turn holds a held-out sentence; every test dialogue with slots does.

    The second half of the training dialogues holds only such with a HARD turn: those whose values must be copied.
    """
    kept: list[dict[str, Any]] = []
    tested: list[dict[str, Any]] = []
    fixed_left, seen = int(test * FIXED_TEST_SHARE), set[str]()
    while len(kept) < train or len(tested) < test:
        made = make_dialogue(rng)
        turns = [dialogue.Turn(**turn) for turn in made["turns"]]
        open_turns = [turn for turn in turns if _may_hold_out(turn)]
        key = " | ".join(turn.user for turn in turns)
        if any(held_out(turn.user) for turn in open_turns):
            if len(tested) < test and key not in seen:
                seen.add(key)
                tested.append(made)
        elif not open_turns and fixed_left and len(tested) < test and key not in seen:
            seen.add(key if key else str(len(tested)))
            fixed_left -= 1
            tested.append(made)
        elif len(kept) < train * PLAIN_SHARE or (
            len(kept) < train and any(turn.intent in HARD for turn in turns)
        ):
            kept.append(made)
    return kept, tested


def make_generic(rng: Random, *, train: int, test: int) -> tuple[list[str], list[str]]:
    """Sentences for hearing, disjoint."""
    kept: dict[str, None] = {}
    tested: dict[str, None] = {}
    while len(kept) < train or len(tested) < test:
        sentence = grammar.sentence(rng)
        if len(sentence) > 150:
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
        if len(sentence.split()) <= 14 and len(sentence) <= 80:
            made[sentence] = None
    return list(made)


def build(
    *, dialogues: int = DIALOGUES, generic: int = GENERIC, agent: int = AGENT_GENERIC, seed: int = 1
) -> dict[str, Any]:
    """The whole corpus.json; the same seed and sizes give the same corpus."""
    small = dialogues < DIALOGUES
    test = max(30, dialogues // 60) if small else TEST_DIALOGUES
    test_generic = max(10, generic // 60) if small else TEST_GENERIC
    train_set, test_set = make_dialogues(Random(f"{seed}/dialogues"), train=dialogues, test=test)
    kept, tested = make_generic(Random(f"{seed}/generic"), train=generic, test=test_generic)
    spoken = make_agent_generic(Random(f"{seed}/agent"), count=agent)
    return {
        "train": train_set,
        "test": test_set,
        "generic": kept,
        "generic_test": tested,
        "agent_generic": spoken,
    }


def replies(corpus: dict[str, Any]) -> list[str]:
    """Every sentence that the agent says in the dialogues, once, in a stable order."""
    said: dict[str, None] = {}
    for made in [*corpus["test"], *corpus["train"]]:
        for turn in made["turns"]:
            said[turn["reply"]] = None
            if turn["tool"]:
                said[turn["tool"]["final"]] = None
    return list(said)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dialogues", type=int, default=DIALOGUES)
    parser.add_argument("--generic", type=int, default=GENERIC)
    parser.add_argument("--agent", type=int, default=AGENT_GENERIC)
    args = parser.parse_args()
    corpus = build(dialogues=args.dialogues, generic=args.generic, agent=args.agent)
    args.out.write_text(json.dumps(corpus, ensure_ascii=False))
    turns = sum(len(made["turns"]) for made in corpus["train"])
    print({name: len(items) for name, items in corpus.items()})
    print(f"{turns} training turns, {len(replies(corpus))} replies")
    print(Counter(made["intent"] for made in corpus["test"]).most_common())
    return 0


if __name__ == "__main__":
    sys.exit(main())
