"""Starting an engine for a command: the model's folder, what the worker is told, and a bar while it loads."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from voiceagent.config import Config
from voiceagent.engine.api import Loading, Ready
from voiceagent.engine.client import LocalEngine
from voiceagent.engine.pipe import WorkerSpec
from voiceagent.models.folder import find_model, recordings

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
    )


async def load(engine: LocalEngine, name: str) -> Ready:
    """Starts an engine, with a progress bar; its errors are `LocalEngine.start`'s."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"loading {name}", total=1.0)

        def show(stage: Loading) -> None:
            progress.update(task, completed=stage.done, description=f"loading {name}: {stage.stage}")

        return await engine.start(show)
