"""What the protocol layer costs: many duplex calls on one server process, with an engine that answers at once.

    python3 scripts/bench/wire.py                        the table, in about a minute; writes results/wire.json, wire.md
    python3 scripts/bench/wire.py --case pcm-20          one case (see CASES), nothing is written
    python3 scripts/bench/wire.py --sessions 128 --seconds 30

Three processes: the server (the real one, on core 0), an engine that echoes, and a load generator (both on the last
core). Every call sends audio all the time and is spoken to all the time. Scripts/bench/README.md says what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import platform
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from voiceagent.audio.resample import ResampleStream  # noqa: E402
from voiceagent.config import Config, EngineConfig, ServerConfig  # noqa: E402
from voiceagent.engine import api  # noqa: E402
from voiceagent.engine.client import LocalEngine  # noqa: E402
from voiceagent.engine.codec import FrameReader, encode  # noqa: E402
from voiceagent.engine.pipe import WorkerSpec  # noqa: E402
from voiceagent.launch import run_server  # noqa: E402
from voiceagent.server.app import Server  # noqa: E402
from voiceagent.units import MODEL_RATE, TOKEN_SAMPLES, VOICE_RATE  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
WINDOW = 512  # samples at 16 kHz per probability, as in the real voice detector
WARM_S = 3.0
LAG_S = 0.01
CHUNKS = (12, 20, 25)  # speech ids in the chunks of a paced reply, the last number holds
AHEAD_S = 1.0  # how far the engine of a paced reply works ahead
RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
MASK = b"\x37\xfa\x21\x3d"
GOAL = {"cpu_percent": 60.0, "p99_ms": 5.0}


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        frame_ms: audio per message, into the server.
        reply: "echo" = the engine sends as much as it hears, as one message per frame; "paced" = it sends the chunks of
            a real reply ahead of time, and the server's mouth paces them out.
        format: of both directions.
    """

    name: str
    frame_ms: int = 20
    reply: str = "echo"
    format: str = "audio/pcm"


CASES = (
    Case("pcm-20"),
    Case("pcm-20-paced", reply="paced"),
    Case("pcm-40", frame_ms=40),
    Case("pcmu-20", format="audio/pcmu"),
)


# --- the server ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EchoSpec:
    """Starts this script as the engine; takes the place of a `WorkerSpec`."""

    case: Case
    core: int
    name: str = "echo"

    def argv(self, fd: int) -> list[str]:
        case = json.dumps(asdict(self.case))
        return [
            sys.executable,
            __file__,
            "--role",
            "engine",
            "--fd",
            str(fd),
            "--only",
            case,
            "--core",
            str(self.core),
        ]


def serve(case: Case, *, sessions: int, core: int, engine_core: int, uvloop: bool) -> None:
    os.sched_setaffinity(0, {core})
    work = _serve(case, sessions, engine_core)
    if uvloop:
        run_server(work)
    else:
        asyncio.run(work)


async def _serve(case: Case, sessions: int, engine_core: int) -> None:
    config = Config(server=ServerConfig(port=0), engine=EngineConfig(max_sessions=sessions))
    engine = LocalEngine(cast(WorkerSpec, EchoSpec(case, engine_core)))
    server = Server(config, engine)
    _, port = await server.start()
    await engine.start()
    lags: list[float] = []
    meter = asyncio.get_running_loop().create_task(_measure_lag(lags))
    print(json.dumps({"port": port}), flush=True)
    lines = await _stdin()
    while await lines.readline():  # each line asks for the figures so far, the end of the input ends us
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"user_s": used.ru_utime, "system_s": used.ru_stime, "rss_mb": used.ru_maxrss / 1024}
        figures["switches"] = used.ru_nvcsw
        print(json.dumps(figures | {"at": time.perf_counter(), "lag_ms": percentiles(lags)}), flush=True)
        lags.clear()
    meter.cancel()
    await server.stop()
    await engine.stop()


