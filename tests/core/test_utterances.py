"""Stretches of speech: nothing that is speech is lost, nothing is longer than the model takes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from voiceagent.core.utterances import WINDOW, Span, Utterances
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES


def cut(probabilities: list[float], end: int | None = None) -> list[Span]:
    cutter = Utterances()
    found = [cutter.push((i + 1) * WINDOW, p) for i, p in enumerate(probabilities)]
    found.append(cutter.finish(len(probabilities) * WINDOW if end is None else end))
    return [span for span in found if span is not None]


def windows(seconds: float) -> int:
    return round(seconds * MODEL_RATE / WINDOW)


@example([(0.01, 3), (0.6, 540), (0.4, 1800)])  # ends where a stretch that was too long was cut
@given(st.lists(st.tuples(st.sampled_from([0.01, 0.4, 0.6, 0.99]), st.integers(1, 900)), max_size=12))
def test_speech_is_covered_in_order_and_within_the_models_limit(runs: list[tuple[float, int]]) -> None:
    probabilities = [p for p, count in runs for _ in range(count)]
    spans = cut(probabilities)
    edge = 0
    for span in spans:
        assert edge <= span.start < span.end <= len(probabilities) * WINDOW
        assert span.end - span.start <= PIECE_SAMPLES
        edge = span.end
    for i, p in enumerate(probabilities):
        if p >= 0.5:
            assert any(span.start <= i * WINDOW and (i + 1) * WINDOW <= span.end for span in spans), i


def test_a_pause_parts_two_sentences_and_a_breath_does_not() -> None:
    speech, breath, pause = [0.9] * windows(2), [0.1] * windows(0.3), [0.1] * windows(1)
    assert len(cut(speech + breath + speech + pause)) == 1
    first, second = cut(pause + speech + pause + speech + pause)
    assert first.end < second.start
    assert abs(first.start / MODEL_RATE - 0.8) < 0.05
    assert abs(first.end / MODEL_RATE - 3.2) < 0.05


def test_long_speech_is_cut_at_its_quietest_window() -> None:
    probabilities = [0.9] * windows(40)
    quiet = windows(22.4)
    probabilities[quiet] = 0.55
    first, second = cut(probabilities)
    assert first.end == second.start == (quiet + 1) * WINDOW


def test_silence_is_nothing() -> None:
    assert cut([0.1] * windows(30)) == []
    assert cut([]) == []
