"""Replies on a guess: begun at the first likely end of what a person says, and held back until it is decided.

Whether the person has finished is decided elsewhere. Nothing that the engine makes of a guess gets out of here before
`confirm`, and it is confirmed only as the reply to just what it has heard and read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.conversation import Conversation
from voiceagent.core.ear import Listener
from voiceagent.core.history import AudioContent, Item, TextContent, UserItem
from voiceagent.core.making import Making
from voiceagent.core.replies import Replies
from voiceagent.core.tables import Ear
from voiceagent.units import MODEL_RATE, ms_to_samples

PATIENCE = ms_to_samples(96, rate=MODEL_RATE)
"""Silence behind the last word that is taken for the end at first; longer than the pauses within words."""
MOST = 3
"""Guesses about one utterance; each is made behind twice the silence of the one before: who pauses often waits."""


@dataclass(slots=True)
class Guess:
    """A reply that nobody asked for yet.

    Attributes:
        start: what the engine was asked.
        asked: when.
        events: what it said since; nobody has been told.
        working: since when it has worked at it; None = it has not begun.
        first: when the first sound, or text of a written reply, was there.
        pending: the utterance that it answers is still going on.
    """

    start: act.StartTurn
    asked: float
    events: list[ev.TurnEvent] = field(default_factory=list)
    working: float | None = None
    first: float | None = None
    pending: bool = True

    def hold(self, event: ev.TurnEvent, now: float) -> None:
        """Keeps what the engine says; behind its end there is nothing."""
        if self.ended is None:
            self.events.append(event)
        spoken = self.start.options.modalities == "audio"
        match event:
            case ev.TurnStarted(encoded=encoded):
                self.working = max(self.asked, now - encoded)
            case ev.AudioOut(pcm=pcm) if len(pcm) and spoken and self.first is None:
                self.first = now
            case ev.TextOut(text=text) if text and not spoken and self.first is None:
                self.first = now
            case _:
                pass

    def saved(self, now: float) -> int:
        """How much of the work, up to the first sound, is done by now; microseconds."""
        if self.working is None:
            return 0
        return max(0, round((min(now, now if self.first is None else self.first) - self.working) * 1e6))

    def answers(self, items: Sequence[Item], options: opt.TurnOptions) -> bool:
        """Whether it answers just these items with these options."""
        return self.start.options == options and _read(self.start.items) == _read(items)

    @property
    def ended(self) -> ev.TurnEnded | None:
        """What the engine said at the end, if it has come there."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, ev.TurnEnded) else None

    @property
    def tokens(self) -> int:
        """That have come."""
        return sum(len(e.ids) for e in self.events if isinstance(e, ev.TextOut | ev.AudioOut))


