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

from voiceagent.errors import ConfigError
from voiceagent.models import admission
from voiceagent.models.admission import KV_KEY, MB, SPARE, SPEECH_KEY, Part, check_room, total
from voiceagent.models.step_audio2.checkpoint import read_headers, sizes_only, weight_count
from voiceagent.models.step_audio2.config import StepAudio2Config, TextConfig
from voiceagent.models.step_audio2.flow import FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.kv import page_bytes
from voiceagent.models.step_audio2.t2w_room import SpeechRoom

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_LANGUAGE = "the language model and its work"
_LANGUAGE_WORK = (0.05, 512 * MB)  # activations and graphs: share of the weights, and at least
_SPEECH_WORK = (2.0, 256 * MB)
_SPEECH_SHARE = 1 / 3  # of the memory left on a GPU that speech and language share


class Machine(Protocol):
    """What there is to run on."""

    def gpus(self) -> int:
        """How many CUDA GPUs torch can use."""

    def has_bfloat16(self, device: str) -> bool:
        """Whether a GPU computes in bfloat16 itself; whether a CPU has tiles for it (AMX), which make it quick."""

    def free(self, device: str) -> int:
        """Bytes that are free on a device now."""


class ThisMachine:
    """The machine that we are on, as torch and the kernel see it."""

    def gpus(self) -> int:
        """See `Machine`."""
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def has_bfloat16(self, device: str) -> bool:
        """See `Machine`."""
        if device == "cpu":
            tiles: bool = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
            return tiles
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
        text: the language model's sizes.
        speech: the flow's.
    """

    language: int
    flow: int
    vocoder: int
    position: int
    positions: int
    text: TextConfig
    speech: FlowConfig

    @classmethod
    def of(cls, folder: Path | str) -> Needs:
        """From the headers and configurations of a checkpoint folder.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        folder = Path(folder)
        text = StepAudio2Config.from_folder(folder).text
        config = FlowConfig.from_file(folder / "token2wav" / "flow.yaml")
        with sizes_only():
            flow, vocoder = FlowNet(config), HiftNet(HiftConfig.from_folder(folder / "token2wav"))
        return cls(
            language=weight_count(read_headers(folder)),
            flow=_size(flow),
            vocoder=_size(vocoder),
            position=2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim,
            positions=text.max_position_embeddings,
            text=text,
            speech=config,
        )


