"""Encoder, adapter and language model, audio inserted, against transformers (scripts/golden/language.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_tokenizer import tokenizer_spec
from torch import Tensor

from scripts.golden.fixed_weights import fill, recording
from voiceagent.core.history import Piece
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.mel import log_mel
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot
from voiceagent.models.step_audio2.sampling import GREEDY

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "language.npz"
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2}
WAVES = {"first": recording("first", 21_500), "second": recording("second", 12_345)}

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def golden() -> Golden:
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights(golden: Golden) -> dict[str, Tensor]:
    network = StepAudio2(config(golden))
    fill(network, dtype=torch.bfloat16)
    return network.state_dict()


@pytest.fixture(scope="module", params=TOLERANCE, ids=str)
def network(request: pytest.FixtureRequest, golden: Golden, weights: dict[str, Tensor]) -> StepAudio2:
    made = StepAudio2(config(golden))
    made.load_state_dict(weights)
    return made.to(request.param).requires_grad_(False).eval()


def config(golden: Golden) -> StepAudio2Config:
    return StepAudio2Config.from_dict(json.loads(str(golden["config"])))


def relative_error(ours: Tensor, theirs: np.ndarray) -> float:
    wanted = torch.from_numpy(theirs)
    assert ours.shape == wanted.shape
    return float((ours.float() - wanted).norm() / wanted.norm())


def slots(golden: Golden, patch: int) -> tuple[Slot, ...]:
    """The golden prompt with its placeholders numbered: pieces 0 and 1, rows from 0 on."""
    out: list[Slot] = []
    piece, row = -1, 0
    for token in golden["prompt"].tolist():
        if token != patch:
            out.append(token)
            continue
        if not isinstance(out[-1], AudioRow):
            piece, row = piece + 1, 0
        out.append(AudioRow(piece, row))
        row += 1
    return tuple(out)


@torch.inference_mode()
def test_encoder_and_adapter_agree_in_one_batch(network: StepAudio2, golden: Golden) -> None:
    dtype = network.lm_head.weight.dtype
    batch = torch.nn.utils.rnn.pad_sequence(list(WAVES.values()), batch_first=True)
    mel, frames = log_mel(batch, torch.tensor([len(wave) for wave in WAVES.values()]))
    rows, lengths = network.encoder(mel.to(dtype), frames - 2)
    adapted, places = network.adapter(rows, lengths)
    for i, name in enumerate(WAVES):
        assert relative_error(rows[i, : lengths[i]], golden[f"encoder/{name}"]) < TOLERANCE[dtype]
        assert relative_error(adapted[i, : places[i]], golden[f"adapter/{name}"]) < TOLERANCE[dtype]


@torch.inference_mode()
def test_scores_over_heard_audio_agree(network: StepAudio2, golden: Golden, model: LanguageModel) -> None:
    patch = model.tokenizer.ids.audio_patch
    ids = torch.from_numpy(golden["prompt"])
    embeds = network.embed(ids)
    embeds[ids == patch] = torch.cat([network.encode_audio(wave) for wave in WAVES.values()])
    logits = network.logits(network.hidden(embeds[None])[0])
    limit = TOLERANCE[network.lm_head.weight.dtype]
    assert relative_error(logits[:, golden["columns"]], golden["logits"]) < limit
    assert relative_error(logits[-1], golden["logits_last"]) < limit


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, golden: Golden, weights: dict[str, Tensor]
) -> LanguageModel:
    """The same model as the engine has it: read from a checkpoint folder."""
    folder = tmp_path_factory.mktemp("golden")
    (folder / "config.json").write_text(json.dumps(config(golden).to_dict()))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_spec()))
    save_file({name: part.contiguous() for name, part in weights.items()}, folder / "model.safetensors")
    return LanguageModel.load(folder)


@pytest.mark.parametrize("spoken", [False, True])
def test_replies_to_heard_audio_are_the_same_ids(model: LanguageModel, golden: Golden, spoken: bool) -> None:
    prompt = slots(golden, model.tokenizer.ids.audio_patch)
    if spoken:
        prompt += (model.tokenizer.ids.tts_start,)
    wanted = golden["reply/speech" if spoken else "reply/text"].tolist()
    context = model.open()
    for i, wave in enumerate(WAVES.values()):
        context.encode(Piece(i, wave.numpy()))
    reply = model.generate(context, Prompt(prompt, (), spoken), GREEDY, max_tokens=len(wanted))
    while reply.step() is not None:
        pass
    assert reply.ids == wanted
