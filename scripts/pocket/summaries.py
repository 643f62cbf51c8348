"""What the summary of a conversation says: in short, what was wanted, with its values. Knows no wording of the talk.

The engine asks for a summary of at most a fourteenth of what it stands for, so it names each thing in a few words:
"name: anna. table: four, on friday, seven. refund: one two three four."
"""

from __future__ import annotations

from collections.abc import Sequence

import callcentre
from task import Turn

LABELS = {
    "name": "name", "name_repair": "name", "book": "table", "change_booking": "table", "room_booking": "room",
    "change_room": "room", "order": "order", "meal": "ordered", "likes": "favorite", "list": "list",
    "order_lookup": "order",
} | {name: name.replace("_", " ") for name in callcentre.ERRANDS}  # fmt: skip
LEFT_OUT = frozenset(("letters", "apart"))
NOTHING = "nothing was decided."


def summary(turns: Sequence[Turn]) -> str:
    """The summary of some turns; "" if there is nothing to remember."""
    known: dict[str, dict[str, str]] = {}
    for turn in turns:
        label = LABELS.get(turn.intent.removesuffix("_repair"), LABELS.get(turn.intent))
        slots = {name: value for name, value in turn.slots.items() if name not in LEFT_OUT}
        if label and slots:
            changed = turn.source == "history" and label in known
            known[label] = known[label] | slots if changed else slots
    return " ".join(f"{label}: {', '.join(slots.values())}." for label, slots in known.items())
