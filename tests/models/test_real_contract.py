"""The published folder, tensor by tensor: what our modules expect of these sizes is exactly what its files hold."""

from __future__ import annotations

import math

import pytest
import torch

from tests.models.real_config import REAL_MINI
from tests.models.real_tensors import FLOW_YAML, Shape, flow_tensors, hift_tensors, language_tensors
from voiceagent.models.folder import NEEDED, WEIGHTS
from voiceagent.models.step_audio2.checkpoint import expected_shapes
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet


def numbers(tensors: dict[str, Shape], *starts: str) -> int:
    return sum(math.prod(shape) for name, shape in tensors.items() if name.startswith(starts or ("",)))


def test_the_language_model_and_its_ears() -> None:
    table = language_tensors()
    assert len(table) == 832
    assert 2 * numbers(table) == 16_630_358_528  # what the index says of all files together, in bfloat16
    assert numbers(table, "model.", "lm_head.") == 7_663_326_720
    assert numbers(table, "encoder.") == 636_968_960
    assert numbers(table, "adapter.") == 14_883_584
    assert expected_shapes(StepAudio2Config.from_dict(REAL_MINI)) == table


def test_the_flow() -> None:
    assert len(FLOW_YAML.encode()) == 1099  # the published file's size
    table = flow_tensors()
    assert (len(table), numbers(table)) == (605, 155_802_352)
    assert numbers(table, "encoder.") == 37_831_168
    assert numbers(table, "decoder.") == 114_555_472
    with torch.device("meta"):
        net = FlowNet(FlowConfig.from_text(FLOW_YAML, source="flow.yaml"))
    assert {name: tuple(part.shape) for name, part in net.state_dict().items()} == table


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("conv_pre.", 287_744),
        ("ups.", 2_516_288),
        ("source_downs.", 153_664),
        ("source_resblocks.", 3_719_040),
        ("resblocks.", 10_862_208),
        ("conv_post.", 8_100),
        ("m_source.", 10),
        ("f0_predictor.", 3_274_241),
    ],
)
def test_the_parts_of_the_vocoder(part: str, count: int) -> None:
    assert numbers(hift_tensors(), part) == count


def test_the_vocoder() -> None:
    table = hift_tensors()
    assert (len(table), numbers(table)) == (328, 20_821_295)
    with torch.device("meta"):
        net = HiftNet(HiftConfig())
    assert stored_shapes(net) == table


def test_the_values_of_config_json() -> None:
    config = StepAudio2Config.from_dict(REAL_MINI)
    text, audio = config.text, config.audio
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (3584, 18944, 28)
    assert (text.num_attention_heads, text.num_key_value_heads, text.head_dim) == (28, 4, 128)
    assert (text.vocab_size, text.max_position_embeddings) == (158720, 16384)
    assert (text.rms_norm_eps, text.rope_theta) == (1e-6, 1_000_000.0)
    assert (audio.n_audio_state, audio.n_audio_layer, audio.n_audio_head) == (1280, 32, 20)
    assert (audio.n_mels, audio.n_audio_ctx, audio.llm_dim, audio.adapter_hidden) == (128, 1500, 3584, 2048)
    # keys and values of one position in bfloat16
    assert 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim == 57_344


def test_the_files_of_the_folder() -> None:
    published = {
        *(f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)),
        "model.safetensors.index.json",
        "config.json",
        "configuration_step_audio_2.py",
        "modeling_step_audio_2.py",
        "tokenizer.json",
        "tokenizer_config.json",
        "token2wav/campplus.onnx",
        "token2wav/speech_tokenizer_v2_25hz.onnx",
        "token2wav/flow.pt",
        "token2wav/flow.yaml",
        "token2wav/hift.pt",
    }
    assert set(NEEDED) <= published
    assert WEIGHTS[1] in published
