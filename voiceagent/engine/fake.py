"""A scripted engine for tests: numbered samples, delays, faults; nothing here hears or thinks.

`FakeEngine` runs in the server's process on the event loop (virtual clocks work); `FakeRunner` plays the same script
inside a real worker process, so that supervision can be tested without a model. Every sample of a reply names its
session, turn and place, so loss, duplication, reorder and crosstalk are exact facts for whoever receives them.

A user text of `!fail`, `!die` or `!hang` makes the turn fail, the engine die, or the engine stop answering.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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
from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import AudioContent, Item, Piece, TextContent, ToolResultItem, UserItem
from voiceagent.engine import api
from voiceagent.engine.fake_ear import EnergyStream as EnergyStream
from voiceagent.engine.mapping import options_to_wire
from voiceagent.engine.protocol import Pcm, Speech, Summary, ToolUse, Written
from voiceagent.engine.scheduler import Limits
from voiceagent.engine.slots import Turn
from voiceagent.engine.voices import in_process
from voiceagent.errors import CapacityError, EngineError, InputError
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

MODULUS = 32_749  #: a prime below 2^15, so that the pattern never falls in step with chunk sizes
CONTEXT = 16_384  #: tokens


def numbered(*, session: int, turn: int, start: int, count: int) -> npt.NDArray[np.int16]:
    """Samples `start` .. `start + count` of a turn's reply; each value tells its place modulo `MODULUS`."""
    place = (np.arange(start, start + count) + 4_099 * turn + 1_217 * session) % MODULUS
    return (place - MODULUS // 2).astype(np.int16)


@dataclass(frozen=True, slots=True)
class Script:
    """How the fake engine behaves."""

    speech_ids: int = 50  #: length of a spoken reply (25 a second)
    chunk_ids: int = 5  #: ids per audio message
    first_delay_s: float = 0.0  #: from the start of a turn to its first output
    rtf: float = 0.0  #: seconds of work per second of sound
    jitter: float = 0.0  #: each chunk's time is scaled by a random factor in 1 +- jitter
    transcript: str = (
        "something was said"  #: what every transcription says of every piece; "!fail" = it fails
    )
    complete: float | None = None  #: how likely nothing follows what anybody says; None = no answer
    keeps: int = 0  #: items of a conversation that there is room for; 0 = for all
    context: int = CONTEXT  #: positions that there are, as it says
    summary: str = ""  #: what it writes of a conversation that is to be summed up
    thought: str = ""  #: what a turn that is to think thinks, word by word; empty = it cannot
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of a scripted reply."""

    text: str
    text_ids: tuple[int, ...]
    audio_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """All that a turn will say."""

    chunks: tuple[Chunk, ...]
    calls: tuple[ToolUse, ...]
    fault: str | None  #: fail, die or hang
    thoughts: tuple[str, ...] = ()


def scripted_reply(items: Sequence[Item], options: api.Options, script: Script) -> ScriptedReply:
    """What a turn will think and say.

    Raises:
        InputError: it is to think and the script cannot.
    """
    if not options.think:
        return _answer(items, options, script)
    if not script.thought:
        raise InputError("This script cannot think.", code="think_unavailable", param="think")
    thoughts = tuple(f"{word} " for word in script.thought.split(" "))
    return replace(_answer(items, options, script), thoughts=thoughts)


def scripted_summary(script: Script) -> ScriptedReply:
    """What is written of a conversation."""
    words = script.summary.split()
    return ScriptedReply(tuple(_chunk(words, n, n + 1, ()) for n in range(len(words))), (), None)


def _answer(items: Sequence[Item], options: api.Options, script: Script) -> ScriptedReply:
    """Echo of the last item: `You said: ...`, `I heard N samples.` or `The tool said: ...`.

    A tool is called when the choice demands one, or when the last user text names one.
    """
    said = _last_words(items)
    fault = said[1:] if said in {"!fail", "!die", "!hang"} else None
    named = [tool for tool in options.tools if tool.name in said or tool.name == options.tool_choice]
    if not named and options.tool_choice == "required":
        named = list(options.tools)
    answered = bool(items) and isinstance(items[-1], ToolResultItem)
    if named and not answered and options.tool_choice != "none":
        return ScriptedReply((), (ToolUse(named[0].name, json.dumps({"said": said})),), fault)
    words = said.split(" ") if said else ["Hello."]
    if not options.spoken:
        return ScriptedReply(tuple(_chunk(words, n, n + 1, ()) for n in range(len(words))), (), fault)
    steps = max(1, -(-script.speech_ids // script.chunk_ids))
    bounds = [-(-len(words) * n // steps) for n in range(steps + 1)]
    ids = range(script.speech_ids)
    chunks = tuple(
        _chunk(words, bounds[n], bounds[n + 1], tuple(ids[n * script.chunk_ids : (n + 1) * script.chunk_ids]))
        for n in range(steps)
    )
    return ScriptedReply(chunks, (), fault)


def _chunk(words: list[str], start: int, stop: int, audio_ids: tuple[int, ...]) -> Chunk:
    text = "".join((" " if n else "") + words[n] for n in range(start, stop))
    return Chunk(text, tuple(range(start, stop)), audio_ids)


def _last_words(items: Sequence[Item]) -> str:
    last = items[-1] if items else None
    match last:
        case ToolResultItem():
            return f"The tool said: {last.output}"
        case UserItem():
            texts = [part.text for part in last.content if isinstance(part, TextContent)]
            samples = sum(
                piece.audio.size
                for part in last.content
                if isinstance(part, AudioContent)
                for piece in part.pieces
            )
            if texts and texts[-1].startswith("!"):
                return texts[-1]
            return f"You said: {' '.join(texts)}" if texts else f"I heard {samples} samples."
        case _:
            return ""


# --- in the server's process ------------------------------------------------------------------------------------


def word_scores(text: str) -> tuple[TokenScore, ...]:
    """Each word with the space before it, as likely as not."""
    return tuple(TokenScore(tuple(word.encode()), -0.693) for word in re.findall(r"\s*\S+", text))


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


# --- in a worker process ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class FakeJob:
    """How far a scripted reply is."""

    turn: Turn
    reply: ScriptedReply
    thought: int = 0  #: words thought so far
    next_chunk: int = 0
    vocoded: int = 0
    raw_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class FakeReading:
    """A prompt that is only read, or a caption and the steps that it takes: silence, then the words."""

    words: list[str] = field(default_factory=list)


class FakeRunner:
    """Plays the script behind the real loop; its work is real waiting."""

    def __init__(self, script: Script | None = None, *, limits: Limits | None = None) -> None:
        self.script = script or Script()
        self.limits = limits or Limits()
        self.encoded: set[tuple[int, int]] = set()
        self.voices: dict[str, int] = {}  #: samples of the recordings that were enrolled
        self._random = random.Random(self.script.seed)

    def encode(self, pieces: Sequence[tuple[int, Piece]]) -> list[Exception | None]:
        """Note that the pieces came."""
        self.encoded |= {(session, piece.id) for session, piece in pieces}
        return [None] * len(pieces)

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Note that the pieces went."""
        self.encoded -= {(session, piece) for piece in pieces}

    def add_voice(self, name: str, samples: npt.NDArray[np.float32]) -> None:
        """Note that it came."""
        self.voices[name] = len(samples)

    def drop_voice(self, name: str) -> None:
        """Note that it went."""
        self.voices.pop(name, None)

    def begin(self, turn: Turn) -> FakeJob:
        """Look up the reply; act on a fault."""
        reply = scripted_reply(turn.items, turn.options, self.script)
        time.sleep(self.script.first_delay_s)
        match reply.fault:
            case "fail":
                raise InputError("The script says so.", code="fake_fault")
            case "die":
                os._exit(9)
            case "hang":
                time.sleep(3600)
            case _:
                pass
        return FakeJob(turn, reply)

    def listen(
        self, session: int, pieces: tuple[Piece, ...], *, how: Dictation = PLAIN, kept: bool = False
    ) -> FakeReading:
        """The script's words, one per step."""
        return FakeReading(["", self.script.transcript])

    def scores(self, job: FakeReading) -> tuple[TokenScore, ...]:
        """The script's words, each as likely as not."""
        return word_scores(self.script.transcript)

    def completeness(self, job: FakeReading, pieces: tuple[Piece, ...]) -> float:
        """What the script says; without that it cannot be known."""
        if self.script.complete is None:
            raise EngineError("The script does not say.", code="fake_fault")
        return self.script.complete

    def prepare(self, session: int, items: tuple[Item, ...], options: api.Options) -> FakeReading:
        """Nothing to remember."""
        return FakeReading()

    def read(self, job: FakeJob | FakeReading, positions: int) -> bool:
        """At once."""
        return True

    def decode(self, jobs: Sequence[FakeJob | FakeReading]) -> list[Written | Exception]:
        """One word of each one's thought, then one chunk, as if each were one token."""
        return [self._write(job) if isinstance(job, FakeReading) else self._decode(job) for job in jobs]

    def _decode(self, job: FakeJob) -> Written | Exception:
        if job.thought < len(job.reply.thoughts):
            job.thought += 1
            return Written(thought=job.reply.thoughts[job.thought - 1])
        chunks = job.reply.chunks
        chunk = chunks[job.next_chunk] if job.next_chunk < len(chunks) else Chunk("", (), ())
        job.next_chunk += 1
        job.raw_ids += [*chunk.text_ids, *chunk.audio_ids]
        done = job.next_chunk >= len(chunks)
        calls = job.reply.calls if done else ()
        return Written(chunk.text, chunk.text_ids, chunk.audio_ids, calls, "stop" if done else None)

    def _write(self, job: FakeReading) -> Written:
        text = job.words.pop(0)
        return Written(text=text, ended=None if job.words else "stop")

    def wanted(self, job: FakeJob) -> int:
        """One chunk."""
        return self.script.chunk_ids

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        """Numbered samples for the ids, after the time that the script gives them."""
        return [self._vocode(part.job, part.ids) for part in parts]

    def _vocode(self, job: FakeJob, ids: list[int]) -> Pcm:
        count = len(ids) * TOKEN_SAMPLES
        scale = 1 + self._random.uniform(-self.script.jitter, self.script.jitter)
        time.sleep(self.script.rtf * scale * count / VOICE_RATE)
        pcm = numbered(session=job.turn.session, turn=job.turn.turn, start=job.vocoded, count=count)
        job.vocoded += count
        return pcm

    def summary(self, job: FakeJob) -> Summary:
        """Ids so far."""
        usage = events.Usage(
            input_text=1, output_text=job.thought, output_audio=len(job.raw_ids), output_thought=job.thought
        )
        return Summary(usage, tuple(job.raw_ids))

    def finish(self, job: FakeJob | FakeReading) -> None:
        """A script holds nothing."""

    def close(self, session: int) -> None:
        """Forget the session's pieces."""
        self.encoded = {key for key in self.encoded if key[0] != session}

    def is_device_loss(self, error: BaseException) -> bool:
        """Only an `EngineError` counts, so that tests can plant one."""
        return isinstance(error, EngineError) and not isinstance(error, CapacityError)
