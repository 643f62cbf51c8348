"""The assistant's turns: what was generated, what was sent, what was heard; pacing, holding, cutting.

It owns the playout clock and the turns whose audio may still be playing. Whether to speak, hold or stop is decided
by the controller.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

from voiceagent.core import actions as act
from voiceagent.core.events import AudioOut, TextOut, ToolCalled, TurnEnded, TurnOptions
from voiceagent.core.history import AssistantItem, cut_to_heard
from voiceagent.core.playout import Playout
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

FRAME = TOKEN_SAMPLES  #: paced audio is sent in frames of one speech token (40 ms)
CHARACTERS_PER_TOKEN = (
    0.6  #: of English speech (15 a second): bounds what was heard of a reply that is not finished
)


class Mouth(Enum):
    """What the assistant is doing."""

    IDLE = auto()
    THINKING = auto()
    SPEAKING = auto()
    HELD = auto()


@dataclass(slots=True)
class Turn:
    """One turn of the assistant, from its start until the last of it was heard."""

    id: int
    item_id: str
    options: TurnOptions
    text: str = ""
    text_ids: list[int] = field(default_factory=list)
    audio_ids: list[int] = field(default_factory=list)
    raw_ids: tuple[int, ...] = ()
    calls: list[act.TurnTool] = field(default_factory=list)
    pending: deque[npt.NDArray[np.int16]] = field(default_factory=deque)
    generated: int = 0  # samples
    sent: int = 0  # samples
    base: int = 0  # place of its first sample on the playout clock
    ended: TurnEnded | None = None
    closed: bool = False

    @property
    def spoken(self) -> bool:
        """Whether it is a turn of speech."""
        return self.options.modalities == "audio"

    @property
    def said_something(self) -> bool:
        """Whether there is a message to keep."""
        return bool(self.text or self.generated)

    def item(self, heard: int | None = None) -> AssistantItem:
        """The message as the history keeps it; `heard` samples of it, None = the whole."""
        complete = self.ended is not None
        whole = AssistantItem(
            id=self.item_id,
            text=self.text.strip(),
            text_ids=tuple(self.text_ids),
            audio_ids=tuple(self.audio_ids),
            raw_ids=self.raw_ids if complete and not self.calls else None,
            spoken=self.spoken,
            samples=self.generated,
            complete=complete,
        )
        return whole if heard is None else cut_to_heard(whole, heard)


class Speech:
    """All turns of a session that are not over: the live one, and those still playing."""

    def __init__(self) -> None:
        self.playout = Playout()
        self.live: Turn | None = None
        self.voiced: list[Turn] = []  # turns with sent audio that may not have been heard to the end
        self.held = False
        self.lead: int | None = 0  # samples; None = unpaced

    def state(self, now: float) -> Mouth:
        """The mouth's state at `now`."""
        playing = bool(self.voiced) and self.playout.ahead(now) > 0
        if self.live is None and not playing:
            return Mouth.IDLE
        if self.held:
            return Mouth.HELD
        if playing or (self.live is not None and self.live.sent):
            return Mouth.SPEAKING
        return Mouth.THINKING

    # --- what the engine made ---------------------------------------------------------------------------------

    def on_text(self, event: TextOut) -> list[act.Action]:
        """More text of the live turn."""
        turn = self._live()
        turn.text += event.text
        turn.text_ids += event.ids
        return [act.TurnText(turn.id, turn.item_id, event.text)] if event.text else []

    def on_audio(self, event: AudioOut, now: float) -> list[act.Action]:
        """More speech of the live turn; sent at once as far as the lead allows."""
        turn = self._live()
        turn.audio_ids += event.ids
        turn.generated += len(event.pcm)
        if len(event.pcm):
            turn.pending.append(event.pcm)
        return self.pump(now)

    def on_tool(self, event: ToolCalled, item_id: str) -> list[act.Action]:
        """A tool call of the live turn."""
        turn = self._live()
        call = act.TurnTool(turn.id, item_id, event.call_id, event.name, event.arguments)
        turn.calls.append(call)
        return [call]

    def on_ended(self, event: TurnEnded) -> None:
        """The engine is done with the live turn."""
        turn = self._live()
        turn.ended = event
        turn.raw_ids = event.raw_ids

    # --- sending ----------------------------------------------------------------------------------------------

    def pump(self, now: float) -> list[act.Action]:
        """Sends what the lead allows of the live turn."""
        turn, made = self.live, []
        if turn is None or self.held:
            return []
        while turn.pending and (self.lead is None or self.playout.ahead(now) <= self.lead):
            pcm = self._next_frame(turn)
            if not turn.sent:
                turn.base = self.playout.sent
                self.voiced.append(turn)
            turn.sent += len(pcm)
            self.playout.send(len(pcm), now)
            made.append(act.SendAudio(turn.id, turn.item_id, pcm))
        return list(made)

    def _next_frame(self, turn: Turn) -> npt.NDArray[np.int16]:
        head = turn.pending.popleft()
        if self.lead is not None and len(head) > FRAME:
            turn.pending.appendleft(head[FRAME:])
            return head[:FRAME]
        return head

    def finished(self) -> bool:
        """Whether the live turn is complete and all of it has been sent."""
        return self.live is not None and self.live.ended is not None and not self.live.pending

    def close(
        self,
        status: act.TurnStatus,
        reason: act.CloseReason | None,
        heard: int | None,
        *,
        error: act.TurnError | None = None,
    ) -> act.TurnClosed:
        """Ends the live turn; its audio may go on playing."""
        turn = self._live()
        turn.closed = True
        self.live = None
        self.held = False
        usage = turn.ended.usage if turn.ended else None
        item = turn.item(heard) if turn.said_something else None
        return act.TurnClosed(turn.id, status, reason, item, usage, error)

    # --- hearing ----------------------------------------------------------------------------------------------

    def heard(self, turn: Turn, now: float) -> int:
        """Samples of a turn that have been played by `now`."""
        if not turn.sent:
            return 0
        return max(0, min(turn.sent, self.playout.played(now) - turn.base))

    def settle(self, now: float) -> None:
        """Forgets turns that have been heard to the end."""
        self.voiced = [t for t in self.voiced if not t.closed or self.heard(t, now) < t.sent]

    def silence(self, now: float) -> list[tuple[Turn, int]]:
        """Stops all playing at once; returns the turns that are cut, with the samples heard of each."""
        cut = [(t, self.heard(t, now)) for t in self.voiced if self.heard(t, now) < t.sent or t is self.live]
        if self.live is not None:
            self.live.pending.clear()
        self.playout.flush(now)
        self.voiced = []
        self.held = False
        return cut

    def next_deadline(self, now: float) -> float | None:
        """When more may be sent, or when the playing ends."""
        tick = (
            1.0 / VOICE_RATE
        )  # the clock counts whole samples: look one later, so that the wait is really over
        if self.live is not None and self.live.pending and not self.held and self.lead is not None:
            return self.playout.time_when_ahead(self.lead) + tick
        if self.voiced and self.playout.ahead(now) > 0:
            return self.playout.time_when_ahead(0) + tick
        return None

    def _live(self) -> Turn:
        assert self.live is not None, "the controller passes on events of the live turn only"
        return self.live
