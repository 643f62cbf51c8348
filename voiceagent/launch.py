"""Starting an engine or a server for a command: what the worker is told, a bar while it loads, the event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from voiceagent.config import Config
from voiceagent.engine.api import Loading, Ready
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.models.folder import find_model, recordings

T = TypeVar("T")
GC_OBJECTS = 10_000  #: new objects before the youngest are searched for cycles; 700, the default, took 4 %
log = logging.getLogger("voiceagent.launch")
console = Console(stderr=True, highlight=False)


def worker_spec(config: Config) -> WorkerSpec:
    """What to start for a configuration; downloads a model of the hub that is not here yet."""
    engine = config.engine
    found = find_model(engine.model, fetch=True, say=console.print)
    return WorkerSpec(
        model=str(found.folder),
        name=found.name,
        voices=str(recordings(found.folder, voices=engine.voices)),
        variant=found.variant if engine.variant == "auto" else engine.variant,
        device=engine.device,
        dtype=engine.dtype,
        speech_device=engine.speech_device,
        speech_dtype=engine.speech_dtype,
        kv_memory_mb=engine.kv_memory_mb,
        speech_memory_mb=engine.speech_memory_mb,
        speech_chunks=engine.speech_chunks,
        reference_compatible=engine.reference_compatible,
        threads=engine.threads,
        max_sessions=engine.max_sessions,
        max_batch=engine.max_batch,
        guess_share=engine.guess_share,
    )


async def load(engine: LocalEngine, name: str) -> Ready:
    """Starts an engine, with a progress bar, or on no terminal a log line for each stage; errors as `start`'s."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"loading {name}", total=1.0)
        said = ""

        def show(stage: Loading) -> None:
            nonlocal said
            if progress.disable and stage.stage != said:
                said = stage.stage
                log.info("loading %s: %s", name, said)
            progress.update(task, completed=stage.done, description=f"loading {name}: {stage.stage}")

        return await engine.start(show)


def run_server(work: Coroutine[Any, Any, T]) -> T:
    """Runs a server to its end, on uvloop where that is installed, with a garbage collector that pauses little."""
    gc.collect()
    gc.freeze()  # what is there by now stays: to search it again and again would pause every call
    gc.set_threshold(GC_OBJECTS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for some machines; asyncio's own does the same
        return None
    return uvloop.new_event_loop
