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
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from wire_parts.case import NOISE, Case  # noqa: E402
from wire_parts.echo import engine  # noqa: E402
from wire_parts.load import Load  # noqa: E402

from voiceagent.config import Config, EngineConfig, ServerConfig  # noqa: E402
from voiceagent.engine.client import LocalEngine  # noqa: E402
from voiceagent.engine.pipe import WorkerSpec  # noqa: E402
from voiceagent.launch import run_server  # noqa: E402
from voiceagent.server.app import Server  # noqa: E402
from voiceagent.units import VOICE_RATE  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
WARM_S = 2.5
LAG_S = 0.01
GOAL = {"case": "pcm-20", "cpu_percent": 60.0, "p99_ms": 5.0}

CASES = (
    Case("pcm-20"),
    Case("pcm-20-paced", reply="paced"),
    Case("pcm-40", frame_ms=40),
    Case("pcmu-20", format="audio/pcmu"),
    Case("floor-20", reply="floor"),
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
    if case.reply == "floor":
        await report(await floor(case), None)
        return
    config = Config(server=ServerConfig(port=0), engine=EngineConfig(max_sessions=sessions))
    engine = LocalEngine(cast(WorkerSpec, EchoSpec(case, engine_core)))
    server = Server(config, engine)
    _, port = await server.start()
    await engine.start()
    await report(port, engine.pid)
    await server.stop()
    await engine.stop()


async def floor(case: Case) -> int:
    """A server that does nothing but receive and send; returns its port."""
    delta = base64.b64encode(NOISE[: 2 * VOICE_RATE * case.frame_ms // 1000]).decode()
    ids = {
        "event_id": "event_1234567890ab_1000",
        "response_id": "resp_1234567890ab_1",
        "item_id": "item_12345678_1",
    }
    at = {"output_index": 0, "content_index": 0}
    answer = json.dumps({"type": "response.output_audio.delta", **ids, **at, "delta": delta})

    async def converse(request: web.Request) -> web.StreamResponse:
        line = web.WebSocketResponse(compress=False)
        await line.prepare(request)
        async for _ in line:
            await line.send_str(answer)
        return line

    app = web.Application()
    app.router.add_get("/v1/realtime", converse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return int(runner.addresses[0][1])


async def report(port: int, engine_pid: int | None) -> None:
    """Tells the port, then the figures so far for each line of the input, until that ends."""
    lags: list[float] = []
    meter = asyncio.get_running_loop().create_task(_measure_lag(lags))
    print(json.dumps({"port": port}), flush=True)
    lines = await _stdin()
    while await lines.readline():
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"user_s": used.ru_utime, "system_s": used.ru_stime, "rss_mb": used.ru_maxrss / 1024}
        figures["engine_s"] = cpu_seconds(engine_pid)
        print(json.dumps(figures | {"at": time.perf_counter(), "lag_ms": percentiles(lags)}), flush=True)
        lags.clear()
    meter.cancel()


def cpu_seconds(pid: int | None) -> float:
    """What a process has used; 0 for none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        "engine_cpu_percent": round(100 * (after["engine_s"] - before["engine_s"]) / wall, 1),
    }


def counts(load: Load) -> tuple[int, int]:
    callers = load.callers.values()
    return sum(caller.sent for caller in callers), sum(caller.messages for caller in callers)


def check(load: Load, seconds: float) -> None:
    """Everybody heard as much as they said."""
    rate = load.case.frame_bytes * 1000 / load.case.frame_ms
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
    parser.add_argument("--seconds", type=float, default=7.0, help="measured, of each case")
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
