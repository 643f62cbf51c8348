"""Single pieces of work on the engine, without a conversation: hear, transcribe, answer. It knows no protocol.

A job holds one of the engine's session slots while it runs. Its events wait in a queue that is bounded by what one
reply, or one step of hearing, can bring.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt

from voiceagent.core.actions import EncodePiece, ForgetPieces, StartTurn, Transcribe
from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.events import (
    AudioOut,
    EngineDown,
    SpeechProb,
    TextOut,
    ThoughtOut,
    ToolCalled,
    Transcript,
    TranscriptFailed,
    TurnEnded,
    TurnFailed,
)
from voiceagent.core.history import Item, Piece
from voiceagent.core.options import TurnOptions
from voiceagent.core.utterances import WINDOW
from voiceagent.engine.api import EngineClient, EngineEvent, EngineSession, Ready
from voiceagent.errors import TOO_LONG, EngineError, InputError, VoiceAgentError

PATIENCE_S = 120.0  #: without any word from the engine for so long, a job gives up

Output = ThoughtOut | TextOut | AudioOut | ToolCalled | TurnEnded


class Job:
    """Work on one engine session; made by `job`."""

    def __init__(self, session: EngineSession, events: asyncio.Queue[EngineEvent]) -> None:
        self._session, self._events = session, events
        self._heard = self._pieces = self._turns = 0

    def piece(self, samples: npt.NDArray[np.float32]) -> Piece:
        """(n,) samples at 16 kHz, read-only, at most 25 s, as a piece that a turn may name."""
        self._pieces += 1
        return Piece(self._pieces, samples)

    def forget(self, piece: Piece) -> None:
        """No turn will name this piece any more: the engine keeps nothing of it."""
        self._session.send(ForgetPieces((piece.id,)))

    async def hear(self, samples: npt.NDArray[np.float32]) -> list[SpeechProb]:
        """Speech probabilities of the next samples (n,) at 16 kHz, one for every whole window of 512."""
        before = self._heard // WINDOW
        self._session.hear(self._heard, samples)
        self._heard += len(samples)
        found: list[SpeechProb] = []
        while len(found) < self._heard // WINDOW - before:
            event = await self._next()
            if isinstance(event, SpeechProb):
                found.append(event)
        return found

    async def transcribe(
        self, samples: npt.NDArray[np.float32], how: Dictation = PLAIN
    ) -> tuple[str, tuple[TokenScore, ...]]:
        """What is said in (n,) samples at 16 kHz, at most 25 s, and the scores of its tokens, if asked for.

        Raises:
            VoiceAgentError: the engine failed on it.
        """
        piece = self.piece(samples)
        self._session.send(EncodePiece(piece))
        self._session.send(Transcribe("item", (piece,), how=how))
        while True:
            event = await self._next()
            if isinstance(event, TranscriptFailed):
                raise VoiceAgentError(event.message, code=event.code)
            if isinstance(event, Transcript):
                self.forget(piece)
                return event.text, event.scores

    async def turn(self, items: Sequence[Item], options: TurnOptions) -> AsyncGenerator[Output]:
        """The reply to `items` as it comes; the last event is `TurnEnded`.

        Raises:
            VoiceAgentError: the turn failed.
        """
        self._turns += 1
        self._session.send(StartTurn(self._turns, tuple(items), options))
        while True:
            event = await self._next()
            if isinstance(event, TurnFailed) and event.code == TOO_LONG:
                raise InputError(event.message, code=event.code, param="messages")
            if isinstance(event, TurnFailed):
                raise VoiceAgentError(event.message, code=event.code)
            if isinstance(event, Output):
                yield event
            if isinstance(event, TurnEnded):
                return

    async def _next(self) -> EngineEvent:
        try:
            async with asyncio.timeout(PATIENCE_S):
                event = await self._events.get()
        except TimeoutError as error:
            raise EngineError("The engine does not answer.", code="engine_down") from error
        if isinstance(event, EngineDown):
            raise EngineError(
                "The engine is being restarted.", code="engine_down", remedy="Try again in a few seconds."
            )
        return event


def loaded(engine: EngineClient) -> Ready:
    """What the engine has loaded; EngineError while it is loading."""
    ready = engine.ready
    if ready is None:
        raise EngineError("The model is still loading.", code="engine_down", remedy="Try again soon.")
    return ready


@asynccontextmanager
async def job(engine: EngineClient) -> AsyncIterator[Job]:
    """A job on a session slot of its own, given back at the end.

    Raises:
        CapacityError: all slots are taken.
        EngineError: the engine is down.
    """
    events: asyncio.Queue[EngineEvent] = asyncio.Queue()
    session = await engine.open_session(events.put_nowait)
    try:
        yield Job(session, events)
    finally:
        session.close()
