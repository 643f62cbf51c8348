"""Tasks that the model of a Live session hands over: what the client is told of them, and the results that come back.

A tool call is a delegation: to the application (metadata only, the protocol wants it so), or to "Responses", which
here is the session's own model with the client's function tools, told as a stream of Responses events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from voiceagent.core import notices
from voiceagent.core.history import Item, SystemItem, ToolResultItem
from voiceagent.wire import live_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.live_session import LiveSession, converted, message_item
from voiceagent.wire.realtime_writer import Writer

V = TypeVar("V")

REMEMBERED = 256  #: delegations and calls that a result may still come for
KINDS = {
    ev.InstructionsAppend: "",
    ev.ThinkingAppend: "Known now, not to be read out: ",
    ev.CommentaryAppend: "Tell the user now, in your own words: ",
}
"""How appended text is put to the model, for its prompt knows instructions only."""

Append = ev.InstructionsAppend | ev.ThinkingAppend | ev.CommentaryAppend


class Delegations:
    """The delegations of one session.

    Args:
        session: says who does the tasks.
        prefix: unique among the sessions of a server; part of the ids made here.
        writer: writes the events.
        unix_time: seconds since 1970, now.
    """

    def __init__(
        self, session: LiveSession, *, prefix: str, writer: Writer, unix_time: Callable[[], float]
    ) -> None:
        self._session = session
        self._prefix = prefix
        self._event = writer.event
        self._unix_time = unix_time
        self._made = 0
        self._calls: OrderedDict[str, str] = (
            OrderedDict()
        )  # call ids without a result, by delegation or call id
        self._known: OrderedDict[str, None] = OrderedDict()  # ids of delegations to the application

    # --- to the client --------------------------------------------------------------------------------------

    def tell(
        self, calls: Sequence[notices.TurnTool], closed: notices.TurnClosed, *, offset_ms: int
    ) -> Iterator[str]:
        """The tool calls of a turn, once it is over: only then a result fits behind them."""
        if not calls:
            return
        if self._session.target == "responses":
            yield from self._responses(calls, closed, offset_ms)
            return
        for call in calls:
            name = self._new_id()
            _remember(self._calls, name, call.call_id)
            _remember(self._known, name, None)
            shown = {"id": name, "target": "client", "type": "delegation"}
            yield self._event("session.delegation.created", delegation=shown, offset_ms=offset_ms)

    def _new_id(self) -> str:
        self._made += 1
        return f"deleg_{self._prefix}_{self._made}"

    def _responses(
        self, calls: Sequence[notices.TurnTool], closed: notices.TurnClosed, offset_ms: int
    ) -> Iterator[str]:
        name = self._new_id()
        response_id = f"resp_{self._prefix}_{closed.turn}"
        shown = {"id": name, "target": "responses", "type": "delegation", "response_id": response_id}
        yield self._event("session.delegation.created", delegation=shown, offset_ms=offset_ms)
        begun = self._unix_time()
        first = self._response(response_id, "in_progress", begun)
        events: list[dict[str, Any]] = [{"type": "response.created", "response": first}]
        for index, call in enumerate(calls):
            _remember(self._calls, call.call_id, call.call_id)
            events += _call_events(call, index)
        kind = "completed" if closed.status == "completed" else "incomplete"
        last = self._response(response_id, kind, begun)
        last["usage"] = _usage(closed)
        events.append({"type": f"response.{kind}", "response": last})
        for number, event in enumerate(events):
            yield self._event(
                "response.event", delegation_id=name, event={**event, "sequence_number": number}
            )

    def _response(self, response_id: str, status: str, begun: float) -> dict[str, Any]:
        """A snapshot; the protocol leaves its input, instructions, tools and output out."""
        settings = self._session.responses
        return {
            "id": response_id,
            "object": "response",
            "created_at": begun,
            "status": status,
            "model": settings.get("model", ""),
            "output": [],
            "parallel_tool_calls": settings.get("parallel_tool_calls", True),
            "tool_choice": settings.get("tool_choice", "auto"),
            "tools": [],
        }

    # --- from the client ------------------------------------------------------------------------------------

    def appended(self, message: Append) -> Item:
        """What an append puts into the conversation.

        Raises:
            WireError: it names a delegation that does not exist, or that is not the application's.
        """
        name = message.delegation_id
        if name is not None:
            self._check_delegation(name)
            if isinstance(message, ev.CommentaryAppend) and name in self._calls:
                return ToolResultItem("", self._calls.pop(name), message.content)
        return SystemItem("", KINDS[type(message)] + message.content)

    def _check_delegation(self, name: str) -> None:
        if self._session.target == "responses":
            raise WireError(
                "With Responses delegation, results are items.",
                code="delegation_not_allowed",
                param="delegation_id",
                remedy="Send null here, and results by response.item.create.",
            )
        if name not in self._known:
            raise WireError(
                f"There is no delegation {name!r}.", code="unknown_delegation", param="delegation_id"
            )

    def check_responses(self) -> None:
        """WireError unless this session delegates to Responses."""
        if self._session.target != "responses":
            raise WireError(
                "This session does not delegate to Responses.",
                code="responses_delegation_required",
                param="type",
                remedy='Start it with session.delegation {"type": "responses", ...}.',
            )

    def item(self, given: dict[str, Any]) -> Item:
        """An item of `response.item.create`.

        Raises:
            WireError: not a message or the result of a call that waits for one.
        """
        kind = given.get("type", "message")
        if kind == "function_call_output":
            result = converted(given, ev.FunctionOutput, "item")
            if self._calls.pop(result.call_id, None) is None:
                raise WireError(
                    f"No call {result.call_id!r} waits for a result.",
                    code="unknown_call",
                    param="item.call_id",
                )
            return ToolResultItem("", result.call_id, _text(result.output))
        if isinstance(kind, str) and kind != "message":
            raise WireError(
                f"Items of type {kind[:64]!r} are not supported.",
                code="unsupported_item",
                param="item.type",
                remedy="Use message or function_call_output.",
            )
        message = converted(given, ev.Message, "item")
        return message_item(message.role, _text(message.content))


def _call_events(call: notices.TurnTool, index: int) -> list[dict[str, Any]]:
    at = {"item_id": call.item_id, "output_index": index}
    shown = {
        "type": "function_call",
        "id": call.item_id,
        "call_id": call.call_id,
        "name": call.name,
        "arguments": "",
        "status": "in_progress",
    }
    done = {**shown, "arguments": call.arguments, "status": "completed"}
    name = "response.function_call_arguments"
    return [
        {"type": "response.output_item.added", "output_index": index, "item": shown},
        {"type": f"{name}.delta", **at, "delta": call.arguments},
        {"type": f"{name}.done", **at, "arguments": call.arguments},
        {"type": "response.output_item.done", "output_index": index, "item": done},
    ]


def _usage(closed: notices.TurnClosed) -> dict[str, Any] | None:
    given = closed.usage
    if given is None:
        return None
    tokens_in = given.input_text + given.input_audio
    tokens_out = given.output_text + given.output_audio
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": given.input_cached, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": given.output_thought},
        "total_tokens": tokens_in + tokens_out,
    }


def _text(given: str | list[ev.InputText]) -> str:
    return given if isinstance(given, str) else " ".join(part.text for part in given)


def _remember(where: OrderedDict[str, V], name: str, value: V) -> None:
    where[name] = value
    if len(where) > REMEMBERED:
        where.popitem(last=False)
