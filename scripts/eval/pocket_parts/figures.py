"""Turns the notes of an examination into figures with 95 % intervals, a confusion matrix and gates. Asks no model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from scripts.pocket.features import edit_distance
from scripts.pocket.scoring import auc, bootstrap, same_intent, slots_right, tally, wilson

Note = Mapping[str, Any]
Figure = dict[str, Any]
"""{"value", "low", "high", "of"}: percent, its 95 % interval, and of how many."""

WRITTEN = ("s2tt", "t2tt")
SPOKEN = ("s2st", "speak", "paralinguistic", "think", "base")
ATTRIBUTES = (
    "man", "woman", "male", "female", "nobody", "fast", "quickly", "slow", "slowly", "high", "low", "excited", "sad",
    "whisper", "whispers", "whispering", "bell", "siren", "rain", "bark", "barks", "barking", "dog", "music",
)  # fmt: skip
ALIKE = 0.34  # share of common words below which a reply is none that we know


def figures(notes: Sequence[Note]) -> dict[str, Any]:
    """All figures that these notes give."""
    found: dict[str, Any] = {"replies": {}, "hearing": {}, "tasks": {}}
    for bank in dict.fromkeys(note["bank"] for note in notes if "bank" in note):
        own = [note for note in notes if note.get("bank") == bank]
        if answered := [note for note in own if note["what"] == "reply"]:
            found["replies"][bank] = replies(answered)
        if listened := hearing(own):
            found["hearing"][bank] = listened
        if tasked := tasks(own):
            found["tasks"][bank] = tasked
    for name, what, make in (("speech", "said", speech), ("clones", "clone", clones), ("pace", "pace", pace)):
        if own := [note for note in notes if note["what"] == what]:
            found[name] = make(own)
    found["confusion"] = confusion([note for note in notes if note["what"] == "reply"])
    return found


# ---- replies


def replies(notes: Sequence[Note]) -> dict[str, Any]:
    """What the model answered to one bank."""
    clear = [note for note in notes if note["intent"] != "unclear"]
    unclear = [note for note in notes if note["intent"] == "unclear"]
    asked = [note for note in clear if not note["intent"].startswith("after ")]
    repeats = [note for note in asked if note["intent"] == "repeat"]
    plain = [SimpleNamespace(**note) for note in asked]
    sorry = unclear[0]["reply"] if unclear else ""
    return {
        "exact": share(exact(n) for n in clear),
        "exact_first_turns": share(exact(n) for n in asked if n["place"] == 0),
        "exact_later_turns": share(exact(n) for n in asked if n["place"] > 0),
        "exact_from_prompt": share(exact(n) for n in asked if n["source"] == "prompt"),
        "slots_from_prompt": share(ok for n in plain if n.source == "prompt" for ok in slots_right(n, n.got)),
        "exact_from_history": share(exact(n) for n in asked if n["source"] == "history"),
        "intent": share(same_intent(n, n.got) for n in plain),
        "slots": share(ok for n in plain for ok in slots_right(n, n.got)),
        "repeat_cer": error_rate([(n["reply"], n["got"]) for n in repeats], unit=list),
        "tool_calls": share(called_right(n) for n in clear if n["wanted"]),
        "needless_calls": share(bool(n["calls"] or n["broken"]) for n in notes if not n["wanted"]),
        "unclear": share(exact(n) for n in unclear),
        "needless_sorry": share(n["got"] == sorry for n in clear),
        "ended": share(n.get("ended", "stop") == "stop" for n in notes),
        "by_group": tally((n["group"], exact(n)) for n in clear),
        "by_intent": tally((n["intent"], exact(n)) for n in clear),
        "by_engine": tally((engine_of(n), exact(n)) for n in clear),
        "by_unclear": tally((kind_of(n), exact(n)) for n in unclear),
    }


def exact(note: Note) -> bool:
    """Whether the reply is word for word the right one."""
    return bool(note["got"] == note["reply"])


def called_right(note: Note) -> bool:
    """Whether exactly the wanted calls were made, with exactly the wanted arguments."""
    return bool(note["calls"] == note["wanted"] and not note["broken"])


def kind_of(note: Note) -> str:
    return "out_of_domain" if note["kind"] == "speech" else str(note["kind"])


def engine_of(note: Note) -> str:
    return re.split(r"[:/ ]", note["voice"])[0]


def confusion(notes: Sequence[Note]) -> dict[str, dict[str, int]]:
    """What was answered to each intent: the intent of the reply in the set that is most like the answer, or "other"."""
    known: dict[frozenset[str], str] = {}
    for note in notes:
        known.setdefault(frozenset(words(note["reply"])), note["intent"])
    counts: dict[str, Counter[str]] = {}
    for note in notes:
        got = frozenset(words(note["got"]))
        found = note["intent"]
        if not exact(note) and not same_intent(SimpleNamespace(**note), note["got"]):  # type: ignore[arg-type]
            likeness, found = max(
                ((len(got & other) / max(1, len(got | other)), name) for other, name in known.items()),
                default=(0.0, "other"),
            )
            found = found if likeness >= ALIKE else "other"
        counts.setdefault(note["intent"], Counter())[found] += 1
    return {name: dict(row) for name, row in sorted(counts.items())}


# ---- hearing


def hearing(notes: Sequence[Note]) -> dict[str, Any]:
    """Word error rates of the transcripts of one bank."""
    turns = [n for n in notes if n["what"] == "reply" and not n["intent"].startswith("after ")]
    asked = [n for n in turns if n["intent"] != "unclear" and n["kind"] == "speech"]
    sentences = [n for n in notes if n["what"] == "hear"]
    spanish = [n for n in notes if n["what"] == "asr_es"]
    people = [n for n in notes if n["what"] == "human"]
    groups = {"questions": asked, "sentences": sentences, "spanish": spanish, "people": people}
    found: dict[str, Any] = {
        f"wer_{name}": word_errors(own, "said", "heard") for name, own in groups.items() if own
    }
    if silent := [n for n in turns if n["kind"] != "speech"]:
        found["nothing_heard"] = share(not n["heard"] for n in silent)
    return found


# ---- tasks


def tasks(notes: Sequence[Note]) -> dict[str, Any]:
    """Every task by its own prompt."""
    by_name: dict[str, list[Note]] = {}
    for note in notes:
        by_name.setdefault(note["what"], []).append(note)
    found: dict[str, Any] = {}
    for name in ("asr", *WRITTEN, *SPOKEN, "summary", "caption"):
        own = by_name.get(name, [])
        if not own:
            continue
        got = "heard" if name == "asr" else "got"
        found[name] = {"exact": share(n[got] == n["reply"] for n in own)}
        if name in (*WRITTEN, "s2st", "summary"):
            found[name]["chrf"] = chrf([(n["reply"], n["got"]) for n in own])
        if name in ("speak", "base"):
            found[name]["cer"] = error_rate([(n["reply"], n["got"]) for n in own], unit=list)
        if any(n.get("tested") for n in own):
            found[name]["by"] = tally((n["tested"] or "-", n[got] == n["reply"]) for n in own)
    if captions := by_name.get("caption"):
        found["caption"]["attributes"] = share(
            (word in words(n["got"])) == (word in words(n["reply"]))
            for n in captions
            for word in ATTRIBUTES
            if word in (*words(n["got"]), *words(n["reply"]))
        )
    if thoughts := by_name.get("think"):
        found["think"]["thought_exact"] = share(n.get("thinks") == n.get("thought") for n in thoughts)
    if parts := by_name.get("asr_part"):
        found["asr_part"] = parted(parts, [*by_name.get("asr", ()), *by_name.get("hear", ())])
    return found


def parted(parts: Sequence[Note], wholes: Sequence[Note]) -> dict[str, Any]:
    """Speech that breaks off: exact transcripts, and how well "nothing follows" tells it from whole sentences."""
    over = [n["complete"] for n in wholes if "complete" in n]
    return {
        "exact": share(n["heard"] == n["reply"] for n in parts),
        "invented": share(len(words(n["heard"])) > len(words(n["reply"])) for n in parts),
        "wer": word_errors(parts, "reply", "heard"),
        "auc_of_the_end": auc(over, [n.get("complete", 0.0) for n in parts]),
        "by": tally((n["tested"] or "-", n["heard"] == n["reply"]) for n in parts),
    }


# ---- its own speech


def speech(notes: Sequence[Note]) -> dict[str, Any]:
    """Word errors of an independent recogniser, of the model's speech and of the source voice; seams; speed."""
    out: dict[str, Any] = {"replies": len(notes), "words": sum(len(n["text"].split()) for n in notes)}
    for judge in notes[0]["own"]:
        own, source = (
            word_errors([{"said": n["text"], "heard": n[who][judge]} for n in notes], "said", "heard")
            for who in ("own", "source")
        )
        pairs = [[word_edits(n["text"], n[who][judge]) for who in ("own", "source")] for n in notes]
        ratio = sum(a for a, _ in pairs) / max(1, sum(b for _, b in pairs))
        low, high = bootstrap([(a, b) for a, b in pairs])
        ratio_figure = {"value": round(ratio, 2), "low": round(low / 100, 2), "high": round(high / 100, 2)}
        out[judge] = {"own": own, "source": source, "ratio": ratio_figure}
    jumps = [pair for n in notes for pair in n["seams"]]
    if jumps:
        own, whole = (sum(values) / len(jumps) for values in zip(*jumps, strict=True))
        low, high = bootstrap([(a, b) for a, b in jumps])
        ratio_figure = {
            "value": round(own / whole, 3),
            "low": round(low / 100, 3),
            "high": round(high / 100, 3),
        }
        out["seams"] = {
            "jump_db": round(own, 2),
            "unstreamed_db": round(whole, 2),
            "ratio": ratio_figure,
            "of": len(jumps),
        }
    out["decoder_rtf"] = middle([n["rtf"] for n in notes])
    again = [n for n in notes if "again" in n]
    if again:
        out["heard_again_wer"] = word_errors(again, "text", "again")
    return out


