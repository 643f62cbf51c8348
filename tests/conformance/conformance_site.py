"""Where the server of this folder listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    """Base addresses, which end with /v1, and the certificate that clients of the TLS listener must trust.

    `tools` is a listener whose server runs the tools of scripts/examples/server_tool.py.
    """

    http: str
    https: str
    tools: str
    cert: Path

    @property
    def ws(self) -> str:
        return self.http.replace("http", "ws", 1)
