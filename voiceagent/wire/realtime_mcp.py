"""Tools that the server runs, in the Realtime protocol's words for MCP: what a session asks for, and what it is told.

A client that names a label in its tools is told of its calls as MCP items. One that names none would stumble over
those: it is told by events of ours, and the places of its items are told as if neither call nor result were there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec

from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core.history import Item, ToolCallItem
from voiceagent.core.options import ServerTool, Tool
from voiceagent.errors import VoiceAgentError
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_writer import Writer

V = TypeVar("V")

REMEMBERED = 1000  #: items of ours that may still be asked for
SHOWN = ("server_url", "server_description", "allowed_tools", "require_approval")


@dataclass(frozen=True, slots=True)
class Named:
    """A tool server that a session names in its tools.

    Attributes:
        label: what it is called.
        url: where it is; empty = the deployment has it.
        authorization: token for it, which nobody is shown.
        shown: the entry as the session shows it.
        allowed: which of its tools; None = all.
        approval: which of its calls wait for the client.
    """

    label: str
    url: str
    authorization: str | None
    shown: dict[str, Any]
    allowed: ev.ToolFilter | None
    approval: Literal["always", "never"] | ev.ApprovalFilter

    @property
    def place(self) -> tuple[str, str | None]:
        """What has to stay the same for its connection to stay."""
        return self.url, self.authorization

    def take(self, tools: Iterable[Tool]) -> Iterator[Tool]:
        """Its tools as this session gets them: by the protocol, the client asks for the reply to what they return.

        What the deployment wants approved is, whatever the client says.
        """
        for tool in tools:
            server = tool.server
            if server is not None and server.label == self.label and _matches(self.allowed, server):
                approval = server.approval or self._waits(server)
                yield replace(tool, server=replace(server, approval=approval, reply=False))

    def _waits(self, server: ServerTool) -> bool:
        if not isinstance(self.approval, ev.ApprovalFilter):
            return self.approval == "always"
        if self.approval.always is not None and _matches(self.approval.always, server):
            return True
        return self.approval.never is not None and not _matches(self.approval.never, server)


def _matches(wanted: ev.ToolFilter | None, server: ServerTool) -> bool:
    if wanted is None:
        return True
    named = wanted.tool_names is None or server.name in wanted.tool_names
    return named and wanted.read_only in (None, server.read_only)


def named(given: ev.Tool, labels: Collection[str], *, param: str) -> Named:
    """A server as a client names it.

    Args:
        given: its entry in the session's tools.
        labels: those that the deployment has.
        param: where the entry stands, for errors.

    Raises:
        WireError: it cannot be used; `param` names the field.
    """
    label = given.server_label
    if label is None:
        raise WireError(
            f"{param}.server_label is missing.",
            code="missing_required_parameter",
            param=f"{param}.server_label",
        )
    for name in ("connector_id", "tunnel_id", "headers"):
        if getattr(given, name):
            raise WireError(
                f"{name} is not supported.",
                code="unsupported_tool",
                param=f"{param}.{name}",
                remedy="Use server_url, with authorization for a token.",
            )
    if (given.server_url is None) == (label not in labels):
        known = ", ".join(sorted(labels)) or "none"
        raise WireError(
            f"{label!r} is not a tool server of this deployment."
            if given.server_url is None
            else f"{label!r} is a tool server of this deployment, which has an address already.",
            code="invalid_value",
            param=f"{param}.server_label",
            remedy=f"Without a server_url, name one of: {known}; with one, use another label.",
        )
    allowed = given.allowed_tools
    shown = {name: getattr(given, name) for name in SHOWN if getattr(given, name) is not None}
    usual: Literal["always", "never"] = "never" if given.server_url is None else "always"
    return Named(
        label,
        given.server_url or "",
        given.authorization,
        {"type": "mcp", "server_label": label, **msgspec.to_builtins(shown)},
        ev.ToolFilter(tool_names=allowed) if isinstance(allowed, list) else allowed,
        usual if given.require_approval is None else given.require_approval,
    )


def distinct(tools: Iterable[Tool], taken: Collection[str]) -> Iterator[Tool]:
    """The tools under names that are good to call them by: one that is taken gets its label in front, or goes."""
    known = set(taken)
    for tool in tools:
        if tool.name in known and tool.server is not None:
            tool = replace(tool, name=re.sub(r"[^A-Za-z0-9_-]", "_", f"{tool.server.label}_{tool.name}")[:64])
        if tool.name not in known:
            known.add(tool.name)
            yield tool


@dataclass(slots=True)
class _Call:
    """A call that the client was told of, or will be once it is approved."""

    call: notices.TurnTool
    server: ServerTool
    response_id: str
    index: int
    previous: str | None
    request: str | None = None
    output: str | None = None
    failed: bool = False


class ServerTools:
    """What a client has been told of tools that the server runs.

    Args:
        prefix: unique among the sessions of a server; part of the ids made here.
        writer: writes the events.
    """

    def __init__(self, *, prefix: str, writer: Writer) -> None:
        self._prefix, self._event, self._large = prefix, writer.event, writer.large
        self.labels: Collection[str] = ()  #: that the client has named
        self._made = 0
        self._lists: dict[str, str] = {}  # by label: the item that will list its tools
        self._items: OrderedDict[str, dict[str, Any]] = OrderedDict()  # that no conversation holds
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._requests: dict[str, str] = {}  # by approval request: the call that waits
        self._unseen: OrderedDict[str, str | None] = (
            OrderedDict()
        )  # items, and what the client sees before them

    # --- lists of tools ---------------------------------------------------------------------------------------

    def listing(self, label: str) -> Iterator[str]:
        """A server's tools are asked for."""
        item_id = self._lists[label] = self._new_id("mcpl")
        shown = self._keep(item_id, {"type": "mcp_list_tools", "server_label": label, "tools": []})
        yield self._event("conversation.item.added", previous_item_id=None, item=shown)
        yield self._event("mcp_list_tools.in_progress", item_id=item_id)

    def listed(self, label: str, tools: Sequence[Tool] | VoiceAgentError) -> Iterator[str]:
        """They are known, or will not be."""
        item_id = self._lists.pop(label, None)
        if item_id is None:
            return
        shown = self._items.get(item_id) or {"id": item_id, "type": "mcp_list_tools", "server_label": label}
        if isinstance(tools, VoiceAgentError):
            error = {"code": tools.code, "message": str(tools)}
            yield self._event("mcp_list_tools.failed", item_id=item_id, error=error)
            yield self._event("conversation.item.done", previous_item_id=None, item=shown)
            return
        shown = self._keep(item_id, {**shown, "tools": [_listed(tool) for tool in tools]})
        yield self._event("mcp_list_tools.completed", item_id=item_id)
        yield self._event("conversation.item.done", previous_item_id=None, item=shown)

    # --- calls ------------------------------------------------------------------------------------------------

    def visible(self, server: ServerTool) -> bool:
        """Whether the client wants to see this server's calls as items."""
        return server.label in self.labels

    def called(
        self,
        call: notices.TurnTool,
        server: ServerTool,
        *,
        response_id: str,
        index: int,
        previous: str | None,
    ) -> dict[str, Any]:
        """A call that is to be seen, as an item: itself, or the request to approve it."""
        made = _remember(self._calls, call.item_id, _Call(call, server, response_id, index, previous))
        if not server.approval:
            return _shown(made)
        made.request = self._new_id("mcpr")
        self._requests[made.request] = call.item_id
        self.hide(call.item_id, made.request)
        shown = {"server_label": server.label, "name": server.name, "arguments": call.arguments}
        return self._keep(made.request, {"type": "mcp_approval_request", **shown})

    def unseen(self, call: notices.TurnTool, *, response_id: str, previous: str | None) -> str:
        """A call that is told by an event of ours."""
        self.hide(call.item_id, previous)
        at = {"response_id": response_id, "item_id": call.item_id}
        return self._event("server_tool.called", **at, name=call.name, arguments=call.arguments)

    def running(self, item_id: str) -> Iterator[str]:
        """The response that called is over, and the call is in the conversation."""
        made = self._calls.get(item_id)
        if made is not None and made.request is None:
            yield self._event("response.mcp_call.in_progress", item_id=item_id, output_index=made.index)

    def answered(self, action: notices.ToolAnswered) -> Iterator[str]:
        """What a tool has returned."""
        self.hide(action.result_id, action.previous_item_id)
        made = self._calls.get(action.item_id)
        if made is None:
            how = {"failed": action.failed, "pending": action.more}
            yield self._event("server_tool.returned", item_id=action.item_id, output=action.output, **how)
            return
        if action.more:
            return
        made.output, made.failed = action.output, action.failed
        kind = "failed" if action.failed else "completed"
        yield self._event(f"response.mcp_call.{kind}", item_id=action.item_id, output_index=made.index)
        shown = _shown(made)
        yield self._event("conversation.item.done", previous_item_id=made.previous, item=shown)
        if made.request is None:
            at = {"response_id": made.response_id, "output_index": made.index}
            yield self._event("response.output_item.done", **at, item=shown)

    def approve(self, given: ev.ItemParam, event_id: str | None) -> tuple[core.Approve, list[str]]:
        """The client's word on a call, and what it is told at once.

        Raises:
            WireError: no call of this id waits for it.
        """
        request, approve = given.approval_request_id or "", given.approve
        item_id = self._requests.get(request)
        made = None if item_id is None else self._calls.get(item_id)
        if item_id is None or made is None or approve is None:
            missing = "approve" if approve is None else "approval_request_id"
            raise WireError(
                f"No call waits for the approval {request[:64]!r}."
                if item_id is None
                else "approve is missing.",
                code="approval_not_found" if item_id is None else "missing_required_parameter",
                param=f"item.{missing}",
            )
        del self._requests[request]
        words = {"approval_request_id": request, "approve": approve, "reason": given.reason}
        answer = self._keep(given.id or self._new_id("mcpa"), {"type": "mcp_approval_response", **words})
        told = [
            self._event(f"conversation.item.{step}", previous_item_id=self.previous(request), item=answer)
            for step in ("added", "done")
        ]
        self._unseen.pop(item_id, None)
        made.previous = answer["id"]
        told.append(self._event("conversation.item.added", previous_item_id=answer["id"], item=_shown(made)))
        told.append(self._event("response.mcp_call.in_progress", item_id=item_id, output_index=made.index))
        return core.Approve(item_id, approve, given.reason or "", event_id), told

    # --- items ------------------------------------------------------------------------------------------------

    def item(self, item: Item) -> dict[str, Any] | None:
        """A call of the conversation as the client was told of it; None for any other item."""
        made = self._calls.get(item.id) if isinstance(item, ToolCallItem) else None
        return None if made is None else _shown(made)

    def retrieved(self, item_id: str) -> str | None:
        """The answer to whoever asks for an item that no conversation holds; None if it is none of these."""
        shown = self._items.get(item_id)
        return None if shown is None else self._large("conversation.item.retrieved", item=shown)

    def hide(self, item_id: str, previous: str | None) -> None:
        """The client will not be told of this item; what comes behind it comes behind `previous`."""
        _remember(self._unseen, item_id, previous)

    def previous(self, item_id: str | None) -> str | None:
        """The item before another, as the client knows it."""
        while item_id is not None and item_id in self._unseen:
            item_id = self._unseen[item_id]
        return item_id

    def _new_id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._prefix}_{self._made}"

    def _keep(self, item_id: str, shown: dict[str, Any]) -> dict[str, Any]:
        return _remember(self._items, item_id, {"id": item_id, "object": "realtime.item", **shown})


def _shown(made: _Call) -> dict[str, Any]:
    # `output` must be present even when null: a stock client fails without the key.
    error = {"type": "tool_execution_error", "message": made.output} if made.failed else None
    return {
        "id": made.call.item_id,
        "object": "realtime.item",
        "type": "mcp_call",
        "server_label": made.server.label,
        "name": made.server.name,
        "arguments": made.call.arguments,
        "approval_request_id": made.request,
        "output": None if made.failed else made.output,
        "error": error,
    }


def _listed(tool: Tool) -> dict[str, Any]:
    name = tool.name if tool.server is None else tool.server.name
    read_only = tool.server is not None and tool.server.read_only
    return {
        "name": name,
        "description": tool.description,
        "input_schema": dict(tool.parameters or {}),
        **({"annotations": {"readOnlyHint": True}} if read_only else {}),
    }


def _remember(where: OrderedDict[str, V], name: str, value: V) -> V:
    where[name] = value
    if len(where) > REMEMBERED:
        where.popitem(last=False)
    return value
