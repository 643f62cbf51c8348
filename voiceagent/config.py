"""Deployment configuration: frozen dataclasses <- TOML file <- environment <- command line, merged and checked once.

It holds what an operator decides; session settings travel in the protocol, model shapes come from the checkpoint.
Environment names are VOICEAGENT_SECTION__FIELD, for example VOICEAGENT_TURN__SILENCE_MS=350.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voiceagent.errors import ConfigError

ENV_PREFIX = "VOICEAGENT_"
DTYPES = ("auto", "float32", "bfloat16", "float16")
SWITCH = ("auto", "on", "off")
VARIANTS = ("auto", "chat", "think", "base")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen and who may connect.

    Off loopback the server refuses to start without `api_keys`; browsers' origins must be the server's own or listed.
    With `tls_cert` and `tls_key` (PEM files) it speaks https and wss only.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    custom_voices: str = "auto"  #: may clients bring voices of their own? on, off, or auto: only on loopback
    voice_folder: str = ""  #: where those are kept; empty = in memory, until the server stops
    max_custom_voices: int = 32  #: of all clients together, those of single sessions included
    handshake_timeout_s: float = 5.0
    ping_interval_s: float = 20.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Which model, where it runs, and how many sessions it admits.

    `device = "auto"` is the first GPU, or the CPU where there is none; `dtype = "auto"` is bfloat16 on a GPU and
    float32 on a CPU (but speech in bfloat16 if the CPU has tiles for it). Speech goes where the language model is.
    Memory budgets of 0 are worked out at loading.
    """

    model: str = (
        "pocket"  #: pocket, mini, mini-base, mini-think, OWNER/NAME on the Hugging Face hub, or a folder
    )
    variant: str = "auto"  #: how the model wants to be asked: auto (as it says itself), chat, think or base
    voices: str = ""  #: folder of voice recordings (NAME.wav) instead of the model's own
    device: str = "auto"  #: of encoder and language model: auto, cpu, cuda or cuda:N
    dtype: str = "auto"  #: auto, float32, bfloat16 or float16
    speech_device: str = "auto"  #: of Token2Wav
    speech_dtype: str = "auto"  #: of its flow; the vocoder is always float32
    kv_memory_mb: int = 0  #: keys and values of all conversations together
    speech_memory_mb: int = 0  #: state of all speech streams together
    #: speech ids per chunk, the last number holds; the reference has 25
    speech_chunks: tuple[int, ...] = (12, 16, 25)
    reference_compatible: bool = False  #: trim and cross-fade speech exactly as the published code does
    threads: int = 0  #: torch threads; 0 = one per core
    max_sessions: int = 8
    max_batch: int = 64  #: conversations that one step of the language model serves
    guess_share: float = (
        0.25  #: of its time, that replies on a guess may cost in vain; 0 = none is begun early
    )
    load_timeout_s: float = 600.0
    heartbeat_timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """Defaults of turn taking for sessions that do not say otherwise (server_vad of the Realtime protocol)."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_ms: int = 500
    lead_ms: int = 300  #: how far audio is sent ahead of its playing; the floor of barge-in latency
    barge_in: str = (
        "patient"  #: patient: "mm-hm" and coughs do not end a reply; quick: any voice of 200 ms does
    )
    echo_cancellation: bool = False  #: for lines without one of their own, unless a session says otherwise
    #: begin a reply at the first likely end of what a person says, and hold it until the turn is over
    speculation: bool = True


@dataclass(frozen=True, slots=True)
class ContextConfig:
    """What is done with old turns as the model's context fills, for sessions that do not say otherwise."""

    audio_as_text: bool = True  #: the words of old sound are read instead
    summaries: bool = False  #: the oldest turns become a summary of the model's, if it can write one


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What one connection may use; over the message budget the server reads more slowly."""

    message_bytes: int = 1 << 20
    messages_per_s: float = 400.0
    message_burst: int = 800
    unprocessed_audio_s: float = 30.0
    session_s: float = 7200.0
    slow_consumer_s: float = 5.0
    resume_s: float = 30.0  #: how long a session waits for a client that lost its line; 0 = not at all
    history_audio_mb: int = 32  #: sound that a conversation keeps; beyond it the oldest items lose theirs


@dataclass(frozen=True, slots=True)
class RecordingConfig:
    """The flight recorder; only calls that ask for it are recorded."""

    folder: str = ""  #: where recordings go; empty = there are none
    keep_h: float = 24.0  #: after so many hours a recording is deleted


@dataclass(frozen=True, slots=True)
class ToolsConfig:
    """Tools that the server runs for the model."""

    functions: tuple[str, ...] = ()  #: MODULE:NAME, or names of installed entry points; * = all of those
    mcp_servers: str = ""  #: file with MCP servers, {"mcpServers": {LABEL: ...}}
    #: beginnings of addresses of MCP servers that a session may name; * = every public one over https
    session_servers: tuple[str, ...] = ()
    #: networks that these may lie in although they are not public, such as 10.1.0.0/16
    private_networks: tuple[str, ...] = ()
    filler: str = ""  #: said when a tool takes long and has no words of its own; empty = nothing
    filler_after_ms: int = 1200  #: of quiet, from the call on


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Who may see how the server does; nothing of it tells what anybody said."""

    metrics: str = "key"  #: /metrics: key (as every other address), open (to anybody who can reach it) or off
    #: address of an OpenTelemetry collector (OTLP over HTTP, as http://127.0.0.1:4318) for a trace of every call;
    #: empty = what OTEL_EXPORTER_OTLP_ENDPOINT says, or none
    otlp: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; `sources` says where each changed value came from."""

    server: ServerConfig = field(default_factory=ServerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    turn: TurnConfig = field(default_factory=TurnConfig)
    context: ContextConfig = field(default_factory=ContextConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    recording: RecordingConfig = field(default_factory=RecordingConfig)
    tools: ToolsConfig = field(default_factory=ToolsConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    instructions: str = "You are a helpful assistant."


def load_config(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Merges defaults, a TOML file, environment variables and overrides, in that order.

    Args:
        path: TOML file with the sections of `Config`, and the key instructions at its top.
        environ: environment to read; the process's own by default.
        overrides: dotted names to values, as the command line gives them, for example {"server.port": 9000}.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest known name) or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values.update(_read_toml(path))
    for name, value in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENV_PREFIX) and "__" in name:
            values[name[len(ENV_PREFIX) :].lower().replace("__", ".")] = value
    values.update({k: v for k, v in (overrides or {}).items() if v is not None})
    config = Config()
    for name, value in values.items():
        config = _with_value(config, name, value)
    _check(config)
    return config


def describe(config: Config) -> str:
    """The configuration as TOML text, secrets masked; what `voiceagent config` prints."""
    lines = [f"instructions = {_toml(config.instructions)}"]
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        if not dataclasses.is_dataclass(part):
            continue
        lines.append(f"\n[{section.name}]")
        for f in dataclasses.fields(part):
            value = getattr(part, f.name)
            lines.append(
                f"{f.name} = {_toml(tuple('***' for _ in value) if f.name == 'api_keys' else value)}"
            )
    return "\n".join(lines)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read the configuration file {path}: {error}.",
            remedy="Check the path and its permissions.",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}.", remedy="Correct the line that is named."
        ) from error
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat


def _known_names() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for f in dataclasses.fields(Config):
        default = getattr(Config(), f.name)
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            hints = typing.get_type_hints(type(default))
            names.update(
                {f"{f.name}.{inner.name}": hints[inner.name] for inner in dataclasses.fields(default)}
            )
        else:
            names[f.name] = str
    return names


def _with_value(config: Config, name: str, value: Any) -> Config:
    known = _known_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"Unknown configuration key {name!r}.",
            remedy=f"Did you mean {near[0]!r}?" if near else "`voiceagent config` lists all keys.",
            param=name,
        )
    value = _convert(name, value, known[name])
    section, _, inner = name.partition(".")
    if not inner:
        return dataclasses.replace(config, **{section: value})
    return dataclasses.replace(
        config, **{section: dataclasses.replace(getattr(config, section), **{inner: value})}
    )


def _convert(name: str, value: Any, kind: Any) -> Any:
    """A TOML value or a text (environment, flag) as the field's type."""
    try:
        if typing.get_origin(kind) is tuple:
            return _convert_list(value, typing.get_args(kind)[0])
        if kind is bool:
            return _convert_flag(value)
        if kind is str and isinstance(value, str):
            return value
        if kind in (int, float) and not isinstance(value, bool) and isinstance(value, (int, float, str)):
            if kind is int and isinstance(value, float) and not value.is_integer():
                raise ValueError("a whole number")
            return kind(value)
    except ValueError:
        pass
    wanted = kind if isinstance(kind, types.GenericAlias) else kind.__name__
    raise ConfigError(f"{name} = {value!r} is not of type {wanted}.", remedy="Correct the value.", param=name)


