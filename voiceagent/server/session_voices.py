"""Voices that one Realtime session brings for itself: who may, of what sound, and their end. It knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from voiceagent.audio.clip import to_wav
from voiceagent.audio.pcm import float_to_int16
from voiceagent.core.history import AudioContent, History, UserItem
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.server.voice_book import VoiceBook
from voiceagent.units import MODEL_RATE
from voiceagent.wire.dialect import CreateVoice, DeleteVoice, VoiceRequest
from voiceagent.wire.voices import checked_name

ITEM_S = 10  #: of what was said in an item the first so many seconds are taken
OWN = 4  #: voices of one session


Outcome = tuple[str, float] | None | VoiceAgentError
"""What came of a request for a voice: its key in the engine and its seconds, None once it is deleted, or an error."""


class SessionVoices:
    """Voices that one Realtime session brings, for itself alone; they go with it.

    Args:
        book: of all voices.
        session_id: begins the keys under which the engine knows them.
        trusted: the session was opened with a key of the server's (or needs none).
        history: what was said in the session so far.
        tell: takes the request and what came of it: the voice's key and seconds, None once it is deleted, or an error.
    """

    def __init__(
        self,
        book: VoiceBook,
        *,
        session_id: str,
        trusted: bool,
        history: Callable[[], History],
        tell: Callable[[VoiceRequest, Outcome], None],
    ) -> None:
        self._book, self._trusted, self._history, self._tell = book, trusted, history, tell
        self._prefix = f"{session_id}/"  # a slash is in no name
        self._names: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, request: VoiceRequest) -> None:
        """Begins what is asked for; `tell` is called later, once."""
        task = asyncio.get_running_loop().create_task(self._answer(request), name="voice")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """The session is over: its voices are forgotten."""
        for task in self._tasks:
            task.cancel()
        for name in self._names:
            self._book.dismiss_private(self._prefix + name)
        self._names.clear()

    async def _answer(self, request: VoiceRequest) -> None:
        outcome: Outcome
        try:
            if isinstance(request, DeleteVoice):
                self._delete(request.name)
                outcome = None
            else:
                outcome = await self._create(request)
        except VoiceAgentError as error:
            outcome = error
        self._tell(request, outcome)

    async def _create(self, request: CreateVoice) -> tuple[str, float]:
        if not self._trusted:
            raise InputError(
                "A session of an ephemeral key may not bring voices.",
                code="server_key_required",
                remedy="Connect with an API key of the server.",
            )
        self._book.check_name(checked_name(request.name))
        if request.name in self._names:
            raise InputError(f"There is already a voice {request.name!r}.", code="voice_exists", param="name")
        if len(self._names) >= OWN:
            raise InputError(
                f"A session has at most {OWN} voices of its own.",
                code="too_many_voices",
                remedy="Delete one with voice.delete.",
            )
        data = request.audio if request.item_id is None else _said(request.item_id, self._history())
        key = self._prefix + request.name
        self._names.add(request.name)
        try:
            return key, await self._book.enrol_privately(key, data)
        except BaseException:
            self._names.discard(request.name)
            raise

    def _delete(self, name: str) -> None:
        if name not in self._names:
            raise InputError(
                f"The session has no voice {name[:64]!r} of its own.", code="voice_not_found", param="name"
            )
        self._names.discard(name)
        self._book.dismiss_private(self._prefix + name)


def _said(item_id: str, history: History) -> bytes:
    """The first seconds of what a person said in an item, as a WAV file."""
    item = history.find(item_id)
    parts = item.content if isinstance(item, UserItem) else ()
    pieces = [piece.audio for part in parts if isinstance(part, AudioContent) for piece in part.pieces]
    if not pieces:
        raise InputError(
            f"There is no item {item_id[:64]!r} with the audio of a person.",
            code="voice_create_invalid_item_id",
            param="item_id",
        )
    samples = np.concatenate(pieces)[: ITEM_S * MODEL_RATE]
    return to_wav(float_to_int16(samples), rate=MODEL_RATE)
