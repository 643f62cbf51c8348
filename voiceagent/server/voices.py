"""GET, POST and DELETE of /v1/voices. It moves bytes: what a recording is, the engine finds out, and what may be, the
book says."""

from __future__ import annotations

import logging

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from voiceagent.errors import CapacityError, InputError, VoiceAgentError
from voiceagent.server.audio_rest import form_field
from voiceagent.server.auth import Refused
from voiceagent.server.calls import KEY, json_error
from voiceagent.server.voice_book import VoiceBook
from voiceagent.wire import voices as wire
from voiceagent.wire.dialect import WireError

CLIP_BYTES = 10 << 20  #: of a recording
SOUND_FIELDS = ("audio", "file", "audio_sample")
STATUS = {
    "voice_not_found": 404,
    "voice_exists": 409,
    "too_many_voices": 409,
    "file_too_large": 413,
    "built_in_voice": 403,
    "custom_voices_off": 403,
}
log = logging.getLogger("voiceagent.voices")


class VoicesRest:
    """Handlers of /v1/voices."""

    def __init__(self, book: VoiceBook) -> None:
        self._book = book

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.get("/v1/voices", self.list),
            web.post("/v1/voices", self.enrol),
            web.delete("/v1/voices/{name}", self.delete),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """All voices that anybody may ask for."""
        data = [*map(wire.show, self._book.built_in), *map(wire.show, self._book.custom)]
        return web.json_response({"object": "list", "data": data})

    async def enrol(self, request: web.Request) -> web.Response:
        """A voice of a recording of 3 to 10 s."""
        _only_with_server_key(request)
        try:
            fields, clip = await _receive(request)
            name = wire.checked_name(fields.get("name", ""))
            consent = fields.get("consent", "")
            if len(consent) > wire.MAX_CONSENT:
                words = f"consent is longer than {wire.MAX_CONSENT} characters."
                raise WireError(words, code="invalid_value", param="consent")
            voice = await self._book.enrol(name, clip, consent=consent)
        except (CapacityError, InputError, WireError) as error:
            return _refused(error)
        log.info("voice %s: enrolled", name)
        return web.json_response(wire.show(voice))

    async def delete(self, request: web.Request) -> web.Response:
        """Forgets a voice that was enrolled."""
        _only_with_server_key(request)
        name = request.match_info["name"]
        try:
            await self._book.remove(name)
        except InputError as error:
            return _refused(error)
        log.info("voice %s: deleted", name)
        return web.json_response({"id": name, "object": "voice.deleted", "deleted": True})


def _only_with_server_key(request: web.Request) -> None:
    if request[KEY] is not None:
        raise Refused(
            "An ephemeral key may not change voices.",
            status=403,
            code="server_key_required",
            remedy="Ask from your own server, with its API key.",
        )


def _refused(error: VoiceAgentError) -> web.Response:
    return json_error(error, STATUS.get(error.code, 503 if isinstance(error, CapacityError) else 400))


async def _receive(request: web.Request) -> tuple[dict[str, str], bytes]:
    """The form's fields, and its sound file.

    Raises:
        WireError: no multipart form, no file in it, or more than is taken.
    """
    if not request.content_type.startswith("multipart/"):
        raise WireError("Send a multipart form.", code="invalid_content_type", param="audio")
    fields: dict[str, str] = {}
    clip = bytearray()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                continue
            if part.name in ("name", "consent"):
                fields[part.name] = await form_field(part)
            if part.name not in SOUND_FIELDS:
                continue
            while chunk := await part.read_chunk(1 << 16):
                clip += chunk
                if len(clip) > CLIP_BYTES:
                    raise WireError(
                        f"The file is longer than {CLIP_BYTES >> 20} MiB.",
                        code="file_too_large",
                        param="audio",
                    )
    except (ValueError, HttpProcessingError) as error:
        raise WireError("The form is broken.", code="invalid_form") from error
    for name, there in (("name", "name" in fields), ("audio", bool(clip))):
        if not there:
            raise WireError(f"{name} is missing.", code="missing_required_parameter", param=name)
    return fields, bytes(clip)
