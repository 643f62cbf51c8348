"""Puts conversations together: instructions, tools, what follows what, turns that nobody can understand, and memory.

The generators of turns are in the modules it imports; it makes no wording of its own but for what was not understood.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import callcentre
import errands
import exercises
import frontdesk
import grammar
import houses
import inquiries
import smalltalk
import spanish_talk
import toolbox
from inventions import custom
from scene import Scene
from summaries import summary
from task import Dialogue, Turn

UNCLEAR = "sorry, i did not catch that. could you say it again?"
MOST_TURNS = 4

Maker = Callable[[Scene], list[Turn]]


def errand(scene: Scene) -> list[Turn]:
    name = scene.rng.choice(list(callcentre.ERRANDS))
    return errands.play(scene, name, callcentre.ERRANDS[name])


GROUPS: dict[str, dict[Maker, float]] = {
    "facts": {
        inquiries.fact: 10, inquiries.hours: 5, inquiries.price: 5, inquiries.who: 1.5, inquiries.greeting: 1,
        inquiries.yes_or_no: 0.8,
    },
    "frontdesk": {
        inquiries.hours: 3, inquiries.price: 3, inquiries.fact: 4, frontdesk.room_price: 3, frontdesk.room_booking: 3,
        frontdesk.choose_room: 1, frontdesk.book: 8, frontdesk.cancel: 3, toolbox.order: 5, frontdesk.meal: 5,
        inquiries.who: 1, inquiries.greeting: 1,
    },
    "callcentre": {errand: 1},
    "smalltalk": {
        smalltalk.any_fixed: 10, smalltalk.name_memory: 3, smalltalk.likes: 1.5, smalltalk.calendar: 2,
        inquiries.greeting: 1, inquiries.who: 1,
    },
    "tools": {toolbox.weather: 4, toolbox.clock_time: 3, toolbox.order: 2, custom: 7},
    "exercises": {
        exercises.repeat: 9, exercises.spell: 4, exercises.count: 1.5, exercises.add: 3, exercises.shopping: 4,
    },
}  # fmt: skip
SHARES = {
    "facts": 24,
    "frontdesk": 20,
    "callcentre": 30,
    "smalltalk": 10,
    "tools": 12,
    "exercises": 13,
    "spanish": 5,
}
UNCLEAR_SHARE, GREETED, TWO_ERRANDS, CLOSED = 0.09, 0.1, 0.12, 0.07
REMEMBERED = (
    0.5  # of the conversations that end with a question about before: what was before is read as text
)
CHATTED = 0.05  # of the others: something was said before that does not matter
FURNISHED = 0.3  # of the conversations that are not about facts: the instructions set some all the same
ASKED_BACK = frozenset(
    (
        "name_memory", "likes_memory", "list_nth", "list_all", "list_count", "recall_booking", "recall_meal",
        *(f"{name}_recall" for name in callcentre.ERRANDS),
    )
)  # fmt: skip
FIXED_INTENTS = frozenset(
    (*smalltalk.FIXED, *spanish_talk.FIXED, "greeting", "identity", "place", "unclear", "es_sum")
)
KINDS = ("noise", "noise", "silence", "babble", "foreign", "foreign")


def unclear(scene: Scene) -> Turn:
    """A turn that must be answered with "i did not catch that": speech out of domain, or no English speech at all."""
    if scene.chance(0.55):
        return scene.turn(grammar.out_of_domain(scene.rng), UNCLEAR, "unclear")
    kind = scene.rng.choice(KINDS)
    return Turn(scene.sound("", style="plain", kind=kind), UNCLEAR, "unclear")


def main_turns(scene: Scene, group: str) -> list[Turn]:
    made = GROUPS[group]
    maker = scene.rng.choices([*made], [*made.values()])[0]
    return maker(scene) or toolbox.order(scene)


def _around(scene: Scene, turns: list[Turn], group: str) -> list[Turn]:
    """What is said before and behind an errand."""
    if scene.chance(UNCLEAR_SHARE):
        turns = [unclear(scene), *(turns if scene.chance(0.35) else [])]
        if len(turns) > 1 and scene.chance(0.4):
            turns = [*turns[1:], turns[0]]
    elif scene.chance(GREETED):
        first = inquiries.greeting(scene) if scene.chance(0.6) else smalltalk.fixed(
            scene, scene.rng.choice(smalltalk.SMALL_TALK)
        )  # fmt: skip
        turns = [*first, *turns]
    elif scene.chance(TWO_ERRANDS):
        turns = [*turns, *main_turns(scene, group)]
    if scene.chance(CLOSED):
        turns = [*turns, *smalltalk.fixed(scene, scene.rng.choice(smalltalk.CLOSING))]
    return turns[:MOST_TURNS]


def make(rng: Random, split: str = "train") -> Dialogue:
    """One conversation; `split`: "train", "template" or "value" (see scene.Scene)."""
    group = rng.choices([*SHARES], [*SHARES.values()])[0]
    scene = Scene(rng, split=split)
    if group == "spanish":
        made = spanish_talk.talk(scene)
        tested = "template" if scene.notes.held_form else ""
        return Dialogue(made[0].intent, rng.choice(spanish_talk.SYSTEMS), None, made, [], "", group, tested)
    house, system = houses.HARBOR, ""
    if group == "facts" or scene.chance(FURNISHED):
        house, system = houses.furnish(scene)
    else:
        system = houses.plain_prompt(rng)
    need = ""
    if group == "tools":
        need = rng.choice(("custom", "custom", "order", "", ""))
    tools, known = toolbox.draw(scene, need=need)
    scene = Scene(rng, house, known, split, scene.notes)
    if need == "custom":
        turns = custom(scene)
    elif need == "order":
        turns = toolbox.order(scene)
    else:
        turns = main_turns(scene, group)
    history: list[list[str]] = []
    told = ""
    if turns[-1].intent in ASKED_BACK and scene.chance(REMEMBERED):
        group = "memory"
        history, told, turns = remembered(scene, turns)
    else:
        turns = _around(scene, turns, group)
        if scene.chance(CHATTED):
            history = pairs(main_turns(scene, "callcentre"))
    if turns[0].intent == "unclear":
        group = "unclear"
    intent = next((turn.intent for turn in turns if turn.intent not in FIXED_INTENTS), turns[0].intent)
    tested = "value" if scene.notes.held_value else "template" if scene.notes.held_form else ""
    return Dialogue(intent, system, tools, turns, history, told, group, tested)


def remembered(scene: Scene, turns: list[Turn]) -> tuple[list[list[str]], str, list[Turn]]:
    """The last question of a conversation, all before it as text, some of that as a summary."""
    before, last = turns[:-1], turns[-1]
    talk = [
        main_turns(scene, scene.rng.choice(("smalltalk", "facts", "callcentre")))
        for _ in range(scene.rng.choice((0, 1, 1, 2, 3)))
    ]
    # The same errand twice would make the question mean the later one.
    names = {turn.intent.split("_")[0] for turn in turns}
    fillers = [made for made in talk if not names & {turn.intent.split("_")[0] for turn in made}]
    at = scene.rng.randint(0, len(fillers))
    parts = [*fillers[:at], before, *fillers[at:]]
    if scene.chance(0.3):
        summed = [turn for part in parts[: at + 1] for turn in part]
        told = summary(summed)
        if told:
            return pairs([turn for part in parts[at + 1 :] for turn in part]), told, [last]
    return pairs([turn for part in parts for turn in part]), "", [last]


def pairs(turns: list[Turn]) -> list[list[str]]:
    """Turns as a text history holds them; of a tool's use only what was said in the end."""
    return [
        [turn.heard.text, turn.tool.final if turn.tool else turn.reply] for turn in turns if turn.heard.text
    ]


def system_prompt(rng: Random) -> str:
    """Instructions that set no fact."""
    return houses.plain_prompt(rng)


def tool_schemas(rng: Random) -> list[dict[str, Any]] | None:
    """The tools of some dialogue."""
    return toolbox.draw(Scene(rng))[0]
