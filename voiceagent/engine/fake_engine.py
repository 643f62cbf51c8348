"""The scripted engine in the server's process, on the event loop: virtual clocks work. fake.py has what it says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from voiceagent.audio.tempo import Tempo
from voiceagent.core import events
from voiceagent.core.actions import (
    CancelTurn,
    ConfirmTurn,
    EncodePiece,
    ForgetPieces,
    JudgeEnd,
    Prepare,
    StartTurn,
    Transcribe,
)
from voiceagent.engine import api
from voiceagent.engine.fake import (
    FakeRunner,
    Script,
    numbered,
    scripted_reply,
    scripted_summary,
    word_scores,
)
from voiceagent.engine.fake_ear import EnergyStream
from voiceagent.engine.mapping import options_to_wire
from voiceagent.engine.voices import in_process
from voiceagent.errors import CapacityError, InputError
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE


@dataclass(slots=True)
class FakeSession:
    """The handle of one session; see `EngineSession`. The lists keep what the session asked for, for assertions."""

    engine: FakeEngine
    number: int
    on_event: Callable[[api.EngineEvent], None]
    actions: list[api.EngineAction] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)  #: (position, samples) of each audio input
    closed: bool = False
    _vad: EnergyStream = field(default_factory=EnergyStream)
    _writing: dict[str, str] = field(default_factory=dict)  # words of items that are still being said

    def hear(self, at: int, pcm: npt.NDArray[np.float32]) -> None:
        """Answer each whole window with its probability, at once."""
        self.heard.append((at, len(pcm)))
        if self.closed or not self.engine.alive:
            return
        for place, p, level in self._vad.push(at, pcm):
            self._tell(events.SpeechProb(at=place, p=p, level=level))

    def send(self, action: api.EngineAction) -> None:
        """Carry the action out by the script."""
        self.actions.append(action)
        if self.closed:
            return
        match action:
            case StartTurn():
                self.engine.start_turn(self, action)
            case CancelTurn():
                self.engine.cancel_turn(self, action.turn)
            case Transcribe() if self.engine.alive:
                self._write(action)
            case JudgeEnd(at) if self.engine.alive and self.engine.script.complete is not None:
                script = self.engine.script
                self._tell(events.EndJudged(at, script.transcript, self.engine.script.complete))
            case EncodePiece() | ForgetPieces() | Prepare() | Transcribe() | JudgeEnd() | ConfirmTurn():
                pass

    def close(self) -> None:
        """No event is delivered from here on."""
        self.closed = True
        self.engine.drop(self)

    def _write(self, action: Transcribe) -> None:
        """The script's words for each piece, word by word; the script may also say that it fails."""
        text = self._writing.pop(action.item_id, "")
        if self.engine.script.transcript == "!fail":
            self._tell(events.TranscriptFailed(action.item_id, "fake_fault", "The script says so."))
            return
        for _ in action.pieces:
            for word in self.engine.script.transcript.split():
                said = f" {word}" if text else word
                text += said
                self._tell(events.TranscriptDelta(action.item_id, said))
        if action.more:
            self._writing[action.item_id] = text
        else:
            scores = word_scores(text) if action.how.scores else ()
            self._tell(events.Transcript(action.item_id, text, scores))

    def _tell(self, event: api.EngineEvent) -> None:
        """Never out of the call that caused it, as with a real engine."""
        asyncio.get_running_loop().call_soon(self._deliver, event)

    def _deliver(self, event: api.EngineEvent) -> None:
        if not self.closed:
            self.on_event(event)


