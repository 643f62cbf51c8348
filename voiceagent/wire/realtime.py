"""The OpenAI Realtime protocol (GA) as a dialect: client messages to core events, core actions to server events.

It keeps what belongs to one connection (the session as shown, open responses, the audio formats) and nothing of the
call itself. PROTOCOL.md says what of the protocol is there, and what deviates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.history import Item
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.units import VOICE_RATE, ms_to_samples
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.codecs import AudioDecoder, Samples
from voiceagent.wire.dialect import (
    ConnectTools,
    CreateVoice,
    DeleteVoice,
    DropTools,
    Reply,
    Slow,
    ToolsRequest,
    VoiceRequest,
    WireError,
    error_body,
    refused,
)
from voiceagent.wire.dictation import show_scores
from voiceagent.wire.realtime_decode import decode
from voiceagent.wire.realtime_mcp import Named, ServerTools
from voiceagent.wire.realtime_responses import Responses
from voiceagent.wire.realtime_retrieve import AT_ONCE_S, filled, sound_seconds, with_holes
from voiceagent.wire.realtime_session import Kind, Session
from voiceagent.wire.realtime_writer import Writer


class RealtimeDialect:
    """One Realtime connection; see `wire.dialect.Dialect`.

    Args:
        session_id: shown to the client and prefix of the ids made here.
        model: the model name that the client asked for.
        base: the server's session defaults.
        voices: names that the session may ask for, as they are at the time.
        can_think: whether the model can think before it answers.
        kind: a conversation, or a session that only writes down what it hears.
        recorded: the session is told that it is.
    """

    def __init__(
        self,
        *,
        session_id: str,
        model: str,
        base: opt.SessionConfig,
        voices: Collection[str],
        can_think: bool = False,
        kind: Kind = "realtime",
        recorded: bool = False,
    ) -> None:
        self._session = Session(
            base, session_id=session_id, model=model, voices=voices, can_think=can_think, kind=kind
        )
        if recorded:
            self._session.shown["recorded"] = True
        self._writer = Writer(session_id)
        self._event = self._writer.event
        self._tools = ServerTools(prefix=session_id, writer=self._writer)
        self._responses = Responses(self._session, self._tools, prefix=session_id, writer=self._writer)
        self._seconds: dict[str, float] = {}  # of user audio, by item, until its transcript is told
        self._decoder = AudioDecoder(self._session.input_format)

    @property
    def config(self) -> opt.SessionConfig:
        """What the session asks of the controller."""
        return self._session.to_core()

    @property
    def shown(self) -> dict[str, Any]:
        """The session object as the client sees it."""
        return self._session.visible

    def preset(self, session: str) -> None:
        """Begins with a session object (JSON text), such as an ephemeral key carries; only before `open`.

        Raises:
            WireError: it cannot be met; `param` names the field.
        """
        message = decode(f'{{"type":"session.update","session":{session}}}')
        assert isinstance(message, ev.SessionUpdate)
        self._session.apply(message.session)
        if any(server.url for server in self._session.named.values()):
            raise WireError(
                "A session that is made in advance cannot bring tool servers of its own.",
                code="unsupported_tool",
                param="session.tools",
                remedy="Name those of the deployment, without server_url.",
            )
        self._decoder = AudioDecoder(self._session.input_format)

    # --- frames in ------------------------------------------------------------------------------------------

    def open(self) -> Iterator[str]:
        """The greeting: session.created, which several clients wait for."""
        yield self._event("session.created", session=self._session.visible)
        self._tools.labels = frozenset(self._session.named)
        for label in self._session.named:
            yield from self._list(label)

    def render_resumable(self, token: str, seconds: float) -> str:
        """The session can be resumed, by who has the token, for so long after its line is lost."""
        return self._event("session.resumable", token=token, seconds=seconds)

    def render_resumed(self) -> str:
        """The session goes on over this connection."""
        return self._event("session.resumed")

    def receive(self, frame: str | bytes) -> Iterable[core.Event | Reply | VoiceRequest | ToolsRequest]:
        """Events, direct replies and requests for one client message; raises WireError only."""
        if isinstance(frame, bytes) and self._session.binary_audio:
            return self._sound_in(
                frame, None
            )  # as in `input_audio_buffer.append`, without the text around it
        message = decode(frame)
        if isinstance(message, ev.AudioAppend):
            return self._sound_in(message.audio, message.event_id)
        return self._receive(message)

    def _receive(
        self, message: ev.OtherClientEvent
    ) -> Iterator[core.Event | Reply | VoiceRequest | ToolsRequest]:
        try:
            yield from self._dispatch(message)
        except WireError as error:
            error.event_id = message.event_id
            raise
        except InputError as error:
            raise refused(error, message.event_id) from error

    def _sound_in(self, raw: bytes, event_id: str | None) -> tuple[core.AudioIn, ...]:
        try:
            return _audio_in(self._decoder.push(raw))
        except InputError as error:
            raise refused(error, event_id) from error

    def _dispatch(
        self, message: ev.OtherClientEvent
    ) -> Iterator[core.Event | Reply | VoiceRequest | ToolsRequest]:
        event_id = message.event_id
        match message:
            case ev.SessionUpdate():
                yield from self._update(message)
            case ev.AudioCommit():
                # What the resampler still holds belongs to what is committed.
                yield from _audio_in(self._decoder.reset(self._session.input_format))
                yield core.Commit(event_id)
            case ev.AudioClear():
                yield from _audio_in(self._decoder.reset(self._session.input_format))
                yield core.Clear(event_id)
            case ev.OutputClear():
                yield core.OutputClear(event_id)
            case ev.OutputPlayed():
                played = ms_to_samples(message.audio_end_ms, rate=VOICE_RATE)
                yield core.Played(self._responses.number_of(message.response_id), played)
            case ev.ItemCreate() if message.item.type == "mcp_approval_response":
                approval, told = self._tools.approve(message.item, event_id)
                yield from map(Reply, told)
                yield approval
            case ev.ItemCreate():
                yield core.ItemCreate(items.from_wire(message.item), message.previous_item_id, event_id)
            case ev.ItemRetrieve():
                shown = self._tools.retrieved(message.item_id)
                yield core.ItemRetrieve(message.item_id, event_id) if shown is None else Reply(shown)
            case ev.ItemTruncate():
                yield core.ItemTruncate(message.item_id, int(message.audio_end_ms), event_id)
            case ev.ItemDelete():
                yield core.ItemDelete(message.item_id, event_id)
            case ev.ResponseCreate():
                options = self._session.turn_options(message.response or ev.ResponseParam())
                yield core.Respond(options, event_id)
            case ev.ResponseCancel():
                yield core.Cancel(self._turn(message.response_id), event_id)
            case ev.VoiceCreate():
                yield _new_voice(message)
            case ev.VoiceDelete():
                yield DeleteVoice(message.voice.name, event_id)
            case _:
                assert_never(message)

    def _update(self, message: ev.SessionUpdate) -> Iterator[core.Event | Reply | ToolsRequest]:
        before, servers = self._session.input_format, self._session.named
        self._session.apply(message.session)
        if self._session.input_format != before:
            yield from _audio_in(self._decoder.reset(self._session.input_format))
        # First: what the new settings bring about (binary audio of a reply that waited) comes after its cause.
        yield Reply(self._event("session.updated", session=self._session.visible))
        yield core.Configure(self._session.to_core(), message.event_id)
        yield from self._servers(servers)

    def _servers(self, before: Mapping[str, Named]) -> Iterator[Reply | ToolsRequest]:
        """The tool servers that the session names now, and did not; and the other way round."""
        now = self._session.named
        self._tools.labels = frozenset(now)
        for label, server in before.items():
            if server.url and (label not in now or now[label].place != server.place):
                self._session.own_tools.pop(label, None)
                yield DropTools(label)
        for label, server in now.items():
            if label not in before or before[label].place != server.place:
                yield from map(Reply, self._list(label))
                if server.url:
                    yield ConnectTools(label, server.url, server.authorization)

    def _list(self, label: str) -> Iterator[str]:
        """What a named server offers is being listed; of the deployment's it is known."""
        self._tools.labels = frozenset(self._session.named)
        yield from self._tools.listing(label)
        if not self._session.named[label].url:
            yield from self._tools.listed(label, self._session.tools_of(label))

    def _turn(self, response_id: str | None) -> int | None:
        """The turn to cancel: None = the active one, a number that no turn has = the client is too late."""
        if response_id is None:
            return None
        turn = self._responses.turn_of(response_id)
        return -1 if turn is None else turn

    # --- frames out -----------------------------------------------------------------------------------------

    def render(self, action: act.Action) -> Iterable[str | bytes | Slow]:
        """Server events for one action of the controller."""
        return self._responses.sound(action) if isinstance(action, act.SendAudio) else self._render(action)

    def _render(self, action: act.Action) -> Iterator[str | bytes | Slow]:
        match action:
            case (
                notices.TurnOpened()
                | notices.TurnThought()
                | notices.TurnText()
                | act.SendAudio()
                | notices.TurnTool()
                | act.Flush()
                | notices.TurnClosed()
                | notices.Interruption()
                | notices.TurnHeard()
            ):
                yield from self._responses.render(action)
            case (
                act.StartTurn()
                | act.EncodePiece()
                | act.ForgetPieces()
                | act.Prepare()
                | act.ConfirmTurn()
                | act.CancelTurn()
                | act.Transcribe()
                | act.JudgeEnd()
                | act.RunTool()
                | act.Close()
                | notices.GuessOver()
            ):
                pass  # for the engine and the line, not for the client
            case notices.Error(code, message, param, event_id):
                yield self._error(code, message, param=param, event_id=event_id)
            case notices.SpeechStarted() | notices.SpeechStopped() | notices.IdleTimedOut():
                yield self._ear(action)
            case notices.ToolAnswered():
                yield from self._tools.answered(action)
            case notices.Committed(item_id, previous):
                name, previous = "input_audio_buffer.committed", self._tools.previous(previous)
                yield self._event(name, previous_item_id=previous, item_id=item_id)
            case notices.PassedOver(voice_ms):
                yield self._event("input_audio_buffer.passed_over", voice_ms=voice_ms)
            case notices.BufferCleared():
                yield self._event("input_audio_buffer.cleared")
            case notices.InputTranscriptDelta() | notices.InputTranscript() | notices.InputTranscriptFailed():
                yield self._input_transcript(action)
            case notices.Condensed():
                yield self._condensed(action)
            case _:
                yield self._item(action)

    def _ear(self, action: notices.SpeechStarted | notices.SpeechStopped | notices.IdleTimedOut) -> str:
        match action:
            case notices.SpeechStarted(item_id, start):
                name = "input_audio_buffer.speech_started"
                return self._event(name, audio_start_ms=start, item_id=item_id)
            case notices.SpeechStopped(item_id, end, reason, silence):
                name, why = "input_audio_buffer.speech_stopped", {"reason": reason, "silence_ms": silence}
                return self._event(name, audio_end_ms=end, item_id=item_id, **why)
            case notices.IdleTimedOut(item_id, start, end):
                name = "input_audio_buffer.timeout_triggered"
                return self._event(name, audio_start_ms=start, audio_end_ms=end, item_id=item_id)
            case _:
                assert_never(action)

    def _item(
        self,
        action: notices.ItemAdded
        | notices.ItemDone
        | notices.ItemDeleted
        | notices.ItemRetrieved
        | notices.ItemTruncated,
    ) -> str | Slow:
        match action:
            case notices.ItemAdded(item, previous):
                seconds = items.audio_seconds(item)
                if seconds:
                    self._seconds[item.id] = seconds
                shown, previous = items.to_wire(item), self._tools.previous(previous)
                return self._event("conversation.item.added", previous_item_id=previous, item=shown)
            case notices.ItemDone(item, previous):
                shown, previous = items.to_wire(item), self._tools.previous(previous)
                return self._event("conversation.item.done", previous_item_id=previous, item=shown)
            case notices.ItemDeleted(item_id):
                self._seconds.pop(item_id, None)
                return self._event("conversation.item.deleted", item_id=item_id)
            case notices.ItemRetrieved(item):
                return self._retrieved(item)
            case notices.ItemTruncated(item_id, end):
                name = "conversation.item.truncated"
                return self._event(name, item_id=item_id, content_index=0, audio_end_ms=end)
            case _:
                assert_never(action)

    def _retrieved(self, item: Item) -> str | Slow:
        """An item with its sound; if that is much, in parts."""
        called = self._tools.item(item)
        shown, sounds = (called, []) if called is not None else with_holes(item)
        parts = filled(self._writer.large("conversation.item.retrieved", item=shown), sounds)
        return Slow(parts) if sound_seconds(item) > AT_ONCE_S else "".join(parts)

    def _condensed(self, action: notices.Condensed) -> str:
        """Ours: what the model reads of old items from now on."""
        return self._event(
            "conversation.condensed",
            form=action.form,
            reason=action.reason,
            item_ids=list(action.item_ids),
            tokens_before=action.before,
            tokens_after=action.after,
            summary=action.summary or None,
        )

    def _input_transcript(
        self, action: notices.InputTranscriptDelta | notices.InputTranscript | notices.InputTranscriptFailed
    ) -> str:
        name = "conversation.item.input_audio_transcription"
        at = {"item_id": action.item_id, "content_index": action.content_index}
        match action:
            case notices.InputTranscriptDelta():
                return self._event(f"{name}.delta", **at, delta=action.text)
            case notices.InputTranscript():
                # Of usage, only the kind "duration" is parsed by every client without further keys.
                usage = {"type": "duration", "seconds": self._seconds.pop(action.item_id, 0.0)}
                sure = {"logprobs": show_scores(action.scores)} if action.scores else {}
                return self._event(f"{name}.completed", **at, transcript=action.text, usage=usage, **sure)
            case notices.InputTranscriptFailed():
                self._seconds.pop(action.item_id, None)
                error = {"type": "server_error", "code": action.error.code, "message": action.error.message}
                return self._event(f"{name}.failed", **at, error=error)
            case _:
                assert_never(action)

    def render_voice(
        self, request: VoiceRequest, outcome: tuple[str, float] | VoiceAgentError | None
    ) -> Iterator[str]:
        """What came of a request for a voice: the engine's name for it and its seconds, None once it is gone."""
        if isinstance(outcome, VoiceAgentError):
            param = None if outcome.param is None else f"voice.{outcome.param}"
            yield self._error(outcome.code, str(outcome), param=param, event_id=request.event_id)
            return
        shown = {"id": request.name, "name": request.name}
        if outcome is None:
            self._session.own_voices.pop(request.name, None)
            yield self._event("voice.deleted", voice=shown)
            return
        self._session.own_voices[request.name], seconds = outcome
        yield self._event("voice.created", voice={**shown, "seconds": round(seconds, 2)})

    def render_tools(
        self, request: ConnectTools, outcome: Sequence[opt.Tool] | VoiceAgentError
    ) -> Iterator[str]:
        """What a tool server of the session's own offers, or why it cannot be used; `config` has changed with it."""
        if not isinstance(outcome, VoiceAgentError):
            self._session.own_tools[request.label] = tuple(outcome)
            outcome = self._session.tools_of(request.label)
        yield from self._tools.listed(request.label, outcome)

    def render_error(self, error: VoiceAgentError) -> str:
        """The error event; its text is ours, never an exception's."""
        event_id = error.event_id if isinstance(error, WireError) else None
        return self._error(error.code, str(error), param=error.param, event_id=event_id)

    def _error(self, code: str, message: str, *, param: str | None, event_id: str | None) -> str:
        return self._event("error", error=error_body(code, message, param=param, event_id=event_id))


def _new_voice(message: ev.VoiceCreate) -> CreateVoice:
    asked = message.voice
    if (asked.audio is None) == (asked.item_id is None):
        raise WireError(
            "A voice is made of a sound file or of an item.",
            code="invalid_value",
            param="voice.audio",
            remedy="Give audio or item_id.",
        )
    data = b"" if asked.audio is None else items.from_base64(asked.audio, param="voice.audio")
    return CreateVoice(asked.name, data, asked.item_id, message.event_id)


def _audio_in(decoded: tuple[int, Samples]) -> tuple[core.AudioIn, ...]:
    at, samples = decoded
    return (core.AudioIn(at, samples),) if len(samples) else ()
