"""The model's single tasks on whole files: write down, translate, describe, read aloud. It knows no HTTP.

The instructions are those that the model was taught for each task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import IO

import numpy as np
import numpy.typing as npt

from voiceagent.audio.stream import decode
from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.events import AudioOut, TextOut
from voiceagent.core.history import AudioContent, Piece, TextContent, UserItem
from voiceagent.core.options import TurnOptions
from voiceagent.core.utterances import Span, Utterances
from voiceagent.engine.api import EngineClient
from voiceagent.errors import InputError
from voiceagent.server.job import Job, job
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES
from voiceagent.wire.audio_rest import Segment, split_sentences

TRANSLATE = "Please listen carefully to this audio and then translate its content into {language}."
TRANSLATE_ALOUD = (
    "Please listen carefully to this audio and then translate its content into {language} speech."
)
DESCRIBE = "Please briefly explain the important events involved in this audio clip."
READ_ALOUD = "read this aloud: "

Samples = npt.NDArray[np.float32]
Pcm = npt.NDArray[np.int16]


class Recording:
    """A file on its way through the decoder, which runs in a thread; keeps only what may still be asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._source = decode(file, rate=MODEL_RATE)  # type: ignore[arg-type]
        self._kept: Samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self.samples = 0  #: decoded so far, 16 kHz

    @property
    def seconds(self) -> float:
        """Length of what was decoded."""
        return self.samples / MODEL_RATE

    async def blocks(self) -> AsyncGenerator[Samples]:
        """Some 10 s at a time, (n,) at 16 kHz.

        Raises:
            InputError: it is not audio, breaks off, or is empty.
        """
        while (block := await asyncio.to_thread(next, self._source, None)) is not None:
            # Of what was decoded before, no stretch can need more than one piece.
            drop = max(0, len(self._kept) - 2 * PIECE_SAMPLES)
            self._kept = np.concatenate([self._kept[drop:], block])
            self._kept_from += drop
            self.samples += len(block)
            yield block
        if not self.samples:
            raise InputError("The file holds no audio.", code="empty_audio", param="file")

    def take(self, span: Span) -> Samples:
        """A stretch of the newest blocks, read-only."""
        piece = self._kept[span.start - self._kept_from : span.end - self._kept_from].copy()
        piece.setflags(write=False)
        return piece


async def stretches(worker: Job, recording: Recording) -> AsyncGenerator[Span]:
    """The recording's stretches of speech, in order; what they hold can be taken until the next is asked for."""
    cutter = Utterances()
    async for block in recording.blocks():
        for start in range(0, len(block), MODEL_RATE):
            heard = await worker.hear(block[start : start + MODEL_RATE])
            for span in filter(None, (cutter.push(each.at, each.p) for each in heard)):
                yield span
    last = cutter.finish(recording.samples)
    if last is not None:
        yield last


async def written(
    engine: EngineClient, recording: Recording, *, how: Dictation = PLAIN, translate: str = ""
) -> AsyncGenerator[Segment]:
    """The recording's stretches of speech with their words, in order.

    Args:
        engine: what writes them.
        recording: the file.
        how: what is known of the speech that is written down.
        translate: into this language, instead.
    """
    options = TurnOptions(
        modalities="text", instructions=TRANSLATE.format(language=translate), temperature=0.0
    )
    async with job(engine) as worker:
        async for span in stretches(worker, recording):
            samples, scores = recording.take(span), tuple[TokenScore, ...]()
            if translate:
                piece = worker.piece(samples)
                item = UserItem("speech", (AudioContent((piece,)),))
                said = [e.text async for e in worker.turn((item,), options) if isinstance(e, TextOut)]
                text = "".join(said)
                worker.forget(piece)
            else:
                text, scores = await worker.transcribe(samples, how)
            yield Segment(span.start / MODEL_RATE, span.end / MODEL_RATE, text.strip(), scores)


async def answered(
    engine: EngineClient, samples: Samples, options: TurnOptions, *, question: str = ""
) -> tuple[str, Pcm]:
    """What the model says of (n,) samples at 16 kHz, at most 25 s, and how it sounds (nothing for a text answer)."""
    words = (TextContent(question),) if question else ()
    item = UserItem("speech", (AudioContent((Piece(0, samples),)), *words))
    text, sound = "", [np.zeros(0, np.int16)]
    async with job(engine) as worker:
        async for event in worker.turn((item,), options):
            if isinstance(event, TextOut):
                text += event.text
            elif isinstance(event, AudioOut):
                sound.append(event.pcm)
    return text.strip(), np.concatenate(sound)


async def read_aloud(engine: EngineClient, text: str, options: TurnOptions) -> AsyncGenerator[Pcm]:
    """The text as speech, (n,) int16 at 24 kHz at a time, one sentence after the other."""
    async with job(engine) as mouth:
        for sentence in split_sentences(text):
            item = UserItem("text", (TextContent(READ_ALOUD + sentence),))
            async for event in mouth.turn((item,), replace(options, script=sentence)):
                if isinstance(event, AudioOut):
                    yield event.pcm
