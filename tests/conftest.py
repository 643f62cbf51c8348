"""Fixtures of the whole suite: the pocket checkpoint, and sentries that fail a test which leaks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

ASSETS = Path(__file__).resolve().parent.parent / "voiceagent" / "assets"
sys.path.append(str(Path(__file__).resolve().parent / "models"))  # the tiny checkpoints, for all tests

# The same examples every time, so that a commit passes or fails alike everywhere; `scripts/test --hypothesis-profile
# explore` looks for new ones. What it finds becomes an @example, or a seed of its own.
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("explore", print_blob=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def pocket_dir() -> Path:
    """The pocket checkpoint's folder; everything that needs a model that speaks runs on it."""
    folder = ASSETS / "pocket"
    assert (folder / "config.json").is_file(), f"{folder} is not in this checkout"
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every coroutine test runs under the task and file-descriptor sentry."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "leak_sentry")


@pytest_asyncio.fixture
async def leak_sentry() -> AsyncIterator[None]:
    """Fails the test if it leaves a task or an open file behind."""
    await asyncio.sleep(0)
    before = _open_files()
    yield
    for _ in range(20):  # transports close in a later turn of the loop
        await asyncio.sleep(0.005)
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and not t.done()]
        files = _open_files() - before
        if not tasks and not files:
            break
        gc.collect()
    assert not tasks, f"leaked tasks: {tasks}"
    assert not files, f"leaked files: {sorted(files)}"


def _open_files() -> set[str]:
    """Open sockets, pipes and files of this process, by descriptor and target."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:")):
            found.add(f"{entry.name} {target}")
    return found


@pytest.fixture(scope="session", autouse=True)
def no_orphans() -> Iterator[None]:
    """After the whole run no engine process may be alive."""
    yield
    gc.collect()
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"voiceagent.engine.worker" in command and parent == "1":
                left.append(entry.name)
    assert not left, f"orphaned engine processes: {left}"
