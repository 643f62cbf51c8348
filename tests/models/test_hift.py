"""The vocoder: published names and shapes, streaming without seams, noise and phase, damaged files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2 import hift as module
from voiceagent.models.step_audio2.hift import (
    LOOKAHEAD,
    Hift,
    HiftPart,
    load_weights,
    stored_shapes,
    stored_weights,
    stream_noise,
)
from voiceagent.models.step_audio2.hift_net import HOP, HiftConfig, HiftNet

SMALL = HiftConfig(16, 16)


@pytest.fixture(scope="module")
def hift() -> Hift:
    """Random weights that answer to the mel and to a pitch of about 150 Hz."""
    torch.manual_seed(3)
    net = HiftNet(SMALL)
    with torch.no_grad():
        net.f0_predictor.classifier.weight.mul_(40)
        net.f0_predictor.classifier.bias.fill_(150.0)
        net.conv_post.weight.mul_(3)
    return Hift(net)


@pytest.fixture(scope="module")
def mel() -> Tensor:
    torch.manual_seed(4)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 80, 20), size=120, mode="linear")
    return smooth[0] * 2 - 3


def streamed(hift: Hift, mel: Tensor, sizes: list[int], seed: int = 0) -> Tensor:
    state, parts, at = hift.open(seed=seed), [], 0
    for size in sizes:
        samples, state = hift.step(mel[:, at : at + size], state)
        parts.append(samples)
        at += size
    samples, _ = hift.step(mel[:, at:], state, last=True)
    return torch.cat([*parts, samples])


def test_reference_widths_give_the_published_tensors() -> None:
    with torch.device("meta"):
        net = HiftNet(HiftConfig())
    shapes = stored_shapes(net)
    assert len(shapes) == 328
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 20_821_295
    assert shapes["conv_pre.parametrizations.weight.original1"] == (512, 80, 7)
    assert shapes["ups.1.parametrizations.weight.original0"] == (256, 1, 1)
    assert shapes["ups.1.parametrizations.weight.original1"] == (256, 128, 11)
    assert shapes["source_downs.0.weight"] == (256, 18, 30)
    assert shapes["source_downs.2.weight"] == (64, 18, 1)
    assert shapes["resblocks.8.convs2.2.parametrizations.weight.original1"] == (64, 64, 11)
    assert shapes["source_resblocks.2.activations1.0.alpha"] == (64,)
    assert shapes["conv_post.parametrizations.weight.original1"] == (18, 64, 7)
    assert shapes["m_source.l_linear.weight"] == (1, 9)
    assert shapes["f0_predictor.condnet.8.parametrizations.weight.original0"] == (512, 1, 1)
    assert shapes["f0_predictor.classifier.weight"] == (1, 512)


def test_weight_norm_is_undone_and_redone() -> None:
    torch.manual_seed(0)
    first, second = HiftNet(SMALL), HiftNet(SMALL)
    stored = stored_weights(first)
    key = "resblocks.0.convs1.0.parametrizations.weight"
    load_weights(second, {f"generator.{name}": value for name, value in stored.items()}, source="here")
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value)
    stored[f"{key}.original0"] = stored[f"{key}.original0"] * 2
    stored[f"{key}.original1"] = stored[f"{key}.original1"] * 5  # a direction has no length
    load_weights(second, stored, source="here")
    torch.testing.assert_close(second.resblocks[0].convs1[0].weight, 2 * first.resblocks[0].convs1[0].weight)


@settings(deadline=None, max_examples=12)
@given(sizes=st.lists(st.integers(0, 50), max_size=8), frames=st.integers(0, 120))
def test_every_frame_gives_480_samples(hift: Hift, mel: Tensor, sizes: list[int], frames: int) -> None:
    sizes = [size for i, size in enumerate(sizes) if sum(sizes[: i + 1]) <= frames]
    samples = streamed(hift, mel[:, :frames], sizes)
    assert samples.shape == (HOP * frames,)
    assert samples.isfinite().all()
    assert bool((samples.abs() <= 0.99).all())


@pytest.mark.parametrize("sizes", [[24, 50], [1] * 60, [24, 3, 0, 40], [7, 50, 50]])
def test_a_stream_equals_the_whole(hift: Hift, mel: Tensor, sizes: list[int]) -> None:
    whole = hift.synthesize(mel)
    samples = streamed(hift, mel, sizes)
    assert ((samples - whole).norm() / whole.norm()).item() < 0.01
    assert (samples - whole).abs().max() < 0.05 * whole.abs().max()


def test_with_the_full_context_a_stream_is_exact(
    hift: Hift, mel: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKAHEAD", 20)
    monkeypatch.setattr(module, "_CONTEXT", 16)
    torch.testing.assert_close(streamed(hift, mel, [24, 50, 25]), hift.synthesize(mel), rtol=0, atol=1e-4)


def test_joins_do_not_click(hift: Hift, mel: Tensor) -> None:
    """Above 9.4 kHz, no join holds more than the whole utterance does at the same place."""
    whole, sizes = hift.synthesize(mel), [12, 13, 25, 25, 25]
    samples = streamed(hift, mel, sizes)
    joins = [HOP * (sum(sizes[: i + 1]) - LOOKAHEAD) for i in range(len(sizes))]
    for join in joins:
        place = slice(join - 256, join + HOP + 256)
        ours, theirs = (high_band(part[place]) for part in (samples, whole))
        assert (ours <= 1.02 * theirs + 1e-6).all()
        step = (samples[1:] - samples[:-1])[place].abs().max()
        assert step <= 1.02 * (whole[1:] - whole[:-1])[place].abs().max() + 1e-6


def high_band(wave: Tensor) -> Tensor:
    """Root energy above 9.4 kHz of each 256-sample window of a piece."""
    spectrum = torch.stft(wave, 256, 64, window=torch.hann_window(256), center=False, return_complex=True)
    return spectrum[100:].abs().square().sum(0).sqrt()


def test_the_first_chunk_holds_back_100_ms(hift: Hift, mel: Tensor) -> None:
    samples, state = hift.step(mel[:, :24], hift.open())
    assert len(samples) == HOP * 24 - 2400 == state.emitted
    assert state.nbytes < 20_000


def test_samples_do_not_depend_on_later_frames_beyond_the_lookahead(hift: Hift, mel: Tensor) -> None:
    other = mel.clone()
    other[:, 50:] = 3.0
    a, b = (hift.step(m[:, :50], hift.open())[0] for m in (mel, other))
    assert torch.equal(a, b)


def test_streams_are_independent_and_states_can_be_kept(hift: Hift, mel: Tensor) -> None:
    alone = streamed(hift, mel, [24, 50])
    _, first = hift.step(mel[:, :24], hift.open())
    before = first.mel.clone(), first.fade.clone(), first.phase.clone()
    hift.step(mel.flip(1)[:, :60], hift.open(seed=9))
    one, _ = hift.step(mel[:, 24:], first, last=True)
    again, _ = hift.step(mel[:, 24:], first, last=True)
    assert torch.equal(one, again)
    assert all(torch.equal(x, y) for x, y in zip(before, (first.mel, first.fade, first.phase), strict=True))
    assert torch.allclose(alone[-len(one) :], one, atol=0.02)


def test_the_seed_decides_the_noise(hift: Hift, mel: Tensor) -> None:
    a, b, c = (hift.synthesize(mel, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_noise_is_normal_and_the_same_however_it_is_cut() -> None:
    whole = stream_noise(5, 0, 200)
    assert whole.dtype == np.float32
    assert np.array_equal(whole[480 * 7 : 480 * 30], stream_noise(5, 7, 23))
    assert abs(whole.mean()) < 0.02
    assert abs(whole.std() - 1) < 0.02
    assert np.abs(whole).max() < 7
    assert abs(np.mean(whole[1:] * whole[:-1])) < 0.02


def test_phase_goes_on_where_the_last_window_stopped(hift: Hift) -> None:
    hertz = torch.linspace(80, 300, 40)[None]
    silence = torch.zeros(1, HOP * 40)
    zero = torch.zeros(1, dtype=torch.float64)
    whole = hift.net.excite(hertz, silence, phase=zero)
    passed = hertz[:, :25].double().sum(1) * (HOP / 24_000)
    late = hift.net.excite(hertz[:, 25:], silence[:, : HOP * 15], phase=passed % 1)
    torch.testing.assert_close(whole[..., HOP * 25 :], late, atol=1e-4, rtol=0)


def test_ten_minutes_do_not_drift(hift: Hift, mel: Tensor) -> None:
    """The excitation at minute ten is that of a stream whose phase was summed in double precision throughout."""
    state = hift.open()
    phase = torch.tensor([123_456.75], dtype=torch.float64)  # 14 minutes of 150 Hz
    near = hift.net.excite(torch.full((1, 4), 150.0), torch.zeros(1, 1920), phase=phase % 1)
    far = hift.net.excite(torch.full((1, 4), 150.0), torch.zeros(1, 1920), phase=phase)
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)
    for _ in range(6):
        _, state = hift.step(mel, state)
    assert state.mel.shape[1] <= LOOKAHEAD + 8 + 5
    assert 0 <= state.phase.item() < 1


@pytest.mark.parametrize("frames", [1, 2, 5, 19, 40])
def test_an_end_within_a_longer_row_is_as_exact_as_alone(hift: Hift, mel: Tensor, frames: int) -> None:
    net, phase = hift.net, torch.zeros(2, dtype=torch.float64)
    noise = torch.from_numpy(np.stack([stream_noise(seed, 0, 40) for seed in (0, 1)]))
    rows = torch.stack([mel[:, :40], mel[:, 40:80]])
    rows[0, :, frames:] = 0
    ends = torch.tensor([frames, 40])
    with torch.inference_mode():
        f0 = net.f0_predictor(rows, ends)
        made = net.decode(rows, net.excite(f0, noise, phase=phase), frames=ends)
        for row, end in enumerate(ends.tolist()):
            alone = rows[row : row + 1, :, :end]
            f0_alone = net.f0_predictor(alone)
            source = net.excite(f0_alone, noise[row : row + 1, : HOP * end], phase=phase[:1])
            torch.testing.assert_close(f0[row, :end], f0_alone[0], rtol=1e-5, atol=1e-3)
            expected = net.decode(alone, source)[0]
            torch.testing.assert_close(made[row, : HOP * end], expected, rtol=1e-4, atol=2e-5)


class Replayed:
    """In the place of a CUDA graph: computes from the recorded inputs, and counts."""

    count = 0

    def __init__(
        self, compute: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor], memory: object
    ) -> None:
        self.inputs, self._compute = tuple(inputs), compute

    def __call__(self) -> tuple[Tensor, ...]:
        Replayed.count += 1
        return self._compute(*self.inputs)


@pytest.mark.parametrize("chunks", [0, 1, 2, 3, 4, 6])
def test_every_window_of_a_recorded_schedule_is_recorded_whatever_the_end(
    hift: Hift, mel: Tensor, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [12, 20, 26]
    monkeypatch.setattr(module, "Recorded", Replayed)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    recorded = Hift(hift.net)
    recorded.record(sizes, more=6, buckets=[2])
    mels = torch.cat([mel, mel.flip(1), mel], dim=1)
    schedule = [sizes[min(i, 2)] for i in range(chunks)]
    for end in (0, 1, 5, 17, 31, 32) if chunks else (1, 5, 32):
        until = sum(schedule) + end
        alone = [streamed(hift, mels[:, at : at + until], schedule, seed=at) for at in (0, 3)]
        states = [recorded.open(seed=at) for at in (0, 3)]
        begun, at = Replayed.count, 0
        sound: list[list[Tensor]] = []
        for size in [*schedule, end]:
            parts = [
                HiftPart(mels[:, first + at : first + at + size], state, last=len(sound) == chunks)
                for first, state in zip((0, 3), states, strict=True)
            ]
            results = recorded.steps(parts)
            sound.append([samples for samples, _ in results])
            states, at = [state for _, state in results], at + size
        assert Replayed.count == begun + chunks + 1
        for expected, pieces in zip(alone, zip(*sound, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(pieces), expected, rtol=1e-3, atol=1e-4)


def test_a_mel_of_another_shape_is_refused(hift: Hift) -> None:
    with pytest.raises(InputError, match=r"\(40, 3\)"):
        hift.step(torch.zeros(40, 3), hift.open())


# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save(stored_weights(HiftNet(SMALL)), tmp_path / "hift.pt")
    (tmp_path / "hift.yaml").write_text("base_channels: 16\nf0_channels: 16\n")
    return tmp_path


def test_loads_a_folder(folder: Path) -> None:
    assert Hift.load(folder).synthesize(torch.zeros(80, 4)).shape == (1920,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv_pre.bias"), "conv_pre.bias is missing"),
        (lambda w: w.update(extra=torch.zeros(1)), "extra does not belong"),
        (lambda w: w.update({"conv_pre.bias": torch.zeros(3)}), r"conv_pre.bias has the shape \(3,\)"),
    ],
)
def test_wrong_tensors_are_named(folder: Path, change: object, message: str) -> None:
    weights = torch.load(folder / "hift.pt", weights_only=True)
    change(weights)  # type: ignore[operator]
    torch.save(weights, folder / "hift.pt")
    with pytest.raises(CheckpointError, match=message):
        Hift.load(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    data = (folder / "hift.pt").read_bytes()
    (folder / "hift.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"hift\.pt is damaged"):
        Hift.load(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "hift.pt").unlink()
    with pytest.raises(CheckpointError, match=r"hift\.pt does not exist"):
        Hift.load(folder)


@pytest.mark.parametrize(
    "text", ["base_channels: 17", "colour: 8", "- 8", "base_channels: [", "base_channels: true"]
)
def test_a_bad_yaml_is_named(folder: Path, text: str) -> None:
    (folder / "hift.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"hift\.yaml"):
        Hift.load(folder)


def test_without_a_yaml_the_reference_widths_hold(folder: Path) -> None:
    (folder / "hift.yaml").unlink()
    assert HiftConfig.from_folder(folder) == HiftConfig(512, 512)
