"""Decides where a checkpoint's parts run, in which number type and with how much memory, before anything is loaded.

It reads sizes from headers and asks the machine what it has; it allocates nothing and knows no session.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from voiceagent.errors import CapacityError, ConfigError
from voiceagent.models.step_audio2.checkpoint import read_headers, weight_count
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import ODE_STEPS, RECENT_FRAMES, RECENT_TOKENS, FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MB = 1_000_000

_SPARE = 0.95  # share of the free memory that is planned with; allocators lose some to rounding
_LANGUAGE_WORK = (0.05, 512 * MB)  # activations and graphs: share of the weights, and at least
_SPEECH_WORK = (2.0, 256 * MB)
_SPEECH_SHARE = 1 / 3  # of the memory left on a GPU that speech and language share


class Machine(Protocol):
    """What there is to run on."""

    def gpus(self) -> int:
        """How many CUDA GPUs torch can use."""

    def has_bfloat16(self, device: str) -> bool:
        """Whether a GPU computes in bfloat16 itself."""

    def free(self, device: str) -> int:
        """Bytes that are free on a device now."""


class ThisMachine:
    """The machine that we are on, as torch and the kernel see it."""

    def gpus(self) -> int:
        """See `Machine`."""
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def has_bfloat16(self, device: str) -> bool:
        """See `Machine`."""
        return torch.cuda.get_device_capability(device) >= (8, 0)

    def free(self, device: str) -> int:
        """See `Machine`; of a CPU: what the kernel can give without swapping, or a container's limit."""
        if device == "cpu":
            return min(_available(), _container_room())
        return torch.cuda.mem_get_info(device)[0]


@dataclass(frozen=True, slots=True)
class Needs:
    """Sizes of a checkpoint, in numbers (not bytes) where the number type is chosen at loading.

    Attributes:
        language: weights of encoder, adapter and language model.
        flow: weights of Token2Wav's flow.
        vocoder: weights of HiFT, always float32.
        position: keys and values of one position.
        positions: the longest conversation.
        stream: state of one speech stream.
    """

    language: int
    flow: int
    vocoder: int
    position: int
    positions: int
    stream: int

    @classmethod
    def of(cls, folder: Path | str) -> Needs:
        """From the headers and configurations of a checkpoint folder.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        folder = Path(folder)
        text = StepAudio2Config.from_folder(folder).text
        config = FlowConfig.from_file(folder / "token2wav" / "flow.yaml")
        with torch.device("meta"):
            flow, vocoder = FlowNet(config), HiftNet(HiftConfig.from_folder(folder / "token2wav"))
        return cls(
            language=weight_count(read_headers(folder)),
            flow=_size(flow),
            vocoder=_size(vocoder),
            position=2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim,
            positions=text.max_position_embeddings,
            stream=_stream_size(config),
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything goes; devices are "cpu" or "cuda:N", memory is in bytes.

    Attributes:
        device: of encoder, adapter, language model and its keys and values.
        dtype: of the same.
        speech_device: of flow and vocoder.
        speech_dtype: of the flow.
        kv_bytes: for the keys and values of all conversations.
        speech_bytes: for the state of all speech streams.
        needed: per device what weights, working memory, and at least one conversation and stream take.
        free: per device what was free.
    """

    device: str
    dtype: torch.dtype
    speech_device: str
    speech_dtype: torch.dtype
    kv_bytes: int
    speech_bytes: int
    needed: dict[str, int]
    free: dict[str, int]


def place(
    folder: Path | str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    speech_device: str = "auto",
    speech_dtype: str = "auto",
    kv_memory_mb: int = 0,
    speech_memory_mb: int = 0,
    max_sessions: int = 8,
    machine: Machine | None = None,
) -> Placement:
    """Turns what an operator asked for into devices, number types and memory budgets.

    Args:
        folder: the checkpoint.
        device, speech_device: "auto", "cpu", "cuda" or "cuda:N"; speech follows the language model.
        dtype, speech_dtype: "auto" or a name in `DTYPES`; bfloat16 on a GPU that has it, float32 on a CPU.
        kv_memory_mb, speech_memory_mb: 0 = as much as `max_sessions` full conversations take, or what is left.
        max_sessions: that may be open at once.
        machine: for tests.

    Raises:
        ConfigError: a device that is not there (code "device_unavailable"), or a number type that is unknown or that
            the device does not have ("dtype_unsupported").
        CapacityError: too little free memory (code "out_of_memory"); needed and free are named.
        CheckpointError: the folder is incomplete or damaged.
    """
    machine = machine or ThisMachine()
    where = _device(device, machine, default="cuda:0" if machine.gpus() else "cpu")
    speech = _device(speech_device, machine, default=where)
    number = _dtype(dtype, where, machine, field="dtype")
    speech_number = _dtype(speech_dtype, speech, machine, field="speech_dtype")
    needs = Needs.of(folder)
    language = needs.language * number.itemsize
    flow = needs.flow * speech_number.itemsize
    fixed = {
        where: language + _work(language, _LANGUAGE_WORK),
        speech: flow + needs.vocoder * 4 + _work(flow, _SPEECH_WORK),
    }
    if where == speech:
        fixed = {where: language + flow + needs.vocoder * 4}
        fixed[where] += _work(language, _LANGUAGE_WORK) + _work(flow, _SPEECH_WORK)
    one_talk = needs.position * needs.positions * number.itemsize
    one_stream = needs.stream * speech_number.itemsize
    least_kv, least_speech = kv_memory_mb * MB or one_talk, speech_memory_mb * MB or one_stream
    needed = dict(fixed)
    needed[where] += least_kv
    needed[speech] += least_speech
    free = {name: machine.free(name) for name in needed}
    for name, wanted in needed.items():
        _check_room(name, wanted=wanted, fixed=fixed[name], free=free[name])
    # Other programs live on a CPU too; a GPU is ours.
    share_of = {name: 0.5 if name == "cpu" else 1.0 for name in fixed}
    left = {name: int((free[name] * _SPARE - fixed[name]) * share_of[name]) for name in fixed}
    share = _SPEECH_SHARE if where == speech else 1.0
    speech_bytes = speech_memory_mb * MB or max(
        one_stream, min(max_sessions * one_stream, int(left[speech] * share))
    )
    left[speech] -= speech_bytes
    kv_bytes = kv_memory_mb * MB or max(one_talk, min(max_sessions * one_talk, left[where]))
    return Placement(where, number, speech, speech_number, kv_bytes, speech_bytes, needed, free)


