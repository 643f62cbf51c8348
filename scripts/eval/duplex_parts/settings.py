"""What the trials ask of a session, in the words of the Realtime protocol, and what the core makes of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from voiceagent.config import TurnConfig
from voiceagent.core.options import SessionConfig
from voiceagent.wire.realtime_events import SessionPatch
from voiceagent.wire.realtime_session import Session

SILENCES_MS = (100, 200, 300, 500, 700, 1000, 1500)
EAGERNESSES = ("high", "medium", "low")
LEAD_MS = 100  #: of the trials; the server's own is larger


def turn_ends() -> dict[str, dict[str, Any]]:
    """Every way to find the end of a turn that is compared, by name."""
    fixed = {
        f"server_vad {ms} ms": {"type": "server_vad", "silence_duration_ms": ms, "prefix_padding_ms": 300}
        for ms in SILENCES_MS
    }
    return fixed | {f"semantic_vad {e}": {"type": "semantic_vad", "eagerness": e} for e in EAGERNESSES}


def session(turn_detection: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The session that a client of the trials asks for."""
    found = turn_detection or {"type": "server_vad", "silence_duration_ms": 500}
    return {"output_lead_ms": LEAD_MS, "audio": {"input": {"turn_detection": found}}, **fields}


def to_core(asked: dict[str, Any]) -> SessionConfig:
    """What the core makes of such a session on a server as it is installed."""
    installed = TurnConfig()
    base = SessionConfig(lead_ms=installed.lead_ms, speculation=installed.speculation)
    shown = Session(base, session_id="s", model="pocket", voices=("default_female",))
    shown.apply(msgspec.convert({"type": "realtime", **asked}, SessionPatch))
    return replace(shown.to_core(), voice="")
