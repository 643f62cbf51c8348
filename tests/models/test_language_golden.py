"""Encoder, adapter and language model, audio inserted, against transformers (scripts/golden/language.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import save_file
from tiny_tokenizer import tokenizer_spec

from scripts.golden import parity
from scripts.golden.fixed_weights import recording
from voiceagent.core.history import Piece
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot
from voiceagent.models.step_audio2.sampling import Sampling

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_encoder_adapter_and_scores_agree(dtype: torch.dtype) -> None:
    errors = parity.language("cpu", dtype)
    assert len(errors) == 8
    for name, error in errors.items():
        assert error < TOLERANCE[dtype], name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """The same model as the engine has it: read from a checkpoint folder."""
    folder, network = tmp_path_factory.mktemp("golden"), parity.language_network("cpu", torch.float32)
    (folder / "config.json").write_text(json.dumps(network.config.to_dict()))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_spec()))
    weights = {name: part.contiguous().clone() for name, part in network.stored().items()}
    save_file(weights, folder / "model.safetensors")
    return LanguageModel.load(folder)


def slots(ids: Sequence[int], patch: int) -> tuple[Slot, ...]:
    """The golden prompt with its placeholders numbered: pieces 0 and 1, rows from 0 on."""
    out: list[Slot] = []
    piece, row = -1, 0
    for token in ids:
        if token == patch:
            if not isinstance(out[-1], AudioRow):
                piece, row = piece + 1, 0
            out.append(AudioRow(piece, row))
            row += 1
        else:
            out.append(token)
    return tuple(out)


def test_replies_to_heard_audio_are_the_same_ids(model: LanguageModel) -> None:
    """Both at once, a text and a spoken one, each behind the same prompt."""
    golden, ids = parity.golden("language"), model.tokenizer.ids
    heard = slots(golden["prompt"].tolist(), ids.audio_patch)
    sampling = Sampling(temperature=0.0, repetition_penalty=float(golden["penalty"]))
    replies, wanted = [], []
    for spoken in (False, True):
        context = model.open()
        for i, (name, count) in enumerate((("first", 21_500), ("second", 12_345))):
            context.encode(Piece(i, recording(name, count).numpy()))
        prompt = Prompt((*heard, ids.tts_start) if spoken else heard, (), spoken)
        wanted.append(golden["reply/speech" if spoken else "reply/text"].tolist())
        replies.append(model.generate(context, prompt, sampling, max_tokens=len(wanted[-1])))
        while not replies[-1].read(40):
            pass
    while any(token is not None for token in model.decode(replies)):
        pass
    assert [reply.ids for reply in replies] == wanted
    assert min(len(set(ids)) for ids in wanted) > 12
