"""What each layer of the protocol costs for one frame in and its answer, without sockets: microseconds.

    python3 scripts/bench/wire_layers.py [--format audio/pcmu] [--frame-ms 40]      prints; --write for results/

256 calls take turns, so that what belongs to a call is about as cold as in a server. A frame goes in as text, a frame
of the reply comes out of the engine's pipe and out as text, and probabilities come back as often as they do. Of many
rounds the quickest eight count, because other programs on the machine only ever make one slower.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from wire_parts.case import NOISE, Case  # noqa: E402
from wire_parts.echo import WINDOW  # noqa: E402
from wire_parts.lockstep import lockstep  # noqa: E402

from voiceagent.core import actions as act  # noqa: E402
from voiceagent.core import events as ev  # noqa: E402
from voiceagent.core import options as opt  # noqa: E402
from voiceagent.core.controller import Controller  # noqa: E402
from voiceagent.engine import api, mapping  # noqa: E402
from voiceagent.engine.codec import FrameReader, encode  # noqa: E402
from voiceagent.launch import run_server  # noqa: E402
from voiceagent.server.session import Session  # noqa: E402
from voiceagent.units import VOICE_RATE  # noqa: E402
from voiceagent.wire.realtime import RealtimeDialect  # noqa: E402

BLOCK = 8  # rounds in which as many windows of the voice detector end as in the next ones
ROUNDS = 10 * BLOCK
WARM = 2 * BLOCK  # rounds that are not counted
LAYERS = {
    "receive": "a frame in: JSON, base64, resampling to 16 kHz",
    "hear": "the controller hears it",
    "pipe out": "audio to the engine's pipe, without the write",
    "pipe in": "the engine's answers from its pipe, as events",
    "probabilities": "the controller weighs the voice (1 per 32 ms)",
    "speak": "the controller takes a reply's frame and sends it",
    "render": "a frame out: base64, JSON",
    "deadline": "when to be called next, once an event",
}
TOTALS = {
    "whole": "all of it, as the session calls it",
    "sockets_8": "all of it and what is below: sockets, event loop, aiohttp, pipe; 8 calls at a time",
    "sockets_64": "the same, 64 calls at a time: the event loop wakes less often",
}
TOGETHER = (8, 64)


class Line:
    """Takes what is sent."""

    def send(self, frame: str | bytes) -> None: ...

    def close(self, code: int, reason: str) -> None:
        raise RuntimeError(reason)


class Handle:
    """An engine's session that only encodes."""

    number = 1

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def hear(self, at: int, pcm: Any) -> None:
        encode(api.Audio(self.number, at, mapping.samples_to_bytes(pcm)))

    def send(self, action: Any) -> None:
        self.sent.append(action)

    def close(self) -> None: ...


class Call:
    """One call, whose layers are asked one by one, or all together by its session."""

    def __init__(self, number: int, case: Case, clock: Callable[[], float]) -> None:
        base = opt.SessionConfig(turn_detection=opt.ServerVad(), lead_ms=10_000)
        name = f"{number:012d}"
        self.dialect = RealtimeDialect(session_id=name, model="m", base=base, voices=("v",))
        self.controller = Controller(self.dialect.config, id_prefix=f"item_{name}_")
        self.handle = Handle()
        self.session = Session(
            name=name, controller=self.controller, dialect=self.dialect, line=Line(), clock=clock
        )
        self.session.begin(self.handle)
        shape: dict[str, Any] = {"type": case.format}
        if case.format == "audio/pcm":
            shape["rate"] = 24_000
        vad = {"type": "server_vad", "create_response": False, "interrupt_response": False}
        audio = {"input": {"format": shape, "turn_detection": vad}, "output": {"format": shape}}
        update = {"type": "session.update", "session": {"type": "realtime", "audio": audio}}
        self.session.on_frame(json.dumps(update))
        self.session.on_frame('{"type": "response.create"}')
        self.session.on_engine(ev.TurnStarted(1))
        self.heard = self.judged = self.seq = 0


