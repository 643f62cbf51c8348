"""Long random tests in two processes at once: what CI's cores can do in the time that it has."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

SHARDS = 2  #: always, so that a run is the same on every machine

T = TypeVar("T")


def in_shards(task: Callable[..., T], *args: object) -> list[T]:
    """`task(shard, *args)` for each shard, in processes of their own; raises what one of them raises."""
    cores = min(SHARDS, os.cpu_count() or 1)
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(task, shard, *args) for shard in range(SHARDS)]
        return [each.result() for each in running]
