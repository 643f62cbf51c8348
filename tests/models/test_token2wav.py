"""The speech decoder as a whole: sample counts, chunking, streams side by side, long speech, refusals."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_token2wav import write_token2wav

from voiceagent.errors import CapacityError, CheckpointError, ConfigError, InputError
from voiceagent.models.step_audio2.token2wav import CHUNKS, Speak, Token2Wav

SAMPLES = 960  # per id


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token2wav(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Token2Wav:
    return Token2Wav.load(folder)


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


# -------------------------------------------------------------------------------------------------- many at once


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal but for the rounding of sums of another order."""
    return ours.shape == theirs.shape and bool((np.abs(ours.astype(int) - theirs).max(initial=0)) <= 3)


def test_many_streams_at_once_sound_like_each_alone(decoder: Token2Wav) -> None:
    """Voices, lengths, beginnings and ends differ; they join and leave the batch as they like."""
    voices = ["default_male", "default_female", "default_male", "default_female"]
    speeches = [ids(count, seed=k) for k, count in enumerate((60, 95, 12, 131))]
    begin = (0, 1, 2, 0)
    alone = [spoken(decoder, s, [], voice=v) for s, v in zip(speeches, voices, strict=True)]
    states = [decoder.open(decoder.voices[voice]) for voice in voices]
    sound: list[list[np.ndarray]] = [[], [], [], []]
    at, turn = [0] * 4, 0
    while any(place < len(speech) for place, speech in zip(at, speeches, strict=True)):
        parts, who = [], []
        for k, speech in enumerate(speeches):
            if turn < begin[k] or at[k] == len(speech):
                continue
            count = min(decoder.wanted(states[k]), len(speech) - at[k])
            parts.append(Speak(speech[at[k] : at[k] + count], states[k], last=at[k] + count == len(speech)))
            at[k] += count
            who.append(k)
        for k, pcm in zip(who, decoder.steps(parts), strict=True):
            assert isinstance(pcm, np.ndarray)
            sound[k].append(pcm)
        turn += 1
    for k in range(4):
        assert close(np.concatenate(sound[k]), alone[k])


def test_an_error_stays_with_its_part(decoder: Token2Wav) -> None:
    speech = ids(40)
    good, bad, ended = (decoder.open(decoder.voices["default_male"]) for _ in range(3))
    decoder.step([], ended, last=True)
    pcm, wrong, twice, late = decoder.steps(
        [Speak(speech, good, True), Speak([1, 7000], bad), Speak([1], good), Speak([1], ended)]
    )
    assert isinstance(pcm, np.ndarray)
    assert np.array_equal(pcm, spoken(decoder, speech, []))
    assert isinstance(wrong, InputError)
    assert isinstance(twice, InputError)
    assert isinstance(late, InputError)
    assert close(decoder.step(speech, bad, last=True)[0], spoken(decoder, speech, []))
    assert decoder.steps([]) == []


def test_a_full_pool_refuses_and_ended_closed_and_forgotten_streams_make_room(folder: Path) -> None:
    decoder = Token2Wav.load(folder, bytes=12_000_000)
    voice, capacity = decoder.voices["default_male"], decoder.flow.pool.slots
    assert 2 < capacity < 200
    states = [decoder.open(voice) for _ in range(capacity)]
    with pytest.raises(CapacityError, match="speech streams are taken") as refused:
        decoder.open(voice)
    assert refused.value.code == "speech_full"
    with pytest.raises(CapacityError):
        states[0].fork()
    decoder.step(ids(20), states[0], last=True)
    states[1].close()
    states[1].close()
    del states[2]
    assert decoder.flow.pool.free == 3
    fork = states[3].fork()
    assert decoder.flow.pool.free == 2
    fork.close()
    with pytest.raises(InputError, match="ended"):
        decoder.step([1], fork)


def test_too_little_memory_for_one_stream_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="too little for speech") as refused:
        Token2Wav.load(folder, bytes=10_000)
    assert refused.value.param == "engine.speech_memory_mb"
    least = int(refused.value.remedy.split(" or more")[0].split()[-1])
    assert Token2Wav.load(folder, bytes=least * 1_000_000).flow.pool.slots >= 1


def test_voices_that_nobody_uses_make_room_for_others(folder: Path) -> None:
    decoder = Token2Wav.load(folder, bytes=4_000_000)
    base = decoder.voices["default_male"]
    assert 30 * len(base.tokens) > decoder.flow.pool.prompt_tokens
    for _ in range(30):
        foreign = replace(base)
        assert len(decoder.step(ids(20), decoder.open(foreign), last=True)[0]) == 20 * SAMPLES
    assert base in decoder._prompts


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * 24_000))).astype(np.float32)


def test_a_voice_is_added_and_removed_under_a_stream_that_speaks_with_it(folder: Path) -> None:
    decoder = Token2Wav.load(folder)
    rooms = len(decoder.flow.pool._rooms)
    decoder.add("new", noise(2.0), 24_000)
    assert list(decoder.voices)[-1] == "new"
    speech = ids(60)
    whole = spoken(decoder, speech, [], voice="new")
    assert not np.array_equal(whole, spoken(decoder, speech, []))
    stream = decoder.open(decoder.voices["new"])
    first, stream = decoder.step(speech[:30], stream)
    decoder.remove("new")
    assert "new" not in decoder.voices
    rest, stream = decoder.step(speech[30:], stream, last=True)
    assert np.array_equal(np.concatenate([first, rest]), whole)
    del stream
    gc.collect()
    assert len(decoder.flow.pool._rooms) == rooms, "its memory comes back with the last stream"


def test_there_is_room_for_so_many_voices(folder: Path) -> None:
    decoder = Token2Wav.load(folder)

    def fill() -> None:
        for number in range(100):
            decoder.add(f"voice{number}", noise(10.0), 24_000)

    with pytest.raises(CapacityError) as error:
        fill()
    assert error.value.code == "speech_full"
    assert 1 < len(decoder.voices) < 12
    assert len(spoken(decoder, ids(5), [], voice="voice0")) == 5 * SAMPLES
    decoder.remove("voice0")
    decoder.add("another", noise(10.0), 24_000)