def _convert_list(value: Any, kind: type) -> tuple[Any, ...]:
    """A list, or a text with commas, as texts or whole numbers."""
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("a list")
    if kind is int:
        if any(isinstance(item, bool | float) for item in items):
            raise ValueError("whole numbers")
        return tuple(int(item) for item in items)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("a list of texts")
    return tuple(item.strip() for item in items if item.strip())


def _convert_flag(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError("true or false")


def _check(config: Config) -> None:
    ranges: list[tuple[str, float, float, float]] = [
        ("server.port", config.server.port, 0, 65535),
        ("server.max_custom_voices", config.server.max_custom_voices, 0, 1000),
        ("engine.max_sessions", config.engine.max_sessions, 1, 4096),
        ("engine.max_batch", config.engine.max_batch, 1, 1024),
        ("engine.guess_share", config.engine.guess_share, 0, 1),
        ("engine.kv_memory_mb", config.engine.kv_memory_mb, 0, 1 << 24),
        ("engine.speech_memory_mb", config.engine.speech_memory_mb, 0, 1 << 24),
        *(("engine.speech_chunks", size, 1, 500) for size in config.engine.speech_chunks or (0,)),
        ("turn.threshold", config.turn.threshold, 0.0, 1.0),
        ("turn.prefix_padding_ms", config.turn.prefix_padding_ms, 0, 5000),
        ("turn.silence_ms", config.turn.silence_ms, 50, 10_000),
        ("turn.lead_ms", config.turn.lead_ms, 20, 10_000),
        ("tools.filler_after_ms", config.tools.filler_after_ms, 100, 30_000),
        ("limits.message_bytes", config.limits.message_bytes, 4096, 64 << 20),
        ("limits.history_audio_mb", config.limits.history_audio_mb, 1, 1 << 16),
        ("limits.resume_s", config.limits.resume_s, 0, 600),
        ("limits.messages_per_s", config.limits.messages_per_s, 1, 1e6),
    ]
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise ConfigError(
                f"{name} = {value} is out of range.",
                remedy=f"Use a value from {low:g} to {high:g}.",
                param=name,
            )
    for name, chosen, words in (
        ("engine.dtype", config.engine.dtype, DTYPES),
        ("engine.speech_dtype", config.engine.speech_dtype, DTYPES),
        ("engine.variant", config.engine.variant, VARIANTS),
        ("server.custom_voices", config.server.custom_voices, SWITCH),
        ("turn.barge_in", config.turn.barge_in, ("patient", "quick")),
        ("telemetry.metrics", config.telemetry.metrics, ("key", "open", "off")),
    ):
        if chosen not in words:
            raise ConfigError(
                f"{name} = {chosen!r} is not known.",
                remedy=f"Use one of: {', '.join(words)}.",
                param=name,
            )
    _check_networks(config.tools)
    if config.telemetry.otlp and not config.telemetry.otlp.startswith(("http://", "https://")):
        raise ConfigError(
            f"telemetry.otlp = {config.telemetry.otlp!r} is no address.",
            remedy="Write it as http://127.0.0.1:4318.",
            param="telemetry.otlp",
        )


def _check_networks(config: ToolsConfig) -> None:
    for network in config.private_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(
                f"tools.private_networks holds {network!r}, which is no network: {error}.",
                remedy="Write it as 10.1.0.0/16.",
                param="tools.private_networks",
            ) from error


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value)
