"""Who may speak: every voice of the synthesisers, its sex, and which of them training never hears.

It draws voices and says how a style changes them; it makes no audio. What is held out is decided here alone: SVOX Pico
(a whole engine), the speaker AWB (flite's awb, RHVoice's alan), festival's ked, some accents and variants of espeak-ng,
and festival's Castilian voice, which may not be used commercially and therefore serves in examinations only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from task import STYLES

__all__ = [
    "STYLES", "Voice", "held_out_engine_voice", "held_out_voice", "in_spanish", "is_held_out", "one_of_each",
    "personas", "reads_spanish", "strangers", "styled", "training_voice",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks, and how.

    Attributes:
        rate: words a minute (espeak) or relative speed.
        pitch: 0..99 (espeak), Hz (flite, festival), relative (rhvoice, pico); 0 = the voice's own.
        spread: range of the pitch, 50 = the voice's own, 0 = monotone (not of rhvoice and pico).
        warp: formants and pitch are this many times higher than the engine makes them; the tempo stays.
        breath: whether the voice is replaced by breath: a whisper.
        sex: "female" or "male".
        language: "en" or "es": what it reads.
        who: the speaker's name, where one engine's voice stands for several speakers; else `label` is the name.
    """

    engine: str
    name: str
    rate: float = 1.0
    pitch: float = 0.0
    spread: float = 50.0
    warp: float = 1.0
    breath: bool = False
    sex: str = ""
    language: str = "en"
    who: str = ""

    def label(self) -> str:
        return self.who or f"{self.engine}/{self.name}"


# ------------------------------------------------------------------------------------------------------- espeak-ng

ACCENTS = {
    "en": (
        "en-us", "en-us", "en-us", "en-us-nyc", "en", "en", "en-gb-x-rp", "en-gb-x-rp", "en-gb-scotland",
        "en-gb-x-gbclan", "en-029",
    ),
    "es": ("es", "es-419"),
}  # fmt: skip
HELD_OUT_ACCENTS = {"en": ("en-gb-x-gbcwmd", "en-us", "en-gb-x-rp"), "es": ("es", "es-419")}
FEMALE = (
    "f1", "f2", "f3", "f4", "Alicia", "Andrea", "Annie", "anika", "aunty", "belinda", "grandma", "linda",
    "steph2", "steph3",
)  # fmt: skip
MALE = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6",
    "adam", "Alex", "antonio", "benjamin", "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward",
    "edward2", "Gene", "Gene2", "grandpa", "gustave", "Henrique", "Hugo", "iven", "iven2", "iven4",
    "Jacky", "john", "Lee", "marcelo", "Marco", "Mario", "max", "Michael", "michel", "miguel", "Mike",
    "norbert", "pablo", "paul", "pedro", "robert", "sandro", "travis", "victor", "croak",
)  # fmt: skip
HELD_OUT_VARIANTS = {"female": ("f5", "steph"), "male": ("m8", "Andy", "quincy", "rob", "iven3")}
ESPEAK_RATE, ESPEAK_PITCH = 165.0, 50.0

# ------------------------------------------------------------------------------------------- recorded people's voices

FLITE_VOICES = ("slt", "awb", "rms", "kal16")
PICO_SPEAKERS = {"en-US": "lh0", "en-GB": "kh0", "es-ES": "zl0", "de-DE": "gl0", "fr-FR": "nk0"}
PICO = {"en": ("en-US", "en-GB"), "es": ("es-ES",)}

