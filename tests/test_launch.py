from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from voiceagent.engine.api import Loading, Ready
from voiceagent.launch import load

READY = Ready("tiny", "cpu", "float32", ("anna",), 512, 2, 0.1)
STAGES = [
    ("speech decoder: weights", 0.1),
    ("language model: weights", 0.4),
    ("language model: weights", 0.5),
    ("warm-up", 0.9),
]


class Engine:
    """One that only says how far it is."""

    async def start(self, show: Callable[[Loading], None]) -> Ready:
        for stage, done in STAGES:
            show(Loading(stage, done))
        return READY


def test_where_nobody_watches_every_stage_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "voiceagent.launch"):
        assert asyncio.run(load(Engine(), "tiny")) is READY  # type: ignore[arg-type]
    assert caplog.messages == [
        "loading tiny: speech decoder: weights",
        "loading tiny: language model: weights",
        "loading tiny: warm-up",
    ]
