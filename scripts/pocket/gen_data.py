"""Writes the training data of the pocket checkpoint: corpus.json and the audio banks. Trains nothing.

    python3 scripts/pocket/gen_data.py --data DIR [--procs N] [--dry] [--bank TAG ...] [--measure N]

A bank is {tag}.json (items, shard, offset, length, shards, rate) with {tag}_{k}.npy, int16 mono 16 kHz; the .json
appears when it is whole. Each entry of `items` has text, language, style, background, sex, kind, voice, cut (true: the
recording breaks off in mid-breath, so that no silence may follow it) and gentle (true: its speed, pitch and background
are told, so that training must leave them alone).

    caller        what task.heard_of gives, in training's voices
    agent         what the agent says in English (task.said_of), by flite slt: its codes are learned
    agent_es      what it says in Spanish, by one voice of espeak-ng: its codes are learned, its sound is not
    agent_male    a part of the English, by flite rms: the other voice that is shipped
    voices        many speakers (voices.personas), for the flow, the vocoder, the tokenizer and the speaker encoder
    voices_new    speakers that training never hears, to judge cloning by
    test_*        the test's sounds: `seen` voices, the held-out engine (`new`), held-out `voices` of known engines,
                  `noisy` (noise 5 dB below the voice), `phone` (G.711, 5 % of the packets lost), `human` (held-out
                  voices whose pitch, tempo, breath and room are as little a machine's as we can make them); the last
                  four are only made when they are named: the examination makes what it wants by itself

Everything random about an item comes from its seed, so that any script makes the same recording again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import backgrounds
import corpus as corpus_text
import effects
import noises
import numpy as np
import synth
import voices
from task import Sound, heard_of, said_of

LONGEST, SHORTEST = 12 * synth.RATE, synth.RATE * 3 // 10
MALE = 6000  # sentences of the other shipped voice
UTTERANCES = 32  # of every persona
SPANISH_SHARE = 0.12  # of what the personas say
NEW_UTTERANCES = 16  # of every voice of voices_new
AGENT_ES = synth.Voice("espeak", "es-419+f2", 152, 46, 45, sex="female", language="es")
DRY = {"dialogues": 120, "generic": 60, "agent": 60}
TOLD = ("caption", "paralinguistic")  # tasks whose answers hang on how something sounds
SILENT_RMS = 40.0  # int16 units; quieter "speech" is a synthesis failure
PIECES = 6  # jobs per process and bank, so that all end together
BACKGROUND_DB = (4.0, 18.0)  # how far a background is below the voice

Draw = Callable[..., synth.Voice]
TESTS: dict[str, tuple[Draw, str]] = {
    "test_seen": (voices.training_voice, ""),
    "test_new": (voices.held_out_engine_voice, ""),
    "test_voices": (voices.held_out_voice, ""),
    "test_noisy": (voices.training_voice, "noisy"),
    "test_phone": (voices.training_voice, "phone"),
    "test_human": (voices.held_out_voice, "human"),
}

ON_DEMAND = ("test_voices", "test_noisy", "test_phone", "test_human")  # no stage of training wants them


@dataclass(frozen=True, slots=True)
class Item:
    """One recording to be made.

    Attributes:
        sound: what is heard.
        voice: who says it.
        seed: decides whatever is random about it.
        held_out: noises and backgrounds come from the ranges that training never hears.
        channel: what lies between the voice and us: "", "noisy", "phone" or "human".
        gentle: how it sounds is told (a caption, an answer to the tone): training must not change its speed or pitch.
    """

    sound: Sound
    voice: synth.Voice
    seed: str
    held_out: bool = False
    channel: str = ""
    gentle: bool = False

    @property
    def text(self) -> str:
        return self.sound.text


def heard_items(sounds: Iterable[Sound], bank: str) -> list[Item]:
    """What is heard, as "caller" or a test bank has it: the same place in the same bank gives the same recording."""
    draw, channel = TESTS.get(bank, (voices.training_voice, ""))
    held_out = bank not in ("caller", "test_seen")
    items = []
    for index, sound in enumerate(sounds):
        seed = f"{bank}/{index}"
        voice = draw(Random(seed), language=sound.language, style=sound.style, sex=sound.sex)
        items.append(Item(sound, voice, seed, held_out, channel))
    return items


def caller_items(corpus: dict[str, Any]) -> list[Item]:
    """The `caller` bank."""
    items = heard_items(heard_of(corpus), "caller")
    number = sum(len(made["turns"]) for made in corpus["train"])
    for made in corpus["tasks"]:
        if made["heard"]:
            if made["name"] in TOLD:
                items[number] = replace(items[number], gentle=True)
            number += 1
    return items


def said_items(sentences: Iterable[str], voice: synth.Voice) -> list[Item]:
    """Sentences of the agent."""
    return [Item(Sound(text, language=voice.language), voice, text) for text in sentences]


def persona_items(corpus: dict[str, Any]) -> list[Item]:
    """The `voices` bank: every persona says sentences of the agent; those whose engine can, some in Spanish."""
    return _spoken_by(voices.personas(), corpus, UTTERANCES, "voices")


def new_voice_items(corpus: dict[str, Any]) -> list[Item]:
    """The `voices_new` bank."""
    return _spoken_by(voices.strangers(), corpus, NEW_UTTERANCES, "voices_new")


def _spoken_by(speakers: Iterable[synth.Voice], corpus: dict[str, Any], each: int, bank: str) -> list[Item]:
    english, spanish = (said_of(corpus, language) for language in ("en", "es"))
    items = []
    for speaker in speakers:
        rng = Random(f"{bank}/{speaker.label()}")
        for number in range(each):
            in_spanish = bank == "voices" and rng.random() < SPANISH_SHARE and voices.reads_spanish(speaker)
            voice = voices.in_spanish(speaker) if in_spanish and spanish else speaker
            text = rng.choice(spanish if voice.language == "es" else english)
            sound = Sound(text, language=voice.language, sex=voice.sex)
            items.append(Item(sound, voice, f"{bank}/{speaker.label()}/{number}"))
    return items


def plan(corpus: dict[str, Any]) -> dict[str, list[Item]]:
    """Every bank's items, in the order in which the stages want them."""
    english, spanish = said_of(corpus, "en"), said_of(corpus, "es")
    tested = list(heard_of(corpus, test=True))
    tests = {tag: heard_items(tested, tag) for tag in TESTS}
    return {
        **{tag: tests[tag] for tag in ("test_seen", "test_new")},
        "voices_new": new_voice_items(corpus),
        "caller": caller_items(corpus),
        "voices": persona_items(corpus),
        "agent_es": said_items(spanish, AGENT_ES),
        "agent_male": said_items(
            Random(5).sample(english, min(MALE, len(english))), synth.Voice("flite", "rms", sex="male")
        ),
        "agent": said_items(english, synth.Voice("flite", "slt", sex="female")),
        **{tag: tests[tag] for tag in ON_DEMAND},
    }