# engine, name, sex, weight among those of its sex
Person = tuple[str, str, str, int]
PEOPLE: dict[str, tuple[Person, ...]] = {
    "en": (
        ("flite", "slt", "female", 3),
        ("rhvoice", "slt", "female", 2),
        ("rhvoice", "clb", "female", 5),
        ("flite", "rms", "male", 3),
        ("flite", "kal16", "male", 3),
        ("festival", "kal_diphone", "male", 3),
        ("rhvoice", "bdl", "male", 4),
    ),
    # English voices that read Spanish by its sounds (spanish.py): an accent, but a person's voice
    "es": (
        ("flite", "slt", "female", 3),
        ("flite", "rms", "male", 2),
        ("flite", "kal16", "male", 2),
    ),
}
HELD_OUT_PEOPLE: dict[str, tuple[Person, ...]] = {
    "en": (
        ("flite", "awb", "male", 1),
        ("rhvoice", "alan", "male", 1),
        ("festival", "ked_diphone", "male", 1),
    ),
    "es": (("festival", "el_diphone", "male", 1),),
}
# Median pitch as measured, Hz; espeak's variants at its pitch 50, where most men have 103
OWN_HZ = {
    "flite/slt": 175, "flite/rms": 99, "flite/kal16": 105, "flite/awb": 122, "festival/kal_diphone": 107,
    "festival/ked_diphone": 107, "festival/el_diphone": 125, "rhvoice/slt": 173, "rhvoice/clb": 178, "rhvoice/bdl": 121,
    "rhvoice/alan": 136, "pico/en-US": 167, "pico/en-GB": 180, "pico/es-ES": 204,
    "f1": 180, "f2": 196, "f3": 212, "f4": 180, "f5": 206, "Alicia": 250, "Andrea": 245, "Annie": 240, "anika": 269,
    "aunty": 173, "belinda": 229, "grandma": 204, "linda": 229, "steph": 185, "steph2": 185, "steph3": 185,
    "m1": 95, "m4": 94, "david": 75, "ed": 126, "Gene": 95, "Gene2": 115, "Jacky": 114, "Marco": 131, "Mike": 91,
    "paul": 86, "victor": 95, "m8": 86, "Andy": 96, "quincy": 86,
}  # fmt: skip
MEN_HZ = 103
DEAF = ("flite/rms", "festival/el_diphone")  # their pitch cannot be set
PEOPLE_SHARE = {"en": 0.34, "es": 0.2}  # of the callers
PITCHED = ("high", "low", "excited", "sad")  # styles that need a pitch which can be set,
EXPRESSIVE = ("excited", "sad")  # and these a range, too
TRIES = 40


def training_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A caller of the training family: mostly espeak, a third recorded people's voices, half of those warped."""

    def draw() -> Voice:
        if rng.random() < PEOPLE_SHARE[language]:
            voice = _person(rng, PEOPLE[language], style, sex)
            return replace(voice, warp=rng.uniform(0.88, 1.14)) if rng.random() < 0.5 else voice
        who = sex or rng.choices(("male", "female"), (3, 2))[0]
        name = rng.choice(ACCENTS[language])
        plain = who == "male" and rng.random() < 0.06
        return _variant(name, "" if plain else rng.choice(FEMALE if who == "female" else MALE), who)

    return _styled(draw, style, rng, language)


def held_out_engine_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A caller of SVOX Pico; its speakers are women, so a man is one of them with everything lower."""

    def draw() -> Voice:
        warp = 0.82 if sex == "male" else 1.0
        return Voice("pico", rng.choice(PICO[language]), 1.0, 1.0, warp=warp, sex=sex or "female")

    return _styled(draw, style, rng, language)


def held_out_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A voice of a known engine that training never hears: flite, festival, RHVoice, espeak by turns."""

    def draw() -> Voice:
        people = [] if sex == "female" else _able(HELD_OUT_PEOPLE[language], style, "male")
        if people and rng.random() < (0.7 if language == "en" else 0.4):
            return _person(rng, HELD_OUT_PEOPLE[language], style, "male")
        who = sex or rng.choice(("male", "female"))
        return _variant(rng.choice(HELD_OUT_ACCENTS[language]), rng.choice(HELD_OUT_VARIANTS[who]), who)

    return _styled(draw, style, rng, language)


