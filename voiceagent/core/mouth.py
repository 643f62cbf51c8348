"""The mouth: which turn is live, what of it is sent when, what has been heard of it and of those before.

It owns the pacing and the playout clock. Whether to speak, to hold or to stop is the controller's decision.
"""

from __future__ import annotations

from voiceagent.core.actions import SendAudio
from voiceagent.core.playout import WAY_S, Playout
from voiceagent.core.tables import Mouth, mouth_state
from voiceagent.core.turn import Turn
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE, ms_to_samples

BURST = 2 * VOICE_RATE
"""Samples that are sent at once where nothing paces them; the line may say in between that it is busy."""

MOST_AHEAD = VOICE_RATE // 2
"""Lead (500 ms) up to which it is worth while to hold back and wait: what the client holds plays on meanwhile."""

ROUNDED = VOICE_RATE // 1000
"""A player that is less than a millisecond before the end is there: it counts in whole milliseconds."""


class Speaker:
    """The assistant's side of a call.

    Attributes:
        live: the turn that is open for the wire.
        held: nothing is sent for now.
        busy: the line takes nothing for now.
    """

    def __init__(self, lead_ms: int | None) -> None:
        self.live: Turn | None = None
        self.held = False
        self.busy = False
        self._playing: list[
            Turn
        ] = []  # turns that have sent audio and were not heard to their end, oldest first
        self._playout = Playout()
        self._lead: int | None = None
        self.configure(lead_ms)

    def configure(self, lead_ms: int | None) -> None:
        """Takes another pacing lead; None = unpaced."""
        # Less than a speech token ahead and the player would run dry between any two sends.
        self._lead = (
            None if lead_ms is None else max(ms_to_samples(lead_ms, rate=VOICE_RATE), 2 * TOKEN_SAMPLES)
        )

    @property
    def state(self) -> Mouth:
        """The mouth's state as of the last `settle`."""
        return mouth_state(live=self.live is not None, audible=bool(self._playing), held=self.held)

    @property
    def idle(self) -> bool:
        """Whether `state` is `Mouth.IDLE`, which is asked at every event."""
        return self.live is None and not self._playing

    @property
    def can_hush(self) -> bool:
        """Whether holding back silences us before it is known what a voice over ours is."""
        return self._lead is not None and self._lead <= MOST_AHEAD

    @property
    def audible(self) -> tuple[Turn, ...]:
        """Turns that have sent audio and were not heard to their end (the live one never is before it is closed)."""
        return tuple(self._playing)

    @property
    def finished(self) -> bool:
        """Whether the live turn is generated to its end and sent."""
        return self.live is not None and self.live.ended is not None and not self.live.pending

    def pump(self, now: float) -> list[SendAudio]:
        """Sends of the live turn what the lead allows."""
        turn = self.live
        made: list[SendAudio] = []
        if turn is None or self.held or self.busy:
            return made
        until = turn.sent + BURST
        while turn.pending and (self._lead is not None or turn.sent < until):
            most = None if self._lead is None else self._lead - self._playout.ahead(now)
            pcm = turn.next_audio(most)
            if pcm is None:
                break
            if not turn.sent:
                turn.base = self._playout.sent
                self._playing.append(turn)
            turn.sent += len(pcm)
            self._playout.send(len(pcm), now)
            made.append(SendAudio(turn.id, turn.item_id, pcm))
        return made

    def close(self) -> Turn:
        """The live turn is over for the wire; what was sent of it goes on playing. Returns it."""
        turn = self.live
        assert turn is not None
        turn.closed = True
        turn.pending.clear()
        self.live = None
        return turn

    def heard(self, turn: Turn, now: float) -> int:
        """Samples of an audible turn that have surely been heard."""
        return max(0, min(turn.sent, self._playout.heard(now) - turn.base))

    def bound(self, turn: Turn, now: float) -> int:
        """Samples of an audible turn that can be heard at most, by the time that a `Flush` reaches the player."""
        return max(0, min(turn.sent, self._playout.clock(now + WAY_S) - turn.base))

    @property
    def acknowledges(self) -> bool:
        """Whether the player says how far it is."""
        return self._playout.acknowledges

    def acknowledge(self, turn_id: int, samples: int) -> None:
        """The player is so far in a turn; ignored unless that turn is audible."""
        for turn in self._playing:
            if turn.id == turn_id:
                if turn.closed and turn.sent - samples < ROUNDED:
                    samples = turn.sent
                # "None of it yet" says nothing of the turns before it.
                self._playout.acknowledge(turn.base + min(samples, turn.sent) if samples > 0 else 0)

    def settle(self, now: float) -> list[Turn]:
        """Lets go of turns that are closed and heard to their end, and returns them."""
        if not self._any_closed():
            return []
        heard, playing = self._playout.heard(now), self._playing
        self._playing = [t for t in playing if not t.closed or heard < t.base + t.sent]
        return [t for t in playing if t not in self._playing]

    def release(self, turn: Turn, now: float) -> None:
        """The player stopped this turn by itself, and goes on with those behind it."""
        at = self._playing.index(turn)
        del self._playing[at]
        if not self._playing:
            self._playout.flush(now)
            return
        dropped = max(0, turn.base + turn.sent - max(self._playout.clock(now), turn.base))
        self._playout.drop(dropped)
        for later in self._playing[at:]:
            later.base -= dropped

    def hush(self, now: float) -> None:
        """Nothing more is to be heard of anything sent so far."""
        self._playing = []
        self._playout.flush(now)

    def next_deadline(self, now: float) -> float | None:
        """When more may be sent, or a closed turn will have been heard; None if that is not a matter of time."""
        times = []
        if self.live is not None and self.live.pending and not self.held and not self.busy:
            needed = min(len(self.live.pending[0]), TOKEN_SAMPLES)
            due = now if self._lead is None else self._playout.time_when_ahead(self._lead - needed)
            times.append(due)
        if self._any_closed():
            oldest = self._playing[0]
            heard = self._playout.time_when_heard(oldest.base + oldest.sent)
            if heard is not None:
                times.append(max(heard, now))
        return min(times, default=None)

    def _any_closed(self) -> bool:
        # The oldest one is, unless it is the live one.
        return bool(self._playing) and self._playing[0].closed
