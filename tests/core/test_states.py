import runpy
from pathlib import Path

from voiceagent.core.tables import EAR, MOUTH, REACHABLE, REACHABLE_BY_VOICE, Ear, Mouth, Voice, mouth_state

ROOT = Path(__file__).resolve().parents[2]


def test_the_drawing_is_up_to_date() -> None:
    drawn = runpy.run_path(str(ROOT / "scripts" / "draw_states.py"))["draw"]()
    assert (ROOT / "voiceagent" / "core" / "STATES.md").read_text(encoding="utf-8") == drawn


def test_the_ear_can_always_be_ended_and_forgotten() -> None:
    assert all(EAR[ear, voice] is Ear.QUIET for ear in Ear for voice in (Voice.ENDED, Voice.FORGOTTEN))


def test_every_state_of_the_mouth_follows_from_the_facts() -> None:
    facts = [
        (live, audible, held) for live in (False, True) for audible in (False, True) for held in (False, True)
    ]
    states = {mouth_state(live=live, audible=audible, held=held) for live, audible, held in facts}
    assert states == set(Mouth)
    assert {old for old, _ in MOUTH} == {new for _, new in MOUTH} == set(Mouth)


def test_the_small_table_is_part_of_the_large_one() -> None:
    assert REACHABLE_BY_VOICE < REACHABLE
