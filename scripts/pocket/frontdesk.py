"""What callers ask for with slots to fill (a table, a price, the weather) and the right answers. Makes no audio."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grammar
import lexicon as lex

NO_TOOL = "sorry, i can not check that right now."


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool call of the agent: its result (JSON text) and the sentence spoken after it."""

    name: str
    arguments: dict[str, Any]
    result: str
    final: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer. `kind` says how the caller's audio is made."""

    user: str
    reply: str
    intent: str
    slots: dict[str, str] = field(default_factory=dict)
    kind: str = "speech"
    tool: Tool | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What the generators share: the random source and the names of the tools offered in this dialogue."""

    rng: Random
    tools: frozenset[str]

    def pick(self, phrasings: str, **slots: str) -> str:
        """One of the phrasings (parted by "|") at random with the slots filled in."""
        return self.rng.choice(phrasings.split("|")).format(**slots)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def ask(self, phrasings: str, **slots: str) -> str:
        """Like `pick`, with the hesitations and courtesies of a real caller around it."""
        lead, tail = "", ""
        if self.chance(0.45):
            lead = self.rng.choice(LEADS) + " "
        if self.chance(0.15):
            tail = " " + self.rng.choice(TAILS)
        return lead + self.pick(phrasings, **slots) + tail


LEADS = (
    "please",
    "hey",
    "hello",
    "hi",
    "excuse me",
    "okay",
    "um",
    "uh",
    "so",
    "well",
    "good morning",
    "sorry",
    "yes",
    "hello there",
    "um hello",
    "okay so",
    "oh",
    "tell me",
    "hi there um",
    "actually",
)

TAILS = ("please", "thank you", "thanks", "if you can", "um please", "for me")


def opening_reply(day: str) -> str:
    if day not in lex.OPENING:
        return f"on {day} we are closed."
    start, end = lex.OPENING[day]
    return f"on {day} we are open from {start} to {end}."


def hours(scene: Scene) -> list[Turn]:
    day, other = scene.rng.choice(lex.DAYS), scene.rng.choice(lex.DAYS)
    if scene.chance(0.2):
        opening = scene.ask(
            "what are your opening hours|when are you open|when do you open|tell me your opening hours|"
            "when do you close|what are your hours",
        )
        user = scene.pick("{day}|on {day}|for {day}|{day} please|um {day}", day=day)
        return [
            Turn(opening, "which day would you like to know?", "hours"),
            Turn(user, opening_reply(day), "hours", {"day": day}),
        ]
    user = scene.ask(
        "what are your opening hours on {day}|when do you open on {day}|are you open on {day}|"
        "what time do you close on {day}|tell me the hours for {day}|when are you open on {day}|"
        "is the restaurant open on {day}|is the shop open on {day}|what are the hours on {day}",
        day=day,
    )
    turns = [Turn(user, opening_reply(day), "hours", {"day": day})]
    if scene.chance(0.35):
        user = scene.pick(
            "and on {day}|what about {day}|and {day}|how about {day}|okay and on {day}", day=other
        )
        turns.append(Turn(user, opening_reply(other), "hours", {"day": other}))
    return turns


def price_reply(item: str) -> str:
    return f"the {item} costs {lex.plural(lex.PRICES[item], 'dollar')}."


def price(scene: Scene) -> list[Turn]:
    item, other = scene.rng.choice(list(lex.PRICES)), scene.rng.choice(list(lex.PRICES))
    user = scene.ask(
        "how much is the {item}|what does the {item} cost|what is the price of the {item}|"
        "how much does the {item} cost|how expensive is the {item}|how much for the {item}|"
        "the price of the {item}|what do i pay for the {item}",
        item=item,
    )
    turns = [Turn(user, price_reply(item), "price", {"item": item})]
    if scene.chance(0.3):
        user = scene.pick(
            "and the {item}|what about the {item}|how about the {item}|and how much is the {item}",
            item=other,
        )
        turns.append(Turn(user, price_reply(other), "price", {"item": other}))
    return turns


def room_price(scene: Scene) -> list[Turn]:
    room, nights = scene.rng.choice(list(lex.ROOMS)), scene.rng.choice((1, 1, 1, 2, 3, 4))
    span = "" if nights == 1 else f" for {lex.number_words(nights)} nights"
    user = scene.ask(
        "how much is a {room} room{span}|what does a {room} room cost{span}|"
        "what is the price of a {room} room{span}|how much for a {room} room{span}|"
        "how much does a {room} room cost{span}",
        room=room,
        span=span,
    )
    cost = lex.plural(lex.ROOMS[room] * nights, "dollar")
    reply = f"a {room} room{span or ' for one night'} is {cost}."
    return [Turn(user, reply, "room_price", {"room": room, "nights": lex.number_words(nights)})]


def room_booking(scene: Scene) -> list[Turn]:
    room, nights, when = scene.rng.choice(list(lex.ROOMS)), scene.rng.randint(1, 7), day_phrase(scene)
    span = lex.plural(nights, "night")
    user = scene.ask(
        "book a {room} room {when} for {span}|i need a {room} room {when} for {span}|"
        "can i get a {room} room for {span} {when}|i would like a {room} room {when} for {span}|"
        "reserve a {room} room for {span} {when}",
        room=room,
        when=when,
        span=span,
    )
    reply = f"okay, a {room} room {when} for {span}."
    return [Turn(user, reply, "room_booking", {"room": room, "when": when, "nights": span})]


def day_phrase(scene: Scene) -> str:
    return (
        scene.rng.choice(["tomorrow", "today", "tonight"])
        if scene.chance(0.15)
        else f"on {scene.rng.choice(lex.DAYS)}"
    )


def clock_phrase(scene: Scene) -> str:
    hour = scene.rng.choice(lex.ONES[1:13])
    if scene.chance(0.12):
        return scene.rng.choice(("half past", "quarter past", "quarter to")) + " " + hour
    return hour + scene.rng.choice(("", "", "", " thirty", " thirty", " fifteen", " forty five", " o'clock"))


def table_reply(name: str, people: str, when: str, clock: str) -> str:
    return f"okay{' ' + name if name else ''}, a table for {people} {when} at {clock}."


def book(scene: Scene) -> list[Turn]:
    people, when, clock = lex.number_words(scene.rng.randint(2, 12)), day_phrase(scene), clock_phrase(scene)
    name = scene.rng.choice(lex.NAMES) if scene.chance(0.3) else ""
    slots = {"people": people, "when": when, "time": clock} | ({"name": name} if name else {})
    turns: list[Turn] = []
    if scene.chance(0.12):
        opening = scene.ask(
            "i want to book a table|can i book a table|book a table|i need a table|"
            "i would like to make a reservation|can i make a reservation",
        )
        turns.append(Turn(opening, "for how many people, which day, and what time?", "book"))
        user = scene.pick(
            "for {people} {when} at {clock}|{people} people {when} at {clock}|"
            "{when} at {clock} for {people}|we are {people} {when} at {clock}",
            people=people,
            when=when,
            clock=clock,
        )
    else:
        user = scene.ask(
            "book a table for {people} {when} at {clock}|i want a table for {people} {when} at {clock}|"
            "can i reserve a table for {people} people {when} at {clock}|"
            "a table for {people} at {clock} {when}|reserve a table {when} at {clock} for {people}|"
            "i would like to book a table for {people} {when} at {clock}|"
            "can i have a table for {people} {when} at {clock}|"
            "we need a table for {people} {when} at {clock}|"
            "do you have a table for {people} {when} at {clock}",
            people=people,
            when=when,
            clock=clock,
        )
    if name:
        user += scene.pick(" for {name}| under the name {name}| my name is {name}", name=name)
    turns.append(Turn(user, table_reply(name, people, when, clock), "book", slots))
    if scene.chance(0.4):
        turns.append(change_booking(scene, name, people, when, clock))
    return turns


def change_booking(scene: Scene, name: str, people: str, when: str, clock: str) -> Turn:
    """A change, or the cancellation, of the table just booked."""
    pick = scene.rng.random()
    if pick < 0.15:
        user = scene.pick("cancel it|please cancel it|cancel that booking|no cancel it again")
        return Turn(
            user, f"your booking {when} at {clock} is canceled.", "cancel", {"when": when, "time": clock}
        )
    if pick < 0.45:
        people = lex.number_words(scene.rng.randint(2, 12))
        user = scene.pick(
            "make it {people} people|make that {people} people|actually we are {people}|"
            "change it to {people} people|sorry for {people} people|no for {people}",
            people=people,
        )
        changed = {"people": people}
    elif pick < 0.75:
        when = day_phrase(scene)
        bare = when.removeprefix("on ")
        user = scene.pick(
            "make it {bare}|can we do {bare} instead|change it to {bare}|sorry {when}|no {when} please",
            bare=bare,
            when=when,
        )
        changed = {"when": when}
    else:
        clock = clock_phrase(scene)
        user = scene.pick(
            "make it at {clock}|change the time to {clock}|can we come at {clock}|sorry at {clock}|"
            "no at {clock} please",
            clock=clock,
        )
        changed = {"time": clock}
    return Turn(user, table_reply(name, people, when, clock), "change_booking", changed)


def cancel(scene: Scene) -> list[Turn]:
    when, clock = day_phrase(scene), clock_phrase(scene)
    slots, reply = {"when": when, "time": clock}, f"your booking {when} at {clock} is canceled."
    if scene.chance(0.2):
        opening = scene.ask("cancel my booking|i want to cancel my booking|i have to cancel my table")
        user = scene.pick(
            "it is {when} at {clock}|{when} at {clock}|for {clock} {when}", when=when, clock=clock
        )
        return [
            Turn(opening, "which day and what time is your booking?", "cancel"),
            Turn(user, reply, "cancel", slots),
        ]
    user = scene.ask(
        "cancel my booking {when} at {clock}|cancel the table {when} at {clock}|"
        "i want to cancel my table {when} at {clock}|i have to cancel my booking {when} at {clock}|"
        "cancel my reservation {when} at {clock}|can you cancel my table at {clock} {when}",
        when=when,
        clock=clock,
    )
    return [Turn(user, reply, "cancel", slots)]


def order_turn(scene: Scene, phrasings: str, *, hesitate: bool = True) -> Turn:
    digits = [scene.rng.choice(lex.ONES[:10]) for _ in range(4)]
    spoken = ["oh" if digit == "zero" and scene.chance(0.3) else digit for digit in digits]
    say = scene.ask if hesitate else scene.pick
    number = " ".join(digits)
    reply = f"order {number} {lex.ORDER_STATUS[digits[-1]]}."
    return Turn(say(phrasings, number=" ".join(spoken)), reply, "order", {"number": number})


def order(scene: Scene) -> list[Turn]:
    if scene.chance(0.2):
        opening = scene.ask(
            "where is my order|i want to ask about my order|what is the status of my order|"
            "can you check my order|i am waiting for my order",
        )
        return [
            Turn(opening, "please tell me your order number.", "order"),
            order_turn(
                scene, "{number}|it is {number}|number {number}|order {number}|um {number}", hesitate=False
            ),
        ]
    turns = [
        order_turn(
            scene,
            "where is my order {number}|"
            "what is the status of order {number}|"
            "track order number {number}|"
            "check order {number}|"
            "my order number is {number}|"
            "can you check order {number}|"
            "when does order {number} arrive|"
            "what about my order {number}",
        )
    ]
    if scene.chance(0.25):
        turns.append(
            order_turn(
                scene,
                "and order {number}|what about {number}|and number {number}|and {number}",
                hesitate=False,
            )
        )
    return turns


def weather_tool(scene: Scene, city: str) -> Tool:
    weather, degrees = scene.rng.choice(lex.WEATHER), scene.rng.randint(-10, 38)
    shown = city.title() if scene.chance(0.3) else city
    results: tuple[dict[str, Any], ...] = (
        {"city": shown, "weather": weather, "temperature": degrees},
        {"weather": weather, "temperature": degrees},
        {"city": shown, "temperature": degrees, "condition": weather},
        {"location": shown, "forecast": weather, "temp_c": degrees},
        {"conditions": weather, "degrees": degrees, "unit": "celsius"},
    )
    final = f"it is {weather} in {city}, {lex.plural(degrees, 'degree')}."
    return Tool("get_weather", {"city": city}, dump(scene, scene.rng.choice(results)), final)


def weather(scene: Scene) -> list[Turn]:
    city = scene.rng.choice(lex.CITIES)
    able = "get_weather" in scene.tools
    if scene.chance(0.12):
        opening = scene.ask(
            "what is the weather|how is the weather|tell me the weather|what is the weather like"
        )
        if not able:
            return [Turn(opening, NO_TOOL, "weather")]
        user = scene.pick("in {city}|{city}|for {city}|{city} please", city=city)
        return [Turn(opening, "which city do you mean?", "weather"), weather_turn(scene, user, city)]
    user = scene.ask(
        "what is the weather in {city}|how is the weather in {city}|is it raining in {city}|"
        "tell me the weather in {city}|what is the weather like in {city}|is it cold in {city}|"
        "how warm is it in {city}|weather in {city}|is it sunny in {city}|"
        "what is the temperature in {city}",
        city=city,
    )
    turns = [weather_turn(scene, user, city)]
    if able and scene.chance(0.25):
        other = scene.rng.choice(lex.CITIES)
        user = scene.pick("and in {city}|what about {city}|how about {city}", city=other)
        turns.append(weather_turn(scene, user, other))
    return turns


def weather_turn(scene: Scene, user: str, city: str) -> Turn:
    if "get_weather" not in scene.tools:
        return Turn(user, NO_TOOL, "weather", {"city": city})
    filler = f"let me check the weather in {city}."
    return Turn(user, filler, "weather", {"city": city}, tool=weather_tool(scene, city))


def spoken_time(hour: int, minute: int) -> str:
    """14, 30 -> "two thirty in the afternoon"."""
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    tail = ("oh " if minute < 10 else "") + lex.number_words(minute) if minute else "o'clock"
    return f"{lex.number_words((hour - 1) % 12 + 1)} {tail} {part}"


def time_tool(scene: Scene, city: str) -> Tool:
    hour, minute = scene.rng.randrange(24), scene.rng.randrange(60)
    if scene.chance(0.5):
        minute -= minute % 5
    spoken = spoken_time(hour, minute)
    twelve = f"{(hour - 1) % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"
    results: tuple[dict[str, Any], ...] = (
        {"time": f"{hour:02d}:{minute:02d}"},
        {"time": f"{hour:02d}:{minute:02d}"},
        {"time": twelve},
        {"hour": hour, "minute": minute},
        {"time": spoken},
    )
    result = scene.rng.choice(results)
    if scene.chance(0.4):
        result = {"city": city or "here"} | result
    final = f"it is {spoken}{' in ' + city if city else ''}."
    return Tool("get_time", {"city": city} if city else {}, dump(scene, result), final)


def clock_time(scene: Scene) -> list[Turn]:
    city = scene.rng.choice(lex.CITIES) if scene.chance(0.5) else ""
    if city:
        user = scene.ask(
            "what time is it in {city}|what is the time in {city}|tell me the time in {city}|"
            "how late is it in {city}|do you know what time it is in {city}",
            city=city,
        )
    else:
        user = scene.ask(
            "what time is it|what is the time|can you tell me the time|what time is it now|"
            "tell me the time|do you have the time|do you know what time it is",
        )
    slots = {"city": city} if city else {}
    if "get_time" not in scene.tools:
        return [Turn(user, NO_TOOL, "time", slots)]
    filler = f"let me check the time{' in ' + city if city else ''}."
    return [Turn(user, filler, "time", slots, tool=time_tool(scene, city))]


def dump(scene: Scene, value: object) -> str:
    """JSON as tools really write it: with and without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if scene.chance(0.4) else None)


