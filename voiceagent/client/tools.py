"""Functions that the model may call: how they are described to it, and how a call is run. Knows no connection."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from voiceagent.client.events import ToolCall


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of this program that the model may call.

    Args:
        name: what the model calls it.
        description: what it is for, in words for the model.
        run: gets the arguments; what it returns is told to the model, as JSON unless it is a text.
        parameters: JSON schema of the arguments.
    """

    name: str
    description: str
    run: Callable[[dict[str, Any]], Awaitable[Any]]
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    @property
    def described(self) -> dict[str, Any]:
        """As a session's `tools` want it."""
        shown = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", **shown}


async def run(call: ToolCall, tools: dict[str, Tool]) -> str:
    """The result of a call as text. A function that fails is told to the model as {"error": ...}: the call goes on."""
    tool = tools.get(call.name)
    if tool is None:
        return json.dumps({"error": f"there is no function {call.name}"})
    try:
        result = await tool.run(call.arguments)
    except Exception as error:  # whatever the application's function raises
        return json.dumps({"error": f"{type(error).__name__}: {error}"})
    return result if isinstance(result, str) else json.dumps(result)
