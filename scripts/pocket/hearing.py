"""Tasks of writing down and translating: what breaks off, Spanish, between English and Spanish as text or speech."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import bilingual
import lexicon as lex
import phrasebook
import task
from scene import held_out
from task import Sound, Task

from voiceagent.core.dictation import Dictation
from voiceagent.models.step_audio2.dictation import dictation_instructions

FOREIGN_KINDS = ("noise", "silence", "babble", "foreign")
SAME = 0.08  # of translations: the speech is already in the language asked for
HEARD_STYLES = ("fast", "slow", "high", "low", "excited", "sad", "whisper")
FUNCTION_WORDS = frozenset(
    lex.split(
        "the a an to for at on in of and or with my your is are i we you he she it they can will from because that"
    )
)


def bare(sentence: str) -> str:
    """As it is heard: without marks."""
    return sentence.strip("¿?.").replace(",", "").replace(":", "")


def written(sentence: str, language: str) -> str:
    """As it is written in a reply: with its marks."""
    if sentence.endswith("?"):
        return f"¿{sentence}" if language == "es" else sentence
    return f"{sentence}."


def pair(rng: Random, *, test: bool, tries: int = 2000) -> tuple[str, str, str]:
    """A sentence in English and in Spanish, and what of it training never had ("" in training)."""
    for _ in range(tries):
        if rng.random() < 0.6:
            en, es = bilingual.sentence(rng)
            held = False
        else:
            en, es, held = phrasebook.phrase(rng, held=test and rng.random() < 0.3)
        if len(en) > 110:
            continue
        if held:
            return en, es, "template"
        if held_out(bare(en)) == test:
            return en, es, "sentence" if test else ""
    raise RuntimeError("no sentence on the right side of the split")


def plainly(rng: Random, text: str, language: str = "en") -> Sound:
    """Somebody says this: as a rule plainly, and nothing else is heard."""
    style = rng.choice(HEARD_STYLES) if rng.random() < 0.12 else "plain"
    background = rng.choice(task.BACKGROUNDS) if rng.random() < 0.06 else ""
    return Sound(text, language, style, background)


def styled(rng: Random, text: str) -> Task:
    """A transcript of speech that is not plain, or stands before a background."""
    style = rng.choice(("plain", *HEARD_STYLES))
    background = rng.choice(task.BACKGROUNDS) if style == "plain" or rng.random() < 0.3 else ""
    sound = Sound(text, style=style, background=background)
    return Task(
        "asr", task.ASR, sound, "", text, spoken=False, tested=style if style != "plain" else background
    )


def hinted(rng: Random, text: str, language: str, others: Sequence[str]) -> Task:
    """A transcript of speech of which something is known beforehand: its language, words that may occur in it."""
    words = ""
    if rng.random() < 0.6:
        own = [word for word in text.split() if len(word) > 3]
        listed = rng.sample(own, min(len(own), rng.randint(0, 2))) + list(others[: rng.randint(1, 4)])
        rng.shuffle(listed)
        words = ", ".join(word.title() if rng.random() < 0.3 else word for word in listed)
    known = language if not words or rng.random() < 0.5 else ""
    prompt = dictation_instructions(Dictation(language=known, prompt=words))
    sound = plainly(rng, text, language)
    return Task("asr", prompt, sound, "", text, spoken=False, language=language, tested="hint")


def boundary(words: Sequence[str], count: int) -> str:
    """What stands before the end of a part: behind what a person might stop, or could not."""
    last = words[count - 1]
    if last in FUNCTION_WORDS:
        return "function word"
    if len(last) == 1:
        return "letter"
    return "first word" if count == 1 else "content word"


def part(rng: Random, sentence: str, *, test: bool) -> Task | None:
    """The beginning of a sentence; None if it has none that may be used here."""
    words = sentence.split()
    if len(words) < 3:
        return None
    places = list(range(1, len(words)))
    # Function words are where a sentence is surely not over: they are drawn as often as all the rest.
    weak = [n for n in places if words[n - 1] in FUNCTION_WORDS]
    count = rng.choice(weak if weak and rng.random() < 0.45 else places)
    text = " ".join(words[:count])
    if not test and held_out(text):
        return None
    sound = Sound(text, words=count, whole=sentence)
    return Task("asr_part", task.ASR, sound, "", text, spoken=False, tested=boundary(words, count))


def spanish(rng: Random, *, test: bool) -> Task:
    """A transcript of Spanish."""
    _, es, tested = pair(rng, test=test)
    text = bare(es)
    return Task(
        "asr_es", task.ASR, plainly(rng, text, "es"), "", text, spoken=False, language="es", tested=tested
    )


def instructions(rng: Random, to: str, *, aloud: bool) -> str:
    """The prompt of a translation into a language."""
    english, chinese = task.LANGUAGES[to]
    if rng.random() < 0.15:
        return (task.TRANSLATE_ALOUD_ZH if aloud else task.TRANSLATE_ZH).format(language=chinese)
    return (task.TRANSLATE_ALOUD if aloud else task.TRANSLATE).format(language=english)


def translation(rng: Random, *, test: bool, aloud: bool) -> Task:
    """Speech in one language, its words in the other, written or spoken."""
    en, es, tested = pair(rng, test=test)
    to = rng.choice(("en", "es"))
    said, wanted = (es, en) if to == "en" else (en, es)
    language = "es" if to == "en" else "en"
    if not test and rng.random() < SAME:
        said, language = wanted, to
    way = f"{language}>{to}"
    return Task(
        "s2st" if aloud else "s2tt", instructions(rng, to, aloud=aloud), plainly(rng, bare(said), language), "",
        written(wanted, to), spoken=aloud, language=to, tested=f"{way} {tested}".strip(),
    )  # fmt: skip


def nothing_to_translate(rng: Random) -> Task:
    """Noise has no translation."""
    to = rng.choice(("en", "es"))
    sound = Sound("", kind=rng.choice(FOREIGN_KINDS))
    return Task(
        "s2tt", instructions(rng, to, aloud=False), sound, "", "", spoken=False, language=to, tested="none"
    )


def typed_translation(rng: Random, *, test: bool) -> Task:
    """Text in one language, text in the other."""
    en, es, tested = pair(rng, test=test)
    to = rng.choice(("en", "es"))
    said, wanted = (written(es, "es"), en) if to == "en" else (written(en, "en"), es)
    if rng.random() < 0.5:
        said = said[:1].upper() + said[1:]
    prompt = f"Translate the following text into {task.LANGUAGES[to][0]}."
    way = f"{'es' if to == 'en' else 'en'}>{to}"
    return Task(
        "t2tt",
        prompt,
        None,
        said,
        written(wanted, to),
        spoken=False,
        language=to,
        tested=f"{way} {tested}".strip(),
    )
