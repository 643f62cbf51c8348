"""Threads for the speech decoder beside the language model's, so that both compute at once; it knows neither."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """Runs pieces of work beside the computing thread, as many at a time as it has threads.

    Args:
        post: hands a callable over to the computing thread, to be called there.
        threads: how many pieces of work may be under way at once.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None], *, threads: int = 1) -> None:
        self._post = post
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = threads
        self._begun: dict[int, float] = {}  # number of a piece of work -> when it was submitted
        self._count = 0
        for number in range(threads):
            threading.Thread(target=self._run, name=f"speech-{number}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether all threads are at work; only the computing thread may ask."""
        return len(self._begun) >= self._threads

    def stuck(self, seconds: float) -> bool:
        """Whether some work under way has taken longer than this."""
        return any(time.monotonic() - since > seconds for since in self._begun.values())

    def submit(self, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do `work` on the lane; `done` gets its result or its error, on the computing thread."""
        assert not self.busy, "no more than there are threads"
        self._count += 1
        number = self._count
        self._begun[number] = time.monotonic()

        def finish(outcome: T | Exception) -> None:
            del self._begun[number]
            done(outcome)

        def run() -> None:
            outcome: T | Exception
            try:
                outcome = work()
            except Exception as error:  # it belongs to whoever asked, on their thread
                outcome = error
            self._post(lambda: finish(outcome))

        self._work.put(run)

    def _run(self) -> None:
        while True:
            self._work.get()()
