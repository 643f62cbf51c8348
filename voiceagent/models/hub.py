"""Fetches checkpoint folders from the Hugging Face hub into its cache; it reads nothing of them but config.json."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from voiceagent.errors import CheckpointError
from voiceagent.models.step_audio2.config import StepAudio2Config
from voiceagent.models.step_audio2.variant import PUBLISHED

SHORT_NAMES = {name.removeprefix("stepfun-ai/Step-Audio-2-").lower(): name for name in PUBLISHED}
"""mini, mini-think and mini-base."""
VARIANTS = {name: variant.value for name, variant in PUBLISHED.items()}
MINI_BYTES = 17_900_000_000
"""What each of the three takes on disk."""

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "default_*.wav",
    "token2wav/speech_tokenizer_v2_25hz.onnx",
    "token2wav/campplus.onnx",
    "token2wav/flow.yaml",
    "token2wav/flow.pt",
    "token2wav/hift.pt",
    "token2wav/hift.yaml",
)
"""What is fetched of a repository: all that is ever read, and no code."""


def cached(repository: str) -> Path | None:
    """The folder of what the cache holds of a repository, maybe not all of it; the network is not asked."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES), local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def cache_folder() -> Path:
    """Where downloads go: HF_HUB_CACHE, HF_HOME or ~/.cache/huggingface."""
    import huggingface_hub.constants

    return Path(huggingface_hub.constants.HF_HUB_CACHE)


def download(repository: str, *, say: Callable[[str], None]) -> Path:
    """The folder of a repository, complete; what is missing is fetched, and an interrupted download goes on.

    Args:
        repository: "owner/name".
        say: takes one sentence before a download begins; progress bars are the hub library's, on standard error.

    Raises:
        CheckpointError: there is no such repository, or it is private (code "model_not_found"); it is another model's
            ("wrong_model"); the hub cannot be reached ("network"); the disk is full ("disk_full").
    """
    say(f"{repository} is downloaded into {cache_folder()}; if interrupted, it goes on the next time.")
    # The configuration first: nobody wants gigabytes of another model.
    StepAudio2Config.from_folder(_fetch(repository, ("config.json",)))
    return _fetch(repository, FILES)


def _fetch(repository: str, files: tuple[str, ...]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(files)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as cause:
        raise CheckpointError(
            f"There is no folder {repository!r} here, and no model of that name that the hub shows to everybody.",
            code="model_not_found",
            remedy=f"Known are {', '.join(SHORT_NAMES)}; for a private or gated model set HF_TOKEN.",
            param="engine.model",
        ) from cause
    except Exception as cause:  # the library lets through whatever its HTTP library raises
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise CheckpointError(
                f"The disk of {cache_folder()} is full.",
                code="disk_full",
                remedy="Make room (Step-Audio-2-mini takes 18 GB), or set HF_HOME to another disk.",
            ) from cause
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise CheckpointError(
            f"{repository} cannot be downloaded: {reason.rstrip('.')}.",
            code="network",
            remedy="Check the connection and try again: the download goes on where it stopped. "
            "Or give --model the folder of a checkpoint.",
            param="engine.model",
        ) from cause
