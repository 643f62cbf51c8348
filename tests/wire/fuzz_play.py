"""Plays fuzzed calls through a dialect and a real controller, and judges every answer.

A call fails if anything but `WireError` escapes, if an answer is not an event of the published types or not of this
server's documented codes, if one message takes far too long, or if a good message is not answered afterwards.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import live_player
import numpy as np
import wire_player
from fuzz_grammar import Step
from openai.types.realtime import RealtimeTranslationServerEvent
from pydantic import TypeAdapter

import voiceagent.wire
from voiceagent.core import actions as act
from voiceagent.core import events as core
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.units import TOKEN_SAMPLES
from voiceagent.wire import audio_rest, chat, realtime_secrets
from voiceagent.wire.binary import read_frame
from voiceagent.wire.dialect import ConnectTools, DropTools, Reply, VoiceRequest, WireError
from voiceagent.wire.live import LiveDialect
from voiceagent.wire.realtime import RealtimeDialect
from voiceagent.wire.translation import TranslationDialect

PAGES = Path(voiceagent.wire.__file__).parent
WINDOW = 512
LONGEST_S = 1.0  #: for one message; a hundred times what is asked for, so that a busy machine fails no test


def documented(page: str) -> frozenset[str]:
    """The codes in the first columns of a page's tables below a heading with "Errors"."""
    found: set[str] = set()
    inside = False
    for line in (PAGES / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            inside = "Errors" in line
        elif inside and line.startswith("|"):
            found |= set(re.findall(r"`([a-z0-9_]+)`", line.split("|")[1]))
    return frozenset(found)


_translation: TypeAdapter[Any] = TypeAdapter(RealtimeTranslationServerEvent)


def check_translation(frame: str) -> dict[str, Any]:
    """An event of a translation session, parsed strictly by the published types."""
    _translation.validate_json(frame, strict=True)
    event: dict[str, Any] = json.loads(frame)
    return event


PROTOCOL_CODES = documented("PROTOCOL.md")
LIVE_CODES = documented("LIVE.md") | PROTOCOL_CODES


class Failure(AssertionError):
    """A call that went wrong; `step` is where."""

    def __init__(self, step: int, why: str) -> None:
        super().__init__(f"step {step}: {why}")
        self.step = step


@dataclass
class Outcome:
    """What calls have brought."""

    messages: int = 0
    answers: Counter[str] = field(default_factory=Counter)  #: by event type
    codes: Counter[str] = field(default_factory=Counter)
    slowest: list[float] = field(default_factory=list)  #: seconds for each message

    def add(self, other: Outcome) -> None:
        self.messages += other.messages
        self.answers += other.answers
        self.codes += other.codes
        self.slowest += other.slowest


class Call:
    """One call: a dialect, a controller, the engine's part, a clock moved by hand."""

    def __init__(self, protocol: str) -> None:
        self.now, self.outcome, self.closed, self.patience_s = 100.0, Outcome(), False, LONGEST_S
        base = opt.SessionConfig(instructions="Be kind.", transcribe=True, lead_ms=300)
        if protocol != "translation":
            base = replace(base, tools=wire_player.SERVER_TOOLS, filler=opt.Filler("One moment.", 300))
        self.dialect: RealtimeDialect | LiveDialect | TranslationDialect
        if protocol == "realtime":
            self.dialect = RealtimeDialect(session_id="call", model="m", base=base, voices=("anna", "bert"))
            self._check, self._codes = wire_player.check_published, PROTOCOL_CODES
        elif protocol == "translation":
            self.dialect = TranslationDialect(
                session_id="call", model="m", base=base, voices=("anna", "bert"),
                instructions="Into {language}.", expires_at=1,
            )  # fmt: skip
            self._check, self._codes = check_translation, PROTOCOL_CODES
        else:
            self.dialect = LiveDialect(
                session_id="call", base=base, voices=("anna", "bert"), clock=lambda: self.now,
                unix_time=1e6, session_s=600.0, context_tokens=1000,
            )  # fmt: skip
            self._check, self._codes = live_player.check_published, LIVE_CODES
        self._controller = Controller(base, id_prefix="item_")
        self._turns: dict[int, int] = {}  # live ones, and how many pieces of audio each has sent
        self._item = ""
        self._heard = self._judged = 0
        self._binary = False
        for frame in self.dialect.open():
            self._judge(frame)

    def send(self, frame: str | bytes) -> list[dict[str, Any]]:
        """The answers to one message."""
        begun = time.perf_counter()
        told: list[str | bytes] = []
        try:
            for event in self.dialect.receive(frame):
                if isinstance(event, Reply):
                    told.append(event.frame)
                elif isinstance(event, VoiceRequest):
                    assert isinstance(self.dialect, RealtimeDialect)
                    told += self.dialect.render_voice(event, wire_player.voice_outcome(event))
                elif isinstance(event, ConnectTools):
                    assert isinstance(self.dialect, RealtimeDialect)
                    told += self.dialect.render_tools(event, wire_player.tools_outcome(event))
                    told += self._handle(core.Configure(self.dialect.config))
                elif isinstance(event, DropTools):
                    pass
                else:
                    if isinstance(event, core.AudioIn):
                        self._heard = event.at + len(event.pcm)
                    told += self._handle(event)
        except WireError as error:
            told.append(self.dialect.render_error(error))
        took = time.perf_counter() - begun
        assert took < self.patience_s, f"took {took:.2f} s"
        self.outcome.messages += 1
        self.outcome.slowest.append(took)
        return [self._judge(answer) for answer in told]

    def engine(self, does: dict[str, Any]) -> None:
        """Something of the engine's, if there is a turn that it can be of."""
        for event in self._engine_events(does):
            for frame in self._handle(event):
                self._judge(frame)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        until = self.now + seconds
        for _ in range(10_000):
            deadline = self._controller.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            for frame in self._perform(self._controller.handle_timeout(self.now)):
                self._judge(frame)
        else:
            raise AssertionError("the controller does not come to rest")
        self.now = until

    def lives(self) -> None:
        """Good messages are answered as they should be."""
        if self.closed:
            return
        if isinstance(self.dialect, RealtimeDialect):
            update = {"type": "session.update", "event_id": "after", "session": {"instructions": "Hi"}}
            assert self.send(json.dumps(update))[-1]["type"] == "session.updated"
            retrieve = {"type": "conversation.item.retrieve", "event_id": "rci_x", "item_id": "nobody's"}
            assert self.send(json.dumps(retrieve))[-1]["error"]["event_id"] == "rci_x"
            return
        if isinstance(self.dialect, TranslationDialect):
            update = {"type": "session.update", "event_id": "after", "session": {}}
            assert self.send(json.dumps(update))[-1]["type"] == "session.updated"
            return
        self.send('{"type": "session.start", "session": {"model": "m"}}')  # or an error, if it has begun
        (answer,) = self.send('{"type": "session.input_audio.mute", "event_id": "after"}')
        assert (answer["type"], answer["client_event_id"]) == ("session.input_audio.muted", "after")

    def _handle(self, event: core.Event) -> list[str | bytes]:
        return self._perform(self._controller.handle(event, self.now))

    def _perform(self, actions: Iterable[act.Action]) -> list[str | bytes]:
        told: list[str | bytes] = []
        for action in actions:
            match action:
                case act.StartTurn(turn):
                    self._turns[turn] = 0
                case act.CancelTurn(turn) if turn in self._turns:
                    told += self._handle(self._end(turn, "cancelled"))
                case notices.Committed(item_id):
                    self._item = item_id
                case act.RunTool(item_id) if self.now % 2 < 1:  # the others take for ever
                    told += self.dialect.render(action)
                    told += self._handle(core.ToolReturned(item_id, "{}"))
                    continue
                case act.Close():
                    self.closed = True
                case _:
                    pass
            told += self.dialect.render(action)
        return told

    def _judge(self, frame: str | bytes) -> dict[str, Any]:
        if isinstance(frame, bytes):
            assert self._binary, "binary frames were not asked for"
            assert read_frame(frame) is not None, "a binary frame without its header"
            return {"type": "binary"}
        event = self._check(frame)
        if event["type"] == "session.updated":
            self._binary = event["session"].get("binary_audio", False)
        self.outcome.answers[event["type"]] += 1
        if event["type"] == "error":
            code = event["error"]["code"]
            self.outcome.codes[code] += 1
            assert code in self._codes, f"the code {code} is not documented"
            assert code != "internal_error", "an internal error"
            assert len(frame) < 6000, "a long error"
        return event

    def _end(self, turn: int, reason: Any) -> core.TurnEnded:
        self._turns.pop(turn)
        return core.TurnEnded(turn, reason, core.Usage(40, 25, 30, 12, 48), (1, 2))

    def _engine_events(self, does: dict[str, Any]) -> list[core.Event]:
        ((what, value),) = does.items()
        match what:
            case "judge":
                windows = (self._heard - self._judged) // WINDOW
                places = [self._judged + (n + 1) * WINDOW for n in range(windows)]
                self._judged += windows * WINDOW
                return [core.SpeechProb(at, value) for at in places]
            case "transcript":
                return [core.Transcript(self._item, value)] if self._item else []
            case "down":
                self._turns.clear()
                return [core.EngineDown(1.0)]
            case "up":
                return [core.EngineUp()]
            case _:
                return [self._turn_event(what, value, max(self._turns))] if self._turns else []

    def _turn_event(self, what: str, value: Any, turn: int) -> core.Event:
        match what:
            case "text":
                return core.TextOut(turn, value, (1,))
            case "thought":
                return core.ThoughtOut(turn, value)
            case "audio":
                seq, self._turns[turn] = self._turns[turn], self._turns[turn] + 1
                return core.AudioOut(turn, seq, np.zeros(value * TOKEN_SAMPLES, np.int16), (7,) * value)
            case "tool":
                return core.ToolCalled(turn, f"call_{turn}", value, "{}")
            case "fail":
                self._turns.pop(turn)
                return core.TurnFailed(turn, value, "It broke.")
            case _:
                return self._end(turn, value)


def play(protocol: str, steps: list[Step]) -> Outcome:
    """Plays a call; Failure if it goes wrong."""
    call = Call(protocol)
    done = 0
    try:
        for kind, value in steps:
            match kind:
                case "send":
                    call.send(value)
                case "engine":
                    call.engine(value)
                case _:
                    call.wait(value)
            if call.closed:
                break
            done += 1
        call.lives()
    except Exception as error:  # whatever it is, it is what we look for
        raise Failure(done, f"{type(error).__name__}: {error}") from error
    return call.outcome


# --- plain requests ---------------------------------------------------------------------------------------------


def _preset(body: bytes) -> None:
    base = opt.SessionConfig()
    _, session = realtime_secrets.decode_request(body)
    RealtimeDialect(session_id="s", model="m", base=base, voices=("anna",)).preset(session)


DECODERS: dict[str, Callable[[bytes], object]] = {
    "chat": lambda body: chat.decode(body, voices=("anna",), instructions="Be kind."),
    "speech": audio_rest.decode_speech,
    "secrets": _preset,
}


def decode(protocol: str, body: str | bytes) -> Outcome:
    """One body of a plain request; Failure if anything but a documented WireError escapes."""
    raw = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    outcome = Outcome(messages=1)
    begun = time.perf_counter()
    try:
        DECODERS[protocol](raw)
        outcome.answers["taken"] += 1
    except WireError as error:
        outcome.answers["error"] += 1
        outcome.codes[error.code] += 1
        if error.code not in PROTOCOL_CODES:
            raise Failure(0, f"the code {error.code} is not documented") from error
    except Exception as error:  # whatever it is, it is what we look for
        raise Failure(0, f"{type(error).__name__}: {error}") from error
    outcome.slowest.append(time.perf_counter() - begun)
    if outcome.slowest[0] > LONGEST_S:
        raise Failure(0, f"took {outcome.slowest[0]:.2f} s")
    return outcome
