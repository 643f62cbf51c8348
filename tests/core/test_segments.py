import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceagent.core.segments import InputBuffer, phrases_of, pieces_of
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES


def ramp(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


@given(st.lists(st.tuples(st.sampled_from(["append", "take", "drop"]), st.integers(0, 50)), max_size=60))
def test_every_sample_leaves_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    buffer = InputBuffer()
    at = 0
    for step, count in steps:
        if step == "append":
            buffer.append(buffer.end, ramp(buffer.end, count))
            continue
        until = buffer.start + count
        if step == "take":
            taken = buffer.take(until)
            assert np.array_equal(taken, ramp(at, len(taken)))
            assert not taken.flags.writeable
            at += len(taken)
        else:
            buffer.drop(until)
            at = buffer.start
        assert buffer.start == at
        assert len(buffer) == buffer.end - buffer.start


def test_overlap_is_ignored_and_a_gap_starts_anew() -> None:
    buffer = InputBuffer()
    buffer.append(0, ramp(0, 10))
    buffer.append(5, ramp(5, 10))
    assert np.array_equal(buffer.take(12), ramp(0, 12))
    buffer.append(0, ramp(0, 3))
    assert (buffer.start, buffer.end) == (12, 15)
    buffer.append(100, ramp(100, 5))
    assert np.array_equal(buffer.take(200), ramp(100, 5))


def spoken(*seconds: float, pause: float, noise: float = 0.0) -> np.ndarray:
    """Stretches of a voice (a tone here) of so many seconds, with pauses between them."""
    dice = np.random.default_rng(0)
    parts = []
    for length in seconds:
        tone = 0.3 * np.sin(np.arange(int(length * MODEL_RATE)) * 0.1)
        parts += [tone, np.zeros(int(pause * MODEL_RATE))]
    sound = np.concatenate(parts)
    return (sound + noise * dice.standard_normal(len(sound))).astype(np.float32)


@given(st.lists(st.floats(1.0, 4.0), min_size=1, max_size=5), st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_phrases_are_cut_in_pauses_and_nothing_is_lost(seconds: list[float], pause: float) -> None:
    audio = spoken(*seconds, pause=pause)
    phrases = phrases_of(audio)
    assert np.array_equal(np.concatenate(phrases), audio)
    assert len(phrases) == (len(seconds) if pause > 0.4 else 1)
    assert all(abs(phrase[0]) < 1e-3 for phrase in phrases[1:])


def test_pauses_are_found_in_noise_and_none_where_there_is_nothing_else() -> None:
    assert len(phrases_of(spoken(2, 2, 2, pause=0.6, noise=0.01))) == 3
    for nothing in (np.zeros(0, np.float32), np.zeros(90_000, np.float32), spoken(0, pause=5, noise=0.1)):
        assert len(phrases_of(nothing)) == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.5, 24.0), min_size=1, max_size=8))
def test_long_audio_is_cut_in_pauses_if_there_are_any(seconds: list[float]) -> None:
    audio = spoken(*seconds, pause=0.3)
    pieces = pieces_of(audio)
    assert np.array_equal(np.concatenate(pieces), audio)
    assert all(0 < len(piece) <= PIECE_SAMPLES and not piece.flags.writeable for piece in pieces)
    ends = np.cumsum([len(piece) for piece in pieces])[:-1]
    for start, end in zip([0, *ends], ends, strict=False):
        late = audio[start + PIECE_SAMPLES * 4 // 5 : start + PIECE_SAMPLES]
        silent = np.convolve(np.abs(late) < 1e-6, np.ones(4000), "valid").max() == 4000
        assert not silent or audio[end] == 0
