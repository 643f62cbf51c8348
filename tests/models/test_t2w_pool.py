"""The memory of speech streams: sizes at the true shape, places that come back, prompts side by side, rings."""

from __future__ import annotations

import gc

import pytest
import torch
from real_tensors import FLOW_YAML
from test_flow import TINY_YAML

from voiceagent.errors import CapacityError
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.t2w_pool import RECENT_TOKENS, FlowPool, Place, Places

TINY = FlowConfig.from_text(TINY_YAML, source="flow.yaml")


def pool(*, slots: int = 3, prompt_tokens: int = 50) -> FlowPool:
    return FlowPool(
        TINY, steps=2, slots=slots, prompt_tokens=prompt_tokens, device="cpu", dtype=torch.float32
    )


def test_a_stream_of_the_real_shape_takes_less_than_80_mb() -> None:
    config = FlowConfig.from_text(FLOW_YAML, source="flow.yaml")
    assert 70e6 < FlowPool.slot_bytes(config, steps=10, dtype=torch.bfloat16) < 80e6
    with torch.device("meta"):
        one, two = (
            FlowPool(config, steps=10, slots=slots, prompt_tokens=10, device="meta", dtype=torch.float16)
            for slots in (1, 2)
        )

    def size(it: FlowPool) -> int:
        parts = (it.kv, it.tails, it.low, it.up, it.lookahead, it.upsample, it.speakers)
        return sum(part.nbytes for part in parts)

    assert size(two) - size(one) == FlowPool.slot_bytes(config, steps=10, dtype=torch.float16)
    more = FlowPool(config, steps=10, slots=1, prompt_tokens=11, device="meta", dtype=torch.float16)
    assert size(more) - size(one) == FlowPool.token_bytes(config, steps=10, dtype=torch.float16)


def test_slots_come_back_when_closed_or_forgotten() -> None:
    it = pool()
    leases = [it.take() for _ in range(3)]
    assert sorted(lease.start for lease in leases) == [0, 1, 2]
    with pytest.raises(CapacityError, match="all 3 speech streams"):
        it.take()
    leases[0].close()
    leases[0].close()
    assert leases[0].closed
    assert it.free == 1
    del leases[1]
    gc.collect()
    assert it.free == 2


def test_prompts_lie_side_by_side_and_gaps_are_used_again() -> None:
    it = pool()
    first, second, third = (it.take_prompt(count) for count in (10, 20, 15))
    assert (first.start, second.start, third.start) == (0, 10, 30)
    assert it.longest_prompt == 20
    with pytest.raises(CapacityError, match="6 tokens"):
        it.take_prompt(6)
    second.close()
    assert it.take_prompt(12).start == 10
    assert it.take_prompt(5).start == 10  # the one before was forgotten at once


def test_a_history_is_the_prompt_and_the_newest_tokens_with_the_newest_last() -> None:
    it = pool()
    made = RECENT_TOKENS + 7
    places = Places(
        torch.tensor(
            [
                Place(slot, made_, new, new, 4, 2).row(it)
                for slot, made_, new in ((1, made, 3), (0, 2, 5), (2, 0, 1))
            ]
        ),
        it.stride,
    )
    prompt = [it.token_prompts + 2 + i for i in range(4)]
    long, short, fresh = places.history(RECENT_TOKENS + 6).tolist()
    ring = 1 + RECENT_TOKENS
    assert long == [0, 0, *prompt, *(ring + t % RECENT_TOKENS for t in range(7, made))]
    assert short[-6:] == [*prompt, 1, 2]
    assert set(short[:-6]) == {0}
    assert fresh[-4:] == prompt
    assert set(fresh[:-4]) == {0}


def test_only_the_new_and_only_as_much_as_fits_is_written() -> None:
    it = pool()
    rows = (Place(0, RECENT_TOKENS - 1, 2, 5, 4, 0), Place(1, 3, RECENT_TOKENS + 2, RECENT_TOKENS + 2, 4, 0))
    targets = Places(torch.tensor([place.row(it) for place in rows]), it.stride).token_targets(
        RECENT_TOKENS + 2
    )
    assert targets[0, :3].tolist() == [RECENT_TOKENS, 1, -1]
    assert targets[1, :3].tolist() == [-1, -1, 1 + RECENT_TOKENS + 5]
    assert len(set(targets[1, 2:].tolist())) == RECENT_TOKENS
