"""What the kernels that draw share: a row's best score and options, keys, weights, and what they leave for each other.

A key is 32 bits in the order of the float32 scores; a weight counts steps of 1 / UNIT of the best id's.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
from __future__ import annotations

from voiceagent.models.step_audio2.kernels.gpu.language import constant, jit, tl
from voiceagent.models.step_audio2.kernels.sample import COLD, UNIT

COLD_SCORE = constant(COLD)
WEIGHT_UNIT = constant(UNIT)
SIZE = 24  #: int64 that the kernels leave for the next ones, per row
SLOTS = constant(SIZE)
# The shortlist: the lowest score on it as bits, how many ids are on it, how many have a score at all, all ids' weight;
# and whether it was enough to draw the row.
LOWEST, LISTED, SCORED, WHOLE, DONE = (constant(i) for i in range(5))
# The digits: top-k's edge, how many equal to it are kept and how many are not; the weight that top-p wants; the final
# edge. FOUND holds, for each of four passes, the digits found so far and how much lies above them.
TOP_KEY, TOP_COUNT, TOP_EXCESS, GOAL = (constant(i) for i in range(5, 9))
EDGE_KEY, EDGE_COUNT, EDGE_WEIGHT, FOUND = (constant(i) for i in range(9, 13))


@jit
def scores_of(scores, seen, owners, masks, allowed, penalty, row, at, vocabulary):
    """Scores after penalty and mask, -inf where there is none; and which are NaN or +inf (they come as -inf)."""
    inside = at < vocabulary
    value = tl.load(scores + row * vocabulary + at, inside, float("-inf")).to(tl.float32)
    occurred = tl.load(seen + tl.load(owners + row) * vocabulary + at, inside, 0) != 0
    fine = tl.load(masks + tl.load(allowed + row).to(tl.int64) * vocabulary + at, inside, 0) != 0
    factor = tl.load(penalty + row)
    value = tl.where(occurred, tl.where(value < 0.0, value * factor, tl.div_rn(value, factor)), value)
    value = tl.where(fine, value, float("-inf"))
    value = tl.where(value == 0.0, 0.0, value)  # -0 is 0
    broken = (value != value) | (value == float("inf"))
    return tl.where(broken, float("-inf"), value), broken


@jit
def best_of(peaks, row, blocks, WIDTH: tl.constexpr):
    """The row's best score (0 if broken) and whether it is fine."""
    at = tl.arange(0, WIDTH)
    best = tl.max(tl.load(peaks + row * blocks + at, at < blocks, float("-inf")), 0)
    fine = (best > float("-inf")) & (best < float("inf"))
    return tl.where(fine, best, 0.0), fine


@jit
def limits_of(temperature, top_p, top_k, row, vocabulary):
    """Heat, top-p and top-k of the row; 0 and 1 where they do nothing."""
    heat, p, k = tl.load(temperature + row), tl.load(top_p + row), tl.load(top_k + row)
    cold = heat < COLD_SCORE
    k = tl.where(cold, 1, tl.where((k <= 0) | (k >= vocabulary), 0, k))
    return tl.where(cold, 1.0, heat), tl.where(cold | (p >= 1.0), 1.0, p), k


@jit
def key_of(value):
    """uint32 of the same order as the float32."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@jit
def score_of(key):
    """The float32 of a key that came as int64."""
    bits = key.to(tl.uint32).to(tl.int32, bitcast=True)
    return (bits ^ ((~bits >> 31) | -2147483648)).to(tl.float32, bitcast=True)


@jit
def weight_of(value, best, heat):
    """int64 steps of 1 / UNIT of the best id's weight."""
    return (tl.exp(tl.div_rn(value - best, heat)) * WEIGHT_UNIT).to(tl.int64)
