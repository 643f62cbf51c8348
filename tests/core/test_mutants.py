"""The walk finds planted bugs: a sample here, all of them with `python tests/core/mutants.py`."""

import pytest
from mutants import MUTANTS, Mutant, found_after, planted

from voiceagent.core.playout import Playout

SAMPLE = (
    "coughs add up",
    "pieces survive the utterance",
    "the clock is not started anew after running dry",
    "no way to the ear",
    "held audio is sent",
    "closing drops the tail",
    "samples are lost at a cut",
    "no flush",
    "the engine is not told",
    "an answer is forgotten",
    "interruptions are never confirmed",
    "the cough is kept",
    "asides are not heard of by the engine's words",
    "a request that fails takes a promised answer with it",
    "an aside is closed again and again",
    "nobody is asked for approval",
    "who is to wait is told so twice",
    "late results are told over somebody",
    "the words of a guess are told at once",
    "a guess that nobody wants works on",
    "a guess is held through what is said next",
)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in SAMPLE], ids=lambda m: m.name)
def test_the_walk_finds_it(mutant: Mutant) -> None:
    assert found_after(mutant, worlds=15) is not None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_every_mutant_can_be_planted_and_is_gone_afterwards(mutant: Mutant) -> None:
    before = Playout.heard
    with planted(mutant):
        pass
    assert Playout.heard is before
    assert len(SAMPLE) == len([m for m in MUTANTS if m.name in SAMPLE])
