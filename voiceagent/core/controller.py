"""The controller of one call: two machines, ear and mouth, joined by a few rules; events in, actions out.

It is pure: time comes in as `now`, ids are counters, nothing is logged. `handle` accepts any event in any state; a
request that cannot be fulfilled gives an `Error` action and changes nothing. core/STATES.md has the tables.
"""

from __future__ import annotations

from dataclasses import replace

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core.ear import Ear, Listener, Onset, Over, Pause
from voiceagent.core.endpoint import ms
from voiceagent.core.history import AssistantItem, AudioContent, History, Item, Piece, ToolCallItem, UserItem
from voiceagent.core.mouth import Mouth, Speech, Turn
from voiceagent.units import MODEL_RATE, VOICE_RATE, ms_to_samples, samples_to_ms

CONFIRM_MS = 250  #: speech over our voice or our thinking must last this long to be an interruption


class Controller:
    """One call, from the first frame to the hang-up.

    Args:
        config: the session's settings at the start.
        id_prefix: prefix of the item ids made here; unique among sessions that share a client.
    """

    def __init__(self, config: ev.SessionConfig, *, id_prefix: str = "item_") -> None:
        self._config = config
        self._prefix = id_prefix
        self._items_made = 0
        self._turns_made = 0
        self._ear = Listener(config.turn_detection)
        self._speech = Speech()
        self._speech.lead = _lead(config)
        self._history = History()
        self._utterance_id: str | None = None  # id that the utterance in progress will have, once announced
        self._waiting = False  # a user turn is to be answered as soon as the mouth is free
        self._closed = False
        self._now = 0.0  # time of the last call

    @property
    def history(self) -> History:
        """The conversation so far."""
        return self._history

    @property
    def ear(self) -> Ear:
        """State of the user's side."""
        return self._ear.state

    def mouth(self, now: float) -> Mouth:
        """State of the assistant's side."""
        return self._speech.state(now)

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called, None = not before the next event."""
        return None if self._closed else self._speech.next_deadline(self._now)

    def handle_timeout(self, now: float) -> list[act.Action]:
        """Time has passed: send what may be sent, notice what was heard."""
        if self._closed:
            return []
        self._now = now
        made = self._speech.pump(now)
        return made + self._advance(now)

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        """What to do about one event."""
        if self._closed:
            return []
        self._now = now
        made = self._dispatch(event, now)
        return made + self._advance(now)

    def _dispatch(self, event: ev.Event, now: float) -> list[act.Action]:
        match event:
            case ev.AudioIn():
                piece = self._ear.hear(event)
                return [act.EncodePiece(piece)] if piece else []
            case ev.SpeechProb():
                return self._on_speech(event, now)
            case ev.Commit():
                return self._on_commit(event, now)
            case ev.Clear():
                self._ear.discard()
                self._utterance_id = None
                return [act.BufferCleared()]
            case ev.Respond():
                return self._on_respond(event)
            case ev.Cancel():
                return self._on_cancel(event, now)
            case ev.OutputClear():
                return self._silence("client_cancelled", now)
            case ev.Configure(config):
                self._configure(config)
                return []
            case ev.ItemCreate():
                return self._on_item_create(event)
            case ev.ItemDelete():
                return self._on_item_delete(event)
            case ev.ItemRetrieve(item_id, event_id):
                item = self._history.find(item_id)
                if item is None:
                    message = f"There is no item {item_id!r}."
                    return [act.Error("item_retrieve_invalid_item_id", message, "item_id", event_id)]
                return [act.ItemRetrieved(item)]
            case ev.ItemTruncate():
                return self._on_item_truncate(event, now)
            case ev.Played(turn, samples):
                self._on_played(turn, samples, now)
                return []
            case ev.Detached() | ev.Hangup():
                return self._on_hangup()
            case ev.Transcript(item_id, text):
                return self._on_transcript(item_id, text)
            case ev.EngineDown():
                return self._fail("engine_down", "The engine stopped; it is being restarted.", now)
            case ev.EngineUp():
                return []
            case _:
                return self._from_engine(event, now)

    def _advance(self, now: float) -> list[act.Action]:
        """What follows from the state alone: a turn that is over is closed, a waiting one begins."""
        made: list[act.Action] = []
        self._speech.settle(now)
        if self._speech.finished():
            made += self._complete()
        if self._waiting and self._speech.state(now) is Mouth.IDLE and self._ear.state is Ear.QUIET:
            self._waiting = False
            made += self._start(self._default_options())
        return made

    # --- the user speaks ----------------------------------------------------------------------------------------

    def _on_speech(self, event: ev.SpeechProb, now: float) -> list[act.Action]:
        sign = self._ear.judge(event)
        match sign:
            case Onset(start):
                return self._on_onset(start, now)
            case Pause() if self._speech.held:
                return self._resume(now)
            case Over(end):
                return self._end_utterance(self._ear.finish(at=end), end)
            case _:
                pass
        if self._speech.held and self._ear.spoken_for(event.at) >= ms(CONFIRM_MS):
            made = self._silence("turn_detected", now)
            return [self._announce(self._ear.buffer.start), *made]
        return []

    def _on_onset(self, start: int, now: float) -> list[act.Action]:
        """Speech over our voice is not yet an interruption: hold, and see whether it lasts."""
        vad = self._ear.vad
        if self._speech.state(now) is Mouth.IDLE or vad is None or not self._interruptible(vad):
            return [self._announce(start)]
        self._speech.held = True
        return []

    def _interruptible(self, vad: ev.ServerVad) -> bool:
        live = self._speech.live
        return vad.interrupt_response and (live is None or live.options.interruptible)

    def _resume(self, now: float) -> list[act.Action]:
        """It was a cough: go on at the exact sample, forget the noise."""
        self._speech.held = False
        self._ear.discard()
        return self._speech.pump(now)

    def _announce(self, start: int) -> act.SpeechStarted:
        self._utterance_id = self._new_item_id()
        return act.SpeechStarted(self._utterance_id, samples_to_ms(start, rate=MODEL_RATE))

    def _end_utterance(self, pieces: tuple[Piece, ...], end: int) -> list[act.Action]:
        vad = self._ear.vad
        made: list[act.Action] = []
        if self._utterance_id is not None:
            made.append(act.SpeechStopped(self._utterance_id, samples_to_ms(end, rate=MODEL_RATE)))
        if pieces:
            made += self._commit(pieces)
            self._waiting = vad is not None and vad.create_response
        self._utterance_id = None
        return made

    def _commit(self, pieces: tuple[Piece, ...]) -> list[act.Action]:
        item = UserItem(self._utterance_id or self._new_item_id(), (AudioContent(pieces),))
        previous = self._history.items[-1].id if self._history.items else None
        self._history = self._history.append(item)
        made: list[act.Action] = [
            act.Committed(item.id, previous),
            act.ItemAdded(item, previous, done=True),
            act.ItemDone(item, previous),
        ]
        if self._config.transcribe:
            made.append(act.Transcribe(item.id, pieces))
        return made

    def _on_commit(self, event: ev.Commit, now: float) -> list[act.Action]:
        vad = self._ear.vad
        nothing = len(self._ear.buffer) == 0 if vad is None else self._ear.state is Ear.QUIET
        if nothing:
            return [
                act.Error(
                    "input_audio_buffer_commit_empty",
                    "The input audio buffer is empty: append audio before committing.",
                    event_id=event.event_id,
                )
            ]
        self._speech.held = False
        end = self._ear.buffer.end
        return self._end_utterance(self._ear.finish(), end) + self._speech.pump(now)

    # --- the assistant's turn -------------------------------------------------------------------------------

    def _default_options(self) -> ev.TurnOptions:
        config = self._config
        return ev.TurnOptions(
            modalities=config.modalities,
            instructions=config.instructions,
            tools=config.tools,
            tool_choice=config.tool_choice,
            voice=config.voice,
            temperature=config.temperature,
            max_tokens=config.max_tokens,
        )

    def _on_respond(self, event: ev.Respond) -> list[act.Action]:
        if self._speech.live is not None:
            return [
                act.Error(
                    "conversation_already_has_active_response",
                    "The conversation already has an active response: wait for response.done, or cancel it.",
                    event_id=event.event_id,
                )
            ]
        self._waiting = False
        return self._start(event.options)

    def _start(self, options: ev.TurnOptions) -> list[act.Action]:
        self._turns_made += 1
        turn = Turn(self._turns_made, self._new_item_id(), options)
        self._speech.live = turn
        items = self._history.items if options.input is None else self._resolve(options.input)
        return [
            act.TurnOpened(turn.id, turn.item_id, options, self._history.last_id),
            act.StartTurn(turn.id, items, options),
        ]

    def _resolve(self, given: tuple[Item | ev.ItemReference, ...]) -> tuple[Item, ...]:
        found = [self._history.find(i.id) if isinstance(i, ev.ItemReference) else i for i in given]
        return tuple(i for i in found if i is not None)

    def _from_engine(self, event: ev.Event, now: float) -> list[act.Action]:
        """Events of a turn; what belongs to another than the live one came too late and is dropped."""
        live = self._speech.live
        if live is None or getattr(event, "turn", None) != live.id:
            return []
        match event:
            case ev.TextOut():
                made = self._speech.on_text(event)
                self._show(live)
                return made
            case ev.AudioOut():
                self._show(live)
                return self._speech.on_audio(event, now)
            case ev.ToolCalled():
                return self._speech.on_tool(event, self._new_item_id())
            case ev.TurnEnded(_, "cancelled"):
                return self._fail("engine_error", "The engine gave the turn up.", now)
            case ev.TurnEnded():
                self._speech.on_ended(event)
                return []
            case ev.TurnFailed(_, code, message):
                return self._fail(code, message, now)
            case _:
                return []

    def _show(self, turn: Turn) -> None:
        """The message takes its place in the history as soon as something is said."""
        if turn.options.conversation and self._history.find(turn.item_id) is None and not turn.said_something:
            self._history = self._history.append(
                AssistantItem(turn.item_id, "", spoken=turn.spoken, complete=False)
            )

    def _complete(self) -> list[act.Action]:
        turn = self._speech.live
        assert turn is not None
        assert turn.ended is not None
        if turn.ended.reason == "max_tokens":
            closed = self._speech.close("incomplete", "max_output_tokens", None)
        else:
            closed = self._speech.close("completed", None, None)
        return self._keep(turn, closed)

    def _keep(self, turn: Turn, closed: act.TurnClosed) -> list[act.Action]:
        """Writes a closed turn into the history: its message, then its tool calls."""
        if turn.options.conversation:
            shown = self._history.find(turn.item_id) is not None
            if closed.item is not None:
                history = self._history
                self._history = history.replace(closed.item) if shown else history.append(closed.item)
            elif shown:
                self._history = self._history.delete(turn.item_id)
            for call in turn.calls:
                item = ToolCallItem(call.item_id, call.call_id, call.name, call.arguments)
                self._history = self._history.append(item)
        return [closed]

    # --- stopping -------------------------------------------------------------------------------------------

    def _on_cancel(self, event: ev.Cancel, now: float) -> list[act.Action]:
        live = self._speech.live
        if live is None or (event.turn is not None and event.turn != live.id):
            return [
                act.Error(
                    "response_cancel_not_active",
                    "Cancellation failed: no active response found.",
                    event_id=event.event_id,
                )
            ]
        return self._silence("client_cancelled", now)

    def _silence(self, reason: act.CloseReason, now: float) -> list[act.Action]:
        """Stops speaking at once: history, tokens and transcript end where hearing ended."""
        live = self._speech.live
        cut = self._speech.silence(now)
        heard = {turn.id: samples for turn, samples in cut}
        made: list[act.Action] = [act.CancelTurn(live.id)] if live is not None else []
        made += [act.Flush(turn.id) for turn, _ in cut]
        if live is not None:
            closed = self._speech.close("cancelled", reason, heard.get(live.id, 0))
            live.calls.clear()
            made += self._keep(live, closed)
        made += [self._truncated(turn, samples) for turn, samples in cut]
        return made

    def _truncated(self, turn: Turn, samples: int) -> act.ItemTruncated:
        if self._history.find(turn.item_id) is not None:
            self._history = self._history.heard_cut(turn.item_id, samples)
        return act.ItemTruncated(turn.item_id, samples_to_ms(samples, rate=VOICE_RATE))

    def _fail(self, code: str, message: str, now: float) -> list[act.Action]:
        """The engine cannot go on: what was sent stays, what was not is gone."""
        live = self._speech.live
        if live is None:
            return []
        live.pending.clear()
        closed = self._speech.close("failed", "error", live.sent, error=act.TurnError(code, message))
        live.calls.clear()
        return self._keep(live, closed)

    def _on_hangup(self) -> list[act.Action]:
        self._closed = True
        return [act.CancelTurn(self._speech.live.id)] if self._speech.live is not None else []

    def _on_played(self, turn_id: int, samples: int, now: float) -> None:
        turn = next((t for t in self._speech.voiced if t.id == turn_id), None)
        if turn is not None:
            self._speech.playout.acknowledge(turn.base + samples, now)

    # --- the conversation's items -----------------------------------------------------------------------------

    def _configure(self, config: ev.SessionConfig) -> None:
        if config.turn_detection != self._config.turn_detection:
            self._ear.configure(config.turn_detection)
            self._utterance_id = None
            self._speech.held = False
        self._config = config
        self._speech.lead = _lead(config)

    def _on_item_create(self, event: ev.ItemCreate) -> list[act.Action]:
        item, previous = event.item, event.previous_item_id
        if not item.id:
            item = replace(item, id=self._new_item_id())
        if self._history.find(item.id) is not None:
            message = f"There is already an item {item.id!r}."
            return [act.Error("item_create_duplicate_item_id", message, "item.id", event.event_id)]
        if previous not in (None, "root") and self._history.find(str(previous)) is None:
            message = f"There is no item {previous!r}."
            return [
                act.Error("item_create_invalid_previous_item_id", message, "previous_item_id", event.event_id)
            ]
        if previous is None:
            self._history = self._history.append(item)
        else:
            self._history = self._history.insert_after(previous, item)
        before = self._history.previous_id(item.id)
        made: list[act.Action] = [act.ItemAdded(item, before, done=True), act.ItemDone(item, before)]
        pieces = _audio_pieces(item)
        if pieces and self._config.transcribe:
            made.append(act.Transcribe(item.id, pieces))
        return made

    def _on_item_delete(self, event: ev.ItemDelete) -> list[act.Action]:
        if self._history.find(event.item_id) is None:
            message = f"There is no item {event.item_id!r}."
            return [act.Error("item_delete_invalid_item_id", message, "item_id", event.event_id)]
        self._history = self._history.delete(event.item_id)
        return [act.ItemDeleted(event.item_id)]

    def _on_item_truncate(self, event: ev.ItemTruncate, now: float) -> list[act.Action]:
        item = self._history.find(event.item_id)
        if not isinstance(item, AssistantItem):
            message = f"There is no assistant item {event.item_id!r}."
            return [act.Error("item_truncate_invalid_item_id", message, "item_id", event.event_id)]
        live = self._speech.live
        made = self._silence("client_cancelled", now) if live is not None and live.item_id == item.id else []
        # A late truncate is clamped, never refused: an error here kills a stock client.
        self._history = self._history.heard_cut(item.id, ms_to_samples(event.audio_end_ms, rate=VOICE_RATE))
        return [*made, act.ItemTruncated(item.id, event.audio_end_ms)]

    def _on_transcript(self, item_id: str, text: str) -> list[act.Action]:
        item = self._history.find(item_id)
        if not isinstance(item, UserItem):
            return []
        content = tuple(
            replace(p, transcript=text) if isinstance(p, AudioContent) else p for p in item.content
        )
        self._history = self._history.replace(replace(item, content=content))
        return [act.InputTranscript(item_id, text)]

    def _new_item_id(self) -> str:
        self._items_made += 1
        return f"{self._prefix}{self._items_made:04d}"


def _audio_pieces(item: Item) -> tuple[Piece, ...]:
    if not isinstance(item, UserItem):
        return ()
    return tuple(piece for part in item.content if isinstance(part, AudioContent) for piece in part.pieces)


def _lead(config: ev.SessionConfig) -> int | None:
    return None if config.lead_ms is None else ms_to_samples(config.lead_ms, rate=VOICE_RATE)
