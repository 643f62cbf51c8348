"""One call in simulated time: the real decision layer, the real voice detector and echo guard, on real waveforms.

Simulated are the engine (replies that the model once made, played at a stated pace), the line (a constant way up and
down) and the other end: a player that plays what it has, a room that brings our voice back, and what the person says.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.eval.duplex_parts import sounds
from scripts.eval.duplex_parts.player import Player
from scripts.eval.duplex_parts.replies import Reply
from voiceagent.audio.pcm import int16_to_float
from voiceagent.audio.polyphase import LiveResampler
from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.echo import EchoReport
from voiceagent.core.guard import EchoGuard
from voiceagent.core.tables import Mouth
from voiceagent.models.silero import Silero, VadStream
from voiceagent.units import MODEL_RATE, VOICE_RATE

FRAME = MODEL_RATE // 50  #: the client sends 20 ms at once
VAD_S = 0.004  #: until the voice detector answers
ACK_S = 0.1  #: a player that acknowledges does so this often
UP_S = DOWN_S = 0.03  #: the way from the microphone to the server, and from there to the player

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is between the two.

    Attributes:
        echo_db: how loud our voice is at the microphone, relative to the person's; None = headphones.
        echo_ms: from the loudspeaker to the microphone's stream.
        phone: both directions go through 8 kHz mu-law.
        noise_db: steady noise below the person's voice; None = a quiet room.
        acks: the player says how far it is.
    """

    echo_db: float | None = None
    echo_ms: int = 60
    phone: bool = False
    noise_db: float | None = None
    acks: bool = True


