"""Questions about facts: opening hours, prices, and whatever the instructions say; how callers refer back to them.

The answers are those of the scene's house. It decides nothing about what is true.
"""

from __future__ import annotations

import lexicon as lex
import values as val
import vocabulary as voc
from facts import FACTS, UNKNOWN
from houses import House
from scene import Scene
from task import Turn

REPAIRS = "no i said {value}|no i mean {value}|sorry i meant {value}|no {value} please|i said {value}"


def opening_reply(house: House, day: str) -> str:
    if day not in house.opening:
        return UNKNOWN
    hours = house.opening[day]
    return f"on {day} we are open from {hours[0]} to {hours[1]}." if hours else f"on {day} we are closed."


def _hours_turn(scene: Scene, user: str, day: str) -> Turn:
    return scene.turn(
        user, opening_reply(scene.house, day), "hours", {"day": day}, source=scene.house.source(day)
    )


def hours(scene: Scene) -> list[Turn]:
    told = [day for day in lex.DAYS if day in scene.house.told]
    if scene.house.foreign and not told and scene.chance(0.8):
        return fact(scene)
    day = scene.rng.choice(told if told and scene.chance(0.7) else lex.DAYS)
    other = scene.rng.choice([each for each in lex.DAYS if each != day])
    if scene.chance(0.15):
        opening = scene.ask(
            "what are your opening hours|when are you open|when do you open|tell me your opening hours|"
            "when do you close|what are your hours|i want to know when you are open|from when are you open",
        )
        user = scene.pick("{day}|on {day}|for {day}|{day} please|um {day}|i mean {day}", day=day)
        turns = [
            scene.turn(opening, "which day would you like to know?", "hours"),
            _hours_turn(scene, user, day),
        ]
    else:
        user = scene.ask(
            "what are your opening hours on {day}|when do you open on {day}|are you open on {day}|"
            "what time do you close on {day}|tell me the hours for {day}|when are you open on {day}|"
            "is the restaurant open on {day}|is the shop open on {day}|what are the hours on {day}|"
            "until when are you open on {day}|can i come on {day}|how long are you open on {day}|"
            "do you work on {day}|are you closed on {day}",
            day=day,
        )
        turns = [_hours_turn(scene, user, day)]
    if scene.chance(0.35):
        user = scene.pick(
            "and on {day}|what about {day}|and {day}|how about {day}|okay and on {day}|and when do you open on {day}|"
            + REPAIRS.replace("{value}", "{day}"),
            day=other,
        )
        turns.append(_hours_turn(scene, user, other))
    return turns


def price_reply(house: House, item: str, count: int = 1) -> str:
    """ "the lamp costs five dollars." """
    if item not in house.prices:
        return UNKNOWN
    if count == 1:
        return f"the {item} costs {lex.plural(house.prices[item], 'dollar')}."
    total = lex.plural(house.prices[item] * count, "dollar")
    return f"{lex.number_words(count)} {many(item)} cost {total}."


def many(item: str) -> str:
    """ "apple pies"; what is not counted comes in portions."""
    if item in ("pasta", "soup", "tea", "water", "rice", "bread", "wine", "beer", "fish", "chicken", "orange juice",
                "coffee", "ice cream"):  # fmt: skip
        return f"portions of {item}"
    *first, last = item.split()
    return " ".join([*first, voc.plural(last)])


def _price_turn(scene: Scene, user: str, item: str, count: int = 1) -> Turn:
    house = scene.house
    source = "history" if count > 1 else house.source(item)
    return scene.turn(user, price_reply(house, item, count), "price", {"item": item}, source=source)


