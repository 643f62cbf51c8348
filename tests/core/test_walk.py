"""Random walks of the controller against an independent world; a failure names its seed.

`CORE_WALK_EVENTS=1000000000 pytest tests/core/test_walk.py` walks farther, `CORE_WALK_SEED` elsewhere.
"""

from __future__ import annotations

import os

import pytest
from shards import SHARDS, in_shards
from world import World

from voiceagent.core.tables import REACHABLE, REACHABLE_BY_VOICE, Ear, Mouth

EVENTS = int(os.environ.get("CORE_WALK_EVENTS", "2000000"))
FIRST_SEED = int(os.environ.get("CORE_WALK_SEED", "0"))

States = set[tuple[Ear, Mouth]]


def walk_shard(shard: int, events: int, voice_only: bool) -> tuple[States, set[str], str]:
    """Every `SHARDS`th seed until its share of the events is done; the text is that of a failure."""
    states: States = set()
    seen: set[str] = set()
    done, seed = 0, FIRST_SEED + shard
    while done < events / SHARDS:
        world = World(seed, voice_only=voice_only)
        try:
            world.run(1500)
        except Exception as error:
            return (
                states,
                seen,
                f"seed {seed}, voice_only={voice_only}, event {world.events}: {error!r}",
            )
        states |= world.states
        seen |= world.seen
        done += world.events
        seed += SHARDS
    return states, seen, ""


def walk(*, events: int, voice_only: bool) -> tuple[States, set[str]]:
    walked = in_shards(walk_shard, events, voice_only)
    for _, _, failure in walked:
        if failure:
            pytest.fail(failure)
    return set().union(*(states for states, _, _ in walked)), set().union(*(seen for _, seen, _ in walked))


def test_a_client_that_does_anything_breaks_no_promise() -> None:
    states, seen = walk(events=EVENTS * 2 // 3, voice_only=False)
    assert states == REACHABLE
    assert {"TurnTool", "Transcribe", "ItemTruncated", "Flush", "Error", "IdleTimedOut"} - seen == {
        "IdleTimedOut"
    }


def test_a_client_that_only_speaks_stays_within_the_small_table() -> None:
    states, _ = walk(events=EVENTS // 3, voice_only=True)
    assert states == REACHABLE_BY_VOICE
