"""How what a person says is written down: what the client knows of it beforehand, and how sure each token is.

It knows the names of languages, and of no model how it is told them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PROMPT_CHARS = 1000  #: of a prompt, the last ones count: what was said just before, or a list of words
LANGUAGES = {
    "af": "Afrikaans",
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}
"""ISO 639 codes as clients write them, and the English names."""
_CODES = {name.lower(): code for code, name in LANGUAGES.items()}
_WHOLE = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "fil": "tl", "cmn": "zh"}  # other codes of the same


@dataclass(frozen=True, slots=True)
class Dictation:
    """How speech is to be written down.

    Attributes:
        language: code of the language that is spoken (a key of `LANGUAGES`); empty = the model finds it.
        prompt: words that may occur, or what was said just before; empty = nothing is known.
        scores: tell how sure each token is.
    """

    language: str = ""
    prompt: str = ""
    scores: bool = False


PLAIN = Dictation()
"""Nothing is known beforehand, and nothing is told but the words."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token that was written, and how likely it was.

    Attributes:
        text: its UTF-8 bytes, maybe a part of a character.
        logprob: natural logarithm of its probability, in the distribution over all tokens that nothing has changed.
        best: the likeliest tokens in its place, and theirs; as many as were asked for.
    """

    text: tuple[int, ...]
    logprob: float
    best: tuple[tuple[tuple[int, ...], float], ...] = ()


def language_code(said: str) -> str | None:
    """The code of a language that is named as "en", "en-US" or "English"; None if it is not known."""
    name = said.strip().lower()
    code = re.split(r"[-_]", name, maxsplit=1)[0]
    code = _WHOLE.get(code, code)
    return code if code in LANGUAGES else _CODES.get(name)