def _variant(accent: str, variant: str, sex: str) -> Voice:
    return Voice("espeak", f"{accent}+{variant}" if variant else accent, ESPEAK_RATE, ESPEAK_PITCH, sex=sex)


def _able(people: tuple[Person, ...], style: str, sex: str) -> list[Person]:
    """Those of a sex ("" = any) whose engine can do the style."""
    return [
        one
        for one in people
        if sex in ("", one[2])
        and not (style in EXPRESSIVE and one[0] == "rhvoice")
        and not (style in PITCHED and f"{one[0]}/{one[1]}" in DEAF)
    ]


def _person(rng: Random, people: tuple[Person, ...], style: str, sex: str) -> Voice:
    able = _able(people, style, sex) or list(people)
    engine, name, who, _ = rng.choices(able, [one[3] for one in able])[0]
    voice = Voice(engine, name, sex=who)
    return replace(voice, pitch=own_hertz(voice) if engine in ("flite", "festival") else 1.0)


def own_hertz(voice: Voice) -> float:
    """The pitch that the engine gives this voice by itself, before any warp."""
    name = voice.name.partition("+")[2] if voice.engine == "espeak" else f"{voice.engine}/{voice.name}"
    return float(OWN_HZ.get(name, MEN_HZ))


# --------------------------------------------------------------------------------------------------------- styles

# relative speed; Hz of women, of men; range of the pitch
STYLE_RANGES: dict[str, tuple[tuple[float, float], ...]] = {
    "plain": ((0.84, 1.2), (150, 262), (78, 145), (25, 75)),
    "fast": ((1.5, 1.85), (155, 250), (80, 145), (30, 70)),
    "slow": ((0.56, 0.7), (155, 250), (80, 145), (30, 70)),
    "high": ((0.88, 1.15), (292, 350), (162, 205), (35, 70)),
    "low": ((0.88, 1.15), (112, 138), (58, 70), (30, 65)),
    "excited": ((1.15, 1.35), (230, 290), (130, 170), (92, 99)),
    "sad": ((0.7, 0.8), (140, 180), (72, 100), (2, 30)),
    "whisper": ((0.8, 1.1), (155, 250), (80, 145), (30, 70)),
}
REACH = (0.62, 1.68)  # how far an engine can move its pitch
FAR_REACH = (0.5, 1.75)  # SVOX Pico, whose men are women made low


def _styled(draw: Callable[[], Voice], style: str, rng: Random, language: str) -> Voice:
    """A voice of `draw` that reaches the pitch of the style, or else comes as near as it can."""
    women, men = STYLE_RANGES[style][1:3]
    voice, target = draw(), 0.0
    for _ in range(TRIES):
        low, high = women if voice.sex == "female" else men
        target = low * (high / low) ** rng.random()
        if _reached(voice, target) == target:
            break
        voice = draw()
    return styled(replace(voice, language=language), style, rng, hertz=target)


def _reached(voice: Voice, hertz: float) -> float:
    """The pitch within the engine's reach that is next to `hertz`."""
    own = own_hertz(voice) * voice.warp
    low, high = FAR_REACH if voice.engine == "pico" else REACH
    return min(own * high, max(own * low, hertz))


def styled(voice: Voice, style: str, rng: Random, *, hertz: float) -> Voice:
    """`voice` at a pitch, with speed and range of `style`, drawn. Raises KeyError for an unknown style."""
    rates, _, _, spreads = STYLE_RANGES[style]
    rate, spread = rng.uniform(*rates), rng.uniform(*spreads)
    ratio = _reached(voice, hertz) / (own_hertz(voice) * voice.warp)
    return replace(
        voice,
        rate=voice.rate * rate,
        pitch=_engine_pitch(voice, ratio),
        spread=spread,
        breath=style == "whisper",
    )


