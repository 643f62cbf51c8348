"""What happens to our voice when something sounds over it: interruptions, "mm-hm", coughs, noise, other people, echo.

Every trial is a call of its own: a question, its answer, and one sound at a chosen moment of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.eval.duplex_parts import settings, sounds
from scripts.eval.duplex_parts.call import DOWN_S, Call, Surroundings
from scripts.eval.duplex_parts.replies import Reply
from scripts.eval.duplex_parts.turns import percentile, share
from voiceagent.core import actions as act
from voiceagent.core import notices
from voiceagent.core.history import AssistantItem
from voiceagent.models.silero import Silero
from voiceagent.units import TOKEN_SAMPLES, VOICE_RATE

PHASES = ("thinking", "first 200 ms", "middle", "last 600 ms", "closed, still playing")
SILENCE = "silence"  #: nobody speaks; only for what is not meant
PHASES_ELSEWHERE = ("first 200 ms", "middle")  #: where it is not quiet
INTERRUPTION = "interruption"
SOFTER = {"6 dB softer": -6.0, "10 dB softer": -10.0, "12 dB softer": -12.0}  #: who turns away and interrupts
AFAR = "20 dB softer, three times"  #: who has moved away, and repeats what they say
NOT_MEANT = ("backchannel", "cough", "noise burst", "side talk -15 dB", "side talk -20 dB")
SHORT = NOT_MEANT[:3]  #: the false alarms of the goal; side talk is somebody's speech, only not for us
CONDITIONS = {
    "quiet": Surroundings(),
    "no acks": Surroundings(acks=False),
    "noise -15 dB": Surroundings(noise_db=-15.0),
    "telephone": Surroundings(phone=True),
    "echo -12 dB": Surroundings(echo_db=-12.0, echo_ms=180),
}
QUESTION_AT_S = 0.3
YIELD_WINDOW_S = 2.0  #: tau-Voice: who has not yielded within it has not yielded
AFTER_S = 3.0  #: how long a trial goes on behind its sound
QUIET_S = 2.0  #: silence in front of what nobody meant for us


@dataclass(frozen=True, slots=True)
class Trial:
    """One sound at one moment of our turn."""

    kind: str
    name: str
    phase: str
    condition: str
    sound: sounds.Samples
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial; times in seconds, None = it did not happen.

    Attributes:
        held: our voice was held at least once.
        cut: the turn was ended by the sound.
        resumed: it was held and then played to its end, every sample once and in order.
        whole: the turn was played to its end, every sample once and in order.
        from_onset: from the sound's beginning to our last audible sample (only of a turn that was cut and heard).
        from_hold: the same from when its confirmation began: our voice was held, and was not let go any more.
        answered: from the sound's end to the first sample of another turn of ours.
        drift_words: words that the history has more (or less, negative) than were played.
        drift_ms: the same in milliseconds of sound.
        underruns: silences of more than 20 ms in our voice while it was not held.
        paused_s: how long it was silent for being held.
    """

    kind: str
    phase: str
    condition: str
    name: str
    held: bool
    cut: bool
    resumed: bool
    whole: bool
    from_onset: float | None
    from_hold: float | None
    answered: float | None
    drift_words: int | None
    drift_ms: float | None
    underruns: int
    paused_s: float


