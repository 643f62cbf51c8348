"""A second thread for the speech decoder, so that language and speech use two cores; it knows neither of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """Runs one piece of work at a time beside the computing thread.

    Args:
        post: hands a callable over to the computing thread, to be called there.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._since: float | None = None
        threading.Thread(target=self._run, name="speech", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether work is under way; only the computing thread may ask."""
        return self._since is not None

    def stuck(self, seconds: float) -> bool:
        """Whether the work under way has taken longer than this."""
        return self._since is not None and time.monotonic() - self._since > seconds

    def submit(self, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do `work` on the lane; `done` gets its result or its error, on the computing thread."""
        assert not self.busy, "one at a time"
        self._since = time.monotonic()

        def finish(outcome: T | Exception) -> None:
            self._since = None
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