@dataclass(frozen=True, slots=True)
class Stages:
    """Device ("cpu" or "cuda:N") and number type of the language model with its encoder, and of Token2Wav's flow."""

    language: tuple[str, torch.dtype]
    speech: tuple[str, torch.dtype]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything goes; devices are "cpu" or "cuda:N", memory is in bytes.

    Attributes:
        device: of encoder, adapter, language model and its keys and values.
        dtype: of the same.
        speech_device: of flow and vocoder.
        speech_dtype: of the flow.
        kv_bytes: for the keys and values of all conversations, as far as can be said before loading.
        speech_bytes: for the state of all speech streams.
        kv_range: least and most of `kv_bytes`.
        kv_named: what the operator said of it; 0 = nothing.
        language_bytes: weights and working memory of the language model.
        position_bytes: keys and values of one position.
        speech_streams: that `speech_bytes` hold at once.
        fixed: per device what weights and working memory take.
        needed: per device what weights, working memory, and at least one conversation and stream take.
        free: per device what was free.
    """

    device: str
    dtype: torch.dtype
    speech_device: str
    speech_dtype: torch.dtype
    kv_bytes: int
    speech_bytes: int
    kv_range: tuple[int, int]
    kv_named: int
    language_bytes: int
    position_bytes: int
    speech_streams: int
    fixed: dict[str, int]
    needed: dict[str, int]
    free: dict[str, int]

    def kv_room(self, machine: Machine | None = None) -> int:
        """Bytes for conversations when speech is loaded and the language model is not: what is really left of a GPU.

        Graphs of speech take what the device's algorithms ask for, which nobody knows before.

        Raises:
            CapacityError: it is less than the least (code "out_of_memory").
        """
        if self.device == "cpu":
            return self.kv_bytes
        least, most = self.kv_range
        free = (machine or ThisMachine()).free(self.device)
        parts = [Part(_LANGUAGE, self.language_bytes), _conversations(self.kv_named, talk=least)]
        remedy = admission.remedy(self.device, {self.device: parts}, free={self.device: free}, half="")
        if self.speech_device == self.device:
            remedy += " Speech is there already: engine.speech_memory_mb is what it may take."
        check_room(self.device, parts, free=free, remedy=remedy)
        return min(most, int(free * SPARE) - self.language_bytes)


def choose(
    *,
    device: str = "auto",
    dtype: str = "auto",
    speech_device: str = "auto",
    speech_dtype: str = "auto",
    machine: Machine | None = None,
) -> Stages:
    """Devices and number types for what an operator asked for; arguments and errors as of `place`."""
    machine = machine or ThisMachine()
    where = _device(device, machine, default="cuda:0" if machine.gpus() else "cpu", field="device")
    speech = _device(speech_device, machine, default=where, field="speech_device")
    return Stages(
        (where, _dtype(dtype, where, machine, field="dtype")),
        (speech, _dtype(speech_dtype, speech, machine, field="speech_dtype")),
    )


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
        dtype, speech_dtype: "auto" or a name in `DTYPES`; bfloat16 on a GPU that has it, float32 on a CPU
            (speech in bfloat16 if the CPU has tiles for it).
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
    stages = choose(
        device=device, dtype=dtype, speech_device=speech_device, speech_dtype=speech_dtype, machine=machine
    )
    (where, number), (speech, speech_number) = stages.language, stages.speech
    needs = Needs.of(folder)
    _check_shapes(needs, language_device=where, speech_device=speech)
    room = SpeechRoom.of(needs.speech, speech_number)
    kv_bytes, speech_bytes = kv_memory_mb * MB, speech_memory_mb * MB
    talk = needs.position * needs.positions * number.itemsize
    if kv_bytes:
        _check_conversations(kv_bytes, page=page_bytes(needs.text, number))
    if speech_bytes:
        room.check(speech_bytes)
    fixed = _fixed(needs, stages)
    parts = _parts(needs, stages, kv_bytes=kv_bytes, speech_bytes=speech_bytes, talk=talk, room=room)
    free = {name: machine.free(name) for name in parts}
    for name, listed in parts.items():
        everywhere = {f"cuda:{i}": machine.free(f"cuda:{i}") for i in range(machine.gpus())} | free
        remedy = admission.remedy(name, parts, free=everywhere, half=_half(name, stages, machine))
        check_room(name, listed, free=free[name], remedy=remedy)
    left = {name: _left(name, free=free[name], fixed=fixed[name]) for name in fixed}
    if not speech_bytes:
        most = int(left[speech] * (_SPEECH_SHARE if where == speech else 1.0))
        speech_bytes = max(room.least, min(room.wanted(max_sessions), most))
    left[speech] -= speech_bytes
    kv_range = (kv_bytes, kv_bytes) if kv_bytes else (talk, max_sessions * talk)
    return Placement(
        device=where,
        dtype=number,
        speech_device=speech,
        speech_dtype=speech_number,
        kv_bytes=max(kv_range[0], min(kv_range[1], left[where])),
        speech_bytes=speech_bytes,
        kv_range=kv_range,
        kv_named=kv_memory_mb * MB,
        language_bytes=_language_bytes(needs, number),
        position_bytes=needs.position * number.itemsize,
        speech_streams=room.divide(speech_bytes)["slots"],
        fixed=fixed,
        needed={name: total(listed) for name, listed in parts.items()},
        free=free,
    )


def _check_shapes(needs: Needs, *, language_device: str, speech_device: str) -> None:
    """Refuses sizes that the kernels of a GPU cannot be cut for; on a CPU any will do."""
    wrong = ""
    if language_device != "cpu" and not _power_of_2(needs.text.head_dim, least=16):
        wrong = f"text_config.head_dim is {needs.text.head_dim}"
    dit = needs.speech.dit
    if speech_device != "cpu" and not (_power_of_2(dit.heads) and _power_of_2(dit.head_size, least=16)):
        wrong = f"flow.yaml has {dit.heads} heads of {dit.head_size}"
    if wrong:
        raise ConfigError(
            f"This checkpoint does not run on a GPU: {wrong}; its kernels take powers of two, and heads "
            "of 16 or wider.",
            code="device_unavailable",
            remedy="Run it with --device cpu.",
            param="engine.device",
        )


def _check_conversations(kv_bytes: int, *, page: int) -> None:
    if kv_bytes < page:
        raise ConfigError(
            f"engine.kv_memory_mb = {kv_bytes // MB} is too little: conversations are kept in pages of "
            f"{page / MB:.1f} MB.",
            remedy=f"Set it to {-(-page // MB)} or more, a few hundred for a real conversation; 0 works it out.",
            param="engine.kv_memory_mb",
        )


def _parts(
    needs: Needs, stages: Stages, *, kv_bytes: int, speech_bytes: int, talk: int, room: SpeechRoom
) -> dict[str, list[Part]]:
    """Per device what must lie there: what is fixed, and the budgets that were named or the least there must be."""
    (where, number), (speech, _) = stages.language, stages.speech
    parts: dict[str, list[Part]] = {where: [], speech: []}
    parts[where].append(Part(_LANGUAGE, _language_bytes(needs, number)))
    parts[where].append(_conversations(kv_bytes, talk=talk))
    parts[speech].append(Part("the speech decoder and its work", _speech_bytes(needs, stages), speech=True))
    if speech_bytes:
        streams = Part("speech streams and voices", speech_bytes, SPEECH_KEY, least=room.least, speech=True)
    else:
        streams = Part("one speech stream and two voices", room.least, speech=True)
    parts[speech].append(streams)
    return parts


def _conversations(named: int, *, talk: int) -> Part:
    if named:
        return Part("conversations", named, KV_KEY, least=min(named, talk))
    return Part("one conversation of full length", talk)


def _half(device: str, stages: Stages, machine: Machine) -> str:
    """The setting that halves a GPU's weights, if they are in float32."""
    if device == "cpu":
        return ""
    number = "bfloat16" if machine.has_bfloat16(device) else "float16"
    if stages.language == (device, torch.float32):
        return f"engine.dtype to {number}"
    return f"engine.speech_dtype to {number}" if stages.speech == (device, torch.float32) else ""


