"""Asks the real engine whether what somebody said so far is complete, as a session with semantic_vad does."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from scripts.eval.duplex_parts.replies import POCKET
from voiceagent.core import events as ev
from voiceagent.core.actions import EncodePiece, ForgetPieces, JudgeEnd
from voiceagent.core.history import Piece
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec

PATIENCE_S = 20.0


class Verdicts:
    """An engine of our own that judges; what it was asked before it is not asked again. Use as `with Verdicts()`.

    Attributes:
        took_s: how long each verdict took.
    """

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self._known: dict[bytes, tuple[str, float] | None] = {}
        self._loop = asyncio.new_event_loop()
        self._engine = LocalEngine(WorkerSpec(model=str(POCKET), max_sessions=1, threads=1))
        self._answer: asyncio.Future[ev.EndJudged] | None = None
        self._asked = 0

    def __enter__(self) -> Verdicts:
        self._loop.run_until_complete(self._engine.start())
        self._session = self._loop.run_until_complete(self._engine.open_session(self._on_event))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._session.close()
        self._loop.run_until_complete(self._engine.stop())
        self._loop.close()

    def of(self, asked: JudgeEnd) -> tuple[str, float] | None:
        """The words, and the probability that nothing follows; None: the engine did not say."""
        key = asked.piece.audio.tobytes()
        if key not in self._known:
            began = time.monotonic()
            self._known[key] = self._loop.run_until_complete(self._ask(asked))
            self.took_s.append(time.monotonic() - began)
        return self._known[key]

    async def _ask(self, asked: JudgeEnd) -> tuple[str, float] | None:
        self._asked += 1
        piece = Piece(self._asked, asked.piece.audio)
        self._answer = self._loop.create_future()
        self._session.send(EncodePiece(piece))
        self._session.send(JudgeEnd(self._asked, piece))
        try:
            found = await asyncio.wait_for(self._answer, PATIENCE_S)
        except TimeoutError:
            return None
        finally:
            self._session.send(ForgetPieces((piece.id,)))
        return found.text, found.complete

    def _on_event(self, event: object) -> None:
        waiting = self._answer
        if isinstance(event, ev.EndJudged) and waiting is not None and not waiting.done():
            waiting.set_result(event)
