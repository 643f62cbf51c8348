"""Generic English sentences from a small grammar: no meaning, wide sound. Knows nothing of the hotel."""

from __future__ import annotations

from random import Random

import lexicon as lex
import values as val
import vocabulary as voc

VOWELS = "aeiou"
ALL_WORDS = voc.vocabulary()
CONTINUOUS = ("i am", "we are", "she is", "he was", "they were")
CORE = 0.55  # of the words: from the lists of lexicon.py, which are the commoner ones


def _pick(rng: Random, core: list[str], all_words: list[str]) -> str:
    return rng.choice(core if rng.random() < CORE else all_words)


def noun(rng: Random) -> str:
    return _pick(rng, lex.NOUNS, voc.NOUNS)


def adjective(rng: Random) -> str:
    return _pick(rng, lex.ADJECTIVES, voc.ADJECTIVES)


def verb(rng: Random) -> str:
    return _pick(rng, lex.VERBS, voc.VERBS)


def past(rng: Random) -> str:
    return _pick(rng, lex.PAST, voc.PAST)


def adverb(rng: Random) -> str:
    return _pick(rng, lex.ADVERBS, voc.ADVERBS)


def noun_phrase(rng: Random) -> str:
    """A name, or determiner + optional adjective + noun."""
    if rng.random() < 0.08:
        return rng.choice(lex.NAMES)
    determiner, thing = rng.choice(lex.DETERMINERS), noun(rng)
    words = [adjective(rng), thing] if rng.random() < 0.45 else [thing]
    if rng.random() < 0.16:
        many = rng.choice((*lex.ONES[2:13], "some", "many", "the", "my", "these", "all"))
        return " ".join([many, *words[:-1], voc.plural(rng.choice(voc.COUNTED))])
    if determiner == "a" and words[0][0] in VOWELS:
        determiner = "an"
    return " ".join([determiner, *words])


def _of(rng: Random) -> str:
    return f"the {noun(rng)} of {noun_phrase(rng)}"


def clause(rng: Random) -> str:
    """One statement of 3 to 9 words."""
    pick, np = rng.random(), noun_phrase
    if pick < 0.25:
        return f"{np(rng)} {past(rng)} {np(rng)}"
    if pick < 0.45:
        return f"{rng.choice(lex.PRONOUNS)} {rng.choice(lex.AUXILIARIES)} {verb(rng)} {np(rng)}"
    if pick < 0.60:
        return f"{np(rng)} {rng.choice(lex.INTRANSITIVE)} {rng.choice(lex.PREPOSITIONS)} {np(rng)}"
    if pick < 0.72:
        return f"{_of(rng)} is {adjective(rng)} and {adjective(rng)}"
    if pick < 0.82:
        return f"{rng.choice(lex.PRONOUNS)} {past(rng)} {_of(rng)} {adverb(rng)}"
    if pick < 0.86:
        return f"{rng.choice(CONTINUOUS)} {voc.ing(rng.choice(voc.CONTINUED))} {np(rng)}"
    if pick < 0.90:
        return f"{rng.choice(lex.THIRD)} {adverb(rng)} {voc.third_person(rng.choice(voc.REPEATED))} {np(rng)}"
    return f"{rng.choice(lex.THIRD)} {past(rng)} {np(rng)} {rng.choice(lex.PREPOSITIONS)} {np(rng)}"


def question(rng: Random) -> str:
    """A question that no front desk can answer."""
    forms = (
        lambda: f"why did {noun_phrase(rng)} {verb(rng)} {noun_phrase(rng)}",
        lambda: f"who {past(rng)} {_of(rng)}",
        lambda: f"do you think that {clause(rng)}",
        lambda: f"what is {_of(rng)}",
        lambda: f"can you {verb(rng)} {noun_phrase(rng)} {rng.choice(lex.PREPOSITIONS)} {noun_phrase(rng)}",
        lambda: f"how do i {verb(rng)} {noun_phrase(rng)}",
        lambda: f"where is {_of(rng)}",
        lambda: f"tell me about {_of(rng)}",
        lambda: f"i want to {verb(rng)} {noun_phrase(rng)}",
    )
    return rng.choice(forms)()


def words(rng: Random, low: int, high: int) -> str:
    """A string of unrelated words: the hardest thing to hear and to say."""
    return " ".join(rng.choice(ALL_WORDS) for _ in range(rng.randint(low, high)))


def sentence(rng: Random) -> str:
    """A generic sentence of 2 to about 32 words, mostly short."""
    pick = rng.random()
    if pick < 0.32:
        return clause(rng)
    if pick < 0.43:
        return question(rng)
    if pick < 0.55:
        return f"{clause(rng)} {rng.choice(lex.CONJUNCTIONS)} {clause(rng)}"
    if pick < 0.63:
        return long_sentence(rng)
    if pick < 0.75:
        return words(rng, 2, 8)
    if pick < 0.82:
        return phrase(rng)
    return dictation(rng)


