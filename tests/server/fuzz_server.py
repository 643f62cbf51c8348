"""R20: a whole server over live sockets, fuzzed: legal events in any order, torn ones, and frames that are none.

Beside it one caller asks questions and checks every sample; nothing may reach the log as an error. `scripts/fuzz.py
--server` runs it for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_grammar import call
from fuzz_play import LIVE_CODES
from raw_socket import BINARY, CLOSE, PING, PONG, TEXT, RawSocket, fragments, frame, request
from server_helpers import Caller, Site, calling, check_numbers, eventually, serving, tight

from voiceagent.engine.fake import Script
from voiceagent.units import TOKEN_SAMPLES

SCRIPT = Script(speech_ids=4, chunk_ids=2)
ASKED = Script(speech_ids=10)
PATHS = {
    "realtime": "/v1/realtime?model=m",
    "live": "/v1/live/sessions",
    "translation": "/v1/realtime/translations?model=m",
}
CALLS_AT_ONCE = 4
BATCH = 25  #: messages of one connection
PATIENCE_S = 30.0


@dataclass
class Report:
    """What came of it; `problems` is empty if all is well."""

    messages: int = 0
    connections: int = 0
    answers: int = 0
    asked: int = 0  #: questions of the caller beside it
    closed: Counter[int | None] = field(default_factory=Counter)  #: by the server, with this code; None = cut
    rss_before: float = 0.0
    rss_after: float = 0.0
    problems: list[str] = field(default_factory=list)


class Complaints(logging.Handler):
    """Everything that the server logs as an error, or with a traceback."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self._problems.append(f"log: {self.format(record)}"[:3000])


def rss_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def broken(rng: random.Random) -> bytes:
    """Something that is no good frame, or a good one at the wrong time."""
    payload = rng.choice((b"", b"{}", b"\xff\xfe", rng.randbytes(rng.choice((1, 125, 126, 5000)))))
    match rng.randrange(9):
        case 0:
            return rng.randbytes(rng.choice((1, 2, 10, 1000)))
        case 1:
            return frame(payload, opcode=rng.randrange(16), reserved=rng.choice((0, 0, 1, 2, 4)))
        case 2:
            return frame(payload, fin=False)  # and no more of it
        case 3:
            return frame(payload, opcode=0)  # the end of nothing
        case 4:
            return frame(payload[:125], opcode=rng.choice((PING, PONG, CLOSE)), fin=rng.random() < 0.8)
        case 5:
            return frame(payload, opcode=BINARY)
        case 6:
            return frame(payload, masked=False)
        case 7:
            return b"\x81\xff" + rng.choice((2**63, 2**40, 2**20, 2**64 - 1)).to_bytes(8, "big") + bytes(4)
        case _:
            return frame(b'{"type": "response.create"}')[: rng.randrange(1, 30)]  # the line ends in it


def encoded(message: str | bytes, rng: random.Random, *, torn: bool) -> bytes:
    """A message in one frame or in several, with a ping behind them at times; `torn`: half a character stays half."""
    if isinstance(message, bytes):
        return frame(message, opcode=BINARY)
    payload = message.encode(errors="surrogatepass" if torn else "replace")
    if rng.random() < 0.8:
        return frame(payload)
    sizes = [rng.choice((0, 1, 7, 100)) for _ in range(rng.randrange(1, 5))]
    return fragments(payload, sizes) + (frame(b"?", opcode=PING) if rng.random() < 0.3 else b"")