class FakeEngine:
    """An in-process `EngineClient` that plays a script.

    Args:
        script: how it behaves; may be replaced between turns.
        max_sessions: above it `open_session` raises `CapacityError`.
    """

    def __init__(self, script: Script | None = None, *, max_sessions: int = 64) -> None:
        self.script = script or Script()
        self.alive = False
        self.hanging = False
        self.sessions: dict[int, FakeSession] = {}
        self._max_sessions = max_sessions
        self._opened = 0
        self.restarts = 0  #: how many times it came back
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._written: dict[tuple[int, int], list[int]] = {}
        self._random = random.Random(self.script.seed)
        self.voices = in_process(FakeRunner())

    @property
    def ready(self) -> api.Ready | None:
        """A description of the fake, while it is alive."""
        if not self.alive:
            return None
        return api.Ready(
            "fake", "none", "none", ("default_female", "default_male"), self.script.context, self._max_sessions, 0.0,
            can_think=bool(self.script.thought),
        )  # fmt: skip

    @property
    def slots_used(self) -> int:
        """How many sessions there are."""
        return len(self.sessions)

    async def start(self, on_progress: Callable[[api.Loading], None] | None = None) -> api.Ready:
        """Be ready at once."""
        if on_progress is not None:
            on_progress(api.Loading("fake", 0.0))
        self.alive = True
        self.voices.came_up()
        assert self.ready is not None
        return self.ready

    async def stop(self) -> None:
        """End every turn without a word and wait for their tasks."""
        self.alive = False
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def open_session(self, on_event: Callable[[api.EngineEvent], None]) -> FakeSession:
        """A new session with the next number."""
        if len(self.sessions) >= self._max_sessions:
            raise CapacityError(f"All {self._max_sessions} session slots of the engine are taken.")
        self._opened += 1
        session = self.sessions[self._opened] = FakeSession(self, self._opened, on_event)
        return session

    def die(self, *, retry_after: float = 1.0) -> None:
        """As a killed process: all turns are gone, every session is told."""
        self.alive = False
        self.voices.went_down()
        for task in self._tasks.values():
            task.cancel()
        for session in list(self.sessions.values()):
            session._tell(events.EngineDown(retry_after=retry_after))

    def revive(self) -> None:
        """As after a restart."""
        self.alive, self.hanging = True, False
        self.restarts += 1
        self.voices.came_up()
        for session in list(self.sessions.values()):
            session._tell(events.EngineUp())

    def start_turn(self, session: FakeSession, action: StartTurn) -> None:
        """Begin to play a reply."""
        if not self.alive:
            message = "The engine is being restarted."
            session._tell(events.TurnFailed(turn=action.turn, code="engine_down", message=message))
            return
        key = (session.number, action.turn)
        task = asyncio.get_running_loop().create_task(self._play(session, action))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def cancel_turn(self, session: FakeSession, turn: int) -> None:
        """Stop a running reply; one that is over is left alone."""
        task = self._tasks.pop((session.number, turn), None)
        if task is not None and not task.done():
            task.cancel()
            session._tell(self._end((session.number, turn), "cancelled"))

    def drop(self, session: FakeSession) -> None:
        """Forget a closed session."""
        self.sessions.pop(session.number, None)
        for key, task in list(self._tasks.items()):
            if key[0] == session.number:
                task.cancel()

    async def _play(self, session: FakeSession, action: StartTurn) -> None:
        script, turn = self.script, action.turn
        try:
            reply = scripted_reply(action.items, options_to_wire(action.options), script)
            reply = scripted_summary(script) if action.options.sums_up else reply
        except InputError as error:
            session._tell(events.TurnFailed(turn=turn, code=error.code, message=str(error)))
            return
        written = self._written[session.number, turn] = []
        dropped = tuple(item.id for item in action.items[: -script.keeps]) if script.keeps else ()
        usage = events.Usage(input_text=1)
        room = script.context - script.context // 4
        session._tell(events.TurnStarted(turn, usage, script.context, dropped, room=room))
        await asyncio.sleep(script.first_delay_s)
        if reply.fault == "fail":
            session._tell(events.TurnFailed(turn=turn, code="fake_fault", message="The script says so."))
            return
        if reply.fault == "die":
            asyncio.get_running_loop().call_soon(self.die)
        if reply.fault is not None or self.hanging:
            await asyncio.get_running_loop().create_future()
        for thought in reply.thoughts:
            session._tell(events.ThoughtOut(turn=turn, text=thought))
            await asyncio.sleep(script.rtf * TOKEN_SAMPLES / VOICE_RATE)
        sent, tempo = 0, Tempo(action.options.speed)
        for seq, chunk in enumerate(reply.chunks):
            if chunk.text_ids:
                session._tell(events.TextOut(turn=turn, text=chunk.text, ids=chunk.text_ids))
            written += [*chunk.text_ids, *chunk.audio_ids]
            count = len(chunk.audio_ids) * TOKEN_SAMPLES
            scale = 1 + self._random.uniform(-script.jitter, script.jitter)
            await asyncio.sleep(script.rtf * scale * count / VOICE_RATE)
            if count:
                pcm = tempo.push(numbered(session=session.number, turn=turn, start=sent, count=count))
                if seq + 1 == len(reply.chunks):
                    pcm = np.concatenate([pcm, tempo.finish()])
                pcm.setflags(write=False)
                session._tell(events.AudioOut(turn=turn, seq=seq, pcm=pcm, ids=chunk.audio_ids))
                sent += count
        for n, call in enumerate(reply.calls):
            call_id = f"call_{session.number}_{turn}_{n}"
            session._tell(
                events.ToolCalled(turn=turn, call_id=call_id, name=call.name, arguments=call.arguments)
            )
        session._tell(self._end((session.number, turn), "stop", thought=len(reply.thoughts)))

    def _end(self, key: tuple[int, int], reason: api.EndReason, *, thought: int = 0) -> events.TurnEnded:
        raw_ids = tuple(self._written.pop(key, ()))
        usage = events.Usage(
            input_text=1, output_text=thought, output_audio=len(raw_ids), output_thought=thought
        )
        return events.TurnEnded(turn=key[1], reason=reason, usage=usage, raw_ids=raw_ids)
