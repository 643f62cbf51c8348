"""A thread with an event loop of its own, on which tools run: what blocks there holds up no voice. Knows no tool."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from voiceagent.tools.function import ToolError

T = TypeVar("T")

log = logging.getLogger("voiceagent.tools")

MAX_THREADS = 64  #: of plain functions at once; one that hangs keeps its own for good
THREADS_EACH = 8  #: of one session
STOPPING_S = 5.0  #: for what runs to take its cancellation; MCP servers get some seconds to exit


class Host:
    """The loop of all tools of a server; it begins with the first thing to run."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._threads: Counter[str] = Counter()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of a coroutine that runs there; called on any other loop. Cancelling this cancels that."""
        if self._loop is None:
            self._start()
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def _start(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(loop,), name="tools", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ends all that runs. What blocks the loop is left behind: its thread ends with the process."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join, STOPPING_S + 1.0)
        if thread.is_alive():
            log.warning("a tool blocks its loop and is left behind")

    async def in_thread(self, function: Callable[..., Any], arguments: dict[str, Any], *, owner: str) -> Any:
        """What a function returns that may block; called on the host's loop.

        A thread cannot be stopped: of one that takes too long the result is dropped.

        Args:
            function: to be called with keywords.
            arguments: these.
            owner: the session; one that has many threads at work gets no more.

        Raises:
            ToolError: too many run already.
        """
        if self._threads[owner] >= THREADS_EACH or self._threads.total() >= MAX_THREADS:
            raise ToolError("Too many tools are running already. Try again later.")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._threads[owner] += 1

        def settle(result: Any, error: Exception | None) -> None:
            self._threads[owner] -= 1
            if not self._threads[owner]:
                del self._threads[owner]
            if done.done():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def work() -> None:
            result: Any = None
            raised: Exception | None = None
            try:
                result = function(**arguments)
            except StopIteration as error:  # which no future takes
                raised = RuntimeError(repr(error))
            except Exception as error:  # whatever the function raises is the caller's
                raised = error
            except BaseException as error:  # it may end its thread, but not the loop
                raised = RuntimeError(repr(error))
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result, raised)

        threading.Thread(target=work, name="tool", daemon=True).start()
        return await done


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=STOPPING_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
