"""A spoken conversation: microphone, loudspeaker and lines of text around a client. Knows no device and no terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from voiceagent.client.conn import RealtimeClient
from voiceagent.client.events import (
    Done,
    Event,
    Failed,
    Heard,
    Interrupted,
    Interruption,
    Reconnected,
    Said,
    Sound,
    SpeechStopped,
    ToolCall,
    ToolResult,
)
from voiceagent.client.mic import Speaker
from voiceagent.client.playing import Block

BENIGN = frozenset({"conversation_already_has_active_response", "response_cancel_not_active"})
TELL_S = 0.1  #: how often the server is told what was heard
LAST_LINE_S = 3.0
"""So long what the person said last may take to be shown, behind the last answer: transcripts come beside answers."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line to show.

    Attributes:
        who: you, agent, tool or system.
        text: what was said; of a tool, its call and result.
        latency_s: from the end of the question to the first sound of the answer.
    """

    who: str
    text: str
    latency_s: float | None = None


async def talk(
    client: RealtimeClient,
    heard: AsyncIterator[Block],
    speaker: Speaker,
    show: Callable[[Line], None],
    *,
    half_duplex: bool = False,
    answers: int | None = None,
) -> None:
    """Lets the person and the agent talk until the connection ends or so many answers were heard to their end.

    Args:
        client: an open connection; its session detects turns.
        heard: the microphone.
        speaker: the loudspeaker.
        show: gets captions of both sides, tool calls and problems.
        half_duplex: do not listen while it speaks: for a loudspeaker that the microphone hears.
        answers: end after so many.

    Raises:
        ClientError: the connection is lost for good.
    """
    conversation = Conversation(speaker, show, asyncio.get_running_loop().time)

    async def listen() -> None:
        async for block in heard:
            deaf = half_duplex and speaker.busy
            await client.send_microphone(np.zeros_like(block) if deaf else block)

    stopped = asyncio.Event()
    told = None

    async def tell_once() -> None:
        nonlocal told
        place = speaker.place
        if place is not None and place != told:
            told = place
            await client.played(place.response_id, place.ms)

    async def tell() -> None:
        while True:
            await tell_once()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), TELL_S)
            stopped.clear()

    async def follow(enough: Callable[[], bool]) -> None:
        nonlocal told
        async for event in client.stream():
            conversation.take(event)
            if isinstance(event, Reconnected):
                told = None  # what was said last may be lost
            if isinstance(event, Interruption | Reconnected):
                stopped.set()
            for task in beside:
                if task.done():
                    task.result()
            if enough():
                return

    beside = [asyncio.create_task(listen()), asyncio.create_task(tell())]
    try:
        await follow(lambda: answers is not None and conversation.answers >= answers)
        if conversation.untold:
            with suppress(TimeoutError):
                await asyncio.wait_for(follow(lambda: not conversation.untold), LAST_LINE_S)
        speaker.resume()  # nobody listens any more to what a voice over it may be
        while speaker.busy:  # noqa: ASYNC110 - the sound card empties it on a thread of its own
            await asyncio.sleep(0.05)
        await tell_once()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


class Conversation:
    """Plays what is said and shows both sides, event by event.

    Args:
        speaker: the loudspeaker.
        show: gets the lines.
        clock: seconds.
    """

    def __init__(self, speaker: Speaker, show: Callable[[Line], None], clock: Callable[[], float]) -> None:
        self._speaker = speaker
        self._show = show
        self._clock = clock
        self._asked: float | None = None
        self._latency: float | None = None
        self._calls: dict[str, ToolCall] = {}
        self.answers = 0  #: that were given to their end
        self.untold = False  #: what the person said last is not shown yet

    def take(self, event: Event) -> None:
        """One more event."""
        match event:
            case Interruption(status="pending"):
                self._speaker.pause()
            case Interruption(status="dismissed"):
                self._speaker.resume()
            case Interruption() | Interrupted():
                self._speaker.drop()
            case SpeechStopped():
                self._asked, self.untold = self._clock(), True
            case Heard(_, text, final=True):
                self.untold = False
                if text:
                    self._show(Line("you", text))
            case Sound(response_id, samples):
                if self._asked is not None:
                    self._latency, self._asked = self._clock() - self._asked, None
                self._speaker.play(samples, response_id)
            case Said(_, text, final=True) if text:
                self._show(Line("agent", text, self._latency))
                self._latency = None
            case ToolResult(call_id, output) if call_id in self._calls:
                call = self._calls.pop(call_id)
                self._show(Line("tool", f"{call.name}({call.arguments}) -> {output}"))
            case Done(status=status, calls=calls, problem=problem):
                self._calls.update({call.call_id: call for call in calls})
                self.answers += status == "completed" and not calls
                if problem is not None:
                    self._show(Line("system", problem[1]))
            case Failed(code, message) if code not in BENIGN:
                self._show(Line("system", message))
            case Reconnected(resumed=True):
                self._show(Line("system", "connected again, where we were"))
            case Reconnected():
                self._speaker.drop()
                self._show(Line("system", "connected again"))
            case _:
                pass
