"""Where model folders are: a name or a path from the configuration to a folder on disk. It opens no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voiceagent.errors import CheckpointError
from voiceagent.models import hub

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


@dataclass(frozen=True, slots=True)
class Found:
    """A model on this machine.

    Attributes:
        name: what clients see: "pocket", the last part of a hub name, or the folder's name.
        folder: on disk.
        repository: "owner/name" if it came from the hub.
    """

    name: str
    folder: Path
    repository: str | None = None

    @property
    def variant(self) -> str:
        """How the repository's model wants to be asked, where its files do not say it; else "auto"."""
        return hub.VARIANTS.get(self.repository or "", "auto")


def find_model(
    name: str, *, fetch: bool = False, say: Callable[[str], None] = lambda sentence: None
) -> Found:
    """A built-in model (`pocket`), a folder, or a model of the hub (`mini`, `owner/name`).

    Args:
        name: as in the configuration. A folder of that name comes before a model of the hub.
        fetch: download what the cache does not hold.
        say: takes a sentence before a download begins.

    Raises:
        CheckpointError: there is no such model or folder (code "model_not_found"), or the download failed, see
            `hub.download`.
    """
    if name in BUILT_IN:
        return Found(name, ASSETS / name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _of_folder(folder)
    repository = hub.SHORT_NAMES.get(name.lower(), name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise CheckpointError(
            f"There is no model {name!r}: it is neither built in ({', '.join(BUILT_IN)}), nor a folder, nor a name "
            f"like {', '.join(hub.SHORT_NAMES)} or OWNER/NAME of the Hugging Face hub.",
            code="model_not_found",
            remedy="Correct the name, or give --model the path of a downloaded checkpoint folder.",
            param="engine.model",
        )
    held = hub.cached(repository)
    if held is not None and not missing_files(held):
        return Found(repository.partition("/")[2], held, repository)
    if not fetch:
        raise CheckpointError(
            f"{repository} is not on this machine yet.",
            code="not_downloaded",
            remedy=f"`voiceagent serve --model {name}` downloads it first.",
            param="engine.model",
        )
    return Found(repository.partition("/")[2], hub.download(repository, say=say), repository)


def missing_files(folder: Path) -> list[str]:
    """Files without which the model cannot run; empty if it is complete. Only the index of the weights is read."""
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if (folder / WEIGHTS[0]).is_file():
        return missing
    if not (folder / WEIGHTS[1]).is_file():
        return [*missing, WEIGHTS[0]]
    return missing + [name for name in _shards(folder / WEIGHTS[1]) if not (folder / name).is_file()]


def recordings(folder: Path, *, voices: str = "") -> Path:
    """The folder of voice recordings: `voices` if it is given, else the model's own, else those of pocket.

    The published repositories hold none; any few seconds of clear speech will do.
    """
    if voices:
        return Path(voices).expanduser()
    return folder if any(folder.glob("default_*.wav")) else ASSETS / BUILT_IN[0]


def _of_folder(folder: Path) -> Found:
    """A folder; one of the hub's cache (models--OWNER--NAME/snapshots/HASH) under the repository's name."""
    path = folder.resolve()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        repository = path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        return Found(repository.partition("/")[2], folder, repository)
    return Found(path.name, folder)


def _shards(index: Path) -> list[str]:
    """Names of the weight files; none if the index cannot be read, which whoever loads it will say."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted({name for name in places.values() if isinstance(name, str)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
