"""Who runs next: a pure choice over what each turn still needs, earliest playout deadline first.

One choice is one step: some audio pieces, a slice of a prompt, one token of many replies, one stretch of sound of
several. No step is longer than a slice, so a cancel or a new turn never waits long. It knows no tensors, no clock
and no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from voiceagent.engine.slots import Stage

ENCODE_DEADLINE_S = 0.5  #: a piece cut while the person still speaks is wanted when they stop
JOIN_S = 1.0  #: who needs its token later than this behind somebody who is in a hurry makes no batch larger
HURRY_S = 0.5  #: who needs a token within this time does not wait for many slices of others' prompts:
READS_SOUNDING = 1  #: for so many if a listener would run dry,
READS_WAITING = (
    4  #: for so many if they wait for a first sound, which comes sooner to all when all are read first
)
PREPARE_CALM_S = 0.3  #: a prompt is read ahead when nobody needs a token within this time
CALM_S = 1.0  #: captions are written when every listener has this much sound ahead
BACKGROUND_PATIENCE_S = 5.0  #: after this long, a caption no longer waits for calm, only for first sounds
CAPTION_SHARE = 4  #: so many replies fit into a batch for every caption that is written at the same time
LAST_PATIENCE_S = 20.0  #: and after this long, not for those either


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one step may hold; the runner chooses it for its device.

    Attributes:
        batch: replies and captions in one decoding step.
        slice: positions of a prompt that are read in one step.
        encode: audio pieces in one step.
        speech: streams in one step of the vocoder; more would keep a first sound waiting for too long.
        ease: seconds; the vocoder may wait for company while every listener has this much sound ahead.
        lanes: steps of the vocoder at the same time.
        shared: language and speech compute on one device, so that each slows the other down.
    """

    batch: int = 4
    slice: int = 64
    encode: int = 1
    speech: int = 1
    ease: float = 1.5
    lanes: int = 1
    shared: bool = False


@dataclass(frozen=True, slots=True)
class TurnView:
    """What the scheduler sees of a turn that may run: the first one of its conversation, or one beside it.

    Attributes:
        deadline: seconds; when its listener starts to miss something.
        need: seconds; when the language model must go on, so that the deadline can be kept: later than `deadline`
            by the sound that lies in tokens already.
        sounding: its listener has heard a first sound, or waits for none.
        missing: pieces that must be encoded before its prompt can be read.
        ready_ids: speech ids that the vocoder could have now.
        wanted_ids: how many it wants for its next step.
        vocoding: the vocoder is at work on it.
        beside: it is beside a conversation, and nobody waits for it.
        guess: it is a guess, which comes behind everything else.
    """

    session: int
    turn: int
    stage: Stage
    deadline: float
    need: float
    sounding: bool
    missing: tuple[int, ...]
    ready_ids: int
    wanted_ids: int
    vocoding: bool = False
    beside: bool = False
    guess: bool = False

    @property
    def may_speak(self) -> bool:
        """Whether its next step is the vocoder's."""
        enough = self.stage is Stage.DECODING and self.ready_ids >= self.wanted_ids
        return enough or self.stage is Stage.DRAINING

    @property
    def reads(self) -> bool:
        """Whether its prompt is still to be read."""
        return self.stage in (Stage.WAITING, Stage.READING)


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that no turn waits for: a piece, a prompt to read ahead, a caption's prompt, a caption to write.

    A question whether somebody has finished is read ("judge") and written ("conclude") like a caption, but they wait.
    """

    kind: Literal["encode", "judge", "conclude", "prepare", "listen", "write"]
    session: int
    key: int | str  #: piece number, or item id
    arrived: float


@dataclass(frozen=True, slots=True)
class EncodeStep:
    """Encode audio pieces: (session, piece) each."""

    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """Read up to so many positions of the turn's prompt."""

    session: int
    turn: int
    positions: int


@dataclass(frozen=True, slots=True)
class PrepareStep:
    """Read ahead up to so many positions of a conversation that will be answered soon."""

    session: int
    positions: int


@dataclass(frozen=True, slots=True)
class ListenStep:
    """Read up to so many positions of a caption's prompt."""

    session: int
    item_id: str
    positions: int


@dataclass(frozen=True, slots=True)
class JudgeStep:
    """Read up to so many positions of the prompt of a session's question."""

    session: int
    positions: int


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Generate one token each: of replies (session, turn), captions (session, item id), and sessions' questions."""

    turns: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, str], ...] = ()
    judges: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One stream's share of a step: speak the next `count` ids; `last` ends the stream."""

    session: int
    turn: int
    count: int
    last: bool


