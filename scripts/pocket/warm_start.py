"""First weights of the language model out of an earlier checkpoint, whose text tokens may be others. Trains nothing.

Token embeddings and the output matrix are carried over row by row, by what a token stands for: special tokens and
audio codes by their names, so the codes of a speech tokenizer that was trained on from the old one keep their rows; a
text token that the old tokenizer did not have gets the mean of the rows that its text had there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from voiceagent.models.step_audio2.checkpoint import load_step_audio2
from voiceagent.models.step_audio2.tokenizer import TextTokenizer

ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def weights_of(source: Path) -> dict[str, Tensor]:
    """The model's weights of a checkpoint folder, or of a .pt file of train_lm.py, as float32."""
    if source.is_dir():
        return dict(load_step_audio2(source).state_dict())
    state = torch.load(source, map_location="cpu", weights_only=True)
    return {name: value.float() for name, value in state.get("model", state).items()}


def first_weights(source: Path, assets: Path, *, rows: int) -> dict[str, Tensor]:
    """Weights of `source` for the tokenizer in `assets` and a vocabulary of `rows`.

    A .pt file is a state of training with that very tokenizer; a folder has a tokenizer of its own.
    """
    weights = weights_of(source)
    if not source.is_dir():
        return weights
    old, new = TextTokenizer.from_folder(source), TextTokenizer.from_folder(assets)
    return weights | {name: carried(weights[name], old, new, rows=rows) for name in ROWS}


def carried(matrix: Tensor, old: TextTokenizer, new: TextTokenizer, *, rows: int) -> Tensor:
    """(rows, D): the rows of `matrix` in the order of the new tokens; the mean row where nothing is known."""
    known = {old.token_bytes(token): token for token in reversed(range(old.size))}
    out = matrix[: old.size].mean(0).repeat(rows, 1)
    for token in range(new.size):
        raw = new.token_bytes(token)
        parts = [known[raw]] if raw in known else old.encode(_text(raw))
        if parts:
            out[token] = matrix[parts].mean(0)
    return out


def _text(raw: bytes) -> str:
    """The text of a token; empty for a part of a letter."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
