"""Who runs next: a pure choice over what each turn still needs, earliest playout deadline first.

One choice is one step (an audio piece, a prompt, one token, one stretch of sound), so that a cancel or a new turn
never waits longer than a step. It knows no tensors, no clock and no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from voiceagent.engine.slots import Stage

ENCODE_DEADLINE_S = 0.5  #: a piece cut while the person still speaks is wanted when they stop
CALM_S = 1.0  #: background work runs when every listener has this much sound ahead
BACKGROUND_PATIENCE_S = (
    5.0  #: after this long, background work no longer waits for calm, only for first sounds
)


@dataclass(frozen=True, slots=True)
class TurnView:
    """What the scheduler sees of a turn that may run (the first one of its session)."""

    session: int
    turn: int
    stage: Stage
    deadline: float  #: seconds; when its listener starts to miss something
    sounding: bool  #: its listener has heard a first sound, or waits for none
    missing_piece: int | None  #: a piece that must be encoded before its prompt can be read
    ready_ids: int  #: speech ids waiting for the vocoder
    wanted_ids: int  #: how many the vocoder wants for its next step

    @property
    def may_speak(self) -> bool:
        """Whether its next step is the vocoder's."""
        enough = self.stage is Stage.DECODING and self.ready_ids >= self.wanted_ids
        return enough or self.stage is Stage.DRAINING


@dataclass(frozen=True, slots=True)
class Chore:
    """Work that no turn waits for."""

    kind: Literal["encode", "transcribe"]
    session: int
    key: int | str  #: piece number, or item id
    arrived: float


@dataclass(frozen=True, slots=True)
class EncodeStep:
    """Encode one audio piece."""

    session: int
    piece: int


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """Read the turn's prompt."""

    session: int
    turn: int


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Generate one token."""

    session: int
    turn: int


@dataclass(frozen=True, slots=True)
class VocodeStep:
    """Speak the next `count` ids; `last` ends the stream."""

    session: int
    turn: int
    count: int
    last: bool


@dataclass(frozen=True, slots=True)
class TranscribeStep:
    """Write down what an item's pieces say: one token of it."""

    session: int
    item_id: str


Step = EncodeStep | PrefillStep | DecodeStep | VocodeStep | TranscribeStep


def plan(turns: Sequence[TurnView], chores: Sequence[Chore], now: float) -> Step | None:
    """The next step, or None when there is nothing to do.

    Turns run by earliest deadline. A turn's deadline moves on with each of its own steps (a sound, or a little per
    token), so every turn comes to be the earliest: none starves. An encode chore competes with its own deadline;
    a transcription runs only when no turn waits for its first sound, and every listener has sound in hand or it
    has waited long.
    """
    first = min(turns, key=lambda view: (view.deadline, view.session, view.turn), default=None)
    encode = min((c for c in chores if c.kind == "encode"), key=lambda c: c.arrived, default=None)
    if encode is not None and (first is None or encode.arrived + ENCODE_DEADLINE_S < first.deadline):
        return EncodeStep(encode.session, int(encode.key))
    chore = min((c for c in chores if c.kind == "transcribe"), key=lambda c: c.arrived, default=None)
    if chore is not None and _may_transcribe(turns, chore, now):
        return TranscribeStep(chore.session, str(chore.key))
    return None if first is None else _step(first)


def _may_transcribe(turns: Sequence[TurnView], chore: Chore, now: float) -> bool:
    if not all(view.sounding for view in turns):
        return False
    calm = all(view.deadline - now > CALM_S for view in turns)
    return calm or now - chore.arrived > BACKGROUND_PATIENCE_S


def _step(view: TurnView) -> Step:
    match view.stage:
        case Stage.WAITING if view.missing_piece is not None:
            return EncodeStep(view.session, view.missing_piece)
        case Stage.WAITING:
            return PrefillStep(view.session, view.turn)
        case Stage.DECODING if view.ready_ids < view.wanted_ids:
            return DecodeStep(view.session, view.turn)
        case Stage.DECODING:
            return VocodeStep(view.session, view.turn, view.wanted_ids, last=False)
        case Stage.DRAINING if view.ready_ids > view.wanted_ids:
            return VocodeStep(view.session, view.turn, view.wanted_ids, last=False)
        case Stage.DRAINING:
            return VocodeStep(view.session, view.turn, view.ready_ids, last=True)
