"""The controller of one call: the ear, our replies, and the rules between them; events in, actions out.

It is pure: time comes in as `now`, ids are counters, nothing is logged. `handle` takes any event in any state; a
request that cannot be met gives an `Error` action and changes nothing. STATES.md draws the machines (tables.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.asides import Asides
from voiceagent.core.condense import Condenser
from voiceagent.core.conversation import AUDIO_BUDGET, Conversation
from voiceagent.core.ear import GROWING, Listener
from voiceagent.core.errands import Errands
from voiceagent.core.guess import Guesses
from voiceagent.core.history import AudioContent, History, Item, Piece, UserItem
from voiceagent.core.interruptions import Interruptions
from voiceagent.core.latency import Latency
from voiceagent.core.making import DOWN, Making
from voiceagent.core.patience import EndReason
from voiceagent.core.playout import TICK_S
from voiceagent.core.questions import Questions
from voiceagent.core.replies import Replies
from voiceagent.core.tables import Ear, Mouth, Voice
from voiceagent.core.transcripts import Transcripts
from voiceagent.units import MODEL_RATE, PIECE_SAMPLES, samples_to_ms

NEVER = float("inf")  #: of a deadline


class Controller:
    """One call, from the first frame to the hang-up.

    Args:
        config: the session's settings at the start.
        id_prefix: begins the ids of the items made here; unique among the sessions of a server.
        audio_budget: bytes of sound that the conversation may hold.
    """

    def __init__(
        self, config: opt.SessionConfig, *, id_prefix: str, audio_budget: int = AUDIO_BUDGET
    ) -> None:
        self._config = config
        self._talk = Conversation(id_prefix=id_prefix, audio_budget=audio_budget)
        self._ear = Listener(
            config.turn_detection,
            self._talk.new_piece,
            piece_samples=PIECE_SAMPLES if config.replies else GROWING,
        )
        self._making = Making(self._talk)
        self._replies = Replies(self._talk, self._making, config.lead_ms)
        self._asides = Asides(self._making)
        self._errands = Errands(self._talk)
        self._guesses = Guesses(self._talk, self._making, self._ear, self._replies)
        self._questions = Questions()
        self._interruptions = Interruptions(self._ear, self._replies)
        self._interruptions.configure(config)
        self._transcripts = Transcripts(self._talk, keep_audio=config.replies, how=config.dictation)
        self._condenser = Condenser(self._talk, self._making, self._transcripts)
        self._latency = Latency()
        self._utterance_id: str | None = None  # id told to the client for the utterance in progress
        self._opened_at = 0  # input sample at which the mouth left IDLE
        self._unanswered: list[str] = []  # utterances, where each is answered for itself
        self._due = False  # an utterance is to be answered as soon as no turn is live
        self._ahead = False  # somebody began to speak, or a piece is full: the engine may read ahead
        self._spoke = False  # we spoke last, and have not been idle since
        self._idle_since: float | None = None  # time at which our voice had faded, if nobody spoke since
        self._over = False
        self._now = float("-inf")
        self._wake = NEVER  # when time alone will bring something
        self._wake_beside = NEVER  # the same, other than speech of ours
        self._settled = False  # the last look at the state found nothing to do

    # --- what the shell sees --------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """The conversation so far."""
        return self._talk.history

    @property
    def ear(self) -> Ear:
        """State of the person's side."""
        return self._ear.state

    @property
    def mouth(self) -> Mouth:
        """State of the assistant's side, as of the last call."""
        return self._replies.mouth.state

    def next_deadline(self) -> float | None:
        """When `handle_timeout` wants to be called; None = not before the next event."""
        return None if self._wake == NEVER else self._wake

    def _deadline(self) -> float:
        speech = self._replies.mouth.next_deadline(self._now)
        return self._wake_beside if speech is None else min(speech, self._wake_beside)

    def _deadline_beside_speech(self) -> float:
        times = (self._ear.deadline, self._idle_deadline(), self._errands.deadline())
        return min([time for time in times if time is not None], default=NEVER)

    def handle_timeout(self, now: float) -> list[act.Action]:
        """Time has passed: sends what may be sent, notices what was heard. Too early or too often is harmless."""
        if self._over:
            return []
        goes_on = self._settled and self._replies.sounds and now < self._wake_beside
        made = self._tick(now)
        if not goes_on or self._replies.mouth.finished:
            return self._done(None, made)
        self._wake = self._deadline()
        return made

    def handle(self, event: ev.Event, now: float) -> list[act.Action]:
        """What to do about one event. `now` in seconds on any clock that does not go back."""
        if self._over:
            return []
        # Nothing is to be done before something happens; deadlines look a tick later than what they wait for.
        calm = self._settled and now < self._wake - TICK_S
        made = self._short_way(event, now) if calm else None
        return made if made is not None else self._done(event, self._tick(now) + self._dispatch(event))

    def _short_way(self, event: ev.Event, now: float) -> list[act.Action] | None:
        """What to do about sound or silence of which nothing else follows, as of most; None about anything else."""
        match event:
            case ev.AudioIn(at, pcm):
                return [] if self._ear.goes_on(at, pcm) else None
            case ev.SpeechProb(at, p, level):
                return [] if self._ear.stays_quiet(at, p, now, level) else None
            case ev.AudioOut() if self._replies.goes_on(event):
                self._now = max(self._now, now)
                made = self._replies.on_engine(event, self._now)
                self._wake = self._deadline()
                return made
            case _:
                return None

    def _done(self, event: ev.Event | None, made: list[act.Action]) -> list[act.Action]:
        """With all that follows of what was done."""
        made = self._latency.observe(event, self._follow(made), self._now)
        self._settled = all(isinstance(action, act.SendAudio) for action in made)
        self._wake_beside = NEVER if self._over else self._deadline_beside_speech()
        self._wake = NEVER if self._over else self._deadline()
        return made

    def _follow(self, made: list[act.Action]) -> list[act.Action]:
        """With what follows of it: of the state, and of tools that were called."""
        made = made + self._errands.follow(made, self._now)
        stirred = True
        while stirred:
            more = self._advance()
            made += more + self._errands.follow(more, self._now)
            stirred = self._errands.stirred()
        return made

    def _dispatch(self, event: ev.Event) -> list[act.Action]:
        match event:
            case ev.AudioIn(at, pcm):
                begins = self._ear.vad is None and self._ear.empty
                full = self._ear.hear(at, pcm)
                self._ahead = self._ahead or begins or bool(full)
                return self._full(full)
            case ev.SpeechProb():
                return self._on_probability(event)
            case (
                ev.TurnStarted()
                | ev.ThoughtOut()
                | ev.TextOut()
                | ev.AudioOut()
                | ev.ToolCalled()
                | ev.TurnEnded()
                | ev.TurnFailed()
            ):
                return self._on_turn_event(event) + self._guesses.on_engine(event, self._now)
            case ev.Played():
                return self._replies.acknowledge(event)
            case ev.LineBusy(busy):
                self._replies.mouth.busy = busy
                return []
            case ev.ToolReturned():
                return self._on_tool_returned(event)
            case ev.EndJudged():
                return self._on_words(event)
            case ev.TranscriptDelta() | ev.Transcript() | ev.TranscriptFailed():
                return [] if self._condenser.takes_words(event) else self._transcripts.on_engine(event)
            case ev.EngineDown():
                self._making.engine_up = False
                self._condenser.engine_down()
                made = self._replies.fail(DOWN) + self._asides.fail(DOWN) + self._guesses.lose("failed")
                return made + self._transcripts.on_engine(event)
            case ev.EngineUp():
                self._making.engine_up = True
                return self._transcripts.on_engine(event)
            case ev.Detached() | ev.Hangup():
                return self._on_end_of_call(event)
            case _:
                return self._on_request(event)

    def _on_turn_event(self, event: ev.TurnEvent) -> list[act.Action]:
        made = self._replies.on_engine(event, self._now) + self._asides.on_engine(event)
        self._condenser.on_turn(event, self._replies.mouth.live)
        return made

    def _on_request(self, event: ev.Request) -> list[act.Action]:
        match event:
            case ev.Commit():
                return self._on_commit(event)
            case ev.Clear():
                self._ear.forget(everything=True)
                self._utterance_id = None
                return [notices.BufferCleared(), *self._transcripts.abandon(), *self._let_go("request")]
            case ev.Respond():
                return self._on_respond(event)
            case ev.RespondSoon():
                self._due = True
                return []
            case ev.Play():
                return self._on_play(event)
            case ev.Cancel():
                return self._on_cancel(event)
            case ev.OutputClear():
                return self._silence("client_cancelled")
            case ev.Configure(config):
                begins_anew = self._ear.vad is None and config.turn_detection is not None
                made = self._transcripts.abandon() if begins_anew else []
                made += self._guesses.unsettle("changed")
                self._config, self._transcripts.how = config, config.dictation
                self._interruptions.configure(config)
                self._ear.configure(config.turn_detection)
                self._replies.mouth.configure(config.lead_ms)
                return made if self._interruptions.possible(self._now) else made + self._let_go("request")
            case ev.ItemCreate():
                return self._on_item_create(event)
            case ev.ItemDelete():
                self._errands.forget(event.item_id)
                return self._talk.delete(event)
            case ev.Approve():
                return self._errands.approve(event)
            case ev.ItemRetrieve():
                return self._talk.retrieve(event)
            case ev.ItemTruncate():
                return self._replies.truncate(event, self._now)
            case _:
                assert_never(event)

    # --- what time and state bring --------------------------------------------------------------------------

    def _tick(self, now: float) -> list[act.Action]:
        """What follows from the time alone."""
        self._now = max(self._now, now)
        if self._now < self._wake:
            return []
        made = self._replies.settle(self._now) + self._replies.pump(self._now)
        starved, idle = self._ear.deadline, self._idle_deadline()
        if starved is not None and starved <= self._now:
            made += self._on_utterance_over("no_input")
        if idle is not None and idle <= self._now:
            made += self._on_idle()
        return made

    def _advance(self) -> list[act.Action]:
        """What follows from the state alone: turns that are over, voices to announce, answers that are due."""
        if self._over:
            return []
        mouth = self._replies.mouth
        made = self._replies.complete()
        made += self._guesses.review()
        made += self._replies.settle(self._now)
        if mouth.idle:
            mouth.held = False
            made += self._interruptions.end("dismissed", "reply_over")
        unheard = self._utterance_id is None and not mouth.held
        if unheard and self._ear.state is Ear.SPEECH and not self._interruptions.doubtful:
            made.append(self._announce())
        made += self._on_errands()
        if self._due and mouth.live is None and self._ear.state is Ear.QUIET:
            options = self._answer()
            self._due = options is not None
            made += [] if options is None else self._start(options)
        if not self._due:
            made += self._guesses.drop_decided()
        free = mouth.live is None and self._guesses.open is None
        if free and self._ear.state is Ear.QUIET and not self._due:
            made += self._condenser.review(self._config)
            self._ahead = self._condenser.stirred() or self._ahead
        if self._ahead and free and self._config.replies and not self._config.alone:
            made.append(self._prepare())
        self._watch_idleness()
        wanted = self._utterance_id is not None or self._interruptions.pending
        return made + self._questions.follow(self._ear, engine_up=self._making.engine_up, wanted=wanted)

    def _answer(self) -> opt.TurnOptions | None:
        """How to answer what was said; None if nothing of it is left."""
        options = self._config.turn_options()
        said, self._unanswered = self._unanswered, []
        if not self._config.alone:
            return options
        known = tuple(
            opt.ItemReference(item_id) for item_id in said if self.history.find(item_id) is not None
        )
        return replace(options, input=known) if known else None

    def _watch_idleness(self) -> None:
        idle = self._replies.mouth.idle
        if not idle or self._ear.state is not Ear.QUIET:
            self._spoke = not idle
            self._idle_since = None
        elif self._spoke:
            self._spoke = False
            self._idle_since = self._now

    def _idle_deadline(self) -> float | None:
        vad = self._ear.vad
        if vad is None or vad.idle_timeout_ms is None or self._idle_since is None:
            return None
        return self._idle_since + vad.idle_timeout_ms / 1000

    def _on_idle(self) -> list[act.Action]:
        """Nobody spoke for long after our reply: the silence is an utterance."""
        self._idle_since = None
        start = samples_to_ms(self._ear.buffer.start, rate=MODEL_RATE)
        pieces = self._ear.take_silence()
        if not pieces:
            return []
        end = samples_to_ms(self._ear.buffer.start, rate=MODEL_RATE)
        self._due = self._due or self._answers()
        item_id = self._talk.new_item_id()
        added = self._talk.add_user(item_id, tuple(pieces))
        return [notices.IdleTimedOut(item_id, start, end), *_encode(pieces), *added]

    # --- the person -----------------------------------------------------------------------------------------

    def _on_probability(self, event: ev.SpeechProb) -> list[act.Action]:
        fresh = event.at > self._ear.judged
        voice, full = self._ear.judge(event.at, event.p, self._now, event.level)
        self._ahead = self._ahead or bool(full)
        made = self._full(full)
        unheard = self._utterance_id is None
        if fresh:
            self._interruptions.note(event, announced=not unheard)
        if voice is Voice.ENDED:
            return made + self._on_utterance_over(self._ear.reason)
        if unheard and self._interruptions.far:
            return made + self._pass_over()
        if self._ear.state is Ear.SPEECH and fresh:
            return made + self._weigh(event)
        if self._ear.state is Ear.TRAILING and self._interruptions.pending:
            return made + self._weigh_pause()
        if unheard and voice is Voice.OFF:  # it was too soft to be believed at once
            return made + (self._pass_over() if self._interruptions.too_far else [self._announce()])
        if self._ear.state is Ear.TRAILING:
            made += self._guesses.consider(self._config, self._utterance_id, self._unanswered, self._now)
        return made

    def _weigh(self, event: ev.SpeechProb) -> list[act.Action]:
        """Somebody speaks. Over a turn of ours that may be an interruption: hold back until it is clear."""
        if not self._interruptions.possible(self._now):
            return []
        if self._interruptions.far:  # within an utterance of the caller's
            return self._let_go("faint")
        early = self._ear.run_start < self._opened_at  # who began before we did is no cough
        patient = self._config.barge_in == "patient" and not early and self._utterance_id is None
        start = max(self._ear.run_start, self._opened_at)
        made, sure = self._interruptions.weigh(event, start=start, patient=patient, now=self._now)
        if self._utterance_id is None and (sure or (early and not self._interruptions.doubtful)):
            made.append(self._announce())
        return made + self._silence("turn_detected") if sure else made

    def _on_words(self, event: ev.EndJudged) -> list[act.Action]:
        """What somebody said before this silence: it tells how long to wait, and whether a short voice was meant."""
        self._ear.told(event.at, event.text, event.complete)
        made = self._interruptions.say(event)
        if made and self._utterance_id is None:
            made.append(self._announce())
        return made + self._silence("turn_detected") if made else []

    def _weigh_pause(self) -> list[act.Action]:
        """The voice that is weighed has fallen silent. That may be all, and then it is no interruption."""
        reason = self._interruptions.pause()
        if reason is None:
            return []
        if self._utterance_id is None:
            self._ear.forget(everything=False)
        return self._let_go(reason)

    def _pass_over(self) -> list[act.Action]:
        """The voice that we hear is in the background: what came of it is forgotten."""
        if self._ear.state is Ear.QUIET:
            return []
        self._ear.forget(everything=False)
        return self._interruptions.pass_over() + self._replies.let_go(self._now)

    def _prepare(self) -> act.Prepare:
        """What can be read of the next prompt: the conversation, and the full pieces of what is being said."""
        self._ahead = False
        items = self._talk.in_view
        if self._ear.pieces:
            items = (*items, UserItem(self._utterance_id or "", (AudioContent(self._ear.pieces),)))
        return act.Prepare(items, self._config.turn_options())

    def _announce(self) -> notices.SpeechStarted:
        self._ahead = True
        self._utterance_id = self._talk.new_item_id()
        return notices.SpeechStarted(
            self._utterance_id, samples_to_ms(self._ear.buffer.start, rate=MODEL_RATE)
        )

    def _on_utterance_over(self, reason: EndReason) -> list[act.Action]:
        """The silence was long enough, or there is another reason."""
        if self._utterance_id is None:  # it was still weighed when its audio ceased to come
            was = self._interruptions.nature
            self._ear.forget(everything=False)
            return self._let_go(was)
        before, last_word = self.history, self._ear.last_word
        guessed = self._ear.offered
        made = self._commit(reason)
        if guessed:
            self._guesses.decided()
        if self.history is not before:
            self._due = self._due or self._answers()
            if self._answers():
                self._unanswered += [self.history.items[-1].id] if self._config.alone else []
                self._latency.finished(last_word, self._now)
        return made + self._let_go("no_news")

    def _full(self, pieces: list[Piece]) -> list[act.Action]:
        """Pieces of what is still being said. Who only listens wants their words at once."""
        if not pieces or self._config.replies or not self._config.transcribe:
            return _encode(pieces)
        item_id = self._utterance_id or self._transcripts.growing or self._talk.new_item_id()
        return [*_encode(pieces), *self._transcripts.grow(item_id, pieces)]

    def _answers(self) -> bool:
        return self._config.replies and self._ear.vad is not None and self._ear.vad.create_response

    def _on_commit(self, event: ev.Commit) -> list[act.Action]:
        if not self._ear.can_commit():
            message = "The input audio buffer is empty: append at least 100 ms of audio before committing."
            return [notices.Error("input_audio_buffer_commit_empty", message, event_id=event.event_id)]
        return self._commit("committed") + self._let_go("request")

    def _commit(self, reason: EndReason) -> list[act.Action]:
        silence = samples_to_ms(self._ear.silence_at_end, rate=MODEL_RATE)
        pieces, fresh, end = self._ear.finish(whole=reason == "committed")
        made = _encode(fresh)
        item_id, self._utterance_id = self._utterance_id, None
        if item_id is not None:
            end_ms = samples_to_ms(end, rate=MODEL_RATE)
            made.append(notices.SpeechStopped(item_id, end_ms, reason, silence))
        if not pieces:  # its audio was lost on the way in
            return made
        growing = self._transcripts.growing
        made += self._talk.add_user(item_id or growing or self._talk.new_item_id(), pieces)
        if growing is not None:
            return made + self._transcripts.finish(fresh)
        return made + self._transcribe(self.history.items[-1])

    def _transcribe(self, item: Item) -> list[act.Action]:
        if not self._config.transcribe or not isinstance(item, UserItem):
            return []
        return self._transcripts.begin(item)

    # --- requests -------------------------------------------------------------------------------------------

    def _on_respond(self, event: ev.Respond) -> list[act.Action]:
        if not event.options.conversation:
            tools = tuple(tool for tool in event.options.tools if tool.server is None)  # the client's alone
            options, unfinished = replace(event.options, tools=tools), self._replies.unfinished
            return self._asides.start(options, unfinished=unfinished, event_id=event.event_id)
        if self._replies.mouth.live is not None:
            message = "The conversation already has an active response: await response.done, or cancel it."
            return [
                notices.Error("conversation_already_has_active_response", message, event_id=event.event_id)
            ]
        return self._start(event.options, event_id=event.event_id)

    def _on_errands(self) -> list[act.Action]:
        """Results that may come in, the reply to them, and words for the time until then."""
        mouth, quiet = self._replies.mouth, self._ear.state is Ear.QUIET
        silence = quiet and mouth.idle
        recorded = (
            self._ear.vad is None and not self._ear.empty
        )  # they may be speaking: nobody listens for that
        self._errands.watch(silence=silence and not recorded, now=self._now)
        if mouth.live is not None:
            return []
        made = self._errands.deliver(silence=silence and not self._due, speak=not recorded)
        if self._due or not quiet:
            return made
        if self._errands.owes:
            return made + self._start(self._errands.reply(self._config.turn_options()))
        filler = self._errands.filler(self._now)
        return made if filler is None else made + self._start(filler)

    def _on_tool_returned(self, event: ev.ToolReturned) -> list[act.Action]:
        self._errands.returned(event)
        live = self._replies.mouth.live
        if live is None or not live.options.script or live.sent or not self._errands.back:
            return []
        return self._silence("tool_returned")  # what was to bridge the time has not begun

    def _start(self, options: opt.TurnOptions, *, event_id: str | None = None) -> list[act.Action]:
        idle = self.mouth is Mouth.IDLE
        made = self._guesses.confirm(options, self._now, self._on_turn_event)
        if not made:
            made = self._guesses.drop("changed") + self._replies.start(options, event_id=event_id)
        if not any(isinstance(action, notices.Error) for action in made):
            self._opened_at = self._ear.judged if idle else self._opened_at
            self._due = self._ahead = False
            self._errands.answered()
        return made

    def _on_play(self, event: ev.Play) -> list[act.Action]:
        made = self._silence("client_cancelled")
        self._opened_at = self._ear.judged
        return made + self._replies.play(event.pcm, event.options, self._now)

    def _on_cancel(self, event: ev.Cancel) -> list[act.Action]:
        if event.turn is not None and event.turn in self._asides:
            return self._asides.cancel(event.turn)
        live = self._replies.mouth.live
        if live is None or event.turn not in (None, live.id):
            message = "Cancellation failed: no active response found."
            return [notices.Error("response_cancel_not_active", message, event_id=event.event_id)]
        return self._silence("client_cancelled")

    def _on_item_create(self, event: ev.ItemCreate) -> list[act.Action]:
        live = self._replies.mouth.live
        promised = {
            self._utterance_id,
            self._transcripts.growing,
            *(live.item_ids if live is not None else ()),
            *self._asides.item_ids,
        }
        if event.item.id in promised:
            message = f"The id {event.item.id!r} belongs to an item that is being made."
            return [notices.Error("item_create_duplicate_item_id", message, "item.id", event.event_id)]
        made = self._talk.create(event)
        return made + [
            do
            for added in made
            if isinstance(added, notices.ItemAdded)
            for do in self._transcribe(added.item)
        ]

    def _on_end_of_call(self, event: ev.EndOfCall) -> list[act.Action]:
        made = self._silence("hangup") + self._asides.stop("hangup") + self._guesses.lose("hangup")
        made += self._condenser.stop()
        self._over = True
        if isinstance(event, ev.Hangup):
            return [*made, act.Close(event.code, event.reason)]
        return [action for action in made if isinstance(action, act.CancelTurn)]  # nobody is left to be told

    def _silence(self, reason: notices.CloseReason) -> list[act.Action]:
        self._replies.mouth.held = False
        why = "hangup" if reason == "hangup" else "request"
        return self._interruptions.end("dismissed", why) + self._replies.silence(reason, self._now)

    def _let_go(self, reason: str) -> list[act.Action]:
        """Goes on, where a voice held us; it was no interruption, for this reason."""
        return self._interruptions.end("dismissed", reason) + self._replies.let_go(self._now)


def _encode(pieces: Sequence[Piece]) -> list[act.Action]:
    return [act.EncodePiece(piece) for piece in pieces]
