"""Generic English sentences from a small grammar: no meaning, wide sound. Knows nothing of the hotel."""

from __future__ import annotations

from random import Random

import lexicon as lex

VOWELS = "aeiou"
ALL_WORDS = lex.vocabulary()


def noun_phrase(rng: Random) -> str:
    """A name, or determiner + optional adjective + noun."""
    if rng.random() < 0.08:
        return rng.choice(lex.NAMES)
    determiner, noun = rng.choice(lex.DETERMINERS), rng.choice(lex.NOUNS)
    words = [rng.choice(lex.ADJECTIVES), noun] if rng.random() < 0.45 else [noun]
    if rng.random() < 0.08:
        return f"{rng.choice(lex.ONES[2:13])} {' '.join(words)}s"
    if determiner == "a" and words[0][0] in VOWELS:
        determiner = "an"
    return " ".join([determiner, *words])


def _of(rng: Random) -> str:
    return f"the {rng.choice(lex.NOUNS)} of {noun_phrase(rng)}"


def clause(rng: Random) -> str:
    """One statement of 3 to 9 words."""
    pick, np = rng.random(), noun_phrase
    if pick < 0.25:
        return f"{np(rng)} {rng.choice(lex.PAST)} {np(rng)}"
    if pick < 0.45:
        return f"{rng.choice(lex.PRONOUNS)} {rng.choice(lex.AUXILIARIES)} {rng.choice(lex.VERBS)} {np(rng)}"
    if pick < 0.60:
        return f"{np(rng)} {rng.choice(lex.INTRANSITIVE)} {rng.choice(lex.PREPOSITIONS)} {np(rng)}"
    if pick < 0.72:
        return f"{_of(rng)} is {rng.choice(lex.ADJECTIVES)} and {rng.choice(lex.ADJECTIVES)}"
    if pick < 0.84:
        return f"{rng.choice(lex.PRONOUNS)} {rng.choice(lex.PAST)} {_of(rng)} {rng.choice(lex.ADVERBS)}"
    return (
        f"{rng.choice(lex.THIRD)} {rng.choice(lex.PAST)} {np(rng)} {rng.choice(lex.PREPOSITIONS)} {np(rng)}"
    )


def question(rng: Random) -> str:
    """A question that no front desk can answer."""
    forms = (
        lambda: f"why did {noun_phrase(rng)} {rng.choice(lex.VERBS)} {noun_phrase(rng)}",
        lambda: f"who {rng.choice(lex.PAST)} {_of(rng)}",
        lambda: f"do you think that {clause(rng)}",
        lambda: f"what is {_of(rng)}",
        lambda: (
            f"can you {rng.choice(lex.VERBS)} {noun_phrase(rng)} {rng.choice(lex.PREPOSITIONS)} {noun_phrase(rng)}"
        ),
        lambda: f"how do i {rng.choice(lex.VERBS)} {noun_phrase(rng)}",
        lambda: f"where is {_of(rng)}",
        lambda: f"tell me about {_of(rng)}",
        lambda: f"i want to {rng.choice(lex.VERBS)} {noun_phrase(rng)}",
    )
    return rng.choice(forms)()


def words(rng: Random, low: int, high: int) -> str:
    """A string of unrelated words: the hardest thing to hear and to say."""
    return " ".join(rng.choice(ALL_WORDS) for _ in range(rng.randint(low, high)))


def sentence(rng: Random) -> str:
    """A generic sentence of 2 to about 25 words, mostly short."""
    pick = rng.random()
    if pick < 0.40:
        return clause(rng)
    if pick < 0.55:
        return question(rng)
    if pick < 0.70:
        return f"{clause(rng)} {rng.choice(lex.CONJUNCTIONS)} {clause(rng)}"
    if pick < 0.75:
        connect = lex.CONJUNCTIONS
        return f"{rng.choice(connect)} {clause(rng)} {rng.choice(connect)} {clause(rng)} {clause(rng)}"
    if pick < 0.85:
        return words(rng, 2, 7)
    if pick < 0.92:
        return phrase(rng)
    digits = " ".join(rng.choice(lex.ONES[:10]) for _ in range(rng.randint(2, 6)))
    return rng.choice([digits, f"{digits} {rng.choice(lex.NOUNS)}", lex.number_words(rng.randint(0, 1999))])


def phrase(rng: Random) -> str:
    """Two to five words, for "repeat after me"."""
    forms = (
        lambda: noun_phrase(rng),
        lambda: f"{noun_phrase(rng)} {rng.choice(lex.INTRANSITIVE)}",
        lambda: f"{rng.choice(lex.PRONOUNS)} {rng.choice(lex.PAST)} {noun_phrase(rng)}",
        lambda: f"{rng.choice(lex.VERBS)} {noun_phrase(rng)}",
        lambda: f"{rng.choice(lex.ADJECTIVES)} {rng.choice(lex.NOUNS)} and {rng.choice(lex.NOUNS)}",
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
        if len(word) <= 6:
            return f"{word} is spelled {', '.join(word)}."
        return f"the letters {', '.join(rng.choice(lex.LETTERS) for _ in range(rng.randint(2, 6)))}, {word}."
    if pick < 0.76:
        return f"{word}, {lex.number_words(rng.randint(0, 999))}."
    if pick < 0.82:
        return f"{question(rng)} {word}?"
    if pick < 0.90:
        digits = " ".join(rng.choice(lex.ONES[:10]) for _ in range(4))
        return f"okay {rng.choice(lex.NAMES)}, {word} {digits}."
    return f"{phrase(rng)} {rng.choice(lex.PREPOSITIONS)} {word}."
