"""What was said so far, in words, so that a new connection can begin where a lost one ended. Knows no socket."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from voiceagent.client.events import Raw

TURNS = 32  #: what is older is not said again
TEXTS = {
    "input_text": "text",
    "output_text": "text",
    "input_audio": "transcript",
    "output_audio": "transcript",
}


@dataclass(slots=True)
class _Line:
    role: str
    text: str


class Memory:
    """The messages of a conversation in their order; at most `TURNS`."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()

    def take(self, raw: Raw) -> None:
        """Looks at a server message."""
        match raw["type"]:
            case "conversation.item.added" if raw["item"]["type"] == "message":
                item = raw["item"]
                parts = [part.get(TEXTS.get(part["type"], "")) or "" for part in item["content"]]
                self._lines[item["id"]] = _Line(item["role"], " ".join(parts).strip())
                if len(self._lines) > TURNS:
                    self._lines.popitem(last=False)
            case (
                "conversation.item.input_audio_transcription.completed"
                | "response.output_audio_transcript.done"
            ):
                self._write(raw["item_id"], raw["transcript"])
            case "response.output_text.done":
                self._write(raw["item_id"], raw["text"])
            case "conversation.item.deleted":
                self._lines.pop(raw["item_id"], None)
            case _:
                pass

    def _write(self, item_id: str, text: str) -> None:
        if item_id in self._lines:
            self._lines[item_id].text = text

    def forget(self) -> list[Raw]:
        """The messages as items that a session can be given, and an empty memory: their ids were the old session's."""
        said = [line for line in self._lines.values() if line.text]
        self._lines.clear()
        return [
            {"type": "message", "role": line.role, "content": [{"type": _kind(line.role), "text": line.text}]}
            for line in said
        ]


def _kind(role: str) -> str:
    return "output_text" if role == "assistant" else "input_text"
