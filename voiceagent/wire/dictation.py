"""What clients say of the speech that they want written down, and how sure its words are, as the protocols show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voiceagent.core.dictation import PROMPT_CHARS, Dictation, TokenScore, language_code
from voiceagent.wire.dialect import WireError


def dictation(language: str | None, prompt: str | None, *, scores: bool, param: str = "") -> Dictation:
    """How speech is to be written down.

    Args:
        language: code or English name of the language that is spoken; nothing = the model finds it.
        prompt: words that may occur, or what was said just before; of a long one the end counts.
        scores: the client asks for log-probabilities.
        param: where these fields stand in the message.

    Raises:
        WireError: a language that is not known; `param` names it.
    """
    code = language_code(language) if language and language.strip() else ""
    if code is None:
        raise WireError(
            f"{language!r} is not a language that is known here.",
            code="invalid_value",
            param=f"{param}language",
            remedy='Give the code of ISO 639, such as "en", or nothing.',
        )
    return Dictation(code, (prompt or "").strip()[-PROMPT_CHARS:], scores=scores)


def show_scores(scores: Iterable[TokenScore]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities; a token may be a part of a character, which only `bytes` tells."""
    return [
        {
            "token": bytes(each.text).decode("utf-8", "replace"),
            "logprob": round(each.logprob, 6),
            "bytes": list(each.text),
        }
        for each in scores
    ]
