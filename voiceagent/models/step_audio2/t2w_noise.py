"""Unit normal noise that belongs to a place in a stream, made on the device for many streams at once.

A number depends on the seed and on its place alone. It knows no frames or samples, and draws other numbers than the
CPU's generators in `flow` and `hift`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


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
