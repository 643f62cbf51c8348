"""Starts the benchmark's engine process, and reads the log of its steps when it has ended; it measures nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from scripts.bench.gpu_parts.bench import Bench
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec

_REAPING_S = 0.3  # the event loop is about to end; it must still see that the process has
KV_MEMORY_MB = 32_000  #: some 100 conversations of 4k positions, one of them of 8k
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True, slots=True)
class BenchSpec:
    """A `WorkerSpec` whose process is the benchmark's."""

    worker: WorkerSpec
    shape: str
    log: str

    def argv(self, fd: int) -> list[str]:
        """The worker's own options behind ours."""
        line = self.worker.argv(fd)
        return [sys.executable, str(_WORKER), self.shape, self.log, *line[line.index("--fd") :]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the engine's runner; times in seconds on the monotonic clock."""

    name: str
    began: float
    length: float
    served: int

    @property
    def ended(self) -> float:
        """When it was over."""
        return self.began + self.length


@dataclass(slots=True)
class Process:
    """The engine, and once it has ended, its steps."""

    engine: LocalEngine
    steps: list[Step] = field(default_factory=list)


@contextlib.asynccontextmanager
async def engine_process(bench: Bench, *, max_sessions: int) -> AsyncIterator[Process]:
    """Inside, the engine is ready; `steps` is filled when the block is left."""
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "steps.json"
        spec = WorkerSpec(
            model=str(bench.folder),
            device=bench.device,
            dtype=str(bench.dtype).removeprefix("torch."),
            max_sessions=max_sessions,
            max_batch=128,
            kv_memory_mb=64 if bench.tiny else KV_MEMORY_MB,
            threads=1 if bench.tiny else 0,
        )
        process = Process(LocalEngine(BenchSpec(spec, bench.shape.name, str(log))))  # type: ignore[arg-type]
        ready = await process.engine.start()
        bench.report.details["engine"] = {"load_s": round(ready.load_seconds, 1), "dtype": ready.dtype}
        try:
            yield process
        finally:
            await process.engine.stop()
            await asyncio.sleep(_REAPING_S)
            if log.is_file():
                process.steps += [Step(*step) for step in json.loads(log.read_text(encoding="utf-8"))]


def within(steps: list[Step], began: float, ended: float, name: str = "") -> list[Step]:
    """The steps that ended in a stretch of time, of one kind or of all."""
    return [step for step in steps if began <= step.ended <= ended and name in ("", step.name)]
