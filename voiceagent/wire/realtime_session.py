"""The session object of the Realtime protocol: defaults, sparse updates, and what they mean to the core."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Literal

import msgspec
from msgspec import UNSET

from voiceagent.core.options import (
    Condensing,
    Filler,
    Modality,
    ServerVad,
    SessionConfig,
    Tool,
    TurnOptions,
)
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.codecs import RATES
from voiceagent.wire.dialect import WireError
from voiceagent.wire.realtime_mcp import Named, distinct
from voiceagent.wire.realtime_meaning import (
    core_choice,
    core_dictation,
    core_limit,
    core_truncation,
    core_vad,
    input_item,
    show_context,
    show_format,
)
from voiceagent.wire.realtime_tools import checked_tools, chosen_tools, listed_tools, show_tool

AS_THEY_CAME = (
    "instructions",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "binary_audio",
    "echo_cancellation",
    "speculation",
    "barge_in",
    "protected_ms",
)
REACTIONS = ("create_response", "interrupt_response", "idle_timeout_ms")
"""What of turn detection is about replies."""
COMMITTED = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Transcription models that know no turn detection where they come from: their clients end each utterance."""
Kind = Literal["realtime", "transcription"]
OBJECTS: dict[Kind, str] = {"realtime": "realtime.session", "transcription": "realtime.transcription_session"}
NULLABLE = ("tracing", "prompt", "include", "output_lead_ms", "tool_filler")


