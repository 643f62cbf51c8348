"""Random weights of a model's true sizes, made where they are used: nothing of 16 GB is ever written or read.

The folder that it writes has a `model.safetensors` of which only the header exists (the rest is a hole in the file),
and no ONNX files or recordings. `stand_in` puts random tensors in the place of these three; everything else is loaded
by the code that loads a real checkpoint.

The language model follows the schedule of speech, one text token and then four audio tokens, although its weights are
random: five dimensions of the residual stream say which kind of token comes next. The embedding of a token sets them,
no layer writes them, and the output matrix gives some 20 to every token of that kind. Which token of the kind comes is
left to the random rest, and to the sampler; nothing in the engine knows of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor

from scripts.bench.gpu_parts.flow_tensors import flow_tensors, is_norm
from scripts.bench.gpu_parts.shapes import Shape
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.hift import stored_weights
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.voice import Voice

if TYPE_CHECKING:
    from voiceagent.models.step_audio2.generate import LanguageModel
    from voiceagent.models.step_audio2.token2wav import Token2Wav

DEVIATION = 0.02
AUDIO_CODES = 6561
KINDS = 5  #: the four places of an audio token, and text
TEXT_KIND = 4
TEXT_BYTES = range(0x61, 0x7B)  #: a to z: what the model writes as text
VOICES = ("default_female", "default_male")

_STRENGTH = (
    1000.0  # of the kind in the residual stream, beside noise of some 10 in each of the other dimensions
)
_MARGIN = 30.0  # score of a token of the right kind when the stream holds nothing else


def write_folder(shape: Shape, folder: Path, *, device: str = "cpu", seed: int = 1) -> Path:
    """Fills `folder` with config.json, tokenizer.json, a hollow model.safetensors, and a whole token2wav folder."""
    spoken = folder / "token2wav"
    spoken.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config()), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(shape.tokenizer()), encoding="utf-8")
    _write_hollow(folder / "model.safetensors", StepAudio2Config.from_dict(shape.config()))
    (spoken / "flow.yaml").write_text(shape.flow_yaml(), encoding="utf-8")
    generator = torch.Generator(device).manual_seed(seed)
    flow = {name: _flow_tensor(name, size, generator) for name, size in flow_tensors(shape.flow).items()}
    torch.save(flow, spoken / "flow.pt")
    torch.manual_seed(seed)
    torch.save(stored_weights(HiftNet(HiftConfig(*shape.hift))), spoken / "hift.pt")
    base, pitch = shape.hift
    (spoken / "hift.yaml").write_text(f"base_channels: {base}\nf0_channels: {pitch}\n", encoding="utf-8")
    return folder


@contextlib.contextmanager
def stand_in(shape: Shape) -> Iterator[None]:
    """Inside, loading a folder of `write_folder` finds random tensors and voices where the files would be."""
    from voiceagent.models.step_audio2 import generate, token2wav

    def network(
        folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype, **_: object
    ) -> StepAudio2:
        return random_network(StepAudio2Config.from_folder(folder), shape, device=device, dtype=dtype)

    def voices(*_: object, **__: object) -> dict[str, Voice]:
        return random_voices(shape)

    with (
        mock.patch.object(generate, "load_step_audio2", network),
        mock.patch.object(token2wav, "load_voices", voices),
    ):
        yield


def true_shape_language_model(
    shape: Shape, folder: Path, *, device: str, dtype: torch.dtype, **options: object
) -> LanguageModel:
    """A loaded language model; `options` go to `LanguageModel.load`."""
    from voiceagent.models.step_audio2.generate import LanguageModel

    with stand_in(shape):
        return LanguageModel.load(folder, device=device, dtype=dtype, **options)  # type: ignore[arg-type]


def true_shape_token2wav(
    shape: Shape, folder: Path, *, device: str, dtype: torch.dtype, **options: object
) -> Token2Wav:
    """A loaded speech decoder; `options` go to `Token2Wav.load`."""
    from voiceagent.models.step_audio2.token2wav import Token2Wav

    with stand_in(shape):
        return Token2Wav.load(folder / "token2wav", device=device, dtype=dtype, **options)  # type: ignore[arg-type]


@torch.inference_mode()
def random_network(
    config: StepAudio2Config, shape: Shape, *, device: torch.device | str, dtype: torch.dtype, seed: int = 0
) -> StepAudio2:
    """Encoder, adapter and language model, drawn on the device: norms 1, all else N(0, 0.02), and the schedule."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            net = StepAudio2(config)
    finally:
        torch.set_default_dtype(before)
    with torch.inference_mode(False):
        net = net.to_empty(device=device).requires_grad_(False).eval()
    torch.manual_seed(seed)
    stored = net.stored()
    for name, tensor in stored.items():
        if name.endswith("norm.weight") or "layernorm" in name or name.endswith("_ln.weight"):
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, DEVIATION)
    _steer(stored, shape)
    return net


