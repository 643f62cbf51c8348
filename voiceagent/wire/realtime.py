"""The OpenAI Realtime protocol (GA) as a dialect: client messages to core events, core actions to server events.

It keeps what belongs to one connection (the session as shown, response ids, the audio formats) and nothing of the
call itself. The order of server events is the one that every stock client accepts.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core.history import AssistantItem, Item
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.wire import realtime_events as ev
from voiceagent.wire import realtime_items as items
from voiceagent.wire.codecs import AudioDecoder, AudioEncoder
from voiceagent.wire.dialect import Reply, WireError
from voiceagent.wire.realtime_session import (
    Session,
    checked_tools,
    core_tool_choice,
    max_tokens,
    modality,
    show_tool_choice,
    temperature,
)

MAX_ID = 128


class _Head(msgspec.Struct):
    """What an error answer needs, read before the message is checked."""

    type: str = ""
    event_id: str | None = None


_head = msgspec.json.Decoder(_Head)
_message = msgspec.json.Decoder(ev.AnyClientEvent)


@dataclass(slots=True)
class _Response:
    """One response on this connection: what has been announced and said of it so far."""

    turn: int
    id: str
    item_id: str
    previous_item_id: str | None
    spoken: bool
    voice: str
    metadata: Mapping[str, Any] | None
    encoder: AudioEncoder
    announced: bool = False
    text: str = ""
    calls: list[act.TurnTool] = field(default_factory=list)

    def at(self) -> dict[str, Any]:
        return {"response_id": self.id, "item_id": self.item_id, "output_index": 0, "content_index": 0}


class RealtimeDialect:
    """One Realtime connection; see `wire.dialect.Dialect`.

    Args:
        session_id: shown to the client and prefix of the ids made here.
        model: the model name that the client asked for.
        base: the server's session defaults.
        voices: the engine's voices.
    """

    def __init__(
        self,
        *,
        session_id: str,
        model: str,
        base: core.SessionConfig,
        voices: Iterable[str],
    ) -> None:
        self._session = Session(base, session_id=session_id, model=model, voices=tuple(voices))
        self._prefix = session_id
        self._events = 0
        self._responses: dict[int, _Response] = {}
        self._seconds: dict[str, float] = {}  # of user audio, by item, until its transcript is told
        self._decoder = AudioDecoder(self._session.input_format)

    # --- frames in ------------------------------------------------------------------------------------------

    def open(self) -> Iterator[str]:
        """The greeting: session.created, which several clients wait for."""
        yield self._event("session.created", session=self._session.shown)

    def receive(self, frame: str | bytes) -> Iterator[core.Event | Reply]:
        """Events and direct replies for one client message; raises WireError only."""
        if isinstance(frame, bytes):
            raise WireError(
                "Binary frames are not part of this protocol.",
                code="invalid_message",
                remedy="Send JSON text.",
            )
        head = _decode_head(frame)
        try:
            if head.type not in ev.EVENT_TYPES:
                raise WireError(f"Unknown event type {head.type!r}.", code="unknown_event_type", param="type")
            yield from self._dispatch(_decode_message(frame))
        except WireError as error:
            error.event_id = error.event_id or head.event_id
            raise
        except InputError as error:
            raise WireError(
                error.message, code=error.code, param=error.param, event_id=head.event_id
            ) from error

    def _dispatch(self, message: ev.AnyClientEvent) -> Iterator[core.Event | Reply]:
        match message:
            case ev.AudioAppend():
                yield from self._append(message)
            case ev.SessionUpdate():
                yield from self._update(message)
            case ev.AudioCommit():
                yield from self._flush_decoder()
                yield core.Commit(event_id=message.event_id)
            case ev.AudioClear():
                self._decoder.reset(self._session.input_format)
                yield core.Clear(event_id=message.event_id)
            case ev.OutputClear():
                yield core.OutputClear(event_id=message.event_id)
            case ev.ItemCreate():
                item = items.from_wire(message.item)
                yield core.ItemCreate(item, message.previous_item_id, event_id=message.event_id)
            case ev.ItemRetrieve():
                yield core.ItemRetrieve(message.item_id, event_id=message.event_id)
            case ev.ItemTruncate():
                if message.audio_end_ms < 0:
                    raise WireError("audio_end_ms must not be negative.", param="audio_end_ms")
                yield core.ItemTruncate(message.item_id, message.audio_end_ms, event_id=message.event_id)
            case ev.ItemDelete():
                yield core.ItemDelete(message.item_id, event_id=message.event_id)
            case ev.ResponseCreate():
                yield core.Respond(
                    self._options(message.response or ev.ResponseParam()), event_id=message.event_id
                )
            case ev.ResponseCancel():
                yield core.Cancel(turn=self._turn_of(message.response_id), event_id=message.event_id)
            case _:
                assert_never(message)

    def _append(self, message: ev.AudioAppend) -> Iterator[core.Event]:
        try:
            raw = binascii.a2b_base64(message.audio, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise WireError(
                f"The audio is not valid base64: {error}.",
                code="invalid_base64",
                param="audio",
                event_id=message.event_id,
            ) from error
        at, samples = self._decoder.push(raw)
        if len(samples):
            yield core.AudioIn(at, samples)

    def _flush_decoder(self) -> Iterator[core.Event]:
        """What the resampler still holds belongs to the utterance that is being committed."""
        at, samples = self._decoder.reset(self._session.input_format)
        if len(samples):
            yield core.AudioIn(at, samples)

    def _update(self, message: ev.SessionUpdate) -> Iterator[core.Event | Reply]:
        before = self._session.input_format
        self._session.apply(message.session)
        if self._session.input_format != before:
            yield from self._flush_decoder()
        yield core.Configure(self._session.to_core(), event_id=message.event_id)
        yield Reply(self._event("session.updated", session=self._session.shown))

    def _options(self, response: ev.ResponseParam) -> core.TurnOptions:
        config = self._session.to_core()
        voice, tools, choice = config.voice, config.tools, config.tool_choice
        output = (
            response.audio.output if response.audio and response.audio.output is not msgspec.UNSET else None
        )
        if output is not None and output.voice is not msgspec.UNSET:
            voice = self._session.known_voice(output.voice)
        if response.tools is not None:
            given = checked_tools(response.tools, param="response.tools")
            tools = tuple(core.Tool(t.name, t.description, t.parameters) for t in given)
        if response.tool_choice is not None:
            choice = core_tool_choice(show_tool_choice(response.tool_choice))
        modalities = config.modalities
        if response.output_modalities is not None:
            modalities = modality(response.output_modalities, param="response.output_modalities")
        limit = config.max_tokens
        if response.max_output_tokens is not None:
            limit = max_tokens(response.max_output_tokens, param="response.max_output_tokens")
        heat = config.temperature
        if response.temperature is not None:
            heat = temperature(response.temperature, param="response.temperature")
        given_input = None
        if response.input is not None:
            given_input = tuple(self._input_item(i) for i in response.input)
        return core.TurnOptions(
            modalities=modalities,
            instructions=config.instructions if response.instructions is None else response.instructions,
            tools=tools,
            tool_choice=choice,
            voice=voice,
            temperature=heat,
            max_tokens=limit,
            metadata=response.metadata,
            conversation=response.conversation == "auto",
            input=given_input,
        )

    def _input_item(self, param: ev.ItemParam) -> Item | core.ItemReference:
        return (
            core.ItemReference(param.id or "") if param.type == "item_reference" else items.from_wire(param)
        )

    def _turn_of(self, response_id: str | None) -> int | None:
        if response_id is None:
            return None
        return next((r.turn for r in self._responses.values() if r.id == response_id), -1)

    # --- frames out -----------------------------------------------------------------------------------------

    def render(self, action: act.Action) -> Iterator[str]:
        """Server events for one action of the controller."""
        match action:
            case act.SpeechStarted(item_id, audio_start_ms):
                yield self._event(
                    "input_audio_buffer.speech_started", audio_start_ms=audio_start_ms, item_id=item_id
                )
            case act.SpeechStopped(item_id, audio_end_ms):
                yield self._event(
                    "input_audio_buffer.speech_stopped", audio_end_ms=audio_end_ms, item_id=item_id
                )
            case act.Committed(item_id, previous_item_id):
                yield self._event(
                    "input_audio_buffer.committed", previous_item_id=previous_item_id, item_id=item_id
                )
            case act.BufferCleared():
                yield self._event("input_audio_buffer.cleared")
            case act.IdleTimedOut(item_id, audio_start_ms, audio_end_ms):
                yield self._event(
                    "input_audio_buffer.timeout_triggered",
                    item_id=item_id,
                    audio_start_ms=audio_start_ms,
                    audio_end_ms=audio_end_ms,
                )
            case act.ItemAdded(item, previous_item_id):
                self._seconds[item.id] = items.audio_seconds(item)
                shown = items.to_wire(item)
                yield self._event("conversation.item.added", previous_item_id=previous_item_id, item=shown)
            case act.ItemDone(item, previous_item_id):
                shown = items.to_wire(item)
                yield self._event("conversation.item.done", previous_item_id=previous_item_id, item=shown)
            case act.ItemRetrieved(item):
                yield self._event("conversation.item.retrieved", item=items.to_wire(item, with_audio=True))
            case act.ItemDeleted(item_id):
                yield self._event("conversation.item.deleted", item_id=item_id)
            case act.ItemTruncated(item_id, audio_end_ms):
                yield self._event(
                    "conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=audio_end_ms
                )
            case act.InputTranscript(item_id, text):
                yield from self._input_transcript(item_id, text)
            case act.Error(code, message, param, event_id):
                yield self._error(code, message, param=param, event_id=event_id)
            case _:
                yield from self._render_turn(action)

    def _render_turn(self, action: act.Action) -> Iterator[str]:
        match action:
            case act.TurnOpened():
                yield from self._opened(action)
            case act.TurnText(turn, _, delta):
                yield from self._text(self._responses[turn], delta)
            case act.SendAudio(turn, _, pcm):
                response = self._responses[turn]
                yield from self._announce(response)
                yield from self._audio(response, response.encoder.push(pcm))
            case act.TurnTool(turn):
                self._responses[turn].calls.append(action)
            case act.Flush(turn):
                if turn in self._responses:
                    self._responses[turn].encoder.drop()
                    yield self._event("output_audio_buffer.cleared", response_id=self._responses[turn].id)
            case act.TurnClosed():
                yield from self._closed(action)
            case _:
                pass  # for the engine, not for the client

    def render_error(self, error: VoiceAgentError) -> str:
        """The error event; its text is ours, never an exception's."""
        event_id = error.event_id if isinstance(error, WireError) else None
        return self._error(error.code, str(error), param=error.param, event_id=event_id)

    def _opened(self, action: act.TurnOpened) -> Iterator[str]:
        options = action.options
        response = _Response(
            turn=action.turn,
            id=f"resp_{self._prefix}_{action.turn}",
            item_id=action.item_id,
            previous_item_id=action.previous_item_id,
            spoken=options.modalities == "audio",
            voice=options.voice,
            metadata=options.metadata,
            encoder=AudioEncoder(self._session.output_format),
        )
        self._responses[action.turn] = response
        yield self._event("response.created", response=self._show(response, "in_progress", output=[]))

    def _announce(self, response: _Response) -> Iterator[str]:
        """The events that must precede the first delta of a message."""
        if response.announced:
            return
        response.announced = True
        shown = items.to_wire(
            AssistantItem(response.item_id, "", spoken=response.spoken), status="in_progress"
        )
        yield self._event("response.output_item.added", response_id=response.id, output_index=0, item=shown)
        yield self._event("conversation.item.added", previous_item_id=response.previous_item_id, item=shown)
        yield self._event("response.content_part.added", **response.at(), part=_part(response.spoken, ""))

    def _text(self, response: _Response, delta: str) -> Iterator[str]:
        yield from self._announce(response)
        response.text += delta
        name = "response.output_audio_transcript.delta" if response.spoken else "response.output_text.delta"
        yield self._event(name, **response.at(), delta=delta)

    def _audio(self, response: _Response, raw: bytes) -> Iterator[str]:
        if raw:
            delta = binascii.b2a_base64(raw, newline=False).decode()
            yield self._event("response.output_audio.delta", **response.at(), delta=delta)

    def _closed(self, action: act.TurnClosed) -> Iterator[str]:
        response = self._responses.pop(action.turn)
        output: list[dict[str, Any]] = []
        status = "completed" if action.status == "completed" else "incomplete"
        if response.announced:
            if action.status == "completed":
                yield from self._audio(response, response.encoder.finish())
            yield from self._message_done(response, action, status, output)
        for call in response.calls:
            yield from self._call(response, call, output)
        usage = items.usage(action.usage)
        final = self._show(response, action.status, output=output, usage=usage)
        final["status_details"] = items.status_details(action.status, action.reason, action.error)
        yield self._event("response.done", response=final)

    def _message_done(
        self, response: _Response, action: act.TurnClosed, status: str, output: list[dict[str, Any]]
    ) -> Iterator[str]:
        at = response.at()
        item = action.item or AssistantItem(response.item_id, "", spoken=response.spoken)
        if response.spoken:
            yield self._event("response.output_audio.done", **at)
            yield self._event("response.output_audio_transcript.done", **at, transcript=response.text)
        else:
            yield self._event("response.output_text.done", **at, text=response.text)
        yield self._event("response.content_part.done", **at, part=_part(response.spoken, response.text))
        shown = items.to_wire(item, status=status)
        output.append(shown)
        yield self._event("conversation.item.done", previous_item_id=response.previous_item_id, item=shown)
        yield self._event("response.output_item.done", response_id=response.id, output_index=0, item=shown)

    def _call(self, response: _Response, call: act.TurnTool, output: list[dict[str, Any]]) -> Iterator[str]:
        index = len(output)
        previous = output[-1]["id"] if output else response.previous_item_id
        shown = items.show_call(call.item_id, call.call_id, call.name, "", status="in_progress")
        yield self._event(
            "response.output_item.added", response_id=response.id, output_index=index, item=shown
        )
        yield self._event("conversation.item.added", previous_item_id=previous, item=shown)
        at = {
            "response_id": response.id,
            "item_id": call.item_id,
            "output_index": index,
            "call_id": call.call_id,
        }
        yield self._event("response.function_call_arguments.delta", **at, delta=call.arguments)
        yield self._event(
            "response.function_call_arguments.done", **at, name=call.name, arguments=call.arguments
        )
        done = items.show_call(call.item_id, call.call_id, call.name, call.arguments, status="completed")
        output.append(done)
        yield self._event("conversation.item.done", previous_item_id=previous, item=done)
        yield self._event("response.output_item.done", response_id=response.id, output_index=index, item=done)

    def _input_transcript(self, item_id: str, text: str) -> Iterator[str]:
        name = "conversation.item.input_audio_transcription"
        at = {"item_id": item_id, "content_index": 0}
        yield self._event(f"{name}.delta", **at, delta=text)
        seconds = self._seconds.pop(item_id, 0.0)
        yield self._event(
            f"{name}.completed", **at, transcript=text, usage={"type": "duration", "seconds": seconds}
        )

    def _show(
        self,
        response: _Response,
        status: str,
        *,
        output: list[dict[str, Any]],
        usage: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        audio = self._session.shown["audio"]["output"]
        return {
            "id": response.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": output,
            "conversation_id": f"conv_{self._prefix}",
            "output_modalities": ["audio" if response.spoken else "text"],
            "max_output_tokens": self._session.shown["max_output_tokens"],
            "audio": {"output": {"format": audio["format"], "voice": response.voice}},
            "usage": usage,
            "metadata": response.metadata,
        }

    def _error(self, code: str, message: str, *, param: str | None, event_id: str | None) -> str:
        kind = (
            "server_error"
            if code in ("internal_error", "engine_error", "engine_down")
            else "invalid_request_error"
        )
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
        return self._event("error", error=error)

    def _event(self, name: str, /, **fields: Any) -> str:
        self._events += 1
        return json.dumps({"type": name, "event_id": f"event_{self._prefix}_{self._events}", **fields})


def _part(spoken: bool, text: str) -> dict[str, Any]:
    # `audio` must be absent rather than null: clients reject null here.
    return {"type": "audio", "transcript": text} if spoken else {"type": "text", "text": text}


def _decode_head(frame: str) -> _Head:
    try:
        head = _head.decode(frame)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise WireError(
            f"Not a valid JSON message: {error}.", code="invalid_json", remedy="Send one JSON object."
        ) from error
    if head.event_id is not None and len(head.event_id) > MAX_ID:
        raise WireError(f"event_id is longer than {MAX_ID} characters.", param="event_id")
    return head


def _decode_message(frame: str) -> ev.AnyClientEvent:
    try:
        message: ev.AnyClientEvent = _message.decode(frame)
        return message
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$.")
        raise WireError(f"{text}.", code="invalid_value", param=path.rstrip("`") or None) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"Not a valid JSON message: {error}.", code="invalid_json") from error
