"""A small frozen part of the examination (recordings and questions in tests/data/pocket) and the gates CI keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .asking import Asker, Note, Sound

FOLDER = Path(__file__).resolve().parents[3] / "tests" / "data" / "pocket"
TALKS = {"test_seen": 9, "test_new": 9}
TASKS = 3  # of each name
SENTENCES = 4  # of each bank
LONGEST_S = 4.5

# figure of the quick set -> limit, whether more is better: a little below what the shipped checkpoint reaches on it.
GATES: dict[str, tuple[float, bool]] = {  # version 0 was never taught most of it
    "replies.test_seen.exact": (20.0, True),
    "replies.test_new.exact": (23.0, True),
    "replies.test_seen.ended": (95.0, True),
    "replies.test_new.tool_calls": (20.0, True),
    "hearing.test_seen.wer_questions": (30.0, False),
    "hearing.test_new.wer_questions": (48.0, False),
    "tasks.test_seen.asr_part.wer": (36.0, False),
    "size_mb": (70.0, False),
}


def questions(folder: Path = FOLDER) -> list[Note]:
    """Everything that was frozen."""
    listed: list[Note] = json.loads((folder / "questions.json").read_text(encoding="utf-8"))["questions"]
    return listed


def ask(asker: Asker, question: Note, folder: Path = FOLDER) -> list[Note]:
    """One frozen question as the whole examination asks it."""
    sounds = [_sound(folder / name) for name in question["files"]]
    made, bank, voices = question["made"], question["bank"], question["voices"]
    if question["job"] == "talk":
        notes = asker.talk(made, sounds, voices)
    elif question["job"] == "task":
        notes = [asker.task(made, sounds[0] if sounds else None) | {"voice": "".join(voices)}]
    else:
        heard = asker.transcript(sounds[0], judged=True)
        notes = [heard | {"what": "hear", "voice": voices[0], "said": made["text"]}]
    return [note | {"bank": bank} for note in notes]


def freeze(paper: Any, folder: Path) -> str:
    """Writes recordings and questions; -> what it amounts to."""
    from . import paper as sheet

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.flac"):
        old.unlink()
    wanted = {("talk", bank): count for bank, count in TALKS.items()}
    wanted |= {("hear", bank): SENTENCES for bank in sheet.BANKS}
    listed: list[Note] = []
    for job in sheet.jobs(paper, talks=10**6, tasks=10**6, sentences=10**6):
        kind, bank, number = job
        key = (kind, bank)
        if kind == "task":
            key = (kind, paper.made["task_test"][number]["name"])
            if bank != "test_seen":
                continue
            wanted.setdefault(key, TASKS)
        if not wanted.get(key):
            continue
        question = _frozen(paper, job, folder, len(listed))
        if question is not None:
            wanted[key] -= 1
            listed.append(question)
    note = "Held-out questions in voices of the banks that scripts/eval/pocket.py asks; made by its --freeze."
    text = json.dumps({"note": note, "questions": listed}, indent=1, ensure_ascii=False)
    (folder / "questions.json").write_text(text + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{len(listed)} questions, {size / 1e6:.1f} MB in {folder}"


def _frozen(paper: Any, job: tuple[Any, ...], folder: Path, at: int) -> Note | None:
    """A question with its recordings written; None if one of them is long."""
    kind, bank, number = job
    if kind == "talk":
        made, first = paper.made["test"][number], paper.first_item[number]
        places = list(range(first, first + len(made["turns"])))
    elif kind == "task":
        made, place = paper.made["task_test"][number], paper.task_item(number)
        places = [place] if place >= 0 else []
    else:
        made, places = {"text": paper.sounds[paper.generic[number]].text}, [paper.generic[number]]
    sounds = [paper.heard(bank, place) for place in places]
    if any(len(sound) > LONGEST_S * 16_000 for sound in sounds):
        return None
    names = [f"{at:03d}_{k}.flac" for k in range(len(sounds))]
    for name, sound in zip(names, sounds, strict=True):
        soundfile.write(folder / name, (sound * 32768).astype(np.int16), 16_000, subtype="PCM_16")
    voices = [paper.item(bank, place).voice.label() for place in places]
    return {"job": kind, "bank": bank, "made": made, "files": names, "voices": voices}


def _sound(path: Path) -> Sound:
    samples, _ = soundfile.read(path, dtype="float32")
    samples.flags.writeable = False
    return samples