async def measure(case: Case, *, count: int) -> dict[str, float]:
    """Microseconds of each layer, and of all of them as the session calls them, for one frame in and its answer."""
    now = [0.0]
    calls = [Call(number, case, lambda: now[0]) for number in range(count)]
    audio = base64.b64encode(NOISE[: case.frame_bytes]).decode()
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": audio})
    sound = NOISE[: 2 * VOICE_RATE * case.frame_ms // 1000]
    reader: FrameReader[api.Reply] = FrameReader(api.Reply)
    blocks: list[dict[str, float]] = []
    gc.collect()
    gc.freeze()
    for turn in range(2 * ROUNDS):
        if turn % BLOCK == 0:
            spent: dict[str, float] = defaultdict(float)
            blocks += [spent] if turn % ROUNDS >= WARM else []
        now[0] += case.frame_ms / 1000
        for call in calls:
            step(call, frame, sound, reader, now[0], spent, whole=turn >= ROUNDS)
    for call in calls:
        call.session.end()
    frames = BLOCK * count
    return {
        name: 1e6 / frames * min(spent[name] for spent in blocks if name in spent)
        for name in (*LAYERS, "whole")
    }


def step(
    call: Call, frame: str, sound: bytes, reader: FrameReader[api.Reply], now: float, spent: dict[str, float],
    *, whole: bool,
) -> None:  # fmt: skip
    """One frame in, what the engine says to it, one frame out."""
    clock = time.thread_time
    began = clock()
    if whole:
        call.session.on_frame(frame)
        call.heard = call.session._heard
        spent["whole"] += clock() - began
    else:
        events = list(call.dialect.receive(frame))
        spent["receive"] += clock() - began
        for event in events:
            assert isinstance(event, ev.AudioIn)
            call.heard = event.at + len(event.pcm)
            timed(spent, "pipe out", lambda event=event: call.handle.hear(event.at, event.pcm))
            timed(spent, "hear", lambda event=event: call.controller.handle(event, now))
            timed(spent, "deadline", call.controller.next_deadline)
    answers = encode(api.Sound(1, 1, call.seq, sound, ()))
    call.seq += 1
    while call.judged + WINDOW <= call.heard:
        call.judged += WINDOW
        answers += encode(api.Prob(1, call.judged, 0.02))
    began = clock()
    events = [mapping.to_event(reply) for reply in reader.feed(answers)]  # type: ignore[arg-type]
    spent["whole" if whole else "pipe in"] += clock() - began
    for event in events:
        if whole:
            timed(spent, "whole", lambda event=event: call.session.on_engine(event))
            continue
        name = "speak" if isinstance(event, ev.AudioOut) else "probabilities"
        for action in timed(spent, name, lambda event=event: call.controller.handle(event, now)):
            assert isinstance(action, act.SendAudio)
            timed(spent, "render", lambda action=action: list(call.dialect.render(action)))
        timed(spent, "deadline", call.controller.next_deadline)


def timed(spent: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    began = time.thread_time()
    made = work()
    spent[name] += time.thread_time() - began
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", default="audio/pcm", choices=["audio/pcm", "audio/pcmu", "audio/pcma"])
    parser.add_argument("--frame-ms", type=int, default=20)
    parser.add_argument("--calls", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="also results/wire_layers.json")
    options = parser.parse_args()
    case = Case("layers", frame_ms=options.frame_ms, format=options.format)
    found = asyncio.run(measure(case, count=options.calls))
    for together in TOGETHER:
        found[f"sockets_{together}"] = run_server(
            lockstep(case, count=max(1, options.calls // 4), together=together)
        )
    print("| layer | us |\n|---|---|")
    for name, title in {**LAYERS, **TOTALS}.items():
        print(f"| {title} | {found[name]:.1f} |")
    if options.write:
        rounded = {name: round(us, 1) for name, us in found.items()}
        path = Path(__file__).resolve().parent / "results" / "wire_layers.json"
        path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
