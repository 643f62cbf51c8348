"""Measures what replies on a guess bring and cost: the same questions with `session.speculation` off and on.

    python3 scripts/bench/speculation.py [--url ws://127.0.0.1:8080] [--rounds 1] [--json OUT]

Every question of tests/data/questions is asked as it is, and once more with a pause in its middle, where the first
guess must be wrong; in real time, over a connection of its own, with silence behind it. The server ends the turn. Off
and on take turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import turn
from rich.console import Console
from rich.progress import track
from rich.table import Table

from voiceagent.audio import wavio
from voiceagent.audio.resample import resample
from voiceagent.client.conn import FRAME_S, RealtimeClient
from voiceagent.core.segments import quietest
from voiceagent.units import MODEL_RATE, VOICE_RATE

PAUSE_S = 0.25  # shorter than the silence that ends a turn


@dataclass(frozen=True, slots=True)
class Asked:
    """One answered question; times in seconds.

    Attributes:
        decided_s: from speech_stopped to the first audio.
        response_s: from the true end of speech to the first audio.
        guesses: the speculation part of response.latency; empty if there was no guess.
    """

    file: str
    pause: bool
    speculation: bool
    right: bool
    decided_s: float
    response_s: float
    guesses: dict[str, int] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--model", default="pocket", help="of the server that is started")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is asked")
    parser.add_argument("--questions", type=int, default=9, help="so many of them")
    parser.add_argument("--detection", default="server_vad", choices=("server_vad", "semantic_vad"))
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    todo = [
        (question, pause, on)
        for _ in range(args.rounds)
        for question in turn.questions(args.questions)
        for pause in (False, True)
        for on in (False, True)
    ]
    with contextlib.ExitStack() as stack:
        url = args.url or stack.enter_context(turn.server(args.model))
        vad = {"type": args.detection}
        asyncio.run(
            ask(url, todo[0][0], vad, pause=False, speculation=False)
        )  # the first one warms everything up
        asked = [
            asyncio.run(ask(url, q, vad, pause=pause, speculation=on))
            for q, pause, on in track(todo, "asking")
        ]
    show(asked)
    if args.json:
        listed = [asdict(one) for one in asked]
        args.json.write_text(json.dumps({"machine": turn.machine(), "asked": listed}, indent=1) + "\n")
    return 0


def sound(question: dict[str, Any], *, pause: bool) -> npt.NDArray[np.float32]:
    """A question's samples at 24 kHz, perhaps with a pause at the quietest place of its middle third."""
    samples, rate = wavio.read(turn.QUESTIONS / question["file"])
    samples = resample(samples, source=rate, target=MODEL_RATE)
    if pause:
        third = len(samples) // 3
        cut = third + quietest(samples[third : 2 * third])
        samples = np.concatenate(
            [samples[:cut], np.zeros(int(PAUSE_S * MODEL_RATE), np.float32), samples[cut:]]
        )
    return resample(samples, source=MODEL_RATE, target=VOICE_RATE)


async def ask(
    url: str, question: dict[str, Any], vad: dict[str, str], *, pause: bool, speculation: bool
) -> Asked:
    """Asks one question on a connection of its own."""
    samples = sound(question, pause=pause)
    heard_end = int(np.flatnonzero(np.abs(samples) > turn.LOUD)[-1]) / VOICE_RATE
    sent = np.concatenate([samples, np.zeros(int(turn.SILENCE_S * VOICE_RATE), np.float32)])
    async with RealtimeClient(url) as client:
        await client.update(
            output_lead_ms=None, speculation=speculation, audio={"input": {"turn_detection": vad}}
        )
        clock = asyncio.get_running_loop().time
        began = clock()
        microphone = asyncio.create_task(client.append(sent, VOICE_RATE, realtime=True))
        try:
            async with asyncio.timeout(turn.ANSWER_S):
                stopped, first, said, guesses = await listen(client)
        finally:
            microphone.cancel()
            await asyncio.gather(microphone, return_exceptions=True)
    true_end = began + heard_end // FRAME_S * FRAME_S
    right = said == question["reply"]
    times = round(first - stopped, 4), round(first - true_end, 4)
    return Asked(question["file"], pause, speculation, right, *times, guesses)


async def listen(client: RealtimeClient) -> tuple[float, float, str, dict[str, int]]:
    """When the turn ended and the first audio came, what was said, and what the guesses brought."""
    clock = asyncio.get_running_loop().time
    stopped, first, said, guesses = 0.0, 0.0, "", dict[str, int]()
    async for event in client.events():
        match event["type"]:
            case "input_audio_buffer.speech_stopped":
                stopped = clock()
            case "response.output_audio.delta":
                assert base64.b64decode(event["delta"])
                first = first or clock()
            case "response.output_audio_transcript.done":
                said = event["transcript"]
            case "response.latency":
                guesses = event.get("speculation", {})
            case "response.done" if event["response"]["status"] == "completed":
                return stopped, first, said, guesses
            case "response.done" if event["response"]["status"] == "failed":
                raise RuntimeError(f"the response failed: {event['response']['status_details']}")
            case _:
                pass
    raise RuntimeError("the connection ended before the answer")


def show(asked: Sequence[Asked]) -> None:
    """Prints the comparison."""
    columns = ["questions", "speculation", "right", "decision to audio", "p90", "true end to audio"]
    table = Table(*columns, "guesses", "hits", "saved by a hit", "wasted per turn")
    for pause in (False, True):
        for on in (False, True):
            some = [one for one in asked if one.pause is pause and one.speculation is on]
            decided = [one.decided_s * 1000 for one in some]
            made = sum(one.guesses.get("guesses", 0) for one in some)
            hits = [one.guesses["saved_ms"] for one in some if one.guesses.get("hits")]
            wasted = sum(one.guesses.get("wasted_ms", 0) for one in some) / len(some)
            table.add_row(
                "with a pause" if pause else "as they are",
                "on" if on else "off",
                f"{sum(one.right for one in some)} of {len(some)}",
                f"{statistics.median(decided):.0f} ms",
                f"{np.percentile(decided, 90):.0f} ms",
                f"{statistics.median(one.response_s * 1000 for one in some):.0f} ms",
                str(made),
                str(len(hits)),
                f"{statistics.median(hits):.0f} ms" if hits else "",
                f"{wasted:.0f} ms" if made else "",
            )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main())
