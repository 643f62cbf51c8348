"""`reference_compatible` against the published stream, samples and all (scripts/golden/stream.py made the file)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scripts.golden import parity
from voiceagent.errors import InputError
from voiceagent.models.step_audio2 import compat
from voiceagent.models.step_audio2.compat import ReferenceSpeech

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return parity.golden("stream")


@pytest.fixture(scope="module")
def speech() -> ReferenceSpeech:
    return parity.reference_speech("cpu")


def test_the_stream_has_the_published_samples(speech: ReferenceSpeech, golden: dict[str, Any]) -> None:
    ids, wanted = golden["short/ids"].tolist(), golden["short/sound"]
    state = speech.open(parity.golden_voice(golden, "short"))
    with parity.shared_excitation(golden):
        parts = [speech.step(ids[at : at + 7], state) for at in range(0, len(ids), 7)]  # however they come in
        parts.append(speech.step([], state, last=True))
    sizes = [len(part) for part in parts if len(part)]
    assert sizes == [24_000 - 3840, 24_000, 24_000, 24_000, 11 * 960 + 3840]
    ours, at = np.concatenate(parts), 0
    for size in sizes:
        assert parity.error(ours[at : at + size], wanted[at : at + size]) < TOLERANCE
        at += size
    assert at == len(wanted)
    # Apart from the last digit, which a cut-off of the same number at another order of sums can change.
    assert np.abs(ours.astype(int) - wanted).max() <= 3


def test_a_prompt_longer_than_what_a_trim_keeps_is_cut_like_the_published_one(
    speech: ReferenceSpeech, golden: dict[str, Any]
) -> None:
    ids, wanted = golden["long/ids"].tolist(), golden["long/mel"].astype(np.float32)
    state = speech.open(parity.golden_voice(golden, "long"))
    mels: list[np.ndarray] = []
    plain = speech._solve

    def recording(*args: object) -> object:
        mel, history = plain(*args)  # type: ignore[arg-type]
        mels.append(mel.numpy().T)
        return mel, history

    speech._solve = recording  # type: ignore[method-assign, assignment]
    speech.step(ids, state, last=True)
    del speech._solve
    assert len(mels) == 8
    assert state.history.frames == 120 + 100
    at = 0
    for mel in mels:
        assert parity.error(mel, wanted[:, at : at + mel.shape[1]]) < TOLERANCE
        at += mel.shape[1]
    assert at == wanted.shape[1]


def test_a_stream_ends_where_the_published_one_fails(speech: ReferenceSpeech, golden: dict[str, Any]) -> None:
    state = speech.open(parity.golden_voice(golden, "short"))
    state.tokens = int(golden["longest"]) - state.prompt.tokens - compat.CHUNK  # all but its last chunk
    assert len(speech.step([7] * (compat.CHUNK + 3), state)) > 0
    with pytest.raises(InputError, match="100 s"):
        speech.step([7] * compat.CHUNK, state)
