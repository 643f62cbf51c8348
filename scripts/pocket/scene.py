"""What every generator of dialogues shares: the random source, what is true in this call, and what is held out.

Phrasings are written "one form|another form" with {slots}. Some forms of a list of at least three are held out from
training: a hash of their text decides. It knows no domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from task import Sound, Tool, Turn

TEST_SHARE = 12  # one of so many sentences is never in training
TEMPLATE_SHARE = 7  # one of so many templates is never in training
VALUE_SHARE = 7  # one of so many values of facts is never in training
STYLED, WITH_BACKGROUND = 0.12, 0.08  # of what callers say: not plain, though nothing hangs on it

LEADS = (
    "please", "hey", "hello", "hi", "excuse me", "okay", "um", "uh", "so", "well", "good morning", "sorry", "yes",
    "hello there", "um hello", "okay so", "oh", "hi there um", "actually", "good afternoon", "and", "right",
    "one more thing",
)  # fmt: skip
TAILS = ("please", "thank you", "thanks", "if you can", "um please", "if possible", "when you can")


def hashed(text: str) -> int:
    """A number that every script computes alike."""
    return int(hashlib.md5(text.encode()).hexdigest()[:8], 16)


def held_out(sentence: str) -> bool:
    """True for the sentences that training must not hear."""
    return hashed(sentence) % TEST_SHARE == 0


def value_held_out(value: str) -> bool:
    """True for the values of facts that training must not read in a prompt."""
    return hashed(f"value/{value}") % VALUE_SHARE == 0


def template_held_out(template: str) -> bool:
    """True for the wordings that training must not use, where a list has others."""
    return hashed(f"template/{template}") % TEMPLATE_SHARE == 0


REGISTRY: dict[str, tuple[list[str], list[str]]] = {}
"""Every list of phrasings that was ever used here, with its forms for training and those held out."""


def split_forms(phrasings: str) -> tuple[list[str], list[str]]:
    """The forms for training and those held out; a list's first two are always for training."""
    known = REGISTRY.get(phrasings)
    if known is None:
        forms = phrasings.split("|")
        out = [
            form
            for at, form in enumerate(forms)
            if at >= 2 and form.strip() != "" and template_held_out(form)
        ]
        known = REGISTRY[phrasings] = ([form for form in forms if form not in out], out)
    return known


@dataclass(slots=True)
class Notes:
    """What became of a scene: whether a held-out form or value was used."""

    held_form: bool = False
    held_value: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """One call in the making.

    Attributes:
        rng: the random source.
        house: what is true here (houses.House).
        tools: what is known of the tools offered, by name (toolbox.py).
        split: "train": no held-out form or value; "template": held-out forms as often as there are some; "value":
            held-out values.
        notes: what was used.
    """

    rng: Random
    house: Any = None
    tools: Mapping[str, Any] = field(default_factory=dict)
    split: str = "train"
    notes: Notes = field(default_factory=Notes)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def form(self, phrasings: str) -> str:
        """One of the forms, its slots not yet filled."""
        kept, out = split_forms(phrasings)
        if out and self.split == "template" and self.chance(0.7):
            self.notes.held_form = True
            return self.rng.choice(out)
        return self.rng.choice(kept)

    def pick(self, phrasings: str, **slots: str) -> str:
        """One of the phrasings (parted by "|") at random with the slots filled in."""
        return self.form(phrasings).format(**slots)

    def ask(self, phrasings: str, **slots: str) -> str:
        """Like `pick`, with the hesitations and courtesies of a real caller around it."""
        said = self.pick(phrasings, **slots)
        lead = self.rng.choice(LEADS) + " " if self.chance(0.4) else ""
        tail = " " + self.rng.choice(TAILS) if self.chance(0.13) else ""
        return lead + said + ("" if said.endswith(TAILS) else tail)

    def sound(self, text: str, **more: Any) -> Sound:
        """A caller who says this, sometimes in another style or beside something that can be heard."""
        style = "plain"
        if self.chance(STYLED):
            style = self.rng.choice(("fast", "slow", "high", "low", "excited", "sad", "whisper"))
        background = ""
        if self.chance(WITH_BACKGROUND):
            background = self.rng.choice(("bell", "siren", "rain", "bark", "music"))
        return Sound(**({"text": text, "style": style, "background": background} | more))

    def turn(
        self,
        user: str,
        reply: str,
        intent: str,
        slots: dict[str, str] | None = None,
        *,
        tool: Tool | None = None,
        source: str = "",
    ) -> Turn:
        """A caller's question and the agent's answer."""
        return Turn(self.sound(user), reply, intent, slots or {}, tool, source)


@lru_cache(maxsize=65536)
def article(words: str) -> str:
    """ "a lamp", "an apple"."""
    exceptions = words.startswith(("hour", "honest", "heir"))
    consonant = words.startswith(("uni", "use", "euro", "one", "u s"))
    vowel = (words[0] in "aeiou" or exceptions) and not consonant
    return f"an {words}" if vowel else f"a {words}"


def listing(words: list[str], last: str = "and") -> str:
    """ "bread, milk, and eggs"."""
    if len(words) < 3:
        return f" {last} ".join(words)
    return f"{', '.join(words[:-1])}, {last} {words[-1]}"
