"""What our side says in the trials in simulated time: replies that the real model made, played again at a stated pace.

The words, the tokens and the sound are the model's; the pace is not this machine's, so that the trials come out alike
on every machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.eval.duplex_parts import sounds
from voiceagent.core import events as ev
from voiceagent.core import options as opt
from voiceagent.core.actions import EncodePiece, StartTurn
from voiceagent.core.history import AudioContent, Piece, UserItem
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.units import VOICE_RATE

POCKET = Path(__file__).resolve().parents[3] / "voiceagent" / "assets" / "pocket"
FIRST_S = 0.35  #: from the request to the first sound
RTF = 0.4  #: seconds for a second of sound, behind the first piece
TURN_S = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the model.

    Attributes:
        parts: what the engine said of it, with turn number 0, and how long after the request (seconds).
    """

    parts: tuple[tuple[float, ev.TurnEvent], ...]

    @property
    def text(self) -> str:
        """All its words."""
        return "".join(event.text for _, event in self.parts if isinstance(event, ev.TextOut))

    @property
    def pcm(self) -> npt.NDArray[np.int16]:
        """All its sound at 24 kHz."""
        return np.concatenate([event.pcm for _, event in self.parts if isinstance(event, ev.AudioOut)])

    def of_turn(self, turn: int) -> list[tuple[float, ev.TurnEvent]]:
        """The same with that number."""
        return [(after, replace(event, turn=turn)) for after, event in self.parts]


def paced(events: list[ev.TurnEvent]) -> Reply:
    """These at the stated pace: words come just before the sound that the model made behind them."""
    parts: list[tuple[float, ev.TurnEvent]] = []
    after = FIRST_S - 0.05
    made: float | None = None  # seconds of sound behind the first piece
    for event in events:
        if isinstance(event, ev.AudioOut) and len(event.pcm):
            made = 0.0 if made is None else made + len(event.pcm) / VOICE_RATE
            after = FIRST_S + RTF * made
        parts.append((0.01 if isinstance(event, ev.TurnStarted) else after, event))
    return Reply(tuple(parts))


def joined(replies: list[Reply], seconds: float) -> Reply:
    """One long reply out of several, again and again until it is so long."""
    events: list[ev.TurnEvent] = [ev.TurnStarted(0)]
    length, sequence, number = 0.0, 0, 0
    raw: list[int] = []
    while length < seconds:
        reply = replies[number % len(replies)]
        number += 1
        for _, event in reply.parts:
            if isinstance(event, ev.TextOut):
                events.append(event)
            elif isinstance(event, ev.AudioOut):
                events.append(replace(event, seq=sequence))
                sequence += 1
                length += len(event.pcm) / VOICE_RATE
            elif isinstance(event, ev.TurnEnded):
                raw += event.raw_ids
        events.append(ev.TextOut(0, " ", ()))
    events.append(ev.TurnEnded(0, "stop", ev.Usage(), tuple(raw)))
    return paced(events)


def record(most: int | None = None) -> list[Reply]:
    """The pocket's replies to the recorded questions, or to `most` of them."""
    return asyncio.run(_record(list(sounds.recorded_texts())[:most]))


async def _record(names: list[str]) -> list[Reply]:
    engine = LocalEngine(WorkerSpec(model=str(POCKET), max_sessions=1))
    await engine.start()
    try:
        return [await _ask(engine, name) for name in names]
    finally:
        await engine.stop()


async def _ask(engine: LocalEngine, name: str) -> Reply:
    events: list[ev.TurnEvent] = []
    over = asyncio.Event()

    def on_event(event: object) -> None:
        if isinstance(event, ev.TurnStarted | ev.TextOut | ev.AudioOut | ev.TurnEnded | ev.TurnFailed):
            events.append(replace(event, turn=0))
        if isinstance(event, ev.TurnEnded | ev.TurnFailed):
            over.set()

    session = await engine.open_session(on_event)
    piece = Piece(1, np.pad(sounds.recorded(name), (3200, 4800)))
    session.send(EncodePiece(piece))
    session.send(StartTurn(1, (UserItem("u", (AudioContent((piece,)),)),), opt.TurnOptions(temperature=0.0)))
    await asyncio.wait_for(over.wait(), TURN_S)
    session.close()
    if any(isinstance(event, ev.TurnFailed) for event in events):
        raise RuntimeError(f"the model failed on {name}: {events[-1]}")
    return paced(events)
