"""Which of three ways of prompting a checkpoint was made for, as its folder says; it knows no tensor.

The three published checkpoints have the same shapes and the same tensors. What tells them apart is how they were
trained to be asked, and so how a conversation is rendered and which token ends a reply.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.think import CLOSING


class Variant(Enum):
    """A way of prompting; the values are those of "variant" in config.json and in the configuration."""

    CHAT = "chat"  #: turns of roles, `<|BOT|>role\n...<|EOT|>`
    THINK = "think"  #: the same, and it can think before it answers
    BASE = (
        "base"  #: no turns: a text that goes on, with audio in it, ended by the tokenizer's own end of text
    )


PUBLISHED = {
    "stepfun-ai/Step-Audio-2-mini": Variant.CHAT,
    "stepfun-ai/Step-Audio-2-mini-Think": Variant.THINK,
    "stepfun-ai/Step-Audio-2-mini-Base": Variant.BASE,
}
"""The published repositories, for whoever downloads one by its name: Base's files do not tell it from the others."""


def find_variant(folder: Path | str) -> Variant:
    """What a checkpoint folder says of itself.

    In this order: "variant" in config.json; a chat template or a tokenizer that knows `</think>`; else `CHAT`.

    Raises:
        CheckpointError: config.json names a variant that does not exist.
    """
    folder = Path(folder)
    named = _read(folder / "config.json").get("variant")
    if named is not None:
        try:
            return Variant(named)
        except ValueError:
            raise CheckpointError(
                f"{folder / 'config.json'} names the variant {named!r}.",
                remedy=f"It may be {', '.join(variant.value for variant in Variant)}, or left out.",
            ) from None
    return Variant.THINK if _knows_thoughts(folder) else Variant.CHAT


def _knows_thoughts(folder: Path) -> bool:
    added = _read(folder / "tokenizer.json").get("added_tokens")
    if isinstance(added, list) and any(
        isinstance(token, dict) and token.get("content") == CLOSING for token in added
    ):
        return True
    if CLOSING in json.dumps(_read(folder / "tokenizer_config.json").get("chat_template", "")):
        return True
    try:
        return CLOSING in (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none. Whoever needs the file for more says what is wrong with it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
