"""Writes tests/golden/prompts.npz: the ids that the reference makes of what stands in tests/models/prompt_cases.py.

    python scripts/golden/prompts.py

Runs `StepAudio2` and `StepAudio2Base` of the `step-audio2` 1.0.0 wheel as they are called, template, log-mel, token
counts and tokenizer calls included, around a language model that only takes down what it is given. Needs transformers
and what the wheel imports (torchaudio, librosa).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import stepaudio2
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path.insert(0, str(TESTS / "models"))
from prompt_cases import CASES, Case, real_tokenizer_spec  # noqa: E402


class Scribe:
    """In the place of the language model: remembers the prompt and answers with an end."""

    def generate(self, input_ids: Tensor, **arguments: Any) -> Tensor:
        self.prompt = input_ids[0]
        return torch.cat([input_ids, torch.tensor([[65, 151665]])], dim=1)


def tokenizer() -> PreTrainedTokenizerFast:
    """The stand-in as transformers has it. Its special tokens are in the vocabulary, or they would be numbered anew."""
    spec = real_tokenizer_spec()
    spec["model"]["vocab"] |= {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )


def prompt_of(case: Case, words: PreTrainedTokenizerFast) -> list[int]:
    """The ids that reach the language model."""
    kind = stepaudio2.StepAudio2Base if case.variant == "base" else stepaudio2.StepAudio2
    model = kind.__new__(kind)  # its constructor loads weights and needs CUDA
    model.llm_tokenizer, model.llm, model.eos_token_id = words, Scribe(), 151665
    model([*case.messages])
    ids: list[int] = model.llm.prompt.tolist()
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=TESTS / "golden" / "prompts.npz")
    path = parser.parse_args().out
    stepaudio2.load_audio = torch.zeros  # a number of samples in the place of a file
    torch.Tensor.cuda = lambda tensor: tensor
    words = tokenizer()
    arrays: dict[str, Any] = {case.name: np.array(prompt_of(case, words), np.int32) for case in CASES}
    np.savez_compressed(
        path, **arrays, provenance="step-audio2 1.0.0 (stepaudio2.StepAudio2, StepAudio2Base)"
    )
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, {len(CASES)} prompts")


if __name__ == "__main__":
    main()