class Session:
    """The effective session of one connection, as the client sees it (`shown`) and as the core needs it.

    Args:
        base: defaults of this server.
        session_id: id shown to the client.
        model: the model name that the client asked for, echoed.
        voices: names that there are at the time; others fall back to the first.
        can_think: whether the model can think before it answers.
        kind: a conversation, or a session that only writes down what it hears.
    """

    def __init__(
        self,
        base: SessionConfig,
        *,
        session_id: str,
        model: str,
        voices: Collection[str],
        can_think: bool = False,
        kind: Kind = "realtime",
    ) -> None:
        self.kind = kind
        self._voices = voices
        self.named: dict[str, Named] = {}  # tool servers, by label
        self.own_tools: dict[
            str, tuple[Tool, ...]
        ] = {}  # of those that the session brought, once they are listed
        self._functions = tuple(tool for tool in base.tools if tool.server is None)
        self._server_tools = tuple(tool for tool in base.tools if tool.server is not None)
        self.own_voices: dict[str, str] = {}  # that the session brought: the engine's name for each
        self._can_think = can_think
        self._base = base
        self._choice = base.tool_choice
        self._detects = False  # the client has said how turns are found
        self._dictation = base.dictation
        self._vad = base.turn_detection or ServerVad()
        self.shown: dict[str, Any] = {
            "type": kind,
            "object": OBJECTS[kind],
            "id": session_id,
            "model": model,
            "output_modalities": [base.modalities],
            "instructions": base.instructions,
            "tools": [show_tool(tool) for tool in self._functions],
            "tool_choice": base.tool_choice,
            "parallel_tool_calls": base.parallel_calls,
            "max_output_tokens": base.max_tokens or "inf",
            "temperature": base.temperature,
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "output_lead_ms": base.lead_ms,
            "think": ("on" if base.think else "off") if can_think else None,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATES["audio/pcm"]},
                    "transcription": {"model": "builtin"} if base.transcribe or self._writes else None,
                    "noise_reduction": None,
                    "turn_detection": None
                    if base.turn_detection is None
                    else self._default_vad("server_vad"),
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": RATES["audio/pcm"]},
                    "voice": base.voice or next(iter(voices), ""),
                    "speed": base.speed,
                },
            },
        }
        if base.cancel_echo:
            self.shown["echo_cancellation"] = True
        if base.speculation:
            self.shown["speculation"] = True
        if self._server_tools:
            self.shown["server_tools"] = None
            self.shown["tool_filler"] = None if base.filler is None else asdict(base.filler)
        if base.condensing != Condensing():
            self.shown["context"] = show_context(base.condensing)

    @property
    def _writes(self) -> bool:
        """Whether it only writes down what it hears."""
        return self.kind == "transcription"

    @property
    def visible(self) -> dict[str, Any]:
        """The session as the client sees it: of one that only writes down, what concerns that."""
        if not self._writes:
            return self.shown
        heard = dict(self.shown["audio"]["input"])
        if heard["turn_detection"] is not None:
            vad = heard["turn_detection"].items()
            heard["turn_detection"] = {key: value for key, value in vad if key not in REACTIONS}
        names = ("type", "object", "id", "include", "recorded", "binary_audio")
        top = {key: self.shown[key] for key in names if key in self.shown}
        return {**top, "audio": {"input": heard}}

    @property
    def input_format(self) -> str:
        """Type of the input audio format."""
        return str(self.shown["audio"]["input"]["format"]["type"])

    @property
    def binary_audio(self) -> bool:
        """Whether the client has asked for audio in binary frames; the key is shown to nobody else."""
        return bool(self.shown.get("binary_audio", False))

    @property
    def output_format(self) -> dict[str, Any]:
        """The output audio format."""
        shown: dict[str, Any] = self.shown["audio"]["output"]["format"]
        return shown

    def apply(self, patch: ev.SessionPatch) -> None:
        """Merges a sparse update: only present keys change, all or none.

        Raises:
            WireError: a value that we cannot go by; `param` names it.
        """
        if patch.type not in (None, self.kind):
            raise WireError(
                f"This is a session of type {self.kind!r}, and its type does not change.",
                code="unsupported_session_type",
                param="session.type",
                remedy="Connect with ?intent=transcription for transcription, with ?model= for a conversation.",
            )
        shown, named = dict(self.shown), self.named
        for name in AS_THEY_CAME:
            if getattr(patch, name) is not None:
                shown[name] = msgspec.to_builtins(getattr(patch, name))
        for name in NULLABLE:
            if getattr(patch, name) is not UNSET:
                shown[name] = msgspec.to_builtins(getattr(patch, name))
        if patch.output_modalities is not None:
            shown["output_modalities"] = list(patch.output_modalities)
        if patch.tools is not None:
            shown["tools"], named = listed_tools(patch.tools, self._server_tools)
        if patch.server_tools is not UNSET:
            shown["server_tools"] = chosen_tools(patch.server_tools, self._server_tools)
        if patch.tool_choice is not None:
            core_choice(patch.tool_choice, param="session.tool_choice")
            shown["tool_choice"] = msgspec.to_builtins(patch.tool_choice)
        if patch.truncation is not None:
            shown["truncation"] = msgspec.to_builtins(patch.truncation)
        if patch.context is not None:
            before = shown.get("context", show_context(self._base.condensing))
            shown["context"] = {**before, **msgspec.to_builtins(patch.context)}
        if patch.max_output_tokens is not None:
            shown["max_output_tokens"] = patch.max_output_tokens
        if patch.think is not None and self._may_think(patch.think, param="session.think"):
            shown["think"] = patch.think
        if patch.audio is not None:
            shown["audio"] = {
                "input": self._input(patch.audio.input or ev.InputAudioPatch()),
                "output": self._output(patch.audio.output or ev.OutputAudioPatch()),
            }
        dictation = core_dictation(shown)
        self.shown, self.named, self._dictation = shown, named, dictation
        if patch.tool_choice is not None:
            self._choice = core_choice(patch.tool_choice, param="session.tool_choice")

    @property
    def _filler(self) -> Filler | None:
        shown = self.shown.get("tool_filler")
        return None if shown is None else Filler(**shown)

    def tools_of(self, label: str) -> tuple[Tool, ...]:
        """The tools of a server that the session names, as far as they are known and it wants them."""
        return tuple(self.named[label].take(self.own_tools.get(label, self._server_tools)))

    def _tools(self) -> tuple[Tool, ...]:
        """What the model may call: the client's functions first, then what the server runs."""
        own = [tool for tool in self.shown["tools"] if tool["type"] == "function"]
        functions = [Tool(tool["name"], tool["description"], tool["parameters"]) for tool in own]
        chosen = self.shown.get("server_tools")
        asked = [tool for label in self.named for tool in self.tools_of(label)]
        unasked = [
            tool
            for tool in self._server_tools
            if tool.server is not None
            and tool.server.label not in self.named
            and not tool.server.approval  # nobody could be asked
            and (chosen is None or tool.name in chosen)
        ]
        return (*functions, *distinct([*asked, *unasked], {tool.name for tool in functions}))

    def _input(self, patch: ev.InputAudioPatch) -> dict[str, Any]:
        shown = dict(self.shown["audio"]["input"])
        if patch.format is not None:
            shown["format"] = show_format(patch.format, param="session.audio.input.format")
        if patch.noise_reduction is not UNSET:
            shown["noise_reduction"] = msgspec.to_builtins(patch.noise_reduction)
        if patch.transcription is not UNSET:
            named = msgspec.to_builtins(patch.transcription)
            off = named is None and not self._writes
            shown["transcription"] = None if off else named or {"model": "builtin"}
        if patch.turn_detection is not UNSET:
            shown["turn_detection"] = self._turn_detection(patch.turn_detection)
        elif self._writes and patch.transcription is not UNSET and not self._detects:
            model = shown["transcription"].get("model", "")
            shown["turn_detection"] = None if model.startswith(COMMITTED) else shown["turn_detection"]
        return shown

    def _output(self, patch: ev.OutputAudioPatch) -> dict[str, Any]:
        shown = dict(self.shown["audio"]["output"])
        if patch.format is not None:
            shown["format"] = show_format(patch.format, param="session.audio.output.format")
        if patch.voice is not None:
            shown["voice"] = self.known_voice(patch.voice)
        if patch.speed is not None:
            shown["speed"] = patch.speed
        return shown

    def _turn_detection(self, given: ev.TurnDetection | None) -> dict[str, Any] | None:
        self._detects = True
        if given is None:
            return None
        now: dict[str, Any] = self.shown["audio"]["input"]["turn_detection"] or {}
        kind = given.type or now.get("type", "server_vad")
        start = now if now.get("type") == kind else self._default_vad(kind)
        return {**start, **{k: v for k, v in msgspec.to_builtins(given).items() if k in start}}

    def _default_vad(self, kind: str) -> dict[str, Any]:
        reactions = {
            "create_response": self._vad.create_response,
            "interrupt_response": self._vad.interrupt_response,
        }
        if kind == "semantic_vad":
            return {"type": "semantic_vad", "eagerness": "auto", **reactions}
        return {
            "type": "server_vad",
            "threshold": self._vad.threshold,
            "prefix_padding_ms": self._vad.prefix_padding_ms,
            "silence_duration_ms": self._vad.silence_duration_ms,
            "idle_timeout_ms": self._vad.idle_timeout_ms,
            **reactions,
        }

    def _may_think(self, asked: ev.Think, *, param: str) -> bool:
        """Whether the model can think; WireError if it cannot and is to."""
        if asked == "on" and not self._can_think:
            raise WireError(
                "This model cannot think before it answers.",
                code="think_unavailable",
                param=param,
                remedy='Leave it out, or say "off".',
            )
        return self._can_think

    def known_voice(self, voice: str | ev.VoiceId) -> str:
        """The voice if the engine has it; unknown names must not fail a session, they fall back to the first."""
        name = voice if isinstance(voice, str) else voice.id
        return name if name in self.own_voices or name in self._voices else next(iter(self._voices), name)

    def _engine_voice(self, name: str) -> str:
        """What the engine calls a voice that is shown; of one that is gone by now, the first."""
        return self.own_voices.get(name) or self.known_voice(name)

    # --- for the core ---------------------------------------------------------------------------------------

    def to_core(self) -> SessionConfig:
        """What the controller needs of it."""
        audio = self.shown["audio"]
        return SessionConfig(
            instructions=self.shown["instructions"],
            modalities=self.shown["output_modalities"][0],
            voice=self._engine_voice(audio["output"]["voice"]),
            tools=self._tools(),
            tool_choice=self._choice,
            max_tokens=core_limit(self.shown["max_output_tokens"]),
            temperature=self.shown["temperature"],
            top_p=self._base.top_p,
            top_k=self._base.top_k,
            repetition_penalty=self._base.repetition_penalty,
            turn_detection=core_vad(audio["input"]["turn_detection"], self._vad),
            transcribe=audio["input"]["transcription"] is not None,
            dictation=self._dictation,
            replies=not self._writes,
            lead_ms=self.shown["output_lead_ms"],
            cancel_echo=bool(self.shown.get("echo_cancellation", False)),
            speculation=bool(self.shown.get("speculation", False)),
            barge_in=self.shown.get("barge_in", self._base.barge_in),
            protected_ms=self.shown.get("protected_ms", self._base.protected_ms),
            think=self.shown["think"] == "on",
            truncation=core_truncation(self.shown["truncation"]),
            parallel_calls=self.shown["parallel_tool_calls"],
            filler=self._filler,
            speed=audio["output"]["speed"],
            condensing=Condensing(**self.shown.get("context", {})),
        )

    def turn_options(self, asked: ev.ResponseParam) -> TurnOptions:
        """What a response.create asks for; everything that it leaves out comes from the session.

        Raises:
            WireError: a value that we cannot go by; `param` names it.
        """
        if self._writes:
            raise WireError(
                "A session that transcribes gives no responses.",
                code="response_not_available",
                remedy="Connect with ?model= for a conversation.",
            )
        base = self.to_core().turn_options()
        output = (asked.audio.output if asked.audio is not None else None) or ev.OutputAudioPatch()
        own_format = None
        if output.format is not None:
            own_format = show_format(output.format, param="response.audio.output.format")["type"]
        modality: Modality = (
            base.modalities if asked.output_modalities is None else asked.output_modalities[0]
        )
        think = base.think
        if asked.think is not None:
            think = self._may_think(asked.think, param="response.think") and asked.think == "on"
        tools, limit, choice = asked.tools, asked.max_output_tokens, asked.tool_choice
        return TurnOptions(
            modalities=modality,
            instructions=base.instructions if asked.instructions is None else asked.instructions,
            tools=base.tools if tools is None else checked_tools(tools, param="response.tools"),
            tool_choice=base.tool_choice
            if choice is None
            else core_choice(choice, param="response.tool_choice"),
            voice=base.voice if output.voice is None else self._engine_voice(self.known_voice(output.voice)),
            temperature=base.temperature if asked.temperature is None else asked.temperature,
            top_p=base.top_p,
            top_k=base.top_k,
            repetition_penalty=base.repetition_penalty,
            max_tokens=base.max_tokens if limit is None else core_limit(limit),
            think=think,
            truncation=base.truncation,
            parallel_calls=base.parallel_calls
            if asked.parallel_tool_calls is None
            else asked.parallel_tool_calls,
            speed=base.speed if output.speed is None else output.speed,
            filler=base.filler,
            interruptible=asked.interruptible,
            protected_ms=base.protected_ms if asked.protected_ms is None else asked.protected_ms,
            metadata=asked.metadata,
            format=own_format,
            conversation=asked.conversation != "none",
            input=None
            if asked.input is None
            else tuple(map(input_item, range(len(asked.input)), asked.input)),
        )


def kind_of(query: Mapping[str, str]) -> Kind:
    """The type of session that the address of a connection asks for.

    Raises:
        WireError: one that there is not; `param` names the parameter.
    """
    if "call_id" in query:
        raise WireError(
            f"There is no call {query['call_id'][:64]!r}: calls over WebRTC or SIP are not served here.",
            code="call_not_found",
            param="call_id",
            remedy="Connect with ?model= for a conversation of your own.",
        )
    if query.get("intent", "transcription") != "transcription":
        raise WireError(
            f"Unknown intent {query['intent'][:64]!r}.",
            code="invalid_value",
            param="intent",
            remedy="Use ?intent=transcription, or ?model= for a conversation.",
        )
    return "transcription" if "intent" in query else "realtime"
