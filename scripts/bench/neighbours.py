#!/usr/bin/env python3
"""Good calls beside a bad one: what the good ones notice, when the bad one is closed and how, what it costs in memory.

    scripts/bench/neighbours.py                        every offender, ten seconds each: the table
    scripts/bench/neighbours.py --only bomb --seconds 20
    scripts/bench/neighbours.py --storm 1000           1,000 connections a second to a full server

Three processes: the server with the scripted engine, the good calls (here), and the offender. A good call sends
40 ms of audio 25 times a second, is spoken to, and asks something small every 200 ms; the time to that answer is what
is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "server")]

from raw_socket import CLOSE, PING, UPGRADE, RawSocket, fragments, frame, request  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

PROBE_S = 0.2
FLAT_MB, FLAT_S, WARM_S = (
    1.0,
    5.0,
    120.0,
)  #: warm = no more growth than that in so long; waited for at most so long
FRAME_S = 0.04
APPEND = frame(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 2560}).encode())
BIG = frame(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (128 << 10)}).encode())
ZEROS = 200 << 20  #: bytes that the bomb unfolds to
console = Console(width=140)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=50, help="good calls")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    parser.add_argument("--only", choices=sorted(OFFENDERS), help="one offender")
    parser.add_argument(
        "--storm", type=int, metavar="N", help="N connections a second to a server that is full"
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--serve", type=int, metavar="SLOTS", help=argparse.SUPPRESS)
    parser.add_argument("--offend", nargs=3, metavar=("NAME", "PORT", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve))
        return 0
    if args.offend:
        name, port, seconds = args.offend
        print(json.dumps(asyncio.run(offend(name, int(port), float(seconds)))))
        return 0
    rows = asyncio.run(storm(args) if args.storm else neighbours(args))
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


# --- the server's process -----------------------------------------------------------------------------------------


async def serve(slots: int) -> None:
    """The real server on a scripted engine, until its input ends; prints its port."""
    from voiceagent.config import Config, LimitsConfig, ServerConfig
    from voiceagent.engine.fake import Script
    from voiceagent.engine.fake_engine import FakeEngine
    from voiceagent.server.app import Server

    async def forget() -> None:  # the scripted engine notes all that it was asked, for tests
        while True:
            await asyncio.sleep(0.5)
            for session in engine.sessions.values():
                session.actions.clear()
                session.heard.clear()

    engine = FakeEngine(Script(speech_ids=25 * 20, rtf=0.05), max_sessions=slots)
    await engine.start()
    # Little of what was said is kept, so that the calls' memory stands still and what an offender adds shows.
    server = Server(Config(server=ServerConfig(port=0), limits=LimitsConfig(history_audio_mb=1)), engine)
    _, port = await server.start()
    forgetting = asyncio.create_task(forget())
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    forgetting.cancel()
    await server.stop()
    await engine.stop()


class ServerProcess:
    """That process, from outside."""

    def __init__(self, slots: int) -> None:
        command = [sys.executable, __file__, "--serve", str(slots)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def rss_mb(self) -> float:
        """Its memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Its processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


# --- the good calls -----------------------------------------------------------------------------------------------


class Good:
    """A call that behaves."""

    def __init__(self, line: RawSocket) -> None:
        self.line = line
        self.times: list[float] = []
        self.broken = False
        self._asked: dict[str, float] = {}
        self._count = 0

    async def run(self) -> None:
        """Talks and listens, until cancelled or closed."""
        self.line.say(
            type="session.update",
            session={"audio": {"input": {"turn_detection": None}}, "output_lead_ms": 300},
        )
        self.line.say(type="response.create")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._talk())
            tasks.create_task(self._listen())

    async def _talk(self) -> None:
        clock = asyncio.get_running_loop().time
        due = probe = clock()
        while True:
            self.line.send(APPEND)
            if clock() >= probe:
                probe += PROBE_S
                self._count += 1
                name = f"probe-{self._count}"
                self._asked[name] = clock()
                self.line.say(type="conversation.item.retrieve", event_id=name, item_id="none")
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - clock()))

    async def _listen(self) -> None:
        clock = asyncio.get_running_loop().time
        while (got := await self.line.receive()) is not None:
            text = got[1]
            if b'"probe-' in text:
                name = text[text.index(b'"probe-') + 1 :].partition(b'"')[0].decode()
                self.times.append(clock() - self._asked.pop(name))
            elif b'"response.done"' in text:
                self.line.say(type="response.create")
        self.broken = True


