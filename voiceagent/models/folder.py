"""Where model folders are: a name or a path from the configuration to a folder on disk. It opens nothing."""

from __future__ import annotations

from pathlib import Path

from voiceagent.errors import CheckpointError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUILT_IN = ("pocket",)

# What a folder of this family must hold, relative to it; weights come as one file or as shards with an index.
NEEDED = (
    "config.json",
    "tokenizer.json",
    "token2wav/speech_tokenizer_v2_25hz.onnx",
    "token2wav/campplus.onnx",
    "token2wav/flow.yaml",
    "token2wav/flow.pt",
    "token2wav/hift.pt",
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def find_model(name: str) -> Path:
    """The folder of a built-in model (`pocket`) or of a path.

    Raises:
        CheckpointError: there is no such model or folder.
    """
    if name in BUILT_IN:
        return ASSETS / name
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    raise CheckpointError(
        f"There is no model {name!r}: it is neither built in ({', '.join(BUILT_IN)}) nor a folder.",
        code="model_not_found",
        remedy="Give --model the path of a downloaded checkpoint folder.",
        param="engine.model",
    )


def missing_files(folder: Path) -> list[str]:
    """Files that the folder lacks, empty if it is complete; contents are not looked at."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(WEIGHTS[0])
    if not any(folder.glob("default_*.wav")):
        missing.append("default_female.wav")
    return missing
