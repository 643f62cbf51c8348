"""Tells for all sessions together where there is voice: one pass of the network for a window of each that has one.

It knows sessions and their order, and no network: what hears is given to it. A pass over many windows takes little
longer than one over a few, so with many sessions it waits a moment until several have a window.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voiceagent.engine import api
from voiceagent.engine.mapping import samples_from_bytes

FEW = 4  #: so many sessions are heard as their audio comes
TICK_S = 0.008
"""With more sessions, a pass begins this long after the one before: a quarter of a window (32 ms), so that the wait is
4 ms on average. A whole window would make the passes four times as large, and every interruption 16 ms late."""

Heard = tuple[int, float, float]  #: end of a window, probability of speech in it, its level in decibels
Input = api.Audio | api.OpenSession | api.CloseSession


class VoiceStream(Protocol):
    """What a network has heard of one session."""

    def feed(self, at: int, samples: npt.NDArray[np.float32]) -> None:
        """Takes samples at 16 kHz from position `at`."""

    @property
    def ready(self) -> bool:
        """Whether a whole window waits."""


class VoiceNetwork(Protocol):
    """What finds voices."""

    def open(self) -> Any:
        """A stream of its own kind for a new session."""

    def hear(self, streams: Sequence[Any]) -> list[Heard]:
        """The next window of each of these streams, all of which are ready."""


class Detector:
    """The voices of all sessions.

    Args:
        network: what finds them.
        emit: takes what was found.
    """

    def __init__(self, network: VoiceNetwork, emit: Callable[[api.Reply], None]) -> None:
        self._network, self._emit = network, emit
        self._streams: dict[int, VoiceStream] = {}

    def run(self, inputs: queue.SimpleQueue[Input]) -> None:
        """Serves the queue without end."""
        last, waiting = 0.0, False
        while True:
            taken = [] if waiting else [inputs.get()]
            wait = last + TICK_S - time.monotonic()
            if len(self._streams) > FEW and 0 < wait <= TICK_S and not waiting:
                time.sleep(wait)
            last = time.monotonic()
            while not inputs.empty():
                taken.append(inputs.get())
            waiting = self.take(taken)

    def take(self, inputs: Iterable[Input]) -> bool:
        """Hears one window of every session that has one; whether more wait. Nobody waits for all of a file."""
        for command in inputs:
            match command:
                case api.OpenSession():
                    self._streams[command.session] = self._network.open()
                case api.CloseSession():
                    self._streams.pop(command.session, None)
                case api.Audio() if command.session in self._streams:
                    self._streams[command.session].feed(command.at, samples_from_bytes(command.pcm))
                case _:
                    pass
        ready = [(session, stream) for session, stream in self._streams.items() if stream.ready]
        if ready:
            heard = self._network.hear([stream for _, stream in ready])
            for (session, _), (at, p, level) in zip(ready, heard, strict=True):
                self._emit(api.Prob(session, at, p, level))
        return any(stream.ready for _, stream in ready)
