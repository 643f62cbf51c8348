"""Callers of an engine: each asks, plays the answer in real time as a loudspeaker would, and asks again.

It owns the arithmetic of playback (what came too late, for how long nothing was to be heard); it knows no model.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from voiceagent.core.actions import CancelTurn, EncodePiece, StartTurn
from voiceagent.core.events import AudioOut, EngineDown, TurnEnded, TurnFailed
from voiceagent.core.history import AssistantItem, AudioContent, Item, Piece, TextContent, UserItem
from voiceagent.core.options import TurnOptions
from voiceagent.engine.api import EngineClient, EngineEvent, EngineSession
from voiceagent.units import MODEL_RATE, VOICE_RATE

FRAME_S = 0.02
PATIENCE_S = 120.0  # for one answer
TOLERANCE_S = 0.1  # "continuity" as others count it: a gap shorter than this is not held against the engine


@dataclass(slots=True)
class Playback:
    """What a loudspeaker that starts with the first sound makes of the chunks as they come.

    Attributes:
        until: when the sound that has come will have been played; None before the first.
        chunks: how many came.
        late, late_100: how many came after the sound before them was over, and more than 100 ms after.
        silent_s: how long nothing was to be heard in between.
        audio_s: of sound.
        log: when each chunk came, and its seconds of sound.
    """

    until: float | None = None
    chunks: int = 0
    late: int = 0
    late_100: int = 0
    silent_s: float = 0.0
    audio_s: float = 0.0
    log: list[tuple[float, float]] = field(default_factory=list)

    def take(self, at: float, samples: int) -> None:
        """A chunk of `samples` at 24 kHz came at time `at`."""
        self.chunks += 1
        length = samples / VOICE_RATE
        self.audio_s += length
        self.log.append((at, length))
        gap = 0.0 if self.until is None else at - self.until
        if gap > 0:
            self.late += 1
            self.late_100 += gap > TOLERANCE_S
            self.silent_s += gap
        self.until = length + (at if self.until is None else max(at, self.until))


@dataclass(slots=True)
class Answer:
    """One turn as its caller saw it; times on the monotonic clock."""

    session: int
    turn: int
    asked: float
    first: float | None = None
    cancelled: float | None = None
    done: float | None = None
    reason: str = ""
    ids: tuple[int, ...] = ()
    playback: Playback = field(default_factory=Playback)
    in_order: bool = True

    @property
    def first_audio_s(self) -> float:
        """From the commit to the first sound; only of an answer that has one."""
        assert self.first is not None
        return self.first - self.asked


@dataclass(frozen=True, slots=True)
class Script:
    """What a caller asks for.

    Attributes:
        history: items before every question; the engine keeps what it holds of them from turn to turn.
        question_s: length of the spoken question.
        text: ask this in writing instead.
        tokens: shortest and longest reply in language-model tokens (31.25 are a second).
        pause_s: longest pause between an answer's end and the next question.
        listens: whether the microphone goes on sending, 20 ms at a time, to the voice detector.
        cancel_after_first: stop each answer at its first sound: only the time to it is wanted.
        play: whether the next question waits until the answer has been played.
    """

    history: tuple[Item, ...] = ()
    question_s: float = 5.0
    text: str = ""
    tokens: tuple[int, int] = (190, 310)
    pause_s: float = 0.5
    listens: bool = True
    cancel_after_first: bool = False
    play: bool = True


class Talker:
    """One caller; `run` asks questions until it is told to stop."""

    def __init__(self, number: int, script: Script, *, seed: int = 0) -> None:
        self.number, self.script = number, script
        self.answers: list[Answer] = []
        self._random = random.Random(1000 * seed + number)
        self._noise = np.random.default_rng(1000 * seed + number)
        self._session: EngineSession | None = None
        self._current: Answer | None = None
        self._over = asyncio.Event()
        self._turn = 0

    async def open(self, engine: EngineClient) -> None:
        """Take a slot of the engine."""
        self._session = await engine.open_session(self._event)

    def close(self) -> None:
        """Give it back."""
        if self._session is not None:
            self._session.close()

    async def run(self, *, until: float, wait_s: float = 0.0) -> None:
        """Ask from `wait_s` on until the monotonic time `until`; the answer under way then still comes."""
        microphone = asyncio.create_task(self._listen(until)) if self.script.listens else None
        try:
            await asyncio.sleep(wait_s)
            while time.monotonic() < until:
                answer = await self.ask()
                pause = self._random.uniform(0.0, self.script.pause_s)
                if self.script.play and answer.playback.until is not None:
                    pause += max(0.0, answer.playback.until - time.monotonic())
                await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))
        finally:
            if microphone is not None:
                microphone.cancel()

    async def ask(self, *, tokens: int | None = None) -> Answer:
        """One question, until its answer has come."""
        assert self._session is not None, "open comes first"
        self._turn += 1
        count = tokens or self._random.randint(*self.script.tokens)
        options = TurnOptions(max_tokens=count)
        content: TextContent | AudioContent = TextContent(self.script.text)
        if not self.script.text:
            content = AudioContent((Piece(self._turn, self._question()),))
        items = (*self.script.history, UserItem(f"u{self._turn}", (content,)))
        self._over.clear()
        answer = self._current = Answer(self.number, self._turn, time.monotonic())
        if isinstance(content, AudioContent):
            self._session.send(EncodePiece(content.pieces[0]))
        self._session.send(StartTurn(self._turn, items, options))
        await asyncio.wait_for(self._over.wait(), PATIENCE_S)
        self.answers.append(answer)
        return answer

    def cancel(self) -> None:
        """Stop the answer that is being given."""
        if self._session is not None and self._current is not None:
            self._current.cancelled = time.monotonic()
            self._session.send(CancelTurn(self._current.turn))

    def _question(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Noise: the encoder's work does not depend on what it hears."""
        count = round(self.script.question_s * MODEL_RATE)
        return self._noise.standard_normal(count, np.float32) * np.float32(0.05)

    async def _listen(self, until: float) -> None:
        """Silence from the microphone, a frame every 20 ms of real time."""
        assert self._session is not None
        frame = np.zeros(round(FRAME_S * MODEL_RATE), np.float32)
        began, sent = time.monotonic(), 0
        while (now := time.monotonic()) < until:
            while sent * FRAME_S <= now - began:
                self._session.hear(sent * len(frame), frame)
                sent += 1
            await asyncio.sleep(max(0.0, began + sent * FRAME_S - time.monotonic()))

    def _event(self, event: EngineEvent) -> None:
        answer, now = self._current, time.monotonic()
        if answer is None:
            return
        match event:
            case AudioOut(turn=answer.turn):
                answer.in_order = answer.in_order and event.seq == answer.playback.chunks
                answer.first = answer.first or now
                answer.playback.take(now, len(event.pcm))
                if self.script.cancel_after_first and answer.playback.chunks == 1:
                    self.cancel()
            case TurnEnded(turn=answer.turn):
                answer.done, answer.reason, answer.ids = now, event.reason, event.raw_ids
                self._over.set()
            case TurnFailed(turn=answer.turn):
                answer.done, answer.reason = now, event.code
                self._over.set()
            case EngineDown():
                answer.done, answer.reason = now, "engine_down"
                self._over.set()
            case _:
                pass


def spoken_history(positions: int, *, audio_0: int, text: int) -> tuple[Item, ...]:
    """Earlier replies that take about so many positions of the prompt: 1 text id and 4 audio ids at a time."""
    items: list[Item] = []
    generator = np.random.default_rng(3)
    left = positions
    while left > 0:
        groups = max(1, min(left, 500) // 5)
        ids: list[int] = []
        for _ in range(groups):
            ids += [text, *(audio_0 + int(code) for code in generator.integers(0, 6561, 4))]
        codes = tuple(token - audio_0 for token in ids if token >= audio_0)
        items.append(
            AssistantItem(
                f"h{len(items)}", "a" * groups, text_ids=(text,) * groups, audio_ids=codes, raw_ids=tuple(ids),
                spoken=True, samples=960 * len(codes),
            )
        )  # fmt: skip
        left -= len(ids) + 8
    return tuple(items)


def stagger(count: int, over_s: float) -> Sequence[float]:
    """Random moments at which `count` callers begin."""
    chooser = random.Random(7)
    return [chooser.uniform(0.0, over_s) for _ in range(count)]
