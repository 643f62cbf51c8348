"""Think mode: a short thought in plain words, then the answer that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import exercises
import houses
import inquiries
import lexicon as lex
import smalltalk
from facts import FACTS, UNKNOWN
from scene import Scene
from task import Sound, Task

INSTRUCTIONS = (
    "You are a helpful assistant.", "Think before you answer.", "You think first and then answer in one sentence.",
    "You are a voice assistant that thinks carefully.", "",
)  # fmt: skip
HEARD = 0.6  # of the questions: as speech, else as text

Thought = tuple[str, str, str, str]
"""Instructions, question, thought, answer."""


def _cost(scene: Scene) -> Thought:
    """Several of the same thing."""
    house, system = _house(scene)
    items = sorted(set(house.prices) & house.told) or list(lex.PRICES)
    item = scene.rng.choice(items)
    count = scene.rng.randint(2, 5)
    many = f"{lex.number_words(count)} {inquiries.many(item)}"
    asked = scene.ask(
        "how much are {m}|what do {m} cost|what is the price of {m}|how much do i pay for {m}", m=many
    )
    if item not in house.prices:
        return system, asked, f"the caller wants {many}. i do not know the price.", UNKNOWN
    one, total = lex.plural(house.prices[item], "dollar"), lex.plural(count * house.prices[item], "dollar")
    thought = (
        f"the caller wants {many}. one costs {one}. {lex.number_words(count)} times "
        f"{lex.number_words(house.prices[item])} is {lex.number_words(count * house.prices[item])}."
    )
    return system, asked, thought, f"{many} cost {total}."


def _cheaper(scene: Scene) -> Thought:
    first, second = scene.rng.sample(sorted(lex.PRICES), 2)
    asked = scene.ask(
        "which is cheaper the {a} or the {b}|what costs less the {a} or the {b}|is the {a} cheaper than the {b}",
        a=first, b=second,
    )  # fmt: skip
    one, other = lex.PRICES[first], lex.PRICES[second]
    thought = (
        f"the {first} costs {lex.plural(one, 'dollar')}. the {second} costs {lex.plural(other, 'dollar')}."
    )
    if one == other:
        return _plain(scene), asked, thought, "they cost the same."
    return _plain(scene), asked, thought, f"the {first if one < other else second} is cheaper."


def _sum(scene: Scene) -> Thought:
    """Three numbers, one step after the other."""
    a, b, c = (scene.rng.randint(1, 12) for _ in range(3))
    words = lex.number_words
    asked = scene.ask(
        "what is {a} plus {b} plus {c}|add {a} and {b} and {c}|how much is {a} plus {b} plus {c}",
        a=words(a), b=words(b), c=words(c),
    )  # fmt: skip
    first = f"{words(a)} plus {words(b)} is {words(a + b)}."
    second = f"{words(a + b)} plus {words(c)} is {words(a + b + c)}."
    return _plain(scene), asked, f"{first} {second}", f"it is {words(a + b + c)}."


def _fact(scene: Scene) -> Thought:
    """Something that stands in the instructions, or does not."""
    house, system = houses.furnish(scene)
    told = sorted(set(FACTS) & house.told)
    name = scene.rng.choice(told) if told and scene.chance(0.75) else scene.rng.choice(sorted(FACTS))
    asked, label = scene.ask(FACTS[name].asks), name.replace("_", " ")
    value = house.facts.get(name)
    if value is None:
        return system, asked, f"the caller asks about {label}. i was not told.", UNKNOWN
    answer = FACTS[name].reply.format(value=value)
    return system, asked, f"the caller asks about {label}. it is {value}.", answer


def _hours(scene: Scene) -> Thought:
    """Whether it is open: the day, its hours, the answer."""
    house, system = _house(scene)
    day = scene.rng.choice(sorted(set(lex.DAYS) & house.told) or lex.DAYS)
    asked = scene.ask("are you open on {day}|when are you open on {day}|can i come on {day}", day=day)
    answer = inquiries.opening_reply(house, day)
    return (
        system,
        asked,
        f"the caller asks about {day}. {'i was not told.' if answer == UNKNOWN else answer}",
        answer,
    )


def _day(scene: Scene) -> Thought:
    """Some days later."""
    at, step = scene.rng.randrange(7), scene.rng.randint(2, 5)
    days = [lex.DAYS[(at + n) % 7] for n in range(step + 1)]
    asked = scene.ask(
        "which day is {n} days after {d}|what day comes {n} days after {d}",
        n=lex.number_words(step),
        d=days[0],
    )
    return _plain(scene), asked, f"after {days[0]} come {', '.join(days[1:])}.", f"it is {days[-1]}."


def _spell(scene: Scene) -> Thought:
    """How many letters a word has."""
    word = scene.rng.choice(lex.SPELLABLE)
    asked = scene.ask("how many letters has {w}|how many letters are in {w}|count the letters of {w}", w=word)
    count = lex.plural(len(word), "letter")
    return (
        _plain(scene),
        asked,
        f"{', '.join(word)}. that is {lex.number_words(len(word))}.",
        f"{word} has {count}.",
    )


def _nth(scene: Scene) -> Thought:
    """One of several things just named."""
    things = scene.rng.sample(lex.split(exercises.THINGS), scene.rng.randint(3, 4))
    at = scene.rng.randrange(len(things))
    nth = ("first", "second", "third", "fourth")[at]
    asked = scene.ask("what is the {n} of {x}|which is the {n} of {x}", n=nth, x=" ".join(things))
    steps = ", ".join(
        f"{('first', 'second', 'third', 'fourth')[i]} {thing}" for i, thing in enumerate(things[: at + 1])
    )
    return _plain(scene), asked, f"{steps}.", f"the {nth} is {things[at]}."


def _chat(scene: Scene) -> Thought:
    """Nothing to think about."""
    intent = scene.rng.choice(sorted(smalltalk.FIXED))
    phrasings, reply = smalltalk.FIXED[intent]
    return _plain(scene), scene.pick(phrasings), "this is small talk.", reply


def _plain(scene: Scene) -> str:
    return scene.rng.choice(INSTRUCTIONS)


def _house(scene: Scene) -> tuple[houses.House, str]:
    return houses.furnish(scene) if scene.chance(0.7) else (houses.HARBOR, _plain(scene))


KINDS: dict[Callable[[Scene], Thought], float] = {
    _cost: 3, _cheaper: 2, _sum: 3, _fact: 4, _hours: 2, _day: 2, _spell: 2, _nth: 2, _chat: 1,
}  # fmt: skip


def think(rng: Random, split: str = "train") -> Task:
    """One question to think about."""
    scene = Scene(rng, split=split)
    kind = rng.choices([*KINDS], [*KINDS.values()])[0]
    system, asked, thought, answer = kind(scene)
    heard = Sound(asked) if rng.random() < HEARD else None
    return Task(
        "think", system, heard, "" if heard else asked, answer, spoken=True, thought=thought,
        tested=kind.__name__.strip("_"),
    )  # fmt: skip