def long_sentence(rng: Random) -> str:
    """Three to five clauses: 8 to 12 s of speech."""
    connect = lex.CONJUNCTIONS
    said = clause(rng)
    for _ in range(rng.randint(2, 4)):
        said += f" {rng.choice(connect)} {clause(rng)}"
    return said


def dictation(rng: Random) -> str:
    """Numbers, letters, addresses and dates: what no context helps to hear."""
    pick = rng.random()
    if pick < 0.2:
        said = " ".join(val.digits(rng, rng.randint(2, 9)))
        return rng.choice((said, said, f"my number is {said}", f"{said} {noun(rng)}", f"the code is {said}"))
    if pick < 0.38:
        number = rng.randint(0, 9999) if rng.random() < 0.6 else rng.randint(0, 199)
        said = lex.number_words(number)
        if number > 100 and number % 100 and rng.random() < 0.3:
            said = said.replace("hundred ", "hundred and ", 1)
        return rng.choice(
            (
                said,
                f"{said} {voc.plural(rng.choice(voc.COUNTED))}",
                f"it costs {said} dollars",
                f"room {said}",
            )
        )
    if pick < 0.58:
        name = rng.choice((*lex.NAMES, *val.LAST_NAMES))
        letters = val.spelled(name)
        return rng.choice(
            (letters, f"{name} {letters}", f"my name is {name} {letters}", f"that is spelled {letters}")
        )
    if pick < 0.66:
        letters = " ".join(rng.choice(lex.LETTERS) for _ in range(rng.randint(3, 7)))
        mixed = " ".join(
            rng.choice((rng.choice("bcdfghjklmnpqrstvwxz"), rng.choice(lex.ONES[:10])))
            for _ in range(rng.randint(3, 7))
        )
        return rng.choice((letters, f"the code is {mixed}", f"the letters {letters}"))
    if pick < 0.78:
        said = val.email(rng).said
        return rng.choice((said, f"my email is {said}", f"write to {said}", f"send it to {said} please"))
    if pick < 0.86:
        return rng.choice(
            ("it is on {x}", "my birthday is {x}", "we meet on {x}", "{x}", "from {x} on")
        ).format(x=val.date(rng))
    if pick < 0.93:
        return rng.choice(("i live at {x}", "the address is {x}", "{x}", "{x} in {c}")).format(
            x=val.street(rng).said, c=rng.choice(lex.CITIES)
        )
    name = val.full_name(rng)
    return rng.choice(("my name is {x}", "this is {x}", "{x}", "i spoke to {x} at {t}")).format(
        x=name, t=val.clock(rng)
    )


def phrase(rng: Random) -> str:
    """Two to five words, for "repeat after me"."""
    forms = (
        lambda: noun_phrase(rng),
        lambda: f"{noun_phrase(rng)} {rng.choice(lex.INTRANSITIVE)}",
        lambda: f"{rng.choice(lex.PRONOUNS)} {past(rng)} {noun_phrase(rng)}",
        lambda: f"{verb(rng)} {noun_phrase(rng)}",
        lambda: f"{adjective(rng)} {noun(rng)} and {noun(rng)}",
        lambda: words(rng, 2, 4),
    )
    return rng.choice(forms)()


def out_of_domain(rng: Random) -> str:
    """Something that a person could say and the front desk does not handle."""
    pick = rng.random()
    if pick < 0.35:
        return question(rng)
    if pick < 0.60:
        return f"{clause(rng)} {rng.choice(lex.CONJUNCTIONS)} {clause(rng)}"
    if pick < 0.75:
        connect = lex.CONJUNCTIONS
        return f"{rng.choice(connect)} {clause(rng)} {rng.choice(connect)} {clause(rng)} {clause(rng)}"
    if pick < 0.95:
        return clause(rng)
    return words(rng, 4, 12)


def spoken_exercise(rng: Random, *, word: str) -> str:
    """A short sentence for the agent's voice that is sure to hold `word`, with its punctuation."""
    pick = rng.random()
    if pick < 0.30:
        return f"{clause(rng)}, {word}."
    if pick < 0.45:
        return f"{word} {noun_phrase(rng)}."
    if pick < 0.60:
        return f"{words(rng, 1, 3)} {word} {words(rng, 0, 2)}".strip() + "."
    if pick < 0.68:
        if len(word) <= 6 and word.isalpha():
            return f"{word} is spelled {', '.join(word)}."
        return f"the letters {', '.join(rng.choice(lex.LETTERS) for _ in range(rng.randint(2, 6)))}, {word}."
    if pick < 0.76:
        return f"{word}, {lex.number_words(rng.randint(0, 999))}."
    if pick < 0.82:
        return f"{question(rng)} {word}?"
    if pick < 0.90:
        digits = " ".join(val.digits(rng, rng.randint(3, 6)))
        return f"okay {rng.choice(lex.NAMES)}, {word} {digits}."
    if pick < 0.95:
        return f"{word}, {dictation(rng)}."
    return f"{phrase(rng)} {rng.choice(lex.PREPOSITIONS)} {word}."
