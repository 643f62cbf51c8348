"""The REST audio endpoints: files to text, text to files. It moves bytes between HTTP, the decoder and a job."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing, contextmanager
from typing import IO

import numpy as np
import numpy.typing as npt
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from voiceagent.audio.stream import CONTENT_TYPES, Encoder, decode
from voiceagent.core.events import AudioOut, TextOut, TurnOptions
from voiceagent.core.history import AudioContent, Piece, TextContent, UserItem
from voiceagent.core.utterances import Span, Utterances
from voiceagent.engine.api import EngineClient
from voiceagent.errors import EngineError, InputError, VoiceAgentError
from voiceagent.server.job import job
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, VOICE_RATE
from voiceagent.wire import audio_rest as wire
from voiceagent.wire.dialect import WireError

log = logging.getLogger("voiceagent.rest")

UPLOAD_BYTES = 1 << 30  #: an hour of 48 kHz stereo WAV is 690 MB
FIELD_BYTES = 64 * 1024
DISK_FROM = 8 << 20  #: larger uploads wait on disk
TRANSLATE = "Please listen carefully to this audio and then translate its content into English."
READ_ALOUD = "read this aloud: "

Samples = npt.NDArray[np.float32]


class AudioRest:
    """Handlers of /v1/audio/...; one engine slot is held while the engine works on a request."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/v1/audio/speech", self.speech),
            web.post("/v1/audio/transcriptions", self.transcriptions),
            web.post("/v1/audio/translations", self.translations),
        ]

    # --- audio to text ------------------------------------------------------------------------------------------

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        """What is said in a file."""
        return await self._write_down(request, task="transcribe")

    async def translations(self, request: web.Request) -> web.StreamResponse:
        """What is said in a file, in English."""
        return await self._write_down(request, task="translate")

    async def _write_down(self, request: web.Request, *, task: str) -> web.StreamResponse:
        with tempfile.SpooledTemporaryFile(max_size=DISK_FROM) as file:
            asked = wire.decode_text_request(await _receive(request, file))
            file.seek(0)
            recording = _Recording(file)
            async with aclosing(self._segments(recording, task=task)) as segments:
                if asked.stream:
                    return await _stream_text(request, segments, recording)
                found = [segment async for segment in segments]
        kind, body = wire.render_text(found, asked=asked, task=task, duration=recording.seconds)
        return web.Response(text=body, content_type=kind, charset="utf-8")

    async def _segments(self, recording: _Recording, *, task: str) -> AsyncGenerator[wire.Segment]:
        """The recording's stretches of speech with their words, in order."""
        async with job(self._engine) as ear:
            cutter = Utterances()
            async for block in recording.blocks():
                for start in range(0, len(block), MODEL_RATE):
                    heard = await ear.hear(block[start : start + MODEL_RATE])
                    for span in filter(None, (cutter.push(each.at, each.p) for each in heard)):
                        yield await self._words(recording, span, task=task)
            last = cutter.finish(recording.samples)
            if last is not None:
                yield await self._words(recording, last, task=task)

    async def _words(self, recording: _Recording, span: Span, *, task: str) -> wire.Segment:
        samples = recording.take(span)
        async with job(
            self._engine
        ) as worker:  # one for each stretch: the engine then keeps none of the last
            if task == "transcribe":
                text = await worker.transcribe(samples)
            else:
                item = UserItem("speech", (AudioContent((Piece(0, samples),)),))
                options = TurnOptions(modalities="text", instructions=TRANSLATE, temperature=0.0)
                said = [e.text async for e in worker.turn((item,), options) if isinstance(e, TextOut)]
                text = "".join(said)
        return wire.Segment(span.start / MODEL_RATE, span.end / MODEL_RATE, text.strip())

    # --- text to audio ------------------------------------------------------------------------------------------

    async def speech(self, request: web.Request) -> web.StreamResponse:
        """Text as a sound file that is sent while it is made."""
        asked = wire.decode_speech(await request.read())
        ready = self._engine.ready
        if ready is None:
            raise EngineError("The model is still loading.", code="engine_down", remedy="Try again soon.")
        voice = asked.voice_name if asked.voice_name in ready.voices else ""
        speech = self._speak(asked.input, voice=voice, instructions=asked.instructions)
        sse = asked.stream_format == "sse"
        async with aclosing(speech) as chunks:
            first = await anext(chunks, np.zeros(0, np.int16))  # what is wrong shows before anything is sent
            kind = "text/event-stream" if sse else CONTENT_TYPES[asked.response_format]
            response = web.StreamResponse(headers={"Content-Type": kind})
            await response.prepare(request)
            with broken_off(request), closing(Encoder(asked.response_format, rate=VOICE_RATE)) as encoder:
                await response.write(_sound(encoder.push(first), sse=sse))
                async for pcm in chunks:
                    await response.write(_sound(encoder.push(pcm), sse=sse))
                end = wire.event("speech.audio.done") if sse else b""
                await response.write(_sound(encoder.finish(), sse=sse) + end)
                await response.write_eof()
        return response

    async def _speak(
        self, text: str, *, voice: str, instructions: str
    ) -> AsyncGenerator[npt.NDArray[np.int16]]:
        options = TurnOptions(modalities="audio", instructions=instructions, voice=voice)
        async with job(self._engine) as mouth:
            for sentence in wire.split_sentences(text):
                item = UserItem("text", (TextContent(READ_ALOUD + sentence),))
                async for event in mouth.turn((item,), options):
                    if isinstance(event, AudioOut):
                        yield event.pcm