async def good_calls(port: int, count: int) -> tuple[list[Good], list[asyncio.Task[None]]]:
    """So many good calls, their beginnings spread over a second."""
    calls = [Good(await RawSocket.upgraded(port)) for _ in range(count)]
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call.run()))
        await asyncio.sleep(1.0 / count)
    await asyncio.sleep(1.0)
    return calls, tasks


async def neighbours(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for the good calls alone, and one beside each offender."""
    server = ServerProcess(args.sessions + 200)
    rows = []
    try:
        calls, tasks = await good_calls(server.port, args.sessions)
        await warm(server)
        for name in ["", *([args.only] if args.only else OFFENDERS)]:
            for call in calls:
                call.times.clear()
            before, most, cpu = server.rss_mb(), 0.0, server.cpu_s()
            begun = time.monotonic()
            offending = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--offend", name, str(server.port), str(args.seconds),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            while offending.returncode is None and time.monotonic() - begun < args.seconds + 10:
                await asyncio.sleep(0.05)
                most = max(most, server.rss_mb())
            out, _ = await offending.communicate()
            seconds = time.monotonic() - begun
            row = {"beside": name or "nobody", **summary(calls), **json.loads(out)}
            row |= {"rss_mb": round(most - before, 2), "cpu": round((server.cpu_s() - cpu) / seconds, 2)}
            rows.append(row)
            console.print(row, soft_wrap=True)
            await asyncio.sleep(3.0)
        await end(tasks, calls)
    finally:
        server.stop()
    return rows


async def warm(server: ServerProcess) -> None:
    """Waits until the good calls alone make it no larger: their conversations are full, all code has run."""
    begun, before = time.monotonic(), 0.0
    while server.rss_mb() - before > FLAT_MB and time.monotonic() - begun < WARM_S:
        before = server.rss_mb()
        await asyncio.sleep(FLAT_S)
    console.print(f"{server.rss_mb():.0f} MB after {time.monotonic() - begun:.0f} s with good calls alone")


def summary(calls: list[Good]) -> dict[str, Any]:
    """What the good calls noticed."""
    times = sorted(second for call in calls for second in call.times)
    broken = sum(call.broken for call in calls)
    return {"answers": len(times), **quantiles(times), "broken": broken}


def quantiles(times: list[float]) -> dict[str, float]:
    """Median, 99 of 100, and the longest, in ms."""
    if not times:
        return {"p50_ms": -1.0, "p99_ms": -1.0, "max_ms": -1.0}
    picked = {"p50_ms": times[len(times) // 2], "p99_ms": times[len(times) * 99 // 100], "max_ms": times[-1]}
    return {name: round(1e3 * second, 2) for name, second in picked.items()}


async def end(tasks: list[asyncio.Task[None]], calls: list[Good]) -> None:
    """Ends the good calls."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for call in calls:
        await call.line.gone()


# --- the offender's process ---------------------------------------------------------------------------------------


async def offend(name: str, port: int, seconds: float) -> dict[str, Any]:
    """Offends for so long; when it was closed, and how."""
    began = time.monotonic()
    found: dict[str, Any] = {"closed_s": None, "how": "not closed"}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            how = await OFFENDERS[name](port) if name else await asyncio.sleep(seconds)
            if how is not None:
                found = {"closed_s": round(time.monotonic() - began, 2), "how": how}
                await asyncio.sleep(
                    max(0.0, 2.0 - (time.monotonic() - began))
                )  # something to measure beside it
    return found


def flood(data: bytes, first: bytes = b"") -> Callable[[int], Coroutine[Any, Any, str]]:
    """An offender that sends this again and again, and reads what comes."""

    async def offender(port: int) -> str:
        line = await RawSocket.upgraded(port)
        line.send(first)
        pouring = asyncio.create_task(pour(line, data))
        try:
            return await ending(line)
        finally:
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)

    return offender


async def pour(line: RawSocket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while not line.writer.transport.is_closing():
            line.send(data)
            await line.writer.drain()


async def ending(line: RawSocket) -> str:
    """How the server closes it."""
    last = ""
    while (got := await line.receive()) is not None:
        opcode, payload = got
        if opcode == CLOSE:
            return f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}"
        if payload.startswith(b'{"type": "error"'):
            last = json.loads(payload)["error"]["code"]
    return f"cut ({last})" if last == "too_many_messages" else "cut"


async def bomb(port: int) -> str:
    """200 MiB of zeros in a compressed message, asked for by an extension that is not granted."""
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(ZEROS)) + packer.flush(zlib.Z_SYNC_FLUSH)
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    line = await RawSocket.upgraded(port, headers=headers)
    line.send(frame(data[:-4], reserved=4))
    return await ending(line)


