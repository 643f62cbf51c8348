"""Weights that any program can make again from a tensor's name and shape, so that golden files need not hold them."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn


def fixed_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """float32 normal numbers from a generator seeded with the CRC-32 of the name.

    Matrices and kernels have a deviation of 1 / sqrt(inputs), embeddings of 1, biases of 0.1; norms have gains near 1.
    The Box-Muller transform of a linear congruential sequence: no library's generator is involved.
    """
    count = 1
    for size in shape:
        count *= size
    state, numbers = zlib.crc32(name.encode()), []
    for _ in range(2 * count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        numbers.append((state >> 11) / 2**53)
    uniform = torch.tensor(numbers, dtype=torch.float64).view(2, count)
    normal = (-2 * (1 - uniform[0]).log()).sqrt() * (2 * torch.pi * uniform[1]).cos()
    if "embedding" in name:
        scaled = normal
    elif len(shape) > 1:
        scaled = normal * (shape[0] / count) ** 0.5
    elif name.endswith("weight"):
        scaled = 1 + 0.1 * normal
    else:
        scaled = 0.1 * normal
    return scaled.view(shape).float()


def fill(module: nn.Module, *, dtype: torch.dtype = torch.float32) -> None:
    """Gives every tensor of the state dictionary its fixed weight, rounded to `dtype` as a checkpoint stores it."""
    for name, tensor in module.state_dict().items():
        tensor.copy_(fixed_weight(name, tuple(tensor.shape)).to(dtype))


def vocoder_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Like `fixed_weight`, for the vocoder's published names: a voice of about 150 Hz that does not clip."""
    weight = fixed_weight(name, shape)
    if name.endswith("alpha"):
        return 0.5 + 0.3 * weight.abs()
    if name.endswith("original0"):  # the length of a weight-normed row
        return 0.4 + 0.2 * weight.abs()
    if name == "f0_predictor.classifier.weight":
        return 30 * weight
    if name == "f0_predictor.classifier.bias":
        return weight + 150
    return weight


def samples(name: str, count: int) -> Tensor:
    """(count,) unit normal numbers that belong to a name: noise that two programs share."""
    return fixed_weight(f"embedding.{name}", (count,))


def recording(name: str, count: int, *, rate: int = 16_000) -> Tensor:
    """(count,) in [-1, 1]: overtones of a gliding pitch with pauses between them, and noise at -50 dB."""
    time = torch.arange(count, dtype=torch.float64) / rate
    pitch = 110 + 20 * (zlib.crc32(name.encode()) % 5)
    phase = 2 * torch.pi * (pitch * time + 6 * torch.sin(2 * torch.pi * 0.7 * time))
    tones = sum((phase * k).sin() / k for k in range(1, 12))
    assert isinstance(tones, Tensor)
    rhythm = (torch.sin(2 * torch.pi * 2.5 * time) + 0.3).clamp_min(0)
    return (0.12 * tones * rhythm + 0.003 * samples(name, count)).float()
