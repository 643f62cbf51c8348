"""The spectral front ends against slow numpy versions of their formulas, and the laws of frames and placeholders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from voiceagent.errors import InputError
from voiceagent.models.step_audio2.mel import kaldi_fbank, log_mel, mel_24k, placeholder_count

Array = NDArray[np.float64]


def _noise(samples: int, *, seed: int = 0) -> Array:
    """Coloured noise with a loud and a quiet half, so that the floor below the maximum matters."""
    noise = np.cumsum(np.random.default_rng(seed).standard_normal(samples)) * 0.01
    noise -= noise.mean()
    noise[samples // 2 :] *= 1e-4
    return noise / max(1.0, np.abs(noise).max())


def _slaney(rate: int, fft: int, bands: int) -> Array:
    """librosa's default filter bank, one weight at a time."""

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    edges = [to_hz(top * i / (bands + 1)) for i in range(bands + 2)]
    out = np.zeros((bands, fft // 2 + 1))
    for band in range(bands):
        low, mid, high = edges[band : band + 3]
        for k in range(fft // 2 + 1):
            hz = k * rate / fft
            weight = min((hz - low) / (mid - low), (high - hz) / (high - mid))
            out[band, k] = max(0.0, weight) * 2 / (high - low)
    return out


def _power(frame: Array, fft: int) -> Array:
    return np.abs(np.fft.rfft(frame, fft)) ** 2


def _log_mel(wave: Array, pad: int) -> Array:
    padded = np.pad(np.pad(wave, (0, pad)), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = 1 + (len(padded) - 400) // 160
    power = np.stack(
        [_power(padded[160 * t : 160 * t + 400] * window, 400) for t in range(frames)][:-1], axis=1
    )
    x = np.log10(np.maximum(_slaney(16_000, 400, 128) @ power, 1e-10))
    return (np.maximum(x, x.max() - 8) + 4) / 4


@pytest.mark.parametrize("pad", [479, 0])
@pytest.mark.parametrize("samples", [5000, 8123, 8960])
def test_log_mel_is_the_stated_formula(samples: int, pad: int) -> None:
    wave = _noise(samples)
    mel, frames = log_mel(torch.tensor(wave)[None], torch.tensor([samples]), pad=pad)
    expected = _log_mel(wave, pad)
    assert int(frames[0]) == (samples + pad) // 160 == expected.shape[1]
    np.testing.assert_allclose(mel[0].numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("pad", [479, 0])
def test_a_batch_is_the_rows_alone(pad: int) -> None:
    lengths = [9000, 4321, 8960, 401]
    waves = torch.randn(4, 9000)
    mel, frames = log_mel(waves, torch.tensor(lengths), pad=pad)
    for i, length in enumerate(lengths):
        alone, count = log_mel(waves[i : i + 1, :length], torch.tensor([length]), pad=pad)
        assert frames[i] == count[0]
        torch.testing.assert_close(mel[i, :, : int(count[0])], alone[0], rtol=1e-4, atol=1e-4)
        assert not mel[i, :, int(count[0]) :].any()


@pytest.mark.parametrize(("seconds", "count"), [(1, 13), (5, 63), (10, 125), (25, 313)])
def test_placeholders(seconds: int, count: int) -> None:
    assert placeholder_count(16_000 * seconds) == count


@given(st.integers(0, 400_000))
def test_placeholders_follow_the_law_of_the_valid_length(samples: int) -> None:
    valid = (samples + 479) // 160 - 2
    encoder = (valid + 1) // 2 // 2
    assert placeholder_count(samples) == max(0, (encoder - 1) // 2 + 1)


def test_mel_24k_is_the_stated_formula() -> None:
    wave = _noise(9700, seed=1)
    padded = np.pad(wave, 720, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1920) / 1920)
    spectra = [
        np.sqrt(_power(padded[480 * t : 480 * t + 1920] * window, 1920) + 1e-9) for t in range(9700 // 480)
    ]
    expected = np.log(np.maximum(_slaney(24_000, 1920, 80) @ np.stack(spectra, axis=1), 1e-5))
    mel = mel_24k(torch.tensor(wave)[None])
    assert mel.shape == (1, 80, 20)
    np.testing.assert_allclose(mel[0].numpy(), expected, atol=2e-3)


def _kaldi(wave: Array) -> Array:
    def to_mel(hz: float) -> float:
        return 1127 * np.log(1 + hz / 700)

    low, high = to_mel(20), to_mel(8000)
    step = (high - low) / 81
    bank = np.zeros((80, 256))
    for band in range(80):
        left = low + band * step
        for k in range(256):
            mel = to_mel(k * 16_000 / 512)
            bank[band, k] = max(0.0, min((mel - left) / step, (left + 2 * step - mel) / step))
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    rows = []
    for t in range(1 + (len(wave) - 400) // 160):
        frame = wave[160 * t : 160 * t + 400]
        frame = frame - frame.mean()
        emphasised = frame.copy()
        emphasised[1:] -= 0.97 * frame[:-1]
        emphasised[0] -= 0.97 * frame[0]
        rows.append(bank @ _power(emphasised * window, 512)[:256])
    return np.log(np.maximum(np.stack(rows), np.finfo(np.float32).eps))


def test_kaldi_fbank_is_the_stated_definition() -> None:
    wave = _noise(6000, seed=2)
    fbank = kaldi_fbank(torch.tensor(wave, dtype=torch.float32))
    expected = _kaldi(wave)
    assert fbank.shape == expected.shape == (36, 80)
    np.testing.assert_allclose(fbank.numpy(), expected, atol=5e-2)
    np.testing.assert_allclose(fbank.numpy()[:16], expected[:16], atol=2e-3)  # the loud half


def test_tables_made_during_inference_serve_training_too() -> None:
    with torch.inference_mode():
        log_mel(torch.randn(1, 3000), torch.tensor([3000]))
    wave = torch.randn(1, 3000, requires_grad=True)
    log_mel(wave, torch.tensor([3000]))[0].sum().backward()
    assert wave.grad is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda: log_mel(torch.zeros(1, 200), torch.tensor([200]), pad=0),
        lambda: mel_24k(torch.zeros(1, 720)),
        lambda: kaldi_fbank(torch.zeros(399)),
    ],
)
def test_too_short_audio_is_a_typed_error(call: object) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.code == "audio_too_short"
