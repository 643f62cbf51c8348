"""Chat completions: a request's messages as history items and turn options, and the answer's JSON. No sockets.

Audio in a message stays as bytes here: whoever serves decodes the file (see `Heard`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from voiceagent.core.events import Usage
from voiceagent.core.history import AssistantItem, SystemItem, TextContent, ToolCallItem, ToolResultItem
from voiceagent.core.options import Modality, Tool, Truncation, TurnOptions
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_decode import decode_body
from voiceagent.wire.realtime_items import from_base64, needed
from voiceagent.wire.realtime_tools import MAX_SCHEMA_BYTES

Long = Annotated[str, Meta(max_length=256 * 1024)]


class InputAudio(msgspec.Struct):
    """A sound file, base64; what it is shows in the file itself."""

    data: str
    format: str = ""


class Part(msgspec.Struct):
    """One part of a message's content."""

    type: str
    text: Long | None = None
    input_audio: InputAudio | None = None
    refusal: Long | None = None


class CalledFunction(msgspec.Struct):
    """What was called."""

    name: str
    arguments: Long = "{}"


class ToolCall(msgspec.Struct):
    """A call of an earlier answer."""

    id: str
    function: CalledFunction


class Message(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Long | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class FunctionSchema(msgspec.Struct):
    """A function that may be called."""

    name: ev.Id
    description: ev.Text = ""
    parameters: dict[str, Any] = {}


class ToolParam(msgspec.Struct):
    """A tool; other types than functions are refused by name."""

    type: str
    function: FunctionSchema | None = None


class NamedChoice(msgspec.Struct):
    """Call this function."""

    type: Literal["function"]
    function: dict[Literal["name"], ev.Id]


class AudioParam(msgspec.Struct):
    """The voice and the file format of a spoken answer."""

    voice: str | dict[str, Any] = ""
    format: Literal["wav", "mp3", "flac", "opus", "pcm16"] = "wav"


class StreamOptions(msgspec.Struct):
    """`include_usage`: one more chunk at the end, with the usage."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The body of POST /v1/chat/completions; keys that are not named here are tolerated."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=2048)]
    model: str = ""
    modalities: list[Literal["text", "audio"]] | None = None
    audio: AudioParam | None = None
    tools: Annotated[list[ToolParam], Meta(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A sound file in a user's message; `param` says where."""

    data: bytes
    param: str


@dataclass(frozen=True, slots=True)
class Said:
    """A user's message whose files are still to be decoded."""

    content: tuple[TextContent | Heard, ...]


ChatItem = SystemItem | Said | AssistantItem | ToolCallItem | ToolResultItem


@dataclass(frozen=True, slots=True)
class Chat:
    """A checked request."""

    items: tuple[ChatItem, ...]
    options: TurnOptions
    spoken: bool
    format: str  #: of the sound, if it is spoken
    stream: bool
    with_usage: bool


_decoder = msgspec.json.Decoder(ChatRequest)


def decode(body: bytes, *, voices: Collection[str], instructions: str, can_think: bool = False) -> Chat:
    """A request, checked.

    Args:
        body: JSON text.
        voices: names that the model has; others fall back to the first.
        instructions: for a request that has no system message in front.
        can_think: whether the model can think before it answers.

    Raises:
        WireError: it is not JSON, or a field cannot be met; `param` names it.
    """
    asked = decode_body(body, _decoder)
    _refuse_unsupported(asked)
    messages = list(enumerate(asked.messages))
    if messages[0][1].role in ("system", "developer"):
        instructions = _text(messages.pop(0)[1], "messages[0]")
    items = tuple(item for i, message in messages for item in _items(message, f"messages[{i}]"))
    spoken = "audio" in (asked.modalities or ())
    sound = asked.audio or AudioParam()
    name = sound.voice if isinstance(sound.voice, str) else str(sound.voice.get("id", ""))
    stream = bool(asked.stream)
    if spoken and stream and asked.audio is not None and sound.format != "pcm16":
        raise WireError(
            "A streamed answer has the audio format pcm16.", param="audio.format", code="unsupported_value"
        )
    modality: Modality = "audio" if spoken else "text"
    options = TurnOptions(
        modalities=modality,
        instructions=instructions,
        tools=_tools(asked.tools or []),
        tool_choice=_choice(asked.tool_choice),
        parallel_calls=asked.parallel_tool_calls is not False,
        truncation=Truncation(ratio=None),  # who sends the whole conversation decides what of it is read
        voice=name if name in voices else "",
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_tokens=asked.max_completion_tokens or asked.max_tokens,
        think=_think(asked.reasoning_effort, can_think=can_think),
    )
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Chat(items, options, spoken, "pcm16" if stream else sound.format, stream, with_usage)


def _think(effort: str | None, *, can_think: bool) -> bool:
    """Any effort is a thought; how long it is, is the model's affair."""
    if effort in (None, "none"):
        return False
    if not can_think:
        raise WireError(
            "This model cannot think before it answers.",
            code="think_unavailable",
            param="reasoning_effort",
            remedy="Leave it out, or serve a model that can.",
        )
    return True


def _refuse_unsupported(asked: ChatRequest) -> None:
    if asked.n not in (None, 1):
        raise WireError(
            "There is one answer to a request.", param="n", code="unsupported_value", remedy="Leave n out."
        )
    if asked.stop:
        raise WireError("Stop words are not supported.", param="stop", code="unsupported_value")
    if asked.logprobs or asked.top_logprobs:
        raise WireError(
            "There are no log-probabilities of replies, of transcripts only.",
            param="logprobs" if asked.logprobs else "top_logprobs",
            code="unsupported_value",
            remedy="Leave it out, or ask /v1/audio/transcriptions with include[]=logprobs.",
        )
    if asked.response_format is not None and asked.response_format.get("type") != "text":
        raise WireError(
            "Replies cannot be held to a format.",
            param="response_format",
            code="unsupported_value",
            remedy="Ask for the format in words, or with a function tool.",
        )


def _items(message: Message, where: str) -> Iterator[ChatItem]:
    match message.role:
        case "user":
            yield Said(tuple(_parts(message, where)))
        case "assistant":
            if message.content:
                yield AssistantItem("", _text(message, where))
            for call in message.tool_calls or ():
                yield ToolCallItem("", call.id, call.function.name, call.function.arguments)
        case "tool":
            call_id = needed(message.tool_call_id, f"{where}.tool_call_id")
            yield ToolResultItem("", call_id, _text(message, where))
        case "system" | "developer":
            yield SystemItem("", _text(message, where))


def _text(message: Message, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(
        needed(part.text or part.refusal, f"{where}.content[{i}].text")
        for i, part in enumerate(message.content or ())
    )


def _parts(message: Message, where: str) -> Iterator[TextContent | Heard]:
    if isinstance(message.content, str):
        yield TextContent(message.content)
        return
    for i, part in enumerate(message.content or ()):
        at = f"{where}.content[{i}]"
        if part.type == "text":
            yield TextContent(needed(part.text, f"{at}.text"))
        elif part.type == "input_audio" and part.input_audio is not None:
            at = f"{at}.input_audio.data"
            yield Heard(from_base64(part.input_audio.data, param=at), at)
        else:
            raise WireError(
                f"Content of type {part.type[:64]!r} is not supported.",
                code="unsupported_content",
                param=f"{at}.type",
                remedy="Use text or input_audio.",
            )


def _tools(given: Sequence[ToolParam]) -> tuple[Tool, ...]:
    tools = []
    for i, tool in enumerate(given):
        if tool.type != "function" or tool.function is None:
            raise WireError(
                f"Tools of type {tool.type[:64]!r} are not supported.",
                code="unsupported_tool",
                param=f"tools[{i}].type",
                remedy="Use function tools.",
            )
        if len(msgspec.json.encode(tool.function.parameters)) > MAX_SCHEMA_BYTES:
            raise WireError(
                f"The schema of tool {i} is longer than {MAX_SCHEMA_BYTES} bytes.",
                param=f"tools[{i}].function.parameters",
            )
        tools.append(Tool(tool.function.name, tool.function.description, tool.function.parameters))
    return tuple(tools)


def _choice(given: str | NamedChoice | None) -> str:
    if given is None:
        return "auto"
    return given if isinstance(given, str) else given.function.get("name", "auto")


# --- answers ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """What has been said so far, and the JSON that tells it.

    Args:
        id: of the completion.
        model: its name.
        created: seconds since 1970.
        spoken: text is the transcript of sound.
    """

    id: str
    model: str
    created: int
    spoken: bool
    text: str = ""
    thought: str = ""
    sound: bytes = b""
    calls: tuple[dict[str, Any], ...] = ()

    def call(self, call_id: str, name: str, arguments: str) -> dict[str, Any]:
        """Takes a tool call; returns it as the protocol shows it."""
        shown = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        self.calls += (shown,)
        return shown

    def whole(self, reason: str, usage: Usage) -> bytes:
        """The answer in one piece."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self.spoken else self.text or None,
            "refusal": None,
        }
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.spoken and (self.sound or self.text):
            message["audio"] = {
                "id": f"audio_{self.id}",
                "data": base64.b64encode(self.sound).decode(),
                "transcript": self.text,
                "expires_at": self.created,
            }
        if self.calls:
            message["tool_calls"] = list(self.calls)
        choice = {"index": 0, "message": message, "finish_reason": self._finish(reason), "logprobs": None}
        return self._json("chat.completion", choices=[choice], usage=show_usage(usage))

    def chunk(self, *, reason: str | None = None, **delta: Any) -> bytes:
        """A part of the answer, as a server-sent event."""
        finish = None if reason is None else self._finish(reason)
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._event(choices=[choice])

    def words(self, text: str) -> bytes:
        """More words, as a server-sent event."""
        return self.chunk(audio={"transcript": text}) if self.spoken else self.chunk(content=text)

    def samples(self, pcm: bytes) -> bytes:
        """More sound, as a server-sent event."""
        return self.chunk(audio={"data": base64.b64encode(pcm).decode()})

    def usage_chunk(self, usage: Usage) -> bytes:
        """The usage, as a server-sent event without choices."""
        return self._event(choices=[], usage=show_usage(usage))

    def _finish(self, reason: str) -> str:
        if self.calls:
            return "tool_calls"
        return "length" if reason == "max_tokens" else "stop"

    def _event(self, **fields: Any) -> bytes:
        return b"data: " + self._json("chat.completion.chunk", **fields) + b"\n\n"

    def _json(self, kind: str, **fields: Any) -> bytes:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return json.dumps({**head, **fields}, ensure_ascii=False).encode()


DONE = b"data: [DONE]\n\n"


def show_usage(usage: Usage) -> dict[str, Any]:
    """Tokens as chat completions count them."""
    read = usage.input_text + usage.input_audio
    written = usage.output_text + usage.output_audio
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"audio_tokens": usage.input_audio, "cached_tokens": usage.input_cached},
        "completion_tokens_details": {
            "audio_tokens": usage.output_audio,
            "reasoning_tokens": usage.output_thought,
        },
    }
