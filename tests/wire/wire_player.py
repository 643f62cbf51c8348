"""Plays transcripts through the Realtime dialect and a real controller, the engine's part scripted, time by hand.

A transcript is a text file. Lines that begin with `#` are for readers (save `# the model can think`, `# a
transcription session` and `# the server has tools`), the others are JSON behind one character:

    > client message       audio as "@1200": that many samples of silence at 24 kHz
    < server event         audio likewise; checked
    ! what the engine does {"voice_ms": n} {"quiet_ms": n} {"text": s} {"audio_tokens": n}
                           {"tool": name, "arguments": s} {"end": reason} {"fail": code} {"thought": s}
                           {"hears": s} {"transcript": s} {"unheard": code}, of the newest turn or user item
                           ("turn": n names another);
                           {"down": true} and {"up": true};
                           {"returns": s, "item": id} of a tool that the server runs
    + seconds              time passes

`python tests/wire/wire_player.py FILE...` writes the `<` lines anew; read the difference before you commit it.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openai.types.realtime as published
from pydantic import BaseModel

from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.errors import InputError
from voiceagent.units import MODEL_RATE, TOKEN_SAMPLES
from voiceagent.wire.dialect import (
    ConnectTools,
    CreateVoice,
    DropTools,
    Reply,
    ToolsRequest,
    VoiceRequest,
    WireError,
)
from voiceagent.wire.realtime import RealtimeDialect
from voiceagent.wire.realtime_session import Kind

WINDOW = 512
OUR_KEYS = {
    "object",
    "id",
    "temperature",
    "output_lead_ms",
    "think",
    "reasoning_tokens",
    "start_time",
    "binary_audio",
    "echo_cancellation",
    "server_tools",
    "speculation",
    "tool_filler",
    "barge_in",
    "protected_ms",
    "context",
    "reason",
    "silence_ms",
}
OUR_EVENTS = {
    "server_tool.called": {"type", "event_id", "response_id", "item_id", "name", "arguments"},
    "server_tool.returned": {"type", "event_id", "item_id", "output", "failed", "pending"},
    "voice.created": {"type", "event_id", "voice"},
    "voice.deleted": {"type", "event_id", "voice"},
    "response.thought.delta": {"type", "event_id", "response_id", "delta"},
    "response.thought.done": {"type", "event_id", "response_id", "text"},
    "conversation.condensed": {
        "type",
        "event_id",
        "form",
        "reason",
        "item_ids",
        "tokens_before",
        "tokens_after",
        "summary",
    },
    "response.heard": {
        "type",
        "event_id",
        "response_id",
        "item_id",
        "generated_ms",
        "sent_ms",
        "heard_ms",
        "words",
        "heard_words",
        "acknowledged",
    },
    "response.interruption": {
        "type",
        "event_id",
        "response_id",
        "status",
        "reason",
        "voice_ms",
        "heard_ms",
    },
    "response.latency": {"type", "event_id", "response_id", "item_id", "cause", "total_ms", "parts"},
    "response.output_audio_transcript.words": {
        "type",
        "event_id",
        "response_id",
        "item_id",
        "output_index",
        "content_index",
        "words",
    },
}
SERVER_TOOLS = (
    opt.Tool("weather", "Current weather.", {"type": "object"}, opt.ServerTool("server", "weather")),
    opt.Tool("pay", "Pays.", {"type": "object"}, opt.ServerTool("bank", "pay", approval=True)),
)
MODELS: dict[str, type[BaseModel]] = {
    model.model_fields["type"].annotation.__args__[0]: model  # type: ignore[union-attr]
    for model in published.RealtimeServerEvent.__origin__.__args__  # type: ignore[attr-defined]
}


def check_published(frame: str) -> dict[str, Any]:
    """The event, once it has been parsed strictly by the published types and has no key that they do not know."""
    event: dict[str, Any] = json.loads(frame)
    if event["type"] == "mcp_list_tools.failed":
        assert set(event.pop("error")) == {"code", "message"}  # ours
        frame = json.dumps(event)
    if event["type"] in OUR_EVENTS:
        assert set(event) == OUR_EVENTS[event["type"]], event
        return event
    parsed = MODELS[event["type"]].model_validate_json(frame, strict=True)
    assert not _strangers(parsed) - OUR_KEYS, event
    return event


def _strangers(model: Any) -> set[str]:
    if isinstance(model, BaseModel):
        found = set(model.model_extra or {})
        return found.union(*(_strangers(value) for _, value in model))
    if isinstance(model, list):
        return set().union(*map(_strangers, model))
    return set()


def voice_outcome(asked: VoiceRequest) -> tuple[str, float] | None:
    """What comes of what is asked of voices: four seconds, or its end."""
    return (f"call/{asked.name}", 4.0) if isinstance(asked, CreateVoice) else None


def tools_outcome(asked: ConnectTools) -> list[opt.Tool] | InputError:
    """What comes of a tool server that a session names: one tool, or an error if its label is "gone"."""
    found = opt.Tool("look", "Looks.", {}, opt.ServerTool(asked.label, "look", read_only=True))
    gone = InputError("It cannot be reached.", code="mcp_server_unreachable")
    return gone if asked.label == "gone" else [found]


class Phone:
    """One call: dialect, controller, a clock moved by hand."""

    def __init__(self, *, can_think: bool = False, kind: Kind = "realtime", **config: Any) -> None:
        self.now = 100.0
        base = opt.SessionConfig(**{"instructions": "Be kind.", "transcribe": True, **config})
        self.dialect = RealtimeDialect(
            session_id="call", model="m", base=base, voices=("anna", "bert"), can_think=can_think, kind=kind
        )
        self.controller = Controller(self.dialect.config, id_prefix="item_")
        self.turn = 0
        self.seq = 0
        self.judged = 0
        self.user_item = ""
        self.sent: list[str] = list(self.dialect.open())

    def client(self, frame: str | bytes) -> list[str]:
        """What is answered to a message of the client."""
        self.sent = []
        try:
            for event in self.dialect.receive(frame):
                if isinstance(event, Reply):
                    self.sent.append(str(event.frame))
                elif isinstance(event, VoiceRequest):
                    self.sent += self.dialect.render_voice(event, voice_outcome(event))
                elif isinstance(event, ToolsRequest):
                    self.sent += self._listed(event)
                else:
                    self._do(self.controller.handle(event, self.now))
        except WireError as error:
            self.sent.append(self.dialect.render_error(error))
        return self.sent

    def _listed(self, event: ToolsRequest) -> list[str]:
        """What the client is told when it has named a tool server of its own."""
        if isinstance(event, DropTools):
            return []
        told = list(self.dialect.render_tools(event, tools_outcome(event)))
        self._do(self.controller.handle(core.Configure(self.dialect.config), self.now))
        return told

    def engine(self, does: dict[str, Any]) -> list[str]:
        """What the client is told when the engine does something."""
        self.sent = []
        for event in self._engine_events(does):
            self._do(self.controller.handle(event, self.now))
        return self.sent

    def wait(self, seconds: float) -> list[str]:
        """What the client is told while time passes."""
        self.sent = []
        until = self.now + seconds
        while (deadline := self.controller.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self._do(self.controller.handle_timeout(self.now))
        self.now = until
        return self.sent

    def _do(self, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.StartTurn):
                self.turn, self.seq = action.turn, 0
            if isinstance(action, notices.Committed | act.Transcribe):
                self.user_item = action.item_id
            self.sent += [str(frame) for frame in self.dialect.render(action)]

    def _engine_events(self, does: dict[str, Any]) -> list[core.Event]:
        turn = does.get("turn", self.turn)
        match does:
            case {"voice_ms": ms}:
                return self._probabilities(ms, 0.95)
            case {"quiet_ms": ms}:
                return self._probabilities(ms, 0.02)
            case {"thought": text}:
                return [core.ThoughtOut(turn, text)]
            case {"text": text}:
                return [core.TextOut(turn, text, (1,))]
            case {"audio_tokens": count}:
                self.seq += 1
                pcm = np.zeros(count * TOKEN_SAMPLES, np.int16)
                return [core.AudioOut(turn, self.seq - 1, pcm, (7,) * count)]
            case {"tool": name, "arguments": arguments}:
                return [core.ToolCalled(turn, f"call_{turn}", name, arguments)]
            case {"end": reason}:
                usage = core.Usage(40, 25, 30, 12, 48, does.get("thought_tokens", 0))
                return [core.TurnEnded(turn, reason, usage, (1, 2))]
            case {"fail": code}:
                return [core.TurnFailed(turn, code, "It broke.")]
            case {"hears": text}:
                return [core.TranscriptDelta(self.user_item, text)]
            case {"transcript": text}:
                return [core.Transcript(self.user_item, text)]
            case {"unheard": code}:
                return [core.TranscriptFailed(self.user_item, code, "It broke.")]
            case {"returns": output, "item": item_id}:
                return [core.ToolReturned(item_id, output, does.get("failed", False))]
            case {"down": True}:
                return [core.EngineDown()]
            case {"up": True}:
                return [core.EngineUp()]
            case _:
                raise ValueError(does)

    def _probabilities(self, ms: int, p: float) -> list[core.Event]:
        made: list[core.Event] = []
        for _ in range(ms * MODEL_RATE // 1000 // WINDOW):
            self.judged += WINDOW
            made.append(core.SpeechProb(self.judged, p))
        return made


def play(script: list[str]) -> list[str]:
    """The transcript's lines with the `<` lines as they are now."""
    kind: Kind = "transcription" if "# a transcription session" in script else "realtime"
    tools = SERVER_TOOLS if "# the server has tools" in script else ()
    phone = Phone(can_think="# the model can think" in script, kind=kind, tools=tools)
    played: list[str] = []
    for line in script:
        if line.startswith("<"):
            continue
        played.append(line)
        match line[:1]:
            case ">":
                frames = phone.client(_expand(line[2:]))
            case "!":
                frames = phone.engine(json.loads(line[2:]))
            case "+":
                frames = phone.wait(float(line[2:]))
            case _:
                frames = phone.sent if line == "# connected" else []
        played += [f"< {_shorten(check_published(frame))}" for frame in frames]
    return played


def _expand(text: str) -> str:
    message = json.loads(text)
    if str(message.get("audio", "")).startswith("@"):
        message["audio"] = base64.b64encode(bytes(2 * int(message["audio"][1:]))).decode()
    return json.dumps(message)


def _shorten(event: dict[str, Any]) -> str:
    if event["type"] == "response.output_audio.delta":
        event["delta"] = _samples(event["delta"])
    if event["type"] == "conversation.item.retrieved":
        for part in event["item"].get("content", []):
            if "audio" in part:
                part["audio"] = _samples(part["audio"])
    return json.dumps(event)


def _samples(audio: str) -> str:
    return f"@{len(base64.b64decode(audio)) // 2}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text("\n".join(play(Path(name).read_text().splitlines())) + "\n")
