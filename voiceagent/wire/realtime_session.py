"""The session object of the Realtime protocol: defaults, sparse updates, and what they mean to the core."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from voiceagent.core.events import ServerVad, SessionConfig, Tool
from voiceagent.wire import realtime_events as ev
from voiceagent.wire.dialect import WireError

DEFAULT_RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
# semantic_vad is mapped to a patient server_vad: its eagerness decides how long a silence ends the turn.
EAGERNESS_SILENCE_MS = {"low": 1200, "medium": 700, "high": 400, "auto": 700}
MAX_TOOLS = 128
MAX_INSTRUCTIONS = 64 * 1024
VAD_KEYS = ("create_response", "interrupt_response")


class Session:
    """The effective session of one connection, as the client sees it and as the core needs it."""

    def __init__(self, base: SessionConfig, *, session_id: str, model: str, voices: Sequence[str]) -> None:
        """Starts from the server's defaults.

        Args:
            base: defaults of this server.
            session_id: id shown to the client.
            model: the model name that the client asked for, echoed.
            voices: names of the voices that the engine has; others fall back to the first.
        """
        self._voices = tuple(voices)
        self._vad = base.turn_detection or ServerVad()
        self._lead_ms = base.lead_ms
        self._temperature = base.temperature
        vad = None if base.turn_detection is None else _show_vad(base.turn_detection)
        self.shown: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "output_modalities": [base.modalities],
            "instructions": base.instructions,
            "tools": [],
            "tool_choice": base.tool_choice,
            "parallel_tool_calls": False,
            "max_output_tokens": base.max_tokens or "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "expires_at": 0,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "transcription": {"model": "builtin"} if base.transcribe else None,
                    "noise_reduction": None,
                    "turn_detection": vad,
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": 24_000},
                    "voice": base.voice or (voices[0] if voices else ""),
                    "speed": 1.0,
                },
            },
        }

    @property
    def input_format(self) -> str:
        """Type of the input audio format."""
        return str(self.shown["audio"]["input"]["format"]["type"])

    @property
    def output_format(self) -> str:
        """Type of the output audio format."""
        return str(self.shown["audio"]["output"]["format"]["type"])

    def apply(self, patch: ev.SessionPatch) -> None:
        """Merges a sparse update: only present keys change, all or none.

        Raises:
            WireError: a value that is out of range; `param` names it.
        """
        shown = copy.deepcopy(self.shown)
        for name in (
            "instructions",
            "parallel_tool_calls",
            "truncation",
            "tracing",
            "prompt",
            "include",
            "reasoning",
        ):
            value = getattr(patch, name)
            if value is not UNSET:
                shown[name] = value
        if len(shown["instructions"]) > MAX_INSTRUCTIONS:
            raise WireError(
                "The instructions are too long.", param="session.instructions", remedy="At most 64 KiB."
            )
        if patch.output_modalities is not UNSET:
            shown["output_modalities"] = [
                modality(patch.output_modalities, param="session.output_modalities")
            ]
        if patch.tools is not UNSET:
            shown["tools"] = [show_tool(t) for t in checked_tools(patch.tools, param="session.tools")]
        if patch.tool_choice is not UNSET:
            shown["tool_choice"] = show_tool_choice(patch.tool_choice)
        if patch.max_output_tokens is not UNSET:
            max_tokens(patch.max_output_tokens, param="session.max_output_tokens")
            shown["max_output_tokens"] = patch.max_output_tokens
        if patch.audio is not UNSET:
            self._apply_audio(shown["audio"], patch.audio)
        if patch.output_lead_ms is not UNSET:
            if patch.output_lead_ms is not None and not 20 <= patch.output_lead_ms <= 10_000:
                raise WireError("output_lead_ms must be null or 20..10000.", param="session.output_lead_ms")
            self._lead_ms = patch.output_lead_ms
        if patch.temperature is not UNSET:
            self._temperature = temperature(patch.temperature, param="session.temperature")
        self.shown = shown

    def _apply_audio(self, shown: dict[str, Any], patch: ev.AudioPatch) -> None:
        if patch.input is not UNSET:
            target = shown["input"]
            if patch.input.format is not UNSET:
                target["format"] = show_format(patch.input.format, param="session.audio.input.format")
            if patch.input.noise_reduction is not UNSET:
                target["noise_reduction"] = patch.input.noise_reduction
            if patch.input.transcription is not UNSET:
                target["transcription"] = _show_transcription(patch.input.transcription)
            if patch.input.turn_detection is not UNSET:
                target["turn_detection"] = self._show_turn_detection(patch.input.turn_detection)
        if patch.output is not UNSET:
            target = shown["output"]
            if patch.output.format is not UNSET:
                target["format"] = show_format(patch.output.format, param="session.audio.output.format")
            if patch.output.voice is not UNSET:
                target["voice"] = self.known_voice(patch.output.voice)
            if patch.output.speed is not UNSET:
                target["speed"] = 1.0

    def _show_turn_detection(self, given: ev.TurnDetection | None) -> dict[str, Any] | None:
        if given is None:
            return None
        checks: list[tuple[str, float | None, float, float]] = [
            ("threshold", given.threshold, 0.0, 1.0),
            ("prefix_padding_ms", given.prefix_padding_ms, 0, 5000),
            ("silence_duration_ms", given.silence_duration_ms, 50, 10_000),
            ("idle_timeout_ms", given.idle_timeout_ms, 1000, 600_000),
        ]
        for name, value, low, high in checks:
            if value is not None and not low <= value <= high:
                raise WireError(
                    f"{name} must be between {low:g} and {high:g}.",
                    param=f"session.audio.input.turn_detection.{name}",
                )
        shown = {k: v for k, v in msgspec.to_builtins(given).items() if v is not None}
        if given.type == "semantic_vad":
            return {
                "type": "semantic_vad",
                "eagerness": given.eagerness or "auto",
                "create_response": given.create_response is not False,
                "interrupt_response": given.interrupt_response is not False,
            }
        shown.pop("eagerness", None)
        return {**_show_vad(self._vad), **shown}

    def known_voice(self, voice: str | dict[str, Any]) -> str:
        """The voice if the engine has it; unknown names must not fail a session, they fall back to the first."""
        name = str(voice.get("id", "")) if isinstance(voice, dict) else voice
        if name in self._voices or not self._voices:
            return name
        return self._voices[0]

    def to_core(self) -> SessionConfig:
        """What the controller needs of it."""
        audio = self.shown["audio"]
        return SessionConfig(
            instructions=self.shown["instructions"],
            modalities=self.shown["output_modalities"][0],
            voice=audio["output"]["voice"],
            tools=tuple(Tool(t["name"], t["description"], t["parameters"]) for t in self.shown["tools"]),
            tool_choice=core_tool_choice(self.shown["tool_choice"]),
            max_tokens=max_tokens(self.shown["max_output_tokens"], param="session.max_output_tokens"),
            temperature=self._temperature,
            turn_detection=self._core_vad(audio["input"]["turn_detection"]),
            transcribe=audio["input"]["transcription"] is not None,
            lead_ms=self._lead_ms,
        )

    def _core_vad(self, shown: dict[str, Any] | None) -> ServerVad | None:
        if shown is None:
            return None
        if shown["type"] == "semantic_vad":
            return ServerVad(
                threshold=self._vad.threshold,
                prefix_padding_ms=self._vad.prefix_padding_ms,
                silence_duration_ms=EAGERNESS_SILENCE_MS[shown["eagerness"]],
                **{k: shown[k] for k in VAD_KEYS},
            )
        return ServerVad(**{k: v for k, v in shown.items() if k != "type"})


def _show_vad(vad: ServerVad) -> dict[str, Any]:
    return {
        "type": "server_vad",
        "threshold": vad.threshold,
        "prefix_padding_ms": vad.prefix_padding_ms,
        "silence_duration_ms": vad.silence_duration_ms,
        "idle_timeout_ms": vad.idle_timeout_ms,
        "create_response": vad.create_response,
        "interrupt_response": vad.interrupt_response,
    }


def _show_transcription(given: dict[str, Any] | None) -> dict[str, Any] | None:
    # Only the keys that every stock client parses are echoed; extra ones kill Pipecat's receive loop.
    if given is None:
        return None
    return {k: given[k] for k in ("model", "language", "prompt") if k in given} or {"model": "builtin"}


def show_format(given: ev.Format, *, param: str) -> dict[str, Any]:
    """A checked audio format as the session shows it."""
    rate = DEFAULT_RATES[given.type]
    if given.rate not in (None, rate):
        raise WireError(f"{given.type} is supported at {rate} Hz only.", param=f"{param}.rate")
    return {"type": given.type, "rate": rate} if given.type == "audio/pcm" else {"type": given.type}


def modality(given: list[Any], *, param: str) -> Any:
    """The one output modality; audio implies a transcript."""
    if len(given) != 1:
        raise WireError('Output modalities must be ["audio"] or ["text"].', param=param)
    return given[0]


def checked_tools(given: list[ev.Tool], *, param: str) -> list[ev.Tool]:
    """Function tools with a name; anything else is refused by name."""
    if len(given) > MAX_TOOLS:
        raise WireError(f"At most {MAX_TOOLS} tools.", param=param)
    for i, tool in enumerate(given):
        if tool.type != "function":
            raise WireError(
                f"Tools of type {tool.type!r} are not supported.",
                param=f"{param}[{i}].type",
                remedy="Use function tools.",
            )
        if not tool.name:
            raise WireError("A function tool needs a name.", param=f"{param}[{i}].name")
    return given


def show_tool(tool: ev.Tool) -> dict[str, Any]:
    """A tool as the session shows it."""
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def show_tool_choice(given: str | dict[str, Any]) -> str | dict[str, Any]:
    """A checked tool choice."""
    if isinstance(given, str) and given not in ("auto", "none", "required"):
        raise WireError("tool_choice must be auto, none, required or a function.", param="tool_choice")
    if isinstance(given, dict) and not (
        given.get("type") == "function" and isinstance(given.get("name"), str)
    ):
        raise WireError("tool_choice must name a function.", param="tool_choice")
    return given


def core_tool_choice(given: str | dict[str, Any]) -> str:
    """auto, none, required, or the name of the function."""
    return given if isinstance(given, str) else str(given["name"])


def max_tokens(given: int | str | None, *, param: str) -> int | None:
    """A checked output limit; None = no limit of the client's."""
    if given is None or isinstance(given, str):
        return None
    if not 1 <= given <= 4096:
        raise WireError('max_output_tokens must be 1..4096 or "inf".', param=param)
    return given


def temperature(given: float, *, param: str) -> float:
    """A checked sampling temperature."""
    if not 0.0 <= given <= 2.0:
        raise WireError("temperature must be between 0 and 2.", param=param)
    return given
