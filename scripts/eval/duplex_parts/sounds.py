"""The sounds of the trials, float32 at 16 kHz: callers, backchannels, coughs, rooms, telephones. It times nothing.

Voices are those of flite and espeak-ng where they are installed, else the recorded questions of the tests, and people
where files of theirs are named.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voiceagent.audio import wavio
from voiceagent.audio.g711 import mulaw_decode, mulaw_encode
from voiceagent.audio.pcm import float_to_int16, int16_to_float
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.audio.resample import resample
from voiceagent.units import MODEL_RATE

Samples = npt.NDArray[np.float32]

QUESTIONS = Path(__file__).resolve().parents[3] / "tests" / "data" / "questions"
LEVEL = 0.1  #: RMS of a caller's voice, -20 dB of full scale
ROOM_NOISE = 5e-4  #: RMS of a quiet room, -66 dB
PHONE_RATE = 8_000
LOUD = 0.02  #: of a recording's peak (-34 dB): where its first word begins and its last word ends
FADE = MODEL_RATE // 100
LEAST_PART = MODEL_RATE // 4
SEARCH_S = 0.15  #: a pause is put where it is quietest, so far from where it should be

# "|" is where the caller stops to think.
SENTENCES = (  # what they have said by then is no whole request
    "hello when do you open on | wednesday",
    "how much is the | chocolate cake",
    "a table for | twelve at ten on friday",
    "please spell the | word wolf",
    "what is the weather in | milan please",
    "count from eight to | thirteen",
    "good morning calculate | eight plus eleven",
    "how much is a | garden room",
)
CLAUSES = (  # it could be one
    "hello when do you open | on wednesday",
    "what is the weather | in milan please",
    "a table for twelve | at ten on friday",
)
SPELLED = (
    "check order seven two | one three",
    "check order four nine | two six",
    "my number is five five | one two | three four",
    "check order eight | one | five | nine",
)
BACKCHANNELS = ("uh huh", "yeah", "okay", "right")
HUMS = {"mm-hm": ("m hh m", "[[m-hm]]"), "mm": ("m m", "[[m:]]")}  #: in the phones of flite and of espeak-ng
INTERRUPTIONS = (
    "wait how much is the apple pie",
    "no check order seven two one three",
    "stop please when do you open on friday",
    "hold on what is eight plus eleven",
)
ASIDES = ("can you bring me the keys from the kitchen table", "i think he will be home at seven tonight")
VOICES = ("flite:awb", "flite:rms", "flite:slt", "flite:kal16", "espeak-ng:en-us+m3", "espeak-ng:en-gb+f2")


@dataclass(frozen=True, slots=True)
class Utterance:
    """What somebody says in one turn.

    Attributes:
        name: voice and words.
        parts: the sound, cut where they stop to think; in between is silence of any length.
        kind: "sentence", "clause", "spelled" or "human".
    """

    name: str
    parts: tuple[Samples, ...]
    kind: str

    def spoken(self, pause_ms: int) -> tuple[Samples, tuple[float, ...], float]:
        """With pauses of this length: the sound, when each part but the last ends, and when the last word does."""
        pieces: list[Samples] = []
        ends: list[float] = []
        gap = np.zeros(pause_ms * MODEL_RATE // 1000, np.float32)
        for part in self.parts:
            pieces += [part, gap]
            ends.append(sum(map(len, pieces[:-1])) / MODEL_RATE)
        return np.concatenate(pieces[:-1]), tuple(ends[:-1]), ends[-1]


# --- voices -----------------------------------------------------------------------------------------------------


def voices() -> tuple[str, ...]:
    """The voices that this machine can make."""
    return tuple(voice for voice in VOICES if shutil.which(voice.partition(":")[0]))


@functools.cache
def say(voice: str, text: str, *, phones: bool = False) -> Samples:
    """Words in a voice of `voices`, without silence around them; `phones`: they are the engine's own signs."""
    engine, _, name = voice.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "said.wav")
        command = {
            "flite": ["flite", "-voice", name, "-p" if phones else "-t", text, "-o", out],
            "espeak-ng": ["espeak-ng", "-v", name, "-s", "150", "-w", out, text],
        }[engine]
        subprocess.run(command, check=True, capture_output=True)
        samples, rate = wavio.read(out)
    return levelled(trimmed(resample(samples, source=rate, target=MODEL_RATE)))


@functools.cache
def recorded(name: str) -> Samples:
    """A recorded question, without silence around it."""
    samples, rate = wavio.read(QUESTIONS / f"{name}.flac")
    return levelled(trimmed(resample(samples, source=rate, target=MODEL_RATE)))


def recorded_texts() -> dict[str, str]:
    """The words of the recorded questions that need no tool, by name."""
    listed = json.loads((QUESTIONS / "questions.json").read_text(encoding="utf-8"))["questions"]
    return {q["file"].removesuffix(".flac"): q["text"] for q in listed if not q["tool"]}


