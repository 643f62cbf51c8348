"""Parts 3 and 4 share one engine process: loading it takes longer than what either measures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.gpu_parts import sessions, turns
from scripts.bench.gpu_parts.bench import Bench
from scripts.bench.gpu_parts.engine_process import engine_process

LONG_S = 300.0
FLOOD = 64


@dataclass(frozen=True, slots=True)
class Served:
    """What to ask of the engine.

    Attributes:
        asks: questions of the single caller for each length of history; 0 leaves the part out.
        numbers: of callers at once; empty leaves the part out.
        seconds: for each number of them.
        long: the largest number for five minutes.
    """

    asks: int
    numbers: Sequence[int]
    seconds: float
    long: bool

    def __call__(self, bench: Bench) -> None:
        """Measures both parts and adds their rows."""
        asyncio.run(self._measure(bench))

    async def _measure(self, bench: Bench) -> None:
        single: turns.Turns | None = None
        runs: list[sessions.Run] = []
        flood: sessions.Run | None = None
        async with engine_process(bench, max_sessions=max(self.numbers, default=2) + 2) as process:
            bench.report.say(f"the engine is ready: {bench.report.details['engine']}")
            if self.asks:
                single = await turns.ask(bench, process, asks=self.asks)
                bench.report.say("one caller has asked")
            crowd = sessions.Crowd(bench, process)
            for number in self.numbers:
                length = LONG_S if self.long and number == max(self.numbers) else self.seconds
                runs.append(await crowd.speak(number, seconds=length))
                bench.report.say(f"{number} callers have spoken")
            if runs:
                flood = await crowd.flood(min(FLOOD, max(self.numbers)), seconds=self.seconds / 2)
            crowd.close()
        if single is not None:
            turns.rows(bench, single, process.steps)
        if runs:
            sessions.rows(bench, runs, process.steps)
        if flood is not None:
            sessions.flood_rows(bench, flood)
