"""How a caller's errand goes: all at once or piece by piece, then a repair, a question about it, or what it was.

It knows the shape of such a talk and no errand of its own (callcentre.py lists them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from scene import Scene
from task import Turn

Slots = dict[str, str]


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing that callers want, with values of its own.

    Attributes:
        full: phrasings that hold every slot.
        reply: the answer, with every slot.
        make: draws the slots.
        opening: phrasings that hold none; question: what the agent then asks; answer: phrasings of the slots alone.
        repair: the slot that callers correct, with the phrasing of a correction ({x}); "" = none.
        follow: further questions (phrasings, answer), which may hold slots.
        recall: a question for what was said before (phrasings, answer); () = none.
    """

    full: str
    reply: str
    make: Callable[[Random], Slots]
    opening: str = ""
    question: str = ""
    answer: str = ""
    repair: str = ""
    follow: tuple[tuple[str, str], ...] = ()
    recall: tuple[str, str] | tuple[()] = ()


REPAIR = (
    "no i said {x}|no {x}|sorry {x}|i mean {x}|no it is {x}|that is wrong it is {x}|not quite i said {x}|"
    "sorry i meant {x}|no no {x}|wait it is {x}"
)


def play(scene: Scene, intent: str, errand: Errand) -> list[Turn]:
    """One to three turns of an errand."""
    slots = errand.make(scene.rng)
    turns: list[Turn] = []
    if errand.opening and scene.chance(0.3):
        turns.append(scene.turn(scene.ask(errand.opening), errand.question, intent))
        user = scene.pick(errand.answer, **slots)
    else:
        user = scene.ask(errand.full, **slots)
    turns.append(scene.turn(user, errand.reply.format(**slots), intent, slots))
    if errand.repair and scene.chance(0.22):
        slots = slots | {errand.repair: _other(scene, errand, slots[errand.repair])}
        user = scene.pick(REPAIR, x=slots[errand.repair])
        turns.append(
            scene.turn(user, errand.reply.format(**slots), f"{intent}_repair", slots, source="history")
        )
    elif errand.recall and scene.chance(0.3):
        asks, reply = errand.recall
        turns.append(
            scene.turn(
                scene.pick(asks, **slots), reply.format(**slots), f"{intent}_recall", slots, source="history"
            )
        )
    elif errand.follow and scene.chance(0.45):
        asks, reply = scene.rng.choice(errand.follow)
        turns.append(scene.turn(scene.ask(asks, **slots), reply.format(**slots), f"{intent}_more"))
    return turns


def _other(scene: Scene, errand: Errand, value: str) -> str:
    """Another value of the slot that is repaired."""
    while (other := errand.make(scene.rng)[errand.repair]) == value:
        pass
    return other