def trials(
    *,
    people: Sequence[sounds.Utterance] = (),
    most: int | None = None,
    conditions: Sequence[str] = tuple(CONDITIONS),
) -> list[Trial]:
    """All trials; `most` sounds of each kind. These people interrupt with what they say up to their first pause."""
    random, some_of_them = np.random.default_rng(1), sounds.interruptions()[::3]
    found: dict[str, list[tuple[str, sounds.Samples]]] = {
        INTERRUPTION: [*((person.name, person.parts[0]) for person in people), *sounds.interruptions()],
        "backchannel": sounds.backchannels(),
        **{kind: sounds.softer(some_of_them, level) for kind, level in SOFTER.items()},
        AFAR: sounds.repeated(sounds.softer(some_of_them, -20.0), silence_s=2.0),
        "cough": [(f"cough {n}", sounds.cough(random)) for n in range(12)],
        "noise burst": [(f"burst {n}", sounds.burst(random)) for n in range(12)],
        "side talk -15 dB": sounds.side_talk(-15.0),
        "side talk -20 dB": sounds.side_talk(-20.0),
    }
    made = []
    for kind, listed in found.items():
        some = listed[:: max(1, len(listed) // most)][:most] if most else listed
        for number, (name, sound) in enumerate(some):
            for condition in conditions:
                for phase in _phases(kind, condition):
                    made.append(Trial(kind, name, phase, condition, sound, number))
    return made


def _phases(kind: str, condition: str) -> tuple[str, ...]:
    """At which moments a kind of sound is tried in a condition; none: it would tell nothing more."""
    if kind in SOFTER or kind == AFAR:
        return ("first 200 ms", "middle", SILENCE) if condition == "quiet" else ()
    if condition == "quiet":
        return PHASES if kind == INTERRUPTION else (*PHASES, SILENCE)
    told = kind in SHORT and condition != "no acks"
    return PHASES_ELSEWHERE if told or kind == INTERRUPTION else ()


def run(share_: Sequence[Trial], replies: list[Reply]) -> list[Outcome]:
    """The outcomes of these; a share of the work of one process."""
    silero = Silero()
    outcomes = (perform(trial, replies, silero) for trial in share_)
    return [outcome for outcome in outcomes if outcome is not None]


def perform(trial: Trial, replies: list[Reply], silero: Silero) -> Outcome | None:
    """One trial; None if the moment never came (the reply was too short)."""
    around = CONDITIONS[trial.condition]
    config = settings.to_core(settings.session(echo_cancellation=around.echo_db is not None))
    turned = replies[trial.seed % len(replies) :] + replies[: trial.seed % len(replies)]
    call = Call(config, turned, silero, around, seed=trial.seed, longest_s=40.0)
    question = sounds.recorded("name")
    if around.echo_db is not None:  # an answer before it, for the canceller to learn the room
        call.run(call.say(question, QUESTION_AT_S) + 6.0)
    call.run(call.say(question, call.now + QUESTION_AT_S))
    known = len(call.opened)
    if not call.run_while(lambda: len(call.opened) == known, most=4.0):
        return None
    turn = call.opened[-1]
    onset = moment(call, turn, trial.phase)
    if onset is None:
        return None
    end = call.say(trial.sound, onset)
    call.run(end + AFTER_S)
    call.run_while(lambda: call.player.until > call.now, most=10.0)
    return judge(call, trial, turn, onset, end)


def moment(call: Call, turn: int, phase: str) -> float | None:
    """Waits for a moment of a turn and returns when the sound is to begin."""
    if phase == "thinking":
        return call.now + 0.05
    if not call.run_while(lambda: call.player.span(turn) is None, most=4.0):
        return None
    span = call.player.span(turn)
    assert span is not None
    length = len(call.asked[turn].pcm) / VOICE_RATE
    match phase:
        case "first 200 ms":
            return max(span[0] + 0.1, call.now)
        case "middle":
            return max(span[0] + length / 2, call.now)
        case "silence":
            call.run(span[0] + length + 1.0)
            return call.now
        case "last 600 ms":
            return max(span[0] + length - 0.6, call.now)
        case _:
            return max(span[0] + length - 0.22, call.now)


def judge(call: Call, trial: Trial, turn: int, onset: float, end: float) -> Outcome:
    """What came of it."""
    reply = call.asked[turn]
    heard = call.player.pcm(turn)
    whole = len(heard) == len(reply.pcm) and bool(np.array_equal(heard, reply.pcm))
    flushed = any(a.turn == turn and t >= onset for t, a in call.made(act.Flush))
    closed = [a for _, a in call.made(notices.TurnClosed) if a.turn == turn]
    cut = flushed or any(a.status == "cancelled" for a in closed)
    holds = [hold for hold in call.holds if hold[0] is not None and hold[0] >= onset]
    span = call.player.span(turn)
    silent = None if span is None or not cut or whole or span[1] <= onset else span[1]
    later = [call.player.span(other) for other in call.opened if other > turn]
    confirming = [hold[0] for hold in holds if hold[0] is not None and (silent is None or hold[0] < silent)]
    first = next((s[0] for s in later if s is not None), None)
    words, ms = drift(call, turn) if cut else (None, None)
    gaps = call.player.gaps(turn, over=0.02)
    paused = [b - a for a, b in gaps if any(_within(hold, a) for hold in holds)]
    return Outcome(
        trial.kind,
        trial.phase,
        trial.condition,
        trial.name,
        held=bool(holds),
        cut=cut,
        resumed=bool(holds) and whole and not cut,
        whole=whole,
        from_onset=None if silent is None else silent - onset,
        from_hold=None if silent is None or not confirming else silent - confirming[-1],
        answered=None if first is None else first - end,
        drift_words=words,
        drift_ms=ms,
        underruns=len(gaps) - len(paused),
        paused_s=round(sum(paused), 3),
    )


def _within(hold: list[float | None], time: float) -> bool:
    """Whether a silence that begins at `time` is that of a hold."""
    start, stop = hold
    return start is not None and start <= time <= (stop or time) + DOWN_S + 0.02


def drift(call: Call, turn: int) -> tuple[int | None, float | None]:
    """What the history has more than was played: words, and milliseconds of sound."""
    opened = next((a for _, a in call.made(notices.TurnOpened) if a.turn == turn), None)
    item = None if opened is None else call.controller.history.find(opened.item_id)
    played = len(call.player.pcm(turn))
    if not isinstance(item, AssistantItem):
        return (0, 0.0) if not played else (-len(heard_words(call.asked[turn], played)), None)
    ms = (item.samples - played) * 1000 / VOICE_RATE
    return len(item.text.split()) - len(heard_words(call.asked[turn], played)), round(ms, 1)


def heard_words(reply: Reply, played: int) -> list[str]:
    """Words that were played to the end of their last token, were they spread over all the sound by their letters."""
    text, length = reply.text, len(reply.pcm)
    played = played // TOKEN_SAMPLES * TOKEN_SAMPLES
    place, words = 0, []
    for word in text.split():
        place = text.index(word, place) + len(word)
        if place * length <= played * len(text):
            words.append(word)
    return words


# --- figures ----------------------------------------------------------------------------------------------------


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of all trials."""
    meant = [o for o in outcomes if o.kind == INTERRUPTION]
    silent = [o for o in outcomes if o.phase == SILENCE]
    softer = [o for o in outcomes if o.kind in SOFTER or o.kind == AFAR]
    others = [o for o in outcomes if o.kind in NOT_MEANT and o.phase != SILENCE]
    conditions = list(dict.fromkeys(o.condition for o in outcomes))
    kinds = list(dict.fromkeys(o.kind for o in others))
    return {
        "trials": len(outcomes),
        "interruptions": _of_interruptions(meant),
        "interruptions_by_phase": {
            phase: _of_interruptions([o for o in meant if o.phase == phase and o.condition == "quiet"])
            for phase in PHASES
        },
        "interruptions_by_condition": {
            name: _of_interruptions([o for o in meant if o.condition == name and o.phase in PHASES_ELSEWHERE])
            for name in conditions
        },
        "softer": {
            kind: {
                "trials": sum(o.kind == kind for o in softer),
                "heard_over_us": share(
                    o.answered is not None for o in softer if o.kind == kind and o.phase != SILENCE
                ),
                "answered_in_silence": share(
                    o.answered is not None for o in softer if o.kind == kind and o.phase == SILENCE
                ),
            }
            for kind in dict.fromkeys(o.kind for o in softer)
        },
        "answered_in_silence": {
            kind: share(o.answered is not None for o in silent if o.kind == kind) for kind in kinds
        },
        "not_meant": _of_others(others),
        "short": _of_others([o for o in others if o.kind in SHORT]),
        "not_meant_by_kind": {kind: _of_others([o for o in others if o.kind == kind]) for kind in kinds},
        "not_meant_by_condition": {
            name: _of_others([o for o in others if o.condition == name]) for name in conditions
        },
        "underruns": sum(o.underruns for o in outcomes),
    }


def _of_interruptions(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    onset = [o.from_onset for o in outcomes if o.from_onset is not None]
    hold = [o.from_hold for o in outcomes if o.from_hold is not None]
    acked = [o for o in outcomes if o.condition != "no acks"]
    return {
        "trials": len(outcomes),
        "yield_rate": share(_yielded(o) for o in outcomes),
        "take_over_rate": share(o.answered is not None for o in outcomes),
        "yield_from_onset_ms": {"p50": percentile(onset, 50), "p99": percentile(onset, 99)},
        "yield_from_hold_ms": {"p50": percentile(hold, 50), "p99": percentile(hold, 99)},
        "response_latency_ms": percentile([o.answered for o in outcomes if o.answered is not None], 50),
        "drift_words_with_acks": _spread([o.drift_words for o in acked]),
        "drift_ms_with_acks": _spread([o.drift_ms for o in acked]),
    }


def _yielded(outcome: Outcome) -> bool:
    """Whether our voice was silent within the window; late in a turn it may have come to its end by itself."""
    if not outcome.cut:
        return outcome.phase in PHASES[-2:]
    return outcome.from_onset is None or outcome.from_onset <= YIELD_WINDOW_S


def _of_others(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    held = [o for o in outcomes if o.held]
    return {
        "trials": len(outcomes),
        "selectivity": share(not o.cut for o in outcomes),
        "false_interruption_rate": share(o.cut for o in outcomes),
        "false_alarms": len(held),
        "resumed": share(o.resumed for o in held),
        "taken_for_a_turn": share(o.answered is not None for o in outcomes),
        "paused_ms": percentile([o.paused_s for o in held if o.resumed], 50),
        "unharmed": share(o.whole for o in outcomes),
    }


def _spread(found: Sequence[float | None]) -> dict[str, float] | None:
    """Of what the history has more than was heard: the least, the most, and the share that is none."""
    known = [value for value in found if value is not None]
    if not known:
        return None
    none = sum(value == 0 for value in known)
    return {"least": min(known), "most": max(known), "none": round(none / len(known), 4), "count": len(known)}
