"""Our own voice comes back to the microphone: does it interrupt us? Calls in which we speak nearly all the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.eval.duplex_parts import settings, sounds
from scripts.eval.duplex_parts.call import Call, Surroundings
from scripts.eval.duplex_parts.replies import Reply, joined
from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.models.silero import Silero

REPLY_S = 25.0  #: each answer is at least so long
CALL_S = 300.0
WAYS_MS = (60, 120, 180, 250, 400, 600)  #: from the loudspeaker to the microphone's stream, one for each call


@dataclass(frozen=True, slots=True)
class Line:
    """A kind of line; `minutes` of calls are held on it."""

    name: str
    level_db: float
    phone: bool
    cancel: bool
    minutes: int


LINES = (
    Line("-24 dB", -24.0, False, True, 10),
    Line("-12 dB", -12.0, False, True, 35),
    Line("-6 dB", -6.0, False, True, 10),
    Line("-12 dB, telephone", -12.0, True, True, 10),
    Line("-12 dB, no echo cancellation", -12.0, False, False, 5),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call.

    Attributes:
        cuts: turns of ours that were ended while the person said nothing.
        false_starts: times that our voice was announced as a person's.
        holds: times that it was held and let go again.
        spoken_s: of our voice.
        silent_s: that it was silent in the middle of a turn.
        asked, answered: questions of the person's.
    """

    line: str
    cuts: int
    false_starts: int
    holds: int
    spoken_s: float
    silent_s: float
    asked: int
    answered: int
    delay_ms: int | None
    return_loss_db: float | None


def trials(*, minutes: int | None = None) -> list[tuple[Line, int]]:
    """Calls of five minutes; `minutes`: so many of them on each line at most."""
    calls = []
    for line in LINES:
        count = max(1, round(min(line.minutes, minutes or line.minutes) * 60 / CALL_S))
        calls += [(line, number) for number in range(count)]
    return calls


def run(share: Sequence[tuple[Line, int]], replies: list[Reply], seconds: float = CALL_S) -> list[Outcome]:
    """The outcomes of these calls; a share of the work of one process."""
    silero, long = Silero(), [joined(replies[n:] + replies[:n], REPLY_S) for n in range(len(replies))]
    return [perform(line, number, long, silero, seconds) for line, number in share]


def perform(line: Line, number: int, replies: list[Reply], silero: Silero, seconds: float) -> Outcome:
    """One call: a question, a long answer, a question, ..."""
    around = Surroundings(line.level_db, WAYS_MS[number % len(WAYS_MS)], line.phone, acks=number % 2 == 0)
    config = settings.to_core(settings.session(echo_cancellation=line.cancel))
    call = Call(config, replies, silero, around, seed=number, longest_s=seconds)
    names = list(sounds.recorded_texts())
    asked, spans = 0, []
    while call.now < seconds - 5.0:
        turns = len(call.opened)
        begin = call.now + 0.5
        end = call.say(sounds.recorded(names[asked % len(names)]), begin)
        spans.append((begin, end + 1.5))
        asked += 1
        call.run(end)
        if call.run_while(lambda known=turns: len(call.opened) == known, most=4.0):
            call.run(call.now + 2.0)
            call.run_while(lambda: call.player.until > call.now - 0.7, most=REPLY_S * 2)

    def alone(time: float) -> bool:
        return not any(begin <= time <= end for begin, end in spans)

    cut = {a.turn for t, a in call.made(notices.TurnClosed) if a.reason == "turn_detected" and alone(t)}
    cut |= {a.turn for t, a in call.made(act.Flush) if alone(t)}
    gaps = [b - a for turn in call.opened for a, b in call.player.gaps(turn)]
    report = call.echo_report
    return Outcome(
        line.name,
        cuts=len(cut),
        false_starts=sum(alone(t) for t, _ in call.made(notices.SpeechStarted)),
        holds=sum(hold[0] is not None and alone(hold[0]) for hold in call.holds),
        spoken_s=sum(part.end - part.start for part in call.player.stretches),
        silent_s=round(sum(gaps), 2),
        asked=asked,
        answered=len(call.opened),
        delay_ms=None if report is None else report.delay_ms,
        return_loss_db=None
        if report is None or report.return_loss_db is None
        else round(report.return_loss_db, 1),
    )


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of one line."""
    spoken = sum(o.spoken_s for o in outcomes)
    per_half_hour = 1800 / max(spoken, 1.0)
    losses = [o.return_loss_db for o in outcomes if o.return_loss_db is not None]
    return {
        "minutes_of_our_voice": round(spoken / 60, 1),
        "self_interruptions": sum(o.cuts for o in outcomes),
        "self_interruptions_per_30_min": round(sum(o.cuts for o in outcomes) * per_half_hour, 2),
        "taken_for_a_person": sum(o.false_starts for o in outcomes),
        "held_and_resumed": sum(o.holds for o in outcomes),
        "silent_s": round(sum(o.silent_s for o in outcomes), 2),
        "questions": sum(o.asked for o in outcomes),
        "answers": sum(o.answered for o in outcomes),
        "return_loss_db": round(sum(losses) / len(losses), 1) if losses else None,
    }
