"""One turn of the assistant: what the engine made of it so far, and the history item that comes of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from voiceagent.core.actions import ForgetPieces
from voiceagent.core.events import AudioOut, TextOut, TurnEnded, TurnStarted, Usage
from voiceagent.core.history import AssistantItem, ToolCallItem, cut_to_heard
from voiceagent.core.notices import ContextUse
from voiceagent.core.options import TurnOptions
from voiceagent.units import TOKEN_SAMPLES, spoken_at

Pcm = npt.NDArray[np.int16]

AUDIO_PER_TEXT = 7
"""Fewest speech tokens that a text token takes to say (3.5 text tokens a second): by this pace it is judged how much
of the text of an unfinished reply can have been heard."""


@dataclass(slots=True)
class Turn:
    """A turn from its opening until the last of it was heard.

    Attributes:
        previous_item_id: the item behind which its items go.
        pieces: audio that came with its own input; the engine has no use for it afterwards.
        sound: all its audio, for those who ask for it later; empty if it is beside the conversation.
        pending: audio that was not sent yet.
        generated, sent: samples at 24 kHz.
        base: place of its first sample on the playout clock.
        visible: the client was told of its message item (text or audio went out).
        ended: what the engine said at the end.
        started: what it said at the beginning.
        closed: it is over for the wire; it may still be playing.
    """

    id: int
    item_id: str
    options: TurnOptions
    previous_item_id: str | None
    pieces: tuple[int, ...] = ()
    text: str = ""
    text_ids: list[int] = field(default_factory=list)
    audio_ids: list[int] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    calls: list[ToolCallItem] = field(default_factory=list)
    sound: list[Pcm] = field(default_factory=list)
    pending: deque[Pcm] = field(default_factory=deque)
    generated: int = 0
    sent: int = 0
    base: int = 0
    visible: bool = False
    ended: TurnEnded | None = None
    closed: bool = False
    started: TurnStarted | None = None

    @property
    def usage(self) -> Usage | None:
        """As the engine counted it; of a turn that is cut its input and what came of it; None before it began."""
        if self.ended is not None or self.started is None:
            return None if self.ended is None else self.ended.usage
        return replace(self.started.usage, output_text=len(self.text_ids), output_audio=len(self.audio_ids))

    @property
    def context(self) -> ContextUse | None:
        """How full the context is behind it, if that is known."""
        usage, started = self.usage, self.started
        if usage is None or started is None or not started.limit:
            return None
        return ContextUse(usage.kept, started.limit, started.dropped)

    @property
    def spoken(self) -> bool:
        """Whether it is a turn of speech."""
        return self.options.modalities == "audio"

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Ids that its items have or will have."""
        return (self.item_id, *(call.id for call in self.calls))

    def add_text(self, event: TextOut) -> None:
        """More text; it may be cut again where this text ends."""
        self.text += event.text
        self.text_ids += event.ids
        self.marks.append((len(self.text), len(self.text_ids)))

    def add_audio(self, event: AudioOut) -> None:
        """More audio, to be sent when its time has come."""
        self.audio_ids += event.ids
        self.generated += len(event.pcm)
        if len(event.pcm):
            self.pending.append(event.pcm)
            if self.options.conversation:
                self.sound.append(event.pcm)

    def next_audio(self, most: int | None) -> Pcm | None:
        """The next audio to send: whole speech tokens, at most `most` samples (None = any); None if that is too few."""
        if not self.pending:
            return None
        head = self.pending[0]
        if most is None or most >= len(head):
            return self.pending.popleft()
        fits = max(most, 0) // TOKEN_SAMPLES * TOKEN_SAMPLES
        if not fits:
            return None
        self.pending[0] = head[fits:]
        return head[:fits]

    def heard_item(self, samples: int) -> AssistantItem | None:
        """Its message as far as it was heard: `samples` of audio; text-only messages count as read."""
        item = self.item()
        if item is None:
            return None
        if self.ended is not None:
            return cut_to_heard(item, samples)
        tokens = AUDIO_PER_TEXT * max(len(self.text_ids), 1)
        return cut_to_heard(item, samples, length=spoken_at(tokens * TOKEN_SAMPLES, item.speed))

    def forgotten(self) -> list[ForgetPieces]:
        """What the engine may forget when the turn is closed."""
        return [ForgetPieces(self.pieces)] if self.pieces else []

    def item(self) -> AssistantItem | None:
        """Its message with all that was generated; None if there is none to speak of."""
        if not self.visible:
            return None
        return AssistantItem(
            id=self.item_id,
            text=self.text,
            text_ids=tuple(self.text_ids),
            audio_ids=tuple(self.audio_ids),
            raw_ids=self.ended.raw_ids if self.ended is not None else None,
            spoken=self.spoken,
            samples=self.generated,
            complete=self.ended is not None,
            marks=tuple(self.marks),
            audio=tuple(self.sound),
            speed=self.options.speed,
        )
