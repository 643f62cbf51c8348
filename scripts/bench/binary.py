"""What audio costs on the Realtime wire as base64 in JSON, and as binary frames: bytes, and work of one core.

    PYTHONPATH=. python3 scripts/bench/binary.py

Both directions of one call in frames of 20 ms, through the dialect alone: no socket, no engine.
"""

from __future__ import annotations

import base64
import json
import time

import numpy as np

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.units import VOICE_RATE
from voiceagent.wire.binary import read_frame
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
    return 0


def measure(chunks: list[np.ndarray], *, binary: bool) -> tuple[float, float, float, float]:
    """Bytes, and milliseconds of processor time for sending, hearing, and the client's part, per second of audio."""
    dialect = RealtimeDialect(session_id="bench", model="m", base=core.SessionConfig(), voices=("a",))
    session = {"binary_audio": binary, "audio": {"input": {"turn_detection": None}}}
    list(dialect.receive(json.dumps({"type": "session.update", "session": session})))
    list(dialect.render(act.TurnOpened(1, "item", act.TurnOptions())))
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
