"""Who may speak: every voice of the synthesisers, its sex, and which of them training never hears.

It draws voices and says how a style changes them; it makes no audio. What is held out is decided here alone: SVOX Pico
(a whole engine), the speaker AWB (flite's awb, RHVoice's alan), festival's ked, some accents and variants of espeak-ng,
and festival's Castilian voice, which may not be used commercially and therefore serves in examinations only.
"""

from __future__ import annotations

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
    "norbert", "pablo", "paul", "pedro", "robert", "sandro", "travis", "victor", "zac", "croak",
)  # fmt: skip
HELD_OUT_VARIANTS = {"female": ("f5", "steph"), "male": ("m8", "Andy", "quincy", "rob", "iven3")}
ESPEAK_RATE, ESPEAK_PITCH = 165.0, 50.0

# ------------------------------------------------------------------------------------------- recorded people's voices

FLITE_VOICES = ("slt", "awb", "rms", "kal16")
PICO_SPEAKERS = {"en-US": "lh0", "en-GB": "kh0", "es-ES": "zl0", "de-DE": "gl0", "fr-FR": "nk0"}
PICO = {"en": ("en-US", "en-GB"), "es": ("es-ES",)}

# engine, name, sex, Hz of its own pitch (0: the engine has it, pitch is relative), weight among those of its sex
PEOPLE = {
    "en": (
        ("flite", "slt", "female", 175, 3),
        ("rhvoice", "slt", "female", 0, 2),
        ("rhvoice", "clb", "female", 0, 5),
        ("flite", "rms", "male", 100, 3),
        ("flite", "kal16", "male", 108, 3),
        ("festival", "kal_diphone", "male", 110, 3),
        ("rhvoice", "bdl", "male", 0, 4),
    ),
    # English voices that read Spanish by its sounds (spanish.py): an accent, but a person's voice
    "es": (
        ("flite", "slt", "female", 175, 3),
        ("flite", "rms", "male", 100, 2),
        ("flite", "kal16", "male", 108, 2),
    ),
}
HELD_OUT_PEOPLE = {
    "en": (
        ("flite", "awb", "male", 125, 1),
        ("rhvoice", "alan", "male", 0, 1),
        ("festival", "ked_diphone", "male", 110, 1),
    ),
    "es": (("festival", "el_diphone", "male", 105, 1),),
}
PEOPLE_SHARE = {"en": 0.34, "es": 0.2}  # of the callers
EXPRESSIVE = ("excited", "sad")  # styles that need an engine whose pitch range can be set


def training_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A caller of the training family: mostly espeak, a third recorded people's voices, some of them warped."""
    if rng.random() < PEOPLE_SHARE[language]:
        voice = _person(rng, PEOPLE[language], style, sex)
        if rng.random() < 0.5:
            voice = replace(voice, warp=rng.uniform(0.88, 1.14))
    else:
        sex = sex or rng.choices(("male", "female"), (3, 2))[0]
        name = rng.choice(ACCENTS[language])
        plain = sex == "male" and rng.random() < 0.06
        variant = "" if plain else "+" + rng.choice(FEMALE if sex == "female" else MALE)
        voice = Voice("espeak", name + variant, ESPEAK_RATE, ESPEAK_PITCH, sex=sex)
    return styled(replace(voice, language=language), style, rng)


def held_out_engine_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A caller of SVOX Pico; its speakers are women, so a man is one of them with everything lower."""
    name = rng.choice(PICO[language])
    voice = Voice("pico", name, 1.0, 1.0, sex=sex or "female", language=language)
    if sex == "male":
        voice = replace(voice, warp=0.82, pitch=0.72)
    return styled(voice, style, rng)


def held_out_voice(rng: Random, *, language: str = "en", style: str = "plain", sex: str = "") -> Voice:
    """A voice of a known engine that training never hears: flite, festival, RHVoice, espeak by turns."""
    people = [] if sex == "female" else list(HELD_OUT_PEOPLE[language])
    if people and rng.random() < (0.7 if language == "en" else 0.4):
        voice = replace(_person(rng, tuple(people), style, "male"), language=language)
        return styled(voice, style, rng)
    sex = sex or rng.choice(("male", "female"))
    name = f"{rng.choice(HELD_OUT_ACCENTS[language])}+{rng.choice(HELD_OUT_VARIANTS[sex])}"
    voice = Voice("espeak", name, ESPEAK_RATE, ESPEAK_PITCH, sex=sex, language=language)
    return styled(voice, style, rng)


def _person(rng: Random, people: tuple[tuple[str, str, str, int, int], ...], style: str, sex: str) -> Voice:
    fitting = [
        one
        for one in people
        if sex in ("", one[2]) and not (style in EXPRESSIVE and one[0] == "rhvoice" and len(people) > 1)
    ]
    engine, name, who, hertz, _ = rng.choices(fitting, [one[4] for one in fitting])[0]
    return Voice(engine, name, 1.0, float(hertz or 1.0), sex=who)


# --------------------------------------------------------------------------------------------------------- styles

# relative speed, relative pitch, range of the pitch
STYLE_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "plain": ((0.84, 1.2), (0.86, 1.16), (25, 75)),
    "fast": ((1.5, 1.85), (0.9, 1.12), (30, 70)),
    "slow": ((0.56, 0.7), (0.9, 1.12), (30, 70)),
    "high": ((0.88, 1.15), (1.38, 1.6), (35, 70)),
    "low": ((0.88, 1.15), (0.62, 0.72), (30, 65)),
    "excited": ((1.15, 1.35), (1.2, 1.35), (92, 99)),
    "sad": ((0.7, 0.8), (0.8, 0.88), (2, 30)),
    "whisper": ((0.8, 1.1), (0.9, 1.1), (30, 70)),
}


def styled(voice: Voice, style: str, rng: Random) -> Voice:
    """`voice` with speed, pitch and range of `style`, drawn. Raises KeyError for an unknown style."""
    rates, pitches, spreads = STYLE_RANGES[style]
    rate, pitch, spread = (rng.uniform(*ends) for ends in (rates, pitches, spreads))
    if voice.engine == "espeak":
        # espeak's scale: 50 is the voice's own pitch, 0 about half of it, 99 about one and a half
        scaled = min(99.0, max(0.0, 50.0 + 100.0 * (pitch - 1.0)))
        return replace(voice, rate=voice.rate * rate, pitch=scaled, spread=spread, breath=style == "whisper")
    if voice.engine in ("rhvoice", "pico") and style in EXPRESSIVE:
        pitch *= 1.1 if style == "excited" else 0.95  # their range stays: speed and pitch must tell
    return replace(
        voice, rate=voice.rate * rate, pitch=voice.pitch * pitch, spread=spread, breath=style == "whisper"
    )


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
    for engine, name, sex, hertz, _ in HELD_OUT_PEOPLE["en"]:
        made.append(Voice(engine, name, 1.0, float(hertz or 1.0), sex=sex))
    for sex, variants in HELD_OUT_VARIANTS.items():
        for variant in variants:
            made.append(Voice("espeak", f"en-us+{variant}", ESPEAK_RATE, ESPEAK_PITCH, sex=sex))
    return tuple(made)


def one_of_each() -> tuple[Voice, ...]:
    """Every voice of every engine once, espeak's variants and foreign voices aside."""
    made = [Voice("espeak", name, ESPEAK_RATE, ESPEAK_PITCH) for name in ("en-us", "es")]
    for table in (PEOPLE, HELD_OUT_PEOPLE):
        for language, people in table.items():
            made += [
                Voice(e, name, 1.0, float(hertz or 1.0), language=language) for e, name, _, hertz, _ in people
            ]
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
