"""What is asked: the held-out part of the corpus, who says it in which bank, and the list of jobs. Asks no model.

A job is a small tuple that any process can do by itself: (kind, bank, number), ("speak", text, codes) and so on; its
name is its JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import corpus as corpus_text
import gen_data
import numpy as np
import synth
from numpy.typing import NDArray
from task import heard_of

from .report import BANKS

SCRIPTS = Path(gen_data.__file__).parent
REPLY_BANKS = (
    "test_seen",
    "test_new",
    "test_voices",
)  # where whole dialogues are asked; elsewhere, hearing alone
SPEEDS = (0.8, 1.3)
# What the server's VAD leaves around an utterance, less the 100 ms that the synthesised files have at both ends.
LEAD, TAIL = int(0.2 * synth.RATE), int(0.4 * synth.RATE)

Job = tuple[Any, ...]
Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Paper:
    """The held-out part of a corpus."""

    made: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | None, *, cache: Path) -> Paper:
        """Of a corpus.json, or as corpus.py makes it; the latter is kept in `cache` under the name of the sources."""
        if path is None:
            sources = b"".join(p.read_bytes() for p in sorted(SCRIPTS.glob("*.py")) if "lm_" not in p.name)
            path = cache / f"held-out-{hashlib.sha256(sources).hexdigest()[:12]}.json"
            if not path.exists():
                cache.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(corpus_text.build_test(), ensure_ascii=False))
        made = json.loads(path.read_text(encoding="utf-8"))
        return cls({name: made[name] for name in HELD})

    @cached_property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(self.made).encode()).hexdigest()[:12]

    @cached_property
    def sounds(self) -> list[Any]:
        """Everything that is heard, in the order of the banks."""
        return list(heard_of(self.made, test=True))

    @cached_property
    def first_item(self) -> list[int]:
        """Of each dialogue; behind them of the tasks, of which those that nobody hears have none (-1)."""
        out, at = [], 0
        for made in self.made["test"]:
            out.append(at)
            at += len(made["turns"])
        for made in self.made["task_test"]:
            out.append(at if made["heard"] else -1)
            at += made["heard"] is not None
        return out

    @cached_property
    def generic(self) -> range:
        """Items of the generic sentences."""
        return range(len(self.sounds) - len(self.made["generic_test"]), len(self.sounds))

    def task_item(self, number: int) -> int:
        return self.first_item[len(self.made["test"]) + number]

    def item(self, bank: str, at: int) -> gen_data.Item:
        """An item of a bank; "speed 1.3" is `test_seen` with its voices so much faster."""
        name, _, speed = bank.partition(" ")
        items = self._bank("test_seen" if speed else name)
        if not speed:
            return items[at]
        voice = items[at].voice
        return replace(items[at], voice=replace(voice, rate=voice.rate * float(speed)))

    def _bank(self, name: str) -> list[gen_data.Item]:
        known: dict[str, list[gen_data.Item]] = self.__dict__.setdefault("_banks", {})
        if name not in known:
            known[name] = gen_data.heard_items(self.sounds, name)
        return known[name]

    def heard(self, bank: str, at: int) -> Sound:
        """An utterance as the server's VAD hands it over; one that breaks off ends where it breaks off."""
        item = self.item(bank, at)
        samples, _, cut = gen_data.make_marked(item)
        return padded(samples, before=LEAD, after=0 if cut else TAIL)


HELD = ("test", "task_test", "generic_test")


def padded(samples: synth.Wave, *, before: int, after: int) -> Sound:
    """As 16 kHz float32, with samples of silence around it."""
    audio = np.pad(samples, (before, after)).astype(np.float32) / 32768
    audio.flags.writeable = False
    return audio


def jobs(paper: Paper, *, talks: int, tasks: int, sentences: int) -> list[Job]:
    """All questions but those about its speech, mixed, so that a look at half of them is fair."""
    out = list(_listed(paper, talks=talks, tasks=tasks, sentences=sentences))
    Random("jobs").shuffle(out)
    return out


def _listed(paper: Paper, *, talks: int, tasks: int, sentences: int) -> Iterator[Job]:
    by_name: dict[str, list[int]] = {}
    for number, made in enumerate(paper.made["task_test"]):
        by_name.setdefault(made["name"], []).append(number)
    for bank in REPLY_BANKS:
        yield from (("talk", bank, number) for number in range(min(talks, len(paper.made["test"]))))
        for numbers in by_name.values():
            heard = [number for number in numbers if bank == "test_seen" or paper.task_item(number) >= 0]
            yield from (("task", bank, number) for number in heard[:tasks])
    for bank in (*BANKS, *(f"speed {speed}" for speed in SPEEDS)):
        yield from (("hear", bank, number) for number in range(min(sentences, len(paper.generic))))


def name_of(job: Job) -> str:
    """A job's name in the notebook: "speak" jobs go by their text alone."""
    return json.dumps(job[:2] if job[0] == "speak" else job, ensure_ascii=False)
