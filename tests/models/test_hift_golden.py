"""Our vocoder against what the published one computed (scripts/golden/hift.py)."""

from __future__ import annotations

import torch

from scripts.golden import parity


def test_pitch_and_samples_are_the_published_ones() -> None:
    errors = parity.vocoder("cpu")
    assert errors["vocoder, pitch"] < 1e-4
    assert errors["vocoder, samples"] < 1e-3


def test_sines_are_the_published_ones() -> None:
    golden, hift = parity.golden("hift"), parity.vocoder_network(32, 24, "cpu")
    assert "step-audio2 1.0.0" in str(golden["provenance"])
    hertz, wanted = torch.from_numpy(golden["hertz"])[None], torch.from_numpy(golden["sines"])
    voiced = (hertz[0] > 10).repeat_interleave(480)
    voiced[:240] = False  # the published one stands still until the first frame's centre; ours already runs
    silence = torch.zeros(1, hertz.shape[1] * 480)
    sines = hift.net.excite(hertz, silence, phase=torch.zeros(1, dtype=torch.float64))[0, 0]
    assert parity.error(sines[voiced], wanted[voiced].numpy()) < 1e-3
    mute = (hertz[0] <= 10).repeat_interleave(480)
    assert torch.equal(sines[mute], wanted[mute])