class Fuzzer:
    """One that connects, sends a batch, and looks whether it is still answered; again and again."""

    def __init__(
        self, site: Site, report: Report, rng: random.Random, on_message: Callable[[], None]
    ) -> None:
        self._site, self._report, self._rng, self._on_message = site, report, rng, on_message

    async def run(self, count: int) -> None:
        """Until the report has so many messages."""
        while self._report.messages < count:
            await self._connection()

    async def _connection(self) -> None:
        rng = self._rng
        if rng.random() < 0.05:
            await self._no_request()
            return
        protocol = rng.choice(tuple(PATHS))
        line = await RawSocket.upgraded(self._site.port, PATHS[protocol])
        self._report.connections += 1
        last = f"last-{self._report.messages}"
        violent = rng.random() < 0.3
        steps = [value for kind, value in call(protocol, rng, messages=BATCH) if kind == "send"]
        # Whoever is closed while they still send may lose the close frame: the kernel answers them with a reset.
        ends = any(isinstance(step, str) and '"session.close"' in step for step in steps)
        reading = asyncio.create_task(self._read(line, last, may_end=ends))
        try:
            stop = rng.randrange(len(steps)) if violent else len(steps)
            with contextlib.suppress(ConnectionError):
                for message in steps[:stop]:
                    line.send(encoded(message, rng, torn=violent))
                    self._count()
                    if rng.random() < 0.1:
                        await line.writer.drain()
                for _ in range(rng.randrange(1, 4) if violent else 0):
                    line.send(broken(rng))
                    self._count()
                await line.writer.drain()
            if violent:  # whatever was said, the server goes on without us
                await asyncio.wait([reading], timeout=rng.choice((0.0, 0.01)))
            else:
                kind = "conversation.item.retrieve" if protocol == "realtime" else "session.input_audio.mute"
                line.say(type=kind, event_id=last, **({"item_id": "none"} if protocol == "realtime" else {}))
                async with asyncio.timeout(PATIENCE_S):
                    if not await reading:
                        self._report.problems.append(f"a good message was not answered on {protocol}")
        except TimeoutError:
            self._report.problems.append(f"no answer for {PATIENCE_S} s on {protocol}")
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await line.gone()

    def _count(self) -> None:
        self._report.messages += 1
        self._on_message()

    async def _read(self, line: RawSocket, last: str, *, may_end: bool) -> bool:
        """Reads to the answer of the last message, or the end; whether either was as it should be."""
        while (got := await line.receive()) is not None:
            opcode, payload = got
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else None
                self._report.closed[code] += 1
                if code == 1011:
                    self._report.problems.append("closed with 1011")
                return may_end
            if opcode == TEXT:
                event = json.loads(payload)
                self._report.answers += 1
                self._judge(event)
                if last in payload.decode():
                    return True
        self._report.closed[None] += 1
        return may_end

    def _judge(self, event: dict[str, Any]) -> None:
        if event["type"] == "error":
            code = event["error"]["code"]
            if code not in LIVE_CODES or code == "internal_error":
                self._report.problems.append(f"the error {event['error']}")

    async def _no_request(self) -> None:
        """Something that is no HTTP, or no WebSocket handshake."""
        rng = self._rng
        line = await RawSocket.open(self._site.port)
        self._report.connections += 1
        self._count()
        good = request("/v1/realtime", {"Upgrade": "websocket", "Connection": "Upgrade"})
        line.send(
            rng.choice(
                (rng.randbytes(300), good, good[: rng.randrange(len(good))], b"GET / HTTP/9.9\r\n\r\n")
            )
        )
        with contextlib.suppress(ConnectionError):
            await line.writer.drain()
            await asyncio.sleep(0)
        await line.gone()


async def ask_on(caller: Caller, report: Report, over: asyncio.Event) -> None:
    """Questions beside it all, with every sample checked."""
    while not over.is_set():
        heard = await caller.ask("hello")
        try:
            check_numbers(heard, session=1, whole=SCRIPT.speech_ids * TOKEN_SAMPLES)
            assert heard.status == "completed"
        except AssertionError:
            report.problems.append(f"question {report.asked} beside it: {heard.status} {heard.error}")
        report.asked += 1
        caller.log.clear()  # what a client remembers is no memory of the server's
        caller.responses.clear()
        await asyncio.sleep(0.01)


async def fuzz_server(seed: str, *, count: int, on_message: Callable[[], None] = lambda: None) -> Report:
    """Sends so many messages to a server of its own."""
    report, over = Report(), asyncio.Event()
    complaints = Complaints(report.problems)
    logging.getLogger().addHandler(complaints)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: report.problems.append(f"loop: {context}"))
    try:
        async with (
            serving(SCRIPT, limits=tight(messages_per_s=1e6, message_burst=10**6)) as site,
            calling(site) as good,
        ):
            await good.manual()
            await good.ask("hello")
            report.rss_before = rss_mib()
            asking = asyncio.create_task(ask_on(good, report, over))
            fuzzers = [
                Fuzzer(site, report, random.Random(f"{seed}/{n}"), on_message) for n in range(CALLS_AT_ONCE)
            ]
            await asyncio.gather(*(fuzzer.run(count) for fuzzer in fuzzers))
            over.set()
            await asking
            with contextlib.suppress(TimeoutError):
                await eventually(lambda: len(site.engine.sessions) == 1)
            if len(site.engine.sessions) != 1:
                report.problems.append(f"{len(site.engine.sessions) - 1} sessions are left over")
            report.rss_after = rss_mib()
    finally:
        logging.getLogger().removeHandler(complaints)
        loop.set_exception_handler(None)
    return report
