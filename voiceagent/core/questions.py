"""Asks the engine, at the first sign of an end, whether what a person said is complete; it decides nothing.

Once per pause, and only where turns end by what was said. The answer goes to the ear (patience.py); without one, the
ear goes by the silence alone. The audio that was sent for a question is forgotten as soon as the question is over.
"""

from __future__ import annotations

from voiceagent.core import actions as act
from voiceagent.core.ear import Listener
from voiceagent.core.tables import Ear
from voiceagent.units import MODEL_RATE, ms_to_samples

FIRST_SIGN = ms_to_samples(64, rate=MODEL_RATE)  #: silence in which a person may have finished: two windows


class Questions:
    """The question that is open, if there is one."""

    def __init__(self) -> None:
        self._asked: int | None = None  # sample at which the speech ended that was last asked about
        self._piece: int | None = None  # what was sent for it

    def follow(self, ear: Listener, *, engine_up: bool, wanted: bool) -> list[act.Action]:
        """What is to be asked or forgotten, after whatever has happened.

        Args:
            ear: what hears the person.
            engine_up: there is somebody to ask.
            wanted: it is a turn, or a voice over ours that is weighed: "stop" is short, and meant.
        """
        if ear.state is not Ear.TRAILING:
            return self._forget()
        judged = ear.vad is not None and ear.vad.eagerness is not None and engine_up and wanted
        if not judged or ear.silence < FIRST_SIGN or self._asked == ear.speech_end:
            return []
        made, self._asked = self._forget(), ear.speech_end
        piece = ear.said_last()
        if piece is None:  # its audio was lost on the way in
            return made
        if ear.offered:  # the engine has it for a reply on a guess, which forgets it in time
            return [*made, act.JudgeEnd(ear.speech_end, piece)]
        self._piece = piece.id
        return [*made, act.EncodePiece(piece), act.JudgeEnd(ear.speech_end, piece)]

    def _forget(self) -> list[act.Action]:
        piece, self._piece = self._piece, None
        return [] if piece is None else [act.ForgetPieces((piece,))]
