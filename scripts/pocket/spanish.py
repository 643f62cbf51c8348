"""How Spanish is pronounced: letters to the sounds of an American English synthesiser, nearest to them. Makes no audio.

English voices that read Spanish so have an American accent and the "s" of Latin America, but they are people's voices:
beside espeak-ng there is no other Spanish synthesiser whose output may be used freely.
"""

from __future__ import annotations

import re

_ACCENTED = str.maketrans("áéíóú", "aeiou")
_VOWELS = {"a": "aa", "e": "eh", "i": "iy", "o": "ao", "u": "uw", "y": "iy"}
_FALLING = {"ai": "ay", "ay": "ay", "au": "aw", "ei": "ey", "ey": "ey", "oi": "oy", "oy": "oy"}
# the first that fits is taken
_RULES = (
    ("cch", "k ch"), ("ch", "ch"), ("ll", "y"), ("rr", "r"), ("qu(?=[eiéí])", "k"), ("gu(?=[eiéí])", "g"),
    ("gü", "g w"), ("g(?=[eiéí])", "hh"), ("sc(?=[eiéí])", "s"), ("c(?=[eiéí])", "s"), ("ñ", "n y"),
    ("hu(?=[aeoáéó])", "w"), ("h", ""), ("j", "hh"), ("x", "k s"), ("z", "s"), ("v", "b"), ("w", "w"), ("c", "k"),
    ("y(?=[aeiouáéíóú])", "y"), ("(?<=[aeoáéó])d(?=[aeoáéó])", "dh"), ("[iy](?=[aeouáéóú])", "y"),
    ("u(?=[aeioáéíó])", "w"), ("ü", "w"), ("y", "iy"),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), sounds.split()) for pattern, sounds in _RULES)
LETTERS = {
    "b": "be", "c": "ce", "d": "de", "f": "efe", "g": "ge", "h": "hache", "j": "jota", "k": "ka", "l": "ele",
    "m": "eme", "n": "ene", "ñ": "eñe", "p": "pe", "q": "cu", "r": "erre", "s": "ese", "t": "te", "v": "uve",
    "w": "uve doble", "x": "equis", "z": "zeta",
}  # fmt: skip


def sounds(word: str) -> list[str]:
    """The sounds of a lower-case word, its stressed vowel marked with 1: "mañana" -> m aa n y aa1 n aa."""
    stressed = _stressed(word)
    made: list[str] = []
    at = 0
    while at < len(word):
        pair = word[at : at + 2].translate(_ACCENTED)
        after = word[at + 2 : at + 3]
        if pair in _FALLING and word[at + 1 : at + 2] not in "áéíóú" and after not in tuple("aeiouáéíóú"):
            made.append(_FALLING[pair] + "1" * (at in (stressed, stressed - 1)))
            at += 2
            continue
        for pattern, said in _COMPILED:
            found = pattern.match(word, at)
            if found and at != stressed:
                made += said
                at = found.end()
                break
        else:
            letter = word[at].translate(_ACCENTED)
            if letter in _VOWELS:
                made.append(_VOWELS[letter] + "1" * (at == stressed))
            elif letter.isalpha():
                made.append(letter)
            at += 1
    return made


def _stressed(word: str) -> int:
    """Place of the stressed vowel: the one with an accent, else the last or, behind a vowel, n or s, the one before."""
    for at, letter in enumerate(word):
        if letter in "áéíóú":
            return at
    # vowels that carry a syllable: weak ones beside another vowel do not
    nuclei = [
        at
        for at, letter in enumerate(word)
        if letter in "aeo"
        or (
            letter in "iu"
            and not _beside(word, at)
            and not (letter == "u" and word[max(0, at - 1) : at] == "q")
        )
    ]
    if not nuclei:
        return next((at for at, letter in enumerate(word) if letter in "iuy"), -1)
    if word[-1] in "aeiouns" and len(nuclei) > 1:
        return nuclei[-2]
    return nuclei[-1]


def _beside(word: str, at: int) -> bool:
    before, after = word[max(0, at - 1) : at], word[at + 1 : at + 2]
    return (before != "" and before in "aeo") or (after != "" and after in "aeoáéó")


def letter_names(word: str) -> str:
    """What a letter that is spelled is called; vowels are their own names."""
    return LETTERS.get(word, word)
