"""Ends of turns: who is cut off while they stop to think, and how long the others wait for their answer.

The voice detector hears every turn once, and the model says at every pause of it whether the words so far are complete;
the decision layer then goes over these recordings with each setting (`core.replay`), which takes milliseconds a turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scripts.eval.duplex_parts import settings, sounds
from scripts.eval.duplex_parts.call import UP_S, VAD_S
from scripts.eval.duplex_parts.replies import FIRST_S
from scripts.eval.duplex_parts.verdicts import Verdicts
from voiceagent.core import actions as act
from voiceagent.core import events as ev
from voiceagent.core import notices
from voiceagent.core import options as opt
from voiceagent.core.controller import Controller
from voiceagent.core.journal import Entry, Opened
from voiceagent.core.replay import replay
from voiceagent.models.silero import Silero, VadStream
from voiceagent.units import MODEL_RATE

PAUSES_MS = (300, 500, 700, 1000, 1500)
BEFORE_S, BEHIND_S = 0.5, 9.0  #: of quiet around a turn
LONGEST_S = 30.0
CONDITIONS = ("quiet", "noise -15 dB", "telephone")
PAUSES_ELSEWHERE_MS = (500, 1000)  #: where it is not quiet
UNFINISHED = ("sentence", "spelled")  #: turns whose words so far are no whole request at a pause
VERDICT_S = 0.1  #: from the question whether the words are complete to the answer
WINDOW = 512


@dataclass(frozen=True, slots=True)
class Heard:
    """One turn as the voice detector hears it.

    Attributes:
        pauses: when each stop to think begins and ends, seconds.
        end: when the last word is over.
        entries: for a replay.
    """

    name: str
    kind: str
    condition: str
    pause_ms: int
    pauses: tuple[tuple[float, float], ...]
    end: float
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a setting made of one turn.

    Attributes:
        cut: for each pause, whether the turn was taken to be over in it.
        spoken_over: for each pause, whether we would have begun to speak in it.
        delay_s: from the last word to the decision that the turn is over; None = it never came.
        silence_s: of that, the silence that was waited for; the rest is the line and the voice detector.
        reason: why that was enough.
    """

    kind: str
    condition: str
    pause_ms: int
    cut: tuple[bool, ...]
    spoken_over: tuple[bool, ...]
    delay_s: float | None
    silence_s: float = 0.0
    reason: str = ""


def hear(utterance: sounds.Utterance, pause_ms: int, condition: str, *, silero: Silero, seed: int) -> Heard:
    """Lets the voice detector hear a turn with pauses of this length."""
    random = np.random.default_rng(seed)
    said, pauses, end = utterance.spoken(pause_ms)
    size = len(said) + int((BEFORE_S + BEHIND_S) * MODEL_RATE)
    sound = random.normal(0, sounds.ROOM_NOISE, size).astype(np.float32)
    if condition.startswith("noise"):
        sound += sounds.steady(random, LONGEST_S, -15.0)[:size]
    begin = int(BEFORE_S * MODEL_RATE)
    sound[begin : begin + len(said)] += said
    if condition == "telephone":
        sound = sounds.Telephone().pass_on(sound)
    entries = []
    for at, *found in VadStream(silero).push(0, sound):
        time = at / MODEL_RATE + UP_S
        entries.append(Entry(time, ev.AudioIn(at - WINDOW, sound[at - WINDOW : at])))
        entries.append(Entry(time + VAD_S, ev.SpeechProb(at, *found)))
    stops = tuple((BEFORE_S + start, BEFORE_S + start + pause_ms / 1000) for start in pauses)
    return Heard(utterance.name, utterance.kind, condition, pause_ms, stops, BEFORE_S + end, tuple(entries))


def judge(heard: Heard, config: opt.SessionConfig) -> Outcome:
    """What the decision layer makes of it."""
    assert config.turn_detection is not None
    silence_ms = config.turn_detection.silence_duration_ms
    patient = config.turn_detection.eagerness is not None
    end = heard.end + (BEHIND_S if patient else silence_ms / 1000 + 0.5)
    entries = [entry for entry in heard.entries if entry.time < end]
    decisions = replay(Opened(config, "t_", 32 << 20), entries)
    stops = [(d.time, d.action) for d in decisions if isinstance(d.action, notices.SpeechStopped)]
    overs = [time for time, _ in stops]
    cut = tuple(any(a < t < b + UP_S for t in overs) for a, b in heard.pauses)
    spoken = tuple(any(a < t < b + UP_S - FIRST_S for t in overs) for a, b in heard.pauses)
    last = [(time, stop) for time, stop in stops if time > heard.end]
    if not last:
        return Outcome(heard.kind, heard.condition, heard.pause_ms, cut, spoken, None)
    delay, (_, stop) = last[0][0] - heard.end, last[0]
    waited, reason = stop.silence_ms / 1000, stop.reason
    return Outcome(heard.kind, heard.condition, heard.pause_ms, cut, spoken, delay, waited, reason)


