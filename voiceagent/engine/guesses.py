"""Replies on a guess in the engine: when they may go on, how far, and what they have cost; it knows no tensor.

A guess is worth nothing until it is confirmed, so it never runs while anybody waits for a reply, and what all guesses
cost in vain stays below a share of the time. One that was confirmed has cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from voiceagent.engine.slots import Stage, Turn
from voiceagent.units import VOICE_RATE

EASE_S = 0.5  #: of sound ahead that every listener must have before a guess gets a step
ENOUGH = (
    VOICE_RATE  #: samples (1 s) of sound behind which a guess waits; the rest is made when it is confirmed
)
ENOUGH_TOKENS = 64  #: and so many tokens without a sound: of a thought, or of a written reply
SAVED_S = 3.0  #: so much time for guesses can be saved up


class Guesses:
    """Keeps the account of guesses.

    Args:
        share: of the time, that guesses may cost in vain; 0 = there are none.
        now: seconds, monotonic.
    """

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._left = SAVED_S if share else 0.0
        self._counted = now
        self._ended: dict[
            int, tuple[int, float]
        ] = {}  # by session: the last guess that is over, and its cost

    def charge(self, turns: Sequence[Turn], seconds: float) -> None:
        """The engine has worked so long for these turns together."""
        for turn in turns:
            turn.spent += seconds / len(turns)
            if turn.guess:
                self._left -= seconds / len(turns)

    def confirm(self, session: int, number: int, turn: Turn | None, now: float) -> None:
        """A guess is wanted: it is a turn that arrives now, with what is made of it.

        Args:
            session, number: of the turn.
            turn: None if it is made to its end, or was given up.
            now: seconds.
        """
        ended, spent = self._ended.pop(session, (None, 0.0))
        if turn is None and ended == number:
            self._left += spent
        if turn is None or not turn.guess:
            return
        self._left += turn.spent
        turn.guess, turn.arrived = False, now
        if turn.playing_until is not None:
            turn.playing_until = now + turn.samples / VOICE_RATE

    def ended(self, turn: Turn) -> None:
        """A turn is over; what it has cost was for nothing, unless it is confirmed yet."""
        if turn.guess:
            self._ended[turn.session] = turn.turn, turn.spent

    def close(self, session: int) -> None:
        """The session is over."""
        self._ended.pop(session, None)

    def may_run(self, turns: Sequence[Turn], now: float) -> bool:
        """Whether guesses may have steps, beside these turns."""
        self._left = min(SAVED_S, self._left + self._share * max(0.0, now - self._counted))
        self._counted = now
        return self._left > 0 and all(turn.guess or turn.beside or _at_ease(turn, now) for turn in turns)


def far_enough(turn: Turn) -> bool:
    """Whether a guess has made what can be wanted of it at once."""
    return turn.guess and (turn.samples >= ENOUGH or turn.quiet_tokens >= ENOUGH_TOKENS)


def _at_ease(turn: Turn, now: float) -> bool:
    """Whether the listener has heard something, and has enough to go on with."""
    if turn.stage in (Stage.WAITING, Stage.READING):
        return False
    return turn.sounding and turn.deadline() - now > EASE_S
