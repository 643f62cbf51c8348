"""Our turns beside the conversation: while the talk goes on, the model classifies, checks or sums up.

They read the conversation and leave nothing in it. They know nothing of ear and mouth: nobody interrupts them, and
their audio is sent as it is made, for whatever the client wants with it.
"""

from __future__ import annotations

from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import AssistantItem
from voiceagent.core.making import AWAY, GAVE_UP, Making
from voiceagent.core.turn import Turn

MAX_ASIDES = 4  #: of one session at once


class Asides:
    """The turns beside the conversation that are not closed.

    Args:
        making: opens turns.
    """

    def __init__(self, making: Making) -> None:
        self._making = making
        self._live: dict[int, Turn] = {}

    def __contains__(self, turn: int | None) -> bool:
        return turn in self._live

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids that are promised to their items."""
        return tuple(item_id for turn in self._live.values() for item_id in turn.item_ids)

    def start(
        self, options: opt.TurnOptions, *, unfinished: AssistantItem | None, event_id: str | None
    ) -> list[act.Action]:
        """Opens one; an `Error` if there are `MAX_ASIDES` already, or if `options.input` names an unknown item.

        Args:
            options: `conversation` is False.
            unfinished: the conversation's reply in the making, as far as it was told.
            event_id: of the request.
        """
        if len(self._live) >= MAX_ASIDES:
            message = (
                f"There are {MAX_ASIDES} responses beside the conversation already:"
                " await response.done of one, or cancel it."
            )
            return [notices.Error("too_many_active_responses", message, "response.conversation", event_id)]
        opened = self._making.open(options, event_id=event_id, unfinished=unfinished)
        if isinstance(opened, notices.Error):
            return [opened]
        turn, made = opened
        self._live[turn.id] = turn
        return made if self._making.engine_up else made + self._fail(turn, AWAY)

    def on_engine(self, event: ev.TurnEvent) -> list[act.Action]:
        """What the engine says of a turn; what is of no aside, or comes too late, is dropped."""
        turn = self._live.get(event.turn)
        if turn is None:
            return []
        match event:
            case ev.AudioOut():
                return self._send(turn, event)
            case ev.TurnEnded(_, "cancelled"):
                return self._fail(turn, GAVE_UP)
            case ev.TurnEnded():
                turn.ended = event
                if event.reason == "max_tokens":
                    return self._close(turn, "incomplete", "max_output_tokens")
                return self._close(turn, "completed", None)
            case ev.TurnFailed(_, code, message):
                return self._fail(turn, notices.TurnError(code, message))
            case ev.TextOut(_, text):
                turn.visible = turn.visible or bool(text)
                return self._making.tell(turn, event)
            case ev.TurnStarted() | ev.ThoughtOut() | ev.ToolCalled():
                return self._making.tell(turn, event)
            case _:
                assert_never(event)

    def _send(self, turn: Turn, event: ev.AudioOut) -> list[act.Action]:
        turn.add_audio(event)
        turn.pending.clear()
        if not len(event.pcm):
            return []
        turn.visible = True
        return [act.SendAudio(turn.id, turn.item_id, event.pcm)]

    def cancel(self, turn: int) -> list[act.Action]:
        """Stops one of them."""
        return self._stop(self._live[turn], "client_cancelled")

    def stop(self, reason: notices.CloseReason) -> list[act.Action]:
        """Stops all of them."""
        return [action for turn in list(self._live.values()) for action in self._stop(turn, reason)]

    def fail(self, error: notices.TurnError) -> list[act.Action]:
        """The engine cannot go on with any of them."""
        return [action for turn in list(self._live.values()) for action in self._fail(turn, error)]

    def _stop(self, turn: Turn, reason: notices.CloseReason) -> list[act.Action]:
        return [act.CancelTurn(turn.id), *self._close(turn, "cancelled", reason)]

    def _fail(self, turn: Turn, error: notices.TurnError) -> list[act.Action]:
        return self._close(turn, "failed", "error", error)

    def _close(
        self,
        turn: Turn,
        status: notices.TurnStatus,
        reason: notices.CloseReason | None,
        error: notices.TurnError | None = None,
    ) -> list[act.Action]:
        del self._live[turn.id]
        closed = notices.TurnClosed(turn.id, status, reason, turn.item(), turn.usage, error, turn.context)
        return [closed, *turn.forgotten()]
