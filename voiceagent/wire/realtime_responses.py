"""The assistant's turns as Realtime responses: which server events each action makes, in the order that clients accept.

It keeps what has been announced and said of each open response, and knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.core.captions import Captions, Pace, Word
from voiceagent.core.history import AssistantItem
from voiceagent.core.options import ServerTool, TurnOptions
from voiceagent.core.waterfall import Waterfall
from voiceagent.wire import realtime_items as items
from voiceagent.wire.binary import audio_frame
from voiceagent.wire.codecs import SAMPLE_BYTES, AudioEncoder
from voiceagent.wire.realtime_mcp import ServerTools
from voiceagent.wire.realtime_meaning import shown_format
from voiceagent.wire.realtime_session import Session
from voiceagent.wire.realtime_writer import Writer

TurnAction = (
    notices.TurnOpened
    | notices.TurnThought
    | notices.TurnText
    | act.SendAudio
    | notices.TurnTool
    | act.Flush
    | notices.TurnClosed
    | notices.Interruption
    | notices.TurnHeard
)


@dataclass(slots=True)
class _Response:
    """One response on this connection: what has been announced and said of it so far."""

    id: str
    item_id: str
    previous_item_id: str | None
    options: TurnOptions
    format: dict[str, Any]
    encoder: AudioEncoder
    captions: Captions
    number: int
    sent: int = 0  #: bytes of audio
    announced: bool = False
    thought: list[str] = field(default_factory=list)  #: as far as it was told and not said to be done
    text: str = ""
    calls: list[notices.TurnTool] = field(default_factory=list)
    output: list[dict[str, Any]] = field(default_factory=list)
    at: dict[str, Any] = field(init=False)  #: where the message's content is

    def __post_init__(self) -> None:
        self.at = {
            "response_id": self.id,
            "item_id": self.item_id,
            "output_index": 0,
            "content_index": 0,
        }

    @property
    def spoken(self) -> bool:
        return self.options.modalities == "audio"


class Responses:
    """The responses of one connection.

    Args:
        session: whose audio format a response takes when it opens, unless it was asked for in another.
        tools: what the client is told of those that the server runs.
        prefix: unique among the sessions of a server; part of the ids made here.
        writer: writes the events.
    """

    def __init__(self, session: Session, tools: ServerTools, *, prefix: str, writer: Writer) -> None:
        self._session = session
        self._tools = tools
        self._prefix = prefix
        self._event = writer.event
        self._sound = writer.sound
        self._open: dict[int, _Response] = {}
        self._paces: dict[str, Pace] = {}  # of the voices that have spoken

    def number_of(self, response_id: str) -> int:
        """Number of the turn behind a response's id, which may be done; -1 = we never told such an id."""
        number = response_id.removeprefix(f"resp_{self._prefix}_")
        known = number != response_id and number.isascii() and number.isdigit() and len(number) < 10
        return int(number) if known else -1

    def turn_of(self, response_id: str) -> int | None:
        """Number of the turn behind a response that is not done; None if there is no such response."""
        return next((turn for turn, response in self._open.items() if response.id == response_id), None)

    def render(self, action: TurnAction) -> Iterator[str | bytes]:
        """Server events for one action."""
        if isinstance(action, notices.TurnText | notices.TurnTool | notices.TurnClosed):
            yield from self._thought_done(self._open[action.turn])
        match action:
            case notices.TurnOpened():
                yield from self._opened(action)
            case notices.TurnThought(turn, delta):
                yield from self._thought(self._open[turn], delta)
            case notices.TurnText(turn, _, delta):
                yield from self._text(self._open[turn], delta)
            case act.SendAudio():
                yield from self.sound(action)
            case notices.TurnTool(turn):
                self._open[turn].calls.append(action)  # told behind the message, when that is done
            case act.Flush(turn):
                if turn in self._open:  # otherwise it is all sent, and the player is still at it
                    self._open[turn].encoder.drop()
                yield self._event("output_audio_buffer.cleared", response_id=self._id(turn))
            case notices.TurnClosed():
                yield from self._closed(action)
            case notices.Interruption():
                yield self._interruption(action)
            case notices.TurnHeard():
                yield self._heard(action)
            case _:
                assert_never(action)

    def _interruption(self, action: notices.Interruption) -> str:
        return self._event(
            "response.interruption",
            response_id=self._id(action.turn),
            status=action.status,
            reason=action.reason,
            voice_ms=action.voice_ms,
            heard_ms=action.heard_ms,
        )

    def _heard(self, action: notices.TurnHeard) -> str:
        return self._event(
            "response.heard",
            response_id=self._id(action.turn),
            item_id=action.item_id,
            generated_ms=action.generated_ms,
            sent_ms=action.sent_ms,
            heard_ms=action.heard_ms,
            words=action.words,
            heard_words=action.heard_words,
            acknowledged=action.acknowledged,
        )

    def _id(self, turn: int) -> str:
        return f"resp_{self._prefix}_{turn}"

    def _opened(self, action: notices.TurnOpened) -> Iterator[str]:
        asked = action.options.format
        audio_format = self._session.output_format if asked is None else shown_format(asked)
        response = _Response(
            id=self._id(action.turn),
            item_id=action.item_id,
            previous_item_id=self._tools.previous(action.previous_item_id),
            options=action.options,
            format=audio_format,
            encoder=AudioEncoder(audio_format["type"]),
            number=action.turn,
            captions=Captions(
                self._paces.setdefault(action.options.voice, Pace()), speed=action.options.speed
            ),
        )
        self._open[action.turn] = response
        yield self._event("response.created", response=self._show(response, "in_progress"))

    # --- the thought: events of ours, which other clients pass over -----------------------------------------

    def _thought(self, response: _Response, delta: str) -> Iterator[str]:
        response.thought.append(delta)
        yield self._event("response.thought.delta", response_id=response.id, delta=delta)

    def _thought_done(self, response: _Response) -> Iterator[str]:
        if response.thought:
            text = "".join(response.thought)
            response.thought.clear()
            yield self._event("response.thought.done", response_id=response.id, text=text)

    # --- the message ----------------------------------------------------------------------------------------

    def _announce(self, response: _Response) -> Iterator[str]:
        """The events that must precede the first delta of a message: one stock client drops all audio otherwise."""
        if response.announced:
            return
        response.announced = True
        item = AssistantItem(response.item_id, "", spoken=response.spoken)
        shown = items.to_wire(item, status="in_progress")
        yield from self._item_added(response, shown, index=0, previous=response.previous_item_id)
        yield self._event("response.content_part.added", **response.at, part=_part(response.spoken, ""))

    def _text(self, response: _Response, delta: str) -> Iterator[str]:
        yield from self._announce(response)
        response.text += delta
        if response.spoken:
            name = "response.output_audio_transcript.delta"
            yield self._event(name, **response.at, delta=delta, start_time=response.captions.write(delta))
        else:
            yield self._event("response.output_text.delta", **response.at, delta=delta)

    def sound(self, action: act.SendAudio) -> Sequence[str | bytes]:
        """`render` for audio, which is nearly all that comes."""
        response = self._open[action.turn]
        response.captions.sound(action.pcm)
        if response.announced and not response.thought:
            return self._audio(response, response.encoder.push(action.pcm))
        before = [*self._thought_done(response), *self._announce(response)]
        return [*before, *self._audio(response, response.encoder.push(action.pcm))]

    def _audio(self, response: _Response, raw: bytes) -> Sequence[str | bytes]:
        if not raw:
            return ()
        sent, response.sent = response.sent, response.sent + len(raw)
        if self._session.binary_audio:
            at = sent // SAMPLE_BYTES[response.format["type"]]
            return (audio_frame(raw, number=response.number, at=at),)
        return (self._sound("response.output_audio.delta", raw, **response.at),)

    def _message_done(self, response: _Response, action: notices.TurnClosed) -> Iterator[str]:
        at, text = response.at, response.text
        if response.spoken:
            yield self._event("response.output_audio.done", **at)
            words = response.captions.finish() if action.status == "completed" else ()
            if words:
                name = "response.output_audio_transcript.words"
                yield self._event(name, **at, words=[_word(word) for word in words])
            yield self._event("response.output_audio_transcript.done", **at, transcript=text)
        else:
            yield self._event("response.output_text.done", **at, text=text)
        yield self._event("response.content_part.done", **at, part=_part(response.spoken, text))
        item = action.item or AssistantItem(response.item_id, "", spoken=response.spoken)
        shown = items.to_wire(item, status="completed" if action.status == "completed" else "incomplete")
        yield from self._item_done(response, shown, previous=response.previous_item_id)

    # --- tool calls -----------------------------------------------------------------------------------------

    def _call(self, response: _Response, call: notices.TurnTool) -> Iterator[str]:
        index = len(response.output)
        previous = response.output[-1]["id"] if response.output else response.previous_item_id
        if call.server is not None:
            yield from self._server_call(response, call, call.server, previous=previous)
            return
        names = (call.item_id, call.call_id, call.name)
        shown = items.show_call(*names, "", status="in_progress")
        yield from self._item_added(response, shown, index=index, previous=previous)
        at = {
            "response_id": response.id,
            "item_id": call.item_id,
            "output_index": index,
            "call_id": call.call_id,
        }
        name = "response.function_call_arguments"
        yield self._event(f"{name}.delta", **at, delta=call.arguments)
        yield self._event(f"{name}.done", **at, name=call.name, arguments=call.arguments)
        done = items.show_call(*names, call.arguments, status="completed")
        yield from self._item_done(response, done, previous=previous)

    def _server_call(
        self, response: _Response, call: notices.TurnTool, server: ServerTool, *, previous: str | None
    ) -> Iterator[str]:
        """A call that the server runs, or that waits for approval."""
        if not self._tools.visible(server):
            yield self._tools.unseen(call, response_id=response.id, previous=previous)
            return
        index = len(response.output)
        shown = self._tools.called(call, server, response_id=response.id, index=index, previous=previous)
        yield from self._item_added(response, shown, index=index, previous=previous)
        if server.approval:
            yield from self._item_done(response, shown, previous=previous)
            return
        at = {"response_id": response.id, "item_id": call.item_id, "output_index": index}
        name = "response.mcp_call_arguments"
        yield self._event(f"{name}.delta", **at, delta=call.arguments)
        yield self._event(f"{name}.done", **at, arguments=call.arguments)
        response.output.append(shown)  # the item is done when it has run

    # --- items and the whole --------------------------------------------------------------------------------

    def _item_added(
        self, response: _Response, shown: dict[str, Any], *, index: int, previous: str | None
    ) -> Iterator[str]:
        at = {"response_id": response.id, "output_index": index}
        yield self._event("response.output_item.added", **at, item=shown)
        if response.options.conversation:
            yield self._event("conversation.item.added", previous_item_id=previous, item=shown)

    def _item_done(
        self, response: _Response, shown: dict[str, Any], *, previous: str | None
    ) -> Iterator[str]:
        at = {"response_id": response.id, "output_index": len(response.output)}
        response.output.append(shown)
        if response.options.conversation:
            yield self._event("conversation.item.done", previous_item_id=previous, item=shown)
        yield self._event("response.output_item.done", **at, item=shown)

    def _closed(self, action: notices.TurnClosed) -> Iterator[str | bytes]:
        response = self._open.pop(action.turn)
        if response.announced:
            if action.status != "cancelled":
                yield from self._audio(response, response.encoder.finish())
            yield from self._message_done(response, action)
        for call in response.calls:
            yield from self._call(response, call)
        if action.latency is not None:
            yield self._latency(response, action.latency, action.guesses)
        final = self._show(response, action.status)
        final["usage"] = items.usage(action.usage)
        final["status_details"] = items.status_details(action.status, action.reason, action.error)
        yield self._event("response.done", response=final, **_context(action.context))
        for call in response.calls:
            yield from self._tools.running(call.item_id)

    def _latency(self, response: _Response, latency: Waterfall, guesses: notices.Guesses | None) -> str:
        parts = latency.milliseconds()
        return self._event(
            "response.latency",
            response_id=response.id,
            item_id=response.item_id,
            cause=latency.cause,
            total_ms=sum(parts.values()),
            parts=parts,
            **_speculation(latency, guesses),
        )

    def _show(self, response: _Response, status: str) -> dict[str, Any]:
        options = response.options
        return {
            "id": response.id,
            "object": "realtime.response",
            "status": status,
            "status_details": None,
            "output": response.output,
            "conversation_id": f"conv_{self._prefix}" if options.conversation else None,
            "output_modalities": [options.modalities],
            "max_output_tokens": options.max_tokens or "inf",
            "audio": {"output": {"format": response.format, "voice": options.voice.rpartition("/")[2]}},
            "usage": None,
            "metadata": options.metadata,
        }


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text, "start_time": word.start, "end_time": word.end}


def _context(use: notices.ContextUse | None) -> dict[str, Any]:
    """Ours, beside `response` where no client minds it: how full the context is, and what had to be left out."""
    if use is None:
        return {}
    return {"context": {"tokens": use.tokens, "limit": use.limit, "dropped_items": list(use.dropped)}}


def _speculation(latency: Waterfall, guesses: notices.Guesses | None) -> dict[str, Any]:
    """What replies on a guess have brought and cost in the session so far, once there were any."""
    if guesses is None:
        return {}
    return {
        "speculation": {
            "saved_ms": _ms(latency.saved),
            "guesses": guesses.made,
            "hits": guesses.right,
            "total_saved_ms": _ms(guesses.saved),
            "wasted_tokens": guesses.tokens,
            "wasted_ms": _ms(guesses.work),
        }
    }


def _ms(microseconds: int) -> int:
    return (microseconds + 500) // 1000


def _part(spoken: bool, text: str) -> dict[str, Any]:
    # `audio` must be absent rather than null: clients reject null here.
    return {"type": "audio", "transcript": text} if spoken else {"type": "text", "text": text}
