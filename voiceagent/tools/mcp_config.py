"""MCP servers of a deployment: the file that names them, in the form that other MCP clients read too. Connects to none.

{"mcpServers": {"weather": {"url": "https://tools.example.com/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
                "files": {"command": "python", "args": ["-m", "my_server"], "filler": "let me look"}}}
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path

import msgspec

from voiceagent.errors import ConfigError
from voiceagent.tools.function import TIMEOUT_S


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server: a program that is started (`command`), or an address.

    Attributes:
        type, disabled: as other clients have them; the former follows from the rest.
        tools: of what it offers, these alone; None = all.
        confirm, background, filler, timeout_s: as of a function; the first two name tools.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None
    url: str = ""
    headers: dict[str, str] = {}
    type: str = ""
    disabled: bool = False
    tools: tuple[str, ...] | None = None
    confirm: tuple[str, ...] = ()
    background: tuple[str, ...] = ()
    filler: str | None = None
    timeout_s: float = TIMEOUT_S


class _File(msgspec.Struct):
    mcpServers: dict[str, McpServer]


def read(path: Path, environ: Mapping[str, str] | None = None) -> dict[str, McpServer]:
    """The servers of a file, by label; `${NAME}` in env and headers comes from the environment.

    Raises:
        ConfigError: it cannot be read, or names a server that is neither a program nor an address.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File).mcpServers
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"The file of MCP servers {path} cannot be used: {error}.",
            remedy='It holds {"mcpServers": {"LABEL": {"url": ...} or {"command": ..., "args": [...]}}}.',
            param="tools.mcp_servers",
        ) from error
    known = os.environ if environ is None else environ
    made = {}
    for label, server in found.items():
        if bool(server.command) == bool(server.url):
            raise _wrong(label, "needs either a command or a url")
        if not server.disabled:
            filled = {
                "env": _filled(server.env, known, label),
                "headers": _filled(server.headers, known, label),
            }
            made[label] = msgspec.structs.replace(server, **filled)
    return made


def _filled(texts: Mapping[str, str], environ: Mapping[str, str], label: str) -> dict[str, str]:
    try:
        return {name: string.Template(text).substitute(environ) for name, text in texts.items()}
    except (KeyError, ValueError) as error:
        raise _wrong(label, f"names {error}, which is not in the environment") from error


def _wrong(label: str, what: str) -> ConfigError:
    return ConfigError(f"The MCP server {label!r} {what}.", param="tools.mcp_servers")
