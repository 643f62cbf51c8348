"""Tools that a developer made up: their schemas, what callers want of them, calls, results and answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

import grammar
import lexicon as lex
import values as val
from scene import Scene, listing, value_held_out
from task import SUMMARISE, Tool, Turn

FAILED = "sorry, that did not work."


def dump(scene: Scene, value: object) -> str:
    """JSON as tools really write it: with and without spaces, now and then with the client's request behind it."""
    made = json.dumps(value, ensure_ascii=False, separators=(",", ":") if scene.chance(0.4) else None)
    return made + SUMMARISE if scene.chance(0.06) else made


def schema(name: str, text: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """An OpenAI tool object."""
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    return {
        "type": "function",
        "function": {"name": name, "description": text, "parameters": parameters},
    }


LOOKUPS = {
    "thing": lex.split(
        "price stock size weight color fee length height discount shelf model rating material origin"
    ),
    "person": lex.split(
        "balance age score birthday position salary phone address room seat doctor teacher schedule "
        "ticket contract rank credit gate train limit"
    ),
    "device": lex.split(
        "status temperature pressure battery version serial speed level power signal owner location"
    ),
}
LOOK_VERBS = ("get", "find", "check", "lookup", "fetch", "read", "query")
ACTIONS = (
    ("turn_on", "turn on the {x}", "device"), ("turn_off", "turn off the {x}", "device"),
    ("open", "open the {x}", "thing"),
    ("close", "close the {x}", "thing"), ("call", "call {x}", "person"), ("start", "start the {x}", "device"),
    ("stop", "stop the {x}", "device"), ("lock", "lock the {x}", "thing"), ("clean", "clean the {x}", "thing"),
    ("invite", "invite {x}", "person"), ("pay", "pay {x}", "person"), ("block", "block {x}", "person"),
    ("reserve", "reserve the {x}", "thing"), ("repair", "repair the {x}", "device"), ("sell", "sell the {x}", "thing"),
    ("restart", "restart the {x}", "device"), ("wake", "wake {x}", "person"), ("test", "test the {x}", "device"),
)  # fmt: skip
PARAMETERS = {
    "device": ("device", "device_name", "appliance", "name", "id"),
    "thing": ("item", "product", "object", "thing", "name"),
    "person": ("person", "name", "contact", "customer", "who"),
    "query": ("query", "q", "text", "search", "keywords"),
}
PLACES = (
    "hotel",
    "restaurant",
    "cafe",
    "museum",
    "shop",
    "park",
    "theater",
    "bank",
    "pharmacy",
    "gym",
    "school",
)


@dataclass(frozen=True, slots=True)
class Custom:
    """A made-up tool: what it is about ("lookup", "action", "search"), the word of it, and its parameter."""

    kind: str
    word: str
    parameter: str
    what: str


def _cased(rng: Random, *words: str) -> str:
    """The name of a function as people write names."""
    if rng.random() < 0.3:
        first, *rest = "_".join(words).split("_")
        return first + "".join(word.title() for word in rest)
    return "_".join(words)


def invent(scene: Scene) -> tuple[str, Custom, dict[str, Any]]:
    """Name, meaning and schema of a tool that nobody has seen before."""
    rng = scene.rng
    kind = rng.choices(("lookup", "action", "search"), (5, 4, 2))[0]
    if kind == "search":
        name = _cased(
            rng, rng.choice(("search", "find", "look_up")), rng.choice(("web", "places", "internet", "all"))
        )
        custom = Custom(kind, "", rng.choice(PARAMETERS["query"]), "query")
        text = rng.choice(
            ("Search the web", "Finds places", "Search for anything", "Look something up online")
        )
    elif kind == "lookup":
        what = rng.choice(("thing", "person", "device"))
        word = _held(scene, LOOKUPS[what])
        name = _cased(rng, rng.choice(LOOK_VERBS), word)
        custom = Custom(kind, word, rng.choice(PARAMETERS[what]), what)
        of = {"thing": "an item", "person": "a person", "device": "a device"}[what]
        text = rng.choice(
            (
                f"Get the {word} of {of}",
                f"Returns the {word} of {of}",
                f"The {word} of {of}",
                f"{word} lookup",
            )
        )
    else:
        verb, said, what = ACTIONS[LOOKS.index(_held(scene, LOOKS))]
        name = _cased(rng, verb, rng.choice(("it", what, "now", "item", "by_name")))
        custom = Custom(kind, said, rng.choice(PARAMETERS[what]), what)
        text = said.format(x=f"given {what}").capitalize() + rng.choice(("", ".", " by name"))
    described: dict[str, Any] = {"type": "string"}
    if scene.chance(0.6):
        described["description"] = rng.choice(
            (f"the {custom.what}", f"Name of the {custom.what}", custom.what)
        )
    return name, custom, schema(name, text, {custom.parameter: described}, [custom.parameter])


ACTION_LEADS = ("", "please ", "can you ", "i want you to ", "could you ", "would you ", "you have to ")
LOOKS = [verb for verb, _, _ in ACTIONS]


def _held(scene: Scene, words: list[str]) -> str:
    wanted = scene.split == "value"
    fitting = [word for word in words if value_held_out(f"tool/{word}") == wanted]
    scene.notes.held_value |= wanted
    return scene.rng.choice(fitting or words)


def custom(scene: Scene) -> list[Turn]:
    """A talk that needs one of the made-up tools; none if none is offered."""
    offered = [(name, known) for name, known in scene.tools.items() if isinstance(known, Custom)]
    if not offered:
        return []
    name, known = scene.rng.choice(offered)
    if known.kind == "search":
        return _search(scene, name, known)
    target = {"device": lambda r: r.choice(val.DEVICES), "thing": val.thing, "person": val.person}[known.what]
    turns = [_custom_turn(scene, name, known, target(scene.rng))]
    if scene.chance(0.25):
        turns.append(_custom_turn(scene, name, known, target(scene.rng), again=True))
    return turns


def _custom_turn(scene: Scene, name: str, known: Custom, target: str, *, again: bool = False) -> Turn:
    the = target if known.what == "person" else f"the {target}"
    call = {known.parameter: target}
    slots = {"target": target}
    if known.kind == "action":
        user = scene.ask("|".join(f"{lead}{known.word}" for lead in ACTION_LEADS), x=target)
        if again:
            user = scene.pick(
                "and {x}|now {x}|the {x} too|also {x}" if the != target else "and {x}|also {x}", x=the
            )
        good = scene.chance(0.8)
        results = (
            {"ok": good},
            {"success": good},
            {"status": "done" if good else "failed"},
            {"result": "ok" if good else "error"},
        )
        tool = Tool(
            name, call, dump(scene, scene.rng.choice(results)), "okay, it is done." if good else FAILED
        )
        return scene.turn(user, "one moment, please.", "tool_action", slots, tool=tool)
    user = scene.ask(
        "what is the {w} of {x}|tell me the {w} of {x}|check the {w} of {x}|i need the {w} of {x}|"
        "find the {w} of {x}|"
        "can you look up the {w} of {x}", w=known.word, x=the,
    )  # fmt: skip
    if again:
        user = scene.pick("and of {x}|what about {x}|and {x}|how about {x}", x=the)
    said, value = _result(scene)
    results = (
        {known.word: value},
        {known.parameter: target, known.word: value},
        {"result": value},
        {"value": value},
    )
    final = f"the {known.word} of {the} is {said}."
    tool = Tool(name, call, dump(scene, scene.rng.choice(results)), final)
    return scene.turn(user, "let me check that.", "tool_lookup", slots, tool=tool)


def _result(scene: Scene) -> tuple[str, Any]:
    """Something that a tool returns: how it is said, and what it is in JSON."""
    rng, pick = scene.rng, scene.rng.random()
    if pick < 0.45:
        number = rng.randint(0, 99) if rng.random() < 0.8 else rng.randint(100, 999)
        return lex.number_words(number), rng.choice((number, number, str(number)))
    if pick < 0.6:
        word = rng.choice(val.COLORS)
        return word, word
    if pick < 0.8:
        name = val.person(rng)
        return name, rng.choice((name, name.title()))
    said = f"{rng.choice(lex.ADJECTIVES)} {rng.choice(lex.NOUNS)}"
    return said, said


def _search(scene: Scene, name: str, known: Custom) -> list[Turn]:
    rng, kind = scene.rng, scene.rng.choice(PLACES)
    if scene.chance(0.5):
        query = rng.choice((f"{kind} in {rng.choice(lex.CITIES)}", f"{rng.choice(lex.ADJECTIVES)} {kind}"))
        user = scene.ask(
            "search for a {q}|find a {q}|look for a {q}|i am looking for a {q}|can you find a {q}", q=query
        )
        found = [
            f"{rng.choice(val.PLACE_FIRST)} {rng.choice(val.PLACE_SECOND)}" for _ in range(rng.randint(2, 3))
        ]
        results = (
            [{"name": each.title()} for each in found],
            {"results": found},
            [each.title() for each in found],
        )
        final = f"i found {listing(found)}. which one would you like?"
        tool = Tool(name, {known.parameter: query}, dump(scene, rng.choice(results)), final)
        turns = [scene.turn(user, "let me search for that.", "tool_search", {"query": query}, tool=tool)]
        if scene.chance(0.7):
            at = rng.randrange(len(found))
            user = scene.pick(
                "the {nth} one|the {nth}|i take the {nth} one|the {nth} one please", nth=val.ORDINALS[at]
            )
            slots = {"place": found[at]}
            turns.append(scene.turn(user, f"okay, {found[at]}.", "choose_found", slots, source="history"))
        return turns
    query = (
        " ".join(rng.sample(lex.NOUNS, 1))
        if scene.chance(0.5)
        else f"{rng.choice(lex.ADJECTIVES)} {rng.choice(lex.NOUNS)}"
    )
    user = scene.ask(
        "search for {q}|look up {q}|find out about {q}|search the web for {q}|what do you find about {q}",
        q=query,
    )
    text = grammar.clause(rng)
    results = ({"result": text}, {"answer": text}, {"text": text, "source": "web"}, [{"snippet": text}])
    tool = Tool(name, {known.parameter: query}, dump(scene, rng.choice(results)), f"{text}.")
    return [scene.turn(user, "let me search for that.", "tool_search", {"query": query}, tool=tool)]
