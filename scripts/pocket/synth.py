"""Text to 16 kHz speech through the libraries of espeak-ng, flite, SVOX Pico and a festival process. Chooses no text.

The engines are loaded once per process and called in it (no process per utterance); festival lives beside it as one
process that is fed by a pipe. TTS_ROOT names the folder that holds the unpacked Debian packages (tts_libs.sh); without
it the installed ones are used. SVOX Pico is the held-out engine: its voices are never among `training_voice`.
"""

from __future__ import annotations

import ctypes as ct
import os
import subprocess
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

RATE = 16_000
ROOT = Path(os.environ.get("TTS_ROOT", "/"))
INSTALLED = str(ROOT) == "/"
LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"
Wave = npt.NDArray[np.int16]

ACCENTS = (
    "en-us", "en-us", "en-us", "en-us-nyc", "en", "en", "en-gb-x-rp", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan",
    "en-gb-x-gbcwmd", "en-029",
)  # fmt: skip
VARIANTS = " ".join(
    (
        "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 klatt5 klatt6 adam Alex Alicia",
        "Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward edward2",
        "Gene Gene2 grandma grandpa gustave Henrique Hugo iven iven2 iven3 iven4 Jacky john linda Lee",
        "marcelo Marco Mario max Michael michel miguel Mike norbert pablo paul pedro quincy rob robert",
        "sandro shelby steph steph2 steph3 travis victor zac anika croak",
    )
).split()
FLITE_VOICES = ("slt", "awb", "rms", "kal16")
FLITE_PITCH = {"slt": (140.0, 230.0), "awb": (90.0, 190.0), "rms": (70.0, 150.0), "kal16": (80.0, 170.0)}
FESTIVAL_VOICES = ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts")
FESTIVAL_WEIGHTS = (4, 4, 1)  # the last one is slow
PICO_VOICES = {"en-US": "lh0", "en-GB": "kh0", "de-DE": "gl0", "fr-FR": "nk0"}


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks. `rate`: words per minute (espeak) or relative speed; `pitch`: 0..99 (espeak), Hz (flite, festival),
    relative (pico); 0 = the voice's own. `spread`: pitch range of espeak, 0..99."""

    engine: str
    name: str
    rate: float = 1.0
    pitch: float = 0.0
    spread: float = 50.0

    def label(self) -> str:
        return f"{self.engine}/{self.name}"


def training_voice(rng: Random) -> Voice:
    """A caller of the training family: 75 % espeak, 15 % flite, 10 % festival."""
    pick = rng.random()
    if pick < 0.15:
        name = rng.choice(FLITE_VOICES)
        pitch = rng.uniform(*FLITE_PITCH[name]) if rng.random() < 0.7 else 0.0
        return Voice("flite", name, rng.uniform(0.8, 1.25), pitch)
    if pick < 0.25:
        return Voice(
            "festival",
            rng.choices(FESTIVAL_VOICES, FESTIVAL_WEIGHTS)[0],
            rng.uniform(0.8, 1.2),
            rng.uniform(80, 200),
        )
    name = rng.choice(ACCENTS)
    if rng.random() < 0.94:
        name += "+" + rng.choice(VARIANTS)
    return Voice("espeak", name, rng.randint(120, 205), rng.randint(15, 88), rng.randint(15, 85))


def held_out_voice(rng: Random, index: int) -> Voice:
    """A caller of the engine that training never hears: two speakers, alternating, with some speed and pitch."""
    return Voice("pico", ("en-US", "en-GB")[index % 2], rng.uniform(0.88, 1.15), rng.uniform(0.9, 1.12))


def load_libraries(*names: str) -> dict[str, ct.CDLL]:
    """Load shared libraries by name from TTS_ROOT, dependencies first, whatever their order here."""
    waiting = [LIBRARIES / name for name in names]
    loaded: dict[str, ct.CDLL] = {}
    if not INSTALLED:  # the linker does not search TTS_ROOT: load what lies there until nothing more fits
        others = sorted(path for path in LIBRARIES.glob("*.so*") if path not in waiting)
        waiting = [path for path in others if not path.name.startswith(SKIP_PRELOAD)] + waiting
    while waiting:
        failed: list[tuple[Path, OSError]] = []
        for path in waiting:
            try:
                loaded[path.name] = ct.CDLL(str(path), mode=ct.RTLD_GLOBAL)
            except OSError as error:
                failed.append((path, error))
        if len(failed) == len(waiting):
            missing = [f"{path.name}: {error}" for path, error in failed if path.name in names]
            if missing:
                raise OSError("; ".join(missing))
            break
        waiting = [path for path, _ in failed]
    return loaded


