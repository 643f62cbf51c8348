"""The OpenAI Live protocol as a dialect: a session that is started, listens and speaks on one timeline, and is closed.

It keeps what belongs to one connection and nothing of the call itself. LIVE.md says what of the protocol is there,
and what deviates.
"""

from __future__ import annotations

import binascii
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec
import numpy as np

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.units import VOICE_RATE
from voiceagent.wire import live_events as ev
from voiceagent.wire.codecs import AudioDecoder, AudioEncoder
from voiceagent.wire.dialect import EXPIRED, Reply, WireError, error_type, refused
from voiceagent.wire.live_delegation import Append, Delegations
from voiceagent.wire.live_session import LiveSession
from voiceagent.wire.live_timeline import Timeline
from voiceagent.wire.realtime_decode import decode_message
from voiceagent.wire.realtime_items import from_base64
from voiceagent.wire.realtime_writer import Writer

FIXTURE_S = 30
TAIL = np.zeros(VOICE_RATE // 2, np.int16)
"""Sent behind a reply: the published service never stops sending, and some players know by the quiet that it ended."""
SPANS = 64  #: utterances whose transcript may still come
CLOSE_REQUESTED = "close_requested"
APPENDED = {
    ev.InstructionsAppend: "session.instructions.appended",
    ev.ThinkingAppend: "session.thinking.appended",
    ev.CommentaryAppend: "session.commentary.appended",
}

_message = msgspec.json.Decoder(ev.AnyClientEvent)


@dataclass(slots=True)
class _Speech:
    """The turn that is live."""

    turn: int
    encoder: AudioEncoder
    fixture: dict[str, str] | None  #: what its events name the request with; None = the model speaks
    text: str = ""  #: of its transcript, what no audio has gone out with
    said: bool = False  #: some of its transcript was told
    calls: list[notices.TurnTool] = field(default_factory=list)


@dataclass(slots=True)
class _Started:
    """What there is once a session has started."""

    session: LiveSession
    timeline: Timeline
    delegations: Delegations
    decoder: AudioDecoder


class LiveDialect:
    """One Live connection; see `wire.dialect.Dialect`.

    Args:
        session_id: shown to the client and prefix of the ids made here.
        base: the server's session defaults.
        voices: the engine's voices.
        clock: seconds on a clock that does not go back.
        unix_time: seconds since 1970 at this moment.
        session_s: how long the server lets a session last, from this moment.
        context_tokens: how much the model can see at once; 0 = not known.
    """

    def __init__(
        self,
        *,
        session_id: str,
        base: opt.SessionConfig,
        voices: Collection[str],
        clock: Callable[[], float],
        unix_time: float,
        session_s: float,
        context_tokens: int = 0,
    ) -> None:
        self._id = session_id
        self._base = base
        self._voices = voices
        self._clock = clock
        self._unix_offset = unix_time - clock()
        self._expires_at = int(unix_time + session_s)
        self._context_tokens = context_tokens
        self._writer = Writer(session_id)
        self._event = self._writer.event
        self._started: _Started | None = None
        self._speech: _Speech | None = None
        self._muted = False
        self._spans: OrderedDict[str, list[int]] = OrderedDict()  # of utterances, on the timeline
        self._written = {"input": False, "output": False}  # whether a transcript has begun
        self._close_event: str | None = None

    @property
    def config(self) -> opt.SessionConfig:
        """What the session asks of the controller, before it has started."""
        return self._base

    # --- frames in ------------------------------------------------------------------------------------------

    def open(self) -> Iterator[str]:
        """Nothing: the client speaks first."""
        yield from ()

    def receive(self, frame: str | bytes) -> Iterator[core.Event | Reply]:
        """Events and direct replies for one client message; raises WireError only."""
        message = decode_message(frame, _message, ev.EVENT_TYPES)
        try:
            if isinstance(message, ev.SessionStart):
                yield from self._start(message)
            elif self._started is None:
                raise WireError(
                    "The session has not started.",
                    code="session_not_started",
                    param="type",
                    remedy="Send session.start first, and wait for session.started.",
                )
            else:
                yield from self._dispatch(message, self._started)
        except WireError as error:
            error.event_id = message.event_id
            raise
        except InputError as error:
            raise refused(error, message.event_id) from error

    def _start(self, message: ev.SessionStart) -> Iterator[core.Event | Reply]:
        if self._started is not None:
            raise WireError("The session has started already.", code="session_already_started", param="type")
        session = LiveSession(
            message.session,
            base=self._base,
            session_id=f"sess_{self._id}",
            voices=self._voices,
            expires_at=self._expires_at,
        )
        delegations = Delegations(
            session, prefix=self._id, writer=self._writer, unix_time=lambda: self._clock() + self._unix_offset
        )
        decoder = AudioDecoder(session.format["type"], rate=session.format["rate"])
        self._started = _Started(session, Timeline(self._clock), delegations, decoder)
        yield core.Configure(session.to_core(), message.event_id)
        for item in session.history:
            yield core.ItemCreate(item, None, message.event_id)
        yield self._reply("session.started", message, session=session.shown)
        if session.replaced_voice is not None:
            words = f"There is no voice {session.replaced_voice!r} here: {session.voice!r} speaks instead."
            yield self._reply("info", message, code="voice_replaced", message=words)

    def _dispatch(
        self,
        message: ev.AnyClientEvent,
        now: _Started,
    ) -> Iterator[core.Event | Reply]:
        match message:
            case ev.AudioAppend():
                yield from self._hear(message, now)
            case ev.Mute():
                self._muted = True
                yield self._reply("session.input_audio.muted", message)
            case ev.Unmute():
                self._muted = False
                yield self._reply("session.input_audio.unmuted", message)
            case ev.InstructionsAppend() | ev.ThinkingAppend() | ev.CommentaryAppend():
                yield from self._append(message, now)
            case ev.FixturePlay():
                yield from self._play(message)
            case ev.SessionUpdate(session=patch):
                now.session.update(patch)
                yield core.Configure(now.session.to_core(), message.event_id)
                yield self._reply("session.updated", message, session=now.session.shown)
            case ev.ResponseItemCreate(item=given):
                now.delegations.check_responses()
                yield core.ItemCreate(now.delegations.item(given), None, message.event_id)
            case ev.ResponseCreate():
                now.delegations.check_responses()
                yield core.RespondSoon()
            case ev.SessionClose():
                self._close_event = message.event_id
                yield core.Hangup(CLOSE_REQUESTED)
            case ev.SessionStart():
                pass  # is handled before
            case _:
                assert_never(message)

    def _hear(self, message: ev.AudioAppend, now: _Started) -> Iterator[core.Event]:
        at, samples = now.decoder.push(message.audio)
        if not len(samples):
            return
        now.timeline.hear(at, len(samples))
        deaf = self._muted or (self._speech is not None and self._speech.fixture is not None)
        yield core.AudioIn(at, np.zeros_like(samples) if deaf else samples)

    def _append(self, message: Append, now: _Started) -> Iterator[core.Event | Reply]:
        if self._speech is not None and self._speech.fixture is not None:
            raise _fixture_active()
        yield core.ItemCreate(now.delegations.appended(message), None, message.event_id)
        place = now.timeline.now
        yield self._reply(APPENDED[type(message)], message, start_ms=place, end_ms=place)
        if isinstance(message, ev.CommentaryAppend):
            yield core.RespondSoon()

    def _play(self, message: ev.FixturePlay) -> Iterator[core.Event]:
        if self._speech is not None and self._speech.fixture is not None:
            raise _fixture_active()
        raw = from_base64(message.audio, param="audio")
        if not raw or len(raw) % 2 or len(raw) > FIXTURE_S * VOICE_RATE * 2:
            raise WireError(
                f"The fixture has {len(raw)} bytes.",
                code="invalid_fixture",
                param="audio",
                remedy=f"Send 16-bit PCM at 24 kHz, at most {FIXTURE_S} s.",
            )
        label = {} if message.event_id is None else {"client_event_id": message.event_id}
        pcm = np.frombuffer(raw, "<i2").astype(np.int16)
        yield core.Play(pcm, opt.TurnOptions(interruptible=False, conversation=False, metadata=label))

    # --- frames out -----------------------------------------------------------------------------------------

    def render(self, action: act.Action) -> Iterator[str]:
        """Server events for one action of the controller."""
        now = self._started
        if now is None:
            return
        match action:
            case notices.TurnOpened():
                yield from self._opened(action, now)
            case notices.TurnText(_, _, delta) if self._speech is not None:
                self._speech.text += delta
            case notices.TurnTool(server=None) if self._speech is not None:
                self._speech.calls.append(action)
            case act.SendAudio() if self._speech is not None:
                yield from self._say(action, self._speech, now)
            case act.Flush(turn):
                now.timeline.hush()
                if self._speech is not None and self._speech.turn == turn:
                    self._speech.encoder.drop()
                    self._speech.text = ""
            case notices.TurnClosed() if self._speech is not None:
                yield from self._closed(action, self._speech, now)
            case notices.SpeechStarted(item_id, place):
                self._span(item_id)[0] = now.timeline.heard(place)
            case notices.SpeechStopped(item_id, place):
                self._span(item_id)[1] = now.timeline.heard(place)
            case notices.InputTranscript(item_id, text):
                yield from self._heard(text, self._spans.pop(item_id, None), now)
            case notices.Error(code, message, param, event_id):
                yield self._error(code, message, param=param, event_id=event_id)
            case act.Close():
                yield from self._end(action, now)
            case _:
                pass  # for the engine, or told by other means here

    def _opened(self, action: notices.TurnOpened, now: _Started) -> Iterator[str]:
        label = action.options.metadata  # only fixtures have any here
        fixture = None if label is None else dict(label)
        encoder = AudioEncoder(now.session.format["type"], rate=now.session.format["rate"])
        self._speech = _Speech(action.turn, encoder, fixture)
        if fixture is not None:
            yield self._event("session.output_audio.fixture.playing", **fixture)

    def _say(self, action: act.SendAudio, speech: _Speech, now: _Started) -> Iterator[str]:
        start, end = now.timeline.say(len(action.pcm))
        yield from self._said(speech, start, end)
        yield from self._audio(speech.encoder.push(action.pcm))

    def _said(self, speech: _Speech, start: int, end: int) -> Iterator[str]:
        text, speech.text = speech.text, ""
        if text:
            yield self._transcript("output", text, start, end, begins=not speech.said)
            speech.said = True

    def _audio(self, raw: bytes) -> Iterator[str]:
        if raw:
            delta = binascii.b2a_base64(raw, newline=False).decode()
            # This event has no id in the published types.
            yield json.dumps({"type": "session.output_audio.delta", "delta": delta})

    def _closed(self, action: notices.TurnClosed, speech: _Speech, now: _Started) -> Iterator[str]:
        self._speech = None
        if action.status != "cancelled":
            if action.status != "failed":
                yield from self._said(speech, *now.timeline.say(0))
            if action.status == "completed" and speech.fixture is None and not speech.calls:
                now.timeline.say(len(TAIL))
                yield from self._audio(speech.encoder.push(TAIL))
            yield from self._audio(speech.encoder.finish())
        if speech.fixture is not None:
            if action.status == "completed":
                yield self._event("session.output_audio.fixture.played", **speech.fixture)
            return
        yield from now.delegations.tell(speech.calls, action, offset_ms=now.timeline.now)
        if action.error is not None:
            yield self._error(action.error.code, action.error.message)
        if action.usage is not None:
            full = self._context(action.usage, action.context)
            yield self._event("session.usage.updated", usage=_usage(now), **full)

    def _context(self, usage: core.Usage, use: notices.ContextUse | None) -> dict[str, Any]:
        """How full the model's context is, if that is known; a thought does not stay in it."""
        limit = self._context_tokens if use is None else use.limit
        tokens = usage.kept if use is None else use.tokens
        return {"context_window": {"usage_ratio": min(1.0, tokens / limit)}} if limit else {}

    def _span(self, item_id: str) -> list[int]:
        span = self._spans.setdefault(item_id, [0, 0])
        if len(self._spans) > SPANS:
            self._spans.popitem(last=False)
        return span

    def _heard(self, text: str, span: list[int] | None, now: _Started) -> Iterator[str]:
        if text and span is not None:
            start, end = span
            yield self._transcript("input", text, start, max(start, end), begins=True)

    def _transcript(self, way: str, text: str, start: int, end: int, *, begins: bool) -> str:
        """Fragments are put one behind the other by those who read them: what begins anew begins with a space."""
        if begins and self._written[way] and not text[0].isspace():
            text = " " + text
        self._written[way] = True
        return self._event(f"session.{way}_transcript.delta", delta=text, start_ms=start, end_ms=end)

    def _end(self, action: act.Close, now: _Started) -> Iterator[str]:
        known = {CLOSE_REQUESTED: "close_requested", EXPIRED: "expired"}
        reason = known.get(action.reason, "connection_lost")
        label = {} if self._close_event is None else {"client_event_id": self._close_event}
        fields = {"reason": reason, "session": now.session.shown, "usage": _usage(now)}
        yield self._event("session.closed", **fields, **label)

    def _reply(self, name: str, asked: ev.AnyClientEvent, /, **fields: Any) -> Reply:
        label = {} if asked.event_id is None else {"client_event_id": asked.event_id}
        return Reply(self._event(name, **fields, **label))

    def render_error(self, error: VoiceAgentError) -> str:
        """The error event; its text is ours, never an exception's."""
        event_id = error.event_id if isinstance(error, WireError) else None
        return self._error(error.code, str(error), param=error.param, event_id=event_id)

    def _error(
        self, code: str, message: str, *, param: str | None = None, event_id: str | None = None
    ) -> str:
        label = {} if event_id is None else {"client_event_id": event_id}
        place = {} if param is None else {"param": param}
        error = {"type": error_type(code), "code": code, "message": message, **place, **label}
        return self._event("error", error=error, **label)


def _usage(now: _Started) -> dict[str, float]:
    return {"seconds": now.timeline.now / 1000}


def _fixture_active() -> WireError:
    return WireError(
        "A fixture is playing.",
        code="fixture_active",
        param="type",
        remedy="Wait for session.output_audio.fixture.played.",
    )
