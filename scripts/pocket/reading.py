"""Tasks of reading aloud, prompts without roles (Base), and summaries of a conversation."""

from __future__ import annotations

from random import Random

import describing
import dialogue
import hearing
import houses
import task
from scene import Scene
from summaries import NOTHING, summary
from task import Sound, Task

from voiceagent.core.condense import REQUEST

READ = (
    "read this aloud: {}", "read this aloud: {}", "repeat after me: {}", "please say {}", "say {}",
    "repeat after me {}", "say this: {}", "read: {}", "speak this text: {}",
)  # fmt: skip
READ_ES = ("read this aloud: {}", "read this aloud: {}", "lee esto en voz alta: {}", "di {}", "repite: {}")
SYSTEMS = (
    "You are a helpful assistant.",
    "",
    "Speak clearly.",
    "You read texts aloud.",
    "Read what the user writes.",
)


def typed(rng: Random, text: str) -> str:
    """As people write it: with a capital or without, with its last mark or without."""
    if rng.random() < 0.4:
        text = text[:1].upper() + text[1:]
    return text if rng.random() < 0.6 else text.rstrip(".?")


def speak(rng: Random, text: str, language: str) -> Task:
    """A text to be read aloud, word for word."""
    form = rng.choice(READ if language == "en" else READ_ES)
    asked = form.format(typed(rng, text))
    system = rng.choice(SYSTEMS) if rng.random() < 0.6 else houses.plain_prompt(rng)
    return Task("speak", system, None, asked, text, spoken=True, language=language, tested=language)


def base_aloud(rng: Random, text: str, language: str) -> Task:
    """A text to be read aloud, as a Base checkpoint is asked."""
    prompt = task.BASE_SPEAK if rng.random() < 0.6 else task.BASE_SPEAK_ZH
    return Task("base", prompt, None, typed(rng, text), text, spoken=True, language=language, tested="speak")


def base(rng: Random, text: str, *, test: bool) -> Task:
    """One of the other tasks as a Base checkpoint is asked."""
    pick = rng.random()
    if pick < 0.4:
        return Task("base", task.ASR, hearing.plainly(rng, text), "", text, spoken=False, tested="asr")
    if pick < 0.6:
        sound = describing.scene_of(rng, text)
        return Task(
            "base", task.DESCRIBE, sound, "", describing.description(sound), spoken=False, tested="caption"
        )
    en, es, _ = hearing.pair(rng, test=test)
    to = rng.choice(("en", "es"))
    said, wanted = (es, en) if to == "en" else (en, es)
    if pick < 0.8:
        sound = Sound(hearing.bare(said), "es" if to == "en" else "en")
        prompt = hearing.instructions(rng, to, aloud=False)
        reply = hearing.written(wanted, to)
        return Task("base", prompt, sound, "", reply, spoken=False, language=to, tested="s2tt")
    english, chinese = task.LANGUAGES[to]
    prompt = task.BASE_TRANSLATE if rng.random() < 0.6 else task.BASE_TRANSLATE_ZH
    prompt = prompt.format(language=english if prompt == task.BASE_TRANSLATE else chinese)
    source = hearing.written(said, "es" if to == "en" else "en")
    return Task(
        "base", prompt, None, source, hearing.written(wanted, to), spoken=True, language=to, tested="t2st"
    )


def summing(rng: Random, split: str = "train") -> Task:
    """A conversation and what the engine asks to have it summed up."""
    scene = Scene(rng, houses.HARBOR, split=split)
    system = houses.plain_prompt(rng)
    parts = [
        dialogue.main_turns(
            scene, rng.choice(("callcentre", "callcentre", "frontdesk", "smalltalk", "exercises"))
        )
        for _ in range(rng.randint(2, 6))
    ]
    turns = [turn for part in parts for turn in part]
    told, at = "", 0
    if rng.random() < 0.3:  # what was before is known by a summary
        at = len(parts[0])
        told = summary(turns[:at])
        at = at if told else 0
    history = dialogue.pairs(turns[at:])
    return Task(
        "summary",
        system,
        None,
        REQUEST,
        summary(turns) or NOTHING,
        spoken=False,
        history=history,
        summary=told,
    )
