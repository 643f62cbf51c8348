"""The session of one Live connection: what was asked, checked; what is shown; what it asks of the controller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from voiceagent.core.history import AssistantItem, Item, SystemItem, TextContent, UserItem
from voiceagent.core.options import SessionConfig, Tool
from voiceagent.wire import live_events as ev
from voiceagent.wire import realtime_events
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_decode import invalid_value
from voiceagent.wire.realtime_mcp import distinct
from voiceagent.wire.realtime_tools import checked_tools

T = TypeVar("T")

MAX_INPUT_CHARACTERS = 32 * 1024  #: of the history before the session: 8,192 tokens of English
DELEGATE = Tool(
    "delegate",
    "Hand a task to the application that you cannot do yourself: look something up, or act. Its result comes later.",
    {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]},
)
"""What the model calls when the application does the tasks."""


class LiveSession:
    """One session from its start.

    Args:
        asked: what the client asks for.
        base: the server's session defaults.
        session_id: id shown to the client.
        voices: names of the voices that the engine has; others fall back to the first.
        expires_at: Unix time at which the server will end it.

    Raises:
        WireError: something that this server does not do; `param` names it.
    """

    def __init__(
        self,
        asked: ev.SessionConfig,
        *,
        base: SessionConfig,
        session_id: str,
        voices: Collection[str],
        expires_at: int,
    ) -> None:
        _check_support(asked)
        self._base = base
        audio = asked.audio or ev.Audio()
        given = ev.Pcm(24_000) if audio.format is None else audio.format
        self.format: dict[str, Any] = msgspec.to_builtins(given)
        wanted = None if audio.output is None else audio.output.voice
        self._wanted = wanted.id if isinstance(wanted, ev.VoiceId) else wanted
        first = next(iter(voices), "")
        self.voice: str = self._wanted if self._wanted is not None and self._wanted in voices else first
        self.history = tuple(_history_item(item, i) for i, item in enumerate(asked.input or ()))
        if sum(len(item.content[0].text) for item in asked.input or ()) > MAX_INPUT_CHARACTERS:
            raise WireError(
                f"The history before the session is longer than {MAX_INPUT_CHARACTERS} characters.",
                code="input_too_long",
                param="session.input",
            )
        self._instructions = (asked.instructions or "").strip() or base.instructions
        self._tools: tuple[Tool, ...] = ()
        # What needs approval is not offered: this protocol has no words to ask for it.
        self._run_here = [tool for tool in base.tools if tool.server is not None and not tool.server.approval]
        self._shown: dict[str, Any] = {
            "id": session_id,
            "expires_at": expires_at,
            "model": asked.model,
            "status": "active",
            "store": False,
            "instructions": self._instructions,
        }
        if asked.safety_identifier is not None:
            self._shown["safety_identifier"] = asked.safety_identifier
        self._delegation: dict[str, Any] | None = None
        if asked.delegation is not None:
            self._delegation = self._start_delegation(asked.delegation)

    @property
    def shown(self) -> dict[str, Any]:
        """The session as the client sees it."""
        audio = {"format": self.format, "output": {"voice": self.voice}}
        delegation = {} if self._delegation is None else {"delegation": self._delegation}
        return {**self._shown, "audio": audio, **delegation}

    @property
    def replaced_voice(self) -> str | None:
        """The voice that was asked for, if the engine does not have it."""
        return None if self._wanted in (None, self.voice) else self._wanted

    @property
    def target(self) -> str | None:
        """Who does the tasks: "client", "responses", or None if the model is not told that it may hand any over."""
        return None if self._delegation is None else str(self._delegation["type"])

    @property
    def responses(self) -> dict[str, Any]:
        """Settings of the model that tasks are delegated to."""
        found: dict[str, Any] = (self._delegation or {}).get("responses", {})
        return found

    def update(self, patch: ev.SessionPatch) -> None:
        """Changes delegation settings; WireError changes nothing."""
        if patch.triggers:
            raise _unsupported("Triggers", "session.triggers")
        given = patch.delegation
        if given is None:
            return
        if isinstance(given, ev.DecisionsDelegation):
            raise _unsupported("Decisions delegation", "session.delegation.type")
        target = self.target or "client"
        if given.__struct_config__.tag != target:
            raise WireError(
                f"The delegation of this session is {target!r}, which cannot change.",
                code="immutable_parameter",
                param="session.delegation.type",
            )
        before = self._delegation
        now: dict[str, Any] = {**(before or {}), "type": target}
        if given.acknowledgement_delay_ms is not None:
            now["acknowledgement_delay_ms"] = given.acknowledgement_delay_ms
        if isinstance(given, ev.ResponsesDelegation) and given.responses is not None:
            now["responses"] = {**self.responses, **self._checked(given.responses)}
        if before is not None:
            self._delegation = now

    def to_core(self) -> SessionConfig:
        """What the controller needs of it."""
        instructions, tools, choice = self._instructions, self._tools, "auto"
        if self.target == "client":
            tools = (DELEGATE,)
        tools = (*tools, *distinct(self._run_here, {tool.name for tool in tools}))
        if self.responses:
            extra = self.responses.get("instructions", "")
            instructions = f"{instructions}\n\n{extra}".strip()
            asked = self.responses.get("tool_choice", "auto")
            choice = asked if isinstance(asked, str) else str(asked["name"])
        return replace(
            self._base,
            instructions=instructions,
            voice=self.voice,
            tools=tools,
            tool_choice=choice,
            transcribe=True,
        )

    def _start_delegation(self, given: ev.Delegation) -> dict[str, Any]:
        if isinstance(given, ev.DecisionsDelegation):
            raise _unsupported("Decisions delegation", "session.delegation.type")
        shown: dict[str, Any] = {
            "type": str(given.__struct_config__.tag),
            "acknowledgement_delay_ms": given.acknowledgement_delay_ms or 0,
        }
        if isinstance(given, ev.ResponsesDelegation):
            where = "session.delegation.responses"
            if given.responses is None or given.responses.model is None:
                param = where if given.responses is None else f"{where}.model"
                raise WireError(f"{param} is missing.", code="missing_required_parameter", param=param)
            shown["responses"] = self._checked(given.responses)
        return shown

    def _checked(self, given: ev.ResponsesPatch) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.to_builtins(given)
        if given.tools is not None:
            where = "session.delegation.responses.tools"
            tools = [_function(tool, f"{where}[{i}]") for i, tool in enumerate(given.tools)]
            listed = [realtime_events.Tool("function", t.name, t.description, t.parameters) for t in tools]
            self._tools = checked_tools(listed, param=where)
            shown["tools"] = [msgspec.to_builtins(tool) | {"type": "function"} for tool in tools]
        return shown


def _check_support(asked: ev.SessionConfig) -> None:
    if asked.store:
        raise _unsupported("Storing a session", "session.store")
    if asked.client is not None:
        raise _unsupported("A frontend data channel", "session.client")
    if asked.triggers:
        raise _unsupported("Triggers", "session.triggers")


def _unsupported(what: str, param: str) -> WireError:
    return WireError(f"{what} is not supported here.", code="unsupported_parameter", param=param)


def _function(given: dict[str, Any], where: str) -> ev.FunctionTool:
    kind = given.get("type")
    if isinstance(kind, str) and kind != "function":
        raise WireError(
            f"Tools of type {kind[:64]!r} are not supported.",
            code="unsupported_tool",
            param=f"{where}.type",
            remedy="Use function tools.",
        )
    return converted(given, ev.FunctionTool, where)


def converted(given: dict[str, Any], kind: type[T], where: str) -> T:
    """A part of a message as a struct.

    Raises:
        WireError: it does not fit; `param` begins with `where`.
    """
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at ")
        inner = path.strip("`").removeprefix("$")
        raise invalid_value(f"{what} - at `$.{where}{inner}`", None) from error


def _history_item(given: ev.InitialItem, index: int) -> Item:
    part = given.content[0]
    fits = {"assistant": ("text", "output_text")}.get(given.role, ("input_text",))
    if part.type is not None and part.type not in fits:
        raise WireError(
            f"Content of type {part.type!r} does not fit the role {given.role!r}.",
            code="invalid_value",
            param=f"session.input[{index}].content[0].type",
            remedy=f"Use {' or '.join(fits)}.",
        )
    return message_item(given.role, part.text)


def message_item(role: str, text: str) -> Item:
    """A message without an id."""
    if role == "user":
        return UserItem("", (TextContent(text),))
    return AssistantItem("", text) if role == "assistant" else SystemItem("", text)