def clones(notes: Sequence[Note]) -> dict[str, Any]:
    """Voices never heard, enrolled from a clip."""
    near = [
        abs(math.log2(n["pitch"] / n["pitch_wanted"])) * 12 for n in notes if n["pitch"] * n["pitch_wanted"]
    ]
    return {
        "nearest_is_the_prompt": share(n["nearest"] == n["voice"] for n in notes),
        "nearest_spectrum_is_the_prompt": share(n["nearest_spectrum"] == n["voice"] for n in notes),
        "likeness": middle([n["likeness"] for n in notes]),
        "best_other": middle([n["best_other"] for n in notes]),
        "pitch_off_semitones": middle(near),
    }


def pace(notes: Sequence[Note]) -> dict[str, Any]:
    """Processor time of whole answers."""
    first, rtf = ([n[name] for n in notes] for name in ("first_s", "rtf"))
    return {"first_audio_s": middle(first), "rtf": middle(rtf), "answers": len(notes)}


# ---- sums


def share(values: Iterable[object]) -> Figure | None:
    """Share of true values, percent; None of nothing."""
    listed = [bool(value) for value in values]
    if not listed:
        return None
    right, count = sum(listed), len(listed)
    low, high = wilson(right, count)
    return {"value": round(100 * right / count, 1), "low": low, "high": high, "of": count}