# Of TTS_ROOT only the small libraries that espeak needs are loaded into this process; festival's are its own affair.
SKIP_PRELOAD = ("libflite", "libest", "libespeak", "libttspico", "libgomp", "libtinfo")


class Espeak:
    """espeak-ng in this process. Call: (text, voice) -> 16 kHz."""

    def __init__(self) -> None:
        self.library = load_libraries("libespeak-ng.so.1")["libespeak-ng.so.1"]
        self.chunks: list[Wave] = []
        kind = ct.CFUNCTYPE(ct.c_int, ct.POINTER(ct.c_short), ct.c_int, ct.c_void_p)
        self._callback = kind(self._receive)
        self.rate = self.library.espeak_Initialize(
            2, 0, str(LIBRARIES).encode(), 0
        )  # 2: synchronous, into memory
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data under {LIBRARIES}")
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def __call__(self, text: str, voice: Voice) -> Wave:
        library, data = self.library, text.encode()
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((1, voice.rate), (3, voice.pitch), (4, voice.spread)):
            library.espeak_SetParameter(parameter, int(value), 0)
        self.chunks = []
        size = ct.c_size_t(len(data) + 1)
        library.espeak_Synth(data, size, ct.c_uint(0), 0, ct.c_uint(0), ct.c_uint(1), None, None)  # 1: UTF-8
        return resample(np.concatenate(self.chunks or [np.zeros(0, np.int16)]), self.rate)


class _FliteWave(ct.Structure):
    _fields_ = (
        ("type", ct.c_char_p),
        ("sample_rate", ct.c_int),
        ("num_samples", ct.c_int),
        ("num_channels", ct.c_int),
        ("samples", ct.POINTER(ct.c_short)),
    )


class Flite:
    """flite in this process. Call: (text, voice) -> 16 kHz."""

    def __init__(self) -> None:
        names = [f"libflite_cmu_us_{name}.so.1" for name in FLITE_VOICES]
        loaded = load_libraries("libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1", *names)
        self.library = loaded["libflite.so.1"]
        self.library.flite_init()
        self.library.flite_text_to_wave.restype = ct.POINTER(_FliteWave)
        self.library.flite_text_to_wave.argtypes = [ct.c_char_p, ct.c_void_p]
        self.library.flite_feat_set_float.argtypes = [ct.c_void_p, ct.c_char_p, ct.c_float]
        self.library.feat_remove.argtypes = [ct.c_void_p, ct.c_char_p]
        self.library.get_param_float.argtypes = [ct.c_void_p, ct.c_char_p, ct.c_float]
        self.library.get_param_float.restype = ct.c_float
        self.library.delete_wave.argtypes = [ct.POINTER(_FliteWave)]
        self.voices: dict[str, tuple[int, int, float]] = {}
        for name, file in zip(FLITE_VOICES, names, strict=True):
            register = getattr(loaded[file], f"register_cmu_us_{name}")
            register.restype, register.argtypes = ct.c_void_p, [ct.c_char_p]
            voice = register(None)
            # struct cst_voice begins with its name and the pointer to its features
            features = ct.cast(voice + ct.sizeof(ct.c_void_p), ct.POINTER(ct.c_void_p))[0]
            own = self.library.get_param_float(features, b"int_f0_target_mean", -1.0)
            self.voices[name] = (voice, features, own)

    def __call__(self, text: str, voice: Voice) -> Wave:
        handle, features, own = self.voices[voice.name]
        self.library.flite_feat_set_float(features, b"duration_stretch", 1.0 / voice.rate)
        pitch = voice.pitch or own
        if pitch > 0:
            self.library.flite_feat_set_float(features, b"int_f0_target_mean", pitch)
        else:
            self.library.feat_remove(features, b"int_f0_target_mean")
        made = self.library.flite_text_to_wave(text.encode(), handle)
        count, rate = made.contents.num_samples, made.contents.sample_rate
        samples = np.ctypeslib.as_array(made.contents.samples, shape=(count,)).copy()
        self.library.delete_wave(made)
        return resample(samples, rate)


