"""What this machine can run, and why not, in plain words: checks that open no socket and load no weights."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from voiceagent.config import Config
from voiceagent.errors import VoiceAgentError

PACKAGES = (
    "torch",
    "onnxruntime",
    "aiohttp",
    "websockets",
    "msgspec",
    "numpy",
    "safetensors",
    "tokenizers",
    "soxr",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `fail` stops voiceagent from working, `warn` does not."""

    status: Literal["ok", "warn", "fail"]
    subject: str
    words: str


def examine(config: Config) -> Iterator[Finding]:
    """All checks for a configuration, in reading order."""
    yield _python()
    yield _machine()
    yield from _packages()
    yield _voice_detector()
    yield _device(config.engine.device)
    yield from _model(config.engine.model)
    yield _port(config.server.host, config.server.port)


def _python() -> Finding:
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("ok", "Python", words)


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        memory = 0.0
    words = f"{cores} core(s), {memory:.0f} GiB of memory"
    if cores < 2:
        return Finding(
            "warn", "Machine", f"{words}: the pocket model wants two cores to answer in real time."
        )
    return Finding("ok", "Machine", words)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            yield Finding("fail", name, "is not installed; run scripts/install, or pip install voiceagent.")


def _voice_detector() -> Finding:
    spec = importlib.util.find_spec("silero_vad")
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    if root is None or not (root / "data" / "silero_vad.onnx").is_file():
        return Finding(
            "fail", "Voice detector", "silero-vad is not installed; run pip install --no-deps silero-vad."
        )
    return Finding("ok", "Voice detector", f"silero-vad {version('silero-vad')}")


def _device(device: str) -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("fail", "Device", f"torch cannot be imported: {error}.")
    try:
        index = torch.device(device).index or 0
    except RuntimeError:
        return Finding("fail", "Device", f"{device!r} is no torch device; use --device cpu or cuda:0.")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            return Finding(
                "fail",
                "Device",
                f"{device} is configured, but torch sees {count} CUDA GPUs; use --device cpu.",
            )
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Finding(
            "ok", "Device", f"{device}: {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        )
    words = f"{device}, {torch.get_num_threads()} thread(s)"
    if torch.cuda.is_available():
        return Finding("ok", "Device", f"{words}; a GPU is there too: --device cuda:0 would use it.")
    return Finding("ok", "Device", words)


def _model(name: str) -> Iterator[Finding]:
    from voiceagent.models.folder import find_model, missing_files
    from voiceagent.models.step_audio2.config import StepAudio2Config
    from voiceagent.models.step_audio2.tokenizer import TextTokenizer

    try:
        folder = find_model(name)
        missing = missing_files(folder)
        if missing:
            yield Finding("fail", "Model", f"{folder} lacks {', '.join(missing)}.")
            return
        config = StepAudio2Config.from_folder(folder)
        TextTokenizer.from_folder(folder)
    except VoiceAgentError as error:
        yield Finding("fail", "Model", str(error))
        return
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    yield Finding(
        "ok", "Model", f"{name}: {config.text.num_hidden_layers} layers, {size:.0f} MiB in {folder}"
    )


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding(
                "warn", "Port", f"{host}:{port} cannot be used: {error.strerror}; choose another with --port."
            )
    return Finding("ok", "Port", f"{host}:{port} is free")
