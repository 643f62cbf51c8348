"""Writes the training data of the pocket checkpoint: corpus.json and the audio banks. Trains nothing.

python3 scripts/pocket/gen_data.py --data DIR [--procs N] [--dry] [--bank TAG ...]

A bank is {tag}.json (items, shard, offset, length, shards, rate) with {tag}_{k}.npy, int16 mono 16 kHz: test_seen,
test_new (the held-out engine), agent_male, agent, caller. Item order: every turn of the dialogues, one by one, then
the generic sentences; for the agent: its replies, then its generic sentences. The .json appears when a bank is whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus as corpus_text
import noises
import numpy as np
import synth

LONGEST, SHORTEST = 12 * synth.RATE, synth.RATE * 3 // 10
MALE_REPLIES, MALE_GENERIC = 2000, 4000
DRY = {"dialogues": 120, "generic": 60, "agent": 60}
SILENT_RMS = 40.0  # int16 units; quieter "speech" is a synthesis failure
PIECES = 6  # jobs per process and bank, so that all end together


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to be made; `seed` decides whatever is random about it."""

    text: str
    kind: str
    voice: synth.Voice
    seed: str


def turn_items(
    dialogues: list[dict[str, Any]], sentences: list[str], *, tag: str, held_out: bool
) -> list[Item]:
    """The caller's side of a bank, in the order of the contract."""
    said = [(turn["user"], turn["kind"]) for made in dialogues for turn in made["turns"]]
    said += [(sentence, "speech") for sentence in sentences]
    items = []
    for index, (text, kind) in enumerate(said):
        seed = f"{tag}/{index}"
        rng = random.Random(seed)
        voice = synth.held_out_voice(rng, index) if held_out else synth.training_voice(rng)
        items.append(Item(text, kind, voice, seed))
    return items


def agent_items(sentences: list[str], *, voice: str) -> list[Item]:
    return [Item(text, "speech", synth.Voice("flite", voice), text) for text in sentences]


def plan(corpus: dict[str, Any]) -> dict[str, list[Item]]:
    """Every bank's items."""
    replies, generic = corpus_text.replies(corpus), corpus["agent_generic"]
    male = random.Random(5).sample(replies, min(MALE_REPLIES, len(replies))) + generic[-MALE_GENERIC:]
    test, train = corpus["test"], corpus["train"]
    return {
        "test_seen": turn_items(test, corpus["generic_test"], tag="test_seen", held_out=False),
        "test_new": turn_items(test, corpus["generic_test"], tag="test_new", held_out=True),
        "agent_male": agent_items(male, voice="rms"),
        "agent": agent_items(list(dict.fromkeys([*replies, *generic])), voice="slt"),
        "caller": turn_items(train, corpus["generic"], tag="caller", held_out=False),
    }


_synthesiser: synth.Synthesiser | None = None


def make(item: Item) -> tuple[synth.Wave, bool]:
    """The audio of one item, and whether another voice had to step in because the chosen one was silent."""
    global _synthesiser
    if _synthesiser is None:
        _synthesiser = synth.Synthesiser()
    held_out = item.voice.engine == "pico"
    if item.kind != "speech":
        rng = random.Random(item.seed)
        return noises.make(item.kind, rng, speak=_synthesiser, held_out=held_out)[:LONGEST], False
    samples = synth.trim(_synthesiser(item.text, item.voice))
    replaced = not audible(samples)
    if replaced:
        spare = synth.Voice("pico", "en-US") if held_out else synth.Voice("espeak", "en-us", 160, 50)
        samples = synth.trim(_synthesiser(item.text, spare))
        if not audible(samples):
            raise RuntimeError(f"silent: {item.text!r} in {item.voice.label()} and {spare.label()}")
    samples = samples[:LONGEST]
    return np.pad(samples, (0, max(0, SHORTEST - len(samples)))), replaced


def audible(samples: synth.Wave) -> bool:
    return len(samples) > 3200 and float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) > SILENT_RMS


def shard(job: tuple[str, list[Item]]) -> tuple[list[int], int]:
    """Make the items of one shard and save them; -> lengths, number of replaced voices."""
    path, items = job
    made = [make(item) for item in items]
    np.save(path, np.concatenate([samples for samples, _ in made]))
    return [len(samples) for samples, _ in made], sum(replaced for _, replaced in made)


def write_index(
    data: Path, tag: str, *, items: list[Item], parts: list[list[int]], lengths: list[list[int]]
) -> float:
    """Write {tag}.json; -> seconds of audio."""
    index: dict[str, list[int]] = {name: [0] * len(items) for name in ("shard", "offset", "length")}
    for number, (part, sizes) in enumerate(zip(parts, lengths, strict=True)):
        offset = 0
        for position, size in zip(part, sizes, strict=True):
            index["shard"][position], index["offset"][position], index["length"][position] = (
                number,
                offset,
                size,
            )
            offset += size
    described = [{"text": item.text, "voice": item.voice.label(), "kind": item.kind} for item in items]
    bank = {"items": described, **index, "shards": len(parts), "rate": synth.RATE}
    partial = data / f"{tag}.json.tmp"
    partial.write_text(json.dumps(bank))
    partial.rename(data / f"{tag}.json")
    return sum(index["length"]) / synth.RATE


def generate(data: Path, banks: dict[str, list[Item]], *, procs: int) -> None:
    """All banks through one pool; a bank is written as soon as its last shard is there."""
    jobs: list[tuple[str, list[Item]]] = []
    parts: dict[str, list[list[int]]] = {}
    for tag, items in banks.items():
        order = list(range(len(items)))
        random.Random(3).shuffle(order)
        count = max(1, min(procs * PIECES, len(items) // 8))
        parts[tag] = [order[start::count] for start in range(count)]
        jobs += [
            (str(data / f"{tag}_{number}.npy"), [items[index] for index in part])
            for number, part in enumerate(parts[tag])
        ]
    begin = time.monotonic()
    with mp.get_context("fork").Pool(procs) as pool:
        results = pool.imap(shard, jobs, chunksize=1)
        for tag, items in banks.items():
            done = [next(results) for _ in parts[tag]]
            replaced = sum(count for _, count in done)
            seconds = write_index(
                data, tag, items=items, parts=parts[tag], lengths=[sizes for sizes, _ in done]
            )
            spent = f"{time.monotonic() - begin:.0f} s"
            print(
                f"{tag}: {len(items)} utterances, {seconds / 3600:.2f} h, {replaced} replaced, {spent}",
                flush=True,
            )
            if replaced > 2 + len(items) // 200:
                raise SystemExit(f"{tag}: too many silent voices: is a package missing under TTS_ROOT?")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder to write")
    parser.add_argument("--procs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--dry", action="store_true", help="tiny corpus")
    parser.add_argument("--bank", action="append", help="make only these banks")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    args.data.mkdir(parents=True, exist_ok=True)
    corpus = corpus_text.build(**DRY) if args.dry else corpus_text.build()
    (args.data / "corpus.json").write_text(json.dumps(corpus, ensure_ascii=False))
    banks = plan(corpus)
    generate(
        args.data,
        {tag: items for tag, items in banks.items() if tag in (args.bank or banks)},
        procs=args.procs,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