def trimmed(samples: Samples) -> Samples:
    """From the first word to the last."""
    loud = np.flatnonzero(np.abs(samples) > LOUD * np.abs(samples).max())
    return faded(samples[loud[0] : loud[-1] + 1])


def levelled(samples: Samples, level: float = LEVEL) -> Samples:
    """At this RMS where it is not silent."""
    active = samples[np.abs(samples) > 0.05 * np.abs(samples).max()]
    return (samples * (level / np.sqrt(np.mean(active**2)))).clip(-1, 1).astype(np.float32)


def faded(samples: Samples) -> Samples:
    """Without clicks at both ends."""
    out = samples.astype(np.float32, copy=True)
    size = min(FADE, len(out) // 2)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    out[:size] *= ramp
    out[len(out) - size :] *= ramp[::-1]
    return out


def utterances(human: tuple[Path, ...] = (), *, most: int | None = None) -> list[Utterance]:
    """All turns with pauses in them, of every voice and of the people in these files; `most` of each kind."""
    made: list[Utterance] = []
    for kind, texts in (("sentence", SENTENCES), ("clause", CLAUSES), ("spelled", SPELLED)):
        found = [_with_pauses(voice, text, kind) for n, text in enumerate(texts) for voice in _some_voices(n)]
        made += found[:: max(1, len(found) // most)][:most] if most else found
    if not made:  # no synthesiser: recorded questions, cut where they are quietest
        made = [_halved(name, recorded(name)) for name in recorded_texts()]
    return made + [of_person(path) for path in human]


def _some_voices(number: int) -> list[str]:
    """Two thirds of the voices, other ones for each text."""
    return [voice for n, voice in enumerate(voices()) if (n + number) % 3]


def _with_pauses(voice: str, text: str, kind: str) -> Utterance:
    """One breath of the synthesiser, cut at its words: before a pause the voice does not fall as at an end."""
    words = [part.strip() for part in text.split("|")]
    whole = say(voice, " ".join(words))
    length = sum(len(say(voice, part)) for part in words)
    cuts, said = [0], 0
    for part in words[:-1]:
        said += len(say(voice, part))
        cuts.append(max(_quietest(whole, said * len(whole) // length), cuts[-1] + FADE))
    edges = [*cuts, len(whole)]
    parts = tuple(faded(whole[a:b]) for a, b in pairwise(edges))
    return Utterance(f"{voice} {text}", parts, kind)


def _halved(name: str, whole: Samples) -> Utterance:
    cut = _quietest(whole, len(whole) // 2)
    return Utterance(name, (faded(whole[:cut]), faded(whole[cut:])), "sentence")


def _quietest(samples: Samples, near: int) -> int:
    """The middle of the quietest 20 ms around a place."""
    size, reach = MODEL_RATE // 50, int(SEARCH_S * MODEL_RATE)
    start = max(0, near - reach)
    power = np.convolve(samples[start : near + reach] ** 2, np.ones(size), "valid")
    return start + int(power.argmin()) + size // 2 if len(power) else near


def of_person(path: Path) -> Utterance:
    """A recording of a person as one turn, cut in their own pauses of 250 ms and more, which are taken out."""
    samples, rate = wavio.read(path)
    whole = levelled(trimmed(resample(samples, source=rate, target=MODEL_RATE)))
    hop = MODEL_RATE // 100
    loudness = np.array([np.sqrt(np.mean(whole[i : i + hop] ** 2)) for i in range(0, len(whole), hop)])
    loud = loudness > max(LOUD * LEVEL, 3 * np.percentile(loudness, 8))
    words = np.flatnonzero(loud)
    whole, loud = whole[words[0] * hop : (words[-1] + 1) * hop], loud[words[0] : words[-1] + 1]
    edges, parts = [0], []
    for place, sounds in enumerate(loud):
        gap = _silence_before(loud, place) if sounds else 0
        if gap >= 25 and (place - gap) * hop - edges[-1] > LEAST_PART:
            parts.append(faded(whole[edges[-1] : (place - gap) * hop]))
            edges.append(place * hop)
    parts.append(faded(whole[edges[-1] :]))
    return Utterance(path.stem, tuple(parts), "human")


def _silence_before(loud: npt.NDArray[np.bool_], place: int) -> int:
    count = 0
    while place - count > 0 and not loud[place - count - 1]:
        count += 1
    return count


# --- what is no turn --------------------------------------------------------------------------------------------


def backchannels() -> list[tuple[str, Samples]]:
    """ "mm-hm" and the like; without a synthesiser the first syllable of a question, which is as short."""
    made = [(f"{voice} {text}", say(voice, text)) for text in BACKCHANNELS for voice in voices()]
    for name, (flite, espeak) in HUMS.items():
        for voice in voices():
            if voice.startswith("flite:kal16"):
                continue  # its few sounds have no hum
            phones = f"pau {flite} pau" if voice.startswith("flite") else espeak
            made.append((f"{voice} {name}", say(voice, phones, phones=True)))
    return made or [(name, faded(recorded(name)[: int(0.35 * MODEL_RATE)])) for name in recorded_texts()]


def interruptions() -> list[tuple[str, Samples]]:
    """What is said to stop us, or instead."""
    made = [(f"{voice} {text}", say(voice, text)) for text in INTERRUPTIONS for voice in voices()]
    return made + [(name, recorded(name)) for name in recorded_texts()]


def softer(listed: list[tuple[str, Samples]], level_db: float) -> list[tuple[str, Samples]]:
    """The same, so much weaker (decibels below 0)."""
    return [(name, sound * np.float32(10 ** (level_db / 20))) for name, sound in listed]


def repeated(listed: list[tuple[str, Samples]], *, silence_s: float) -> list[tuple[str, Samples]]:
    """The same, each three times with so much silence between."""
    gap = np.zeros(round(silence_s * MODEL_RATE), np.float32)
    return [(name, np.concatenate([sound, gap, sound, gap, sound])) for name, sound in listed]


def side_talk(level_db: float) -> list[tuple[str, Samples]]:
    """Somebody else in the room, so much weaker than the caller."""
    made = [(f"{voice} {text}", say(voice, text)) for text in ASIDES for voice in voices()]
    made = made or [(name, recorded(name)) for name in recorded_texts()]
    return softer([(f"{name} at {level_db:.0f} dB", sound) for name, sound in made], level_db)


def cough(random: np.random.Generator) -> Samples:
    """One or two bursts of breath through a throat."""
    bursts = []
    for _ in range(int(random.integers(1, 3))):
        size = int(random.uniform(0.12, 0.25) * MODEL_RATE)
        shape = np.exp(-np.arange(size) / (size / 4)) * np.minimum(1, np.arange(size) / 80)
        bursts += [
            band(random, size, 300, 3000) * shape,
            np.zeros(int(random.uniform(0.08, 0.2) * MODEL_RATE)),
        ]
    return levelled(np.concatenate(bursts).astype(np.float32), 1.6 * LEVEL)


def burst(random: np.random.Generator) -> Samples:
    """A door, a dropped book, a clap."""
    size = int(random.uniform(0.08, 0.4) * MODEL_RATE)
    low, high = [(60, 400), (200, 2000), (800, 6000)][int(random.integers(3))]
    shape = np.exp(-np.arange(size) / (size / 5))
    return levelled((band(random, size, low, high) * shape).astype(np.float32), 1.6 * LEVEL)


def steady(random: np.random.Generator, seconds: float, level_db: float) -> Samples:
    """A fan or a road: noise that falls with frequency, so much below a caller's voice."""
    size = round(seconds * MODEL_RATE)
    spectrum = np.fft.rfft(random.normal(size=size))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20 * seconds))
    noise = np.fft.irfft(spectrum, size)
    return (noise * (LEVEL * 10 ** (level_db / 20) / noise.std())).astype(np.float32)


def band(random: np.random.Generator, size: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(random.normal(size=size))
    spectrum[: int(low * size / MODEL_RATE)] = 0
    spectrum[int(high * size / MODEL_RATE) :] = 0
    return np.fft.irfft(spectrum, size)


# --- rooms and lines --------------------------------------------------------------------------------------------


def room(random: np.random.Generator, level_db: float) -> Samples:
    """From a loudspeaker to the microphone beside it: 150 ms of fading echoes, so strong in all."""
    size = 2400
    tail = 0.35 * random.normal(size=size) * np.exp(-np.arange(size) / 480)
    tail[0] = 1.0
    return (tail / np.sqrt(np.sum(tail**2)) * 10 ** (level_db / 20)).astype(np.float32)


class Telephone:
    """A stream of 16 kHz audio as a telephone passes it on: 8 kHz, mu-law."""

    def __init__(self) -> None:
        self._down = LiveResampler(source=MODEL_RATE, target=PHONE_RATE)
        self._up = LiveResampler(source=PHONE_RATE, target=MODEL_RATE)
        self._waiting = np.zeros(0, np.float32)

    def pass_on(self, samples: Samples) -> Samples:
        """As many samples as came; a few milliseconds late."""
        narrow = mulaw_decode(mulaw_encode(float_to_int16(self._down.push(samples))))
        self._waiting = np.concatenate([self._waiting, self._up.push(int16_to_float(narrow))])
        missing = len(samples) - len(self._waiting)
        if missing > 0:
            self._waiting = np.concatenate([np.zeros(missing, np.float32), self._waiting])
        out, self._waiting = self._waiting[: len(samples)], self._waiting[len(samples) :]
        return out