def repeat(scene: Scene) -> list[Turn]:
    phrase = grammar.phrase(scene.rng)
    user = scene.pick(
        "repeat after me {phrase}|say {phrase}|please say {phrase}|repeat {phrase}|"
        "please repeat after me {phrase}|can you say {phrase}",
        phrase=phrase,
    )
    return [Turn(user, f"{phrase}.", "repeat", {"phrase": phrase})]


def spell(scene: Scene) -> list[Turn]:
    word = scene.rng.choice(lex.SPELLABLE)
    user = scene.ask(
        "spell {word}|how do you spell {word}|spell the word {word}|can you spell {word}", word=word
    )
    return [Turn(user, f"{word} is spelled {', '.join(word)}.", "spell", {"word": word})]


def count(scene: Scene) -> list[Turn]:
    first = scene.rng.randint(0, 10)
    last = first + scene.rng.randint(2, 5)
    low, high = lex.number_words(first), lex.number_words(last)
    user = scene.ask("count from {low} to {high}|can you count from {low} to {high}", low=low, high=high)
    reply = ", ".join(lex.number_words(value) for value in range(first, last + 1)) + "."
    return [Turn(user, reply, "count", {"from": low, "to": high})]


def add(scene: Scene) -> list[Turn]:
    first, second = scene.rng.randint(0, 12), scene.rng.randint(0, 12)
    operation = "plus" if scene.chance(0.6) else "minus"
    if operation == "minus" and first < second:
        first, second = second, first
    value = first + second if operation == "plus" else first - second
    left, right = lex.number_words(first), lex.number_words(second)
    user = scene.ask(
        "what is {a} {op} {b}|how much is {a} {op} {b}|calculate {a} {op} {b}",
        a=left,
        b=right,
        op=operation,
    )
    reply = f"{left} {operation} {right} is {lex.number_words(value)}."
    return [Turn(user, reply, "sum", {"a": left, "operation": operation, "b": right})]
