"""What the last words of a person tell about whether they go on; it knows no sound, no time and no model.

A handful of rules beside the model's own judgement, which knows sentences but not that a number goes on. Punctuation,
digits and single letters are told apart by what Unicode says of them; the words are a short English list, and what is
not in it changes nothing.
"""

from __future__ import annotations

import unicodedata
from enum import Enum

HANGING = frozenset(
    (
        "and",
        "or",
        "but",
        "because",
        "so",
        "um",
        "uh",
        "er",
        "erm",
        "hmm",
        "the",
        "a",
        "an",
        "to",
        "of",
        "for",
        "with",
        "from",
        "my",
        "your",
        "dot",
    )
)
"""Behind these an English sentence goes on, and so does somebody who hesitates."""
LEANING = frozenset(("is", "are", "was", "at", "in", "on", "by", "it's", "that"))
"""Behind these it often goes on; "where it is" ends here."""
DIGITS = frozenset(
    ("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double", "triple")
)
SIGNS = frozenset(("dash", "hyphen", "underscore", "slash", "plus", "hash", "star"))
STOPS = frozenset(
    ("stop", "wait", "no", "nope", "hold", "hey", "quiet", "enough", "cancel", "pause", "shush", "hush")
)
"""Who begins with one of these over somebody's voice wants them to stop."""
_STOPS_CHINESE = ("停", "等", "不", "别", "闭嘴", "安静")
RUN = 2  #: so many digits or letters in a row are a number or a word that is being spelled
_CHINESE = frozenset("零〇一二三四五六七八九幺两")


class Tail(Enum):
    """What the end of the words looks like."""

    PLAIN = "nothing to be said of it"
    SPELLED = "digits or letters in a row: a number, an address, a name"
    LEANING = "a word behind which it often goes on"
    HANGING = "a word or a mark behind which it goes on"


def tail(text: str) -> Tail:
    """What the end of a transcript looks like."""
    text = text.strip()
    if not text:
        return Tail.PLAIN
    if (
        unicodedata.category(text[-1]) in ("Pd", "Ps", "Pc")
        or text[-1] in ",、，:：…"
        or text.endswith("...")
    ):
        return Tail.HANGING
    words = _words(text)
    if not words:
        return Tail.PLAIN
    if words[-1] in HANGING:
        return Tail.HANGING
    if _spelled(words):
        return Tail.SPELLED
    return Tail.LEANING if words[-1] in LEANING else Tail.PLAIN


def asks_to_stop(text: str) -> bool:
    """Whether these words, said over somebody's voice, are meant to stop it, however few they are."""
    words = _words(text)
    return bool(words) and (words[0] in STOPS or words[0].startswith(_STOPS_CHINESE))


def _words(text: str) -> list[str]:
    """The words in small letters, without the marks around them; Chinese digits are words of their own."""
    apart = "".join(f" {char} " if char in _CHINESE else char for char in text.lower())
    stripped = (word.strip(".,;:!?\"'()。，！？") for word in apart.split())
    return [word for word in stripped if word]


def _spelled(words: list[str]) -> bool:
    """Whether the last words are digits or letters in a row, or the sign in the midst of an address."""
    if words[-1] in SIGNS or "@" in words[-1]:
        return True
    run = 0
    for word in reversed(words):
        if not _is_symbol(word):
            break
        run += len(word) if word.isdecimal() else 1
    return run >= RUN


def _is_symbol(word: str) -> bool:
    """A single letter, digits, or a digit in letters. "I" and "a" are words; scripts without letters spell nothing."""
    if word in DIGITS or word in _CHINESE or word.isdecimal():
        return True
    return len(word) == 1 and unicodedata.category(word) == "Ll" and word not in "ia"
