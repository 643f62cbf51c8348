"""The two machines of a call as tables: what the ear and the mouth can be in, and what leads from where to where.

Nothing here acts. The ear obeys `EAR`; the mouth's state follows from three facts (`mouth_state`), so that no
contradiction can be stored. `scripts/draw_states.py` draws STATES.md from this file, and tests walk it.
"""

from __future__ import annotations

from enum import Enum


class Ear(Enum):
    """The person's side."""

    QUIET = "nobody speaks"
    SPEECH = "somebody speaks"
    TRAILING = "somebody spoke; the silence is not yet long enough to end the turn"


class Voice(Enum):
    """What happens to the ear."""

    ON = "voice on"
    OFF = "voice off"
    ENDED = "silence long enough, no verdict for too long, or a commit by the client"
    FORGOTTEN = "no interruption, or the client cleared the buffer"


EAR: dict[tuple[Ear, Voice], Ear] = {
    (Ear.QUIET, Voice.ON): Ear.SPEECH,
    (Ear.TRAILING, Voice.ON): Ear.SPEECH,
    (Ear.SPEECH, Voice.OFF): Ear.TRAILING,
    **{(ear, Voice.ENDED): Ear.QUIET for ear in Ear},
    **{(ear, Voice.FORGOTTEN): Ear.QUIET for ear in Ear},
}
"""Every change of the ear; a pair that is not here cannot happen."""


class Mouth(Enum):
    """The assistant's side."""

    IDLE = "nothing to say"
    THINKING = "a turn is being computed, nothing of ours is to be heard"
    SPEAKING = "our voice is to be heard: sent audio is still playing, or the live turn has begun to send"
    HELD = "a voice over our turn: nothing is sent until it is clear whether it is an interruption"


def mouth_state(*, live: bool, audible: bool, held: bool) -> Mouth:
    """The mouth's state.

    Args:
        live: a turn is open (for the wire: `TurnOpened`, not yet `TurnClosed`).
        audible: the live turn has sent audio, or an earlier one has not been heard to its end.
        held: an interruption is being weighed.
    """
    if not live and not audible:
        return Mouth.IDLE
    if held:
        return Mouth.HELD
    return Mouth.SPEAKING if audible else Mouth.THINKING


MOUTH: dict[tuple[Mouth, Mouth], str] = {
    (Mouth.IDLE, Mouth.THINKING): "utterance over, or the client asks: StartTurn",
    (Mouth.THINKING, Mouth.SPEAKING): "first audio of the turn: SendAudio, paced",
    (Mouth.THINKING, Mouth.IDLE): "turn closed without audio: text, tools, cancelled, failed",
    (Mouth.THINKING, Mouth.HELD): "voice on, if interruptible",
    (Mouth.SPEAKING, Mouth.IDLE): "all sent and heard; or cancelled, cleared: CancelTurn, Flush, heard cut",
    (Mouth.SPEAKING, Mouth.THINKING): "the last turn was heard to its end while the next is being computed",
    (Mouth.SPEAKING, Mouth.HELD): "voice on, if interruptible: stop sending",
    (Mouth.HELD, Mouth.SPEAKING): "no interruption: go on at the exact sample, forget the noise",
    (Mouth.HELD, Mouth.THINKING): "no interruption, nothing is audible: go on, forget the noise",
    (
        Mouth.HELD,
        Mouth.IDLE,
    ): "an interruption: CancelTurn, Flush, heard cut; or nothing left to hold",
}
"""Every change of the mouth in one step, and its cause."""

REACHABLE: frozenset[tuple[Ear, Mouth]] = frozenset(
    (ear, mouth) for ear in Ear for mouth in Mouth if mouth is not Mouth.HELD or ear is not Ear.QUIET
)
"""Pairs that occur at all: we hold only while somebody speaks, or has just stopped."""

REACHABLE_BY_VOICE: frozenset[tuple[Ear, Mouth]] = frozenset(
    {
        (Ear.QUIET, Mouth.IDLE),
        (Ear.SPEECH, Mouth.IDLE),
        (Ear.TRAILING, Mouth.IDLE),
        (Ear.QUIET, Mouth.THINKING),
        (Ear.QUIET, Mouth.SPEAKING),
        (Ear.SPEECH, Mouth.HELD),
        (Ear.TRAILING, Mouth.HELD),
    }
)
"""Pairs that occur in a call where interruptions are allowed and only the voice asks for turns."""
