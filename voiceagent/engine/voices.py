"""Voices that clients bring: made and forgotten at the engine's end, kept and sent again at the server's end.

It knows names and recordings; what a voice is to the model, the runner knows, and who may bring one, the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from voiceagent.audio.pcm import int16_to_float
from voiceagent.engine import api
from voiceagent.engine.lane import Lane
from voiceagent.engine.protocol import Runner
from voiceagent.engine.slots import SlotTable
from voiceagent.errors import CapacityError, EngineError, InputError, VoiceAgentError
from voiceagent.units import VOICE_RATE

SHORTEST_S, LONGEST_S = 3.0, 10.0  #: of a recording
PATIENCE_S = 60.0  #: a voice takes a second or two, more when others wait before it
REMEMBERED = 10_000  #: names that were forgotten and are still known to have been voices
log = logging.getLogger(__name__)


def make(command: api.Enrol, runner: Runner) -> api.Enrolled:
    """Decodes a recording and has the runner make a voice of it; seconds of work.

    Raises:
        InputError: the recording cannot be used.
        CapacityError: no memory for another voice.
    """
    from voiceagent.audio.clip import read_clip, to_wav  # decoders, which most engines never need

    clip = read_clip(command.data, rate=VOICE_RATE, shortest_s=SHORTEST_S, longest_s=LONGEST_S)
    runner.add_voice(command.name, int16_to_float(clip))
    return api.Enrolled(command.name, to_wav(clip, rate=VOICE_RATE), len(clip) / VOICE_RATE)


class Desk:
    """The engine's end: makes one voice after the other, beside all turns.

    Args:
        runner: what makes them.
        table: whose turns ask for them.
        emit: takes each reply.
        lane: where they are made; None = here, at once.
    """

    def __init__(
        self, runner: Runner, table: SlotTable, *, emit: Callable[[api.Reply], None], lane: Lane | None
    ) -> None:
        self._runner, self._table, self._emit, self._lane = runner, table, emit, lane
        self._waiting: deque[api.Enrol] = deque()
        self._current: api.Enrol | None = None
        self._dropped = False  # the one that is being made is not wanted any more

    def command(self, command: api.Enrol | api.Dismiss) -> None:
        """Takes a command; never blocks on work if there is a lane."""
        if isinstance(command, api.Enrol):
            self._waiting.append(command)
            self._begin()
        else:
            self._dismiss(command.name)

    def coming(self, voice: str) -> bool:
        """Whether a turn with this voice must wait for it."""
        if self._current is None:
            return False
        return voice in {self._current.name, *(command.name for command in self._waiting)}

    def _begin(self) -> None:
        if self._current is not None or not self._waiting:
            return
        asked = {turn.options.voice for slot in self._table for turn in slot.turns}
        command = next((each for each in self._waiting if each.name in asked), self._waiting[0])
        self._waiting.remove(command)
        self._current, self._dropped = command, False
        if self._lane is not None:
            self._lane.submit(
                lambda: make(command, self._runner), lambda outcome: self._made(command, outcome)
            )
            return
        try:
            outcome: api.Enrolled | Exception = make(command, self._runner)
        except Exception as error:  # as of the lane: told apart below
            outcome = error
        self._made(command, outcome)

    def _made(self, command: api.Enrol, outcome: api.Enrolled | Exception) -> None:
        self._current = None
        if isinstance(outcome, Exception) and self._runner.is_device_loss(outcome):
            raise outcome
        if self._dropped:
            self._runner.drop_voice(command.name)
        elif isinstance(outcome, api.Enrolled):
            self._emit(outcome)
        elif isinstance(outcome, VoiceAgentError):
            self._emit(_refusal(command.name, outcome))
        else:
            log.error("making a voice failed", exc_info=outcome)
            words = f"The engine failed on this recording ({type(outcome).__name__})."
            self._emit(api.NotEnrolled(command.name, "engine", "internal_error", words, ""))
        self._begin()

    def _dismiss(self, name: str) -> None:
        """Turns that have begun go on with it; those that wait get the default voice."""
        self._waiting = deque(command for command in self._waiting if command.name != name)
        if self._current is not None and self._current.name == name:
            self._dropped = True
        self._runner.drop_voice(name)
        for slot in self._table:
            for turn in slot.turns:
                if turn.job is None and turn.options.voice == name:
                    turn.options = msgspec.structs.replace(turn.options, voice="")


def _refusal(name: str, error: VoiceAgentError) -> api.NotEnrolled:
    kind: Literal["input", "overloaded", "engine"] = "engine"
    if isinstance(error, InputError | CapacityError):
        kind = "input" if isinstance(error, InputError) else "overloaded"
    return api.NotEnrolled(name, kind, error.code, error.message, error.remedy)


class Keeper:
    """The server's end: asks for voices, and keeps their recordings for an engine that starts anew.

    Args:
        post: sends a command to the engine; one that is away hears nothing.
    """

    def __init__(self, post: Callable[[api.Command], None]) -> None:
        self._post = post
        self._up = False
        self._clips: dict[str, bytes] = {}  # WAV files, by name, oldest first
        self._asked: dict[str, asyncio.Future[api.Enrolled]] = {}
        self._departed: dict[str, None] = {}  # names that were voices, newest last

    @property
    def names(self) -> tuple[str, ...]:
        """The voices that there are besides the model's own, oldest first."""
        return tuple(self._clips)

    async def enrol(self, name: str, data: bytes) -> api.Enrolled:
        """A voice of the bytes of a sound file; it can be used once this returns.

        Raises:
            InputError: the recording cannot be used; `param` is audio.
            CapacityError: no memory for another voice.
            EngineError: the engine is away, died on it, or does not answer.
        """
        if name in self._clips or name in self._asked:
            raise InputError(f"There is already a voice {name!r}.", code="voice_exists", param="name")
        if not self._up:
            raise EngineError("The engine is being restarted.", code="engine_down", remedy="Try again soon.")
        asked: asyncio.Future[api.Enrolled] = asyncio.get_running_loop().create_future()
        self._asked[name] = asked
        self._post(api.Enrol(name, data))
        try:
            async with asyncio.timeout(PATIENCE_S):
                made = await asked
        except TimeoutError as error:
            self._post(api.Dismiss(name))
            raise EngineError("The engine has no time for a new voice.", remedy="Try again later.") from error
        except asyncio.CancelledError:
            self._post(api.Dismiss(name))
            raise
        finally:
            del self._asked[name]
        self._departed.pop(name, None)
        self._clips[name] = made.clip
        return made

    def restore(self, name: str, clip: bytes) -> None:
        """A voice that was enrolled before, from the WAV file that was made of it then; turns with it wait for it."""
        self._clips[name] = clip
        self._post(api.Enrol(name, clip))

    def dismiss(self, name: str) -> None:
        """Forgets a voice. What is being said with it is said to its end; later turns have the default voice."""
        if self._clips.pop(name, None) is not None:
            self._depart(name)
            self._post(api.Dismiss(name))

    def known(self, voice: str) -> str:
        """The voice, or the default (empty) for one that has been forgotten."""
        return "" if voice in self._departed else voice

    def came_up(self) -> None:
        """The engine is there, perhaps anew: it is told of all voices."""
        self._up = True
        for name, clip in self._clips.items():
            self._post(api.Enrol(name, clip))

    def went_down(self) -> None:
        """The engine is gone: who waits for a voice waits in vain. Its recording may be what killed it."""
        self._up = False
        for asked in self._asked.values():
            if not asked.done():
                error = EngineError(
                    "The engine stopped while it made the voice.",
                    code="engine_down",
                    remedy="Try again soon.",
                )
                asked.set_exception(error)

    def take(self, reply: api.Enrolled | api.NotEnrolled) -> None:
        """What came of a recording."""
        asked = self._asked.get(reply.name)
        if asked is not None and not asked.done():
            if isinstance(reply, api.Enrolled):
                asked.set_result(reply)
            else:
                asked.set_exception(_error(reply))
        elif asked is None and isinstance(reply, api.NotEnrolled):
            log.error("the voice %r is lost: %s %s", reply.name, reply.message, reply.remedy)
            self._clips.pop(reply.name, None)
            self._depart(reply.name)

    def _depart(self, name: str) -> None:
        self._departed[name] = None
        if len(self._departed) > REMEMBERED:
            del self._departed[next(iter(self._departed))]


def _error(reply: api.NotEnrolled) -> VoiceAgentError:
    kinds = {"input": InputError, "overloaded": CapacityError, "engine": EngineError}
    param = "audio" if reply.kind == "input" else None
    return kinds[reply.kind](reply.message, code=reply.code, remedy=reply.remedy, param=param)


def in_process(runner: Runner) -> Keeper:
    """A keeper whose engine is no process of its own; it answers soon, never out of the call that asks."""

    def post(command: api.Command) -> None:
        answers: list[api.Reply] = []
        if isinstance(command, api.Enrol):
            Desk(runner, SlotTable(0), emit=answers.append, lane=None).command(command)
        for answer in answers:
            assert isinstance(answer, api.Enrolled | api.NotEnrolled)
            asyncio.get_running_loop().call_soon(keeper.take, answer)

    keeper = Keeper(post)
    return keeper
