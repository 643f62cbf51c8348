"""What callers ask a front desk for, with slots to fill (a table, a room, an order), and the right answers."""

from __future__ import annotations

import lexicon as lex
import values as val
from facts import UNKNOWN
from inquiries import many
from scene import Scene, listing
from task import Turn


def room_price(scene: Scene) -> list[Turn]:
    room, nights = scene.rng.choice(list(lex.ROOMS)), scene.rng.choice((1, 1, 1, 2, 3, 4))
    span = "" if nights == 1 else f" for {lex.number_words(nights)} nights"
    user = scene.ask(
        "how much is a {room} room{span}|what does a {room} room cost{span}|"
        "what is the price of a {room} room{span}|how much for a {room} room{span}|"
        "how much does a {room} room cost{span}|what do i pay for a {room} room{span}",
        room=room,
        span=span,
    )
    turns = [_room_price_turn(scene, user, room, nights)]
    if scene.chance(0.25):
        nights = scene.rng.choice([n for n in (1, 2, 3, 4) if n != nights])
        user = scene.pick(
            "and for {span}|what about {span}|and {span}|how much for {span}|make it {span}",
            span=lex.plural(nights, "night"),
        )
        turns.append(_room_price_turn(scene, user, room, nights, source="history"))
    return turns


def _room_price_turn(scene: Scene, user: str, room: str, nights: int, source: str = "") -> Turn:
    rooms = scene.house.rooms
    reply = UNKNOWN
    if room in rooms:
        cost = lex.plural(rooms[room] * nights, "dollar")
        reply = f"a {room} room for {lex.plural(nights, 'night')} is {cost}."
    slots = {"room": room, "nights": lex.number_words(nights)}
    return scene.turn(user, reply, "room_price", slots, source=source or scene.house.source("rooms"))


def room_booking(scene: Scene) -> list[Turn]:
    room, nights, when = (
        scene.rng.choice(list(lex.ROOMS)),
        scene.rng.randint(1, 7),
        val.day_phrase(scene.rng),
    )
    span = lex.plural(nights, "night")
    user = scene.ask(
        "book a {room} room {when} for {span}|i need a {room} room {when} for {span}|"
        "can i get a {room} room for {span} {when}|i would like a {room} room {when} for {span}|"
        "reserve a {room} room for {span} {when}|do you have a {room} room for {span} {when}|"
        "we want a {room} room for {span} starting {when}",
        room=room,
        when=when,
        span=span,
    )
    slots = {"room": room, "when": when, "nights": span}
    turns = [scene.turn(user, f"okay, a {room} room {when} for {span}.", "room_booking", slots)]
    if scene.chance(0.3):
        if scene.chance(0.5):
            span = lex.plural(scene.rng.randint(1, 7), "night")
            user = scene.pick("make it {x}|no {x}|i said {x}|change it to {x}|sorry for {x}", x=span)
        else:
            room = scene.rng.choice(list(lex.ROOMS))
            user = scene.pick(
                "no i said a {x} room|make it a {x} room|sorry a {x} room|i would rather have a {x} room",
                x=room,
            )
        reply = f"okay, a {room} room {when} for {span}."
        turns.append(scene.turn(user, reply, "change_room", {"room": room, "nights": span}, source="history"))
    return turns


def choose_room(scene: Scene) -> list[Turn]:
    """ "which rooms do you have" -> a list -> "the second one"."""
    if not scene.house.rooms:
        return room_price(scene)
    rooms = scene.rng.sample(list(scene.house.rooms), 1)
    offered = list(scene.house.rooms)
    user = scene.ask(
        "which rooms do you have|what kinds of rooms are there|what rooms can i have|tell me which rooms you have|"
        "what kind of rooms do you offer"
    )
    reply = f"we have {listing([*offered[:-1], offered[-1] + ' rooms'])}. which one would you like?"
    turns = [scene.turn(user, reply, "rooms")]
    at = offered.index(rooms[0])
    user = scene.pick(
        "the {nth} one|the {nth}|i take the {nth} one|the {nth} one please|give me the {nth} one|"
        "i would like the {nth} one",
        nth="last" if at == len(offered) - 1 and scene.chance(0.6) else val.ORDINALS[at],
    )
    turns.append(
        scene.turn(user, f"okay, a {rooms[0]} room.", "choose_room", {"room": rooms[0]}, source="history")
    )
    return turns


