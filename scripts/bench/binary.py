"""What audio costs on the Realtime wire: base64 in JSON, binary frames, and items that are retrieved with their sound.

    PYTHONPATH=. python3 scripts/bench/binary.py

Both directions of one call in frames of 20 ms, through the dialect alone: no socket, no engine. The figures are
processor time of one core; while an item is retrieved, no other call of the process is served.
"""

from __future__ import annotations

import base64
import json
import time

import numpy as np

from voiceagent.audio.resample import resample
from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AssistantItem, AudioContent, Item, Piece, UserItem
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, VOICE_RATE
from voiceagent.wire.binary import read_frame
from voiceagent.wire.dialect import Slow
from voiceagent.wire.realtime import RealtimeDialect

SECONDS = 60
FRAME = VOICE_RATE // 50


def main() -> int:
    sound = (np.random.default_rng(0).standard_normal(SECONDS * VOICE_RATE) * 3000).astype(np.int16)
    chunks = [sound[start : start + FRAME] for start in range(0, len(sound), FRAME)]
    print("| audio | bytes/s, both ways | server, out | server, in | client, out and in |")
    print("|---|---|---|---|---|")
    for binary in (False, True):
        name = "binary frames" if binary else "base64 in JSON"
        bytes_, out, in_, client = measure(chunks, binary=binary)
        print(f"| {name} | {bytes_:,.0f} | {out:.2f} ms/s | {in_:.2f} ms/s | {client:.2f} ms/s |")
    print(f"\n| retrieve {SECONDS} s | processor time |\n|---|---|")
    for who, item in items(sound).items():
        print(f"| of {who} | {min(retrieve(item) for _ in range(5)):.1f} ms |")
    return 0


def items(sound: np.ndarray) -> dict[str, Item]:
    """The sound as a reply's, and as a person's."""
    heard = resample((sound / 32768).astype(np.float32), source=VOICE_RATE, target=MODEL_RATE)
    pieces = [Piece(n, heard[n : n + PIECE_SAMPLES]) for n in range(0, len(heard), PIECE_SAMPLES)]
    chunks = tuple(sound[start : start + 10 * FRAME] for start in range(0, len(sound), 10 * FRAME))
    return {
        "a reply": AssistantItem("r", "Yes.", spoken=True, samples=len(sound), audio=chunks),
        "a person": UserItem("u", (AudioContent(tuple(pieces)),)),
    }


def retrieve(item: Item) -> float:
    """Milliseconds to answer."""
    dialect = RealtimeDialect(session_id="bench", model="m", base=opt.SessionConfig(), voices=("a",))
    began = time.process_time()
    for frame in dialect.render(notices.ItemRetrieved(item)):
        if isinstance(frame, Slow):
            "".join(frame.parts)
    return 1000 * (time.process_time() - began)


def measure(chunks: list[np.ndarray], *, binary: bool) -> tuple[float, float, float, float]:
    """Bytes, and milliseconds of processor time for sending, hearing, and the client's part, per second of audio."""
    dialect = RealtimeDialect(session_id="bench", model="m", base=opt.SessionConfig(), voices=("a",))
    session = {"binary_audio": binary, "audio": {"input": {"turn_detection": None}}}
    list(dialect.receive(json.dumps({"type": "session.update", "session": session})))
    list(dialect.render(notices.TurnOpened(1, "item", opt.TurnOptions())))
    began = time.process_time()
    sent = [frame for chunk in chunks for frame in dialect.render(act.SendAudio(1, "item", chunk))]
    told = time.process_time()
    asked = [ask(chunk.tobytes(), binary=binary) for chunk in chunks]
    for frame in sent:
        hear(frame)
    done = time.process_time()
    for frame in asked:
        list(dialect.receive(frame))
    heard = time.process_time()
    size = sum(map(len, sent)) + sum(map(len, asked))
    times = (told - began, heard - done, done - told)
    return size / SECONDS, *(1000 * spent / SECONDS for spent in times)


def ask(raw: bytes, *, binary: bool) -> str | bytes:
    """A frame of a client's audio."""
    if binary:
        return raw
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(raw).decode()})


def hear(frame: str | bytes) -> bytes | None:
    """The audio of a frame of the server's."""
    if isinstance(frame, bytes):
        found = read_frame(frame)
        return None if found is None else found.audio
    event = json.loads(frame)
    return base64.b64decode(event["delta"]) if event["type"] == "response.output_audio.delta" else None


if __name__ == "__main__":
    raise SystemExit(main())
