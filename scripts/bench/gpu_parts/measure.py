"""How things are timed, and the machine's ceilings, measured in the same run; it knows no model."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. It is taken in two rounds, and each round's median is kept.

    Attributes:
        value: mean of the two medians.
        spread: their distance.
        low, high: fastest and slowest single measurement.
    """

    value: float
    spread: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> Figure:
        """From the single measurements of each round."""
        medians = [statistics.median(values) for values in rounds]
        everything = [value for values in rounds for value in values]
        return cls(statistics.fmean(medians), max(medians) - min(medians), min(everything), max(everything))

    @classmethod
    def single(cls, value: float) -> Figure:
        """Of what is counted or computed, not timed."""
        return cls(value, 0.0, value, value)

    def scaled(self, factor: float) -> Figure:
        """In another unit."""
        return Figure(*(factor * part for part in (self.value, self.spread, self.low, self.high)))

    def inverse(self, factor: float) -> Figure:
        """A rate from a time: `factor` per unit of it."""
        relative = self.spread / self.value if self.value else 0.0
        rate = factor / self.value
        return Figure(rate, rate * relative, factor / self.high, factor / self.low)


@dataclass(frozen=True, slots=True)
class Clock:
    """Times work on one device: everything that was begun before is over, and everything begun inside is over too."""

    device: str

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def once(self, work: Work) -> float:
        """Milliseconds of wall time, launching included."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return 1000 * (time.perf_counter() - began)

    def figure(self, work: Work, *, repeat: int, warm: int = 3, before: Work | None = None) -> Figure:
        """Milliseconds of `work`, two rounds of `repeat` measurements; `before` runs untimed ahead of each."""

        def single() -> float:
            if before is not None:
                before()
            return self.once(work)

        for _ in range(warm):
            single()
        return Figure.of([[single() for _ in range(repeat)] for _ in range(2)])

    def free(self) -> None:
        """Give memory that nothing holds back to the device."""
        gc.collect()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device can do at all, from two plain operations.

    Attributes:
        copy: bytes read and written per second by a device-to-device copy.
        matmul: operations per second of a large bf16 matrix product.
    """

    copy: Figure
    matmul: Figure

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.copy.value

    @property
    def compute(self) -> float:
        """bf16 operations per second."""
        return self.matmul.value


def ceilings(clock: Clock, *, tiny: bool) -> Ceilings:
    """Device copy of 4 GiB, and 8192 x 8192 x 8192 in bf16 (tiny: 64 MiB, 256)."""
    count = 2**24 if tiny else 2**30
    source = torch.ones(count, dtype=torch.float32, device=clock.device)
    target = torch.empty_like(source)
    repeat = 3 if tiny else 10
    copied = clock.figure(lambda: target.copy_(source), repeat=repeat)
    size = 256 if tiny else 8192
    left, right = (torch.randn(size, size, device=clock.device, dtype=torch.bfloat16) for _ in range(2))
    product = clock.figure(lambda: left @ right, repeat=repeat)
    return Ceilings(copied.inverse(1000 * 8 * count), product.inverse(1000 * 2 * size**3))


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device,
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
    else:
        found |= {"name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return found
