"""What a turn may ask of the choice of tokens, and its random numbers; `kernels.sample` makes the choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from voiceagent.errors import InputError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose, with the meanings of Hugging Face's generation parameters.

    Attributes:
        temperature: 0 always takes the best token.
        top_p: keep the smallest set of best tokens whose probabilities reach this; 1 keeps all.
        top_k: keep this many best tokens; 0 keeps all.
        repetition_penalty: scores of ids that occurred in prompt or reply are divided by it if positive, else
            multiplied; 1 changes nothing.
        seed: makes the choices reproducible, whatever else is in the batch; None draws afresh.

    Raises:
        InputError: a value out of range, named in `param`.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.05
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0 <= self.temperature < math.inf, "0 or more")
        _check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "above 0 and at most 1")
        _check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        penalty = self.repetition_penalty
        _check("repetition_penalty", penalty, 0.0 < penalty < math.inf, "above 0")


class Draws:
    """The uniform random numbers of one reply: its own, so that no other reply of the batch changes them."""

    def __init__(self, seed: int | None) -> None:
        self._random = Random(seed)

    def next(self) -> float:
        """One of the 2 ** 24 evenly spaced numbers in [0, 1) that float32 holds exactly."""
        return self._random.getrandbits(24) / 2**24

    def fork(self) -> Draws:
        """An independent copy that would draw the same from here."""
        twin = Draws(0)
        twin._random.setstate(self._random.getstate())
        return twin


def _check(name: str, value: float, good: bool, rule: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}, but must be {rule}.", param=name)


GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)