def table_reply(name: str, people: str, when: str, clock: str) -> str:
    return f"okay{' ' + name if name else ''}, a table for {people} {when} at {clock}."


def book(scene: Scene) -> list[Turn]:
    rng = scene.rng
    people, when, clock = lex.number_words(rng.randint(2, 12)), val.day_phrase(rng), val.clock(rng)
    name = val.person(rng) if scene.chance(0.3) else ""
    slots = {"people": people, "when": when, "time": clock} | ({"name": name} if name else {})
    turns: list[Turn] = []
    if scene.chance(0.12):
        opening = scene.ask(
            "i want to book a table|can i book a table|book a table|i need a table|"
            "i would like to make a reservation|can i make a reservation|i would like to eat at your place",
        )
        turns.append(scene.turn(opening, "for how many people, which day, and what time?", "book"))
        user = scene.pick(
            "for {people} {when} at {clock}|{people} people {when} at {clock}|{when} at {clock} for {people}|"
            "we are {people} {when} at {clock}|{people} people at {clock} {when}",
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
            "can i have a table for {people} {when} at {clock}|we need a table for {people} {when} at {clock}|"
            "do you have a table for {people} {when} at {clock}|we are {people} and want to come {when} at {clock}",
            people=people,
            when=when,
            clock=clock,
        )
    if name:
        user += scene.pick(
            " for {name}| under the name {name}| my name is {name}| on the name of {name}", name=name
        )
    turns.append(scene.turn(user, table_reply(name, people, when, clock), "book", slots))
    if scene.chance(0.45):
        turns.append(change_booking(scene, name, people, when, clock))
    return turns


def _ask_back(scene: Scene, name: str, people: str, when: str, clock: str) -> Turn:
    """The cancellation of the table just booked, or a question about it."""
    slots = {"when": when, "time": clock}
    if scene.chance(0.48):
        user = scene.pick(
            "cancel it|please cancel it|cancel that booking|no cancel it again|i want to cancel it"
        )
        reply = f"your booking {when} at {clock} is canceled."
        return scene.turn(user, reply, "cancel", slots, source="history")
    user = scene.pick(
        "when is my table|what did i book|for when is my booking|can you repeat my booking|tell me my booking"
    )
    reply = f"{name + ', ' if name else ''}you have a table for {people} {when} at {clock}."
    return scene.turn(user, reply, "recall_booking", slots, source="history")


def change_booking(scene: Scene, name: str, people: str, when: str, clock: str) -> Turn:
    """A change or a repair of the table just booked, or something else about it."""
    pick = scene.rng.random()
    if pick < 0.25:
        return _ask_back(scene, name, people, when, clock)
    if pick < 0.52:
        people = lex.number_words(scene.rng.randint(2, 12))
        user = scene.pick(
            "make it {people} people|make that {people} people|actually we are {people}|"
            "change it to {people} people|sorry for {people} people|no for {people}|make it {people}|"
            "no i said {people} people",
            people=people,
        )
        changed = {"people": people}
    elif pick < 0.76:
        when = val.day_phrase(scene.rng)
        bare = when.removeprefix("on ")
        user = scene.pick(
            "make it {bare}|can we do {bare} instead|change it to {bare}|sorry {when}|no {when} please|"
            "no i said {bare}",
            bare=bare,
            when=when,
        )
        changed = {"when": when}
    else:
        clock = val.clock(scene.rng)
        user = scene.pick(
            "make it at {clock}|change the time to {clock}|can we come at {clock}|sorry at {clock}|"
            "no at {clock} please|no i said at {clock}",
            clock=clock,
        )
        changed = {"time": clock}
    return scene.turn(
        user, table_reply(name, people, when, clock), "change_booking", changed, source="history"
    )


def cancel(scene: Scene) -> list[Turn]:
    when, clock = val.day_phrase(scene.rng), val.clock(scene.rng)
    slots, reply = {"when": when, "time": clock}, f"your booking {when} at {clock} is canceled."
    if scene.chance(0.2):
        opening = scene.ask("cancel my booking|i want to cancel my booking|i have to cancel my table")
        user = scene.pick(
            "it is {when} at {clock}|{when} at {clock}|for {clock} {when}", when=when, clock=clock
        )
        return [
            scene.turn(opening, "which day and what time is your booking?", "cancel"),
            scene.turn(user, reply, "cancel", slots),
        ]
    user = scene.ask(
        "cancel my booking {when} at {clock}|cancel the table {when} at {clock}|"
        "i want to cancel my table {when} at {clock}|i have to cancel my booking {when} at {clock}|"
        "cancel my reservation {when} at {clock}|can you cancel my table at {clock} {when}|"
        "we can not come {when} at {clock} please cancel",
        when=when,
        clock=clock,
    )
    return [scene.turn(user, reply, "cancel", slots)]