def _language_bytes(needs: Needs, number: torch.dtype) -> int:
    weights = needs.language * number.itemsize
    return weights + _work(weights, _LANGUAGE_WORK)


def _fixed(needs: Needs, stages: Stages) -> dict[str, int]:
    """Per device, the bytes of weights and of working memory."""
    (where, number), (speech, _) = stages.language, stages.speech
    fixed = {where: 0, speech: 0}
    fixed[where] += _language_bytes(needs, number)
    fixed[speech] += _speech_bytes(needs, stages)
    return fixed


def _speech_bytes(needs: Needs, stages: Stages) -> int:
    flow = needs.flow * stages.speech[1].itemsize
    return flow + needs.vocoder * 4 + _work(flow, _SPEECH_WORK)


def _left(device: str, *, free: int, fixed: int) -> int:
    """Bytes beyond the fixed ones that conversations may have: of a CPU half, since other programs live there too."""
    return int((free * SPARE - fixed) * (0.5 if device == "cpu" else 1.0))


def _device(asked: str, machine: Machine, *, default: str, field: str) -> str:
    """The device under its full name."""
    if asked == "auto":
        return default
    count = machine.gpus()
    there = ["cpu", *(f"cuda:{i}" for i in range(count))]
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", asked)
    name = asked if asked == "cpu" or match is None else f"cuda:{int(match.group(1) or 0)}"
    if name in there:
        return name
    if match is None:
        why = "it is neither cpu nor cuda:N"
    elif count == 0:
        why = "torch sees no CUDA GPU" + ("" if torch.version.cuda else ", and was built without CUDA")
    else:
        why = f"torch sees {count} CUDA GPU(s)"
    raise ConfigError(
        f"The device {asked!r} cannot be used: {why}.",
        code="device_unavailable",
        remedy=f"Here are {', '.join(there)}; --device cpu always works.",
        param=f"engine.{field}",
    )


def _dtype(asked: str, device: str, machine: Machine, *, field: str) -> torch.dtype:
    if asked == "auto":
        if device == "cpu" and field == "dtype":
            return torch.float32  # a token is all reading of weights, which the cache holds
        if device == "cpu":
            return torch.bfloat16 if machine.has_bfloat16(device) else torch.float32
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


def _power_of_2(number: int, *, least: int = 1) -> bool:
    return number >= least and number & (number - 1) == 0


def _work(weights: int, rule: tuple[float, int]) -> int:
    """Working memory beside so many bytes of weights; small models need little."""
    share, least = rule
    return max(int(share * weights), min(least, weights))


def _size(net: nn.Module) -> int:
    return sum(part.numel() for part in net.parameters())


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
