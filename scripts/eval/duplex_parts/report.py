"""What was found, as the README that lies beside the script: goals, tables, definitions. It measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.eval.duplex_parts import overlaps, settings
from scripts.eval.duplex_parts.picture import CUT_OFF, DELAY_MS

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, the figure, and whether it was met; None = not measured."""

    words: str
    figure: str
    met: bool | None


def goals(found: Found) -> list[Goal]:
    """The goals of the project, on the pocket checkpoint."""
    made = []
    if "overlaps" in found:
        made += _goals_of_overlaps(found["overlaps"])
    if "live" in found:
        made.append(_goal_of_yields("a real server", found["live"]["yield_from_hold_ms"]))
    if "echo" in found:
        line = found["echo"]["lines"].get("-12 dB")
        if line is not None:
            made.append(
                Goal(
                    "no self-interruption by echo in 30 minutes at -12 dB",
                    f"{line['self_interruptions']} in {line['minutes_of_our_voice']} minutes of our voice",
                    line["self_interruptions"] == 0,
                )
            )
    if "turns" in found:
        made.append(_goal_of_turns(found["turns"]))
    return made


def _goals_of_overlaps(part: Found) -> list[Goal]:
    others, drift = part["short"], part["interruptions"]["drift_words_with_acks"]
    made = [
        _goal_of_yields("simulated time", part["interruptions"]["yield_from_hold_ms"]),
        Goal(
            "false alarms by coughs, noise, backchannels resumed: at least 95 %",
            f"{_percent(others['resumed'])} of {others['false_alarms']}",
            None if others["resumed"] is None else others["resumed"] >= 0.95,
        ),
    ]
    if drift is not None:
        words = f"{_percent(drift['none'])} of {drift['count']} cuts; from {drift['least']} to {drift['most']} words"
        made.append(Goal("drift of 0 words with acks", words, drift["none"] == 1.0))
    return made


def _goal_of_yields(where: str, found: Found) -> Goal:
    if found["p50"] is None:
        return Goal(f"yielding, {where}: p50 at most 120 ms, p99 at most 200 ms", "-", None)
    return Goal(
        f"yielding, {where}: p50 at most 120 ms, p99 at most 200 ms",
        f"p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms",
        found["p50"] <= 120 and found["p99"] <= 200,
    )


def _goal_of_turns(part: Found) -> Goal:
    """By the setting that cuts off least of those that are fast enough, else by the fastest."""
    known = {
        name: (f["endpoint_delay_ms"]["p50"], f["cut_off_unfinished"])
        for name, f in part["settings"].items()
        if f["endpoint_delay_ms"]["p50"] is not None
    }
    fast = {name: cut for name, (ms, cut) in known.items() if ms <= DELAY_MS}
    name = min(fast, key=lambda n: fast[n]) if fast else min(known, key=lambda n: known[n])
    ms, cut = known[name]
    other = known.get("semantic_vad high")
    eager = "" if other is None else f"; {_percent(other[1])} at {other[0]:.0f} ms (semantic_vad high)"
    return Goal(
        f"cut off at pauses in unfinished words: at most 5 % at a median delay of {DELAY_MS} ms",
        f"{_percent(cut)} at {ms:.0f} ms ({name})" + eager,
        bool(fast) and cut <= CUT_OFF,
    )


# --- the README -------------------------------------------------------------------------------------------------


def readme(found: Found) -> str:
    """All of it."""
    lines = [_HEAD, ""]
    lines += ["| goal | found | |", "|---|---|---|"]
    marks = {True: "met", False: "**missed**", None: "not measured"}
    lines += [f"| {goal.words} | {goal.figure} | {marks[goal.met]} |" for goal in goals(found)]
    lines += ["", "![What was found](duplex.svg)", ""]
    for part, words in (("live", _live), ("overlaps", _overlaps), ("echo", _echo), ("turns", _turns)):
        if part in found:
            lines += [*words(found[part]), "", _note(found[part]), ""]
    return "\n".join([*lines, definitions()])


def definitions() -> str:
    """What was asked, and what the words mean."""
    text = (Path(__file__).parent / "definitions.md").read_text(encoding="utf-8")
    return text.format(lead=settings.LEAD_MS, window=f"{overlaps.YIELD_WINDOW_S:g}")