class Guesses:
    """The guesses of a call: at most one is open.

    Args:
        talk: the conversation.
        making: what numbers turns, and knows what the engine would be asked.
        ear: what hears the person.
        replies: where a guess becomes a turn.
    """

    def __init__(self, talk: Conversation, making: Making, ear: Listener, replies: Replies) -> None:
        self.open: Guess | None = None
        self._talk, self._making, self._ear, self._replies = talk, making, ear, replies
        self._about: str | None = None  # the utterance of the last guess
        self._made = 0  # about that utterance
        self._piece: int | None = (
            None  # audio that the engine has, and that may not be in the conversation after all
        )
        self._dropped: dict[
            int, tuple[notices.GuessOutcome, int]
        ] = {}  # turns that the engine is still to let go of

    def consider(
        self, config: opt.SessionConfig, utterance: str | None, unanswered: Sequence[str], now: float
    ) -> list[act.Action]:
        """In a silence: they may have finished, though it is too early to say so. Begins the reply, if it is time.

        Args:
            config: the session's.
            utterance: id that the utterance in progress will have.
            unanswered: ids of others, where each is answered for itself.
            now: seconds.
        """
        mouth, vad = self._replies.mouth, self._ear.vad
        free = mouth.live is None and not mouth.held and self._making.engine_up
        answered = config.replies and vad is not None and vad.create_response
        if not (config.speculation and free and answered) or utterance is None or not self._wanted(utterance):
            return []
        pieces, fresh = self._ear.offer()
        made: list[act.Action] = [act.EncodePiece(piece) for piece in fresh]
        if not pieces:
            return made
        said = UserItem(utterance, (AudioContent(pieces),))
        items, options = (*self._talk.in_view, said), config.turn_options()
        if config.alone:
            waiting = (self._talk.history.find(item_id) for item_id in unanswered)
            items = (*(item for item in waiting if item is not None), said)
            options = replace(options, input=items)
        self._made = self._made + 1 if utterance == self._about else 1
        self._about, self._piece = utterance, pieces[-1].id
        self.open = Guess(act.StartTurn(self._making.new_number(), items, options, guess=True), now)
        return [*made, self.open.start]

    def _wanted(self, utterance: str) -> bool:
        made = self._made if utterance == self._about else 0
        free = self.open is None and self._piece is None
        return free and made < MOST and self._ear.still >= PATIENCE << made

    def on_engine(self, event: ev.TurnEvent, now: float) -> list[act.Action]:
        """What the engine says of a guess: kept, if it is open. Other turns' events are not ours."""
        if self.open is not None and event.turn == self.open.start.turn:
            if isinstance(event, ev.TurnFailed) or (
                isinstance(event, ev.TurnEnded) and event.reason == "cancelled"
            ):
                return self._fail(event)
            self.open.hold(event, now)
            return []
        if event.turn in self._dropped and isinstance(event, ev.TurnEnded | ev.TurnFailed):
            outcome, tokens = self._dropped.pop(event.turn)
            return [_wasted(event, outcome, tokens)]
        return []

    def _fail(self, event: ev.TurnEnded | ev.TurnFailed) -> list[act.Action]:
        guess, self.open = self.open, None
        assert guess is not None
        return [_wasted(event, "failed", guess.tokens)]

    # --- how it ends --------------------------------------------------------------------------------------------

    def review(self) -> list[act.Action]:
        """Drops the guess if the utterance does not end, or has not ended, where it was thought to."""
        if self._ear.offered:
            return []
        return self.unsettle("changed" if self._ear.state is Ear.QUIET else "went_on")

    def unsettle(self, outcome: notices.GuessOutcome) -> list[act.Action]:
        """The utterance does not end where it was thought to end, if any was."""
        if self._piece is None:
            return []
        forget, self._piece = act.ForgetPieces((self._piece,)), None
        return [*self.drop(outcome), forget]

    def decided(self) -> None:
        """The utterance is over, and what the guess heard of it is in the conversation."""
        self._piece = None
        if self.open is not None:
            self.open.pending = False

    def confirm(
        self, options: opt.TurnOptions, now: float, tell: Callable[[ev.TurnEvent], list[act.Action]]
    ) -> list[act.Action]:
        """Opens the turn that is held, if it is just what would be asked for now; nothing if it is not.

        Args:
            options: of the turn that is to be opened.
            now: seconds.
            tell: takes what the engine has said of it, now that it is a turn.
        """
        guess, asked = self.open, None if self.open is None else self._making.asked(options)
        if guess is None or asked is None or not guess.answers(*asked):
            return []
        self.open, turn = None, guess.start.turn
        made = self._replies.start(options, begun=turn)
        made.append(notices.GuessOver(turn, "right", saved=guess.saved(now)))
        for event in guess.events:
            made += tell(event)
        return made + self._replies.complete()

    def drop(self, outcome: notices.GuessOutcome) -> list[act.Action]:
        """The open guess, if there is one, is not wanted."""
        guess, self.open = self.open, None
        if guess is None:
            return []
        turn = guess.start.turn
        if guess.ended is not None:  # the engine has let go of it
            return [_wasted(guess.ended, outcome, guess.tokens)]
        self._dropped[turn] = outcome, guess.tokens
        return [act.CancelTurn(turn)]

    def drop_decided(self) -> list[act.Action]:
        """Nothing waits for an answer: if the utterance of the open guess is over, it was in vain."""
        return self.drop("changed") if self.open is not None and not self.open.pending else []

    def lose(self, outcome: notices.GuessOutcome) -> list[act.Action]:
        """The engine is gone, or the call is over: nothing more will be heard of any guess."""
        made = self.drop(outcome)
        gone, self._dropped = self._dropped, {}
        return made + [notices.GuessOver(turn, why, tokens=tokens) for turn, (why, tokens) in gone.items()]


def _wasted(event: ev.TurnEvent, outcome: notices.GuessOutcome, tokens: int) -> notices.GuessOver:
    """The engine's last word about a guess that was for nothing."""
    if not isinstance(event, ev.TurnEnded):
        return notices.GuessOver(event.turn, outcome, tokens=tokens)
    tokens = max(tokens, event.usage.output_text + event.usage.output_audio)
    return notices.GuessOver(event.turn, outcome, tokens=tokens, work=round(event.spent * 1e6))


def _read(items: Sequence[Item]) -> list[object]:
    """What the model reads of the items: the transcript of sound that is there does not count."""
    return [
        (item.id, [_heard(part) for part in item.content]) if isinstance(item, UserItem) else item
        for item in items
    ]


def _heard(part: TextContent | AudioContent) -> object:
    if isinstance(part, AudioContent) and part.pieces:
        return [piece.id for piece in part.pieces]
    return part
