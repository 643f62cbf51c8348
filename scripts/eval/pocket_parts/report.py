"""Figures of an examination as Markdown tables and pictures (SVG), and in the model card. Counts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from scripts.pocket.card import fill, table

from .figures import value_at

BANKS = {  # bank -> what it is in a table
    "test_seen": "voices of the training family",
    "test_new": "an engine never heard (SVOX Pico)",
    "test_voices": "voices never heard, of known engines",
    "test_noisy": "noise 5 dB below the voice",
    "test_phone": "telephone: G.711, 5 % of the packets lost",
    "test_human": "voices never heard, made less like a machine's",
}
GOALS: dict[str, tuple[str, float, bool]] = {  # figure -> what it is, what is wanted, whether more is better
    "hearing.test_new.wer_sentences": ("word errors, any sentences, an engine never heard, %", 8.0, False),
    "hearing.test_voices.wer_sentences": ("word errors, any sentences, voices never heard, %", 8.0, False),
    "hearing.test_seen.wer_sentences": ("word errors, any sentences, known engines, %", 2.0, False),
    "replies.test_seen.exact": ("exact replies, known engines, %", 97.0, True),
    "replies.test_new.exact": ("exact replies, an engine never heard, %", 93.0, True),
    "replies.test_seen.exact_from_prompt": ("fresh facts of the instructions obeyed, %", 85.0, True),
    "replies.test_seen.repeat_cer": ("arbitrary words repeated, wrong characters, %", 8.0, False),
    "speech.stock.ratio": ("word errors of its speech over those of the source voice", 1.1, False),
    "speech.seams.ratio": ("spectral jumps at seams over those of unstreamed speech", 1.1, False),
    "clones.nearest_is_the_prompt": ("clones nearest to their own prompt, %", 80.0, True),
    "pace.rtf": ("processor seconds per second of speech (0.35 on each of two cores)", 0.7, False),
    "pace.first_audio_s": ("first sound after the end of the question, s", 0.4, False),
    "size_mb": ("size, MB", 60.0, False),
}
REPLY_ROWS = {
    "exact": "reply exact, %", "exact_first_turns": "of first turns, %", "exact_later_turns": "of later turns, %",
    "exact_from_prompt": "answers from the instructions, %", "exact_from_history": "answers from an earlier turn, %",
    "intent": "intent right, %", "slots": "slots right, %", "repeat_cer": "repeated words, wrong characters, %",
    "tool_calls": "tool calls exact, %", "needless_calls": "calls where none was due, %",
    "unclear": "unclear input recognised, %", "needless_sorry": '"did not catch that" to a clear question, %',
    "ended": "ended by itself, %",
}  # fmt: skip
HEARING_ROWS = {
    "wer_questions": "word errors, questions, %", "wer_sentences": "word errors, any sentences, %",
    "wer_spanish": "word errors, Spanish, %", "nothing_heard": "no words where none were said, %",
    "wer_people": "word errors, people, %",
}  # fmt: skip


def shown(value: Any) -> str:
    """A figure with its interval; "-" for none."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return f"{value['value']:g} ({value['low']:g} to {value['high']:g})"
    return f"{value:g}"


def goals(found: Mapping[str, Any]) -> str:
    rows = []
    for path, (title, limit, more) in GOALS.items():
        value = value_at(found, path)
        met = value is not None and (value >= limit if more else value <= limit)
        here: Any = found
        for part in path.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        sign = "at least" if more else "at most"
        rows.append(
            (
                title,
                shown(here),
                f"{sign} {limit:g}",
                "not measured" if value is None else "yes" if met else "**no**",
            )
        )
    return table(("goal", "measured (95 %)", "wanted", "reached"), rows)


def by_bank(part: Mapping[str, Any], rows: Mapping[str, str]) -> str:
    banks = list(part)
    titles = [BANKS.get(bank, bank) for bank in banks]
    listed = [[title, *(shown(part[bank].get(name)) for bank in banks)] for name, title in rows.items()]
    return table(["", *titles], [row for row in listed if set(row[1:]) != {"-"}])


def tallies(part: Mapping[str, Any], name: str, title: str) -> str:
    """ "right/all" by name, one column per bank."""
    found = {bank: figures[name] for bank, figures in part.items() if figures.get(name)}
    names = sorted({key for one in found.values() for key in one})
    return table([title, *(BANKS.get(bank, bank) for bank in found)],
                 [[key, *(one.get(key) for one in found.values())] for key in names])  # fmt: skip


def tasks(part: Mapping[str, Any]) -> str:
    rows = []
    for bank, found in part.items():
        for name, figures in found.items():
            for figure, value in figures.items():
                if figure != "by":
                    rows.append((name, figure, BANKS.get(bank, bank), shown(value)))
    return table(("task", "figure", "voices", "measured"), sorted(rows, key=lambda row: row[:2]))


def speech(found: Mapping[str, Any]) -> str:
    titles = {"desk": "bigram of the corpus", "stock": "stock trigram of general English"}
    rows = [
        (title, shown(found[judge]["own"]), shown(found[judge]["source"]), shown(found[judge]["ratio"]))
        for judge, title in titles.items()
        if judge in found
    ]
    made = table(("recogniser's language model", "our speech, %", "flite slt, %", "ratio"), rows)
    return f"{made}\n\nOver {found['replies']} replies, {found['words']} words, streamed synthesis."


