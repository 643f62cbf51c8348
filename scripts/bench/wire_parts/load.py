"""The clients of the benchmark: raw sockets in one thread, so that they cost little beside the server."""

from __future__ import annotations

import base64
import json
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from wire_parts.case import NOISE, RATES, Case

from voiceagent.audio.polyphase import LiveResampler
from voiceagent.units import MODEL_RATE

MASK = b"\x37\xfa\x21\x3d"


def frame(payload: bytes) -> bytes:
    """A text message as a client sends it."""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (np.frombuffer(payload, np.uint8) ^ np.frombuffer(key, np.uint8)).tobytes()
    length = len(payload)
    head = bytes([0x81, 0x80 | length]) if length < 126 else b"\x81\xfe" + length.to_bytes(2, "big")
    return head + MASK + masked


def text(kind: str, **fields: Any) -> bytes:
    return frame(json.dumps({"type": kind, **fields}).encode())


def opening(case: Case) -> bytes:
    """What a call says first."""
    audio: dict[str, Any] = {"type": case.format}
    if case.format == "audio/pcm":
        audio["rate"] = RATES["audio/pcm"]
    vad = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    update: dict[str, Any] = {
        "type": "realtime",
        "audio": {
            "input": {"format": audio, "turn_detection": vad, "transcription": None},
            "output": {"format": audio},
        },
    }
    if case.reply == "echo":
        update["output_lead_ms"] = 10_000  # a delay of ours must not make the server hold the echo back
    return text("session.update", session=update) + text("response.create")


@dataclass(slots=True)
class Caller:
    """One client: a socket, what it sent when, and what it got."""

    socket: socket.socket
    phase: float  #: seconds; its place within a frame's time
    sent: int = 0
    times: dict[int, float] = field(default_factory=dict)  #: by what the engine has heard once it is there
    heard: int = 0
    messages: int = 0
    last_stamp: int = 0
    buffer: bytes = b""
    events: list[str] = field(default_factory=list)


class Load:
    """All callers: one thread, one epoll, frames made in advance; a tick of 1 ms."""

    def __init__(self, case: Case, port: int, *, sessions: int) -> None:
        self.case = case
        raw = NOISE[: case.frame_bytes]
        rate = RATES[case.format]
        self._audio = text("input_audio_buffer.append", audio=base64.b64encode(raw).decode())
        self._arrivals = arrivals(rate, rate * case.frame_ms // 1000)
        self._poll = select.epoll()
        self.period = case.frame_ms / 1000
        self.latencies: list[float] = []
        self.callers: dict[int, Caller] = {}
        for number in range(sessions):
            caller = Caller(connect(port), number * self.period / sessions)
            self.callers[caller.socket.fileno()] = caller
            self._poll.register(caller.socket.fileno(), select.EPOLLIN)
            caller.socket.sendall(opening(case))

    def run(self, seconds: float) -> None:
        """Sends and receives for so long."""
        now = began = time.perf_counter()
        if not any(caller.sent for caller in self.callers.values()):
            self._began = began
        order = sorted(self.callers.values(), key=lambda caller: caller.phase)
        turn = min(range(len(order)), key=lambda n: self._due(order[n]))
        while now - began < seconds:
            while self._due(order[turn]) <= now:
                self._send(order[turn])
                turn = (turn + 1) % len(order)
            for number, _ in self._poll.poll(0.001):
                self._receive(self.callers[number])
            now = time.perf_counter()

    def _due(self, caller: Caller) -> float:
        return self._began + caller.phase + caller.sent * self.period

    def _send(self, caller: Caller) -> None:
        heard = self._arrivals(caller.sent)
        caller.sent += 1
        caller.times.setdefault(heard, time.perf_counter())
        sent = caller.socket.send(self._audio)
        if sent != len(self._audio):
            raise RuntimeError("the server does not read")

    def _receive(self, caller: Caller) -> None:
        data = caller.buffer + caller.socket.recv(1 << 16)
        now = time.perf_counter()
        at = 0
        while len(data) - at >= 4:
            size, head = data[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif size == 127:
                raise RuntimeError("a message that is longer than any should be")
            if len(data) - at < head + size:
                break
            self._take(caller, data, at + head, at + head + size, now)
            at += head + size
        caller.buffer = data[at:]

    def _take(self, caller: Caller, data: bytes, start: int, end: int, now: float) -> None:
        at = data.find(b"output_audio.delta", start, min(start + 60, end))
        if at < 0:
            event = json.loads(data[start:end])
            caller.events.append(event["type"])
            if event["type"] in ("error", "response.done"):
                raise RuntimeError(f"the server says {event}")
            return
        caller.messages += 1
        at = data.index(b'"delta"', at + 20, end)
        at = data.index(b'"', at + 8, end) + 1
        caller.heard += (data.index(b'"', at, end) - at) * 3 // 4
        if self.case.reply == "echo" and self.case.format == "audio/pcm":
            stamp = int.from_bytes(base64.b64decode(data[at : at + 12])[:8], "little")
            if stamp < caller.last_stamp:
                raise RuntimeError("sound came in the wrong order, or of another call")
            if stamp > caller.last_stamp:
                self.latencies.append(now - caller.times.pop(stamp))
            caller.last_stamp = stamp


def arrivals(rate: int, samples: int) -> Callable[[int], int]:
    """What the engine has heard (16 kHz) after the n-th frame: the server's resampler works in blocks."""
    stream = LiveResampler(source=rate, target=MODEL_RATE)
    known: list[int] = []
    silence = np.zeros(samples, np.float32)

    def heard(number: int) -> int:
        while len(known) <= number:
            stream.push(silence)
            known.append(stream.produced)
        return known[number]

    return heard


def connect(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.sendall(
        b"GET /v1/realtime?model=echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = b""
    while not answer.endswith(
        b"\r\n\r\n"
    ):  # the first event may only come later: the greeting is read one by one
        answer += line.recv(1)
    if b" 101 " not in answer:
        raise RuntimeError(answer.decode())
    return line