def judged(heard: Heard, verdicts: Verdicts) -> Heard:
    """The same with the model's verdict at every pause, as the most patient setting asks for it."""
    config = settings.to_core(settings.session(settings.turn_ends()["semantic_vad low"]))
    controller = Controller(config, id_prefix="t_")
    coming = [(entry.time, number, entry.event) for number, entry in enumerate(heard.entries)]
    heapq.heapify(coming)
    entries = []
    while coming:
        now, _, event = heapq.heappop(coming)
        assert event is not None
        entries.append(Entry(now, event))
        for action in controller.handle(event, now):
            if isinstance(action, act.JudgeEnd) and (found := verdicts.of(action)) is not None:
                number = len(entries) + len(heard.entries)
                heapq.heappush(coming, (now + VERDICT_S, number, ev.EndJudged(action.at, *found)))
    return replace(heard, entries=tuple(entries))


def trials(utterances: Iterable[sounds.Utterance], *, silero: Silero) -> Iterator[Heard]:
    """Every turn with every pause, in every condition; the people's pauses are made as long as the others'."""
    for number, utterance in enumerate(utterances):
        for condition in CONDITIONS:
            for pause_ms in PAUSES_MS if condition == "quiet" else PAUSES_ELSEWHERE_MS:
                yield hear(utterance, pause_ms, condition, silero=silero, seed=number)


def run(utterances: list[sounds.Utterance]) -> tuple[dict[str, list[Outcome]], list[float]]:
    """The outcomes of these turns under every setting, and how long verdicts took; the work of one process."""
    configs = {name: settings.to_core(settings.session(vad)) for name, vad in settings.turn_ends().items()}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in configs}
    with Verdicts() as verdicts:
        for heard in trials(utterances, silero=Silero()):
            recorded = judged(heard, verdicts)
            for name, config in configs.items():
                outcomes[name].append(judge(recorded, config))
        return outcomes, verdicts.took_s


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of one setting."""
    delays = [o.delay_s for o in outcomes if o.delay_s is not None]
    pauses = [cut for o in outcomes for cut in o.cut]
    of_pause = {ms: [cut for o in outcomes if o.pause_ms == ms for cut in o.cut] for ms in PAUSES_MS}
    of_kind = {
        kind: [cut for o in outcomes if o.kind == kind for cut in o.cut]
        for kind in ("sentence", "spelled", "clause", "human")
    }
    over = [spoken for o in outcomes for spoken in o.spoken_over]
    return {
        "turns": len(outcomes),
        "pauses": len(pauses),
        "cut_off_unfinished": share(cut for o in outcomes if o.kind in UNFINISHED for cut in o.cut),
        "cut_off": share(pauses),
        "cut_off_by_pause_ms": {ms: share(found) for ms, found in of_pause.items()},
        "cut_off_by_kind": {kind: share(found) for kind, found in of_kind.items() if found},
        "pause_take_over_rate": share(over),
        "take_over_rate": share([o.delay_s is not None for o in outcomes]),
        "endpoint_delay_ms": {
            "p50": percentile(delays, 50),
            "p90": percentile(delays, 90),
        },
        "delay_of_line_and_detector_ms": percentile(
            [o.delay_s - o.silence_s for o in outcomes if o.delay_s is not None], 50
        ),
        "delay_by_reason": {
            reason: {
                "share": share(o.reason == reason for o in outcomes),
                "silence_ms": percentile(waits, 50),
            }
            for reason in ("complete", "incomplete", "spelled", "silence", "longest_wait")
            if (waits := [o.silence_s for o in outcomes if o.reason == reason])
        },
    }


def share(found: Iterable[bool]) -> float | None:
    """Of them that are true; None of none."""
    listed = list(found)
    return round(sum(listed) / len(listed), 4) if listed else None


def percentile(seconds: list[float], q: float) -> float | None:
    """In milliseconds; None of none."""
    return round(float(np.percentile(seconds, q)) * 1000, 1) if seconds else None