def _engine_pitch(voice: Voice, ratio: float) -> float:
    """The engine's number for a pitch that is `ratio` times its own."""
    if voice.engine == "espeak":  # measured: a factor of 1.0085 to 1.0103 a step
        step = math.log(ratio) / (0.0103 if ratio > 1 else 0.0085)
        return min(99.0, max(0.0, ESPEAK_PITCH + step))
    return ratio * own_hertz(voice) if voice.engine in ("flite", "festival") else ratio


# -------------------------------------------------------------------------------------------------------- personas


@cache
def personas(count: int = 400) -> tuple[Voice, ...]:
    """Speakers for cloning: each always sounds the same. Half are people's voices, unwarped or as another body's."""
    rng = Random("personas")
    made: list[Voice] = []
    people = PEOPLE["en"]
    for number in range(count):
        if number % 2:
            voice = _person(rng, people, "plain", "female" if number % 4 == 1 else "male")
            warp = 1.0 if number < len(people) * 2 else rng.choice((-1, 1)) * rng.uniform(0.05, 0.2) + 1.0
            voice = replace(voice, warp=warp, pitch=voice.pitch * rng.uniform(0.8, 1.25) / warp**0.5)
        else:
            sex = ("female", "male")[number // 2 % 2]
            name = f"{rng.choice(ACCENTS['en'])}+{rng.choice(FEMALE if sex == 'female' else MALE)}"
            pitch, warp = rng.uniform(28, 74), rng.choice((1.0, rng.uniform(0.88, 1.14)))
            voice = Voice("espeak", name, ESPEAK_RATE, pitch, rng.uniform(30, 70), warp, sex=sex)
        voice = replace(voice, rate=voice.rate * rng.uniform(0.9, 1.15))
        made.append(replace(voice, who=f"persona{number:03d}/{voice.label()}"))
    return tuple(made)


@cache
def strangers() -> tuple[Voice, ...]:
    """Speakers that nothing is trained on, to judge cloning by: all that is held out."""
    made = [Voice("pico", name, 1.0, 1.0, sex="female") for name in PICO["en"]]
    made.append(Voice("pico", "en-GB", 1.0, 0.72, warp=0.82, sex="male", who="pico/en-GB, a man"))
    made += [_as_it_is(one) for one in HELD_OUT_PEOPLE["en"]]
    for sex, variants in HELD_OUT_VARIANTS.items():
        made += [_variant("en-us", variant, sex) for variant in variants]
    return tuple(made)


def _as_it_is(person: Person, language: str = "en") -> Voice:
    return replace(_person(Random(0), (person,), "plain", ""), language=language)


def one_of_each() -> tuple[Voice, ...]:
    """Every voice of every engine once, espeak's variants and foreign voices aside."""
    made = [Voice("espeak", name, ESPEAK_RATE, ESPEAK_PITCH) for name in ("en-us", "es")]
    for table in (PEOPLE, HELD_OUT_PEOPLE):
        for language, people in table.items():
            made += [_as_it_is(one, language) for one in people]
    made += [
        Voice("pico", name, 1.0, 1.0, language=language) for language, names in PICO.items() for name in names
    ]
    return tuple(made)


def reads_spanish(voice: Voice) -> bool:
    return voice.engine in ("espeak", "flite")


def in_spanish(voice: Voice) -> Voice:
    """The same speaker, reading Spanish."""
    name = voice.name
    if voice.engine == "espeak":
        name = "es-419" + name[name.index("+") :] if "+" in name else "es-419"
    return replace(voice, name=name, language="es", who=voice.label())


def is_held_out(voice: Voice) -> bool:
    """Whether training may not hear this voice."""
    if voice.engine == "pico":
        return True
    if voice.engine == "espeak":
        accent, _, variant = voice.name.partition("+")
        return accent == "en-gb-x-gbcwmd" or any(variant in names for names in HELD_OUT_VARIANTS.values())
    held = [one[:2] for people in HELD_OUT_PEOPLE.values() for one in people]
    return (voice.engine, voice.name) in held
