"""The flow against the published one, whole and streamed over twenty chunks (scripts/golden/flow.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.golden import parity

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_encoder_utterance_and_stream_agree(dtype: torch.dtype) -> None:
    errors = parity.flow("cpu", dtype)
    assert errors.keys() == {"flow's encoder", "flow, whole", "flow, 20 chunks"}
    for name, error in errors.items():
        assert error < TOLERANCE[dtype], name


def test_the_file_tells_a_stream_from_an_utterance() -> None:
    golden = parity.golden("flow")
    assert "step-audio2 1.0.0" in str(golden["provenance"])
    assert np.abs(golden["streamed"] - golden["whole"]).max() > 0.05
