"""The speech decoder as a whole: sample counts, chunking, streams side by side, long speech, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_token2wav import write_token2wav

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.step_audio2.token2wav import CHUNKS, Token2Wav

SAMPLES = 960  # per id


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Token2Wav:
    return Token2Wav.load(write_token2wav(tmp_path_factory.mktemp("speech")))


def ids(count: int, *, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, 6561, count)]


def spoken(
    decoder: Token2Wav, speech: list[int], sizes: list[int], *, voice: str = "default_male"
) -> np.ndarray:
    state, parts, at = decoder.open(decoder.voices[voice]), [], 0
    for size in sizes:
        pcm, state = decoder.step(speech[at : at + size], state)
        parts.append(pcm)
        at += size
    pcm, state = decoder.step(speech[at:], state, last=True)
    return np.concatenate([*parts, pcm])


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(0, 40), max_size=6), rest=st.integers(0, 40))
def test_every_id_gives_960_samples_and_arrival_does_not_matter(
    decoder: Token2Wav, sizes: list[int], rest: int
) -> None:
    speech = ids(sum(sizes) + rest)
    pcm = spoken(decoder, speech, sizes)
    assert pcm.dtype == np.int16
    assert len(pcm) == SAMPLES * len(speech)
    assert np.array_equal(pcm, spoken(decoder, speech, []))


def test_wanted_ids_complete_a_chunk(decoder: Token2Wav) -> None:
    state = decoder.open(decoder.voices["default_male"])
    counts = []
    for _ in range(4):
        counts.append(decoder.wanted(state))
        early, state = decoder.step(ids(counts[-1] - 1), state)
        pcm, state = decoder.step([5], state)
        assert len(early) == 0
        assert len(pcm) > 0
    assert counts == [CHUNKS[0] + 3, CHUNKS[1], CHUNKS[2], CHUNKS[2]]
    assert len(pcm) == SAMPLES * CHUNKS[2]


def test_the_first_chunk_sounds_after_15_ids(decoder: Token2Wav) -> None:
    pcm, _ = decoder.step(ids(15), decoder.open(decoder.voices["default_male"]))
    assert len(pcm) == SAMPLES * 12 - 2400


def test_streams_do_not_hear_each_other(decoder: Token2Wav) -> None:
    speeches = [ids(60, seed=k) for k in range(3)]
    voices = ["default_male", "default_female", "default_male"]
    alone = [spoken(decoder, s, [], voice=v) for s, v in zip(speeches, voices, strict=True)]
    states = [decoder.open(decoder.voices[v]) for v in voices]
    parts: list[list[np.ndarray]] = [[], [], []]
    for at in range(0, 60, 12):
        for k, speech in enumerate(speeches):
            pcm, states[k] = decoder.step(speech[at : at + 12], states[k], last=at == 48)
            parts[k].append(pcm)
    for k in range(3):
        assert np.array_equal(np.concatenate(parts[k]), alone[k])
    assert not np.array_equal(alone[0], alone[2])


def test_a_fork_goes_its_own_way(decoder: Token2Wav) -> None:
    speech = ids(70)
    _, state = decoder.step(speech[:30], decoder.open(decoder.voices["default_male"]))
    fork = state.fork()
    decoder.step(ids(40, seed=5), fork, last=True)
    pcm, _ = decoder.step(speech[30:], state, last=True)
    assert np.array_equal(pcm, spoken(decoder, speech, [30])[-len(pcm) :])


def test_long_speech_takes_no_more_memory(decoder: Token2Wav) -> None:
    state = decoder.open(decoder.voices["default_male"])
    sizes, samples = [], 0
    for k in range(60):  # a minute
        pcm, state = decoder.step(ids(25, seed=k), state)
        samples += len(pcm)
        sizes.append(state.nbytes)
    assert max(sizes[-20:]) == max(sizes[-40:-20])
    pcm, state = decoder.step([], state, last=True)
    assert samples + len(pcm) == 60 * 25 * SAMPLES


def test_a_whole_utterance(decoder: Token2Wav, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = decoder.voices["default_female"]
    pcm = decoder.synthesize(ids(40), voice)
    assert len(pcm) == 40 * SAMPLES
    assert np.array_equal(pcm, decoder.synthesize(ids(40), voice))
    assert len(decoder.synthesize([], voice)) == 0
    monkeypatch.setattr("voiceagent.models.step_audio2.token2wav.WHOLE", 30)
    assert np.array_equal(
        decoder.synthesize(ids(40), voice), spoken(decoder, ids(40), [], voice="default_female")
    )


def test_ids_outside_the_vocabulary_are_refused_and_the_stream_goes_on(decoder: Token2Wav) -> None:
    state = decoder.open(decoder.voices["default_male"])
    for bad in (6561, -1):
        with pytest.raises(InputError, match="outside 0 to 6560"):
            decoder.step([1, bad], state)
    pcm, state = decoder.step(ids(20), state, last=True)
    assert np.array_equal(pcm, spoken(decoder, ids(20), []))
    with pytest.raises(InputError, match="ended"):
        decoder.step([1], state)


@pytest.mark.parametrize(
    "name", ["flow.yaml", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v2_25hz.onnx"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_token2wav(tmp_path)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        Token2Wav.load(folder)