async def half_a_frame(port: int) -> str:
    """A frame that stops in its middle, on 100 sockets: only the pings find them, after 30 s."""
    lines = [await RawSocket.upgraded(port) for _ in range(100)]
    for line in lines:
        line.send(frame(b"x" * 1000)[:500])
    return await ending(lines[-1])


async def dripper(port: int) -> str:
    """300 requests that come a byte in a while."""
    lines = [await RawSocket.open(port) for _ in range(300)]
    whole = request("/v1/realtime", UPGRADE)

    async def drip(line: RawSocket) -> None:
        with contextlib.suppress(ConnectionError):
            for at in range(len(whole)):
                line.send(whole[at : at + 1])
                await asyncio.sleep(0.5)

    dripping = [asyncio.create_task(drip(line)) for line in lines]
    for line in lines:
        with contextlib.suppress(ConnectionError):
            await line.reader.read()
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    return "cut, all 300"


async def slow_reader(port: int) -> str:
    """Asks for everything at once and reads nothing."""
    line = await RawSocket.upgraded(port, receive_buffer=4096)
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line.say(type="session.update", session={"output_lead_ms": None})
    for _ in range(20):
        line.say(type="response.create", response={"conversation": "none"})
    line.say(type="response.create")
    while True:  # the kernel tells of the reset to whoever writes
        await asyncio.sleep(0.1)
        line.send(frame(b"", opcode=PING))
        if line.writer.transport.is_closing():
            return "cut"


OFFENDERS: dict[str, Callable[[int], Coroutine[Any, Any, str]]] = {
    "16 bytes": flood(frame(b'{"type": "a bc"}') * 1000),
    "128 KiB": flood(BIG),
    "pings": flood(frame(b"", opcode=PING) * 1000),
    "endless fragments": flood(frame(b"", opcode=0, fin=False) * 1000, first=frame(b"{", fin=False)),
    "many fragments": flood(fragments(b"{}", [0] * 1000)),
    "bomb": bomb,
    "half frames": half_a_frame,
    "dripper": dripper,
    "slow reader": slow_reader,
}


# --- more than it can take ----------------------------------------------------------------------------------------


async def storm(args: argparse.Namespace) -> list[dict[str, Any]]:
    """So many connections a second to a server whose every session is taken; then one is free again."""
    server = ServerProcess(args.sessions)
    rows = []
    try:
        calls, tasks = await good_calls(server.port, args.sessions)
        for rate in (0, args.storm):
            for call in calls:
                call.times.clear()
            begun, made, answers = time.monotonic(), 0, []
            while time.monotonic() - begun < args.seconds:
                while rate and made < rate * (time.monotonic() - begun):
                    answers.append(asyncio.create_task(knock(server.port)))
                    made += 1
                await asyncio.sleep(0.005)
            told = await asyncio.gather(*answers)
            how = Counter(status for status, _ in told)
            row: dict[str, Any] = {"beside": f"{rate} connections a second", **summary(calls)}
            row |= {"refused": quantiles(sorted(second for _, second in told)), "how": dict(how)}
            rows.append(row)
            console.print(row, soft_wrap=True)
        tasks[-1].cancel()
        await asyncio.gather(tasks[-1], return_exceptions=True)
        await calls[-1].line.gone()
        begun = time.monotonic()
        while (await knock(server.port))[0] != "101":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        console.print(f"a session that became free was taken after {time.monotonic() - begun:.2f} s")
        await end(tasks, calls)
    finally:
        server.stop()
    return rows


async def knock(port: int) -> tuple[str, float]:
    """The status that a new connection gets ("Retry-After" said, if it is there), and when."""
    begun = time.monotonic()
    line = await RawSocket.open(port)
    try:
        line.send(request("/v1/realtime", UPGRADE))
        head = await line.reader.readuntil(b"\r\n\r\n")
        status = head.split()[1].decode() + (" Retry-After" if b"Retry-After" in head else "")
        return status, time.monotonic() - begun
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut", time.monotonic() - begun
    finally:
        await line.gone()


def show(rows: list[dict[str, Any]]) -> None:
    """The table."""
    table = Table(
        "beside",
        "answers",
        "p50 ms",
        "p99 ms",
        "max ms",
        "broken",
        "closed after s",
        "how",
        "RSS MB",
        "server CPU",
    )
    for row in rows:
        cells = [
            row.get(name)
            for name in (
                "answers",
                "p50_ms",
                "p99_ms",
                "max_ms",
                "broken",
                "closed_s",
                "how",
                "rss_mb",
                "cpu",
            )
        ]
        table.add_row(row["beside"], *("" if cell is None else str(cell) for cell in cells))
    console.print(table)
    console.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    sys.exit(main())
