"""Whether what must lie on a device fits there, and which setting to change if not; it asks no machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voiceagent.errors import CapacityError

SPARE = 0.95  #: share of the free memory that is planned with; allocators lose some to rounding
MB = 1_000_000
GB = 1e9

KV_KEY, SPEECH_KEY = "engine.kv_memory_mb", "engine.speech_memory_mb"


@dataclass(frozen=True, slots=True)
class Part:
    """Something that takes memory of a device.

    Attributes:
        words: what it is.
        size: bytes.
        key: the setting that says the size; empty if it is worked out.
        least: bytes that it could do with.
        speech: it can be moved away with the rest of speech.
    """

    words: str
    size: int
    key: str = ""
    least: int = 0
    speech: bool = False


def check_room(device: str, parts: Sequence[Part], *, free: int, remedy: str) -> None:
    """Raises CapacityError (code "out_of_memory") if the parts do not fit, which names them, and what is free."""
    wanted = total(parts)
    if wanted <= free * SPARE:
        return
    listed = ", ".join(
        f"{part.size / GB:.1f} GB for {part.words}{f' ({part.key})' if part.key else ''}" for part in parts
    )
    kept = f"; {1 - SPARE:.0%} of what is free is not planned with" if wanted <= free else ""
    raise CapacityError(
        f"{device} has {free / GB:.1f} GB of memory free and {wanted / GB:.1f} GB are needed: {listed}{kept}.",
        code="out_of_memory",
        remedy=remedy,
        param="engine.device",
    )


def remedy(device: str, parts: Mapping[str, Sequence[Part]], *, free: Mapping[str, int], half: str) -> str:
    """What would make the parts of a device fit: smaller budgets if they are the reason, else another place.

    Args:
        device: where they do not fit.
        parts: of each device that is used.
        free: bytes of each device that there is.
        half: which setting to give which value for half the weights, for example "engine.dtype to bfloat16"; empty if
            they are half already.
    """
    here = parts[device]
    wanted, room = total(here), {name: int(size * SPARE) for name, size in free.items()}
    over = wanted - room[device]
    named = [part for part in here if part.key]
    for part in named:
        if part.size - over >= part.least:
            return f"Set {part.key} to {(part.size - over) // MB} or less; 0 works it out."
    advice = []
    if named:
        advice.append(f"Set {' and '.join(part.key for part in named)} to 0.")
    speech = total([part for part in here if part.speech])
    key = "engine.speech_device" if speech == wanted else "engine.device"
    others = {name: size for name, size in room.items() if name not in ("cpu", *parts)}
    elsewhere = next((name for name, size in others.items() if size >= wanted), None)
    beside = next((name for name, size in others.items() if size >= speech), None)
    if elsewhere is not None:
        advice.append(f"Set {key} to {elsewhere}, which has room for all of it.")
    elif beside is not None and over <= speech < wanted:
        advice.append(f"Set engine.speech_device to {beside}, which has room for speech.")
    if half:
        advice.append(f"Set {half}: the weights take half of it then.")
    advice.append(f"End other programs there, or use a device with {math.ceil(wanted / SPARE / GB)} GB free.")
    return " ".join(advice)


def total(parts: Sequence[Part]) -> int:
    """Bytes of all."""
    return sum(part.size for part in parts)
