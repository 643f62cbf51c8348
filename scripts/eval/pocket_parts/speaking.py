"""Listens to what a packaged checkpoint says: an independent recogniser, seams, cloned voices, speed. Asks no words."""

from __future__ import annotations

import time
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import gen_data
import numpy as np
import synth
import voices
from numpy.typing import NDArray
from recogniser import Recogniser
from scipy.signal import resample_poly

from voiceagent.core.history import Piece
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.speaker import FILE, SpeakerEncoder
from voiceagent.models.step_audio2.token2wav import Token2Wav
from voiceagent.models.step_audio2.tokens import SpeechCode, Splitter
from voiceagent.units import MODEL_RATE, VOICE_RATE

from .asking import Call, Note, Sound

FLUX_WINDOW, FLUX_HOP = 240, 60  # samples at 24 kHz: 10 ms and 2.5 ms
SEAM_FRAMES = 4  # looked at to both sides of a seam
CLIP_TEXT = (
    "good morning. could you tell me when the shop on the corner opens, and how long it takes to walk there?"
)
OTHER_TEXT = "i would like a small table by the window, please, for three people on saturday evening."

Pcm = NDArray[np.int16]


class Speaker:
    """Speaks with one checkpoint's decoder and listens to it."""

    def __init__(self, folder: Path, scratch: Path, sentences: list[str]) -> None:
        self.folder, self.scratch, self.sentences = folder, scratch, sentences
        self._warm = False  # whether an answer was made whose time did not count

    @cached_property
    def decoder(self) -> Token2Wav:
        return Token2Wav.load(self.folder / "token2wav")

    @cached_property
    def synthesiser(self) -> synth.Synthesiser:
        """The one that makes the banks' sounds: an engine's library can be begun only once in a process."""
        if gen_data._synthesiser is None:
            gen_data._synthesiser = synth.Synthesiser()
        return gen_data._synthesiser

    @cached_property
    def judge(self) -> Recogniser:
        return Recogniser(self.sentences, self.scratch)

    @cached_property
    def encoder(self) -> SpeakerEncoder:
        return SpeakerEncoder(self.folder / "token2wav" / FILE)

    # ---- words and seams

    def speak(self, text: str, codes: list[int]) -> Note:
        """A reply of the model's as the judges hear it, streamed, and as they hear the source voice."""
        began = time.process_time()
        own, seams = self.stream(codes)
        spent = time.process_time() - began
        seconds = len(own) / VOICE_RATE
        source = self.synthesiser(text, synth.Voice("flite", "slt"))
        voice = next(iter(self.decoder.voices.values()))
        whole = self.decoder.synthesize(codes, voice)
        return {
            "what": "said",
            "text": text,
            "own": self.judge(at_16k(own)),
            "source": self.judge(source),
            "audio_s": round(seconds, 2),
            "rtf": round(spent / max(seconds, 0.04), 3),
            "seams": [[round(jump(wave, at), 3) for wave in (own, whole)] for at in seams],
        }

    def stream(self, codes: list[int], voice: str = "") -> tuple[Pcm, list[int]]:
        """Speech as the engine makes it, chunk by chunk, and where the chunks meet."""
        decoder = self.decoder
        state = decoder.open(decoder.voices[voice] if voice else next(iter(decoder.voices.values())))
        parts: list[Pcm] = []
        at = 0
        while True:
            count = decoder.wanted(state)
            last = at + count >= len(codes)
            pcm, state = decoder.step(codes[at : at + count] if not last else codes[at:], state, last=last)
            parts.append(pcm)
            at += count
            if last:
                break
        ends = np.cumsum([len(part) for part in parts])
        return np.concatenate(parts), [int(end) for end in ends[:-1] if end < ends[-1]]

    # ---- cloning

    def clone(self, number: int, replies: list[list[int]]) -> Note:
        """A voice that nothing was trained on, enrolled from one clip: to whom its speech is nearest."""
        strangers = voices.strangers()
        voice = strangers[number % len(strangers)]
        clip = self.synthesiser(CLIP_TEXT, voice).astype(np.float32) / 32768
        self.decoder.add("clone", clip[: 10 * synth.RATE], synth.RATE)
        said = np.concatenate([at_16k(self.stream(codes, "clone")[0]) for codes in replies])
        self.decoder.remove("clone")
        vector, shape = self.encoder.encode(said.astype(np.float32) / 32768), long_term_spectrum(said)
        likeness = {label: cosine(vector, own) for label, (own, _, _) in self._people.items()}
        colour = {label: -float(np.abs(shape - own).mean()) for label, (_, own, _) in self._people.items()}
        name = voice.label()
        return {
            "what": "clone",
            "voice": name,
            "nearest": max(likeness, key=likeness.__getitem__),
            "nearest_spectrum": max(colour, key=colour.__getitem__),
            "likeness": round(likeness[name], 3),
            "best_other": round(max(value for label, value in likeness.items() if label != name), 3),
            "pitch": round(pitch(said), 1),
            "pitch_wanted": round(self._people[name][2], 1),
        }

    @cached_property
    def _people(self) -> dict[str, tuple[Sound, Sound, float]]:
        """Speaker vector, spectrum and pitch of everybody whom a clone might resemble, from another sentence."""
        found = {}
        for voice in (*voices.strangers(), synth.Voice("flite", "slt"), synth.Voice("flite", "rms")):
            wave = synth.trim(self.synthesiser(OTHER_TEXT, voice))
            vector = self.encoder.encode(wave.astype(np.float32) / 32768)
            found[voice.label()] = (vector, long_term_spectrum(wave), pitch(wave))
        return found

    # ---- speed

    def pace(self, model: LanguageModel, audio: Sound) -> Note:
        """Processor seconds from the end of a question to its first sound, and of the whole answer per second of it."""
        if not self._warm:
            self._warm = True
            self.pace(model, audio)
        context = model.open()
        began = time.process_time()
        call = Call(model, context, "You are a helpful assistant.", [])
        call.listen(audio)
        generation = model.generate(context, call.prompt(spoken=True), max_tokens=450)
        splitter, codes, first = Splitter(model.tokenizer, spoken=True), list[int](), 0.0
        state = self.decoder.open(next(iter(self.decoder.voices.values())))
        made, at = 0, 0
        while (token := generation.step()) is not None:
            codes += [part.code for part in splitter.feed(token) if isinstance(part, SpeechCode)]
            if len(codes) - at >= self.decoder.wanted(state):
                pcm, state = self.decoder.step(codes[at:], state)
                at, made = len(codes), made + len(pcm)
                first = first or time.process_time() - began
        pcm, state = self.decoder.step(codes[at:], state, last=True)
        spent = time.process_time() - began
        context.close()
        seconds = (made + len(pcm)) / VOICE_RATE
        return {
            "what": "pace",
            "first_s": round(first or spent, 3),
            "rtf": round(spent / max(seconds, 0.04), 3),
        }