# ------------------------------------------------------------------------------------------------------------ making

_synthesiser: synth.Synthesiser | None = None


def make(item: Item) -> tuple[synth.Wave, bool]:
    """The recording of one item, and whether another voice had to step in because the chosen one was silent."""
    samples, replaced, _ = make_marked(item)
    return samples, replaced


def make_marked(item: Item) -> tuple[synth.Wave, bool, bool]:
    """As `make`, and whether the recording breaks off in mid-breath."""
    global _synthesiser
    if _synthesiser is None:
        _synthesiser = synth.Synthesiser()
    rng = Random(item.seed)
    rng.random()  # the voice was drawn from the same seed
    sound, replaced, cut = item.sound, False, False
    if sound.text:
        samples, cut = _said(item, item.voice, rng)
        if not audible(samples):
            replaced = True
            samples, cut = _said(item, _spare(item), rng)
            if not audible(samples):
                raise RuntimeError(f"silent: {sound.text!r} in {item.voice.label()}")
    elif sound.background:
        samples = np.zeros(int(rng.uniform(1.2, 4.0) * synth.RATE), np.int16)
    else:
        samples = noises.make(sound.kind, rng, speak=_synthesiser, held_out=item.held_out)
    if sound.background:
        samples = with_background(samples, sound, rng, held_out=item.held_out)
    samples = through(samples[:LONGEST], item.channel, rng)
    return np.pad(samples, (max(0, SHORTEST - len(samples)), 0)), replaced, cut


