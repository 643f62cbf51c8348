"""How likely a text is to the model, token by token; it knows no tokenizer and no choice of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.prompt import Slot

AT_ONCE = 32  #: positions whose scores over the whole vocabulary are held at the same time


def log_probabilities(context: Context, before: Sequence[Slot], ids: Sequence[int]) -> list[float]:
    """The natural logarithm of each id's probability behind `before` and the ids in front of it.

    Args:
        context: if it holds these slots, little is computed; it holds them afterwards.
        before: the prompt; it is not empty.
        ids: what was written.

    Raises:
        VoiceAgentError: as `Context.scores`.
    """
    found: list[float] = []
    slots = (*before, *ids)
    for start in range(0, len(ids), AT_ONCE):
        part = torch.tensor(ids[start : start + AT_ONCE])
        scores = context.scores(slots[: len(before) + start + len(part) - 1], last=len(part)).float()
        chosen = scores.gather(1, part.to(scores.device)[:, None])[:, 0]
        found += (chosen - scores.logsumexp(dim=1)).tolist()
    return found
