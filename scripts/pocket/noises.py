"""Caller audio that is neither English nor Spanish speech: noise, near-silence, babble, other languages.

Knows nothing of dialogues. Events that a caption names (a bell, music ...) are in backgrounds.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import numpy.typing as npt
from backgrounds import between
from synth import RATE, Voice, Wave, trim
from voices import PICO_SPEAKERS

Speak = Callable[[str, Voice], Wave]
Signal = npt.NDArray[np.float64]

FOREIGN = {
    "fr": ("bonjour je voudrais une chambre", "il fait beau aujourd'hui", "où est la gare s'il vous plaît",
           "je ne parle pas anglais", "combien ça coûte", "merci beaucoup et bonne journée",
           "nous avons mangé du pain et du fromage", "à quelle heure part le train", "ma sœur habite à la campagne"),
    "de": ("guten tag ich hätte gern ein zimmer", "das wetter ist heute schön", "wo ist der bahnhof",
           "ich verstehe sie leider nicht", "wie viel kostet das", "vielen dank und auf wiedersehen",
           "meine schwester wohnt in einem kleinen dorf", "wann fährt der nächste zug", "wir trinken morgens tee"),
    "it": ("buongiorno vorrei una camera", "oggi fa bel tempo", "dov'è la stazione per favore", "non parlo inglese",
           "quanto costa questo", "grazie mille e arrivederci", "mia sorella abita in campagna",
           "a che ora parte il treno"),
    "pt": ("bom dia queria um quarto", "hoje está bom tempo", "onde fica a estação", "eu não falo inglês",
           "quanto custa isto", "muito obrigado e até logo"),
    "nl": ("goedendag ik wil graag een kamer", "het is mooi weer vandaag", "waar is het station",
           "ik spreek geen engels", "hoeveel kost dat", "dank u wel en tot ziens"),
    "pl": ("dzień dobry poproszę pokój", "dzisiaj jest ładna pogoda", "gdzie jest dworzec", "nie mówię po angielsku",
           "ile to kosztuje", "dziękuję bardzo i do widzenia"),
    "sv": ("god dag jag vill ha ett rum", "det är vackert väder idag", "var ligger stationen", "hur mycket kostar det"),
    "tr": ("iyi günler bir oda istiyorum", "bugün hava güzel", "istasyon nerede", "ingilizce bilmiyorum"),
    "fi": ("hyvää päivää haluaisin huoneen", "tänään on kaunis ilma", "missä on asema", "paljonko tämä maksaa"),
    "hi": ("नमस्ते मुझे एक कमरा चाहिए", "आज मौसम अच्छा है", "स्टेशन कहाँ है", "मैं अंग्रेज़ी नहीं बोलता"),
    "ru": ("здравствуйте мне нужен номер", "сегодня хорошая погода", "где находится вокзал", "сколько это стоит"),
    "cmn": ("你好我想要一个房间", "今天天气很好", "请问车站在哪里", "我不会说英语", "这个多少钱", "谢谢再见"),
}  # fmt: skip
PICO_FOREIGN = {"de": "de-DE", "fr": "fr-FR"}
BABBLE = (
    "we went to the market and bought a lot of fruit", "nobody knows where the old man lives now",
    "she told me that the party was over", "they have been working on the roof all day",
    "in the summer we always go to the lake", "he never listens when people talk to him",
)  # fmt: skip


def make(kind: str, rng: Random, *, speak: Speak, held_out: bool) -> Wave:
    """16 kHz audio of `kind`. `held_out` takes the voices of the engine that training never hears.

    Raises KeyError for an unknown kind.
    """
    makers: dict[str, Callable[[], Wave]] = {
        "noise": lambda: noise(rng, held_out=held_out),
        "silence": lambda: silence(rng),
        "babble": lambda: babble(rng, speak=speak, held_out=held_out),
        "foreign": lambda: foreign(rng, speak=speak, held_out=held_out),
    }
    return makers[kind]()


def coloured(rng: Random, count: int, *, slope: float) -> Signal:
    """Noise of unit power whose spectrum falls with frequency ** slope (0 white, 0.5 pink, 1 brown)."""
    source = np.random.default_rng(rng.randrange(2**32))
    spectrum = np.fft.rfft(source.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / RATE)
    shaped = np.fft.irfft(spectrum / np.maximum(frequency, 30.0) ** slope, count)
    return shaped / (np.sqrt(np.mean(shaped**2)) + 1e-9)


def _to_wave(signal: Signal, level: float) -> Wave:
    """`level`: power relative to full scale, linear."""
    scaled = signal / (np.sqrt(np.mean(signal**2)) + 1e-9) * level * 32768
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def noise(rng: Random, *, held_out: bool) -> Wave:
    """One or two of: coloured noise, hum, tones, clicks, chords; 0.6 to 4 s. Ranges as those of backgrounds.py."""

    def draw(low: float, high: float) -> float:
        return between(rng, low, high, held_out=held_out)

    count = int(rng.uniform(0.6, 4.0) * RATE)
    time = np.arange(count) / RATE
    signal = np.zeros(count)
    for _ in range(rng.choice((1, 1, 2))):
        form = rng.choice(("coloured", "coloured", "hum", "tones", "clicks", "chords", "swell"))
        if form == "coloured":
            signal += coloured(rng, count, slope=draw(0.1, 1.3) - 0.1)
        elif form == "hum":
            base = draw(45.0, 130.0)
            signal += sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, rng.randint(3, 12)))
        elif form == "tones":
            on = np.sin(2 * np.pi * draw(0.5, 3) * time) > rng.uniform(-0.8, 0.4)
            low, high = draw(300, 800), draw(900, 2500)
            signal += on * (np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time))
        elif form == "clicks":
            hits = np.zeros(count)
            for _ in range(rng.randint(2, 14)):
                hits[rng.randrange(count)] = rng.uniform(0.3, 1.0)
            decay = np.exp(-np.arange(1600) / draw(20, 400))
            signal += np.convolve(hits, decay * coloured(rng, 1600, slope=rng.uniform(0, 0.6)))[:count] * 4
        elif form == "chords":
            signal += chords(rng, time)
        else:
            swell = 0.5 + 0.5 * np.sin(2 * np.pi * draw(0.3, 6) * time + rng.uniform(0, 6))
            signal += swell * coloured(rng, count, slope=rng.uniform(0.2, 1.0))
    return _to_wave(signal, rng.uniform(0.005, 0.2))


def chords(rng: Random, time: Signal) -> Signal:
    """A few notes with overtones, as of a piece of music."""
    signal, step = np.zeros(len(time)), rng.uniform(0.2, 0.8)
    for start in np.arange(0, time[-1], step):
        after = np.maximum(time - start, 0)
        envelope = (time >= start) * np.exp(-after / rng.uniform(0.1, 0.8))
        root = 110 * 2 ** (rng.randint(0, 24) / 12)
        for interval in (0, rng.choice((3, 4)), 7)[: rng.randint(1, 3)]:
            pitch = root * 2 ** (interval / 12)
            signal += envelope * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3, 4))
    return signal


def silence(rng: Random) -> Wave:
    """0.4 to 3 s of next to nothing."""
    signal = coloured(rng, int(rng.uniform(0.4, 3.0) * RATE), slope=rng.uniform(0, 1))
    return _to_wave(signal, 10 ** rng.uniform(-4.6, -3.0))


def babble(rng: Random, *, speak: Speak, held_out: bool) -> Wave:
    """Several voices at once, or one backwards."""
    if rng.random() < 0.35:
        voice = _voice(rng, held_out=held_out)
        return np.ascontiguousarray(trim(speak(rng.choice(BABBLE), voice))[::-1])
    voices = [
        trim(speak(rng.choice(BABBLE), _voice(rng, held_out=held_out))) for _ in range(rng.randint(3, 5))
    ]
    mixed = np.zeros(max(map(len, voices)))
    for samples in voices:
        shifted = np.roll(samples, rng.randrange(len(samples))).astype(np.float64)
        mixed[: len(shifted)] += shifted * rng.uniform(0.6, 1.0)
    return _to_wave(mixed, rng.uniform(0.03, 0.15))


def _voice(rng: Random, *, held_out: bool) -> Voice:
    if held_out:
        return Voice("pico", rng.choice(("en-US", "en-GB")), rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1))
    return Voice(
        "espeak", f"en-us+{rng.choice(('m1', 'm3', 'm7', 'f2', 'f4', 'klatt'))}", rng.randint(140, 190), 50
    )


def foreign(rng: Random, *, speak: Speak, held_out: bool) -> Wave:
    """A sentence in another language."""
    if held_out:
        language = rng.choice(sorted(PICO_FOREIGN))
        name = PICO_FOREIGN[language]
        assert name in PICO_SPEAKERS
        return speak(rng.choice(FOREIGN[language]), Voice("pico", name, rng.uniform(0.9, 1.1), 1.0))
    language = rng.choice(sorted(FOREIGN))
    name = language + (f"+{rng.choice(('m1', 'm3', 'm7', 'f1', 'f2', 'f4'))}" if rng.random() < 0.8 else "")
    return speak(
        rng.choice(FOREIGN[language]), Voice("espeak", name, rng.randint(130, 190), rng.randint(25, 75))
    )
