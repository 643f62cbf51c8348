"""How a thought is opened, told apart from the reply, closed and bounded; it knows text, and no token by its number.

A checkpoint that thinks writes `<think>`, its thought and `</think>` before it answers. The opening is given to it,
the thought is read until the closing tag, and the tag with all before it then belongs to the prompt of the answer.
"""

from __future__ import annotations

import codecs

OPENING = "\n<think>\n"  #: behind "assistant\n"; one piece with it
CLOSING = "</think>"  #: a stop string: text like any other, whatever tokens it comes in
BEFORE_ANSWER = "\n\n"  #: between the closing tag and the answer
MAX_THOUGHT = 2048  #: tokens of a thought; the reference's limit


def thought_limit(*, room: int, asked: int | None) -> int:
    """The most tokens that a thought may take, so that a thought without an end still leaves room for the reply.

    Args:
        room: positions that the model has left for thought and reply together.
        asked: the turn's own limit of both together; None = none.

    Returns:
        At most `MAX_THOUGHT`, and at most half of what there is for both.
    """
    return min(MAX_THOUGHT, max(room, 0) // 2, MAX_THOUGHT if asked is None else asked // 2)


class ThoughtReader:
    """Reads a thought byte by byte until its closing tag.

    Attributes:
        text: the thought so far; once closed, all that stands before the tag.
        closed: the tag has come, or `close` was called; nothing more may be fed.
    """

    def __init__(self) -> None:
        self.text = ""
        self.closed = False
        self._told = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, raw: bytes) -> str:
        """Takes the bytes of one token; returns the text that is now known to be part of the thought."""
        self.text += self._utf8.decode(raw)
        at = self.text.find(CLOSING, self._told)
        if (
            at >= 0
        ):  # what the last token holds behind the tag is dropped: the prompt of the answer writes it anew
            self.text = self.text[:at]
            self.closed = True
            return self._tell(at)
        return self._tell(len(self.text) - _begun(self.text))

    def close(self) -> str:
        """Ends a thought that did not end itself, on a line of its own as one that does; returns what was not told."""
        rest = self._tell(len(self.text))
        if self.text and not self.text.endswith("\n"):
            self.text += "\n"
        self.closed = True
        return rest

    def _tell(self, end: int) -> str:
        new, self._told = self.text[self._told : end], max(end, self._told)
        return new


def _begun(text: str) -> int:
    """How many characters at the end of `text` may be the beginning of the closing tag."""
    return next((n for n in range(len(CLOSING) - 1, 0, -1) if text.endswith(CLOSING[:n])), 0)
