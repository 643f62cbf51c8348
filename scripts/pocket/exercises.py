"""What a caller asks to see what the agent can do: repeat, spell, count, reckon, remember a list."""

from __future__ import annotations

import grammar
import lexicon as lex
import values as val
from scene import Scene, listing
from task import Turn


def phrase(scene: Scene) -> str:
    """Two to about ten words, numbers, names and addresses among them."""
    rng, pick = scene.rng, scene.rng.random()
    if pick < 0.5:
        return grammar.phrase(rng)
    if pick < 0.68:
        return grammar.words(rng, 2, 7)
    if pick < 0.76:
        return " ".join(val.digits(rng, rng.randint(3, 7)))
    if pick < 0.83:
        return f"{val.full_name(rng)} {rng.choice(('', lex.number_words(rng.randint(10, 999))))}".strip()
    if pick < 0.88:
        return lex.number_words(rng.randint(100, 9999))
    if pick < 0.92:
        return val.email(rng).said
    if pick < 0.96:
        return f"{val.street(rng).said} in {rng.choice(lex.CITIES)}"
    return grammar.clause(rng)


def repeat(scene: Scene) -> list[Turn]:
    said = phrase(scene)
    user = scene.pick(
        "repeat after me {phrase}|say {phrase}|please say {phrase}|repeat {phrase}|please repeat after me {phrase}|"
        "can you say {phrase}|now say {phrase}|i want you to say {phrase}",
        phrase=said,
    )
    turns = [scene.turn(user, f"{said}.", "repeat", {"phrase": said})]
    if scene.chance(0.15):
        user = scene.pick(
            "say that again|again please|one more time|repeat that|once more please|what did you say"
        )
        turns.append(scene.turn(user, f"{said}.", "repeat_again", {"phrase": said}, source="history"))
    return turns


def spell(scene: Scene) -> list[Turn]:
    words = lex.SPELLABLE if scene.chance(0.6) else [n for n in (*lex.NAMES, *val.LAST_NAMES) if len(n) <= 6]
    word = scene.rng.choice(words)
    if scene.chance(0.35):
        user = scene.pick(
            "{letters} what word is that|what does {letters} spell|read these letters {letters}|"
            "which word is {letters}",
            letters=val.spelled(word),
        )
        return [scene.turn(user, f"that is {word}.", "unspell", {"word": word})]
    user = scene.ask(
        "spell {word}|how do you spell {word}|spell the word {word}|can you spell {word}|how is {word} spelled|"
        "tell me the letters of {word}",
        word=word,
    )
    return [scene.turn(user, f"{word} is spelled {', '.join(word)}.", "spell", {"word": word})]


def count(scene: Scene) -> list[Turn]:
    first = scene.rng.randint(0, 15)
    last = first + scene.rng.randint(2, 5)
    if scene.chance(0.2):
        first, last = last, first
    low, high = lex.number_words(first), lex.number_words(last)
    user = scene.ask(
        "count from {low} to {high}|can you count from {low} to {high}|please count from {low} up to {high}|"
        "say the numbers from {low} to {high}",
        low=low,
        high=high,
    )
    step = 1 if last > first else -1
    reply = ", ".join(lex.number_words(value) for value in range(first, last + step, step)) + "."
    return [scene.turn(user, reply, "count", {"from": low, "to": high})]


def add(scene: Scene) -> list[Turn]:
    rng = scene.rng
    operation = rng.choice(("plus", "plus", "minus", "times"))
    most = 20 if operation != "times" else 10
    first, second = rng.randint(0, most), rng.randint(0, most)
    if operation == "minus" and first < second:
        first, second = second, first
    value = {"plus": first + second, "minus": first - second, "times": first * second}[operation]
    left, right = lex.number_words(first), lex.number_words(second)
    user = scene.ask(
        "what is {a} {op} {b}|how much is {a} {op} {b}|calculate {a} {op} {b}|tell me what {a} {op} {b} is|"
        "{a} {op} {b}",
        a=left,
        b=right,
        op=operation,
    )
    reply = f"{left} {operation} {right} is {lex.number_words(value)}."
    return [scene.turn(user, reply, "sum", {"a": left, "operation": operation, "b": right})]


THINGS = (
    "bread milk eggs butter cheese rice pasta apples bananas oranges lemons onions carrots tomatoes potatoes "
    "coffee tea sugar salt honey soap paper candles flowers shoes socks gloves books pens batteries soup juice "
    "water"
)


def shopping(scene: Scene) -> list[Turn]:
    """A list that the caller gives, then "what was the second one"."""
    things = scene.rng.sample(lex.split(THINGS), scene.rng.randint(2, 4))
    said = " ".join([*things[:-1], "and", things[-1]])
    user = scene.ask(
        "remember {x}|please remember {x}|remind me to buy {x}|i need {x}|put {x} on my list|my list is {x}|"
        "write down {x}",
        x=said,
    )
    turns = [scene.turn(user, f"okay, {listing(things)}.", "list", {"things": said})]
    if scene.chance(0.75):
        at = scene.rng.randrange(len(things))
        nth = "last" if at == len(things) - 1 and scene.chance(0.5) else val.ORDINALS[at]
        pick = scene.rng.random()
        if pick < 0.5:
            user = scene.pick(
                "what was the {nth} one|tell me the {nth} one|which one was the {nth}|the {nth} thing please|"
                "what is the {nth} thing",
                nth=nth,
            )
            reply = f"the {nth} one was {things[at]}."
            turns.append(scene.turn(user, reply, "list_nth", {"thing": things[at]}, source="history"))
        elif pick < 0.75:
            user = scene.pick(
                "what is on my list|read me the list|what did i say|what was on the list|repeat the list"
            )
            turns.append(scene.turn(user, f"{listing(things)}.", "list_all", source="history"))
        else:
            user = scene.pick(
                "how many things is that|how many are there|count them please|how many did i say"
            )
            reply = f"that is {lex.plural(len(things), 'thing')}."
            turns.append(scene.turn(user, reply, "list_count", source="history"))
    return turns