def _device(asked: str, machine: Machine, *, default: str) -> str:
    """The device under its full name."""
    if asked == "auto":
        return default
    count = machine.gpus()
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", asked)
    if match is None:
        raise _no_device(asked, "it is neither cpu nor cuda:N")
    if asked == "cpu":
        return asked
    if count == 0:
        built = "" if torch.version.cuda else "; this torch was built without CUDA"
        raise _no_device(asked, f"torch sees no CUDA GPU{built}")
    index = int(match.group(1) or 0)
    if index >= count:
        raise _no_device(asked, f"torch sees {count} CUDA GPU(s), the last is cuda:{count - 1}")
    return f"cuda:{index}"


def _no_device(asked: str, why: str) -> ConfigError:
    return ConfigError(
        f"The device {asked!r} cannot be used: {why}.",
        code="device_unavailable",
        remedy="`voiceagent doctor` says what this machine has; --device cpu always works.",
        param="engine.device",
    )


def _dtype(asked: str, device: str, machine: Machine, *, field: str) -> torch.dtype:
    if asked == "auto":
        if device == "cpu":
            return torch.float32
        return torch.bfloat16 if machine.has_bfloat16(device) else torch.float16
    if asked not in DTYPES:
        raise ConfigError(
            f"engine.{field} = {asked!r} is no number type that the engine has.",
            code="dtype_unsupported",
            remedy=f"Use auto, {', '.join(DTYPES)}.",
            param=f"engine.{field}",
        )
    if asked == "float16" and device == "cpu":
        raise ConfigError(
            f"engine.{field} = 'float16' does not run on the CPU.",
            code="dtype_unsupported",
            remedy="Use float32 or bfloat16 there.",
            param=f"engine.{field}",
        )
    if asked == "bfloat16" and device != "cpu" and not machine.has_bfloat16(device):
        raise ConfigError(
            f"engine.{field} = 'bfloat16' does not run on {device}: the GPU is too old for it.",
            code="dtype_unsupported",
            remedy="Use float16 or float32 there.",
            param=f"engine.{field}",
        )
    return DTYPES[asked]


def _check_room(device: str, *, wanted: int, fixed: int, free: int) -> None:
    if wanted <= free * _SPARE:
        return
    raise CapacityError(
        f"{device} has {free / 1e9:.1f} GB of memory free and {wanted / 1e9:.1f} GB are needed: "
        f"{fixed / 1e9:.1f} GB for weights and work, {(wanted - fixed) / 1e9:.1f} GB for conversations.",
        code="out_of_memory",
        remedy="End other programs there, use bfloat16, move speech away (engine.speech_device), lower "
        "engine.kv_memory_mb and engine.speech_memory_mb if they are set, or take a larger device.",
        param="engine.device",
    )


def _work(weights: int, rule: tuple[float, int]) -> int:
    """Working memory beside so many bytes of weights; small models need little."""
    share, least = rule
    return max(int(share * weights), min(least, weights))


def _size(net: nn.Module) -> int:
    return sum(part.numel() for part in net.parameters())


def _stream_size(config: FlowConfig) -> int:
    """Numbers in a flow's history: steps, layers and guidance of the DiT; the conformer's, doubled after upsampling."""
    dit, encoder = config.dit, config.encoder
    frame = 2 * dit.heads * dit.head_size
    solver = ODE_STEPS * dit.depth * 2 * (RECENT_FRAMES * frame + 4 * dit.width)
    blocks = encoder.blocks + encoder.stride * encoder.up_blocks
    return solver + RECENT_TOKENS * blocks * 2 * encoder.width


def _available() -> int:
    """MemAvailable of Linux; elsewhere all there is."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        if found is not None:
            return int(found.group(1)) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 1 << 62  # unknown: nothing is refused


def _container_room() -> int:
    """What a container's limit leaves (cgroup v2); its cache of files can be given up at any time."""
    root = Path("/sys/fs/cgroup")
    try:
        limit = int((root / "memory.max").read_text(encoding="ascii"))
        used = int((root / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (root / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    except (OSError, ValueError):
        return 1 << 62  # no limit
