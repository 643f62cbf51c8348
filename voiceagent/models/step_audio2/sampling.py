"""Chooses the next token id from the model's scores; it knows no text, no prompt and no cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voiceagent.errors import EngineError, InputError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose, with the meanings of Hugging Face's generation parameters.

    Attributes:
        temperature: 0 always takes the best token.
        top_p: keep the smallest set of best tokens whose probabilities reach this; 1 keeps all.
        top_k: keep this many best tokens; 0 keeps all.
        repetition_penalty: scores of ids that occurred in prompt or reply are divided by it if positive, else
            multiplied; 1 changes nothing.
        seed: makes the choices reproducible on one device; None draws a fresh one.

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


_COLD = 1e-5  # below this the draw is the best token, and float32 scores overflow


class Sampler:
    """The choices of one reply: the random generator and which ids have occurred.

    Args:
        sampling: how to choose.
        allowed: (vocabulary,) bool, the ids that may be chosen at all; shared, never written.
        prompt: ids of the prompt, for the repetition penalty.
    """

    def __init__(self, sampling: Sampling, allowed: Tensor, *, prompt: Sequence[int] = ()) -> None:
        self._sampling = sampling
        self._banned = ~allowed
        self._generator: torch.Generator | None = None
        self._seen: Tensor | None = None
        if sampling.temperature > _COLD:
            self._generator = torch.Generator(allowed.device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed % 2**63)
        if sampling.repetition_penalty != 1.0:
            self._seen = torch.zeros_like(allowed)
            self._seen[torch.tensor(list(prompt), dtype=torch.long, device=allowed.device)] = True

    def choose(self, logits: Tensor) -> int:
        """The next id.

        Args:
            logits: (vocabulary,) float32 scores; left unchanged.

        Raises:
            EngineError: no score is a number (the network's state is broken).
        """
        scores = logits
        if self._seen is not None:
            scores = penalised(scores, self._seen, self._sampling.repetition_penalty)
        scores = scores.masked_fill(self._banned, -math.inf)
        if self._generator is None:
            best, choice = scores.max(dim=-1)
            _check_finite(best)
            token = int(choice)
        else:
            top, ids = ranked(scores, self._sampling.top_k)
            _check_finite(top[0])
            weights = chances(top, self._sampling)
            token = int(ids[torch.multinomial(weights, 1, generator=self._generator)])
        self.saw(token)
        return token

    def saw(self, token: int) -> None:
        """Counts an id that was not chosen here (a forced one) as having occurred."""
        if self._seen is not None:
            self._seen[token] = True

    def fork(self) -> Sampler:
        """An independent sampler that would make the same choices from here."""
        twin = Sampler.__new__(Sampler)
        twin._sampling, twin._banned = self._sampling, self._banned
        twin._generator = None if self._generator is None else self._generator.clone_state()
        twin._seen = None if self._seen is None else self._seen.clone()
        return twin


def penalised(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Hugging Face's repetition penalty: where `seen`, positive scores / penalty and negative ones * penalty."""
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def ranked(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The `top_k` best scores (0: all), best first, and their ids."""
    if 0 < top_k < scores.shape[0]:
        top = scores.topk(top_k)
        return top.values, top.indices
    ordered = scores.sort(descending=True)
    return ordered.values, ordered.indices


def chances(top: Tensor, sampling: Sampling) -> Tensor:
    """Weights to draw from, not normalised: temperature, then 0 for whatever top-p leaves out.

    Args:
        top: (n,) scores, best first.
        sampling: its temperature and top_p.
    """
    weights = torch.softmax((top - top[0]) / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        better = weights.cumsum(-1) - weights
        weights = weights.masked_fill(better >= sampling.top_p, 0.0)
    return weights


def _check_finite(best: Tensor) -> None:
    if not math.isfinite(float(best)):
        raise EngineError(
            "The language model's scores are not numbers.",
            code="model_failed",
            remedy="Check the checkpoint, or use float32 or bfloat16 weights.",
        )


def _check(name: str, value: float, good: bool, rule: str) -> None:
    if not good:
        raise InputError(f"{name} is {value}, but must be {rule}.", param=name)


GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0)
