"""What all turns of ours have in common: how one opens, and what the client is told of it while the engine makes it.

It knows neither the mouth nor how a turn ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.conversation import Conversation
from voiceagent.core.history import AssistantItem, Item, ToolCallItem
from voiceagent.core.turn import Turn

DOWN = notices.TurnError("engine_down", "The engine stopped and is being restarted.")
AWAY = notices.TurnError("engine_down", "The engine is being restarted: try again shortly.")
GAVE_UP = notices.TurnError("engine_error", "The engine gave the turn up.")


class Making:
    """Opens turns and tells of them.

    Args:
        talk: the conversation that they read.

    Attributes:
        engine_up: whether there is an engine to ask; without one, what is opened is to fail at once.
    """

    def __init__(self, talk: Conversation) -> None:
        self.engine_up = True
        self._talk = talk
        self._turns = 0

    def new_number(self) -> int:
        """The number of a turn to come."""
        self._turns += 1
        return self._turns

    def new_turn(
        self, options: opt.TurnOptions, previous_item_id: str | None = None, *, number: int | None = None
    ) -> Turn:
        """A turn, with a number of its own unless it has one."""
        number = self.new_number() if number is None else number
        return Turn(number, self._talk.new_item_id(), options, previous_item_id)

    def asked(self, options: opt.TurnOptions) -> tuple[tuple[Item, ...], opt.TurnOptions] | None:
        """What the engine would be asked for, and with which options; None if that cannot be told before it is."""
        if not all(isinstance(item, opt.ItemReference) for item in options.input or ()):
            return None
        resolved = self._talk.resolve(options)
        if isinstance(resolved, str):
            return None
        return resolved[0], options if options.input is None else replace(options, input=resolved[0])

    def open(
        self,
        options: opt.TurnOptions,
        *,
        event_id: str | None,
        unfinished: AssistantItem | None = None,
        begun: int | None = None,
    ) -> tuple[Turn, list[act.Action]] | notices.Error:
        """Opens a turn and asks the engine for it; an `Error` if `options.input` names an unknown item.

        Args:
            options: of the turn.
            event_id: of the request.
            unfinished: what is known of a message that the history holds without its words as yet.
            begun: number of a turn that the engine has begun on a guess, and is this one.
        """
        resolved = self._talk.resolve(options)
        if isinstance(resolved, str):
            message = f"There is no item {resolved!r} to refer to."
            return notices.Error("item_reference_invalid_item_id", message, "response.input", event_id)
        items, fresh = resolved
        if unfinished is not None:
            items = tuple(unfinished if item.id == unfinished.id else item for item in items)
        behind = self._talk.history.last_id if options.conversation else None
        turn = self.new_turn(options, behind, number=begun)
        made: list[act.Action] = [notices.TurnOpened(turn.id, turn.item_id, options, turn.previous_item_id)]
        if begun is not None:
            made.append(act.ConfirmTurn(begun))
        elif self.engine_up:
            if options.input is not None:
                options = replace(options, input=items)
            turn.pieces = tuple(piece.id for piece in fresh)
            made += [act.EncodePiece(piece) for piece in fresh]
            made.append(act.StartTurn(turn.id, items, options))
        return turn, made

    def tell(
        self, turn: Turn, event: ev.TurnStarted | ev.ThoughtOut | ev.TextOut | ev.ToolCalled
    ) -> list[act.Action]:
        """Thoughts, words and calls, as the engine says them."""
        match event:
            case ev.TurnStarted(dropped=dropped):
                turn.started = event
                talks = turn.options.conversation and turn.options.input is None
                return self._talk.leave(dropped) if talks else []
            case ev.ThoughtOut(_, text):
                return [notices.TurnThought(turn.id, text)] if text else []
            case ev.TextOut(_, text):
                turn.add_text(event)
                return [notices.TurnText(turn.id, turn.item_id, text)] if text else []
            case ev.ToolCalled(_, call_id, name, arguments):
                call = ToolCallItem(self._talk.new_item_id(), call_id, name, arguments)
                turn.calls.append(call)
                tool = next((tool for tool in turn.options.tools if tool.name == name), None)
                server = None if tool is None else tool.server
                return [notices.TurnTool(turn.id, call.id, call_id, name, arguments, server)]
            case _:
                assert_never(event)