def price(scene: Scene) -> list[Turn]:
    goods = [*lex.PRICES, *val.GOODS]
    told = sorted(set(goods) & scene.house.told)
    if scene.house.foreign and not told and scene.chance(0.8):
        return fact(scene)
    item = scene.rng.choice(told if told and scene.chance(0.85) else list(lex.PRICES))
    other = scene.rng.choice(told if len(told) > 1 and scene.chance(0.8) else list(lex.PRICES))
    user = scene.ask(
        "how much is the {item}|what does the {item} cost|what is the price of the {item}|"
        "how much does the {item} cost|how expensive is the {item}|how much for the {item}|"
        "the price of the {item}|what do i pay for the {item}|how much do you want for the {item}|"
        "i would like to know the price of the {item}|what do you charge for the {item}",
        item=item,
    )
    turns = [_price_turn(scene, user, item)]
    cost = scene.house.prices.get(item, 99)
    if scene.chance(0.3):
        user = scene.pick(
            "and the {item}|what about the {item}|how about the {item}|and how much is the {item}|no the {item}|"
            "sorry i meant the {item}|no i said the {item}",
            item=other,
        )
        turns.append(_price_turn(scene, user, other))
    elif cost <= 12 and scene.chance(0.45):
        count = scene.rng.randint(2, 5)
        user = scene.pick(
            "and {n} of them|and what do {n} cost|how much for {n}|and {n}|what if i take {n}|make it {n}",
            n=lex.number_words(count),
        )
        turns.append(_price_turn(scene, user, item, count))
    return turns


def fact(scene: Scene) -> list[Turn]:
    """One fact, then perhaps another by reference."""
    told = sorted(set(FACTS) & scene.house.told)
    pick = scene.rng.random()
    name = scene.rng.choice(told if told and pick < 0.8 else sorted(FACTS))
    turns = [_fact_turn(scene, name, scene.ask(FACTS[name].asks))]
    if scene.chance(0.3):
        other = scene.rng.choice(told if len(told) > 1 and scene.chance(0.7) else sorted(FACTS))
        if other != name and FACTS[other].again:
            turns.append(_fact_turn(scene, other, scene.pick(FACTS[other].again)))
    return turns


def _fact_turn(scene: Scene, name: str, user: str) -> Turn:
    value = scene.house.facts.get(name)
    if value is None:
        return scene.turn(user, UNKNOWN, f"fact_{name}", source=scene.house.source(name))
    reply = FACTS[name].reply.format(value=value)
    return scene.turn(user, reply, f"fact_{name}", {"value": value}, source=scene.house.source(name))


def yes_or_no(scene: Scene) -> list[Turn]:
    """ "is this the copper lantern": right or wrong."""
    house, rng = scene.house, scene.rng
    right = scene.chance(0.5)
    if house.person and scene.chance(0.5):
        name = house.person if right else rng.choice([n for n in lex.NAMES if n != house.person])
        user = scene.ask(
            "are you {name}|is your name {name}|am i talking to {name}|is this {name}", name=name
        )
        reply = f"yes, i am {name}." if right else f"no, i am {house.person}."
        return [scene.turn(user, reply, "is_person", {"name": house.person}, source="prompt")]
    place = house.place
    if not right:
        place = f"{rng.choice(val.PLACE_FIRST)} {rng.choice(val.PLACE_SECOND)}"
    user = scene.ask(
        "is this {place}|did i call {place}|am i talking to {place}|is that {place}", place=place
    )
    reply = f"yes, this is {place}." if place == house.place else f"no, this is {house.place}."
    return [scene.turn(user, reply, "is_place", {"place": house.place}, source=house.source("place"))]


def who(scene: Scene) -> list[Turn]:
    """Who answers the phone."""
    house = scene.house
    told = "prompt" if house.person or house.foreign else ""
    if scene.chance(0.4):
        user = scene.ask(
            "what is the name of this place|where did i call|who did i reach|what is this place called|"
            "which company is this|what number did i call|whose number is this"
        )
        return [scene.turn(user, f"this is {house.place}.", "place", {"place": house.place}, source=told)]
    user = scene.ask(
        "who are you|what is your name|who am i talking to|who is speaking|who is this|can i ask your name|"
        "tell me your name|with whom am i speaking"
    )
    return [scene.turn(user, identity(house), "identity", {"place": house.place}, source=told)]


def identity(house: House) -> str:
    """What the agent says when it is asked who it is."""
    if house.person:
        return f"i am {house.person}, the voice assistant of {house.place}."
    return f"i am the voice assistant of {house.place}."


def greeting(scene: Scene) -> list[Turn]:
    house = scene.house
    user = scene.pick(
        "hello|hi|hi there|hello there|good morning|hey there|good afternoon|good evening|hey|"
        "hello is this the front desk|"
        "hello is anybody there|hi good morning|hello good afternoon|um hello|yes hello"
    )
    reply = f"hello, this is {house.place}. how can i help you?"
    return [scene.turn(user, reply, "greeting", source="prompt" if house.foreign else "")]