def at_16k(wave: Pcm) -> Pcm:
    narrowed = resample_poly(wave.astype(np.float64), MODEL_RATE // 8000, VOICE_RATE // 8000)
    return narrowed.clip(-32768, 32767).astype(np.int16)


def jump(wave: Pcm, at: int) -> float:
    """The largest change of the spectrum around a sample, from one 2.5 ms to the next: mean over frequency, dB."""
    margin = SEAM_FRAMES * FLUX_HOP + FLUX_WINDOW
    near = wave[max(0, at - margin) : at + margin].astype(np.float64)
    if len(near) <= FLUX_WINDOW + FLUX_HOP:
        return 0.0
    frames = np.lib.stride_tricks.sliding_window_view(near, FLUX_WINDOW)[::FLUX_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FLUX_WINDOW))) ** 2
    level = 10 * np.log10(power + 1e3)  # 1e3: what nobody hears
    return float(np.abs(np.diff(level, axis=0)).mean(1).max())


def long_term_spectrum(wave: Pcm) -> Sound:
    """Mean level of 40 bands from 100 to 7000 Hz, less their mean: the colour of a voice, whatever it says."""
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), 512)[::160]
    power = (np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2)[frames.std(axis=1) > 100]
    hertz = np.fft.rfftfreq(512, 1 / synth.RATE)
    edges = np.geomspace(100, 7000, 41)
    bands = [power[:, (hertz >= a) & (hertz <= max(b, a + 32))].mean() for a, b in pairwise(edges)]
    level = 10 * np.log10(np.array(bands) + 1.0)
    spectrum: Sound = (level - level.mean()).astype(np.float32)
    return spectrum


def pitch(wave: Pcm) -> float:
    """Median fundamental frequency where there is one, Hz, by autocorrelation of 40 ms."""
    found = []
    for start in range(0, len(wave) - 640, 320):
        part = wave[start : start + 640].astype(np.float64)
        if part.std() < 200:
            continue
        part = part - part.mean()
        self_likeness = np.correlate(part, part, "full")[639:]
        lags = self_likeness[40:267]  # 400 to 60 Hz
        best = int(lags.argmax())
        if lags[best] > 0.5 * self_likeness[0]:
            found.append(synth.RATE / (best + 40))
    return float(np.median(found)) if found else 0.0


def cosine(a: Sound, b: Sound) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def heard_again(model: LanguageModel, wave: Pcm) -> str:
    """What the model itself hears in its own speech."""
    audio = at_16k(wave).astype(np.float32) / 32768
    return model.transcribe([Piece(id=0, audio=audio)])
