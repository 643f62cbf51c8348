"""Executes single steps with the real models; the only file of the engine that sees tensors.

It decides nothing about order, and keeps one language-model context per session and one speech stream per turn.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch

from voiceagent.core.events import Usage
from voiceagent.core.history import Piece, TextContent, UserItem
from voiceagent.engine import api
from voiceagent.engine.loop import Summary, ToolUse, Written
from voiceagent.engine.slots import Turn, item_pieces
from voiceagent.errors import InputError, VoiceAgentError
from voiceagent.models.placement import Placement
from voiceagent.models.step_audio2.generate import Context, Generation, LanguageModel
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, render_answer, render_turn
from voiceagent.models.step_audio2.sampling import Sampling
from voiceagent.models.step_audio2.think import thought_limit
from voiceagent.models.step_audio2.token2wav import CHUNKS, Stream, Token2Wav
from voiceagent.models.step_audio2.tokens import (
    BrokenToolCall,
    Part,
    SpeechCode,
    Splitter,
    TextDelta,
    ThinkDelta,
    ToolCall,
)
from voiceagent.models.step_audio2.variant import Variant
from voiceagent.models.step_audio2.voice import Voice

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reply:
    """A turn's state: the language model's side, the parser, and the speech stream.

    A turn that thinks is two generations: that of the thought, and that of the reply, whose prompt holds the thought.
    """

    generation: Generation
    splitter: Splitter
    prompt: Prompt  #: the first generation's
    cached: int  #: positions of it that needed no computing
    sampling: Sampling
    max_tokens: int | None  #: of thought and reply together
    speech: Stream | None
    said: bool = False  #: some text or speech has come
    audio_tokens: int = 0
    thought_tokens: int = 0


@dataclass(slots=True)
class Caption:
    """A transcription in the making; None when there is nothing to hear."""

    generation: Generation | None


@dataclass(slots=True)
class StepAudioRunner:
    """A Step-Audio-2-shaped language model and its Token2Wav.

    Attributes:
        language: the language model.
        token2wav: the speech decoder with its prepared voices.
    """

    language: LanguageModel
    token2wav: Token2Wav
    _contexts: dict[int, Context] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        placement: Placement,
        *,
        variant: Variant | None = None,
        recordings: str | None = None,
        speech_chunks: tuple[int, ...] = CHUNKS,
        reference_compatible: bool = False,
        threads: int,
        progress: Callable[[str, float], None],
    ) -> StepAudioRunner:
        """Load a checkpoint folder and warm it up.

        Args:
            folder: the checkpoint.
            placement: devices, number types and memory budgets.
            variant: how the model wants to be asked; None = as the folder says.
            recordings: folder of the voices; None = the checkpoint's own.
            speech_chunks: ids per chunk of speech.
            reference_compatible: trim and cross-fade speech as the published code does.
            threads: torch threads.
            progress: takes each stage and the fraction of stages behind it.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another shape.
        """
        torch.set_num_threads(threads)
        progress("language model", 0.1)
        language = LanguageModel.load(folder, device=placement.device, dtype=placement.dtype, variant=variant)
        progress("speech decoder and voices", 0.6)
        token2wav = Token2Wav.load(
            Path(folder) / "token2wav",
            device=placement.speech_device,
            dtype=placement.speech_dtype,
            recordings=recordings,
            chunks=speech_chunks,
            reference_compatible=reference_compatible,
        )
        runner = cls(language, token2wav)
        progress("warm-up", 0.9)
        runner._warm_up()
        gc.collect()
        gc.freeze()  # weights live for ever: the collector need not walk them in the middle of a turn
        return runner

    @property
    def voices(self) -> tuple[str, ...]:
        """Names that a turn may ask for; the first one is the default."""
        return tuple(self.token2wav.voices)

    @property
    def context_tokens(self) -> int:
        """Positions of prompt and reply together."""
        return self.language.max_positions

    @property
    def can_think(self) -> bool:
        """Whether a turn may ask for a thought before the reply."""
        return self.language.variant is Variant.THINK

    # --- audio in -----------------------------------------------------------------------------------------------

    def encode(self, session: int, piece: Piece) -> None:
        """Encode a piece into the session's context."""
        self._context(session).encode(piece)

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Free the rows of pieces."""
        context = self._contexts.get(session)
        if context is not None:
            for piece in pieces:
                context.discard(piece)

    # --- turns --------------------------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> Reply:
        """Render and prefill the prompt, open the speech stream.

        Raises:
            InputError: an unknown voice, an impossible tool choice, a sampling value out of range, a full context, or
                a thought is asked of a model that cannot think.
        """
        options = turn.options
        voice = self._voice(options.voice)
        prompt = render_turn(
            turn.items,
            instructions=options.instructions,
            tools=options.tools,
            tool_choice=options.tool_choice,
            tokenizer=self.language.tokenizer,
            spoken=options.spoken,
            variant=self.language.variant,
            think=options.think,
        )
        sampling = self.language.sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            repetition_penalty=options.repetition_penalty,
        )
        context = self._context(turn.session)
        for item in turn.items:  # cheap for those that are encoded; after a failure all are gone
            for piece in item_pieces(item):
                context.encode(piece)
        limit = options.max_tokens
        if prompt.think:
            limit = thought_limit(room=self.context_tokens - len(prompt.slots), asked=limit)
        generation = self.language.generate(context, prompt, sampling, max_tokens=limit)
        spoken = options.spoken if prompt.think else prompt.spoken
        return Reply(
            generation,
            Splitter(self.language.tokenizer, spoken=spoken, think=prompt.think),
            prompt,
            cached=generation.prefill.reused,
            sampling=sampling,
            max_tokens=options.max_tokens,
            speech=self.token2wav.open(voice) if spoken else None,
        )

    def decode(self, job: Reply) -> Written:
        """One token, and what it completes.

        Raises:
            VoiceAgentError: the reply was nothing but a tool call that cannot be made (`invalid_tool_call`).
        """
        token = job.generation.step()
        if job.splitter.thinking:
            return self._think(job, token)
        if token is not None:
            return self._written(job, job.splitter.feed(token), ended=None)
        ended: Literal["stop", "max_tokens"] = "stop" if job.generation.reason == "stop" else "max_tokens"
        return self._written(job, job.splitter.finish(), ended=ended)

    def _think(self, job: Reply, token: int | None) -> Written:
        """A token of the thought; behind the last one the reply's own generation begins."""
        parts = job.splitter.close_thought() if token is None else job.splitter.feed(token)
        if not job.splitter.thinking:
            job.thought_tokens = len(job.generation.ids)
            answer = render_answer(
                job.prompt,
                job.splitter.thought,
                tokenizer=self.language.tokenizer,
                spoken=job.speech is not None,
            )
            left = None if job.max_tokens is None else job.max_tokens - job.thought_tokens
            context = job.generation.context
            job.generation = self.language.generate(context, answer, job.sampling, max_tokens=left)
        return self._written(job, parts, ended=None)

    def wanted(self, job: Reply) -> int:
        """Speech ids that the stream wants for its next step."""
        return 1 if job.speech is None else self.token2wav.wanted(job.speech)

    def vocode(self, job: Reply, ids: list[int], *, last: bool) -> npt.NDArray[np.int16]:
        """The samples that these ids complete."""
        if job.speech is None:
            return np.zeros(0, np.int16)
        pcm, job.speech = self.token2wav.step(ids, job.speech, last=last)
        return pcm

    def summary(self, job: Reply) -> Summary:
        """Usage and the ids generated so far."""
        thinking = job.splitter.thinking
        thought = len(job.generation.ids) if thinking else job.thought_tokens
        said = () if thinking else tuple(job.generation.ids)
        heard = sum(isinstance(slot, AudioRow) for slot in job.prompt.slots)
        usage = Usage(
            input_text=len(job.prompt.slots) - heard,
            input_audio=heard,
            input_cached=job.cached,
            output_text=thought + len(said) - job.audio_tokens,
            output_audio=job.audio_tokens,
            output_thought=thought,
        )
        return Summary(usage, said)

    # --- captions, ends -----------------------------------------------------------------------------------------

    def listen(self, session: int, pieces: tuple[Piece, ...]) -> Caption:
        """Begin a transcription beside whatever the session's context holds."""
        return Caption(self.language.transcription(pieces, context=self._context(session)))

    def write(self, job: Caption) -> str | None:
        """One token; the text once it is done."""
        if job.generation is None:
            return ""
        if job.generation.step() is not None:
            return None
        return self.language.transcript(job.generation)

    def close(self, session: int) -> None:
        """Drop the session's context."""
        self._contexts.pop(session, None)

    def is_device_loss(self, error: BaseException) -> bool:
        """CUDA errors other than a full memory leave the device unusable for this process."""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            return False
        kinds = tuple(kind for kind in [getattr(torch, "AcceleratorError", None)] if kind is not None)
        return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))

    # --- inside -------------------------------------------------------------------------------------------------

    def _context(self, session: int) -> Context:
        if session not in self._contexts:
            self._contexts[session] = self.language.open()
        return self._contexts[session]

    def _voice(self, name: str) -> Voice:
        voices = self.token2wav.voices
        if name and name not in voices:
            raise InputError(
                f"There is no voice {name!r}.", remedy=f"The voices are: {', '.join(voices)}.", param="voice"
            )
        return voices[name] if name else next(iter(voices.values()))

    def _written(
        self, job: Reply, parts: tuple[Part, ...], *, ended: Literal["stop", "max_tokens"] | None
    ) -> Written:
        thought: list[str] = []
        text: list[str] = []
        text_ids: list[int] = []
        codes: list[int] = []
        calls: list[ToolUse] = []
        for part in parts:
            match part:
                case ThinkDelta():
                    thought.append(part.text)
                case TextDelta():
                    text.append(part.text)
                    text_ids += part.ids
                case SpeechCode():
                    codes.append(part.code)
                case ToolCall():
                    calls.append(ToolUse(part.name, part.arguments))
                case BrokenToolCall():
                    log.warning("the model wrote a tool call that cannot be made: %s", part.problem)
                    if not job.said:
                        raise VoiceAgentError(
                            f"The model wrote a tool call that cannot be made: {part.problem}.",
                            code="invalid_tool_call",
                        )
                case _:
                    assert_never(part)
        job.said = job.said or any(not isinstance(part, ThinkDelta) for part in parts)
        job.audio_tokens += len(codes)
        return Written(
            "".join(text), tuple(text_ids), tuple(codes), tuple(calls), ended, thought="".join(thought)
        )

    def _warm_up(self) -> None:
        """One short turn, so that the first caller does not pay for lazy set-up; nothing of it remains."""
        options = api.Options(
            spoken=True, instructions="", tools=(), tool_choice="auto", voice="", temperature=None, top_p=None,
            top_k=None, repetition_penalty=None, max_tokens=4,
        )  # fmt: skip
        turn = Turn(-1, 0, (UserItem("warm-up", (TextContent("Hello."),)),), options, 0.0)
        self.encode(-1, Piece(-1, np.zeros(16_000, np.float32)))
        job = self.begin(turn)
        while self.decode(job).ended is None:
            pass
        for _ in range(2):  # the second step of a stream takes another path than the first
            self.vocode(job, [0] * self.wanted(job), last=False)
        self.close(-1)
