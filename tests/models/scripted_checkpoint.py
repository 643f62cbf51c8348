"""A checkpoint whose weights are a script: what it writes next depends on the last token alone.

Attention and feed-forward add nothing, each token of the script has a dimension of its own, and the output matrix
leads from it to the token after it. So a whole reply can be foretold, whatever runs the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_checkpoint import tiny_config, tiny_weights, write_config


def write_scripted(folder: Path, *chains: Sequence[int], variant: str = "chat", positions: int = 512) -> Path:
    """A folder of which each token in a chain is followed by the next one; a token may have one successor only."""
    after: dict[int, int] = {}
    for chain in chains:
        for token, following in pairwise(chain):
            assert after.setdefault(token, following) == following, f"{token} has two successors"
    config = tiny_config(positions=positions)
    assert len(after) <= config.text.hidden_size
    weights = {
        name: torch.zeros_like(part) if name.endswith(("o_proj.weight", "down_proj.weight")) else part
        for name, part in tiny_weights().items()
    }
    embed = torch.zeros_like(weights["model.embed_tokens.weight"])
    head = torch.zeros_like(weights["lm_head.weight"])
    for place, (token, following) in enumerate(after.items()):
        embed[token, place] = 1.0
        head[following, place] = 10.0
    write_config(folder, config)
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | {"variant": variant}), encoding="utf-8")
    save_file(
        weights | {"model.embed_tokens.weight": embed, "lm_head.weight": head}, folder / "model.safetensors"
    )
    return folder