def error_rate(pairs: Sequence[tuple[str, str]], *, unit: Callable[[str], Sequence[object]]) -> Figure | None:
    """Wrong, missing and additional units over those that should be there, percent; intervals by resampling pairs."""
    if not pairs:
        return None
    counted = [
        (edit_distance(unit(plain(wanted)), unit(plain(got))), len(unit(plain(wanted))))
        for wanted, got in pairs
    ]
    low, high = bootstrap(counted)
    value = 100 * sum(e for e, _ in counted) / max(1, sum(n for _, n in counted))
    return {"value": round(value, 1), "low": low, "high": high, "of": len(pairs)}


def word_errors(notes: Sequence[Note], said: str, heard: str) -> Figure | None:
    return error_rate([(note[said], note[heard]) for note in notes], unit=str.split)


def word_edits(said: str, heard: str) -> int:
    return edit_distance(plain(said).split(), plain(heard).split())


def plain(text: str) -> str:
    """Lower case, letters of any language, digits, apostrophes, single blanks."""
    return " ".join(re.sub(r"[^\w' ]|_", " ", text.lower()).split())


def words(text: str) -> list[str]:
    return plain(text).split()


def chrf(pairs: Sequence[tuple[str, str]], *, longest: int = 6, beta: float = 2.0) -> float | None:
    """chrF of a corpus, percent: F-score of character n-grams up to 6, recall weighted twice (Popovic 2015)."""
    scores = []
    for n in range(1, longest + 1):
        common = wanted = got = 0
        for reference, answer in pairs:
            a, b = (_grams("".join(text.split()), n) for text in (reference, answer))
            common, wanted, got = (
                common + sum((a & b).values()),
                wanted + sum(a.values()),
                got + sum(b.values()),
            )
        if wanted:
            precision, recall = common / max(1, got), common / wanted
            both = beta**2 * precision + recall
            scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return round(100 * sum(scores) / len(scores), 1) if scores else None


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def middle(values: Sequence[float]) -> float | None:
    """The median."""
    ordered = sorted(values)
    return round(ordered[len(ordered) // 2], 3) if ordered else None


# ---- gates


def value_at(found: Mapping[str, Any], path: str) -> float | None:
    """The number at "replies.test_seen.exact"; of a figure its value."""
    here: Any = found
    for part in path.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here["value"] if isinstance(here, Mapping) and "value" in here else here


def gates(found: Mapping[str, Any], limits: Mapping[str, tuple[float, bool]]) -> list[dict[str, Any]]:
    """Each limit, what was found and whether it is kept; a figure that is not there keeps nothing."""
    out = []
    for path, (limit, more) in limits.items():
        value = value_at(found, path)
        ok = value is not None and (value >= limit if more else value <= limit)
        out.append(
            {"figure": path, "value": value, "limit": limit, "at": "least" if more else "most", "ok": ok}
        )
    return out


def misses(notes: Sequence[Note]) -> list[Note]:
    """Every wrong reply and call, short."""
    kept = ("bank", "voice", "what", "intent", "tested", "said", "heard", "reply", "got", "wanted", "calls")
    wrong = [n for n in notes if "got" in n and not (exact(n) and (not n.get("wanted") or called_right(n)))]
    return [{name: n[name] for name in kept if name in n} for n in wrong]
