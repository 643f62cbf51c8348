"""The exception tree: every error that a user, a client or an operator can cause, each with its remedy.

It knows nothing of protocols or processes; `code` is the stable name that the wire and the command line map.
"""

from __future__ import annotations

TOO_LONG = "context_length_exceeded"
"""Code of a conversation that does not fit into the model's context."""


class VoiceAgentError(Exception):
    """An error with a stable code, a message that names the cause, and a remedy that says what to do next.

    Args:
        message: what is wrong, naming the field or file.
        code: stable snake_case name, safe to match on.
        remedy: one sentence, what the reader can do about it; may be empty.
        param: the offending field of a request, if there is one.
    """

    default_code = "internal_error"

    def __init__(
        self, message: str, *, code: str | None = None, remedy: str = "", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.remedy = remedy
        self.param = param

    def __str__(self) -> str:
        """The message followed by the remedy, on one line."""
        return f"{self.message} {self.remedy}".strip()


class InputError(VoiceAgentError):
    """Audio, text or a request that cannot be used as it is."""

    default_code = "invalid_input"


class ConfigError(VoiceAgentError):
    """A configuration file, variable or flag that cannot be used."""

    default_code = "invalid_config"


class CheckpointError(VoiceAgentError):
    """A model folder that is incomplete, damaged or of another shape than its config says."""

    default_code = "invalid_checkpoint"


class EngineError(VoiceAgentError):
    """The engine process refused, failed or died."""

    default_code = "engine_error"


class CapacityError(EngineError):
    """No room for one more session or turn; trying again later may help."""

    default_code = "overloaded"
