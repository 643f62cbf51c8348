"""Who may connect: API keys by header or subprotocol, ephemeral keys, browser origins, and host names on loopback.

It decides from a request's headers alone and never logs or echoes a key.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from urllib.parse import SplitResult, urlsplit

from voiceagent.config import ServerConfig
from voiceagent.errors import ConfigError, VoiceAgentError
from voiceagent.server.ephemeral import PREFIX, EphemeralKey, EphemeralKeys

SUBPROTOCOL = "realtime"
KEY_PREFIX = "openai-insecure-api-key."
OF_EPHEMERAL_KEYS = (
    "/v1/realtime",
    "/v1/realtime/translations",
    "/v1/live/sessions",
    "/v1/models",
    "/v1/voices",
)
"""What a page may ask for with a key that was made for it."""


class Refused(VoiceAgentError):
    """The request may not proceed; `status` is the HTTP status to answer with."""

    default_code = "invalid_api_key"

    def __init__(self, message: str, *, status: int, code: str, remedy: str = "") -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.status = status


def is_loopback(host: str) -> bool:
    """Whether a listening address or host name is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """Checks requests against keys, origins and host names."""

    config: ServerConfig
    ephemeral: EphemeralKeys = field(default_factory=lambda: EphemeralKeys(time))

    def __post_init__(self) -> None:
        """Refuses to guard an open door.

        Raises:
            ConfigError: the server would listen off loopback without any key.
        """
        if not is_loopback(self.config.host) and not self.config.api_keys:
            raise ConfigError(
                f"Listening on {self.config.host} without API keys would let anybody in.",
                remedy="Set VOICEAGENT_SERVER__API_KEYS=key1,key2 (or server.api_keys), or listen on 127.0.0.1.",
                param="server.api_keys",
            )

    def check(
        self,
        headers: Mapping[str, str],
        *,
        path: str = "/v1/realtime",
        subprotocols: Sequence[str] = (),
        page: bool = False,
    ) -> EphemeralKey | None:
        """Raises Refused unless the request may go on; returns the ephemeral key that it came with, if it did.

        Args:
            headers: request headers, case-insensitive.
            path: what is asked for.
            subprotocols: what the client offers in Sec-WebSocket-Protocol.
            page: the request is for the page's own files, which hold no secret and need no key.
        """
        self._check_host(headers.get("Host", ""))
        origin = headers.get("Origin")
        if origin is not None:
            self._check_origin(origin, headers.get("Host", ""))
        if page:
            return None
        key = self._check_key(key_of(headers, subprotocols))
        if key is not None and path not in OF_EPHEMERAL_KEYS:
            raise _refused_key(
                "An ephemeral key opens sessions, and no more.", "Ask from your own server, with its API key."
            )
        return key

    def _check_host(self, host: str) -> None:
        # DNS rebinding: a page of another site may resolve its own name to 127.0.0.1, but it cannot forge Host.
        name = _split(f"//{host}").hostname or ""
        if is_loopback(self.config.host) and not is_loopback(name):
            raise Refused(
                f"The host name {name!r} is not this server's.",
                status=403,
                code="forbidden_host",
                remedy="Open the page through http://127.0.0.1 or http://localhost.",
            )

    def _check_origin(self, origin: str, host: str) -> None:
        parts = _split(origin)
        own = parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and host != ""
        if not own and origin not in self.config.allowed_origins:
            raise Refused(
                f"Pages from {origin!r} may not connect.",
                status=403,
                code="forbidden_origin",
                remedy="Add the origin to server.allowed_origins.",
            )

    def _check_key(self, given: str) -> EphemeralKey | None:
        if given.startswith(PREFIX):
            key = self.ephemeral.find(given)
            if key is None:
                raise _refused_key(
                    "The ephemeral key is not known here, or has expired.", "Ask for a new one."
                )
            return key
        # Compare with every key so that the time does not tell which one was nearly right.
        raw = given.encode(errors="surrogateescape")  # a header may hold any bytes
        matches = [hmac.compare_digest(raw, known.encode()) for known in self.config.api_keys]
        if self.config.api_keys and not any(matches):
            raise _refused_key(
                "Incorrect API key provided." if given else "No API key provided.",
                "Send it as Authorization: Bearer KEY, or as the subprotocol openai-insecure-api-key.KEY.",
            )
        return None


def _split(text: str) -> SplitResult:
    """An address in its parts; empty ones if it is none."""
    try:
        return urlsplit(text)
    except ValueError:
        return urlsplit("")


def key_of(headers: Mapping[str, str], subprotocols: Sequence[str]) -> str:
    """The key of a request, from its Authorization header or a subprotocol; empty if there is none."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = next((p.removeprefix(KEY_PREFIX) for p in subprotocols if p.startswith(KEY_PREFIX)), "")
    return key.strip()


def _refused_key(message: str, remedy: str) -> Refused:
    return Refused(message, status=401, code="invalid_api_key", remedy=remedy)
