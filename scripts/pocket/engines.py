"""The speech synthesisers, loaded into this process: espeak-ng, flite, RHVoice, SVOX Pico, and festival beside it.

Each takes (text, voice) and gives the samples and, where the engine tells, when its words end. They choose neither text
nor voice. TTS_ROOT names the folder that holds the unpacked Debian packages (tts_libs.sh); without it the installed
ones are used.
"""

from __future__ import annotations

import ctypes as ct
import os
import re
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import spanish
from scipy.signal import resample_poly
from voices import FLITE_VOICES, PICO_SPEAKERS, Voice

RATE = 16_000
ROOT = Path(os.environ.get("TTS_ROOT", "/"))
INSTALLED = str(ROOT) == "/"
LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"
Wave = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Spoken:
    """16 kHz samples, and (characters, samples) pairs: so much of the text has been said by then. May be empty."""

    samples: Wave
    ends: tuple[tuple[int, int], ...] = ()


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
SKIP_PRELOAD = ("libflite", "libest", "libespeak", "libttspico", "libRHVoice", "libgomp", "libtinfo")


class _EspeakEvent(ct.Structure):
    _fields_ = (
        ("type", ct.c_int),
        ("unique_identifier", ct.c_uint),
        ("text_position", ct.c_int),
        ("length", ct.c_int),
        ("audio_position", ct.c_int),
        ("sample", ct.c_int),
        ("user_data", ct.c_void_p),
        ("id", ct.c_char * 8),
    )


class Espeak:
    """espeak-ng in this process."""

    WORD = 1

    def __init__(self) -> None:
        self.library = load_libraries("libespeak-ng.so.1")["libespeak-ng.so.1"]
        self.chunks: list[Wave] = []
        self.starts: list[tuple[int, int]] = []
        kind = ct.CFUNCTYPE(ct.c_int, ct.POINTER(ct.c_short), ct.c_int, ct.POINTER(_EspeakEvent))
        self._callback = kind(self._receive)
        self.rate = self.library.espeak_Initialize(
            2, 0, str(LIBRARIES).encode(), 0
        )  # 2: synchronous, into memory
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng finds no data under {LIBRARIES}")
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        index = 0
        while events and events[index].type:
            if events[index].type == self.WORD:
                self.starts.append((events[index].text_position - 1, events[index].sample))
            index += 1
        return 0

    def __call__(self, text: str, voice: Voice) -> Spoken:
        library, data = self.library, text.encode()
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")
        for parameter, value in ((1, voice.rate), (3, voice.pitch), (4, voice.spread)):
            library.espeak_SetParameter(parameter, round(value), 0)
        self.chunks, self.starts = [], []
        size = ct.c_size_t(len(data) + 1)
        library.espeak_Synth(data, size, ct.c_uint(0), 0, ct.c_uint(0), ct.c_uint(1), None, None)  # 1: UTF-8
        # The word before ends where a word starts.
        ends = [(len(text[:place].rstrip()), at) for place, at in self.starts if place > 0]
        return at_16k(np.concatenate(self.chunks or [np.zeros(0, np.int16)]), self.rate, ends)


class _FliteWave(ct.Structure):
    _fields_ = (
        ("type", ct.c_char_p),
        ("sample_rate", ct.c_int),
        ("num_samples", ct.c_int),
        ("num_channels", ct.c_int),
        ("samples", ct.POINTER(ct.c_short)),
    )


