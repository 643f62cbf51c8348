"""The words of a transcription, id by id; it knows no model and no audio."""

from __future__ import annotations

import codecs
import re

from voiceagent.models.step_audio2.tokenizer import TextTokenizer

_TAG = re.compile(r"<[^<>\n]{1,16}>")  # the model may begin a transcript with its language: "<中文>"
_OPEN_TAG = re.compile(r"<[^<>\n]{0,16}")


class Scribe:
    """Feed it every generated id, then call `finish` once.

    What they return makes the transcript, without the language that it may begin with, and without space around it.

    Attributes:
        begun: the first word has come.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # a space that may be the last, a tag that is not whole
        self._tagged = self.begun = False

    def feed(self, token: int) -> str:
        """The text that this id completes."""
        if not self._tokenizer.is_text(token):
            return ""
        return self._said(self._utf8.decode(self._tokenizer.token_bytes(token)))

    def finish(self) -> str:
        """What was still waiting: half a character (as U+FFFD), or something that is no tag after all."""
        return self._said(self._utf8.decode(b"", final=True), last=True)

    def _said(self, text: str, *, last: bool = False) -> str:
        self._held += text
        if not self.begun and not self._begins(last=last):
            return ""
        said = self._held.rstrip()
        self._held = self._held[len(said) :]
        return said

    def _begins(self, *, last: bool) -> bool:
        """Whether the first word is there; takes away what stands before it."""
        self._held = self._held.lstrip()
        tag = None if self._tagged else _TAG.match(self._held)
        if tag is not None:
            self._tagged = True
            self._held = self._held[tag.end() :].lstrip()
        waits = not self._tagged and not last and _OPEN_TAG.fullmatch(self._held) is not None
        self.begun = bool(self._held) and not waits
        return self.begun
