"""Who may connect: API keys by header or subprotocol, browser origins, and host names on loopback.

It decides from a request's headers alone and never logs or echoes a key.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from voiceagent.config import ServerConfig
from voiceagent.errors import ConfigError, VoiceAgentError

SUBPROTOCOL = "realtime"
KEY_PREFIX = "openai-insecure-api-key."


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
        self, headers: Mapping[str, str], *, subprotocols: Sequence[str] = (), page: bool = False
    ) -> None:
        """Raises Refused unless the request may go on.

        Args:
            headers: request headers, case-insensitive.
            subprotocols: what the client offers in Sec-WebSocket-Protocol.
            page: the request is for the page's own files, which hold no secret and need no key.
        """
        self._check_host(headers.get("Host", ""))
        origin = headers.get("Origin")
        if origin is not None:
            self._check_origin(origin, headers.get("Host", ""))
        if self.config.api_keys and not page:
            self._check_key(headers, subprotocols)

    def _check_host(self, host: str) -> None:
        # DNS rebinding: a page of another site may resolve its own name to 127.0.0.1, but it cannot forge Host.
        name = urlsplit(f"//{host}").hostname or ""
        if is_loopback(self.config.host) and not is_loopback(name):
            raise Refused(
                f"The host name {name!r} is not this server's.",
                status=403,
                code="forbidden_host",
                remedy="Open the page through http://127.0.0.1 or http://localhost.",
            )

    def _check_origin(self, origin: str, host: str) -> None:
        parts = urlsplit(origin)
        own = parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower() and host != ""
        if not own and origin not in self.config.allowed_origins:
            raise Refused(
                f"Pages from {origin!r} may not connect.",
                status=403,
                code="forbidden_origin",
                remedy="Add the origin to server.allowed_origins.",
            )

    def _check_key(self, headers: Mapping[str, str], subprotocols: Sequence[str]) -> None:
        authorization = headers.get("Authorization", "")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            key = next((p.removeprefix(KEY_PREFIX) for p in subprotocols if p.startswith(KEY_PREFIX)), "")
        given = key.strip().encode()
        # Compare with every key so that the time does not tell which one was nearly right.
        matches = [hmac.compare_digest(given, known.encode()) for known in self.config.api_keys]
        if not any(matches):
            raise Refused(
                "Incorrect API key provided." if given else "No API key provided.",
                status=401,
                code="invalid_api_key",
                remedy="Send it as Authorization: Bearer KEY, or as the subprotocol openai-insecure-api-key.KEY.",
            )
