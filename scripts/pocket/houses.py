"""What is true in a call, and the instructions that say so as developers write them. Knows no conversation.

A call is taken by Harbor House unless the instructions name another place. Facts that the instructions leave out are
those of Harbor House; at another place they are not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import lexicon as lex
import values as val
from facts import FACTS
from scene import Scene, article, value_held_out
from values import Value

Hours = tuple[str, str] | None
T = TypeVar("T")
KINDS = (
    "hotel", "hotel", "inn", "restaurant", "shop", "clinic", "bank", "store", "cafe", "school", "museum", "garage",
    "pharmacy", "bakery", "library", "theater", "farm", "studio",
)  # fmt: skip
ROLES = (
    "receptionist", "assistant", "voice assistant", "front desk agent", "telephone agent", "customer service agent",
    "voice agent", "concierge", "operator",
)  # fmt: skip
ABBREVIATED = {day: day[:3].title() for day in lex.DAYS}
OPENERS_BOTH = (
    "You are {person}, the {role} of {place}.|You are {person}. You work for {place}.|Your name is {person} and you "
    "answer the phone of {place}.|Act as {person}, {role} at {place}.|You are {person} from {place}.|"
    "Role: {role}\nName: {person}\nCompany: {place}|You are {a_role}. Your name is {person}. You work at {place}."
)
OPENERS_PLACE = (
    "You are the {role} of {place}.|You are {a_role} for {place}.|You answer calls for {place}.|"
    "This is the phone line of {place}. You are its {role}.|You work for {place}.|"
    "You are the {role} at {place}, help the callers.|# {place}\nYou are the {role}."
)
OPENERS_PERSON = (
    "You are {person}, a helpful assistant.|Your name is {person}.|You are {person}.|"
    "Your name is {person}. You are a friendly voice assistant.|Call yourself {person}."
)
PLAIN = (
    "You are a helpful assistant.", "", "You are a helpful voice assistant.",
    "You are the voice of the front desk of Harbor House, a small hotel with a restaurant and a shop.",
    "You work at the front desk of Harbor House. Answer in one short sentence.",
    "You are a friendly receptionist. Be brief and polite.",
    "Answer the caller's questions. If you did not understand, say so.",
    "You are a voice agent. Listen to the guest and reply aloud.",
    "Your knowledge cutoff is 2023-10. You are a helpful and friendly AI.",
    "You are a hotel assistant. Use the tools when you need them.", "Speak clearly. Keep every answer short.",
    "You are Harbor House.", "You are a customer service agent.", "You are a call center agent. Help the customer.",
)  # fmt: skip
MANNERS = (
    "Be friendly.", "Be concise.", "Answer briefly.", "Keep answers under two sentences.", "Always be polite.",
    "Speak slowly and clearly.", "Help the caller.", "Help customers with their orders and bookings.",
    "You are talking to a user on the phone.", "The user is speaking to you. Reply by voice.",
    "If a tool can answer the question, call it.", "Do not invent facts.", "Never mention that you are a program.",
    "Respond in English.", "Talk like a real person.", "Use simple words.", "Ask again when something is unclear.",
    "Answer the question.", "Listen carefully.", "Only use the information below.", "Do not use lists or markdown.",
    "If you do not know something, say so.", "Your output is read aloud, so write no symbols.", "Stay calm.",
    "Confirm every number that the caller gives.", "Never give legal advice.",
)  # fmt: skip
HEADINGS = (
    "Facts:",
    "Information:",
    "What you know:",
    "Details:",
    "Here is what you need to know:",
    "## Information",
)


@dataclass(frozen=True, slots=True)
class House:
    """What is true in this call.

    Attributes:
        place: the name, lower case. person: the agent's; "" = none.
        facts: by the name in FACTS; a fact that is missing is not known.
        opening: by day: from when to when, or None for closed; a day that is missing is not known.
        prices: said prices by item. rooms: dollars a night by kind of room.
        told: what of it stands in the instructions: names of facts, days, items, "place" and "person".
        foreign: another place than Harbor House.
    """

    place: str = "harbor house"
    person: str = ""
    facts: dict[str, str] = field(
        default_factory=lambda: {n: f.default for n, f in FACTS.items() if f.default}
    )
    opening: dict[str, Hours] = field(default_factory=lambda: {day: lex.OPENING.get(day) for day in lex.DAYS})
    prices: dict[str, int] = field(default_factory=lambda: dict(lex.PRICES))
    rooms: dict[str, int] = field(default_factory=lambda: dict(lex.ROOMS))
    told: frozenset[str] = frozenset()
    foreign: bool = False

    def source(self, name: str) -> str:
        """Where the answer about this comes from, for `Turn.source`."""
        return "prompt" if name in self.told or self.foreign else ""


HARBOR = House()


def fresh(scene: Scene, make: Callable[[Random], T], key: Callable[[T], str]) -> T:
    """A value that is held out exactly if the scene is to use held-out values."""
    wanted = scene.split == "value"
    for _ in range(60):
        made = make(scene.rng)
        if value_held_out(key(made)) == wanted:
            scene.notes.held_value |= wanted
            return made
    return make(scene.rng) if not wanted else made


def fresh_value(scene: Scene, name: str) -> Value:
    """A value of a fact; those with a handful of wordings have none held out."""
    make = FACTS[name].make
    if name in ("parking", "pets", "payment", "today", "gym"):
        return make(scene.rng)
    return fresh(scene, make, lambda value: f"{name}/{value.said}")


@dataclass(slots=True)
class Draft:
    """Instructions in the making: statements as (sentence, label, value)."""

    statements: list[tuple[str, str, str]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)


def plain_prompt(rng: Random) -> str:
    """Instructions that set no fact: Harbor House's are true."""
    if rng.random() < 0.6:
        return rng.choice(PLAIN)
    return " ".join([*rng.sample(("You are a helpful assistant.", "You help guests of a hotel and its restaurant.",
                                  "You are a test agent.", "The hotel is at ten river street."), rng.randint(0, 1)),
                     *rng.sample(MANNERS, rng.randint(1, 4))])  # fmt: skip


