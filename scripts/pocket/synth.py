"""Text to 16 kHz speech in a given voice: whole sentences, or their beginnings cut at the end of a word.

It joins the engines (engines.py) with what they cannot do themselves: another length of the vocal tract, whispering,
names of letters, breaking off. It chooses neither text nor voice (voices.py).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import effects
import numpy as np
import spanish
import task
from engines import RATE, Espeak, Festival, Flite, Pico, RHVoice, Spoken, Wave
from voices import Voice

__all__ = ["RATE", "Synthesiser", "Voice", "Wave", "as_spoken", "trim"]

BREATH_CUT, PAUSE = 80, (0.12, 0.9)  # samples of fade at a cut; seconds of silence behind a pause
ENGINES: dict[str, Callable[[], Callable[[str, Voice], Spoken]]] = {
    "espeak": Espeak,
    "flite": Flite,
    "festival": Festival,
    "rhvoice": RHVoice,
    "pico": Pico,
}


class Synthesiser:
    """All engines of one process, each started when it is first needed."""

    def __init__(self) -> None:
        self.engines: dict[str, Callable[[str, Voice], Spoken]] = {}

    def __call__(self, text: str, voice: Voice) -> Wave:
        """(n,) int16 at 16 kHz, untrimmed."""
        return self._say(" ".join(as_spoken(text, voice.language)), voice).samples

    def beginning(self, text: str, voice: Voice, words: int, rng: Random) -> tuple[Wave, bool]:
        """The first `words` words of the sentence, and whether it breaks off in mid-breath (else: with a pause).

        In mid-breath, the whole sentence is said and cut where the next word would begin; with a pause, it is said with
        a comma there, as by someone who thinks, and silence follows. Where the engine does not tell when words end, the
        words are said alone with a comma behind them, which keeps the voice up.
        """
        said = as_spoken(text, voice.language)
        first, rest = " ".join(said[:words]), " ".join(said[words:])
        pause = rng.random() < 0.5
        samples = None
        if not pause:
            samples = _cut(self._say(f"{first} {rest}", voice), len(first))
        elif rest and rng.random() < 0.5:
            samples = _cut(self._say(f"{first}, {rest}", voice), len(first))
        if samples is None:  # the comma keeps the voice up where nothing follows
            samples = self._say(f"{first},", voice).samples
        samples = trim(samples, tail=0)
        if pause:
            samples = np.pad(samples, (0, int(rng.uniform(*PAUSE) * RATE)))
        elif len(samples) > BREATH_CUT:
            faded = samples.copy()
            faded[-BREATH_CUT:] = faded[-BREATH_CUT:] * np.linspace(1, 0, BREATH_CUT)
            samples = faded
        return samples, not pause

    def _say(self, text: str, voice: Voice) -> Spoken:
        if voice.engine not in self.engines:
            self.engines[voice.engine] = ENGINES[voice.engine]()
        wanted = effects.before_warp(voice)
        spoken = effects.warped(self.engines[voice.engine](text, wanted), voice.warp)
        return Spoken(effects.whispered(spoken.samples), spoken.ends) if voice.breath else spoken


def _cut(spoken: Spoken, characters: int) -> Wave | None:
    """What has been said when so many characters have; None where the engine does not tell exactly."""
    for place, at in spoken.ends:
        if place == characters and 0 < at <= len(spoken.samples):
            return spoken.samples[:at]
    return None


def as_spoken(text: str, language: str = "en") -> list[str]:
    """What to write for each word: letters that are spelled get their names, where an engine would say it otherwise."""
    words = text.split()
    for begin, end in task.letter_runs(text):
        for place in range(begin, end):
            letter = words[place][:1]
            name = spanish.letter_names(letter) if language == "es" else ("eigh" if letter == "a" else letter)
            words[place] = name + words[place][1:]
    return words


def trim(samples: Wave, *, lead: int = 1600, tail: int = 1600, threshold: int = 60) -> Wave:
    """Cut the silence at both ends, but for `lead` and `tail` samples."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > threshold)
    if len(loud) == 0:
        return samples[:0]
    return samples[max(0, loud[0] - lead) : loud[-1] + 1 + tail]
