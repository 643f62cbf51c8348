import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.audio.resample import ResampleStream, output_samples, resample
from voiceagent.errors import InputError

RATES = [8000, 16000, 22050, 24000, 44100, 48000]


@settings(max_examples=60, deadline=None)
@given(
    source=st.sampled_from(RATES), target=st.sampled_from([16000, 24000, 8000]),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
)  # fmt: skip
def test_the_sample_count_is_exact_however_the_input_is_cut(
    source: int, target: int, cuts: list[int]
) -> None:
    rng = np.random.default_rng(0)
    stream = ResampleStream(source=source, target=target)
    signal = rng.standard_normal(sum(cuts)).astype(np.float32) * 0.1
    parts, start = [], 0
    for cut in cuts:
        parts.append(stream.push(signal[start : start + cut]))
        start += cut
    parts.append(stream.finish())
    joined = np.concatenate(parts)
    assert len(joined) == stream.produced == output_samples(len(signal), source=source, target=target)
    np.testing.assert_allclose(joined, resample(signal, source=source, target=target), atol=1e-5)


def test_a_tone_keeps_its_pitch_and_place() -> None:
    seconds = np.arange(24000) / 24000
    tone = np.sin(2 * np.pi * 440 * seconds).astype(np.float32)
    heard = resample(tone, source=24000, target=16000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(heard - expected)[200:-200].max() < 1e-3


def test_the_filter_holds_back_at_most_what_the_docstring_says() -> None:
    for source in RATES:
        stream = ResampleStream(source=source, target=16000)
        for _ in range(100):
            stream.push(np.zeros(source // 50, np.float32))
            due = output_samples(stream.pushed, source=source, target=16000)
            assert due - stream.produced <= (0.120 if source == 8000 else 0.042) * 16000


def test_equal_rates_pass_through() -> None:
    chunk = np.array([0.1, 0.2], np.float32)
    stream = ResampleStream(source=16000, target=16000)
    assert np.array_equal(stream.push(chunk), chunk)
    assert len(stream.finish()) == 0


@pytest.mark.parametrize("rate", [0, -8000])
def test_a_rate_must_be_positive(rate: int) -> None:
    with pytest.raises(InputError) as caught:
        ResampleStream(source=rate, target=16000)
    assert caught.value.param == "source"
