"""A reply whose words are given: which ids stand where, and which the model may choose. It is pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from voiceagent.models.step_audio2.tokenizer import SpecialIds

GROUP = 5  # one text id, four of sound


class Allowed(IntEnum):
    """What may be chosen: the row of the decoder's masks."""

    SPOKEN = 0  # all of text and audio
    WRITTEN = 1  # text only
    SOUND = 2  # speech ids and their pad
    CLOSING = 3  # the text's pad, or the end of speech


@dataclass(frozen=True, slots=True)
class Script:
    """Words to be said exactly, in the 1 : 4 pattern behind `<tts_start>`.

    The text ids are given, one in each group; behind the last one the model says by pad or end whether there is more
    sound to come. All speech ids are the model's.

    Attributes:
        text_ids: of what is to be said.
        end: the id that closes the speech, and with it the reply.
    """

    text_ids: tuple[int, ...]
    end: int

    def given(self, at: int) -> int | None:
        """The id at place `at` behind `<tts_start>`, if it is not the model's to choose."""
        group, place = divmod(at, GROUP)
        return self.text_ids[group] if place == 0 and group < len(self.text_ids) else None

    def allowed(self, at: int) -> Allowed:
        """What the model may choose at place `at`; where an id is given, what it chooses is dropped."""
        if self.given(at) is not None:
            return (
                Allowed.WRITTEN
            )  # so that the penalty on what was said before touches neither sound nor end
        return Allowed.SOUND if at % GROUP else Allowed.CLOSING

    @classmethod
    def of(cls, text_ids: list[int], ids: SpecialIds) -> Script:
        """The script of a text."""
        return cls(tuple(text_ids), ids.tts_end)