class Flite:
    """flite in this process. It reads Spanish, too, by the sounds of English that come next to its own."""

    END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"

    def __init__(self) -> None:
        names = [f"libflite_cmu_us_{name}.so.1" for name in FLITE_VOICES]
        loaded = load_libraries("libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1", *names)
        self.library = loaded["libflite.so.1"]
        self.library.flite_init()
        self._declare()
        self.voices: dict[str, tuple[int, int, float, float]] = {}
        for name, file in zip(FLITE_VOICES, names, strict=True):
            register = getattr(loaded[file], f"register_cmu_us_{name}")
            register.restype, register.argtypes = ct.c_void_p, [ct.c_char_p]
            voice = register(None)
            # struct cst_voice begins with its name and the pointer to its features
            features = ct.cast(voice + ct.sizeof(ct.c_void_p), ct.POINTER(ct.c_void_p))[0]
            own = [
                self.library.get_param_float(features, key, -1.0)
                for key in (b"int_f0_target_mean", b"int_f0_target_stddev")
            ]
            self.voices[name] = (voice, features, own[0], own[1])

    def _declare(self) -> None:
        library, pointer, text = self.library, ct.c_void_p, ct.c_char_p
        for name, result, arguments in (
            ("flite_synth_text", pointer, [text, pointer]),
            ("flite_synth_phones", pointer, [text, pointer]),
            ("utt_wave", ct.POINTER(_FliteWave), [pointer]),
            ("utt_relation", pointer, [pointer, text]),
            ("relation_head", pointer, [pointer]),
            ("item_next", pointer, [pointer]),
            ("item_feat_float", ct.c_float, [pointer, text]),
            ("flite_ffeature_string", text, [pointer, text]),
            ("flite_ffeature_float", ct.c_float, [pointer, text]),
            ("delete_utterance", None, [pointer]),
            ("flite_feat_set_float", None, [pointer, text, ct.c_float]),
            ("feat_remove", ct.c_int, [pointer, text]),
            ("get_param_float", ct.c_float, [pointer, text, ct.c_float]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def __call__(self, text: str, voice: Voice) -> Spoken:
        library = self.library
        handle, features, mean, deviation = self.voices[voice.name]
        library.flite_feat_set_float(features, b"duration_stretch", 1.0 / voice.rate)
        self._set(features, b"int_f0_target_mean", voice.pitch or mean)
        spread = (deviation if deviation > 0 else 15.0) * voice.spread / 50.0
        self._set(features, b"int_f0_target_stddev", spread if voice.spread != 50.0 else deviation)
        if voice.language == "es":
            words = [spanish.sounds(word) for word in re.findall(r"[a-záéíóúüñ]+", text)]
            phones = " ".join(["pau", *(sound for word in words for sound in word), "pau"])
            utterance = library.flite_synth_phones(phones.encode(), handle)
            ends = self._phone_ends(utterance, text, [len(word) for word in words])
        else:
            utterance = library.flite_synth_text(text.encode(), handle)
            ends = self._token_ends(utterance, text)
        made = library.utt_wave(utterance).contents
        samples = np.ctypeslib.as_array(made.samples, shape=(made.num_samples,)).copy()
        rate = made.sample_rate
        library.delete_utterance(utterance)
        return at_16k(samples, rate, [(place, int(second * rate)) for place, second in ends])

    def _set(self, features: int, key: bytes, value: float) -> None:
        if value > 0:
            self.library.flite_feat_set_float(features, key, value)
        else:
            self.library.feat_remove(features, key)

    def _token_ends(self, utterance: int, text: str) -> list[tuple[int, float]]:
        """(characters, seconds) at the end of every token."""
        library, ends, place = self.library, [], 0
        item = library.relation_head(library.utt_relation(utterance, b"Token"))
        while item:
            name = library.flite_ffeature_string(item, b"name").decode(errors="replace")
            place = text.find(name, place) + len(name)
            ends.append((place, library.flite_ffeature_float(item, b"daughtern." + self.END)))
            item = library.item_next(item)
        return ends

    def _phone_ends(self, utterance: int, text: str, counts: list[int]) -> list[tuple[int, float]]:
        library = self.library
        seconds = []
        item = library.relation_head(library.utt_relation(utterance, b"Segment"))
        while item:
            seconds.append(library.item_feat_float(item, b"end"))
            item = library.item_next(item)
        last = np.cumsum(counts)  # the first sound is a pause
        found = [match.end() for match in re.finditer(r"[a-záéíóúüñ]+", text)]
        return [(place, seconds[int(at)]) for place, at in zip(found, last, strict=True) if at < len(seconds)]


class Pico:
    """SVOX Pico in this process. It does not tell when its words end."""

    MEMORY = 2_500_000
    BUSY = 201

    def __init__(self) -> None:
        self.library = load_libraries("libttspico.so.0")["libttspico.so.0"]
        self.engines: dict[str, tuple[Any, ct.c_void_p]] = {}
        for name, speaker in PICO_SPEAKERS.items():
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

    def __call__(self, text: str, voice: Voice) -> Spoken:
        _memory, engine = self.engines[voice.name]
        speed = min(500, max(20, round(100 * voice.rate)))
        pitch = min(200, max(50, round(100 * (voice.pitch or 1.0))))
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
        return Spoken(np.concatenate(chunks))


class Festival:
    """One festival process, fed by a pipe."""

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
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
        )
        self.known: set[str] = set()

    def _run(self, expression: str) -> list[str]:
        """What it prints."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("festival has no pipe")
        line = f'{expression}\n(format t "\\nready\\n")\n(fflush nil)\n'
        self.process.stdin.write(line.encode("latin-1", "replace"))  # the code page of the Spanish voice
        self.process.stdin.flush()
        printed = []
        for raw in self.process.stdout:
            said = raw.decode("latin-1").strip()
            if said == "ready":
                return printed
            printed.append(said)
        raise RuntimeError("festival ended: are all its packages unpacked?")

    def __call__(self, text: str, voice: Voice) -> Spoken:
        path = self.path
        clean = text.replace("\\", " ").replace('"', " ")
        pitch, spread = voice.pitch or 110, 15 * voice.spread / 50
        if voice.name not in self.known:
            self._run(f"(voice_{voice.name})")
            self.known.add(voice.name)
        printed = self._run(
            f"(voice_{voice.name}) (Parameter.set 'Duration_Stretch {1 / voice.rate:.3f}) "
            f"(set! int_lr_params '((target_f0_mean {pitch:.0f}) (target_f0_std {spread:.0f}) "
            "(model_f0_mean 170) (model_f0_std 34))) "
            f'(set! said (utt.synth (Utterance Text "{clean}"))) '
            f'(utt.save.wave said "{path}" \'riff) '
            '(mapcar (lambda (token) (format t "token %s %s\\n" (item.name token) '
            '(item.feat token "daughtern.R:SylStructure.daughtern.daughtern.R:Segment.end"))) '
            "(utt.relation.items said 'Token))"
        )
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        path.unlink()
        ends, place = [], 0
        for _, name, second in (line.split() for line in printed if line.startswith("token ")):
            if float(second) == 0:  # a word under its token
                continue
            place = text.find(name, place) + len(name)
            ends.append((place, int(float(second) * rate)))
        return at_16k(samples, rate, ends)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class _RHVoiceCallbacks(ct.Structure):
    _fields_ = (
        ("set_sample_rate", ct.c_void_p),
        ("play_speech", ct.c_void_p),
        ("others", ct.c_void_p * 7),  # marks, words, sentences, sounds, the end: none of them is wanted
    )


class _RHVoiceInit(ct.Structure):
    _fields_ = (
        ("data_path", ct.c_char_p),
        ("config_path", ct.c_char_p),
        ("resource_paths", ct.c_void_p),
        ("callbacks", _RHVoiceCallbacks),
        ("options", ct.c_uint),
    )


class _RHVoiceParameters(ct.Structure):
    _fields_ = (
        ("voice_profile", ct.c_char_p),
        *(
            (f"{kind}_{name}", ct.c_double)
            for kind in ("absolute", "relative")
            for name in ("rate", "pitch", "volume")
        ),
        ("punctuation_mode", ct.c_int),
        ("punctuation_list", ct.c_char_p),
        ("capitals_mode", ct.c_int),
        ("flags", ct.c_int),
    )


class RHVoice:
    """RHVoice in this process. It tells when its words end, but to a tenth of a second only: that is not used."""

    def __init__(self) -> None:
        names = ("libRHVoice_core.so.7", "libRHVoice.so.5")
        self.library = load_libraries(*names)["libRHVoice.so.5"]
        self.library.RHVoice_new_tts_engine.restype = ct.c_void_p
        self.library.RHVoice_new_message.restype = ct.c_void_p
        self.chunks: list[Wave] = []
        self.rate = 24_000
        play = ct.CFUNCTYPE(ct.c_int, ct.POINTER(ct.c_short), ct.c_uint, ct.c_void_p)(self._play)
        rate = ct.CFUNCTYPE(ct.c_int, ct.c_int, ct.c_void_p)(self._set_rate)
        self._kept = (play, rate)
        calls = _RHVoiceCallbacks()
        calls.play_speech = ct.cast(play, ct.c_void_p)
        calls.set_sample_rate = ct.cast(rate, ct.c_void_p)
        folder = str(ROOT / "usr/share/RHVoice").encode()
        begin = _RHVoiceInit(folder, str(ROOT / "etc/RHVoice").encode(), None, calls, 0)
        self.engine = self.library.RHVoice_new_tts_engine(ct.byref(begin))
        if not self.engine:
            raise RuntimeError(f"RHVoice finds no voices under {ROOT}")

    def _play(self, samples: Any, count: int, _user: Any) -> int:
        self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 1

    def _set_rate(self, rate: int, _user: Any) -> int:
        self.rate = rate
        return 1

    def __call__(self, text: str, voice: Voice) -> Spoken:
        self.chunks = []
        own = voice.pitch or 1.0
        wanted = _RHVoiceParameters(voice.name.encode(), 0, 0, 0, voice.rate, own, 1.0, 0, None, 0, 0)
        data = text.encode()
        message = self.library.RHVoice_new_message(
            ct.c_void_p(self.engine), data, ct.c_uint(len(data)), 0, ct.byref(wanted), None
        )
        if not message:
            raise ValueError(f"RHVoice has no voice {voice.name!r}")
        self.library.RHVoice_speak(ct.c_void_p(message))
        self.library.RHVoice_delete_message(ct.c_void_p(message))
        return at_16k(np.concatenate(self.chunks or [np.zeros(0, np.int16)]), self.rate, ())


def at_16k(samples: Wave, rate: int, ends: Sequence[tuple[int, int]]) -> Spoken:
    """What an engine gave, at 16 kHz."""
    return Spoken(resample(samples, rate), tuple((place, at * RATE // rate) for place, at in ends))


def resample(samples: Wave, rate: int) -> Wave:
    """To 16 kHz."""
    if rate == RATE or len(samples) == 0:
        return samples
    common = int(np.gcd(rate, RATE))
    converted = resample_poly(samples.astype(np.float32), RATE // common, rate // common)
    return np.clip(converted, -32768, 32767).astype(np.int16)