def _note(part: Found) -> str:
    of = part["machine"]
    quick = " A quick run: a few trials only." if part["quick"] else ""
    return (
        f"<sub>{part['when']}, {of['cores']} cores, load {of['load']}, {of['platform']}; "
        f"took {part['took_s']:.0f} s.{quick}</sub>"
    )


def _live(part: Found) -> Iterator[str]:
    yield "## A real server, in real time"
    yield ""
    yield (
        f"`voiceagent serve` with the pocket checkpoint, {part['sessions']} caller(s) at once on its socket, "
        f"{part['spoken_s']:.0f} s of its voice played."
    )
    yield ""
    yield from _table(
        ("", "count", "p50", "p90", "p99"),
        [
            (words, f["count"], _ms(f["p50"]), _ms(f["p90"]), _ms(f["p99"]))
            for words, f in (
                *((f"response latency, {name}", f) for name, f in part["response_latency_ms"].items()),
                ("yield latency, from the onset of their voice", part["yield_from_onset_ms"]),
                ("yield latency, from the start of confirmation", part["yield_from_hold_ms"]),
                *((f"... {name}", f) for name, f in part["yield_from_hold_by_phase_ms"].items()),
            )
        ],
    )
    yield ""
    parts = ", ".join(f"{name} {ms:.0f}" for name, ms in part["latency_parts_ms"].items() if ms)
    selectivity = ", ".join(f"{kind} {_percent(share)}" for kind, share in part["selectivity"].items())
    yield from (
        f"- yield rate: {_percent(part['yield_rate'])} of {part['interruptions']} interruptions",
        f"- where the time goes until the first sound is sent, ms (means): {parts or '-'}",
        f"- selectivity, {part['not_meant']} sounds that were not meant: {selectivity or '-'}",
        f"- history less what was played, at {_count(part['drift_ms'])} cuts: {_range(part['drift_ms'])} ms, "
        f"{_range(part['drift_words'])} words",
        f"- replies on a guess: {_guesses(part['speculation'])}",
        f"- underruns: {part['underruns']}; questions without an answer: {part['unanswered']}; errors: "
        f"{', '.join(part['errors']) or 'none'}",
    )


def _overlaps(part: Found) -> Iterator[str]:
    yield f"## Sounds over our voice, {part['trials']} calls in simulated time"
    yield ""
    people = f" (people: {', '.join(part['people'])})" if part["people"] else ""
    yield f"Interruptions{people}, in a quiet room by phase, and elsewhere:"
    yield ""
    head = ("", "trials", "yield rate", "yield from confirmation p50, p99", "from onset p50, p99")
    rows = {
        **part["interruptions_by_phase"],
        **part["interruptions_by_condition"],
        "all": part["interruptions"],
    }
    yield from _table(
        (*head, "take-over rate", "answer after", "drift, words", "drift, ms"),
        [
            (
                name,
                f["trials"],
                _percent(f["yield_rate"]),
                f"{_ms(f['yield_from_hold_ms']['p50'])}, {_ms(f['yield_from_hold_ms']['p99'])}",
                f"{_ms(f['yield_from_onset_ms']['p50'])}, {_ms(f['yield_from_onset_ms']['p99'])}",
                _percent(f["take_over_rate"]),
                _ms(f["response_latency_ms"]),
                _range(f["drift_words_with_acks"]),
                _range(f["drift_ms_with_acks"]),
            )
            for name, f in rows.items()
            if f["trials"]
        ],
    )
    yield ""
    yield "Sounds that were not meant for us, by kind (all conditions) and by condition:"
    yield ""
    rows = {
        **part["not_meant_by_kind"],
        **part["not_meant_by_condition"],
        "all but side talk": part["short"],
        "all": part["not_meant"],
    }
    yield from _table(
        (
            "",
            "trials",
            "selectivity",
            "false interruptions",
            "false alarms",
            "resumed",
            "silent for",
            "answered",
        ),
        [
            (
                name,
                f["trials"],
                _percent(f["selectivity"]),
                _percent(f["false_interruption_rate"]),
                f["false_alarms"],
                _percent(f["resumed"]),
                _ms(f["paused_ms"]),
                _percent(f["taken_for_a_turn"]),
            )
            for name, f in rows.items()
            if f["trials"]
        ],
    )
    yield ""
    silent = ", ".join(f"{kind} {_percent(share)}" for kind, share in part["answered_in_silence"].items())
    yield f"The same sounds while nobody speaks, answered as if they were meant: {silent}."
    yield ""
    yield "A caller who turns or moves away, in a quiet room:"
    yield ""
    yield from _table(
        ("", "trials", "heard over our voice", "heard while nobody speaks"),
        [
            (kind, f["trials"], _percent(f["heard_over_us"]), _percent(f["answered_in_silence"]))
            for kind, f in part.get("softer", {}).items()
        ],
    )
    yield ""
    yield f"Underruns while nothing held our voice: {part['underruns']}."


