"""The comparison of the vocoder's joined launches can be run, with a stand-in for the kernel that needs a GPU."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor


def _snake(
    x: Tensor, bias: Tensor | None, before: Tensor | None, alpha: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What the kernel computes: the sum of all that is given, and the activation of it."""
    if bias is not None:
        x = x + bias[:, None, None]
    if before is not None:
        x = x + before
    if alpha is None:
        return x, x
    alpha = alpha[:, None, None]
    return x, x + torch.sin(alpha * x).square() / (alpha + 1e-9)


def test_the_joined_launches_of_the_vocoder_agree_with_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = "voiceagent.models.step_audio2"
    kernels = ModuleType(f"{package}.t2w_triton_speech")
    kernels.snake = _snake  # type: ignore[attr-defined]
    for name, module in (
        ("t2w_triton_speech", kernels),
        ("t2w_triton", ModuleType(f"{package}.t2w_triton")),
    ):
        monkeypatch.setitem(sys.modules, f"{package}.{name}", module)
        monkeypatch.setattr(importlib.import_module(package), name, module, raising=False)
    monkeypatch.delitem(sys.modules, "scripts.bench.speech_kernels", raising=False)
    script = importlib.import_module("scripts.bench.speech_kernels")
    monkeypatch.setattr(script, "DEVICE", torch.device("cpu"))
    torch.manual_seed(0)
    script.check_vocoder()
    assert "its ends" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "scripts.bench.speech_kernels")
