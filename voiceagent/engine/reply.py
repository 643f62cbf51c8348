"""One reply as the runner keeps it, and how its ids become text, speech codes and calls; it knows no tensor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

from voiceagent.core.events import Usage
from voiceagent.engine.protocol import Summary, ToolUse, Written
from voiceagent.errors import VoiceAgentError
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.generate import Generation
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot
from voiceagent.models.step_audio2.sampling import Sampling
from voiceagent.models.step_audio2.scribe import Scribe
from voiceagent.models.step_audio2.token2wav import Stream
from voiceagent.models.step_audio2.tokens import (
    BrokenToolCall,
    Part,
    SpeechCode,
    Splitter,
    TextDelta,
    ThinkDelta,
    ToolCall,
)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reply:
    """A turn's state: the language model's side, the parser, and the speech stream.

    A turn that thinks is two generations: that of the thought, and that of the reply, whose prompt holds the thought.
    """

    session: int
    generation: Generation
    splitter: Splitter
    prompt: Prompt  #: the first generation's
    cached: int  #: positions of it that earlier turns had left
    dropped: tuple[str, ...]  #: items that it leaves out
    room: int  #: positions that the items may take
    sampling: Sampling
    max_tokens: int | None  #: of thought and reply together
    speech: Stream | None
    beside: bool = False  #: in a context of its own
    one_call: bool = False  #: it ends with its first tool call
    said: bool = False  #: some text or speech has come
    audio_tokens: int = 0
    thought_tokens: int = 0

    def ended(self) -> Literal["stop", "max_tokens"]:
        """Why the model ended it."""
        return "stop" if self.generation.reason == "stop" else "max_tokens"

    def written(
        self, parts: tuple[Part, ...], *, ended: Literal["stop", "max_tokens"] | None = None
    ) -> Written:
        """What the parser made of an id.

        Raises:
            VoiceAgentError: the reply is nothing but a tool call that cannot be made (`invalid_tool_call`).
        """
        new = _Sum()
        for part in parts:
            match part:
                case ThinkDelta():
                    new.thought += part.text
                case TextDelta():
                    new.text += part.text
                    new.text_ids += part.ids
                case SpeechCode():
                    new.codes.append(part.code)
                case ToolCall():
                    new.calls.append(ToolUse(part.name, part.arguments))
                case BrokenToolCall():
                    self._complain(part)
                case _:
                    assert_never(part)
        self.said = self.said or any(not isinstance(part, ThinkDelta) for part in parts)
        self.audio_tokens += len(new.codes)
        return Written(
            new.text, tuple(new.text_ids), tuple(new.codes), tuple(new.calls), ended, thought=new.thought
        )

    def summary(self) -> Summary:
        """Usage and the ids generated so far, those of a thought not among them."""
        thinking = self.splitter.thinking
        thought = len(self.generation.ids) if thinking else self.thought_tokens
        said = () if thinking else tuple(self.generation.ids)
        heard = _heard(self.prompt.slots)
        usage = Usage(
            input_text=len(self.prompt.slots) - heard,
            input_audio=heard,
            input_cached=self.cached,
            output_text=thought + len(said) - self.audio_tokens,
            output_audio=self.audio_tokens,
            output_thought=thought,
            input_cached_audio=_heard(self.prompt.slots[: self.cached]),
        )
        return Summary(usage, said, self.generation.context.max_positions, self.dropped, self.room)

    def _complain(self, part: BrokenToolCall) -> None:
        log.warning("the model wrote a tool call that cannot be made: %s", part.problem)
        if not self.said:
            raise VoiceAgentError(
                f"The model wrote a tool call that cannot be made: {part.problem}.", code="invalid_tool_call"
            )


def _heard(slots: Sequence[Slot]) -> int:
    """How many positions are of sound."""
    return sum(isinstance(slot, AudioRow) for slot in slots)


@dataclass(slots=True)
class _Sum:
    """What comes of the parts of one id."""

    thought: str = ""
    text: str = ""
    text_ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    calls: list[ToolUse] = field(default_factory=list)


@dataclass(slots=True)
class Caption:
    """A transcription in the making; no generation when there is nothing to hear."""

    generation: Generation | None
    scribe: Scribe
    kept: bool = False  #: its own context is not closed when it ends


@dataclass(slots=True)
class Ahead:
    """A prompt that is read before anybody asks for the reply."""

    context: Context
    slots: tuple[Slot, ...]