def _echo(part: Found) -> Iterator[str]:
    yield "## Our own echo, in simulated time"
    yield ""
    yield from _table(
        (
            "echo",
            "our voice",
            "self-interruptions",
            "in 30 minutes",
            "echo taken for a person",
            "held and resumed",
            "silent",
            "questions answered",
            "return loss found",
        ),
        [
            (
                name,
                f"{f['minutes_of_our_voice']} min",
                f["self_interruptions"],
                f"{f['self_interruptions_per_30_min']:g}",
                f["taken_for_a_person"],
                f["held_and_resumed"],
                f"{f['silent_s']} s",
                f"{f['answers']} of {f['questions']}",
                "-" if f["return_loss_db"] is None else f"{f['return_loss_db']} dB",
            )
            for name, f in part["lines"].items()
        ],
    )


def _turns(part: Found) -> Iterator[str]:
    figures = next(iter(part["settings"].values()))
    people = f"; people: {', '.join(part['people'])}" if part["people"] else ""
    yield f"## Ends of turns, {figures['turns']} turns with {figures['pauses']} pauses in simulated time"
    yield ""
    yield (
        f"Voices: {', '.join(part['voices']) or 'the recorded questions'}{people}. {part['verdicts']} verdicts of the "
        f"model, {_ms(part['verdict_ms'])} each (median, one thread)."
    )
    yield ""
    pauses = list(figures["cut_off_by_pause_ms"])
    kinds = list(figures["cut_off_by_kind"])
    yield from _table(
        (
            "turn detection",
            "delay p50, p90",
            "cut off",
            "unfinished",
            *(f"at {ms} ms" for ms in pauses),
            *kinds,
            "take-over in pauses",
            "take-over at ends",
        ),
        [
            (
                name,
                f"{_ms(f['endpoint_delay_ms']['p50'])}, {_ms(f['endpoint_delay_ms']['p90'])}",
                _percent(f["cut_off"]),
                _percent(f["cut_off_unfinished"]),
                *(_percent(f["cut_off_by_pause_ms"][ms]) for ms in pauses),
                *(_percent(f["cut_off_by_kind"].get(kind)) for kind in kinds),
                _percent(f["pause_take_over_rate"]),
                _percent(f["take_over_rate"]),
            )
            for name, f in part["settings"].items()
        ],
    )
    known = {n: f for n, f in part["settings"].items() if n.startswith("semantic") and "delay_by_reason" in f}
    if known:
        yield from _delays(known)


def _delays(settings: Found) -> Iterator[str]:
    yield ""
    yield "Where the delay of semantic_vad goes: the line, the voice detector, and the silence that the words ask for:"
    yield ""
    reasons = ("complete", "incomplete", "spelled", "silence", "longest_wait")
    yield from _table(
        ("", "line and detector", *(f"{reason}: of turns, silence" for reason in reasons)),
        [
            (
                name,
                _ms(f["delay_of_line_and_detector_ms"]),
                *(_reason(f["delay_by_reason"].get(r)) for r in reasons),
            )
            for name, f in settings.items()
        ],
    )


def _reason(found: Found | None) -> str:
    return "-" if found is None else f"{_percent(found['share'])}, {_ms(found['silence_ms'])}"


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(map(str, head))} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _range(found: Found | None) -> str:
    if found is None:
        return "-"
    return (
        f"{found['least']:g}"
        if found["least"] == found["most"]
        else f"{found['least']:g} to {found['most']:g}"
    )


def _guesses(found: dict[str, int]) -> str:
    if not found:
        return "none"
    return (
        f"{found['hits']} of {found['guesses']} were right and saved {found['total_saved_ms']} ms in all; the others "
        f"cost {found['wasted_ms']} ms of the engine's time"
    )


def _count(found: Found | None) -> int:
    return 0 if found is None else int(found["count"])


_HEAD = """# How it behaves in conversations

Made by `python3 scripts/eval/duplex.py`; do not edit. What the words mean is said at the end."""
