"""How the training speech sounds: nothing that is held out reaches training, and styles and channels do what they say.

No synthesiser is needed: engines are stand-ins, recordings are sums of sines.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from scripts.pocket import augment
from scripts.pocket.hift_data import track_pitch

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("caller", "agent", "agent_es", "agent_male", "voices")


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """Imports a module of scripts/pocket, whose modules import each other by bare name."""
    sys.path.insert(0, str(ROOT / "scripts" / "pocket"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "scripts" / "pocket"))


@pytest.fixture(scope="module")
def corpus(scripts: Any) -> dict[str, Any]:
    """Every style, background, kind and language in training and test."""
    task = scripts("task")
    sounds = [
        task.Sound("good morning", language=language, style=style, sex=sex)
        for language in ("en", "es")
        for style in task.STYLES
        for sex in ("", "female", "male")
        for _ in range(12)
    ]
    sounds += [task.Sound("", kind="silence", background=name) for name in task.BACKGROUNDS for _ in range(4)]
    sounds += [task.Sound("", kind=kind) for kind in task.KINDS[1:] for _ in range(4)]
    fields = {name: getattr(sounds[0], name) for name in task.Sound.__slots__}

    def heard(sound: Any) -> dict[str, Any]:
        made = {name: getattr(sound, name) for name in fields}
        return {"heard": made, "reply": "yes, it is.", "spoken": True, "language": "en"}

    tasks = [heard(sound) | {"name": ("asr", "caption")[k % 2]} for k, sound in enumerate(sounds)]
    tasks.insert(7, {"heard": None, "name": "caption", "reply": "no.", "spoken": False, "language": "en"})
    return {
        "train": [],
        "test": [],
        "tasks": tasks,
        "task_test": tasks,
        "generic": ["the sun is warm"],
        "generic_test": ["the moon is cold"],
        "agent_generic": [f"sentence {word}." for word in ("one", "two", "three")],
        "agent_spanish": ["buenos días.", "hasta mañana."],
    }


def tone(hertz: float, seconds: float = 1.5, rate: int = 16_000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    made = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 14))
    return (made * 4000).astype(np.int16)


# ---------------------------------------------------------------------------------------------------------- leaks


def test_no_held_out_voice_reaches_any_training_bank(scripts: Any, corpus: dict[str, Any]) -> None:
    voices = scripts("voices")
    banks = scripts("gen_data").plan(corpus)
    for tag in TRAINING:
        items = banks[tag]
        assert items
        leaked = {item.voice.label() for item in items if voices.is_held_out(item.voice)}
        assert not leaked, tag
        assert not any(item.held_out or item.channel for item in items)
        assert not any(voices.is_held_out(scripts("gen_data")._spare(item)) for item in items)


def test_ten_thousand_callers_hold_no_stranger(scripts: Any) -> None:
    voices = scripts("voices")
    rng = Random(0)
    strangers = {(voice.engine, voice.name.split("+")[-1]) for voice in voices.strangers()}
    for number in range(10_000):
        language = ("en", "es")[number % 5 == 0]
        style = voices.STYLES[number % len(voices.STYLES)]
        voice = voices.training_voice(rng, language=language, style=style)
        assert not voices.is_held_out(voice)
        assert (voice.engine, voice.name.split("+")[-1]) not in strangers
    assert not any(voices.is_held_out(voice) for voice in voices.personas())


@pytest.mark.parametrize("language", ["en", "es"])
def test_held_out_draws_are_held_out_in_every_style_and_sex(scripts: Any, language: str) -> None:
    voices = scripts("voices")
    rng = Random(1)
    for draw in (voices.held_out_voice, voices.held_out_engine_voice):
        for style in voices.STYLES:
            for sex in ("", "female", "male"):
                for _ in range(20):
                    voice = draw(rng, language=language, style=style, sex=sex)
                    assert voices.is_held_out(voice)
                    assert sex in ("", voice.sex)
                    assert voice.language == language
    assert all(voices.is_held_out(voice) for voice in voices.strangers())


def test_held_out_ranges_of_backgrounds_and_noises_are_disjoint_from_trainings(scripts: Any) -> None:
    between = scripts("backgrounds").between
    rng = Random(0)
    for low, high in ((380, 2200), (0.12, 0.9), (0.5, 3)):
        kept = [between(rng, low, high, held_out=False) for _ in range(2000)]
        held = [between(rng, low, high, held_out=True) for _ in range(2000)]
        assert low <= min(kept) < min(held) <= max(held) < max(kept) <= high
        assert not [value for value in kept if min(held) <= value <= max(held)]


def test_noise_of_the_examination_is_none_of_trainings(scripts: Any) -> None:
    between = scripts("backgrounds").between
    low, high = augment.HELD_OUT_SLOPES
    assert all(low <= between(Random(i), 0.3, 1.1, held_out=True) <= high for i in range(500))


def test_only_tests_take_held_out_backgrounds(scripts: Any, corpus: dict[str, Any]) -> None:
    banks = scripts("gen_data").plan(corpus)
    for tag in ("test_new", "test_voices", "test_noisy", "test_phone", "test_human"):
        assert all(item.held_out for item in banks[tag])
    assert all(scripts("voices").is_held_out(item.voice) for item in banks["test_new"] if item.text)


# ---------------------------------------------------------------------------------------------------- same and apart


def test_an_item_is_the_same_whoever_makes_it(scripts: Any, corpus: dict[str, Any]) -> None:
    data, task = scripts("gen_data"), scripts("task")
    whole = data.plan(corpus)["test_voices"]
    again = data.heard_items(list(task.heard_of(corpus, test=True)), "test_voices")
    assert again == whole
    item = next(item for item in whole if item.sound.background and not item.text)
    first, second = data.make(item)[0], data.make(item)[0]
    assert np.array_equal(first, second)
    assert len(first) > 16_000


def test_the_banks_say_what_they_hold(scripts: Any, corpus: dict[str, Any]) -> None:
    data = scripts("gen_data")
    item = next(item for item in data.plan(corpus)["caller"] if item.sound.style == "whisper")
    entry = data.described_as(item, cut=True)
    assert entry["style"] == "whisper"
    assert entry["cut"] is True
    assert entry["sex"] in ("female", "male")
    assert entry["gentle"] is True
    assert set(entry) >= {"text", "language", "background", "kind", "voice"}


def test_what_a_caption_tells_is_left_alone(scripts: Any, corpus: dict[str, Any]) -> None:
    items = scripts("gen_data").plan(corpus)["caller"]
    heard = [made for made in corpus["tasks"] if made["heard"]]
    assert [item.gentle for item in items] == [made["name"] == "caption" for made in heard] + [False]


def test_personas_are_many_and_read_spanish_as_themselves(scripts: Any) -> None:
    voices = scripts("voices")
    people = voices.personas()
    assert len({voice.label() for voice in people}) == len(people) >= 300
    assert 0.4 < sum(voice.sex == "female" for voice in people) / len(people) < 0.6
    reader = next(voice for voice in people if voices.reads_spanish(voice))
    assert voices.in_spanish(reader).label() == reader.label()
    assert voices.in_spanish(reader).language == "es"


# ---------------------------------------------------------------------------------------------------- sound itself


def test_a_whisper_keeps_the_formants_and_loses_the_pitch(scripts: Any) -> None:
    voiced = tone(120)
    whisper = scripts("effects").whispered(voiced)

    def share_voiced(samples: np.ndarray) -> float:
        pitch = track_pitch(torch.from_numpy(samples.astype(np.float32) / 32768)[None])[0]
        return float((pitch > 0).float().mean())

    assert share_voiced(voiced) > 0.9
    assert share_voiced(whisper) < 0.3
    assert 0.2 < np.std(whisper.astype(float)) / np.std(voiced.astype(float)) < 1.0


def test_noise_has_the_asked_distance(scripts: Any) -> None:
    effects = scripts("effects")
    clean = tone(150).astype(np.float64)
    noise = effects.noisy(clean, Random(0), decibel=5.0) - clean
    assert 20 * np.log10(np.std(clean) / np.std(noise)) == pytest.approx(5.0, abs=0.2)


def test_the_telephone_narrows_and_loses_packets(scripts: Any) -> None:
    effects = scripts("effects")
    hiss = (np.random.default_rng(0).standard_normal(32_000) * 3000).astype(np.int16)
    whole, broken = (effects.telephone(hiss, Random(0), loss=loss) for loss in (0.0, 0.3))
    power = np.abs(np.fft.rfft(whole.astype(float))) ** 2
    hertz = np.fft.rfftfreq(len(whole), 1 / 16_000)
    assert power[hertz > 3700].mean() < 0.01 * power[(hertz > 500) & (hertz < 3000)].mean()
    lost = (whole.reshape(-1, 320) != broken.reshape(-1, 320)).any(1).mean()
    assert 0.12 < lost < 0.5


def test_drift_moves_the_pitch_a_little_to_both_sides(scripts: Any) -> None:
    moved = scripts("effects").drift(tone(150, 3.0).astype(np.float64), Random(2), depth=0.07)
    pitch = track_pitch(torch.from_numpy(moved.astype(np.float32) / 32768)[None])[0][5:-5]
    assert 139 < pitch.min() < 148
    assert 152 < pitch.max() < 161


class Reader:
    """Says a beep of 0.2 s for each word, all alike; tells when words end if `tells`."""

    def __init__(self, engines: Any, *, tells: bool) -> None:
        self.engines, self.tells, self.texts = engines, tells, []

    def __call__(self, text: str, voice: Any) -> Any:
        self.texts.append(text)
        words = text.split()
        ends = [(len(" ".join(words[: k + 1]).rstrip(",")), 3200 * (k + 1)) for k in range(len(words))]
        return self.engines.Spoken(tone(200, 0.2 * len(words)), tuple(ends) if self.tells else ())


@pytest.mark.parametrize("tells", [True, False])
def test_a_sentence_breaks_off_behind_the_asked_word(scripts: Any, tells: bool) -> None:
    synth = scripts("synth")
    speaker = synth.Synthesiser()
    speaker.engines["espeak"] = Reader(scripts("engines"), tells=tells)
    seen = set()
    for seed in range(30):
        samples, cut = speaker.beginning("one two three four", synth.Voice("espeak", "x"), 2, Random(seed))
        said = np.flatnonzero(np.abs(samples) > 100)[-1] + 1
        assert said == pytest.approx(6400, abs=120)
        assert (len(samples) - said < 130) == cut
        seen.add(cut)
    assert seen == {True, False}


def test_letters_are_called_by_their_names(scripts: Any) -> None:
    synth = scripts("synth")
    assert synth.as_spoken("spell it c a t") == ["spell", "it", "c", "eigh", "t"]
    assert synth.as_spoken("i have a dog") == ["i", "have", "a", "dog"]
    assert synth.as_spoken("la palabra es s o l", "es")[-3:] == ["ese", "o", "ele"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mañana", "m aa n y aa1 n aa"),
        ("queso", "k eh1 s ao"),
        ("guerra", "g eh1 r aa"),
        ("habitación", "aa b iy t aa s y ao1 n"),
        ("jueves", "hh w eh1 b eh s"),
        ("hoy", "oy1"),
        ("pingüino", "p iy n g w iy1 n ao"),
    ],
)
def test_spanish_by_the_sounds_of_english(scripts: Any, word: str, said: str) -> None:
    assert scripts("spanish").sounds(word) == said.split()


@pytest.mark.parametrize("name", ["bell", "siren", "rain", "bark", "music"])
def test_backgrounds_sound_and_differ(scripts: Any, name: str) -> None:
    backgrounds = scripts("backgrounds")
    kept, held = (backgrounds.make(name, Random(3), 32_000, held_out=held_out) for held_out in (False, True))
    for signal in (kept, held):
        assert np.isfinite(signal).all()
        assert 0.05 < np.sqrt((signal**2).mean()) < 1.5
    assert not np.allclose(kept, held)


# ---------------------------------------------------------------------------------------------- on the device


def test_pace_wanders_but_both_ends_stay() -> None:
    rng = np.random.default_rng(0)
    lengths = np.full(64, 32_000)
    gentle, cut = np.arange(64) < 16, np.arange(64) >= 48
    place = augment.placement(lengths, rng, augmented=True, gentle=gentle, cut=cut)
    assert 0.8 <= place.speed.min() < 0.9 < 1.15 < place.speed.max() <= 1.3
    assert np.abs(place.speed[gentle] - 1).max() <= 0.03
    assert not place.depth[gentle].any()
    assert (place.lead + place.speech == place.total)[cut].all()
    where = torch.arange(44_000).expand(64, -1)
    ahead = augment.wander(where, place)
    assert ahead[:, 0].abs().max() < 1
    for row in range(64):
        assert abs(float(ahead[row, int(place.speech[row])])) < 1
    assert ahead.diff(dim=1).abs().max() < 0.12


def test_lost_packets_are_whole_ones() -> None:
    dice = augment.Dice(64, torch.device("cpu"), torch.Generator().manual_seed(0))
    waves = torch.randn(64, 16_000)
    changed = (augment._losses(dice, waves) != waves).view(64, 50, 320)
    assert (changed.all(2) | ~changed.any(2)).all()
    assert 10 < int(changed.any(2).any(1).sum()) < 50


def test_gentle_rows_keep_what_sounds_behind_them() -> None:
    waves = torch.from_numpy(tone(150).astype(np.float32) / 32768).expand(200, -1).contiguous()
    lengths = torch.full((200,), waves.shape[1])
    gentle = torch.arange(200) < 100
    heard = augment.augment(waves, lengths, generator=torch.Generator().manual_seed(0), gentle=gentle)
    spectrum = torch.fft.rfft(heard).abs() ** 2
    spectrum = spectrum / spectrum.sum(1, keepdim=True)
    between = spectrum[:, 75 + 225 * 3 : 150 + 225 * 3].sum(1)  # between two overtones: noise
    assert between[:100].mean() < 0.5 * between[100:].mean()


def test_harmonics_can_be_made_shallower() -> None:
    mel = torch.zeros(1, 128, 4)
    mel[:, ::4] = 1.0
    ripple = [augment.voiced_mel(mel, torch.tensor([depth])).std(1).mean() for depth in (0.0, 0.5, 1.0)]
    assert ripple[0] < 0.4 * ripple[2]
    assert ripple[0] < ripple[1] < ripple[2]


@pytest.mark.parametrize("draw", ["training_voice", "held_out_voice", "held_out_engine_voice"])
def test_styles_are_told_apart_by_the_pitch_that_a_voice_reaches(scripts: Any, draw: str) -> None:
    voices = scripts("voices")
    rng = Random(5)
    spans: dict[tuple[str, str], list[float]] = {}
    for style in ("plain", "high", "low"):
        for sex in ("female", "male"):
            for _ in range(200):
                voice = getattr(voices, draw)(rng, style=style, sex=sex)
                if voice.engine == "espeak":
                    step = voice.pitch - 50
                    ratio = np.exp(step * (0.0103 if step > 0 else 0.0085))
                elif voice.engine in ("rhvoice", "pico"):
                    ratio = voice.pitch
                else:
                    ratio = voice.pitch / voices.own_hertz(voice)
                spans.setdefault((sex, style), []).append(ratio * voices.own_hertz(voice) * voice.warp)
    for sex in ("female", "male"):
        low, plain, high = (np.array(spans[sex, style]) for style in ("low", "plain", "high"))
        assert low.max() < plain.min() < plain.max() < high.min()
