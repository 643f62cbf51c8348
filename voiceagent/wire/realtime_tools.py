"""The tools that a Realtime session or response names, checked: functions, and servers of tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from voiceagent.core.options import Tool
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_mcp import Named, named

MAX_SCHEMA_BYTES = 32 * 1024


def listed_tools(
    given: Sequence[ev.Tool], deployed: Collection[Tool]
) -> tuple[list[dict[str, Any]], dict[str, Named]]:
    """A session's tools as it shows them, and the servers among them, of the deployment's or its own."""
    labels = {tool.server.label for tool in deployed if tool.server is not None}
    shown, servers = list[dict[str, Any]](), dict[str, Named]()
    for i, tool in enumerate(given):
        where = f"session.tools[{i}]"
        if tool.type != "mcp":
            shown += [show_tool(made) for made in checked_tools([tool], param=where, numbered=False)]
            continue
        server = named(tool, labels, param=where)
        if server.label in servers:
            raise WireError(
                f"{server.label!r} is named twice.", code="invalid_value", param=f"{where}.server_label"
            )
        servers[server.label] = server
        shown.append(server.shown)
    return shown, servers


def chosen_tools(names: Sequence[str] | None, deployed: Collection[Tool]) -> list[str] | None:
    """Names of tools of the deployment's; None = all."""
    known = {tool.name for tool in deployed}
    for i, name in enumerate(names or ()):
        if name not in known:
            raise WireError(
                f"The server has no tool {name!r}.",
                code="invalid_value",
                param=f"session.server_tools[{i}]",
                remedy=f"There are: {', '.join(sorted(known)) or 'none'}.",
            )
    return None if names is None else list(names)


def checked_tools(given: Sequence[ev.Tool], *, param: str, numbered: bool = True) -> tuple[Tool, ...]:
    """Function tools with a name; anything else is refused by name. `numbered`: `param` is of the whole list."""
    checked = []
    for i, tool in enumerate(given):
        where = f"{param}[{i}]" if numbered else param
        if tool.type != "function":
            raise WireError(
                f"Tools of type {tool.type!r} are not supported.",
                code="unsupported_tool",
                param=f"{where}.type",
                remedy="Use function tools.",
            )
        schema = tool.parameters or {}
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            raise WireError(
                f"The schema of {where} is longer than {MAX_SCHEMA_BYTES} bytes.",
                param=f"{where}.parameters",
            )
        name = items.needed(tool.name or None, f"{where}.name")
        checked.append(Tool(name, tool.description or "", schema))
    return tuple(checked)


def show_tool(tool: Tool) -> dict[str, Any]:
    """A function as the session shows it."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters or {}),
    }
