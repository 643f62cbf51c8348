"""Turns the notes of an exam into figures, gates and the tables of the model card. Asks no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.pocket.card import fill, table
from scripts.pocket.features import cer_wer, edit_distance, plain_text
from scripts.pocket.scoring import percent, same_intent, slots_right, tally

Note = dict[str, Any]
BANK_TITLES = {"test_seen": "voices of the training family", "test_new": "an engine never heard (SVOX Pico)"}
GATES = (  # name, where the figure is, limit, whether more is better
    ("exact replies, voices of the training family", ("test_seen", "reply_exact"), 95.0, True),
    ("exact replies, an engine never heard", ("test_new", "reply_exact"), 85.0, True),
    ("tool calls exact, voices of the training family", ("test_seen", "tool_calls"), 90.0, True),
    ("tool calls exact, an engine never heard", ("test_new", "tool_calls"), 90.0, True),
    ("unclear input recognised, training family", ("test_seen", "unclear"), 80.0, True),
    ("unclear input recognised, an engine never heard", ("test_new", "unclear"), 80.0, True),
    ("word errors of the spoken answers over those of the source voice", ("speech", "ratio"), 1.25, False),
)


def figures(notes: Sequence[Note]) -> dict[str, Any]:
    """All figures by bank, those of the speech, and the gates."""
    out: dict[str, Any] = {}
    for bank in BANK_TITLES:
        own = [note for note in notes if note.get("bank") == bank]
        if own:
            out[bank] = replies(own) | hearing(own)
    spoken = [note for note in notes if note["what"] == "speak"]
    if spoken:
        out["speech"] = speech(spoken)
    out["gates"] = gates(out)
    return out


def replies(notes: Sequence[Note]) -> dict[str, Any]:
    """What the model answered to one bank."""
    answered = [note for note in notes if note["what"] == "reply"]
    clear = [note for note in answered if note["intent"] != "unclear"]
    unclear = [note for note in answered if note["intent"] == "unclear"]
    asked = [note for note in clear if not note["intent"].startswith("after ")]
    sorry = unclear[0]["reply"] if unclear else ""
    return {
        "turns": len(clear),
        "reply_exact": percent(exact(note) for note in clear),
        "reply_exact_first_turns": percent(exact(note) for note in asked if note["place"] == 0),
        "reply_exact_later_turns": percent(exact(note) for note in asked if note["place"] > 0),
        "intent": percent(same_intent(SimpleNamespace(**note), note["got"]) for note in asked),  # type: ignore[arg-type]
        "slots": percent(ok for note in asked for ok in slots_right(SimpleNamespace(**note), note["got"])),  # type: ignore[arg-type]
        "tool_calls": percent(called_right(note) for note in clear if note["wanted"]),
        "needless_calls": percent(
            bool(note["calls"] or note["broken"]) for note in answered if not note["wanted"]
        ),
        "unclear_turns": len(unclear),
        "unclear": percent(exact(note) for note in unclear),
        "needless_sorry": percent(note["got"] == sorry for note in clear),
        "unclear_by_kind": tally((kind_of(note), exact(note)) for note in unclear),
        "by_intent": tally((note["intent"], exact(note)) for note in clear),
        "by_voice": tally((note["voice"].split("/")[0], exact(note)) for note in clear),
        "ended": percent(note.get("ended", "stop") == "stop" for note in answered),
    }


def hearing(notes: Sequence[Note]) -> dict[str, Any]:
    """Word error rates of the transcripts."""
    turns = [n for n in notes if n["what"] == "reply" and not n["intent"].startswith("after ")]
    domain = [n for n in turns if n["intent"] != "unclear" and n["kind"] == "speech"]
    generic = [n for n in notes if n["what"] == "hear"]
    return {
        "asr_domain_wer": word_errors(domain, "said", "heard"),
        "asr_domain_turns": len(domain),
        "asr_generic_wer": word_errors(generic, "said", "heard"),
        "asr_generic_sentences": len(generic),
        "asr_no_speech_empty": percent(not n["heard"] for n in turns if n["kind"] != "speech"),
    }


def speech(notes: Sequence[Note]) -> dict[str, Any]:
    """Word error rates of an independent recogniser: of the model's speech and of the source voice."""
    out: dict[str, Any] = {"replies": len(notes)}
    out["words"] = sum(len(note["text"].split()) for note in notes)
    for judge in notes[0]["own"]:
        rates = {}
        for who in ("own", "source"):
            pairs = [{"said": note["text"], "heard": note[who][judge]} for note in notes]
            rates[who] = word_errors(pairs, "said", "heard")
        ratio = round((rates["own"] or 0.0) / max(rates["source"] or 0.0, 0.1), 2)
        out[judge] = rates | {"ratio": ratio, "ratio_90_percent": ratio_interval(notes, judge)}
    out["ratio"] = out["desk"]["ratio"]
    rtf = sorted(note["rtf"] for note in notes)
    return out | {"decoder_rtf_median": rtf[len(rtf) // 2]}


def ratio_interval(notes: Sequence[Note], judge: str) -> list[float]:
    """5th and 95th percentile of the ratio over resampled sets of replies: how much the choice of replies decides."""
    errors = np.array(
        [[edits(note["text"], note[who][judge]) for who in ("own", "source")] for note in notes], np.float64
    )
    drawn = np.random.default_rng(0).integers(len(notes), size=(2000, len(notes)))
    own, source = errors[drawn].sum(axis=1).T
    low, high = np.percentile(own / np.maximum(source, 1), [5, 95])
    return [round(float(low), 2), round(float(high), 2)]


def edits(said: str, heard: str) -> int:
    """Wrong, missing and additional words."""
    return edit_distance(plain_text(said).split(), plain_text(heard).split())


def word_errors(notes: Sequence[Note], said: str, heard: str) -> float | None:
    """In percent; None of nothing."""
    if not notes:
        return None
    return round(cer_wer([note[said] for note in notes], [note[heard] for note in notes])[1], 1)


def exact(note: Note) -> bool:
    """Whether the reply is word for word the right one."""
    return bool(note["got"] == note["reply"])


def called_right(note: Note) -> bool:
    """Whether exactly the wanted calls were made, with exactly the wanted arguments."""
    return bool(note["calls"] == note["wanted"] and not note["broken"])


def kind_of(note: Note) -> str:
    return "out_of_domain" if note["kind"] == "speech" else str(note["kind"])


def misses(notes: Sequence[Note]) -> list[Note]:
    """Every wrong reply and call, short."""
    wrong = [n for n in notes if n["what"] == "reply" and not (exact(n) and called_right(n))]
    names = ("bank", "voice", "intent", "said", "heard", "reply", "got", "wanted", "calls")
    return [{name: n.get(name) for name in names} | {"kind": kind_of(n)} for n in wrong]


def gates(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The limits that a release must keep."""
    out = []
    for name, (part, figure), limit, more in GATES:
        value = found.get(part, {}).get(figure)
        ok = value is not None and (value >= limit if more else value <= limit)
        out.append(
            {"gate": name, "value": value, "limit": limit, "at": "least" if more else "most", "ok": ok}
        )
    return out


def write_card(card: Path, found: dict[str, Any]) -> None:
    """Puts the figures into the model card's tables."""
    banks = [bank for bank in BANK_TITLES if bank in found]
    header = ["", *(BANK_TITLES[bank] for bank in banks)]

    def rows(*lines: tuple[str, str]) -> list[list[object]]:
        return [[title, *(found[bank][name] for bank in banks)] for title, name in lines]

    fill(card, "gates", gate_table(found["gates"]))
    fill(card, "replies", table(header, rows(
        ("turns", "turns"), ("reply exact, %", "reply_exact"), ("of first turns, %", "reply_exact_first_turns"),
        ("of later turns, %", "reply_exact_later_turns"), ("intent right, %", "intent"),
        ("slots right, %", "slots"), ("tool calls exact, %", "tool_calls"),
        ("calls where none was due, %", "needless_calls"),
        ("\"did not catch that\" to a clear question, %", "needless_sorry"),
        ("unclear turns", "unclear_turns"), ("answered with \"did not catch that\", %", "unclear"),
        ("ended by itself, %", "ended"),
    )))  # fmt: skip
    fill(card, "hearing", table(header, rows(
        ("word errors, front-desk questions, %", "asr_domain_wer"), ("questions", "asr_domain_turns"),
        ("word errors, other sentences, %", "asr_generic_wer"), ("sentences", "asr_generic_sentences"),
        ("no words heard where none were said, %", "asr_no_speech_empty"),
    )))  # fmt: skip
    fill(
        card,
        "unclear",
        tally_table("what is heard", header, [found[bank]["unclear_by_kind"] for bank in banks]),
    )
    fill(card, "intents", tally_table("intent", header, [found[bank]["by_intent"] for bank in banks]))
    if "speech" in found:
        fill(card, "speech", speech_table(found["speech"]))


def gate_table(listed: Sequence[dict[str, Any]]) -> str:
    """Gates as a table; also printed after a run."""
    rows = [
        (g["gate"], g["value"], f"at {g['at']} {g['limit']:g}", "yes" if g["ok"] else "NO") for g in listed
    ]
    return table(("gate", "measured", "wanted", "kept"), rows)


def tally_table(title: str, header: Sequence[str], parts: Sequence[dict[str, str]]) -> str:
    """ "right/all" by name, one column per bank."""
    names = sorted({name for part in parts for name in part})
    return table([title, *header[1:]], [[name, *(part.get(name) for part in parts)] for name in names])


def speech_table(found: dict[str, Any]) -> str:
    """Word errors of both judges."""
    titles = {"desk": "front-desk bigram", "stock": "stock trigram of general English"}
    rows = [
        (title, f"{f['own']} %", f"{f['source']} %", f["ratio"], "{} to {}".format(*f["ratio_90_percent"]))
        for judge, title in titles.items()
        for f in [found[judge]]
    ]
    made = table(("recogniser's language model", "our speech", "flite slt", "ratio", "90 % interval"), rows)
    return f"{made}\n\nOver {found['replies']} replies, {found['words']} words, streamed synthesis."
