"""Looks a checkpoint folder over without loading it: every file by its header, names, shapes, ids and recordings.

A check returns a sentence, or raises the error that loading would raise, or the better one that names the cause.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from voiceagent.errors import CheckpointError, InputError
from voiceagent.models.folder import ASSETS, NEEDED, missing_files, recordings
from voiceagent.models.step_audio2.checkpoint import (
    compare,
    compare_shapes,
    is_scale,
    read_headers,
    sizes_only,
    weight_count,
)
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.flow import FlowNet
from voiceagent.models.step_audio2.flow_config import FlowConfig
from voiceagent.models.step_audio2.hift import stored_shapes
from voiceagent.models.step_audio2.hift_net import HiftConfig, HiftNet
from voiceagent.models.step_audio2.onnx_header import read_onnx_header
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import find_variant
from voiceagent.models.step_audio2.voice import check_recording, read_wave

Check = Callable[[], str]

_POINTER = b"version https://git-lfs"
_NETWORKS = {"S3 tokenizer": ("speech_tokenizer_v2_25hz.onnx", 2), "Speaker encoder": ("campplus.onnx", 1)}


def checks(folder: Path, *, voices: str = "") -> Iterator[tuple[str, Check]]:
    """What is looked at, in this order; a later check may assume that the first two passed."""
    yield "Model files", lambda: _files(folder)
    yield "Token2Wav files", lambda: _token2wav_files(folder)
    yield "Configuration", lambda: _config(folder)
    yield "Weights", lambda: _weights(folder)
    yield "Tokenizer", lambda: _tokenizer(folder)
    yield "Flow", lambda: _flow(folder / "token2wav")
    yield "Vocoder", lambda: _vocoder(folder / "token2wav")
    for subject, (file, inputs) in _NETWORKS.items():
        yield subject, partial(_network, folder / "token2wav" / file, inputs)
    yield "Voices", lambda: _voices(recordings(folder, voices=voices))


def _files(folder: Path) -> str:
    missing = [name for name in missing_files(folder) if not name.startswith("token2wav/")]
    if missing:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        why = f" ({pickled[0]} is not loaded, because a pickle can run code)" if pickled else ""
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}{why}.",
            code="files_missing",
            remedy="Download the whole repository, for example with --model mini; a download goes on where it stopped.",
        )
    weights = [path.name for path in sorted(folder.glob("model*.safetensors"))]
    _no_pointers(folder, [*NEEDED, *weights])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{len(weights)} weight file(s), {size / 1e9:.2f} GB in {folder}"


def _token2wav_files(folder: Path) -> str:
    missing = [name for name in missing_files(folder) if name.startswith("token2wav/")]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}.",
            code="token2wav_missing",
            remedy="The model cannot speak without them; they lie in the folder token2wav of the same repository.",
        )
    return "all there"


def _no_pointers(folder: Path, names: list[str]) -> None:
    """A clone without Git LFS has small texts in place of the weights."""
    for name in names:
        path = folder / name
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_POINTER):
            raise CheckpointError(
                f"{path} is only a pointer of Git LFS.",
                code="files_missing",
                remedy="Run `git lfs pull` in the folder, or let --model mini download the files.",
            )


def _config(folder: Path) -> str:
    config = StepAudio2Config.from_folder(folder)
    text, audio = config.text, config.audio
    return (
        f"{text.num_hidden_layers} layers x {text.hidden_size}, encoder {audio.n_audio_layer} x {audio.n_audio_state}, "
        f"{text.max_position_embeddings} positions, variant {find_variant(folder).value}"
    )


def _weights(folder: Path) -> str:
    stored = read_headers(folder)
    compare(stored, config=StepAudio2Config.from_folder(folder), where=str(folder))
    kinds = ", ".join(sorted({tensor.dtype for tensor in stored.values()}))
    return f"{len(stored)} tensors, {weight_count(stored) / 1e9:.2f} billion weights, stored as {kinds}"


def _tokenizer(folder: Path) -> str:
    tokenizer = TextTokenizer.from_folder(folder)
    rows = StepAudio2Config.from_folder(folder).text.vocab_size
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer knows {tokenizer.size} tokens, but vocab_size is {rows}.",
            remedy="Use the tokenizer.json that belongs to this checkpoint.",
        )
    ids = tokenizer.ids
    return (
        f"{tokenizer.size} tokens; <|EOT|> {ids.eot}, <audio_patch> {ids.audio_patch}, <tts_start> {ids.tts_start}, "
        f"<audio_0> {ids.audio_0}"
    )


def _flow(folder: Path) -> str:
    with sizes_only():
        net = FlowNet(FlowConfig.from_file(folder / "flow.yaml"))
    expected = {name: tuple(part.shape) for name, part in net.state_dict().items()}
    compare_shapes(_stored(folder / "flow.pt"), expected, where=str(folder / "flow.pt"))
    return f"{len(expected)} tensors"


def _vocoder(folder: Path) -> str:
    with sizes_only():
        expected = stored_shapes(HiftNet(HiftConfig.from_folder(folder)))
    found = {name.removeprefix("generator."): shape for name, shape in _stored(folder / "hift.pt").items()}
    compare_shapes(found, expected, where=str(folder / "hift.pt"))
    return f"{len(expected)} tensors"


def _stored(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the networks' tensors in a PyTorch file; they are mapped, not read."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return {name: tuple(part.shape) for name, part in state.items() if not is_scale(name, state)}
    except (
        RuntimeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        OSError,
        ValueError,
        AttributeError,
    ) as cause:
        reason = str(cause).partition("\n")[0].rstrip(".")
        raise CheckpointError(
            f"{path} is truncated or not a plain dictionary of tensors: {reason}.",
            remedy="Download or export the checkpoint folder again.",
        ) from cause


def _network(path: Path, inputs: int) -> str:
    header = read_onnx_header(path)
    if len(header.inputs) != inputs:
        raise CheckpointError(
            f"{path} takes {len(header.inputs)} inputs, not {inputs}.",
            remedy="Download or export the checkpoint folder again.",
        )
    return f"{', '.join(header.inputs)} -> {', '.join(header.outputs)}"


def _voices(folder: Path) -> str:
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise CheckpointError(
            f"{folder} holds no voice recording.",
            code="voice_missing",
            remedy="Put a mono 16-bit wav file of 3 to 10 s of clear speech there, as default_female.wav for example.",
        )
    lengths = []
    for path in paths:
        samples, rate = read_wave(path)
        try:
            check_recording(samples, rate, path.stem)
        except InputError as cause:
            raise CheckpointError(f"{path}: {cause.message}", code=cause.code, remedy=cause.remedy) from cause
        lengths.append(f"{path.stem} {len(samples) / rate:.1f} s")
    return ", ".join(lengths)


def lends_voices(folder: Path, *, voices: str = "") -> bool:
    """Whether the model brings no voice of its own, so that pocket's are lent to it."""
    return recordings(folder, voices=voices) == ASSETS / "pocket" != folder
