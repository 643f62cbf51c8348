"""What the published streaming rules cost, beside what the default does in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_token2wav import FLOW_YAML, write_token2wav

from scripts.golden.fixed_weights import fill, vocoder_weight
from voiceagent.errors import InputError
from voiceagent.models.step_audio2.compat import CHUNK, KEPT, ReferenceSpeech, ReferenceState
from voiceagent.models.step_audio2.flow import Flow, FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import Hift, load_weights, stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.token2wav import Token2Wav
from voiceagent.models.step_audio2.voice import Voice

SECOND = 24_000
RATE = 25  # ids a second
FADE = 3840  # samples that a chunk of the reference shares with the one before


def voice(tokens: int, *, seed: int = 0) -> Voice:
    draw = torch.Generator().manual_seed(seed)
    return Voice(
        "voice",
        torch.randint(0, 6561, (tokens,), generator=draw),
        torch.randn(2 * tokens, 80, generator=draw),
        torch.randn(192, generator=draw),
    )


@pytest.fixture(scope="module")
def flow() -> Flow:
    net = FlowNet(FlowConfig.from_text(FLOW_YAML, source="tiny"))
    fill(net)
    return Flow(net)


@pytest.fixture(scope="module")
def humming() -> Hift:
    """A vocoder that says the same whatever it is given: any unevenness is the streaming's."""
    net = HiftNet(HiftConfig(16, 16))
    weights = {name: vocoder_weight(name, shape) for name, shape in stored_shapes(net).items()}
    weights["conv_post.parametrizations.weight.original0"].zero_()
    load_weights(net, weights, source="humming")
    return Hift(net)


def spoken(decoder: Token2Wav, who: Voice, ids: list[int]) -> np.ndarray:
    state = decoder.open(who)
    return decoder.step(ids, state, last=True)[0].astype(np.float64)


def decibels(part: np.ndarray, whole: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt((part**2).mean() / (whole**2).mean())))


