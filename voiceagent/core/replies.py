"""Our turns in the conversation: what the engine makes of one, how it ends, and what of it stays.

It joins the mouth to the conversation and knows nothing of the ear: whether to speak, to hold or to stop is the
controller's decision. Turns beside the conversation are in asides.py.
"""

from __future__ import annotations

from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.captions import count_words
from voiceagent.core.conversation import Conversation
from voiceagent.core.history import AssistantItem
from voiceagent.core.making import AWAY, GAVE_UP, Making
from voiceagent.core.mouth import Speaker
from voiceagent.core.turn import Pcm, Turn
from voiceagent.units import VOICE_RATE, ms_to_samples, samples_to_ms


class Replies:
    """The turns of a call.

    Args:
        talk: the conversation that they belong to.
        making: opens turns.
        lead_ms: how far audio is sent ahead of its playing; None = unpaced.
    """

    def __init__(self, talk: Conversation, making: Making, lead_ms: int | None) -> None:
        self.mouth = Speaker(lead_ms)
        self._talk, self._making = talk, making
        # Turns of the last cut, and the most that can have been heard of each: a client that then says where its
        # player really stood may be believed up to there.
        self._cut: dict[str, tuple[Turn, int]] = {}
        self._kept: dict[int, int] = {}  # of these turns, what the history keeps; samples

    # --- beginning ------------------------------------------------------------------------------------------

    def start(
        self, options: opt.TurnOptions, *, event_id: str | None = None, begun: int | None = None
    ) -> list[act.Action]:
        """Opens a turn; there must be no live one. An `Error` if `options.input` names an unknown item.

        `begun`: the number of the turn, if the engine has begun it on a guess.
        """
        opened = self._making.open(options, event_id=event_id, begun=begun)
        if isinstance(opened, notices.Error):
            return [opened]
        self.mouth.live, made = opened
        return made if self._making.engine_up else made + self.fail(AWAY)

    def play(self, pcm: Pcm, options: opt.TurnOptions, now: float) -> list[act.Action]:
        """Opens a turn that is made already: 24 kHz samples from elsewhere. There must be no live one."""
        turn = self._making.new_turn(options)
        turn.add_audio(ev.AudioOut(turn.id, 0, pcm, ()))
        turn.ended = ev.TurnEnded(turn.id, "stop", ev.Usage(), ())
        self.mouth.live = turn
        return [notices.TurnOpened(turn.id, turn.item_id, options), *self.pump(now)]

    # --- going on -------------------------------------------------------------------------------------------

    def on_engine(self, event: ev.TurnEvent, now: float) -> list[act.Action]:
        """What the engine says of a turn; what comes too late is dropped."""
        live = self.mouth.live
        if live is None or event.turn != live.id or live.ended is not None:
            return []
        match event:
            case ev.AudioOut():
                live.add_audio(event)
                return self.pump(now)
            case ev.TurnEnded(_, "cancelled"):
                return self.fail(GAVE_UP)
            case ev.TurnEnded():
                live.ended = event
                return []
            case ev.TurnFailed(_, code, message):
                return self.fail(notices.TurnError(code, message))
            case ev.TextOut(_, text):
                if text:
                    self._show(live)
                return self._making.tell(live, event)
            case ev.TurnStarted() | ev.ThoughtOut() | ev.ToolCalled():
                return self._making.tell(live, event)
            case _:
                assert_never(event)

    def goes_on(self, event: ev.AudioOut) -> bool:
        """Whether it is more of what is being said, and not the last of it."""
        live = self.mouth.live
        return live is not None and event.turn == live.id and live.ended is None and live.sent > 0

    @property
    def sounds(self) -> bool:
        """Whether the live turn has begun to be sent."""
        return self.mouth.live is not None and self.mouth.live.sent > 0

    @property
    def unfinished(self) -> AssistantItem | None:
        """The live turn's message with the words that the client was told; the history knows only its place."""
        return None if self.mouth.live is None else self.mouth.live.item()

    def interruptible(self, now: float) -> bool:
        """Whether a voice may stop all that it would stop now."""
        mouth = self.mouth
        turns = mouth.audible if mouth.live is None else (*mouth.audible, mouth.live)
        return all(turn.options.interruptible for turn in turns) and all(
            mouth.heard(turn, now) >= ms_to_samples(turn.options.protected_ms, rate=VOICE_RATE)
            for turn in mouth.audible
        )

    def pump(self, now: float) -> list[act.Action]:
        """Sends what may be sent now."""
        sends = self.mouth.pump(now)
        if sends and self.mouth.live is not None:
            self._show(self.mouth.live)
        return list(sends)

    def let_go(self, now: float) -> list[act.Action]:
        """Goes on where it was held, at the exact sample."""
        self.mouth.held = False
        return self.pump(now)

    def _show(self, turn: Turn) -> None:
        """The message takes its place in the history as soon as the client is told of it."""
        if not turn.visible and turn.options.conversation:
            item = AssistantItem(turn.item_id, "", spoken=turn.spoken, complete=False)
            self._talk.place(item, turn.previous_item_id)
        turn.visible = True

    # --- ending ---------------------------------------------------------------------------------------------

    def complete(self) -> list[act.Action]:
        """Closes the live turn if it is generated and sent to its end; the player may still be at it."""
        if not self.mouth.finished:
            return []
        turn = self.mouth.close()
        if turn.ended is not None and turn.ended.reason == "max_tokens":
            return self._closed(turn, turn.item(), "incomplete", "max_output_tokens")
        return self._closed(turn, turn.item(), "completed", None)

    def fail(self, error: notices.TurnError) -> list[act.Action]:
        """The engine cannot go on with the live turn: what was sent stays and is heard, what was not is gone."""
        live = self.mouth.live
        if live is None or live.ended is not None:
            return []
        self.mouth.close()
        return self._closed(live, live.heard_item(live.sent), "failed", "error", error)

    def silence(self, reason: notices.CloseReason, now: float) -> list[act.Action]:
        """Stops at once. Of every turn that is cut, the history keeps what was heard."""
        mouth, live = self.mouth, self.mouth.live
        cut = [(turn, mouth.heard(turn, now), mouth.bound(turn, now)) for turn in mouth.audible]
        made: list[act.Action] = []
        if live is not None and live.ended is None:
            made.append(act.CancelTurn(live.id))
        made += [act.Flush(turn.id) for turn, _, _ in cut]
        mouth.hush(now)
        if live is not None:
            heard = next((samples for turn, samples, _ in cut if turn is live), 0)
            mouth.close()
            made += self._closed(live, live.heard_item(heard), "cancelled", reason)
        if cut:
            self._cut = {turn.item_id: (turn, bound) for turn, _, bound in cut}
            self._kept = {turn.id: heard for turn, heard, _ in cut}
        if live is not None and live.spoken and not live.sent:
            cut.append((live, 0, 0))  # its words were shown, its voice was not heard
        for turn, heard, _ in cut:
            made += self._keep_heard(turn, heard) + self._heard(turn, heard)
        return made

    def _closed(
        self,
        turn: Turn,
        item: AssistantItem | None,
        status: notices.TurnStatus,
        reason: notices.CloseReason | None,
        error: notices.TurnError | None = None,
    ) -> list[act.Action]:
        bounded: list[act.Action] = []
        if turn.options.conversation:
            bounded = self._talk.close_turn(item, turn.calls, turn.previous_item_id)
        closed = notices.TurnClosed(turn.id, status, reason, item, turn.usage, error, turn.context)
        return [closed, *turn.forgotten(), *bounded]

    def _keep_heard(self, turn: Turn, samples: int) -> list[act.Action]:
        item = turn.heard_item(samples)
        if item is None or not turn.options.conversation or self._talk.history.find(item.id) is None:
            return []
        self._talk.history = self._talk.history.replace(item)
        return [notices.ItemTruncated(item.id, samples_to_ms(item.samples, rate=VOICE_RATE))]

    def _heard(self, turn: Turn, samples: int) -> list[act.Action]:
        """What is known of how much of a turn was heard, where that is of interest."""
        if not (turn.spoken and turn.options.conversation and turn.visible):
            return []
        item = turn.heard_item(samples)
        told = notices.TurnHeard(
            turn.id,
            turn.item_id,
            generated_ms=samples_to_ms(turn.generated, rate=VOICE_RATE),
            sent_ms=samples_to_ms(turn.sent, rate=VOICE_RATE),
            heard_ms=samples_to_ms(samples, rate=VOICE_RATE),
            words=count_words(turn.text),
            heard_words=count_words(item.text if item is not None else ""),
            acknowledged=self.mouth.acknowledges,
        )
        return [told]

    def settle(self, now: float) -> list[act.Action]:
        """Lets go of turns that were heard to their end."""
        return [told for turn in self.mouth.settle(now) for told in self._heard(turn, turn.sent)]

    def acknowledge(self, event: ev.Played) -> list[act.Action]:
        """The player says how far it is in a turn, or how far it came in one that was cut."""
        self.mouth.acknowledge(event.turn, event.samples)
        for turn, most in self._cut.values():
            samples = min(event.samples, most)
            if turn.id == event.turn and samples > self._kept.get(turn.id, most):
                self._kept[turn.id] = samples
                return self._keep_heard(turn, samples) + self._heard(turn, samples)
        return []

    def truncate(self, event: ev.ItemTruncate, now: float) -> list[act.Action]:
        """The client knows best where its player stood; believed as far as time allows, clamped and not refused."""
        item = self._talk.history.find(event.item_id)
        if not isinstance(item, AssistantItem):
            message = f"There is no assistant item {event.item_id!r}."
            return [notices.Error("item_truncate_invalid_item_id", message, "item_id", event.event_id)]
        made: list[act.Action] = []
        if self.mouth.live is not None and self.mouth.live.item_id == item.id:
            made = self.silence("client_cancelled", now)
        for turn in self.mouth.audible:
            if turn.item_id == item.id:
                self._cut, self._kept = {item.id: (turn, self.mouth.bound(turn, now))}, {}
                self.mouth.release(turn, now)
        samples = ms_to_samples(max(event.audio_end_ms, 0), rate=VOICE_RATE)
        if item.id in self._cut:
            turn, most = self._cut[item.id]
            samples = min(samples, most)
            self._kept.pop(turn.id, None)  # that is its last word
            told = self._keep_heard(turn, samples) + self._heard(turn, samples)
            return [a for a in made if not (isinstance(a, notices.TurnHeard) and a.turn == turn.id)] + told
        self._talk.history = self._talk.history.heard_cut(item.id, samples)
        kept = min(event.audio_end_ms, samples_to_ms(item.samples, rate=VOICE_RATE))
        return [*made, notices.ItemTruncated(item.id, max(kept, 0))]
