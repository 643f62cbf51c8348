"""Holds our voice while one over it is weighed, and tells of that; whether to stop is the controller's decision."""

from __future__ import annotations

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.bargein import BargeIn
from voiceagent.core.bystanders import Bystanders
from voiceagent.core.ear import Listener
from voiceagent.core.loudness import Loudness
from voiceagent.core.replies import Replies
from voiceagent.core.tables import Ear, Mouth
from voiceagent.core.wording import asks_to_stop
from voiceagent.units import MODEL_RATE, VOICE_RATE, samples_to_ms


class Interruptions:
    """The voices over ours in one call.

    Args:
        ear: what hears them.
        replies: what they are over.
    """

    def __init__(self, ear: Listener, replies: Replies) -> None:
        self._ear, self._replies = ear, replies
        caller = Loudness()
        self._weigher, self._bystanders = BargeIn(caller), Bystanders(caller)
        self._wary = True
        self._passed = 0  # the last voice of which it was told that it was passed over
        self._over = (0, 0)  # the turn that a voice is weighed over, and milliseconds heard of it by then

    @property
    def pending(self) -> bool:
        """Whether a voice is being weighed."""
        return self._weigher.pending

    def configure(self, config: opt.SessionConfig) -> None:
        """Where anybody may speak, nobody is in the background."""
        self._wary = config.barge_in == "patient" and config.replies and not config.alone

    @property
    def doubtful(self) -> bool:
        """Whether the voice that is heard may be somebody's in the background; it is not clear yet, or it is one."""
        return self._wary and self._bystanders.doubtful

    @property
    def far(self) -> bool:
        """Whether the voice that is heard is one in the background, for sure."""
        return self._wary and self._bystanders.far

    @property
    def too_far(self) -> bool:
        """Whether it was one, if that was all of it."""
        return self._wary and self._bystanders.too_far

    @property
    def nature(self) -> str:
        """What the voice that is weighed was, if nothing more comes of it."""
        return "no_news" if self._ear.state is Ear.SPEECH else self._weigher.nature

    def note(self, event: ev.SpeechProb, *, announced: bool) -> None:
        """Any window of the input, in order, behind the ear. `announced`: it is in an utterance of the caller's."""
        self._weigher.note(event)
        self._bystanders.hear(event)
        theirs = announced and not self.doubtful
        if theirs and self._ear.state is Ear.SPEECH and self._replies.mouth.state is Mouth.IDLE:
            self._weigher.learn(event)

    def possible(self, now: float) -> bool:
        """Whether the voice that we hear, if we hear one, may interrupt us."""
        if self._ear.state is Ear.QUIET or self._replies.mouth.state is Mouth.IDLE:
            return False
        vad = self._ear.vad
        return vad is not None and vad.interrupt_response and self._replies.interruptible(now)

    def weigh(
        self, event: ev.SpeechProb, *, start: int, patient: bool, now: float
    ) -> tuple[list[act.Action], bool]:
        """A window of a voice over ours that has been unbroken since sample `start`: nothing more is sent.

        `patient` says whether it may be a word of assent. Returns what to tell, and whether it is an interruption.
        """
        made: list[act.Action] = []
        begins = not self._weigher.pending
        if begins:
            self._hold(start, patient=patient, now=now)
        enough = self._weigher.hear(event, start=start)
        reason = None if self.doubtful else enough
        if begins:
            made.append(self._told("pending", None))
        return made + ([] if reason is None else self.end("confirmed", reason)), reason is not None

    def pause(self) -> str | None:
        """Nobody speaks in the last window: what the voice that is weighed was, if that is clear by now."""
        return self._weigher.pause(self._ear.judged)

    def say(self, event: ev.EndJudged) -> list[act.Action]:
        """What the voice that is weighed, and has just fallen silent, said: the interruption that it is, if it is."""
        theirs = self.pending and self._ear.state is Ear.TRAILING and event.at == self._ear.speech_end
        meant = theirs and asks_to_stop(event.text) and not self.doubtful
        return self.end("confirmed", "words") if meant else []

    def end(self, status: notices.Weighing, reason: str) -> list[act.Action]:
        """It is known what the voice was, if one was weighed."""
        if not self._weigher.pending:
            return []
        told = self._told(status, reason)
        self._weigher.end()
        return [told]

    def pass_over(self) -> list[act.Action]:
        """The voice that is heard is not for us. Told once of each; where it was weighed, by that."""
        if self._passed == self._bystanders.voices or self.pending:
            self._passed = self._bystanders.voices
            return self.end("dismissed", "faint")
        self._passed = self._bystanders.voices
        return [notices.PassedOver(self._bystanders.speech_ms)]

    def _hold(self, start: int, *, patient: bool, now: float) -> None:
        mouth = self._replies.mouth
        turn = mouth.live or mouth.audible[-1]
        mouth.held = True
        self._weigher.begin(start=start, patient=patient and bool(mouth.audible) and mouth.can_hush)
        heard = mouth.heard(turn, now) if turn in mouth.audible else 0
        self._over = turn.id, samples_to_ms(heard, rate=VOICE_RATE)

    def _told(self, status: notices.Weighing, reason: str | None) -> notices.Interruption:
        turn, heard = self._over
        return notices.Interruption(
            turn, status, reason, samples_to_ms(self._weigher.speech, rate=MODEL_RATE), heard
        )