def order_turn(scene: Scene, phrasings: str, *, hesitate: bool = True, source: str = "") -> Turn:
    digits = val.digits(scene.rng, 4)
    spoken = ["oh" if digit == "zero" and scene.chance(0.3) else digit for digit in digits]
    say = scene.ask if hesitate else scene.pick
    number = " ".join(digits)
    reply = f"order {number} {lex.ORDER_STATUS[digits[-1]]}."
    return scene.turn(
        say(phrasings, number=" ".join(spoken)), reply, "order", {"number": number}, source=source
    )


def order(scene: Scene) -> list[Turn]:
    if scene.chance(0.2):
        opening = scene.ask(
            "where is my order|i want to ask about my order|what is the status of my order|"
            "can you check my order|i am waiting for my order|my order did not come",
        )
        number = "{number}|it is {number}|number {number}|order {number}|um {number}|the number is {number}"
        return [
            scene.turn(opening, "please tell me your order number.", "order"),
            order_turn(scene, number, hesitate=False),
        ]
    turns = [
        order_turn(
            scene,
            "where is my order {number}|what is the status of order {number}|track order number {number}|"
            "check order {number}|my order number is {number}|can you check order {number}|"
            "when does order {number} arrive|what about my order {number}|i am calling about order {number}|"
            "has order {number} been sent",
        )
    ]
    if scene.chance(0.3):
        again = "and order {number}|what about {number}|and number {number}|and {number}|no i said {number}"
        turns.append(order_turn(scene, again, hesitate=False))
    return turns


def meal(scene: Scene) -> list[Turn]:
    """Things ordered by number, "make it three", another thing, and what it was."""
    rng = scene.rng
    item, count = rng.choice(MEALS), rng.randint(1, 9)
    user = scene.ask(
        "i would like {x}|can i order {x}|i want {x} please|can i have {x}|bring me {x}|{x} please|we take {x}|"
        "could you bring us {x}|i will have {x}",
        x=_portion(item, count),
    )
    turns = [_meal_turn(scene, user, [(item, count)], source="")]
    ordered = [(item, count)]
    if scene.chance(0.6):
        pick = rng.random()
        if pick < 0.5:
            count = rng.choice([n for n in range(2, 10) if n != count])
            user = scene.pick(
                "make it {n}|make that {n}|no {n}|no i said {n}|sorry {n} please|actually {n}|change it to {n}",
                n=lex.number_words(count),
            )
            ordered = [(item, count)]
        else:
            other = rng.choice([each for each in MEALS if each != item])
            ordered.append((other, rng.randint(1, 9)))
            user = scene.pick("and {x}|and also {x}|plus {x}|and {x} please|add {x}", x=_portion(*ordered[1]))
        turns.append(_meal_turn(scene, user, ordered, source="history"))
    if scene.chance(0.3):
        user = scene.pick(
            "what did i order|can you repeat my order|what do i have so far|tell me what i ordered|repeat that please"
        )
        said = listing([_portion(*each) for each in ordered])
        turns.append(scene.turn(user, f"you ordered {said}.", "recall_meal", source="history"))
    return turns


MEALS = (
    "pizza", "salad", "burger", "sandwich", "steak", "coffee", "tea", "beer", "soup", "cake", "omelet", "muffin",
    "bagel", "cookie", "pancake", "salad", "lobster", "orange juice", "apple pie", "cheese plate", "towel", "pillow",
    "blanket",
)  # fmt: skip


def _portion(item: str, count: int) -> str:
    return f"{lex.number_words(count)} {item if count == 1 else many(item)}"


def _meal_turn(scene: Scene, user: str, ordered: list[tuple[str, int]], source: str) -> Turn:
    said = listing([_portion(*each) for each in ordered])
    return scene.turn(user, f"okay, {said}. anything else?", "meal", {"order": said}, source=source)
