"""A Live call without a socket: dialect, a real controller, the engine's part by hand, a clock moved by hand.

Every frame is parsed strictly by the published types, and may have no key that they do not know.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai.types.live as published
import openai.types.responses as responses
from pydantic import BaseModel

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire.dialect import Reply, WireError
from voiceagent.wire.live import LiveDialect

Event = dict[str, Any]
WINDOW = 512


def members(union: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotated union."""
    yield from union.__origin__.__args__


def by_type(union: Any) -> dict[str, type[BaseModel]]:
    return {m.model_fields["type"].annotation.__args__[0]: m for m in members(union)}  # type: ignore[union-attr]


LIVE = by_type(published.ServerEvent)
NESTED = by_type(responses.ResponseStreamEvent)


def check_published(frame: str) -> Event:
    """The event, once it has passed the published types strictly; those in `response.event` too."""
    event: Event = json.loads(frame)
    parsed = LIVE[event["type"]].model_validate_json(frame, strict=True)
    assert not strangers(parsed), event
    if event["type"] == "response.event":
        inner = NESTED[event["event"]["type"]].model_validate_json(json.dumps(event["event"]), strict=True)
        assert not strangers(inner), event
    return event


def strangers(model: Any) -> set[str]:
    """Keys that the published types do not know."""
    if isinstance(model, BaseModel):
        return set(model.model_extra or {}).union(*(strangers(value) for _, value in model))
    return set().union(*map(strangers, model)) if isinstance(model, list) else set()


class LivePhone:
    """One call; every method returns what the client is told meanwhile."""

    def __init__(self, *, context_tokens: int = 0, **config: Any) -> None:
        self.now = 100.0
        base = opt.SessionConfig(**{"instructions": "Be kind.", "lead_ms": 300, **config})
        self.dialect = LiveDialect(
            session_id="call",
            base=base,
            voices=("anna", "bert"),
            clock=lambda: self.now,
            unix_time=1_000_000.0,
            session_s=600.0,
            context_tokens=context_tokens,
        )
        self.controller = Controller(base, id_prefix="item_")
        self.turns: list[act.StartTurn] = []
        self.closed: act.Close | None = None
        self.log: list[Event] = []
        self._seq = 0
        self._at = self._judged = 0
        assert list(self.dialect.open()) == []

    def client(self, frame: str | bytes) -> list[Event]:
        mark = len(self.log)
        try:
            for event in self.dialect.receive(frame):
                if isinstance(event, Reply):
                    self._take(event.frame)
                else:
                    if isinstance(event, core.AudioIn):
                        self._at = event.at + len(event.pcm)
                        self.heard = event.pcm
                    self._do(self.controller.handle(event, self.now))
        except WireError as error:
            self._take(self.dialect.render_error(error))
        return self.log[mark:]

    def send(self, kind: str, **fields: Any) -> list[Event]:
        return self.client(json.dumps({"type": kind, **fields}))

    def start(self, **session: Any) -> list[Event]:
        return self.send("session.start", session={"model": "m", **session})

    def append(self, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> list[Event]:
        return self.send("session.input_audio.append", audio=b64(pcm))

    def voice(self, p: float, seconds: float, *, rate: int = 24_000) -> list[Event]:
        """Audio in real time, 32 ms at once, judged as speech with probability `p`."""
        mark = len(self.log)
        for _ in range(round(seconds / 0.032)):
            self.wait(0.032)
            self.append(np.full(round(rate * 0.032), 1000, np.int16))
            while self._judged + WINDOW <= self._at:
                self._judged += WINDOW
                self.engine(core.SpeechProb(self._judged, p))
        return self.log[mark:]

    def engine(self, *events: core.Event) -> list[Event]:
        mark = len(self.log)
        for event in events:
            self._do(self.controller.handle(event, self.now))
        return self.log[mark:]

    def says(self, text: str, *, tokens: int = 25, end: str | None = "stop") -> list[Event]:
        """The model speaks in its newest turn."""
        turn = self.turns[-1].turn
        pcm = np.arange(tokens * TOKEN_SAMPLES, dtype=np.int16)
        made: list[core.Event] = [core.TextOut(turn, text, (1,))]
        made.append(core.AudioOut(turn, 0, pcm, tuple(range(tokens))))
        if end is not None:
            made.append(core.TurnEnded(turn, end, core.Usage(100, 50, 20, 5, tokens), ()))
        return self.engine(*made)

    def calls(self, name: str, arguments: str = "{}") -> list[Event]:
        """The model calls a tool in its newest turn, and ends it."""
        turn = self.turns[-1].turn
        call = core.ToolCalled(turn, f"call_{turn}", name, arguments)
        return self.engine(call, core.TurnEnded(turn, "stop", core.Usage(10, 0, 0, 5, 0), ()))

    def wait(self, seconds: float) -> list[Event]:
        mark = len(self.log)
        until = self.now + seconds
        while (deadline := self.controller.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self._do(self.controller.handle_timeout(self.now))
        self.now = until
        return self.log[mark:]

    def _do(self, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.StartTurn):
                self.turns.append(action)
            for frame in self.dialect.render(action):
                self._take(frame)
            if isinstance(action, act.Close):
                self.closed = action

    def _take(self, frame: str | bytes) -> None:
        assert isinstance(frame, str)
        self.log.append(check_published(frame))


def b64(pcm: np.ndarray[Any, np.dtype[np.int16]]) -> str:
    return base64.b64encode(pcm.astype("<i2").tobytes()).decode()


def kinds(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


def sound(events: list[Event]) -> bytes:
    return b"".join(base64.b64decode(e["delta"]) for e in events if e["type"] == "session.output_audio.delta")


def text(events: list[Event], way: str = "output") -> str:
    return "".join(e["delta"] for e in events if e["type"] == f"session.{way}_transcript.delta")
