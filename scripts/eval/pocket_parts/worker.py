"""Does one job of the examination at a time: fetches the sounds, asks the model, has its speech judged."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.pocket.task import said_of
from voiceagent.audio import wavio
from voiceagent.audio.resample import resample
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.units import MODEL_RATE

from .asking import Asker, Note
from .paper import Job, Paper
from .speaking import Speaker, heard_again


class Worker:
    """What one process needs to do any job; each network is loaded when it is first needed."""

    def __init__(self, folder: Path, *, corpus: Path | None, work: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.paper = Paper.load(corpus, cache=work)

    def do(self, job: Job) -> list[Note]:
        """Everything worth noting about a job."""
        kind, *rest = job
        notes: Any = {
            "talk": self.talk, "task": self.task, "hear": self.hear, "human": self.human, "speak": self.speak,
            "clone": self.speaker.clone, "pace": self.pace,
        }[kind](*rest)  # fmt: skip
        return notes if isinstance(notes, list) else [notes]

    def talk(self, bank: str, number: int) -> list[Note]:
        """A held-out dialogue, all its turns."""
        made, first = self.paper.made["test"][number], self.paper.first_item[number]
        places = range(first, first + len(made["turns"]))
        sounds = [self.paper.heard(bank, at) for at in places]
        voices = [self.paper.item(bank, at).voice.label() for at in places]
        return [note | {"bank": bank} for note in self.asker.talk(made, sounds, voices)]

    def task(self, bank: str, number: int) -> Note:
        """One held-out task."""
        made, at = self.paper.made["task_test"][number], self.paper.task_item(number)
        note = self.asker.task(made, self.paper.heard(bank, at) if at >= 0 else None)
        return note | {"bank": bank, "voice": self.paper.item(bank, at).voice.label() if at >= 0 else ""}

    def hear(self, bank: str, number: int) -> Note:
        """A generic sentence, to be written down."""
        at = self.paper.generic[number]
        note = self.asker.transcript(self.paper.heard(bank, at), judged=bank == "test_seen")
        voice = self.paper.item(bank, at).voice.label()
        return note | {"what": "hear", "bank": bank, "voice": voice, "said": self.paper.sounds[at].text}

    def human(self, path: str, text: str) -> Note:
        """A person, in pieces of at most 20 s."""
        samples, rate = wavio.read(Path(path))
        wave = resample(samples, source=rate, target=MODEL_RATE)
        heard = [
            self.asker.transcript(wave[start : start + 20 * MODEL_RATE])["heard"]
            for start in range(0, len(wave), 20 * MODEL_RATE)
        ]
        return {"what": "human", "bank": "people", "voice": path, "said": text, "heard": " ".join(heard)}

    def speak(self, text: str, codes: list[int]) -> Note:
        """A reply as the judges hear it, and as the model itself does."""
        note = self.speaker.speak(text, codes)
        return note | {"again": heard_again(self.asker.model, self.speaker.stream(codes)[0])}

    def pace(self, bank: str, number: int) -> Note:
        return self.speaker.pace(self.asker.model, self.paper.heard(bank, self.paper.first_item[number]))

    @cached_property
    def asker(self) -> Asker:
        return Asker(LanguageModel.load(self.folder))

    @cached_property
    def speaker(self) -> Speaker:
        sentences = said_of(self.paper.made, "en", test=True)
        return Speaker(self.folder, self.scratch, [*sentences, *self.paper.made["generic_test"]])
