"""Kernels that are compiled before they run, many at a time; Triton and the GPU are stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from voiceagent.models.step_audio2.kernels.gpu import language


class Kernel:
    """Notes what was compiled and what was run."""

    def __init__(self) -> None:
        self.compiled: list[tuple[Any, ...]] = []
        self.run: list[tuple[Any, ...]] = []

    def warmup(self, *arguments: Any, grid: tuple[int, ...], **options: Any) -> None:
        self.compiled.append((grid, *arguments, options))

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **options: self.run.append((grid, *arguments, options))


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[Executor]:
    """The executors that a stand-in of Triton was given."""
    given: list[Executor] = []

    def mode(executor: Executor) -> nullcontext[None]:
        given.append(executor)
        return nullcontext()

    monkeypatch.setattr(language, "triton", SimpleNamespace(AsyncCompileMode=mode), raising=False)
    monkeypatch.setattr(language, "_overlaps", lambda device: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return given


def test_what_is_compiled_ahead_does_not_run_and_is_the_same_that_runs_later(modes: list[Executor]) -> None:
    kernel, device = Kernel(), torch.device("cuda:0")

    def work() -> None:
        language.launch(kernel, (3, 4), device, 1, 2, num_warps=4)
        language.launch(kernel, (5,), device, 7, early=False, num_warps=2)

    language.compile_ahead(work)
    assert len(modes) == 1
    assert not kernel.run
    assert len(kernel.compiled) == 2
    work()
    assert kernel.run == kernel.compiled


def test_work_that_fails_is_left_to_the_first_run(
    modes: list[Executor], caplog: pytest.LogCaptureFixture
) -> None:
    kernel, device = Kernel(), torch.device("cuda:0")

    def work() -> None:
        raise RuntimeError("no")

    language.compile_ahead(work)
    assert "compiling ahead failed: no" in caplog.text
    language.launch(kernel, (1,), device)
    assert kernel.run
    assert not kernel.compiled


def test_a_triton_that_cannot_leaves_it_to_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "triton", SimpleNamespace(), raising=False)
    language.compile_ahead(lambda: pytest.fail("there is nothing to do"))
