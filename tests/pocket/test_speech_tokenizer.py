"""The speech tokenizer that training builds: ids, masking, and the ONNX file's agreement with the network."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from scripts.pocket import speech_tokenizer_model as net
from scripts.pocket import train_speech_tokenizer as stage
from scripts.pocket.features import ALPHABET
from scripts.pocket.onnx_file import round_to_half, write_onnx

SMALL = net.Shape(dim=64, heads=2, blocks=2, reader_blocks=1)


@pytest.fixture(scope="module")
def model() -> net.SpeechTokenizer:
    torch.manual_seed(0)
    model = net.SpeechTokenizer(SMALL).eval()
    with torch.no_grad():
        model.encoder.project_down.weight.mul_(4.0)  # so that untrained ids vary
    round_to_half(model)
    return model


def test_ids_and_codes_are_each_others_inverse() -> None:
    ids = torch.arange(net.CODES)
    assert torch.equal(net.ids_of(net.codes_of(ids)), ids.int())
    assert net.ids_of(torch.tensor([[0.9, *[-0.9] * 7]])).tolist() == [
        2
    ]  # the first value is the lowest digit


def test_a_rows_ids_do_not_depend_on_its_neighbours(model: net.SpeechTokenizer) -> None:
    mel, frames = torch.randn(3, 128, 90), torch.tensor([90, 41, 62])
    together, lengths = model.tokens(mel, frames)
    assert lengths.tolist() == [23, 11, 16]
    for row, length in enumerate(frames.tolist()):
        alone, _ = model.tokens(mel[row : row + 1, :, :length], frames[row : row + 1])
        assert torch.equal(alone[0], together[row, : lengths[row]])


def test_onnx_file_gives_the_networks_ids_at_any_length(model: net.SpeechTokenizer, tmp_path: Path) -> None:
    network = net.Exported(copy.deepcopy(model))
    path = tmp_path / "tokenizer.onnx"
    size = write_onnx(
        network,
        path,
        example=(torch.zeros(1, 128, 161), torch.tensor([161], dtype=torch.int32)),
        inputs=["feats", "feats_length"],
        output="ids",
        dynamic={"feats": {2: "frames"}, "ids": {1: "tokens"}},
    )
    assert size == path.stat().st_size < 3 * sum(p.numel() for p in model.encoder.parameters())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    seen: set[int] = set()
    for frames in (1, 5, 100, 799, 3000):
        feats, length = torch.randn(1, 128, frames), torch.tensor([frames], dtype=torch.int32)
        got = session.run(None, {"feats": feats.numpy(), "feats_length": length.numpy()})[0]
        expected = network(feats, length).detach().numpy()
        assert got.dtype == np.int32
        assert got.shape == (1, -(-frames // 4))
        assert (got != expected).mean() <= 0.01
        seen |= set(got.ravel().tolist())
    assert len(seen) > 50


def test_training_losses_reach_every_weight(model: net.SpeechTokenizer) -> None:
    network = copy.deepcopy(model).train()
    mel = torch.randn(2, 128, 64)
    ctc, paint = stage.losses(network, (mel, torch.tensor([64, 50]), mel, ["hi", "a"]), 0.0)
    (ctc + paint).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_judge_reads_a_text_per_row(model: net.SpeechTokenizer) -> None:
    texts = model.texts_of([[1, 2, 3], [], np.array([6560] * 30, np.int16)])
    assert len(texts) == 3
    assert all(set(text) <= set(ALPHABET) for text in texts)


def test_the_encoder_comes_back_out_of_its_file(model: net.SpeechTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.onnx"
    trained = copy.deepcopy(model)
    with torch.no_grad():  # equal tensors, as untrained norms are, would be stored once
        for parameter in trained.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    round_to_half(trained)
    write_onnx(
        net.Exported(trained),
        path,
        example=(torch.zeros(1, 128, 161), torch.tensor([161], dtype=torch.int32)),
        inputs=["feats", "feats_length"],
        output="ids",
        dynamic={"feats": {2: "frames"}, "ids": {1: "tokens"}},
    )
    again = net.SpeechTokenizer(SMALL)
    again.encoder.load_state_dict(net.encoder_from_onnx(path))
    for name, value in trained.encoder.state_dict().items():
        assert torch.equal(again.encoder.state_dict()[name], value), name


def test_a_warm_encoder_waits_for_its_heads() -> None:
    assert [stage.encoder_share(at, warm=True) for at in (0.0, 0.05)] == [0.0, 0.0]
    assert stage.encoder_share(0.5, warm=True) == pytest.approx(0.4)
    assert stage.encoder_share(0.0, warm=False) == 1.0
    groups = stage.weights_of(net.SpeechTokenizer(SMALL))
    assert sum(len(list(group["params"])) for group in groups) == len(
        list(net.SpeechTokenizer(SMALL).parameters())
    )


def test_the_agents_utterances_count_twice() -> None:
    class Bank:
        def __init__(self, texts: list[str]) -> None:
            self.n, self.texts, self.kinds = len(texts), texts, ["speech"] * len(texts)
            self.frames = np.full(self.n, 40)

    mix = stage.Mix([Bank(["a", "", "b"]), Bank(["c"]), Bank(["ñ", "¿?"]), Bank(["d"])])
    assert stage.trainable_items(mix, twice=[1, 2]).tolist() == [0, 2, 3, 4, 6, 3, 4]
