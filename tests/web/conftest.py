"""Fixtures of the page's tests: one Playwright driver and one quiet browser per module, one server per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright
from web_helpers import MICROPHONE_ARGS, ServerThread, chromium

from voiceagent.engine.fake import Script
from voiceagent.engine.fake_engine import FakeEngine


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """Ends with its module: while it lives, this thread has a running event loop, which coroutine tests cannot use."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    """A browser with a microphone that beeps now and then."""
    with chromium(driver, *MICROPHONE_ARGS) as made:
        yield made


@pytest.fixture
def serve() -> Iterator[Callable[..., ServerThread]]:
    """Starts servers on a scripted engine; stops them after the test."""
    started: list[ServerThread] = []

    def start(
        script: Script | None = None, *, keys: tuple[str, ...] = (), functions: tuple[str, ...] = ()
    ) -> ServerThread:
        started.append(ServerThread(lambda: FakeEngine(script), keys=keys, functions=functions))
        return started[-1]

    yield start
    for server in started:
        server.stop()