@dataclass(frozen=True, slots=True)
class VocodeStep:
    """Speak the next ids of several streams: chunks of any sizes, or ends of streams."""

    parts: tuple[Part, ...]


Step = EncodeStep | PrefillStep | PrepareStep | ListenStep | JudgeStep | DecodeStep | VocodeStep


def plan(
    turns: Sequence[TurnView],
    chores: Sequence[Chore],
    now: float,
    *,
    limits: Limits | None = None,
    reads: int = 0,
) -> Step | None:
    """The next step, or None when there is nothing to do.

    Whoever is most urgent leads, and a batch is filled with those that come next. Turns that have not begun are read
    at once, a slice at a time, in turns with a decoding step if somebody needs tokens soon. A turn's deadline moves
    on with each of its own steps (a sound, or a little per token), so every turn comes to be the most urgent one:
    none starves. An encode chore competes with its own deadline; a prompt is read ahead, and captions are written,
    only when nobody is hurt.

    Args:
        turns: those that may run: the first one of every conversation, and those beside one.
        chores: work in the background.
        now: seconds, on the clock of the deadlines.
        limits: how much fits into one step.
        reads: steps of the language model since its last token, whatever they did.
    """
    limits = limits or Limits()
    speaking = sorted((v for v in turns if v.may_speak), key=lambda v: (v.deadline, v.session, v.turn))
    writing = sorted((v for v in turns if not v.may_speak), key=lambda v: (v.need, v.session, v.turn))
    due = [v.deadline for v in speaking[:1]] + [v.need for v in writing[:1]]
    early = sorted((c for c in chores if c.kind == "encode"), key=lambda c: (c.arrived, c.session, c.key))
    if early and (not due or early[0].arrived + ENCODE_DEADLINE_S < min(due)):
        return _encode(early, writing, limits)
    if speaking and speaking[0].deadline == min(due):
        return _speak(speaking, limits)
    return _language(turns, writing, early, chores, now, limits, reads)


def without_idlers(turns: Sequence[TurnView], now: float) -> list[TurnView]:
    """The turns that have a claim now.

    One beside a conversation waits until no conversation is in a hurry, anybody's, or until it is late itself: its
    deadline moves on with each of its steps, so it then goes on at a slow pace.
    """
    calm = all(view.beside or (view.sounding and view.deadline - now > HURRY_S) for view in turns)
    return [view for view in turns if calm or not view.beside or view.deadline <= now]


def _language(
    turns: Sequence[TurnView],
    writing: Sequence[TurnView],
    early: Sequence[Chore],
    chores: Sequence[Chore],
    now: float,
    limits: Limits,
    reads: int,
) -> Step | None:
    """The language model's next step; `writing` are the turns that wait for it, the most urgent one first."""
    reading = [view for view in writing if view.reads and not view.guess]
    guessed = [view for view in writing if view.reads and view.guess]
    decoding = [view for view in writing if not view.reads]
    hurried = [view for view in decoding if not view.beside and view.need - now < HURRY_S]
    patience = READS_SOUNDING if any(view.sounding for view in hurried) else READS_WAITING
    theirs = bool(hurried) and reads >= patience
    if reading and not theirs:
        return _read(reading, early, limits)
    quiet = sorted(
        (c for c in chores if c.kind != "encode"), key=lambda c: (c.arrived, c.session, str(c.key))
    )
    if not reading and not theirs:
        step = _ahead(turns, quiet, now, limits)
        if step is not None:
            return step
        if guessed and not any(chore.kind == "conclude" for chore in quiet):
            return _read(guessed, early, limits)
    return _decode(turns, decoding, quiet, now, limits)


def _read(reading: Sequence[TurnView], early: Sequence[Chore], limits: Limits) -> Step:
    first = reading[0]
    if first.missing:
        return _encode(early, reading, limits, turns_first=True)
    return PrefillStep(first.session, first.turn, limits.slice)


def _encode(
    early: Sequence[Chore], writing: Sequence[TurnView], limits: Limits, *, turns_first: bool = False
) -> EncodeStep:
    """Pieces that turns wait for, and pieces that none waits for yet, without doubles."""
    urgent = [(view.session, piece) for view in writing for piece in view.missing]
    ahead = [(chore.session, int(chore.key)) for chore in early]
    pieces = [*urgent, *ahead] if turns_first else [*ahead, *urgent]
    return EncodeStep(tuple(dict.fromkeys(pieces))[: limits.encode])