async def _measure_lag(lags: list[float]) -> None:
    """How much later than asked for a sleep ends, in seconds."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(LAG_S)
        lags.append(time.perf_counter() - began - LAG_S)


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


# --- the engine ---------------------------------------------------------------------------------------------------


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
        answers = [
            encode(answer) for command in frames.feed(data) for answer in _answer(calls, command, case)
        ]
        if answers:
            pipe.sendall(b"".join(answers))


def _answer(calls: dict[int, Call], command: api.Command, case: Case) -> Iterator[api.Reply]:
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
            session, call.turn, call.seq, call.heard.to_bytes(8, "little") + _NOISE[8 : 2 * count], ()
        )
        call.seq += 1


def _ahead(session: int, call: Call, _: Case) -> Iterator[api.Sound]:
    """The chunks of a reply, `AHEAD_S` ahead of the ear."""
    while (call.heard - call.base + AHEAD_S * MODEL_RATE) * VOICE_RATE > call.made * MODEL_RATE:
        ids = CHUNKS[min(call.seq, len(CHUNKS) - 1)]
        yield api.Sound(session, call.turn, call.seq, _NOISE[: 2 * ids * TOKEN_SAMPLES], tuple(range(ids)))
        call.made += ids * TOKEN_SAMPLES
        call.seq += 1


_NOISE = np.random.default_rng(1).normal(0, 30, 2 * VOICE_RATE).astype("<i2").tobytes()


# --- the load -----------------------------------------------------------------------------------------------------


class Clock(Protocol):
    def __call__(self) -> float: ...


def frame(payload: bytes) -> bytes:
    """A text message as a client sends it."""
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = (np.frombuffer(payload, np.uint8) ^ np.frombuffer(key, np.uint8)).tobytes()
    length = len(payload)
    head = bytes([0x81, 0x80 | length]) if length < 126 else b"\x81\xfe" + length.to_bytes(2, "big")
    return head + MASK + masked


def text(kind: str, **fields: Any) -> bytes:
    return frame(json.dumps({"type": kind, **fields}).encode())


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
        rate = RATES[case.format]
        raw = _NOISE[: rate * case.frame_ms // 1000 * (2 if case.format == "audio/pcm" else 1)]
        self._audio = text("input_audio_buffer.append", audio=base64.b64encode(raw).decode())
        self._arrivals = arrivals(rate, len(raw) // (2 if case.format == "audio/pcm" else 1))
        self._poll = select.epoll()
        self.period = case.frame_ms / 1000
        self.latencies: list[float] = []
        self.callers: dict[int, Caller] = {}
        for number in range(sessions):
            caller = Caller(connect(port), number * self.period / sessions)
            self.callers[caller.socket.fileno()] = caller
            self._poll.register(caller.socket.fileno(), select.EPOLLIN)
            caller.socket.sendall(self._opening())

    def _opening(self) -> bytes:
        audio = {"type": self.case.format}
        if self.case.format == "audio/pcm":
            audio["rate"] = cast(Any, 24_000)
        vad = {"type": "server_vad", "create_response": False, "interrupt_response": False}
        update = {
            "type": "realtime",
            "audio": {
                "input": {"format": audio, "turn_detection": vad, "transcription": None},
                "output": {"format": audio},
            },
        }
        if self.case.reply == "echo":
            update["output_lead_ms"] = 10_000  # a delay of ours must not make the server hold the echo back
        return text("session.update", session=update) + text("response.create")

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


def arrivals(rate: int, samples: int) -> Any:
    """What the engine has heard (16 kHz) after the n-th frame: the server's resampler works in blocks."""
    stream = ResampleStream(source=rate, target=MODEL_RATE)
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


