"""A scripted engine for tests: numbered samples, delays, faults; nothing here hears or thinks.

`FakeEngine` (fake_engine.py) runs in the server's process; `FakeRunner` plays the same script inside a real worker
process, so that supervision can be tested without a model. Every sample of a reply names its
session, turn and place, so loss, duplication, reorder and crosstalk are exact facts for whoever receives them.

A user text of `!fail`, `!die` or `!hang` makes the turn fail, the engine die, or the engine stop answering.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from voiceagent.core import events
from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import AudioContent, Item, Piece, TextContent, ToolResultItem, UserItem
from voiceagent.engine import api
from voiceagent.engine.protocol import Pcm, Speech, Summary, ToolUse, Written
from voiceagent.engine.scheduler import Limits
from voiceagent.engine.slots import Turn
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


def word_scores(text: str) -> tuple[TokenScore, ...]:
    """Each word with the space before it, as likely as not."""
    return tuple(TokenScore(tuple(word.encode()), -0.693) for word in re.findall(r"\s*\S+", text))


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
