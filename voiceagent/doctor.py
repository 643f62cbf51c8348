"""What this machine can run, and why not, in plain words: checks that open no socket and load no weights."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from voiceagent.config import Config, EngineConfig
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
    "PyYAML",
    "huggingface_hub",
    "soundfile",
    "soxr",
    "rich",
)
GB = 1e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `fail` stops voiceagent from working, `warn` does not.

    Attributes:
        status: of the check.
        subject: what was checked.
        words: what was found, one line.
        code: stable name of a problem, for example `package_missing`; empty if there is none.
        remedy: what to do about it.
    """

    status: Literal["ok", "warn", "fail"]
    subject: str
    words: str
    code: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        """Words and remedy."""
        return f"{self.words} {self.remedy}".strip()


def examine(config: Config) -> Iterator[Finding]:
    """All checks for a configuration, in reading order; what rests on a failed check is left out."""
    yield _python()
    yield _machine()
    missing = False
    for finding in _packages():
        missing = missing or finding.status == "fail"
        yield finding
    yield _voice_detector()
    if not missing:
        yield _device(config.engine)
        yield from _model(config.engine)
    yield _port(config.server.host, config.server.port)


def _failed(subject: str, error: VoiceAgentError) -> Finding:
    return Finding("fail", subject, error.message, error.code, error.remedy)


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
            yield _package_missing(name, f"Run scripts/install, or pip install {name}.")


def _package_missing(name: str, remedy: str) -> Finding:
    return Finding("fail", name, "is not installed.", "package_missing", remedy)


def _voice_detector() -> Finding:
    spec = importlib.util.find_spec("silero_vad")
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    if root is None or not (root / "data" / "silero_vad.onnx").is_file():
        return _package_missing("silero-vad", "Run pip install --no-deps silero-vad.")
    return Finding("ok", "Voice detector", f"silero-vad {version('silero-vad')}")


def _device(engine: EngineConfig) -> Finding:
    try:
        import torch

        from voiceagent.models.placement import choose
    except ImportError as error:
        return Finding("fail", "Device", f"torch cannot be imported: {error}.", "package_missing")
    try:
        stages = choose(
            device=engine.device,
            dtype=engine.dtype,
            speech_device=engine.speech_device,
            speech_dtype=engine.speech_dtype,
        )
    except VoiceAgentError as error:
        return _failed("Device", error)
    said = []
    for device, dtype in dict.fromkeys((stages.language, stages.speech)):
        number = str(dtype).removeprefix("torch.")
        if device == "cpu":
            said.append(f"cpu in {number}, {torch.get_num_threads()} thread(s)")
            continue
        if importlib.util.find_spec("triton") is None:
            return _package_missing("triton", f"{device} needs it: pip install triton, or use --device cpu.")
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        said.append(f"{device} in {number}: {name}, {free / GB:.0f} of {total / GB:.0f} GB free")
    if torch.cuda.is_available() and stages.language[0] == "cpu":
        said.append("a GPU is there too: --device cuda:0 would use it")
    return Finding("ok", "Device", "; ".join(said))


# --- the model ----------------------------------------------------------------------------------------------------


def _model(engine: EngineConfig) -> Iterator[Finding]:
    from voiceagent.models.folder import find_model
    from voiceagent.models.inspection import checks, lends_voices

    try:
        found = find_model(engine.model)
    except VoiceAgentError as error:
        finding = _failed("Model", error)
        if error.code == "not_downloaded":
            yield replace(finding, status="warn")
            yield _disk()
        else:
            yield finding
        return
    yield Finding("ok", "Model", f"{found.name} in {found.folder}")
    failed = False
    for number, (subject, check) in enumerate(checks(found.folder, voices=engine.voices)):
        try:
            finding = Finding("ok", subject, check())
        except VoiceAgentError as error:
            finding = _failed(subject, error)
        if (
            subject == "Voices"
            and finding.status == "ok"
            and lends_voices(found.folder, voices=engine.voices)
        ):
            finding = Finding(
                "warn", subject, f"{found.folder} holds no voice recording, so pocket's are used: {finding.words}.",
                "voice_missing", "Put a wav file of 3 to 10 s of clear speech there as default_female.wav.",
            )  # fmt: skip
        failed = failed or finding.status == "fail"
        yield finding
        if failed and number < 2:  # nothing of a folder that is not whole is worth a look
            return
    if not failed:
        yield _memory(engine, found.folder)


def _memory(engine: EngineConfig, folder: Path) -> Finding:
    from voiceagent.models.placement import place

    try:
        where = place(
            folder,
            device=engine.device,
            dtype=engine.dtype,
            speech_device=engine.speech_device,
            speech_dtype=engine.speech_dtype,
            kv_memory_mb=engine.kv_memory_mb,
            speech_memory_mb=engine.speech_memory_mb,
            max_sessions=engine.max_sessions,
        )
    except VoiceAgentError as error:
        return _failed("Memory", error)
    said = [
        f"{device} needs {needed / GB:.1f} GB and has {where.free[device] / GB:.1f} GB free"
        for device, needed in where.needed.items()
    ]
    positions, streams = where.kv_bytes // where.position_bytes, where.speech_streams
    said.append(f"{where.kv_bytes / GB:.1f} GB for conversations ({positions:,} tokens in all)")
    said.append(f"{where.speech_bytes / GB:.1f} GB for speech ({streams} replies at once, and the voices)")
    return Finding("ok", "Memory", "; ".join(said))


def _disk() -> Finding:
    from voiceagent.models.hub import MINI_BYTES, cache_folder

    folder = cache_folder()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    words = f"{free / GB:.0f} GB free in {folder}, Step-Audio-2-mini takes {MINI_BYTES / GB:.0f} GB"
    if free < MINI_BYTES:
        return Finding("fail", "Disk", f"{words}.", "disk_full", "Make room, or set HF_HOME to another disk.")
    return Finding("ok", "Disk", words)


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            words = f"{host}:{port} cannot be used: {error.strerror}."
            return Finding("warn", "Port", words, "port_in_use", "Choose another with --port.")
    return Finding("ok", "Port", f"{host}:{port} is free")
