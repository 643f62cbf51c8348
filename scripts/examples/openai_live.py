"""The Live protocol with the unmodified openai package: it listens all the time, and transcripts of both sides come
on one timeline. The microphone is a file here.
"""

import argparse
import asyncio
import base64
from pathlib import Path

from openai import AsyncOpenAI

QUESTION = Path(__file__).resolve().parents[2] / "tests" / "data" / "questions" / "hours.flac"
BLOCK = 24_000 // 25  #: samples of 40 ms


def blocks(path: Path) -> list[bytes]:
    """16-bit PCM at 24 kHz in 40 ms, with the silence behind it that ends a turn."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="int16")
    pcm = soxr.resample(samples, rate, 24_000).astype("<i2").tobytes() + bytes(48_000)
    return [pcm[start : start + 2 * BLOCK] for start in range(0, len(pcm), 2 * BLOCK)]


async def main() -> None:
    parser = argparse.ArgumentParser(description="Speaks a file to the Live endpoint.")
    parser.add_argument("file", nargs="?", type=Path, default=QUESTION)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    given = parser.parse_args()
    client = AsyncOpenAI(base_url=f"{given.url}/v1", api_key=given.key)
    async with client, client.live.connect() as call:
        await call.session.start(session={"model": "pocket"})

        async def speak() -> None:
            for block in blocks(given.file):
                await call.session.input_audio.append(audio=base64.b64encode(block).decode())
                await asyncio.sleep(0.04)

        microphone = None
        async for event in call:
            if event.type == "session.started":
                microphone = asyncio.create_task(speak())
            elif event.type in ("session.input_transcript.delta", "session.output_transcript.delta"):
                who = "you:" if "input" in event.type else "agent:"
                print(f"{event.start_ms / 1000:6.2f} s  {who:<7}{event.delta.strip()}")
            elif event.type == "session.usage.updated":  # the reply is over
                await call.session.close()
            elif event.type == "session.closed":
                print(f"closed: {event.reason}, {event.usage.seconds:.1f} s")
                break
        if microphone is not None:
            microphone.cancel()


asyncio.run(main())
