"""The REST audio endpoints: files to text, text to files. It moves bytes between HTTP, the decoder and a job."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, closing, contextmanager
from typing import IO, Any

import numpy as np
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from voiceagent.audio.stream import CONTENT_TYPES, Encoder
from voiceagent.core.options import TurnOptions
from voiceagent.engine.api import EngineClient
from voiceagent.errors import VoiceAgentError
from voiceagent.server.job import loaded
from voiceagent.server.requests import BROKEN, LEFT, WORK
from voiceagent.server.tasks import Recording, read_aloud, written
from voiceagent.units import VOICE_RATE
from voiceagent.wire import audio_rest as wire
from voiceagent.wire.dialect import WireError
from voiceagent.wire.dictation import show_scores

log = logging.getLogger("voiceagent.rest")

UPLOAD_BYTES = 1 << 30  #: an hour of 48 kHz stereo WAV is 690 MB
FIELD_BYTES = 64 * 1024
DISK_FROM = 8 << 20  #: larger uploads wait on disk


class AudioRest:
    """Handlers of /v1/audio/...; one engine slot is held while it works on a request.

    Args:
        engine: what does the work.
        voices: names that speech may ask for, as they are at the time; others fall back to the first.
    """

    def __init__(self, engine: EngineClient, *, voices: Collection[str]) -> None:
        self._engine, self._voices = engine, voices

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
            recording = Recording(file)
            language = "English" if task == "translate" else ""
            made = written(self._engine, recording, how=asked.how, translate=language)
            async with aclosing(made) as segments:
                try:
                    if asked.stream:
                        return await _stream_text(request, segments, recording)
                    found = [segment async for segment in segments]
                finally:
                    request[WORK].heard_s = recording.seconds
        kind, body = wire.render_text(found, asked=asked, task=task, duration=recording.seconds)
        return web.Response(text=body, content_type=kind, charset="utf-8")

    # --- text to audio ------------------------------------------------------------------------------------------

    async def speech(self, request: web.Request) -> web.StreamResponse:
        """Text as a sound file that is sent while it is made."""
        asked = wire.decode_speech(await request.read())
        loaded(self._engine)
        voice = asked.voice_name if asked.voice_name in self._voices else ""
        options = TurnOptions(
            modalities="audio", instructions=asked.instructions, voice=voice, speed=asked.speed
        )
        speech = read_aloud(self._engine, asked.input, options)
        sse = asked.stream_format == "sse"
        async with aclosing(speech) as chunks:
            first = await anext(chunks, np.zeros(0, np.int16))  # what is wrong shows before anything is sent
            kind = "text/event-stream" if sse else CONTENT_TYPES[asked.response_format]
            response = web.StreamResponse(headers={"Content-Type": kind})
            await response.prepare(request)
            with broken_off(request), closing(Encoder(asked.response_format, rate=VOICE_RATE)) as encoder:
                request[WORK].spoken_s += len(first) / VOICE_RATE
                await response.write(_sound(encoder.push(first), sse=sse))
                async for pcm in chunks:
                    request[WORK].spoken_s += len(pcm) / VOICE_RATE
                    await response.write(_sound(encoder.push(pcm), sse=sse))
                end = wire.event("speech.audio.done") if sse else b""
                await response.write(_sound(encoder.finish(), sse=sse) + end)
                await response.write_eof()
        return response


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
                value = await form_field(part)
                listed = part.name.endswith("[]") and part.name in fields
                fields[part.name] = f"{fields[part.name]} {value}" if listed else value
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


async def form_field(part: BodyPartReader) -> str:
    """A form's field, as far as it is looked at: it may arrive in pieces, and be longer than it may."""
    data = bytearray()
    while len(data) < FIELD_BYTES and (chunk := await part.read_chunk(FIELD_BYTES)):
        data += chunk
    return data.decode(errors="replace")


async def _stream_text(
    request: web.Request, segments: AsyncGenerator[wire.Segment], recording: Recording
) -> web.StreamResponse:
    """The words as they are found, as server-sent events."""
    first = await anext(segments, None)  # what is wrong with the file shows before anything is sent
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    said, scores = "", list[dict[str, Any]]()

    async def tell(segment: wire.Segment) -> None:
        nonlocal said
        if more := wire.continued(said, segment):
            said += more
            new = show_scores(segment.scores)
            scores.extend(new)
            more_fields = {"logprobs": new} if new else {}
            await response.write(wire.event("transcript.text.delta", delta=more, **more_fields))

    with broken_off(request):
        if first is not None:
            await tell(first)
            async for segment in segments:
                await tell(segment)
        usage = {"type": "duration", "seconds": round(recording.seconds, 3)}
        more_fields = {"logprobs": scores} if scores else {}
        await response.write(wire.event("transcript.text.done", text=said, usage=usage, **more_fields))
        await response.write_eof()
    return response


@contextmanager
def broken_off(request: web.Request) -> Iterator[None]:
    """Around an answer that has begun: its only way to tell of an error is to end before its end."""
    try:
        yield
    except ConnectionResetError:  # the client has left
        request[WORK].outcome = LEFT
    except VoiceAgentError as error:
        request[WORK].outcome = BROKEN
        log.warning("%s broke off: %s", request.path, error)
        if request.transport is not None:
            request.transport.abort()


def _sound(data: bytes, *, sse: bool) -> bytes:
    return wire.sound_event(data) if sse and data else data
