"""Talks to the agent from the terminal, with captions of both sides. Ctrl-C ends it. Wear headphones.

Needs sounddevice (pip install 'voiceagent[mic]'). `voiceagent talk` is this with more options.
"""

import argparse
import asyncio
from contextlib import suppress
from pathlib import Path

from voiceagent.client import RealtimeClient
from voiceagent.client.mic import microphone, speaker
from voiceagent.client.talk import Line, talk


def show(line: Line) -> None:
    took = "" if line.latency_s is None else f"   ({line.latency_s:.2f} s)"
    print(f"{line.who:>6}: {line.text}{took}")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Talks to the agent from the terminal.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", default="")
    parser.add_argument("--from-file", type=Path, help="instead of the microphone")
    parser.add_argument("--to-file", type=Path, help="instead of the loudspeaker")
    parser.add_argument("--answers", type=int, help="end after so many")
    given = parser.parse_args()
    async with (
        speaker(given.to_file) as loudspeaker,
        microphone(given.from_file) as heard,
        RealtimeClient(given.url, api_key=given.key) as agent,
    ):
        print("Talk. Ctrl-C ends it.")
        await talk(agent, heard, loudspeaker, show, answers=given.answers)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
