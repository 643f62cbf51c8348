"""Draws one id per row from scores, exactly; it knows no token, no request and no random generator.

One definition for every device. Per row, over the allowed ids:

1. Repetition penalty: where `seen`, scores below 0 are multiplied by it, others divided.
2. Ids are ranked by score, then by id (the smaller one is better).
3. Top-k keeps the k best. A temperature below `COLD` means top-k 1.
4. An id's weight is exp((score - best) / temperature) in steps of 2 ** -40: whole numbers, summed in any order.
5. Top-p keeps an id if the weights of the better kept ids together stay below top_p of all kept weights.
6. The drawn id is the first, counted by id, at which the running sum of kept weights exceeds uniform * their sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

COLD = 1e-5  #: below this the best id is taken, and scaled float32 scores would overflow
UNIT = 2.0**40  #: the best id's weight
_SHORT = 512  # ids whose order is looked at before all are


def choose(
    scores: Tensor,
    *,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    penalty: Tensor,
    seen: Tensor,
    owners: Tensor | None = None,
    masks: Tensor,
    allowed: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """The next id of each row.

    Args:
        scores: (B, V) any float dtype; unchanged.
        temperature: (B,) float32.
        top_p: (B,) float32 in (0, 1]; 1 keeps all.
        top_k: (B,) int32; 0 keeps all.
        penalty: (B,) float32 repetition penalty; 1 changes nothing.
        seen: (R, V) bool, sets of ids that the penalty is for.
        owners: (B,) int64, which row of `seen` is each row's; None: the first is the first's, and so on.
        masks: (n, V) bool, sets of ids that may be chosen.
        allowed: (B,) int32, which of the masks holds for a row.
        uniform: (B,) float32 in [0, 1), the only randomness.

    Returns:
        ids (B,) int64 and ok (B,) bool. A row is not ok, and its id 0, if an allowed score is NaN or +inf, or none
        is finite. On CUDA nothing is read on the host, so that the call can be captured.
    """
    if scores.is_cuda:
        from voiceagent.models.step_audio2.kernels.gpu import sample as gpu

        chosen = gpu.choose
    else:
        chosen = choose_torch
    return chosen(
        scores,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        penalty=penalty,
        seen=seen,
        owners=owners,
        masks=masks,
        allowed=allowed,
        uniform=uniform,
    )


def choose_torch(
    scores: Tensor,
    *,
    temperature: Tensor,
    top_p: Tensor,
    top_k: Tensor,
    penalty: Tensor,
    seen: Tensor,
    owners: Tensor | None = None,
    masks: Tensor,
    allowed: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """`choose` in plain torch. It only ever sorts values: which ids they belong to follows from ranks among equals."""
    scores = scores.float()
    seen = seen if owners is None else seen[owners]
    if bool((penalty != 1.0).any()):
        factor = penalty[:, None]
        # One of the two parts is 0; on a CPU this is much quicker than a second `where`.
        scores = torch.where(seen, scores.clamp(max=0.0) * factor + scores.clamp(min=0.0) / factor, scores)
    scores = scores.masked_fill(~masks[allowed.long()], -torch.inf)
    best, ids = scores.max(dim=1)  # the first of equals; NaN wins over everything
    ok = best.isfinite()
    cold = temperature < COLD
    if not bool((ok & ~cold).any()):
        return torch.where(ok, ids, 0), ok
    if not bool(ok.all()):
        scores = scores.masked_fill(~ok[:, None], 0.0)
    best = torch.where(ok, best, 0.0)
    heat = torch.where(cold, 1.0, temperature)
    kept = _best_k(scores, top_k)
    places = None
    counts = kept.sum(1).tolist()
    if max(counts) == min(counts) < scores.shape[1]:  # the usual case: go on with the few that are left
        places = kept.nonzero()[:, 1].view(scores.shape[0], -1)
        scores, kept = scores.gather(1, places), kept.gather(1, places)
    weights = _weights(scores, best, heat).masked_fill_(~kept, 0)
    if bool((top_p < 1.0).any()):
        scores = scores.masked_fill(~kept, -torch.inf)
        weights.masked_fill_(~_best_p(scores, weights, best=best, heat=heat, top_p=top_p), 0)
    running = weights.cumsum(1)
    total = running[:, -1]
    target = torch.minimum((uniform.double() * total.double()).long(), total - 1)
    drawn = torch.searchsorted(running, target[:, None], right=True)
    if places is not None:
        drawn = places.gather(1, drawn)
    return torch.where(ok, torch.where(cold, ids, drawn[:, 0]), 0), ok


def _weights(scores: Tensor, best: Tensor, heat: Tensor) -> Tensor:
    """(B, n) int64 multiples of 1 / UNIT."""
    relative = torch.exp((scores - best[:, None]) / heat[:, None])
    return (relative * UNIT).long()


def _best_k(scores: Tensor, top_k: Tensor) -> Tensor:
    """(B, V) bool: the `top_k` best of each row."""
    vocabulary = scores.shape[1]
    count = torch.where((top_k <= 0) | (top_k > vocabulary), vocabulary, top_k).long()
    if bool((count == vocabulary).all()):
        return torch.ones_like(scores, dtype=torch.bool)
    some = count[count < vocabulary]
    ordered = scores.topk(int(some.max()), dim=1).values
    edge = ordered.gather(1, (count - 1).clamp(max=ordered.shape[1] - 1)[:, None])
    kept = _down_to(scores, edge, among=count - (scores > edge).sum(1))
    return kept | (count == vocabulary)[:, None]


def _best_p(scores: Tensor, weights: Tensor, *, best: Tensor, heat: Tensor, top_p: Tensor) -> Tensor:
    """(B, n) bool: what top-p keeps of the scores that top-k left, the others being -inf and of weight 0."""
    # Whole numbers reach a fraction of the sum where they reach the next whole number.
    target = (top_p.double() * weights.sum(1).double()).ceil().long().clamp(min=1)
    target = torch.where(top_p >= 1.0, 0, target)  # such a row is not cut, and must not widen the look
    look = min(_SHORT, scores.shape[1])
    while True:
        ordered = scores.topk(look, dim=1).values
        running = _weights(ordered, best, heat).cumsum(1)
        if look == scores.shape[1] or bool((running[:, -1] >= target).all()):
            break
        look = scores.shape[1]
    count = (torch.searchsorted(running, target[:, None], right=False)[:, 0] + 1).clamp(max=look)
    edge = ordered.gather(1, count[:, None] - 1)
    within = _down_to(scores, edge, among=count - (ordered > edge).sum(1))
    return within | (top_p >= 1.0)[:, None]


def _down_to(scores: Tensor, edge: Tensor, *, among: Tensor) -> Tensor:
    """(B, V) bool: scores above the (B, 1) edge, and the first `among` by id of those equal to it."""
    equal = scores == edge
    if bool((equal.sum(1) == among).all()):
        return scores >= edge
    return (scores > edge) | (equal & (equal.cumsum(1) <= among[:, None]))
