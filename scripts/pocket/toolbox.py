"""Tools in conversations: the weather, the time, orders, and which tools a dialogue offers.

A tool that the dialogue does not offer can not be called: the agent says so.
"""

from __future__ import annotations

from typing import Any

import lexicon as lex
import values as val
from frontdesk import order as order_known
from inventions import dump, invent, schema
from scene import Scene
from task import Tool, Turn

NO_TOOL = "sorry, i can not check that right now."


# --- the weather and the time ---------------------------------------------------------------------------------------


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
            "what is the weather|how is the weather|tell me the weather|what is the weather like|will it rain"
        )
        if not able:
            return [scene.turn(opening, NO_TOOL, "weather")]
        user = scene.pick("in {city}|{city}|for {city}|{city} please|i mean in {city}", city=city)
        return [
            scene.turn(opening, "which city do you mean?", "weather"),
            _weather_turn(scene, user, city),
        ]
    user = scene.ask(
        "what is the weather in {city}|how is the weather in {city}|is it raining in {city}|"
        "tell me the weather in {city}|what is the weather like in {city}|is it cold in {city}|"
        "how warm is it in {city}|weather in {city}|is it sunny in {city}|what is the temperature in {city}|"
        "do i need a coat in {city}",
        city=city,
    )
    turns = [_weather_turn(scene, user, city)]
    if able and scene.chance(0.25):
        other = scene.rng.choice(lex.CITIES)
        user = scene.pick(
            "and in {city}|what about {city}|how about {city}|no i said {city}|and {city}", city=other
        )
        turns.append(_weather_turn(scene, user, other))
    return turns


def _weather_turn(scene: Scene, user: str, city: str) -> Turn:
    if "get_weather" not in scene.tools:
        return scene.turn(user, NO_TOOL, "weather", {"city": city})
    filler = f"let me check the weather in {city}."
    return scene.turn(user, filler, "weather", {"city": city}, tool=weather_tool(scene, city))


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
            "how late is it in {city}|do you know what time it is in {city}|what is the local time in {city}",
            city=city,
        )
    else:
        user = scene.ask(
            "what time is it|what is the time|can you tell me the time|what time is it now|tell me the time|"
            "do you have the time|do you know what time it is|how late is it",
        )
    slots = {"city": city} if city else {}
    if "get_time" not in scene.tools:
        return [scene.turn(user, NO_TOOL, "time", slots)]
    filler = f"let me check the time{' in ' + city if city else ''}."
    return [scene.turn(user, filler, "time", slots, tool=time_tool(scene, city))]


# --- orders ---------------------------------------------------------------------------------------------------------

STATUS = (
    "shipped today", "on the way", "ready for pickup", "delayed by two days", "still being packed", "canceled",
    "delivered yesterday", "waiting for payment", "at the customs office", "lost", "sold out", "with the driver",
)  # fmt: skip


def order(scene: Scene) -> list[Turn]:
    """An order: looked up where there is a tool for it, else as the front desk knows it."""
    name = next((each for each in ORDER_TOOLS if each in scene.tools), "")
    if not name:
        return order_known(scene)
    turns = [_order_turn(scene, name, scene.ask(
        "where is my order {number}|what is the status of order {number}|track order number {number}|"
        "check order {number}|can you check order {number}|when does order {number} arrive|look up order {number}",
        number="{number}",
    ))]  # fmt: skip
    if scene.chance(0.3):
        turns.append(_order_turn(scene, name, scene.pick("and order {number}|what about {number}|and {number}|"
        "no i said {number}",
                                                         number="{number}")))  # fmt: skip
    return turns


ORDER_TOOLS = ("get_order", "lookup_order", "order_status", "trackOrder")


def _order_turn(scene: Scene, name: str, user: str) -> Turn:
    spoken = val.digits(scene.rng, 4)
    number, status = val.number_text(spoken), scene.rng.choice(STATUS)
    results: tuple[dict[str, Any], ...] = (
        {"order": number, "status": status}, {"status": status}, {"id": number, "state": status},
    )  # fmt: skip
    key = scene.tools[name]
    tool = Tool(name, {key: number}, dump(scene, scene.rng.choice(results)), f"your order is {status}.")
    said = user.format(number=" ".join(spoken))
    return scene.turn(said, "let me look up your order.", "order_lookup", {"number": number}, tool=tool)


def draw(scene: Scene, *, need: str = "") -> tuple[list[dict[str, Any]] | None, dict[str, Any]]:
    """The `tools` of a dialogue and what is known of them; `need`: "custom" or "order" makes sure of one such."""
    rng = scene.rng
    if not need and rng.random() < 0.35:
        return None, {}
    city = {"type": "string", "description": rng.choice(("name of the city", "The city", "city name"))}
    known: dict[str, Any] = {}
    schemas: list[dict[str, Any]] = []
    if rng.random() < (0.85 if not need else 0.3):
        text = rng.choice(("Current weather of a city", "Get the weather in a city", "look up the weather"))
        schemas.append(schema("get_weather", text, {"city": city}, ["city"]))
    if rng.random() < (0.85 if not need else 0.3):
        text = rng.choice(("Current time", "Get the local time", "look up the time"))
        schemas.append(schema("get_time", text, {"city": city}, []))
    known |= {made["function"]["name"]: "city" for made in schemas}
    if need == "order" or rng.random() < 0.1:
        name, key = rng.choice(ORDER_TOOLS), rng.choice(("order_number", "id", "order", "number"))
        text = rng.choice(("Status of an order", "Look up an order by its number", "Where an order is"))
        schemas.append(schema(name, text, {key: {"type": "string"}}, [key]))
        known[name] = key
    if need == "custom" or rng.random() < 0.12:
        for _ in range(rng.choice((1, 1, 2))):
            name, made, described = invent(scene)
            if name not in known:
                known[name] = made
                schemas.append(described)
    if rng.random() < 0.2:
        name, text = rng.choice((("end_call", "Hang up the phone"), ("transfer_call", "Connect to a person")))
        schemas.append(schema(name, text, {}, []))
    rng.shuffle(schemas)
    return schemas or None, known