def furnish(scene: Scene) -> tuple[House, str]:
    """A house with facts of its own and the instructions that set them."""
    rng = scene.rng
    foreign = rng.random() < 0.72
    place, kind = "harbor house", ""
    if foreign:
        kind = rng.choice(KINDS)
        place = fresh(
            scene,
            lambda r: f"{r.choice(val.PLACE_FIRST)} {r.choice(val.PLACE_SECOND)}",
            lambda name: f"place/{name}",
        )
        place += f" {kind}" if rng.random() < 0.6 else ""
    person = fresh(scene, val.person, lambda name: f"person/{name}") if rng.random() < 0.6 else ""
    known = {} if foreign else dict(HARBOR.facts)
    opening = {} if foreign else dict(HARBOR.opening)
    prices = {} if foreign else dict(HARBOR.prices)
    draft = Draft()
    names = [name for name in FACTS if name != "today"] if rng.random() < 0.85 else list(FACTS)
    for name in rng.sample(names, rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 6))):
        value = fresh_value(scene, name)
        known[name] = value.said
        _state(scene, draft, name, value)
    if rng.random() < 0.45:
        opening |= _open(scene, draft, whole=foreign)
    if rng.random() < 0.4:
        prices |= _prices(scene, draft)
    if foreign:
        draft.told.add("place")
    if person:
        draft.told.add("person")
    house = House(
        place=place, person=person, facts=known, opening=opening, prices=prices,
        rooms={} if foreign else dict(HARBOR.rooms), told=frozenset(draft.told), foreign=foreign,
    )  # fmt: skip
    return house, _compose(
        scene, draft, _opener(scene, person, place if foreign or rng.random() < 0.3 else "")
    )


def _state(scene: Scene, draft: Draft, name: str, value: Value) -> None:
    fact = FACTS[name]
    written = scene.rng.choice(value.written)
    sentence = scene.pick(fact.states, value=written)
    draft.statements.append((sentence[:1].upper() + sentence[1:], fact.line, written))
    draft.told.add(name)


def _hours(scene: Scene) -> tuple[Value, Value]:
    return fresh(
        scene,
        lambda rng: (val.hour(rng, first=6, last=12), val.hour(rng, first=14, last=22)),
        lambda pair: f"hours/{pair[0].said}/{pair[1].said}",
    )


def _written(scene: Scene, hours: tuple[Value, Value]) -> str:
    way = scene.rng.randrange(4)
    start, end = hours[0].written[way], hours[1].written[way]
    return f"{start}-{end}" if way >= 2 and scene.chance(0.5) else f"{start} to {end}"


