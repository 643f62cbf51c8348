"""The engine of the benchmark: it answers at once, in a process of its own, by the engine's real protocol."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from wire_parts.case import NOISE, Case

from voiceagent.engine import api
from voiceagent.engine.codec import FrameReader, encode
from voiceagent.units import MODEL_RATE, TOKEN_SAMPLES, VOICE_RATE

WINDOW = 512  # samples at 16 kHz per probability, as in the real voice detector
CHUNKS = (12, 16, 25)  # speech ids in the chunks of a paced reply, the last number holds
AHEAD_S = 1.0  # how far the engine of a paced reply works ahead


@dataclass(slots=True)
class Call:
    """What the engine knows of one session."""

    heard: int = 0  #: samples at 16 kHz
    judged: int = 0
    turn: int = 0
    base: int = 0  #: heard when the turn began
    made: int = 0  #: samples at 24 kHz
    seq: int = 0


def engine(case: Case, fd: int, core: int) -> None:
    """Answers every window with a probability, and speaks as long as it hears."""
    os.sched_setaffinity(0, {core})
    pipe = socket.socket(fileno=fd)
    pipe.sendall(encode(api.Ready("echo", "none", "none", ("none",), 16_384, 4096, 0.0)))
    frames: FrameReader[api.Command] = FrameReader(api.Command)
    calls: dict[int, Call] = {}
    while data := pipe.recv(1 << 18):
        answers = [encode(reply) for command in frames.feed(data) for reply in answer(calls, command, case)]
        if answers:
            pipe.sendall(b"".join(answers))


def answer(calls: dict[int, Call], command: api.Command, case: Case) -> Iterator[api.Reply]:
    """What the engine says to a command."""
    match command:
        case api.Audio():
            call = calls[command.session]
            call.heard = command.at + len(command.pcm) // 4
            while call.judged + WINDOW <= call.heard:
                call.judged += WINDOW
                yield api.Prob(command.session, call.judged, 0.02)
            if call.turn:
                yield from (_echo if case.reply == "echo" else _ahead)(command.session, call, case)
        case api.OpenSession():
            calls[command.session] = Call()
        case api.Begin():
            call = calls[command.session]
            call.turn, call.base = command.turn, call.heard
            yield api.Started(command.session, command.turn)
        case api.CloseSession():
            calls.pop(command.session, None)
        case api.Ping():
            yield api.Pong(command.number)
        case api.Shutdown():
            sys.exit()
        case _:
            pass


def _echo(session: int, call: Call, case: Case) -> Iterator[api.Sound]:
    """A frame for every frame that was heard whole, stamped with what was heard so far."""
    count = VOICE_RATE * case.frame_ms // 1000
    while (call.heard - call.base) * VOICE_RATE >= (call.made + count) * MODEL_RATE:
        call.made += count
        yield api.Sound(
            session, call.turn, call.seq, call.heard.to_bytes(8, "little") + NOISE[8 : 2 * count], ()
        )
        call.seq += 1


def _ahead(session: int, call: Call, _: Case) -> Iterator[api.Sound]:
    """The chunks of a reply, `AHEAD_S` ahead of the ear."""
    while (call.heard - call.base + AHEAD_S * MODEL_RATE) * VOICE_RATE > call.made * MODEL_RATE:
        ids = CHUNKS[min(call.seq, len(CHUNKS) - 1)]
        yield api.Sound(session, call.turn, call.seq, NOISE[: 2 * ids * TOKEN_SAMPLES], tuple(range(ids)))
        call.made += ids * TOKEN_SAMPLES
        call.seq += 1
