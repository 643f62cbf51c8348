"""Makes tests/data/questions: short spoken questions for the tests and the turn benchmark.

    PYTHONPATH=. python3 scripts/bench/questions.py [--model DIR]

The sentences are held out from training, most voices are SVOX Pico's, which training never heard. Of each intent the
first question is taken that the checkpoint answers right, however much silence is around it: the set tells whether the
path works, not how good the checkpoint is (scripts/eval/pocket.py does that). Needs the synthesisers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "pocket")]

import corpus  # noqa: E402
import gen_data  # noqa: E402
import synth  # noqa: E402

from scripts.eval.pocket_parts.asking import Asker  # noqa: E402
from scripts.eval.pocket_parts.paper import LEAD, TAIL, Paper, padded  # noqa: E402
from voiceagent.config import Config  # noqa: E402
from voiceagent.models.step_audio2.generate import LanguageModel  # noqa: E402

# Every question has slots; the last one needs a tool. Pico speaks (test_new), but for three of the training family.
WANTED = (
    ("hours", "test_new"), ("price", "test_new"), ("room_price", "test_new"), ("book", "test_seen"),
    ("order", "test_new"), ("sum", "test_new"), ("name", "test_seen"),
    ("count", "test_seen"), ("spell", "test_new"), ("weather", "test_new"),
)  # fmt: skip
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "name of the city"}},
                "required": ["city"],
            },
        },
    }
]
LONGEST_S = 2.45
LIMIT_BYTES = 400_000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "voiceagent/assets/pocket")
    parser.add_argument("--to", type=Path, default=ROOT / "tests/data/questions")
    parser.add_argument("--unchecked", action="store_true", help="before there is a checkpoint: ask none")
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    for old in args.to.glob("*.flac"):
        old.unlink()
    asker = None if args.unchecked else Asker(LanguageModel.load(args.model))
    paper = Paper.load(None, cache=ROOT / ".pocket" / "examination")
    made = [question for intent, bank in WANTED if (question := choose(asker, paper, intent, bank, args.to))]
    note = "Held-out sentences, chosen among those that the checkpoint of that day answers right."
    if args.unchecked:
        note = "Held-out sentences; no checkpoint was asked."
    listing = json.dumps({"note": note, "questions": made}, indent=1)
    (args.to / "questions.json").write_text(listing + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in args.to.iterdir())
    print(f"{len(made)} of {len(WANTED)} questions, {total:,} bytes")
    return 0 if total <= LIMIT_BYTES and len(made) == len(WANTED) else 1


def choose(asker: Asker | None, paper: Paper, intent: str, bank: str, to: Path) -> dict[str, Any] | None:
    """The first fitting question of this intent that is answered right, written to a file; None if there is none."""
    for number, made in enumerate(paper.made["test"]):
        turn = made["turns"][0]
        wants_tool = turn["tool"] is not None
        plain = not (made["history"] or made["summary"] or turn["source"])
        fits = plain and turn["intent"] == intent and turn["slots"] and corpus.held_out(turn["heard"]["text"])
        if not fits or wants_tool != (intent == "weather"):
            continue
        item = paper.item(bank, paper.first_item[number])
        samples, _ = gen_data.make(item)
        if len(samples) > LONGEST_S * synth.RATE or (asker and not right(asker, turn, samples)):
            continue
        name = f"{intent}.flac"
        soundfile.write(to / name, samples, synth.RATE, subtype="PCM_16")
        print(f"{name}: {turn['heard']['text']} -> {turn['reply']}")
        tool = turn["tool"] and {**turn["tool"], "schema": TOOLS[0]["function"]}
        return {
            "file": name, "text": turn["heard"]["text"], "voice": item.voice.label(), "intent": intent,
            "reply": turn["reply"], "tool": tool,
        }  # fmt: skip
    print(f"no question for {intent} was answered right")
    return None


def right(asker: Asker, turn: dict[str, Any], samples: synth.Wave) -> bool:
    """Whether the model answers these samples as it should, as a file and as a VAD may cut them out."""
    made = {"system": Config().instructions, "tools": TOOLS if turn["tool"] else None, "turns": [turn]}
    made |= {"history": [], "summary": "", "group": ""}
    notes = []
    for before, after in ((0, 0), (LEAD, TAIL), (TAIL, LEAD)):
        notes += asker.talk(made, [padded(samples, before=before, after=after)], [""])
    return all(note["got"] == note["reply"] and note["calls"] == note["wanted"] for note in notes)


if __name__ == "__main__":
    sys.exit(main())
