"""Small builders for engine tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from voiceagent.core.actions import StartTurn
from voiceagent.core.history import AudioContent, Item, Piece, TextContent, UserItem
from voiceagent.core.options import TurnOptions
from voiceagent.engine import api

OPTIONS = api.Options(
    spoken=True, instructions="", tools=(), tool_choice="auto", voice="default_female", temperature=None,
    top_p=None, top_k=None, repetition_penalty=None, max_tokens=None,
)  # fmt: skip


def turn_options(**changes: Any) -> TurnOptions:
    """A turn's options as a session would fill them in."""
    return TurnOptions(**changes)


def said(text: str) -> tuple[Item, ...]:
    return (UserItem(id="u", content=(TextContent(text),)),)


def piece(number: int, *, samples: int = 1600) -> Piece:
    return Piece(id=number, audio=np.zeros(samples, np.float32))


def spoke(*pieces: Piece) -> tuple[Item, ...]:
    return (UserItem(id="u", content=(AudioContent(pieces=pieces, transcript=None),)),)


def start(turn: int, items: tuple[Item, ...], **changes: Any) -> StartTurn:
    return StartTurn(turn=turn, items=items, options=turn_options(**changes))


class Inbox:
    """Collects a session's events; `wait` blocks until one of a kind has come that was not waited for before."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._seen = 0
        self._came = asyncio.Event()

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        self._came.set()

    async def wait(self, *kinds: type, when: Callable[[Any], bool] = lambda _: True) -> Any:
        async with asyncio.timeout(20):
            while True:
                while self._seen < len(self.events):
                    event = self.events[self._seen]
                    self._seen += 1
                    if isinstance(event, kinds) and when(event):
                        return event
                self._came.clear()
                await self._came.wait()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
