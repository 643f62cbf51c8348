"""A runner with a stand-in vocoder behind the real loop, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from engine_helpers import OPTIONS

from voiceagent.core.history import Item, Piece
from voiceagent.engine import api, mapping
from voiceagent.engine.loop import Loop
from voiceagent.engine.runner import StepAudioRunner
from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.token2wav import Speak

HELD = 3  # ids whose sound the stand-in holds back until the end, as a look-ahead does


@dataclass
class Stream:
    """Ids so far, and how many of them have sounded."""

    ids: tuple[int, ...] = ()
    sounded: int = 0


class CountingVocoder:
    """Each id sounds as 960 samples of its own value."""

    def __init__(self, *, room: int = 100) -> None:
        self.voices: dict[str, Any] = {"low": None, "high": None}
        self.opened = 0
        self.room = room

    def open(self, voice: Any) -> Stream:
        if self.opened >= self.room:
            raise CapacityError("All streams are taken.", code="speech_full")
        self.opened += 1
        return Stream()

    def wanted(self, state: Stream) -> int:
        return 4 if state.ids else 7

    def steps(self, parts: Sequence[Speak]) -> list[np.ndarray]:
        return [self.step(part.ids, part.state, last=part.last) for part in parts]

    def step(self, ids: Sequence[int], state: Any, *, last: bool) -> np.ndarray:
        state.ids += tuple(ids)
        ready = len(state.ids) if last else max(state.sounded, len(state.ids) - HELD)
        pcm = np.repeat(np.array(state.ids[state.sounded : ready], np.int16), 960)
        state.sounded = ready
        return pcm


def options(**changes: Any) -> api.Options:
    given = {name: getattr(OPTIONS, name) for name in OPTIONS.__struct_fields__}
    return api.Options(**(given | {"voice": "", "max_tokens": 60, "temperature": 0.0} | changes))


def noise(number: int, *, samples: int = 8000) -> Piece:
    audio = np.random.default_rng(number).normal(0, 0.1, samples).astype(np.float32)
    return Piece(id=number, audio=audio)


class Bench:
    def __init__(
        self, language: LanguageModel, *sessions: int, vocoder: CountingVocoder | None = None
    ) -> None:
        self.runner = StepAudioRunner(language, vocoder or CountingVocoder())  # type: ignore[arg-type]
        self.replies: list[Any] = []
        self.clock = 0.0
        self.loop = Loop(self.runner, max_sessions=8, emit=self.replies.append, clock=self.tick)
        for session in sessions:
            self.loop.command(api.OpenSession(session))

    def tick(self) -> float:
        self.clock += 0.01
        return self.clock

    def begin(self, session: int, turn: int, items: Sequence[Item], wanted: api.Options) -> None:
        for item in items:
            for part in getattr(item, "content", ()):
                for piece in getattr(part, "pieces", ()):
                    self.loop.command(api.Encode(session, piece.id, mapping.piece_to_bytes(piece)))
        self.loop.command(api.Begin(session, turn, tuple(map(mapping.item_to_wire, items)), wanted))

    def run(self) -> None:
        while self.loop.step():
            pass

    def of(self, kind: type, session: int = 1) -> list[Any]:
        return [r for r in self.replies if isinstance(r, kind) and r.session == session]  # type: ignore[attr-defined]

    def sound(self, session: int = 1) -> np.ndarray:
        return np.concatenate([np.frombuffer(r.pcm, "<i2") for r in self.of(api.Sound, session)])