def _said(item: Item, voice: synth.Voice, rng: Random) -> tuple[synth.Wave, bool]:
    assert _synthesiser is not None
    sound = item.sound
    if sound.words:
        return _synthesiser.beginning(sound.whole, voice, sound.words, rng)
    return synth.trim(_synthesiser(sound.text, voice)), False


def _spare(item: Item) -> synth.Voice:
    """Who steps in for a silent voice; never one that training may not hear."""
    spanish = item.sound.language == "es"
    if item.voice.engine == "pico":
        return synth.Voice("pico", "es-ES" if spanish else "en-US", language=item.sound.language)
    return synth.Voice("espeak", "es" if spanish else "en-us", 160, 50, language=item.sound.language)


def with_background(samples: synth.Wave, sound: Sound, rng: Random, *, held_out: bool) -> synth.Wave:
    """The background under the voice, a little longer than it, or alone."""
    spoken = samples.astype(np.float64)
    if sound.text:
        spoken = np.pad(spoken, [int(rng.uniform(0.1, 0.5) * synth.RATE) for _ in range(2)])
    noise = backgrounds.make(sound.background, rng, len(spoken), held_out=held_out)
    level = effects.loudness(spoken) * 10 ** (-rng.uniform(*BACKGROUND_DB) / 20)
    if not sound.text:
        level = 32768 * 10 ** (rng.uniform(-36, -16) / 20)
    mixed = spoken + noise * level
    mixed *= min(1.0, 32000 / max(1.0, np.abs(mixed).max()))
    return np.clip(mixed, -32768, 32767).astype(np.int16)


def through(samples: synth.Wave, channel: str, rng: Random) -> synth.Wave:
    """What arrives through `channel`."""
    if channel == "human":
        return effects.human(samples, rng)
    if channel == "phone":
        return effects.telephone(samples, rng, loss=0.05)
    if channel == "noisy":
        slope = backgrounds.between(rng, 0.3, 1.1, held_out=True)
        noise = noises.coloured(rng, len(samples), slope=slope)
        mixed = effects.noisy(samples.astype(np.float64), rng, decibel=5.0, noise=noise)
        mixed *= min(1.0, 32000 / max(1.0, np.abs(mixed).max()))
        return np.clip(mixed, -32768, 32767).astype(np.int16)
    return samples


def audible(samples: synth.Wave) -> bool:
    return len(samples) > 1200 and float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) > SILENT_RMS


@dataclass(frozen=True, slots=True)
class Made:
    """What a job reports of each of its items."""

    lengths: list[int]
    cuts: list[bool]
    replaced: int


def shard(job: tuple[str, list[Item]]) -> Made:
    """Make the items of one shard and save them."""
    path, items = job
    made = [make_marked(item) for item in items]
    np.save(path, np.concatenate([samples for samples, _, _ in made]))
    return Made(
        [len(samples) for samples, _, _ in made], [cut for _, _, cut in made], sum(r for _, r, _ in made)
    )


def write_index(
    data: Path, tag: str, *, items: list[Item], parts: list[list[int]], made: list[Made]
) -> float:
    """Write {tag}.json; -> seconds of audio."""
    index: dict[str, list[int]] = {name: [0] * len(items) for name in ("shard", "offset", "length")}
    cuts = [False] * len(items)
    for number, (part, job) in enumerate(zip(parts, made, strict=True)):
        offset = 0
        for position, size, cut in zip(part, job.lengths, job.cuts, strict=True):
            index["shard"][position], index["offset"][position] = number, offset
            index["length"][position] = size
            cuts[position] = cut
            offset += size
    described = [described_as(item, cut=cut) for item, cut in zip(items, cuts, strict=True)]
    bank = {"items": described, **index, "shards": len(parts), "rate": synth.RATE}
    partial = data / f"{tag}.json.tmp"
    partial.write_text(json.dumps(bank, ensure_ascii=False))
    partial.rename(data / f"{tag}.json")
    return sum(index["length"]) / synth.RATE