class _Recording:
    """A file on its way through the decoder, which runs in a thread; keeps only what has not been written down."""

    def __init__(self, file: IO[bytes]) -> None:
        self._source = decode(file, rate=MODEL_RATE)  # type: ignore[arg-type]
        self._kept: Samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self.samples = 0  #: decoded so far, 16 kHz

    @property
    def seconds(self) -> float:
        return self.samples / MODEL_RATE

    async def blocks(self) -> AsyncGenerator[Samples]:
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
        piece = self._kept[span.start - self._kept_from : span.end - self._kept_from].copy()
        piece.setflags(write=False)
        return piece


async def _receive(request: web.Request, file: IO[bytes]) -> dict[str, str]:
    """Writes the form's `file` to `file`; returns the other fields.

    Raises:
        WireError: no multipart form, no file in it, or more than is taken.
    """
    if not request.content_type.startswith("multipart/"):
        raise WireError("Send a multipart form.", code="invalid_content_type", param="file")
    fields: dict[str, str] = {}
    found, size = False, 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            if part.name != "file":
                fields[part.name] = (await part.read_chunk(FIELD_BYTES)).decode(errors="replace")
                continue
            found = True
            while chunk := await part.read_chunk(1 << 20):
                size += len(chunk)
                if size > UPLOAD_BYTES:
                    raise WireError(
                        f"The file is longer than {UPLOAD_BYTES >> 20} MiB.",
                        code="file_too_large",
                        param="file",
                    )
                await asyncio.to_thread(file.write, chunk)
    except (ValueError, HttpProcessingError) as error:
        raise WireError(f"The form is broken: {error}.", code="invalid_form") from error
    if not found:
        raise WireError("file is missing.", code="missing_required_parameter", param="file")
    return fields


async def _stream_text(
    request: web.Request, segments: AsyncGenerator[wire.Segment], recording: _Recording
) -> web.StreamResponse:
    """The words as they are found, as server-sent events."""
    first = await anext(segments, None)  # what is wrong with the file shows before anything is sent
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    said: list[wire.Segment] = []
    with broken_off(request):
        if first is not None:
            await response.write(_delta(said, first))
            async for segment in segments:
                await response.write(_delta(said, segment))
        usage = {"type": "duration", "seconds": round(recording.seconds, 3)}
        await response.write(wire.event("transcript.text.done", text=wire.whole(said), usage=usage))
        await response.write_eof()
    return response


def _delta(said: list[wire.Segment], segment: wire.Segment) -> bytes:
    """The event of one more stretch, which joins what was said."""
    lead = " " if wire.whole(said) and segment.text else ""
    said.append(segment)
    return wire.event("transcript.text.delta", delta=lead + segment.text) if segment.text else b""


@contextmanager
def broken_off(request: web.Request) -> Iterator[None]:
    """Around an answer that has begun: its only way to tell of an error is to end before its end."""
    try:
        yield
    except ConnectionResetError:  # the client has left
        pass
    except VoiceAgentError as error:
        log.warning("%s broke off: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()


def _sound(data: bytes, *, sse: bool) -> bytes:
    return wire.sound_event(data) if sse and data else data
