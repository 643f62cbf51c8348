"""Random walks of the controller against an independent world; a failure names its seed.

`CORE_WALK_EVENTS=2000000 pytest tests/core/test_walk.py` walks farther.
"""

from __future__ import annotations

import os

import pytest
from world import World

from voiceagent.core.tables import REACHABLE, REACHABLE_BY_VOICE, Ear, Mouth

EVENTS = int(os.environ.get("CORE_WALK_EVENTS", "300000"))
FIRST_SEED = int(os.environ.get("CORE_WALK_SEED", "0"))


def walk(*, events: int, voice_only: bool) -> tuple[set[tuple[Ear, Mouth]], set[str]]:
    states: set[tuple[Ear, Mouth]] = set()
    seen: set[str] = set()
    done, seed = 0, FIRST_SEED
    while done < events:
        world = World(seed, voice_only=voice_only)
        try:
            world.run(1500)
        except Exception as error:
            pytest.fail(f"seed {seed}, voice_only={voice_only}, event {world.events}: {error!r}")
        states |= world.states
        seen |= world.seen
        done += world.events
        seed += 1
    return states, seen


def test_a_client_that_does_anything_breaks_no_promise() -> None:
    states, seen = walk(events=EVENTS * 2 // 3, voice_only=False)
    assert states == REACHABLE
    assert {"TurnTool", "Transcribe", "ItemTruncated", "Flush", "Error", "IdleTimedOut"} - seen == {
        "IdleTimedOut"
    }


def test_a_client_that_only_speaks_stays_within_the_small_table() -> None:
    states, _ = walk(events=EVENTS // 3, voice_only=True)
    assert states == REACHABLE_BY_VOICE