def test_seams_are_louder_by_two_thirds_of_a_decibel_and_ours_are_not(flow: Flow, humming: Hift) -> None:
    who, ids = voice(20), [5 * i % 6561 for i in range(4 * CHUNK + 3)]
    loudness = {}
    for compatible in (False, True):
        decoder = Token2Wav(flow, humming, {"voice": who}, chunks=(CHUNK,), reference_compatible=compatible)
        sound = spoken(decoder, who, ids)
        assert len(sound) == 960 * len(ids)
        middle = sound[SECOND // 4 : SECOND // 2]  # of the first chunk
        starts = [SECOND * i - FADE for i in (1, 2, 3)]  # where the reference joins its chunks
        loudness[compatible] = [decibels(sound[at : at + FADE], middle) for at in starts]
        if not compatible:  # ours join elsewhere, wherever that is: no part of the sound stands out
            parts = sound[SECOND // 4 : -SECOND // 4]
            parts = parts[: len(parts) // 480 * 480].reshape(-1, 480)
            assert max(abs(decibels(part, middle)) for part in parts) < 0.01
    assert loudness[True] == pytest.approx([20 * np.log10(1.08)] * 3, abs=0.02)
    assert loudness[False] == pytest.approx([0, 0, 0], abs=0.01)


def mels(flow: Flow, speech: ReferenceSpeech, who: Voice, ids: list[int], *, chunks: int) -> np.ndarray:
    """(2, chunks, frames, 80): what the default and the reference make of the same ids again and again."""
    state, theirs = flow.open(who), speech.open(who)
    made: list[tuple[np.ndarray, np.ndarray]] = []
    again = (ids * 2)[: CHUNK + flow.lookahead]
    for _ in range(chunks):
        mel, state = flow.step(again, state, last=False)
        theirs_mel, _ = speech.mel(again, theirs, last=False)
        made.append((mel.numpy().T, theirs_mel.numpy().T))
    return np.stack([np.stack(part) for part in zip(*made, strict=True)])


def test_every_chunk_of_the_reference_starts_from_the_same_noise(flow: Flow, humming: Hift) -> None:
    who, ids = voice(20), [97 * i % 6561 for i in range(CHUNK)]
    made = mels(flow, ReferenceSpeech(flow, humming), who, ids, chunks=8)
    alike = []
    for stream in made:
        last, before = stream[-1] - stream[-1].mean(0), stream[-2] - stream[-2].mean(0)
        alike.append(float((last * before).sum() / np.sqrt((last**2).sum() * (before**2).sum())))
    ours, theirs = alike
    assert theirs > 0.9  # a pattern that comes back every second
    assert ours < 0.5


def test_the_reference_forgets_how_the_voice_began(flow: Flow, humming: Hift) -> None:
    who, ids = voice(60), [97 * i % 6561 for i in range(CHUNK)]
    other = Voice("other", who.tokens, who.mel.clone(), who.speaker)
    other.mel[: 2 * 60 - KEPT] += 2.0  # the first 20 frames of 120
    speech = ReferenceSpeech(flow, humming)
    told = mels(flow, speech, who, ids, chunks=7) - mels(flow, speech, other, ids, chunks=7)
    ours, theirs = np.sqrt((told**2).mean(axis=(2, 3)))
    assert ours[-1] > 0.5 * ours[0]  # as much as at the beginning
    assert theirs[-1] < 0.2 * theirs[0]
    state = speech.open(who)
    for _ in range(6):
        speech.mel((ids * 2)[: CHUNK + flow.lookahead], state, last=False)
    beginning = speech.prepare(who).history.kv[..., : 2 * 60 - KEPT, :]
    end = speech.prepare(who).history.kv[..., 2 * 60 - KEPT :, :]
    assert torch.equal(state.history.kv[..., -KEPT:, :], end)
    for frame in beginning.unbind(-2):
        assert not (state.history.kv == frame[..., None, :]).flatten(-1).all(-1).any()


def test_ten_minutes_stay_even_and_the_reference_ends_after_100_seconds(flow: Flow, humming: Hift) -> None:
    who, ids = voice(20), [389 * i % 6561 for i in range(RATE * 5)]
    state = flow.open(who)
    level, spread = [], []
    for _ in range(10):
        minute = []
        for _ in range(12):
            mel, state = flow.step([*ids, *ids[: flow.lookahead]], state, last=False)
            minute.append(mel)
        level.append(float(torch.cat(minute, dim=1).mean()))
        spread.append(float(torch.cat(minute, dim=1).std()))
    assert state.frames == 10 * 60 * 50
    assert np.ptp(level) < 0.02 * spread[0]
    assert np.ptp(spread) < 0.02 * spread[0]
    speech = ReferenceSpeech(flow, humming)
    theirs, sizes = speech.open(who), []
    while theirs.tokens + 20 + CHUNK <= 2500:
        speech.mel(ids[: CHUNK + flow.lookahead], theirs, last=False)
        sizes.append(theirs.nbytes)
    with pytest.raises(InputError, match="100 s") as refused:
        speech.mel(ids[: CHUNK + flow.lookahead], theirs, last=False)
    assert refused.value.code == "speech_too_long"
    assert sizes[-1] - sizes[-2] == sizes[20] - sizes[19] > 0  # and it has grown with every chunk until then


def test_a_voice_that_the_published_buffers_cannot_hold_is_refused(flow: Flow, humming: Hift) -> None:
    speech = ReferenceSpeech(flow, humming)
    speech.open(voice(420))
    with pytest.raises(InputError, match="440 tokens"):
        speech.open(voice(440))


def test_a_loaded_decoder_streams_by_the_published_rules_if_asked(tmp_path: Path) -> None:
    folder = write_token2wav(tmp_path)
    decoder = Token2Wav.load(folder, reference_compatible=True)
    state = decoder.open(decoder.voices["default_male"])
    assert isinstance(state, ReferenceState)
    assert decoder.wanted(state) == CHUNK + 3
    sound, state = decoder.step(list(range(CHUNK + 2)), state)
    assert len(sound) == 0
    assert decoder.wanted(state) == 1
    sound, state = decoder.step([1, 2], state)
    assert len(sound) == SECOND - FADE
    twin = state.fork()
    with pytest.raises(InputError, match="outside"):
        decoder.step([6561], state)
    rest, _ = decoder.step([], state, last=True)
    again, _ = decoder.step([], twin, last=True)
    assert len(rest) == 960 * 4 + FADE
    np.testing.assert_array_equal(rest, again)
    with pytest.raises(InputError, match="ended"):
        decoder.step([1], state)
    other = decoder.open(decoder.voices["default_male"])
    other.close()
    with pytest.raises(InputError, match="ended"):
        decoder.step([1], other)
