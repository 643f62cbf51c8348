"""One whole answer, put together from the events of its responses. Knows no connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from voiceagent.client.errors import raise_if_failed
from voiceagent.client.events import (
    Done,
    Event,
    Failed,
    Heard,
    Said,
    ServerCall,
    ServerResult,
    Sound,
    Thought,
    ToolCall,
    ToolResult,
)

ANSWER_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Answer:
    """One spoken answer.

    Attributes:
        heard: what the server understood, empty if it says nothing.
        said: transcript of the reply.
        thought: what the model thought before it spoke, if the session asks for that (`update(think="on")`).
        samples: the reply, int16 mono 24 kHz.
        first_audio_s: from the moment the question was asked to the first audio.
        total_s: from that moment to the end of the response.
        tools: calls that were made: name, arguments, output.
    """

    heard: str = ""
    said: str = ""
    thought: str = ""
    samples: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    first_audio_s: float | None = None
    total_s: float = 0.0
    tools: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)


class Collector:
    """Takes events until the answer is complete.

    Args:
        clock: seconds; the question is asked now.
        heard_due: wait for what the server understood.
        calls: functions are run, so a response that asks for some is not the last.
    """

    def __init__(self, clock: Callable[[], float], *, heard_due: bool, calls: bool) -> None:
        self._clock = clock
        self._began = clock()
        self._heard_due = heard_due
        self._runs_calls = calls
        self._answer = Answer()
        self._audio: list[npt.NDArray[np.int16]] = []
        self._calls: dict[str, ToolCall] = {}
        self._at_the_server: dict[str, ServerCall] = {}  # calls that have not come back
        self._over = False

    @property
    def complete(self) -> bool:
        """Nothing more is to come."""
        return self._over and not self._heard_due

    def take(self, event: Event) -> None:
        """One more event; raises ClientError if it is a failure."""
        answer = self._answer
        match event:
            case Failed():
                raise_if_failed(event)
            case Heard(_, text, final=True):
                answer.heard, self._heard_due = text, False
            case Said(_, text, final=True):
                answer.said = f"{answer.said} {text}".strip()
            case Sound(_, samples):
                if answer.first_audio_s is None:
                    answer.first_audio_s = self._clock() - self._began
                self._audio.append(samples)
            case Thought(text):
                answer.thought += text
            case ToolResult(call_id, output) if call_id in self._calls:
                call = self._calls[call_id]
                answer.tools.append((call.name, call.arguments, output))
            case ServerCall(item_id):
                self._at_the_server[item_id] = event
            case ServerResult(item_id, output) if item_id in self._at_the_server:
                made = self._at_the_server.pop(item_id)
                answer.tools.append((made.name, made.arguments, output))
            case Done(calls=calls):
                raise_if_failed(event)
                answer.total_s = self._clock() - self._began
                self._calls.update({call.call_id: call for call in calls})
                self._over = not (calls and self._runs_calls) and not self._at_the_server
            case _:
                pass

    def answer(self) -> Answer:
        """What was taken."""
        if self._audio:
            self._answer.samples = np.concatenate(self._audio)
        return self._answer
