"""Our prompts against the ids that the reference makes of the same conversations (scripts/golden/prompts.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prompt_cases import CASES, Case, real_tokenizer_spec

from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, render_answer, render_turn
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "prompts.npz"
TOKENIZER = TextTokenizer(real_tokenizer_spec())


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def rendered(case: Case) -> Prompt:
    prompt = render_turn(
        case.items,
        instructions=case.instructions,
        tools=case.tools,
        tool_choice="auto",
        tokenizer=TOKENIZER,
        spoken=case.spoken,
        variant=Variant(case.variant),
        think=case.think,
    )
    if case.thought is None:
        return prompt
    return render_answer(prompt, case.thought, tokenizer=TOKENIZER, spoken=case.spoken)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ids_are_the_reference_s(case: Case, golden: dict[str, np.ndarray]) -> None:
    slots, patch = rendered(case).slots, TOKENIZER.ids.audio_patch
    assert [patch if isinstance(slot, AudioRow) else slot for slot in slots] == golden[case.name].tolist()
    pieces = [slot.piece for slot in slots if isinstance(slot, AudioRow)]
    assert pieces == sorted(pieces)  # and the rows are those of the audio in the order in which it was heard
    for piece in set(pieces):
        rows = [slot.row for slot in slots if isinstance(slot, AudioRow) and slot.piece == piece]
        assert rows == list(range(len(rows)))


def test_every_example_has_a_golden_prompt(golden: dict[str, np.ndarray]) -> None:
    assert {case.name for case in CASES} == golden.keys() - {"provenance"}


def test_the_stand_in_tells_apart_what_is_tokenised_together() -> None:
    for left, right in (("报3796.71点。", "\n\n\n请"), ("human\n", "\n\nhello"), ("<think>", "\n")):
        assert TOKENIZER.encode(left + right) != TOKENIZER.encode(left) + TOKENIZER.encode(right)
