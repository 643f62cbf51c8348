"""Asks a question that is in an audio file, and saves the spoken answer.

python scripts/examples/ask_from_file.py question.wav --out answer.wav
"""

import argparse
import asyncio
from pathlib import Path

from voiceagent.audio import wavio
from voiceagent.client import RealtimeClient

QUESTION = Path(__file__).resolve().parents[2] / "tests" / "data" / "questions" / "price.flac"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Asks a question that is in an audio file.")
    parser.add_argument("file", nargs="?", type=Path, default=QUESTION)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="")
    parser.add_argument("--out", type=Path, default=Path("answer.wav"))
    given = parser.parse_args()
    async with RealtimeClient(given.url, api_key=given.key) as agent:
        answer = await agent.ask_file(given.file)
    wavio.write(given.out, answer.samples, rate=24_000)
    print(f"you:   {answer.heard}")
    print(f"agent: {answer.said}")
    print(f"first sound after {answer.first_audio_s:.2f} s, all of it in {given.out}")


asyncio.run(main())
