"""What every Python client is put through; each prints one line of JSON per scenario, as scenarios.mjs does.

The clients are unmodified: what they need of the server is what they get in the field.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RATE = 24_000
PATIENCE_S = 60.0  #: an answer takes two seconds on two idle cores
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WEATHER = {"weather": "sunny", "temperature": 20}
COUNT = "count from one to six"
DESK = "You are the voice assistant of harbor house."


class NotInThisClientError(Exception):
    """The framework has no such thing; why is its text."""


Scenario = Callable[[], Awaitable[str | None]]


def arguments() -> argparse.Namespace:
    """URL SPOKEN.pcm WEATHER.pcm [SCENARIO ...]"""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="base, for example http://127.0.0.1:8080/v1")
    parser.add_argument("question", type=Path, help="a spoken question, 16-bit mono PCM at 24 kHz")
    parser.add_argument("weather", type=Path, help="a spoken question that needs the tool")
    parser.add_argument("only", nargs="*")
    return parser.parse_args()


def frames(path: Path) -> Iterator[bytes]:
    """A spoken question in 100 ms, with the second of silence behind it that ends a turn."""
    pcm = path.read_bytes() + bytes(RATE * 2)
    size = RATE // 10 * 2
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


def check(condition: object, words: object) -> None:
    """Like assert, but never optimised away."""
    if not condition:
        raise AssertionError(words)


async def eventually(condition: Callable[[], object], words: str) -> None:
    """Waits for what the framework tells of in no way that can be awaited."""
    deadline = time.monotonic() + PATIENCE_S / 2
    while not condition():
        check(time.monotonic() < deadline, f"never happened: {words}")
        await asyncio.sleep(0.02)


def show(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def run(packages: tuple[str, ...], scenarios: Mapping[str, Scenario], only: list[str]) -> None:
    """Runs the scenarios one after the other; the first line has the versions."""
    show({"versions": {name: version(name) for name in packages}})
    asyncio.run(_all({name: scenarios[name] for name in only or scenarios}))


async def _all(scenarios: Mapping[str, Scenario]) -> None:
    for name, scenario in scenarios.items():
        began = time.monotonic()
        line: dict[str, Any] = {"scenario": name, "ok": True}
        try:
            async with asyncio.timeout(PATIENCE_S):
                line["detail"] = await scenario()
        except NotInThisClientError as why:
            line |= {"absent": True, "detail": str(why)}
        except Exception:  # whatever a client raises is the result
            line |= {"ok": False, "detail": traceback.format_exc()[-1500:]}
        show({**line, "ms": round((time.monotonic() - began) * 1000)})
