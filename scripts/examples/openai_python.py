"""The unmodified openai package (pip install "openai[realtime]"): a typed question answered aloud, saved as a file."""

import argparse
import asyncio
import base64
import wave
from pathlib import Path

from openai import AsyncOpenAI


async def main() -> None:
    parser = argparse.ArgumentParser(description="Asks with the openai package.")
    parser.add_argument("question", nargs="?", default="do you have a pool")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="none")
    parser.add_argument("--out", type=Path, default=Path("answer.wav"))
    given = parser.parse_args()
    client = AsyncOpenAI(base_url=f"{given.url}/v1", api_key=given.key)
    async with client, client.realtime.connect(model="pocket") as call:
        content = [{"type": "input_text", "text": given.question}]
        await call.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await call.response.create()
        sound = b""
        async for event in call:
            if event.type == "response.output_audio.delta":
                sound += base64.b64decode(event.delta)  # 16-bit PCM, 24 kHz
            elif event.type == "response.output_audio_transcript.done":
                print(f"agent: {event.transcript}")
            elif event.type == "response.done":
                break
    with wave.open(str(given.out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(sound)
    print(f"{len(sound) / 48_000:.1f} s of speech in {given.out}")


asyncio.run(main())