def _open(scene: Scene, draft: Draft, *, whole: bool) -> dict[str, Hours]:
    """Opening hours: of some days, of ranges of days, or day by day."""
    rng, days = scene.rng, lex.DAYS
    hours: dict[str, tuple[Value, Value] | None] = {}
    if not whole or rng.random() < 0.25:
        for day in rng.sample(days, rng.randint(1, 3)):
            hours[day] = None if rng.random() < 0.25 else _hours(scene)
            pair = hours[day]
            text = _written(scene, pair) if pair else "closed"
            said = scene.pick(
                "On {day} we are open from {text}.|{day}: open {text}.|We are open from {text} on {day}.|"
                "Opening hours on {day}: {text}." if pair else
                "On {day} we are closed.|We are closed on {day}.|{day} is our day off, we are closed.|"
                "No work on {day}: closed.",
                day=day.title(), text=text,
            )  # fmt: skip
            draft.statements.append((said, day.title(), text))
    elif rng.random() < 0.5:
        _open_ranges(scene, draft, hours)
    else:
        same = _hours(scene)
        hours |= {
            day: None if rng.random() < 0.2 else same if rng.random() < 0.4 else _hours(scene) for day in days
        }
        short = rng.random() < 0.4
        for day, pair in hours.items():
            label = ABBREVIATED[day] if short else day.title()
            text = _written(scene, pair) if pair else "closed"
            draft.statements.append((f"{label}: {text}.", label, text))
    draft.told |= set(hours)
    return {day: (pair[0].said, pair[1].said) if pair else None for day, pair in hours.items()}


def _open_ranges(scene: Scene, draft: Draft, hours: dict[str, tuple[Value, Value] | None]) -> None:
    week, saturday = _hours(scene), _hours(scene)
    to = scene.rng.choice(("Monday to Friday", "Mon-Fri", "Monday through Friday", "Monday - Friday"))
    short = to == "Mon-Fri"
    text = f"{to} {_written(scene, week)}"
    hours |= dict.fromkeys(lex.DAYS[:5], week)
    if scene.chance(0.5):
        hours |= {"saturday": saturday, "sunday": None}
        text += f", {'Sat' if short else 'Saturday'} {_written(scene, saturday)}, "
        text += scene.rng.choice(
            ("closed on Sunday", "Sunday closed", "Sun closed" if short else "not on Sunday")
        )
    else:
        hours |= {"saturday": None, "sunday": None}
        text += scene.rng.choice(
            (", closed on weekends", ", weekends closed", ", Saturday and Sunday closed")
        )
    draft.statements.append((f"We are open {text}.", "Opening hours", text))


def _prices(scene: Scene, draft: Draft) -> dict[str, int]:
    """One to five items for sale."""
    goods = list(lex.PRICES) if scene.chance(0.5) else val.GOODS
    made: dict[str, int] = {}
    for item in scene.rng.sample(goods, scene.rng.randint(1, 5)):
        price = fresh(scene, lambda rng: rng.randint(1, 60), lambda count: f"price/{count}")
        made[item] = price
    written = {
        item: scene.rng.choice((f"${price}", f"{price} dollars" if price != 1 else "1 dollar"))
        for item, price in made.items()
    }
    if scene.chance(0.4):
        text = ", ".join(f"{item} {price}" for item, price in written.items())
        draft.statements.append((f"{scene.pick('Prices|Menu|Price list|We sell')}: {text}.", "Prices", text))
    else:
        for item, price in written.items():
            said = scene.pick(
                "The {item} costs {price}.|The price of the {item} is {price}.|{title}: {price}.|"
                "Price of the {item}: {price}.|We sell the {item} for {price}.",
                item=item, price=price, title=item.capitalize(),
            )  # fmt: skip
            draft.statements.append((said, item.capitalize(), price))
    draft.told |= set(made)
    return made


def _opener(scene: Scene, person: str, place: str) -> str:
    if not person and not place:
        return scene.rng.choice((*PLAIN[:3], "You answer the phone.", ""))
    forms = OPENERS_BOTH if person and place else OPENERS_PERSON if person else OPENERS_PLACE
    the = scene.rng.choice(("the ", "")) if place and place != "harbor house" else ""
    role = scene.rng.choice(ROLES)
    return scene.pick(
        forms, person=person.title(), place=f"{the}{place.title()}", role=role, a_role=article(role)
    )


def _compose(scene: Scene, draft: Draft, opener: str) -> str:
    """Sentences in a row, a list of them, or lines of labels; with manners around."""
    rng = scene.rng
    manners = rng.sample(MANNERS, 4)
    before, after = manners[: rng.choice((0, 0, 1, 2))], manners[2 : 2 + rng.choice((0, 0, 1, 2))]
    statements = draft.statements
    if rng.random() < 0.5:
        rng.shuffle(statements)
    way = rng.random()
    if way < 0.5:
        body = " ".join(sentence for sentence, _, _ in statements)
        return " ".join(filter(None, (opener, *before, body, *after)))
    mark = rng.choice(("- ", "* ", "- ", ""))
    lines = [
        mark + (sentence if way < 0.7 else f"{label}: {written}") for sentence, label, written in statements
    ]
    heading = rng.choice((*HEADINGS, ""))
    head = " ".join(filter(None, (opener, *before)))
    return "\n".join(filter(None, (head, heading, *lines, " ".join(after))))