class Pico:
    """SVOX Pico in this process. Call: (text, voice) -> 16 kHz. It speaks English, German and French here."""

    MEMORY = 2_500_000
    BUSY = 201

    def __init__(self) -> None:
        self.library = load_libraries("libttspico.so.0")["libttspico.so.0"]
        self.engines: dict[str, tuple[Any, ct.c_void_p]] = {}
        for name, speaker in PICO_VOICES.items():
            self.engines[name] = self._open(name, speaker)

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"SVOX Pico failed with status {status}")

    def _open(self, name: str, speaker: str) -> tuple[Any, ct.c_void_p]:
        library, memory, system = self.library, ct.create_string_buffer(self.MEMORY), ct.c_void_p()
        self._check(library.pico_initialize(memory, ct.c_uint32(self.MEMORY), ct.byref(system)))
        self._check(library.pico_createVoiceDefinition(system, b"voice"))
        for file in (f"{name}_ta.bin", f"{name}_{speaker}_sg.bin"):
            resource, title = ct.c_void_p(), ct.create_string_buffer(64)
            path = str(ROOT / "usr/share/pico/lang" / file).encode()
            self._check(library.pico_loadResource(system, path, ct.byref(resource)))
            self._check(library.pico_getResourceName(system, resource, title))
            self._check(library.pico_addResourceToVoiceDefinition(system, b"voice", title))
        engine = ct.c_void_p()
        self._check(library.pico_newEngine(system, b"voice", ct.byref(engine)))
        return memory, engine

    def __call__(self, text: str, voice: Voice) -> Wave:
        _memory, engine = self.engines[voice.name]
        speed, pitch = round(100 * voice.rate), round(100 * (voice.pitch or 1.0))
        marked = f'<speed level="{speed}"><pitch level="{pitch}">{text}</pitch></speed>'
        data, chunks = marked.encode() + b"\0", [np.zeros(0, np.int16)]
        put, got, kind = ct.c_int16(), ct.c_int16(), ct.c_int16()
        buffer = ct.create_string_buffer(2048)
        while True:
            if data:
                size = ct.c_int16(min(len(data), 30_000))
                self._check(self.library.pico_putTextUtf8(engine, data, size, ct.byref(put)))
                data = data[put.value :]
            status = self.library.pico_getData(
                engine, buffer, ct.c_int16(2048), ct.byref(got), ct.byref(kind)
            )
            if got.value:
                chunks.append(np.frombuffer(buffer.raw[: got.value], np.int16))
            if status != self.BUSY and not data:
                break
        return np.concatenate(chunks)


class Festival:
    """One festival process, fed by a pipe. Call: (text, voice) -> 16 kHz."""

    def __init__(self) -> None:
        share, library, binary = (ROOT / "usr" / name / "festival" for name in ("share", "lib", "bin"))
        environment = dict(os.environ)
        if not INSTALLED:
            environment["LD_LIBRARY_PATH"] = str(LIBRARIES)
        memory = Path("/dev/shm")
        folder = memory if memory.is_dir() else Path(tempfile.gettempdir())
        self.path = folder / f"festival-{os.getpid()}.wav"
        command = [str(binary), "--datadir", str(share), "--libdir", str(library), "--pipe"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        for voice in FESTIVAL_VOICES:
            self._run(f"(voice_{voice})")

    def _run(self, expression: str) -> None:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("festival has no pipe")
        self.process.stdin.write(f'{expression}\n(format t "\\nready\\n")\n(fflush nil)\n')
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise RuntimeError("festival ended: are all its packages unpacked?")

    def __call__(self, text: str, voice: Voice) -> Wave:
        path = self.path
        clean = text.replace("\\", " ").replace('"', " ")
        pitch = voice.pitch or 110
        self._run(
            f"(voice_{voice.name}) (Parameter.set 'Duration_Stretch {1 / voice.rate:.3f}) "
            f"(set! int_lr_params '((target_f0_mean {pitch:.0f}) (target_f0_std 15) "
            "(model_f0_mean 170) (model_f0_std 34))) "
            f'(utt.save.wave (utt.synth (Utterance Text "{clean}")) "{path}" \'riff)'
        )
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            path.unlink()
            return resample(samples, file.getframerate())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def resample(samples: Wave, rate: int) -> Wave:
    """To 16 kHz."""
    if rate == RATE or len(samples) == 0:
        return samples
    common = int(np.gcd(rate, RATE))
    converted = resample_poly(samples.astype(np.float32), RATE // common, rate // common)
    return np.clip(converted, -32768, 32767).astype(np.int16)


def trim(samples: Wave, *, lead: int = 1600, tail: int = 1600, threshold: int = 60) -> Wave:
    """Cut the silence at both ends, but for `lead` and `tail` samples."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > threshold)
    if len(loud) == 0:
        return samples[:0]
    return samples[max(0, loud[0] - lead) : loud[-1] + 1 + tail]


class Synthesiser:
    """All engines of one process, each started when it is first needed."""

    def __init__(self) -> None:
        self.engines: dict[str, Callable[[str, Voice], Wave]] = {}

    def __call__(self, text: str, voice: Voice) -> Wave:
        if voice.engine not in self.engines:
            self.engines[voice.engine] = ENGINES[voice.engine]()
        return self.engines[voice.engine](text, voice)


ENGINES: dict[str, Callable[[], Callable[[str, Voice], Wave]]] = {
    "espeak": Espeak,
    "flite": Flite,
    "festival": Festival,
    "pico": Pico,
}
