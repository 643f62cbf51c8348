"""Writes tests/golden/hift.npz: what the published vocoder computes, at small widths and with fixed weights.

    python scripts/golden/hift.py

Needs the `step-audio2` 1.0.0 wheel (installed with --no-deps; its vocoder needs only torch, numpy and scipy), which is
not a dependency of the project. The file holds a mel, an excitation, the pitch and samples that the wheel computes from
them, and its noiseless sines; the weights come from `fixed_weights`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from flashcosyvoice.modules.hifigan import ConvRNNF0Predictor, HiFTGenerator

from scripts.golden.fixed_weights import vocoder_weight

BASE, F0 = 32, 24
FRAMES = 20


def vocoder(base: int = BASE, pitch: int = F0) -> HiFTGenerator:
    """The wheel's vocoder with fixed weights."""
    network = HiFTGenerator(base_channels=base, f0_predictor=ConvRNNF0Predictor(cond_channels=pitch)).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(vocoder_weight(name, tuple(value.shape)))
    return network


def noiseless(network: HiFTGenerator, hertz: torch.Tensor) -> torch.Tensor:
    """The excitation of a pitch contour (frames,) without noise: (480 x frames,)."""
    generator = network.m_source.l_sin_gen
    generator.noise_std, amplitude = 0.0, generator.sine_amp
    upsampled = network.f0_upsamp(hertz[None, None]).transpose(1, 2)
    orders = torch.arange(1, generator.harmonic_num + 2)
    sines = amplitude * generator._f02sine(upsampled * orders)
    voiced = generator._f02uv(upsampled)
    merged = network.m_source.l_tanh(network.m_source.l_linear(sines * voiced))
    return merged[0, :, 0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).resolve().parents[2] / "tests" / "golden" / "hift.npz"
    parser.add_argument("--out", type=Path, default=default)
    path = parser.parse_args().out
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = vocoder()
    with torch.no_grad():
        mel = torch.randn(1, 80, FRAMES).half().float()
        times = torch.arange(480 * FRAMES) / 24_000
        source = (0.1 * torch.sin(2 * math.pi * 180 * times) + 0.003 * torch.randn(len(times))).half().float()
        pitch = network.f0_predictor(mel)
        samples = network.decode(mel, source[None, None])
        hertz = torch.linspace(90, 260, FRAMES)
        hertz[7:11] = 0.0
        sines = noiseless(network, hertz)
    results = {"pitch": pitch[0], "samples": samples[0], "hertz": hertz, "sines": sines}
    arrays = {"mel": mel[0].numpy().astype(np.float16), "source": source.numpy().astype(np.float16)}
    arrays |= {name: value.numpy().astype(np.float32) for name, value in results.items()}
    provenance = f"step-audio2 1.0.0 (flashcosyvoice.modules.hifigan), torch {torch.__version__}, CPU float32"
    np.savez_compressed(path, **arrays, provenance=provenance)
    print(
        f"{path}: {path.stat().st_size / 1024:.0f} KiB, pitch {pitch.mean():.1f} Hz, "
        f"samples {samples.abs().mean():.3f}, clipped {(samples.abs() > 0.98).float().mean():.3f}"
    )


if __name__ == "__main__":
    main()