def sections(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables by the name of their section in a card."""
    out = {"goals": goals(found)}
    if found["replies"]:
        out["replies"] = by_bank(found["replies"], REPLY_ROWS)
        for name, title in (
            ("by_group", "part"),
            ("by_intent", "intent"),
            ("by_engine", "engine"),
            ("by_unclear", "what is heard"),
        ):
            out[name] = tallies(found["replies"], name, title)
    if found["hearing"]:
        out["hearing"] = by_bank(found["hearing"], HEARING_ROWS)
    if found["tasks"]:
        out["tasks"] = tasks(found["tasks"])
    if found.get("speech"):
        out["speech"] = speech(found["speech"])
    if found.get("clones"):
        rows = [(name.replace("_", " "), shown(value)) for name, value in found["clones"].items()]
        out["clones"] = table(("voices that nothing was trained on", "measured"), rows)
    return out


def write_card(card: Path, found: Mapping[str, Any]) -> None:
    """Puts the tables into the sections that the card has."""
    text = card.read_text(encoding="utf-8")
    for name, made in sections(found).items():
        if f"<!-- {name} -->" in text:
            fill(card, name, made)


def page(found: Mapping[str, Any], *, note: str, pictures: Sequence[str]) -> str:
    """The whole examination as a page."""
    titles = {
        "goals": "Goals", "replies": "Replies", "by_group": "By part", "by_engine": "By engine",
        "by_unclear": "What nobody can understand", "hearing": "Hearing", "tasks": "Tasks, by their own prompts",
        "speech": "Its speech", "clones": "Cloned voices", "by_intent": "By intent",
    }  # fmt: skip
    parts = ["# The pocket checkpoint, examined\n\nMade by `scripts/eval/pocket.py`; do not edit. " + note]
    made = sections(found)
    for name, title in titles.items():
        if name in made:
            parts.append(f"## {title}\n\n{made[name]}")
        if name == "goals":
            parts += [f"![{Path(picture).stem}]({picture})" for picture in pictures]
    return "\n\n".join(parts) + "\n"


# ---- pictures

STYLE = 'font-family="sans-serif" font-size="12" fill="#222"'


def bars(found: Mapping[str, Any]) -> str:
    """Word errors and exact replies by bank, with their intervals."""
    rows = [
        (f"{title}: {BANKS.get(bank, bank)}", figures[name])
        for part, name, title in (
            ("replies", "exact", "exact replies"), ("hearing", "wer_questions", "word errors, questions"),
            ("hearing", "wer_sentences", "word errors, any"),
        )
        for bank, figures in found[part].items()
        if figures.get(name)
    ]  # fmt: skip
    lines = []
    for row, (title, figure) in enumerate(rows):
        y, start, scale = 14 + 22 * row, 430, 3.2
        color = "#2a9d8f" if title.startswith("exact") else "#e07a5f"
        low, high = (start + scale * min(100.0, figure[name]) for name in ("low", "high"))
        width = scale * min(100.0, figure["value"])
        lines.append(f'<text x="{start - 8}" y="{y + 10}" text-anchor="end">{escape(title)}</text>')
        lines.append(f'<rect x="{start}" y="{y}" width="{width:.1f}" height="13" fill="{color}"/>')
        lines.append(f'<path d="M{low:.1f} {y + 6.5}H{high:.1f}" stroke="#222" stroke-width="1.5"/>')
        lines.append(
            f'<text x="{max(high, start + width) + 6:.1f}" y="{y + 10}">{figure["value"]:g} %</text>'
        )
    return _svg(820, 24 + 22 * len(rows), lines)


def matrix(confusion: Mapping[str, Mapping[str, int]]) -> str:
    """Rows: what was asked; columns: what was answered; darker: a greater share of the row."""
    names = sorted({*confusion, *(name for row in confusion.values() for name in row)})
    size, left, top = 13, 150, 150
    lines = []
    for at, name in enumerate(names):
        place = top + size * at + 10
        lines.append(
            f'<text x="{left - 6}" y="{place}" text-anchor="end" font-size="10">{escape(name)}</text>'
        )
        x = left + size * at + 10
        lines.append(
            f'<text transform="translate({x} {top - 6}) rotate(-60)" font-size="10">{escape(name)}</text>'
        )
    for row, asked in enumerate(names):
        counts = confusion.get(asked, {})
        for column, answered in enumerate(names):
            if count := counts.get(answered, 0):
                share = count / sum(counts.values())
                color = "#2a9d8f" if row == column else "#c1121f"
                lines.append(
                    f'<rect x="{left + size * column}" y="{top + size * row}" width="{size - 1}" height="{size - 1}" '
                    f'fill="{color}" fill-opacity="{0.15 + 0.85 * share:.2f}"><title>{escape(asked)} -&gt; '
                    f"{escape(answered)}: {count}</title></rect>"
                )
    side = left + size * len(names) + 60
    return _svg(side, side, lines)


def _svg(width: int, height: int, lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="100%" height="100%" fill="white"/><g {STYLE}>\n{body}\n</g></svg>\n'
    )
