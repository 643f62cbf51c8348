"""Fills the marked sections of the pocket checkpoint's model card. Knows no model and no figure.

A section is what stands between `<!-- NAME -->` and `<!-- /NAME -->`, each on a line of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def fill(card: Path, section: str, text: str) -> None:
    """Replaces a section's text; raises ValueError if the card has no such section."""
    begin, end = f"<!-- {section} -->\n", f"<!-- /{section} -->"
    whole = card.read_text(encoding="utf-8")
    if begin not in whole or end not in whole:
        raise ValueError(f"{card} has no section {section!r}")
    head, rest = whole.split(begin, 1)
    tail = rest.split(end, 1)[1]
    card.write_text(f"{head}{begin}\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are right-aligned. None is shown as a dash."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join("-" if v is None else str(v) for v in line) + " |" for line in lines)


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_table(folder: Path) -> str:
    """Size and sha256 of every file of a checkpoint but the card itself, and their sum."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"]
    rows = [
        (f"`{p.relative_to(folder).as_posix()}`", f"{p.stat().st_size:,}", f"`{digest(p)}`") for p in paths
    ]
    total = sum(path.stat().st_size for path in paths)
    return table(("file", "bytes", "sha256"), [*rows, ("together", f"{total:,}", "")])
