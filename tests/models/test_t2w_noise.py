"""Noise that belongs to a place: the same however it is cut, normal, and different between streams."""

from __future__ import annotations

import pytest
import torch

from voiceagent.models.step_audio2.t2w_noise import noise


def test_a_number_depends_on_its_seed_and_place_alone() -> None:
    seeds, zero = torch.tensor([3, 2**40 + 3]), torch.zeros(2, dtype=torch.int64)
    whole = noise(seeds, zero, 1000, lane=1)
    assert torch.equal(whole[:, 300:500], noise(seeds, zero + 300, 200, lane=1))
    assert torch.equal(whole[1:], noise(seeds[1:], zero[1:], 1000, lane=1))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, noise(seeds, zero, 1000, lane=2))
    far = noise(seeds[:1], torch.tensor([2**33]), 1000, lane=1)
    assert not torch.equal(whole[:1], far)


def test_it_is_unit_normal_and_neighbours_are_strangers() -> None:
    x = noise(torch.arange(4), torch.zeros(4, dtype=torch.int64), 100_000, lane=1)
    assert x.isfinite().all()
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.std().item() == pytest.approx(1, abs=0.01)
    assert x.pow(4).mean().item() == pytest.approx(3, abs=0.1)
    assert (x[:, 1:] * x[:, :-1]).mean().item() == pytest.approx(0, abs=0.01)
    assert (x[0] * x[1]).mean().item() == pytest.approx(0, abs=0.01)