def _steer(stored: dict[str, Tensor], shape: Shape) -> None:
    """Makes text and audio tokens follow each other as speech does; see the top of this file."""
    embedding, output = stored["model.embed_tokens.weight"], stored["lm_head.weight"]
    for name, tensor in stored.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[:KINDS] = 0.0
    embedding[:, :KINDS] = 0.0
    output[:, :KINDS] = 0.0
    codes = torch.arange(AUDIO_CODES, device=embedding.device)
    embedding[shape.audio_0 + codes, codes % TEXT_KIND + 1] = _STRENGTH
    output[shape.audio_0 + codes, codes % TEXT_KIND] = _MARGIN / embedding.shape[1] ** 0.5
    text = torch.tensor(TEXT_BYTES, device=embedding.device)
    embedding[text, 0] = _STRENGTH
    output[text, TEXT_KIND] = _MARGIN / embedding.shape[1] ** 0.5
    embedding[shape.tts_start, TEXT_KIND] = _STRENGTH


def kinds(ids: tuple[int, ...] | list[int], shape: Shape) -> list[int]:
    """What each generated id is: 0 to 3 an audio token by its place, 4 text, -1 anything else."""

    def kind(token: int) -> int:
        code = token - shape.audio_0
        if 0 <= code < AUDIO_CODES:
            return code % TEXT_KIND
        return TEXT_KIND if token in TEXT_BYTES else -1

    return [kind(token) for token in ids]


def off_schedule(ids: tuple[int, ...] | list[int], shape: Shape) -> int:
    """How many ids of a reply are not of the kind that their place in it demands."""
    wanted = [TEXT_KIND, 0, 1, 2, 3]
    return sum(kind != wanted[at % KINDS] for at, kind in enumerate(kinds(ids, shape)))


def random_voices(shape: Shape, *, seed: int = 2) -> dict[str, Voice]:
    """Prompts of random ids, mel and speaker; the published recordings are not needed to measure time."""
    voices = {}
    for i, name in enumerate(VOICES):
        generator = torch.Generator().manual_seed(seed + i)
        tokens = torch.randint(0, AUDIO_CODES, (shape.prompt_tokens,), generator=generator)
        mel = torch.randn(2 * shape.prompt_tokens, 80, generator=generator)
        voices[name] = Voice(name, tokens, mel, torch.randn(192, generator=generator))
    return voices


def _write_hollow(path: Path, config: StepAudio2Config) -> None:
    """A safetensors file in bf16 whose tensors are a hole: it has its full length and takes no room."""
    with torch.device("meta"):
        net = StepAudio2(config)
    header: dict[str, object] = {}
    end = 0
    for name, tensor in net.stored().items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def _flow_tensor(name: str, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32 on the CPU: norms as they begin, all else N(0, 0.02), so that no gate and no output is zero."""
    if is_norm(name):
        return torch.full(size, float(name.endswith("weight")))
    drawn = torch.randn(size, generator=generator, device=generator.device)
    return drawn.mul_(DEVIATION).cpu()
