"""Unit normal noise that belongs to a place in a stream: a number depends on the seed and on its place alone.

`frame_noise` is the flow's on a CPU; `noise` is drawn on the device, for many streams at once, and other numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voiceagent.models.step_audio2.flow_config import MEL_BANDS

_WORD = 0xFFFFFFFF
_BLOCK = 64


def frame_noise(seed: int, start: int, frames: int) -> Tensor:
    """Standard normal noise (frames, 80) float32 of the frames from `start` on.

    A frame's noise depends on the seed and its position only, not on how a stream was cut into chunks.
    """
    first, last = start // _BLOCK, (start + frames - 1) // _BLOCK
    blocks = [torch.empty(0, MEL_BANDS)]
    for block in range(first, last + 1):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        blocks.append(torch.randn(_BLOCK, MEL_BANDS, generator=generator))
    return torch.cat(blocks)[start - first * _BLOCK :][:frames]


def noise(seeds: Tensor, first: Tensor, count: int, *, lane: int) -> Tensor:
    """(B, count) float32.

    Args:
        seeds: (B,) int64.
        first: (B,) int64 place of the first number.
        count: how many places.
        lane: keeps the noises of one stream apart.
    """
    if seeds.is_cuda:
        from voiceagent.models.step_audio2 import t2w_triton_speech

        return t2w_triton_speech.noise(seeds, first, count, lane=lane)
    place = first[:, None] + torch.arange(count, device=seeds.device)
    key = _mix((seeds & _WORD) ^ _mix((seeds >> 32 & _WORD) + lane))[:, None]
    low = _mix((place & _WORD) + key)
    one = _mix(low ^ 0x9E3779B9 ^ (place >> 32 & _WORD))
    two = _mix(low + key ^ 0x85EBCA6B)
    radius = torch.sqrt(-2 * torch.log((one.float() + 0.5) * 2.0**-32))
    return radius * torch.cos(two.float() * (2 * math.pi * 2.0**-32))


def _mix(x: Tensor) -> Tensor:
    """A permutation of 32 bits in which every input bit moves every output bit (MurmurHash3's finaliser)."""
    x = x & _WORD
    x = (x ^ x >> 16) * 0x85EBCA6B & _WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 & _WORD
    return x ^ x >> 16
