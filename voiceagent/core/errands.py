"""Calls of tools that the server runs: which are out, when a result may come in, what is said meanwhile. No clock.

It knows neither how a tool is run nor who speaks: the controller asks what is due and says when it is quiet. A result
comes in at the end of the conversation while no turn of it is live, and the reply to it begins as soon as the person is
quiet; one that comes late waits until nobody speaks at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.conversation import Conversation
from voiceagent.core.history import Item, UserItem

CALLS_PER_TURN = 8  #: of the person's
CALLS_PER_SESSION = 64
PENDING = '{"status": "pending", "note": "This takes a while. The result is told as soon as it is there."}'
OUT_OF_CALLS = '{"error": "No more tools can be called for this question. Answer with what is known."}'
SPENT = '{"error": "This call has used all the tool calls that it may make. Answer without tools."}'
REFUSED = '{"error": "The call was not approved, and was not made."}'


@dataclass(slots=True)
class Errand:
    """A call, until the last of it is in the conversation.

    Attributes:
        began: when the model called.
        output: what came of it; None = nothing yet.
        asked: the client has not said yet whether it approves.
        closed: the turn that called is over, and the call is in the conversation.
        late: the model was told that the result comes later.
        dropped: the client has cancelled the turn that called, or asks for a reply to its own tools too.
    """

    item_id: str
    call_id: str
    turn: int
    tool: opt.Tool
    server: opt.ServerTool
    arguments: str
    options: opt.TurnOptions
    began: float
    output: str | None = None
    failed: bool = False
    asked: bool = False
    closed: bool = False
    late: bool = False
    dropped: bool = False

    @property
    def silent(self) -> bool:
        """Whether no reply of ours is to follow the result."""
        return self.dropped or not self.server.reply


class Errands:
    """The server's tool calls of a call.

    Args:
        talk: the conversation that they belong to.
    """

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._out: dict[str, Errand] = {}  # by the call's item, oldest first
        self._results: dict[str, list[str]] = {}  # by the call's item: items that the client was not told of
        self._options: dict[int, opt.TurnOptions] = {}  # of turns of the conversation that are not closed
        self._mixed: set[int] = set()  # of these, the ones that call the client's tools too
        self._calls = self._calls_of_turn = 0
        self._owed: tuple[
            opt.TurnOptions, ...
        ] = ()  # a reply to what came in: its options, if not the session's
        self._owes = self._stirred = self._filled = False
        self._quiet_since: float | None = None

    # --- what happens ---------------------------------------------------------------------------------------

    def follow(self, made: Iterable[act.Action], now: float) -> list[act.Action]:
        """Looks on at what was done; returns what is to be done about calls in it."""
        more: list[act.Action] = []
        for action in made:
            match action:
                case notices.ItemAdded(UserItem()):
                    self._calls_of_turn, self._filled = 0, False
                case notices.TurnOpened(turn, _, options) if options.conversation:
                    self._options[turn] = options
                case notices.TurnTool(turn) if turn in self._options:
                    more += self._called(action, now)
                case notices.TurnClosed(turn) if turn in self._options:
                    self._closed(action)
                case _:
                    pass
        return more

    def _called(self, action: notices.TurnTool, now: float) -> list[act.Action]:
        options = self._options[action.turn]
        tool = next((tool for tool in options.tools if tool.name == action.name), None)
        if tool is None or tool.server is None:
            self._mixed.add(action.turn)
            return []
        errand = Errand(
            action.item_id, action.call_id, action.turn, tool, tool.server, action.arguments, options, now
        )
        self._out[errand.item_id] = errand
        if self._calls >= CALLS_PER_SESSION or self._calls_of_turn >= CALLS_PER_TURN:
            errand.output = SPENT if self._calls >= CALLS_PER_SESSION else OUT_OF_CALLS
            errand.failed = True
            return []
        self._calls += 1
        self._calls_of_turn += 1
        errand.asked = tool.server.approval
        return [] if errand.asked else [_run(errand)]

    def _closed(self, action: notices.TurnClosed) -> None:
        del self._options[action.turn]
        for errand in self._out.values():
            if errand.turn == action.turn:
                errand.closed = self._stirred = True
                errand.dropped = action.turn in self._mixed or action.reason == "client_cancelled"
        self._mixed.discard(action.turn)

    def returned(self, event: ev.ToolReturned) -> None:
        """A tool is done. What nobody waits for is dropped."""
        errand = self._out.get(event.item_id)
        if errand is not None and errand.output is None and not errand.asked:
            errand.output, errand.failed = event.output, event.failed

    def approve(self, event: ev.Approve) -> list[act.Action]:
        """The client's word on a call; an `Error` if none of this id waits for it."""
        errand = self._out.get(event.item_id)
        if errand is None or not errand.asked:
            message = f"No call {event.item_id!r} waits for approval."
            return [notices.Error("approval_not_found", message, "item.approval_request_id", event.event_id)]
        errand.asked = False
        if event.approve:
            return [_run(errand)]
        errand.output, errand.failed = REFUSED, True
        return []

    def forget(self, item_id: str) -> None:
        """The client has deleted an item; of a call the result goes with it."""
        for result in self._results.pop(item_id, ()):
            if self._talk.history.find(result) is not None:
                self._talk.history = self._talk.history.delete(result)

    def answered(self) -> None:
        """A turn of the conversation begins, which reads all that has come in."""
        self._owes, self._owed = False, ()

    def stirred(self) -> bool:
        """Whether a turn that called tools has closed since this was last asked."""
        stirred, self._stirred = self._stirred, False
        return stirred

    # --- results --------------------------------------------------------------------------------------------

    def deliver(self, *, silence: bool, speak: bool = True) -> list[act.Action]:
        """Puts what has come back into the conversation, of which no turn may be live.

        Args:
            silence: nobody speaks, waits, or is spoken to: what comes late may come in.
            speak: a reply may follow that nobody has asked for; otherwise the next one tells it.
        """
        made: list[act.Action] = []
        for errand in [errand for errand in self._out.values() if errand.closed]:
            if self._talk.history.find(errand.item_id) is None:  # the client has deleted the call
                del self._out[errand.item_id]
            elif errand.output is None:
                if errand.server.background and not errand.late and not errand.asked:
                    errand.late = True
                    made += self._tell(errand, PENDING, more=True, speak=True)
            elif silence or not errand.late:
                del self._out[errand.item_id]
                made += self._tell(errand, errand.output, more=False, speak=speak or not errand.late)
        return made

    def _tell(self, errand: Errand, output: str, *, more: bool, speak: bool) -> list[act.Action]:
        previous = self._talk.history.last_id
        result_id, bounded = self._talk.add_result(errand.call_id, output)
        self._results.setdefault(errand.item_id, []).append(result_id)
        if speak and not (
            errand.dropped if more else errand.silent
        ):  # nobody else is told that more comes later
            self._owes = True
            self._owed = () if errand.late and not more else (self._reply_to(errand, result_id),)
        failed = errand.failed and not more
        told = notices.ToolAnswered(errand.item_id, output, result_id, previous, failed=failed, more=more)
        return [told, *bounded]

    def _reply_to(self, errand: Errand, result_id: str) -> opt.TurnOptions:
        """As the turn that called, but free to answer, and with an input of its own behind that."""
        before = self._owed[0] if self._owed else errand.options
        choice = "none" if "none" in (before.tool_choice, errand.options.tool_choice) else "auto"
        if errand.output in (SPENT, OUT_OF_CALLS):
            choice = "none"
        given = before.input
        if given is not None:
            given = (*given, opt.ItemReference(errand.item_id), opt.ItemReference(result_id))
        return replace(errand.options, tool_choice=choice, metadata=None, input=given)

    @property
    def owes(self) -> bool:
        """Whether something came in that is to be answered now: all that was called for it has come back."""
        waits = any(not errand.late and not errand.silent for errand in self._out.values())
        return self._owes and not waits

    def reply(self, usual: opt.TurnOptions) -> opt.TurnOptions:
        """How to answer what came in; asked once. `usual`: what the session says."""
        options = self._owed[0] if self._owed else usual
        self.answered()
        if options.input is None:
            return options
        return replace(options, input=tuple(filter(self._is_there, options.input)))

    def _is_there(self, given: Item | opt.ItemReference) -> bool:
        return not isinstance(given, opt.ItemReference) or self._talk.history.find(given.id) is not None

    # --- what is said meanwhile -----------------------------------------------------------------------------

    def watch(self, *, silence: bool, now: float) -> None:
        """Whether nobody speaks now, and nothing of ours is to be heard."""
        if not silence:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def deadline(self) -> float | None:
        """When words are due because a tool takes long; None = not before something happens."""
        found = self._slow()
        return None if found is None else found[0]

    def filler(self, now: float) -> opt.TurnOptions | None:
        """The turn that says them, if they are due; asked for once in a turn of the person's."""
        found = self._slow()
        if found is None or found[0] > now:
            return None
        _, errand, words = found
        self._filled = True
        return replace(
            errand.options,
            script=words.text,
            tools=(),
            tool_choice="auto",
            input=(),
            think=False,
            metadata=None,
            max_tokens=None,
        )

    def _slow(self) -> tuple[float, Errand, opt.Filler] | None:
        if self._quiet_since is None or self._filled or self._owes:
            return None
        for errand in self._out.values():
            words = errand.server.filler or errand.options.filler
            waits = errand.closed and errand.output is None and not errand.late and not errand.asked
            spoken = errand.options.modalities == "audio" and not errand.dropped
            if waits and spoken and words is not None and words.text:
                return max(errand.began, self._quiet_since) + words.after_ms / 1000, errand, words
        return None

    @property
    def back(self) -> bool:
        """Whether all that somebody waits for has come back, so that there is nothing to bridge."""
        return all(errand.output is not None or errand.late for errand in self._out.values())


def _run(errand: Errand) -> act.RunTool:
    return act.RunTool(errand.item_id, errand.tool, errand.arguments)