@dataclass
class Call:
    """A call; `run` lets time pass, `say` puts sound into it.

    Attributes:
        decisions: what the controller did, and when.
        holds: when our voice was held, and when it was let go (None: it was not).
        asked: what the engine says in each turn, be it a guess.
        opened: turns of which the client was told.
    """

    config: opt.SessionConfig
    replies: list[Reply]
    silero: Silero
    around: Surroundings = Surroundings()
    seed: int = 0
    longest_s: float = 60.0
    now: float = 0.0
    decisions: list[tuple[float, act.Action]] = field(default_factory=list)
    holds: list[list[float | None]] = field(default_factory=list)
    player: Player = field(default_factory=Player)
    asked: dict[int, Reply] = field(default_factory=dict)
    opened: list[int] = field(default_factory=list)
    _heap: list[tuple[float, int, Any]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.controller = Controller(self.config, id_prefix="t_")
        self._vad = VadStream(self.silero)
        self._guard = EchoGuard() if self.config.cancel_echo else None
        size = int(self.longest_s * MODEL_RATE)
        self._person = random.normal(0, sounds.ROOM_NOISE, size).astype(np.float32)
        if self.around.noise_db is not None:
            self._person += sounds.steady(random, self.longest_s, self.around.noise_db)[:size]
        self._speaker = np.zeros(size + 4 * MODEL_RATE, np.float32)
        self._room = None if self.around.echo_db is None else sounds.room(random, self.around.echo_db)
        self._lines = (sounds.Telephone(), sounds.Telephone()) if self.around.phone else None
        self._thinner: dict[int, LiveResampler] = {}
        self._frames = 0
        self._at(FRAME / MODEL_RATE + UP_S, "frame", None)
        if self.around.acks:
            self._at(ACK_S, "ack", None)

    # --- for the trials -------------------------------------------------------------------------------------

    def say(self, samples: Samples, at: float) -> float:
        """The person (or the room) sounds from `at` on; returns when it ends."""
        start = round(at * MODEL_RATE)
        part = samples[: max(0, len(self._person) - start)]
        self._person[start : start + len(part)] += part
        return at + len(samples) / MODEL_RATE

    def run(self, until: float) -> None:
        """Lets time pass."""
        until = min(until, self.longest_s)
        while True:
            due = self.controller.next_deadline()
            following = self._heap[0][0] if self._heap else until
            if due is not None and due <= min(following, until):
                self.now = max(self.now, due)
                self._do(self.controller.handle_timeout(self.now))
            elif following <= until:
                time, _, (kind, what) = heapq.heappop(self._heap)
                self.now = max(self.now, time)
                self._take(kind, what)
            else:
                self.now = until
                return

    def run_while(self, waiting: Any, *, most: float) -> bool:
        """Lets time pass while `waiting()`, at most so long; whether it ended by itself."""
        end = min(self.now + most, self.longest_s)
        while waiting():
            if self.now >= end:
                return False
            self.run(self.now + 0.01)
        return True

    @property
    def echo_report(self) -> EchoReport | None:
        """What the guard knows of the echo; None: there is no guard."""
        return None if self._guard is None else self._guard.report

    def made(self, kind: type) -> list[tuple[float, Any]]:
        """The decisions of a kind."""
        return [(time, action) for time, action in self.decisions if isinstance(action, kind)]

    # --- inside ---------------------------------------------------------------------------------------------

    def _at(self, time: float, kind: str, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, (kind, what)))

    def _take(self, kind: str, what: Any) -> None:
        match kind:
            case "frame":
                self._frame()
            case "event":
                self._do(self.controller.handle(what, self.now))
            case "engine":
                if what.turn in self.asked:
                    self._do(self.controller.handle(what, self.now))
            case "arrive":
                self._arrive(what)
            case "flush":
                self._flush(what)
            case "ack":
                self._acknowledge()

    def _frame(self) -> None:
        start = self._frames * FRAME
        self._frames += 1
        if start + FRAME > len(self._person):
            return
        sound = self._person[start : start + FRAME]
        if self._room is not None:
            delay = self.around.echo_ms * MODEL_RATE // 1000
            reach = start - delay - len(self._room) + 1
            behind = (
                self._speaker[max(0, reach) : start - delay + FRAME] if start >= delay else self._speaker[:0]
            )
            behind = np.pad(behind, (FRAME + len(self._room) - 1 - len(behind), 0))
            sound = sound + (np.convolve(behind, self._room, "valid") if behind.any() else 0)
        sound = np.asarray(sound, np.float32)
        if self._lines is not None:
            sound = self._lines[0].pass_on(sound)
        self._at((self._frames + 1) * FRAME / MODEL_RATE + UP_S, "frame", None)
        event = ev.AudioIn(start, sound)
        if self._guard is not None:
            event = self._guard.hear(event, self.now)
        if len(event.pcm):
            self._do(self.controller.handle(event, self.now))
            for heard in self._vad.push(event.at, event.pcm):
                self._at(self.now + VAD_S, "event", ev.SpeechProb(*heard))

    def _do(self, actions: Iterable[act.Action]) -> None:
        for action in actions:
            self.decisions.append((self.now, action))
            if self._guard is not None:
                self._guard.did(action, self.now)
            match action:
                case act.StartTurn(turn):
                    reply = self.replies[len(self.opened) % len(self.replies)]
                    self.asked[turn] = reply
                    for after, event in reply.of_turn(turn):
                        self._at(self.now + after, "engine", event)
                case act.CancelTurn(turn):
                    self._heap = [e for e in self._heap if e[2][0] != "engine" or e[2][1].turn != turn]
                    heapq.heapify(self._heap)
                    self._at(self.now + 0.02, "event", ev.TurnEnded(turn, "cancelled", ev.Usage(), ()))
                case notices.TurnOpened(turn):
                    self.opened.append(turn)
                case act.SendAudio():
                    self._at(self.now + DOWN_S, "arrive", action)
                case act.Flush(turn):
                    self._at(self.now + DOWN_S, "flush", turn)
                case _:
                    pass
        self._watch_hold()

    def _watch_hold(self) -> None:
        held = self.controller.mouth is Mouth.HELD
        if held and (not self.holds or self.holds[-1][1] is not None):
            self.holds.append([self.now, None])
        elif not held and self.holds and self.holds[-1][1] is None:
            self.holds[-1][1] = self.now

    def _arrive(self, action: act.SendAudio) -> None:
        start = self.player.receive(action.turn, action.pcm, self.now)
        if self._room is None:
            return
        thinner = self._thinner.setdefault(action.turn, LiveResampler(source=VOICE_RATE, target=MODEL_RATE))
        sound = thinner.push(int16_to_float(action.pcm))
        if self._lines is not None:
            sound = self._lines[1].pass_on(sound)
        place = round(start * MODEL_RATE)
        part = sound[: max(0, len(self._speaker) - place)]
        self._speaker[place : place + len(part)] = part

    def _flush(self, turn: int) -> None:
        self.player.flush(turn, self.now)
        if self.around.acks:  # where it stood when it was stopped
            self._at(self.now + UP_S, "event", ev.Played(turn, len(self.player.pcm(turn))))
        self._speaker[round(self.player.until * MODEL_RATE) :] = 0

    def _acknowledge(self) -> None:
        turn = self.player.playing(self.now)
        if turn is not None:
            played = self.player.played(turn, self.now)
            self._at(self.now + UP_S, "event", ev.Played(turn, played))
        self._at(self.now + ACK_S, "ack", None)


def quiet(config: opt.SessionConfig, **changes: Any) -> opt.SessionConfig:
    """The settings with others of turn detection."""
    assert config.turn_detection is not None
    return replace(config, turn_detection=replace(config.turn_detection, **changes))
