"""The engine process of the benchmark: the engine's own, with random weights, and with a stopwatch at its runner.

    python3 scripts/bench/gpu_parts/worker.py SHAPE LOG --fd N --spec JSON

LOG gets a JSON list of the runner's steps when the process ends: what, when (on the machine's monotonic clock, which
the client reads too), how long, and how many conversations it served.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from scripts.bench.gpu_parts.shapes import MINI, TINY  # noqa: E402
from scripts.bench.gpu_parts.weights import stand_in  # noqa: E402
from voiceagent.engine import worker  # noqa: E402
from voiceagent.engine.runner import StepAudioRunner  # noqa: E402

SHAPES = {shape.name: shape for shape in (MINI, TINY)}
STEPS = ("encode", "begin", "read", "decode", "vocode")


def watch(steps: list[tuple[str, float, float, int]]) -> None:
    """Has every step of the runner noted."""
    for name in STEPS:
        original = getattr(StepAudioRunner, name, None)
        if original is not None:
            setattr(StepAudioRunner, name, _timed(name, original, steps))


def _timed(
    name: str, work: Callable[..., Any], steps: list[tuple[str, float, float, int]]
) -> Callable[..., Any]:
    @functools.wraps(work)
    def timed(self: Any, *args: Any, **named: Any) -> Any:
        served = len(args[0]) if args and isinstance(args[0], list | tuple) else 1
        began = time.monotonic()
        try:
            return work(self, *args, **named)
        finally:
            steps.append((name, began, time.monotonic() - began, served))

    return timed


def main() -> int:
    """The worker's own main, inside the stand-ins."""
    shape, log = SHAPES[sys.argv[1]], Path(sys.argv[2])
    steps: list[tuple[str, float, float, int]] = []
    watch(steps)
    with stand_in(shape):
        code = worker.main(sys.argv[3:])
    log.write_text(json.dumps(steps), encoding="utf-8")
    return code


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # as the engine's own process ends