def _ahead(turns: Sequence[TurnView], quiet: Sequence[Chore], now: float, limits: Limits) -> Step | None:
    """A slice of a prompt that nobody waits for, if nobody is hurt by it."""
    if _may_judge(turns, now):
        for chore in quiet:
            if chore.kind == "judge":
                return JudgeStep(chore.session, limits.slice)
        if any(chore.kind == "conclude" for chore in quiet):
            return None  # somebody waits for it, and only for a few tokens
        for chore in quiet:
            if chore.kind == "prepare":
                return PrepareStep(chore.session, limits.slice)
    if sum(chore.kind == "write" for chore in quiet) >= max(1, limits.batch // CAPTION_SHARE):
        return None
    for chore in quiet:
        if chore.kind == "listen" and _may_transcribe(turns, chore, now):
            return ListenStep(chore.session, str(chore.key), limits.slice)
    return None


def _decode(
    turns: Sequence[TurnView],
    decoding: Sequence[TurnView],
    quiet: Sequence[Chore],
    now: float,
    limits: Limits,
) -> DecodeStep | None:
    """One token for the most urgent turn and for those not far behind it, or for all if nobody is in a hurry.

    Captions fill the batch up.
    """
    first = next((view.need for view in decoding if not view.beside), None)
    if first is not None and first - now < HURRY_S:
        horizon = max(first, now) + JOIN_S
        decoding = [view for view in decoding if view.need <= horizon]
    judges = [c.session for c in quiet if c.kind == "conclude" and _may_judge(turns, now)]
    if judges:  # what a guess is worth shows by their answer
        decoding = [view for view in decoding if not view.guess]
    decoding = decoding[: limits.batch]
    judges = judges[: limits.batch - len(decoding)]
    writes = [c for c in quiet if c.kind == "write" and _may_transcribe(turns, c, now)]
    if not decoding and not writes and not judges:
        return None
    return DecodeStep(
        tuple((view.session, view.turn) for view in decoding),
        tuple(
            (chore.session, str(chore.key)) for chore in writes[: limits.batch - len(decoding) - len(judges)]
        ),
        tuple(judges),
    )


def _may_judge(turns: Sequence[TurnView], now: float) -> bool:
    """Nobody needs a token soon; who guesses does not count."""
    return all(view.guess or view.need - now > PREPARE_CALM_S for view in turns)


def _may_transcribe(turns: Sequence[TurnView], chore: Chore, now: float) -> bool:
    waited = now - chore.arrived
    if not all(view.sounding for view in turns):
        return waited > LAST_PATIENCE_S
    return waited > BACKGROUND_PATIENCE_S or all(view.deadline - now > CALM_S for view in turns)


def may_wait(speaking: Sequence[TurnView], others: Sequence[TurnView], now: float, *, limits: Limits) -> bool:
    """Whether the vocoder may wait before it takes its next step.

    For a fuller batch, because one of many streams takes little longer than one of one, and while it waits a shared
    device is the language model's; or for a first sound that is on its way and should find it free. Only while the
    language model writes for others, so that one caller alone never waits, and nobody is short of sound or waits for
    the first.

    Args:
        speaking: turns whose next step is the vocoder's.
        others: turns whose next step is the language model's.
        now: seconds, on the clock of the deadlines.
        limits: how much fits into one step.
    """
    if not others or not all(view.sounding and view.deadline - now > limits.ease for view in speaking):
        return False
    return len(speaking) < limits.speech or not all(view.sounding for view in others)


def may_rest(turns: Sequence[TurnView], now: float) -> bool:
    """Whether the language model should leave a shared device to the vocoder.

    It makes somebody's first sound, and nobody else waits for theirs, or needs a token soon.
    """
    others = [view for view in turns if not view.vocoding or view.sounding]
    making = len(others) < len(turns)
    return making and all(view.sounding and not view.reads and view.need - now > HURRY_S for view in others)


def _speak(speaking: Sequence[TurnView], limits: Limits) -> VocodeStep:
    """The chunk that is due first, and those of others in the order of their deadlines.

    Sizes need not be alike: filling small chunks up costs less than a step for each size.
    """
    return VocodeStep(tuple(_part(view) for view in speaking[: limits.speech]))


def _part(view: TurnView) -> Part:
    if view.stage is Stage.DRAINING and view.ready_ids <= view.wanted_ids:
        return Part(view.session, view.turn, view.ready_ids, last=True)
    return Part(view.session, view.turn, view.wanted_ids, last=False)