def described_as(item: Item, *, cut: bool) -> dict[str, Any]:
    """An item as {tag}.json has it."""
    sound = item.sound
    kept = {name: getattr(sound, name) for name in ("text", "language", "style", "background", "kind")}
    gentle = item.gentle or sound.style != "plain" or sound.background != ""
    sex = item.voice.sex if sound.text else ""
    return {**kept, "sex": sex, "voice": item.voice.label(), "cut": cut, "gentle": gentle}


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
            made = [next(results) for _ in parts[tag]]
            replaced = sum(job.replaced for job in made)
            seconds = write_index(data, tag, items=items, parts=parts[tag], made=made)
            spent = f"{time.monotonic() - begin:.0f} s"
            print(
                f"{tag}: {len(items)} utterances, {seconds / 3600:.2f} h, {replaced} replaced, {spent}",
                flush=True,
            )
            if replaced > 2 + len(items) // 200:
                raise SystemExit(f"{tag}: too many silent voices: is a package missing under TTS_ROOT?")


def preflight() -> None:
    """Fails at once where a synthesiser or a voice is missing, not minutes later."""
    speak = synth.Synthesiser()
    for voice in (*voices.one_of_each(), AGENT_ES):
        if not audible(speak("buenos días" if voice.language == "es" else "good morning", voice)):
            raise SystemExit(f"{voice.label()} says nothing: is a package missing under TTS_ROOT?")


def measure(banks: dict[str, list[Item]], *, count: int, procs: int) -> None:
    """Makes `count` random items of every bank here and says how long all would take, by this process's CPU time.

    Festival's own process, which is cheap and rare, does not count.
    """
    total = 0.0
    for tag, items in banks.items():
        chosen = Random(1).sample(items, min(count, len(items)))
        for item in chosen[:8]:
            make(item)
        begin = time.process_time()
        sizes = [len(make(item)[0]) for item in chosen]
        each = (time.process_time() - begin) / max(1, len(chosen))
        total += each * len(items)
        hours = sum(sizes) / max(1, len(sizes)) * len(items) / synth.RATE / 3600
        print(
            f"{tag:12s} {len(items):7d} items  {1000 * each:6.1f} ms each  {each * len(items):7.0f} core seconds  "
            f"{hours:6.1f} h",
            flush=True,
        )
    print(f"all: {total:.0f} core seconds, {total / procs:.0f} s on {procs} such cores")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder to write")
    parser.add_argument("--procs", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--dry", action="store_true", help="tiny corpus")
    parser.add_argument(
        "--bank", action="append", help=f"make only these banks (default: all but {', '.join(ON_DEMAND)})"
    )
    parser.add_argument("--measure", type=int, default=0, help="make so many items of each bank, write none")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    preflight()
    args.data.mkdir(parents=True, exist_ok=True)
    corpus = corpus_text.build(**DRY) if args.dry else corpus_text.build()
    partial = args.data / "corpus.json.tmp"  # others wait for the file: it must be whole when it appears
    partial.write_text(json.dumps(corpus, ensure_ascii=False))
    partial.rename(args.data / "corpus.json")
    banks = plan(corpus)
    if args.dry:
        banks = {tag: thinned(items) for tag, items in banks.items()}
    wanted = args.bank or [tag for tag in banks if args.dry or tag not in ON_DEMAND]
    chosen = {tag: items for tag, items in banks.items() if tag in wanted}
    if args.measure:
        measure(chosen, count=args.measure, procs=args.procs)
    else:
        generate(args.data, chosen, procs=args.procs)
    return 0


def thinned(items: list[Item]) -> list[Item]:
    """The personas' bank for a dry run: a few of them; the other banks must stay whole, their order is the corpus's."""
    return items[: 5 * UTTERANCES] if items and items[0].seed.startswith("voices/") else items


if __name__ == "__main__":
    sys.exit(main())