# --- one case -----------------------------------------------------------------------------------------------------


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Runs one case; the figures of its row."""
    last = max(os.sched_getaffinity(0))
    first = min(os.sched_getaffinity(0))
    command = [sys.executable, __file__, "--role", "server", "--only", json.dumps(asdict(case))]
    command += ["--sessions", str(options.sessions), "--core", str(first), "--engine-core", str(last)]
    command += ["--loop", options.loop]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        told, tells = server.stdin, server.stdout

        def ask() -> dict[str, Any]:
            told.write("\n")
            told.flush()
            found: dict[str, Any] = json.loads(tells.readline())
            return found

        before_affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {last})
        try:
            port = json.loads(server.stdout.readline())["port"]
            load = Load(case, port, sessions=options.sessions)
            load.run(WARM_S)
            load.latencies.clear()
            sent, got = counts(load)
            own = time.process_time()
            before = ask()
            load.run(options.seconds)
            after = ask()
            own = time.process_time() - own
            sent, got = (new - old for new, old in zip(counts(load), (sent, got), strict=True))
            check(load, options.seconds)
        finally:
            os.sched_setaffinity(0, before_affinity)
            with contextlib.suppress(BrokenPipeError):
                server.stdin.close()
            server.wait(20)
    wall = after["at"] - before["at"]
    user, system = after["user_s"] - before["user_s"], after["system_s"] - before["system_s"]
    return {
        "case": case.name,
        "sessions": options.sessions,
        "seconds": round(wall, 2),
        "loop": options.loop,
        "cpu_percent": round(100 * (user + system) / wall, 1),
        "system_percent": round(100 * system / wall, 1),
        "in_per_s": round(sent / wall),
        "out_per_s": round(got / wall),
        "us_per_pair": round(1e6 * (user + system) / max(sent, 1), 1),
        "cpu_percent_per_session": round(100 * (user + system) / wall / options.sessions, 3),
        "latency_ms": percentiles(load.latencies),
        "lag_ms": after["lag_ms"],
        "rss_mb": round(after["rss_mb"]),
        "load_cpu_percent": round(100 * own / wall, 1),
    }


def counts(load: Load) -> tuple[int, int]:
    callers = load.callers.values()
    return sum(caller.sent for caller in callers), sum(caller.messages for caller in callers)


def check(load: Load, seconds: float) -> None:
    """Everybody heard as much as they said."""
    rate = RATES[load.case.format] * (2 if load.case.format == "audio/pcm" else 1)
    for caller in load.callers.values():
        if caller.heard < (seconds - 1.0) * rate:
            raise RuntimeError(f"a call got {caller.heard / rate:.1f} s of sound in {seconds + WARM_S:.1f} s")


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """In milliseconds; None of nothing."""
    if not seconds:
        return None
    marks = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {name: round(1000 * float(np.percentile(seconds, mark)), 2) for name, mark in marks.items()}


# --- the table ----------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| case | sessions | CPU of one core | per session | messages/s in + out | us per frame in and its answer"
        " | added latency p50 / p99 / p99.9 | loop lag p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        late, lag = row["latency_ms"], row["lag_ms"]
        waits = " / ".join(f"{late[key]:.1f}" for key in ("p50", "p99", "p99.9")) + " ms" if late else ""
        lines.append(
            f"| {row['case']} | {row['sessions']} | {row['cpu_percent']:.0f} % | {row['cpu_percent_per_session']:.2f} %"
            f" | {row['in_per_s']:,} + {row['out_per_s']:,} | {row['us_per_pair']:.1f} | {waits}"
            f" | {lag['p99']:.1f} ms |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=9.0, help="measured, of each case")
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append", help="default: all")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    for name in ("--role", "--only"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--core", "--engine-core", "--fd"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.role is not None:
        case = Case(**json.loads(options.only))
        if options.role == "engine":
            engine(case, options.fd, options.core)
        else:
            serve(
                case, sessions=options.sessions, core=options.core, engine_core=options.engine_core,
                uvloop=options.loop == "uvloop",
            )  # fmt: skip
        return 0
    rows = []
    for case in CASES:
        if options.case is None or case.name in options.case:
            rows.append(measure(case, options))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    if options.case is None:
        found = {"machine": machine(), "goal": GOAL, "rows": rows}
        (RESULTS / "wire.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "wire.md").write_text(table(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
