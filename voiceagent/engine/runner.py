"""Executes single steps with the real models; the only file of the engine that sees tensors.

It decides nothing about order, and keeps one language-model context per session and one speech stream per turn. On a
GPU language and speech each have a stream of their own, so that both compute at once.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import Item, Piece, TextContent, UserItem
from voiceagent.engine import api
from voiceagent.engine.protocol import Pcm, Speech, Summary, Written
from voiceagent.engine.reply import Ahead, Caption, Reply
from voiceagent.engine.scheduler import CAPTION_SHARE, Limits
from voiceagent.engine.slots import Turn, item_pieces
from voiceagent.errors import CapacityError, InputError
from voiceagent.models.placement import Placement
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.fitting import fit, room_for
from voiceagent.models.step_audio2.generate import Generation, LanguageModel, Later
from voiceagent.models.step_audio2.prompt import Layout, Prompt, layout_turn, render_answer
from voiceagent.models.step_audio2.sampling import Sampling
from voiceagent.models.step_audio2.scribe import Scribe
from voiceagent.models.step_audio2.think import thought_limit
from voiceagent.models.step_audio2.token2wav import CHUNKS, Speak, SpeechState, Token2Wav
from voiceagent.models.step_audio2.tokens import Splitter
from voiceagent.models.step_audio2.variant import Variant
from voiceagent.models.step_audio2.voice import Voice
from voiceagent.units import VOICE_RATE

SLICE = {"cpu": 64, "cuda": 512}
"""Positions of a prompt per step: some 25 ms on a CPU core with the pocket model, 10 ms on an H200 with a 7B."""
ENCODE = {"cpu": 1, "cuda": 4}  #: pieces per step; two take twice as long as one
SPEECH = {"cpu": 1, "cuda": 16}  #: streams per step of the vocoder; 16 take twice as long as one on an H200
EASE_S = {"cpu": 1.5, "cuda": 0.4}  #: of sound ahead, with which a stream may wait for company: some steps
LANES = {"cpu": 2, "cuda": 1}  #: vocoder steps at once: a GPU has batches instead
SESSION_POSITIONS = 4096  #: what a session is expected to hold: sessions are admitted by it
HIGH_PRIORITY = -1  #: of a CUDA stream

T = TypeVar("T")


@dataclass(slots=True)
class StepAudioRunner:
    """A Step-Audio-2-shaped language model and its Token2Wav; see `protocol.Runner`.

    Attributes:
        language: the language model.
        token2wav: the speech decoder with its prepared voices.
        limits: how much one step may hold.
    """

    language: LanguageModel
    token2wav: Token2Wav
    limits: Limits = field(default_factory=Limits)
    _contexts: dict[int, Context] = field(default_factory=dict)  # least recently used first
    _first: dict[int, str] = field(
        default_factory=dict
    )  # item that each session's prompt begins with, if cut
    _live: Counter[int] = field(default_factory=Counter)  # replies of a session that are not finished
    _speech_stream: Any = None  # torch.cuda.Stream

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
        max_batch: int = 64,
        threads: int,
        progress: Callable[[str, float], None],
    ) -> StepAudioRunner:
        """Load a checkpoint folder and warm it up; the steps but `vocode` must then come from the calling thread.

        Args:
            folder: the checkpoint.
            placement: devices, number types and memory budgets.
            variant: how the model wants to be asked; None = as the folder says.
            recordings: folder of the voices; None = the checkpoint's own.
            speech_chunks: ids per chunk of speech.
            reference_compatible: trim and cross-fade speech as the published code does.
            max_batch: replies in one decoding step.
            threads: torch threads of each thread of ours.
            progress: takes each stage and the fraction of stages behind it.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another shape.
            CapacityError: the memory does not suffice.
        """
        torch.set_num_threads(threads)
        language_device, speech_device = torch.device(placement.device), torch.device(placement.speech_device)
        if language_device.type == "cuda":
            stream = torch.cuda.Stream(language_device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]
            torch.cuda.set_stream(stream)
        token2wav = Token2Wav.load(
            Path(folder) / "token2wav",
            device=placement.speech_device,
            dtype=placement.speech_dtype,
            recordings=recordings,
            chunks=speech_chunks,
            reference_compatible=reference_compatible,
            bytes=placement.speech_bytes,
            progress=lambda stage: progress(f"speech decoder: {stage}", 0.1),
        )
        if speech_device.type == "cuda":
            torch.cuda.empty_cache()  # what making the graphs has left behind
        language = LanguageModel.load(
            folder,
            device=placement.device,
            dtype=placement.dtype,
            variant=variant,
            kv_bytes=placement.kv_room(),
            max_batch=max_batch,
            progress=lambda stage, share: progress(f"language model: {stage}", 0.4 + 0.5 * share),
        )
        limits = Limits(
            batch=max_batch,
            slice=SLICE[language_device.type],
            encode=ENCODE[language_device.type],
            speech=SPEECH[speech_device.type],
            ease=EASE_S[speech_device.type],
            lanes=LANES[speech_device.type],
            shared=speech_device == language_device and speech_device.type == "cuda",
        )
        runner = cls(language, token2wav, limits)
        if speech_device.type == "cuda":
            runner._speech_stream = torch.cuda.Stream(speech_device)  # type: ignore[no-untyped-call]
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

    @property
    def max_sessions(self) -> int:
        """How many sessions of the expected length the memory holds, all of them speaking, in a batch or two."""
        need = min(SESSION_POSITIONS, self.language.max_positions)
        room = min(self.language.pool.positions // need, self.token2wav.flow.pool.slots)
        return max(1, min(room, 2 * self.limits.batch - max(1, self.limits.batch // CAPTION_SHARE)))

    # --- audio in -----------------------------------------------------------------------------------------------

    def encode(self, pieces: Sequence[tuple[int, Piece]]) -> list[Exception | None]:
        """Encode pieces into their sessions' contexts."""
        self.language.encode([(self._context(session), piece) for session, piece in pieces])
        return [None] * len(pieces)

    def forget(self, session: int, pieces: tuple[int, ...]) -> None:
        """Free the rows of pieces."""
        context = self._contexts.get(session)
        if context is not None:
            for piece in pieces:
                context.discard(piece)

    # --- voices -------------------------------------------------------------------------------------------------

    def add_voice(self, name: str, samples: npt.NDArray[np.float32]) -> None:
        """Make a voice of a recording, beside everything else."""
        with self._on_speech():
            self.token2wav.add(name, samples, VOICE_RATE)

    def drop_voice(self, name: str) -> None:
        """Forget it; its prompt stays for as long as a stream speaks with it."""
        self.token2wav.remove(name)

    # --- prompts ------------------------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> Reply:
        """Render the prompt, open the speech stream, and reserve positions for prompt and reply.

        A turn beside the conversation gets a context of its own, which shares what both begin with.

        Raises:
            InputError: an unknown voice, an impossible tool choice, a sampling value out of range, a full context, or
                a thought is asked of a model that cannot think.
            CapacityError: no memory for the conversation or its speech, not even that of sessions that are idle.
        """
        options = turn.options
        voice = self._voice(options.voice)
        prompt, dropped, room = self._fit(turn.session, turn.items, options)
        sampling = self.language.sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            repetition_penalty=options.repetition_penalty,
        )
        self._encode_missing(turn.session, turn.items)
        limit = options.max_tokens
        if prompt.think:
            limit = thought_limit(room=self.context_tokens - len(prompt.slots), asked=limit)
        spoken = options.spoken if prompt.think else prompt.spoken
        with self._on_speech():
            speech = self.token2wav.open(voice) if spoken else None
        context = self._context(turn.session)
        if turn.apart:
            context = context.fork()
        try:
            generation = self._with_room(
                context, prompt, sampling, limit=limit, both=options.max_tokens, modest=turn.guess
            )
        except BaseException:
            if isinstance(speech, SpeechState):
                speech.close()
            if turn.apart:
                context.close()
            raise
        if not turn.apart:
            self._live[turn.session] += 1
        return Reply(
            turn.session,
            generation,
            Splitter(self.language.tokenizer, spoken=spoken, think=prompt.think),
            prompt,
            cached=generation.prefill.reused - generation.prefill.ahead,
            dropped=dropped,
            room=room,
            sampling=sampling,
            max_tokens=options.max_tokens,
            speech=speech,
            beside=turn.apart,
            one_call=not options.parallel_calls,
        )

    def listen(
        self, session: int, pieces: tuple[Piece, ...], *, how: Dictation = PLAIN, kept: bool = False
    ) -> Caption:
        """A transcription beside whatever the session's context holds."""
        context = self._context(session)
        generation = self.language.transcription(pieces, how=how, context=context, kept=kept)
        return Caption(generation, Scribe(self.language.tokenizer), kept=kept)

    def scores(self, job: Caption) -> tuple[TokenScore, ...]:
        """How likely each token was that was written down."""
        return () if job.generation is None else self.language.token_scores(job.generation)

    def completeness(self, job: Caption, pieces: tuple[Piece, ...]) -> float:
        """How likely it is that nothing follows what was written down; 0 where nothing was heard."""
        return 0.0 if job.generation is None else self.language.completeness(pieces, job.generation)

    def prepare(self, session: int, items: tuple[Item, ...], options: api.Options) -> Ahead:
        """The session's context, to be made to hold what a prompt of these items begins with."""
        prompt, _, _ = self._fit(session, items, options)
        return Ahead(self._context(session), prompt.slots)

    def read(self, job: Reply | Caption | Ahead, positions: int) -> bool:
        """Read on in a prompt."""
        if isinstance(job, Ahead):
            return job.context.read_prefix(job.slots, positions=positions)
        return job.generation is None or job.generation.read(positions)

    # --- replies ------------------------------------------------------------------------------------------------

    def decode(self, jobs: Sequence[Reply | Caption]) -> list[Written | Exception]:
        """One token of each, and what it completes."""
        generations = [job.generation for job in jobs if job.generation is not None]
        tokens = iter(self.language.decode(generations))
        results: list[Written | Exception] = []
        for job in jobs:
            token = None if job.generation is None else next(tokens)
            if isinstance(token, Later):  # it joins the pass that is being computed next
                results.append(Written())
                continue
            try:
                if isinstance(token, Exception):
                    raise token
                results.append(
                    self._heard(job, token) if isinstance(job, Caption) else self._said(job, token)
                )
            except Exception as error:  # it belongs to this job alone; the loop tells what kind it is
                results.append(error)
        return results

    def _heard(self, job: Caption, token: int | None) -> Written:
        if token is not None:
            return Written(text=job.scribe.feed(token))
        return Written(text=job.scribe.finish(), ended="stop")

    def _said(self, job: Reply, token: int | None) -> Written:
        if job.splitter.thinking:
            return self._thought(job, token)
        if token is None:
            return job.written(job.splitter.finish(), ended=job.ended())
        written = job.written(job.splitter.feed(token))
        if written.calls and job.one_call:  # what would follow is another call
            return replace(written, ended="stop")
        return written

    def _thought(self, job: Reply, token: int | None) -> Written:
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
            job.generation.close()
            context = job.generation.context if job.beside else self._context(job.session)
            job.generation = self._with_room(context, answer, job.sampling, limit=left)
        return replace(job.written(parts), reading=not job.splitter.thinking)

    def wanted(self, job: Reply) -> int:
        """Speech ids that the stream wants for its next step."""
        return 1 if job.speech is None else self.token2wav.wanted(job.speech)

    def vocode(self, parts: Sequence[Speech]) -> list[Pcm | Exception]:
        """The samples that these ids complete; from the lanes' threads."""
        with self._on_speech():
            return self.token2wav.steps([Speak(part.ids, part.job.speech, part.last) for part in parts])

    def summary(self, job: Reply) -> Summary:
        """Usage and the ids generated so far."""
        return job.summary()

    # --- ends ---------------------------------------------------------------------------------------------------

    def finish(self, job: Reply | Caption | Ahead) -> None:
        """Give back what was reserved and not used; the conversation stays, until its room is needed."""
        if isinstance(job, Ahead):
            return
        if job.generation is not None:
            job.generation.close()
        if isinstance(job, Caption):
            if job.kept and job.generation is not None:
                job.generation.context.close()
            return
        if isinstance(job.speech, SpeechState):
            job.speech.close()
        if job.beside:
            job.generation.context.close()
            return
        self._live[job.session] -= 1
        if not self._live[job.session]:
            del self._live[job.session]
            context = job.generation.context
            context.truncate(len(context.slots))

    def close(self, session: int) -> None:
        """Drop the session's context."""
        context = self._contexts.pop(session, None)
        self._first.pop(session, None)
        if context is not None:
            context.close()

    def is_device_loss(self, error: BaseException) -> bool:
        """CUDA errors other than a full memory leave the device unusable for this process."""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
            return False
        kinds = tuple(kind for kind in [getattr(torch, "AcceleratorError", None)] if kind is not None)
        return isinstance(error, kinds) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))

    # --- inside -------------------------------------------------------------------------------------------------

    def _context(self, session: int) -> Context:
        """The session's context, now the most recently used."""
        context = self._contexts.pop(session, None)
        if context is None:
            context = self.language.open()
        self._contexts[session] = context
        return context

    def _encode_missing(self, session: int, items: Sequence[Item]) -> None:
        """Cheap for pieces that are encoded; after a failure all are gone."""
        context = self._context(session)
        self.language.encode([(context, piece) for item in items for piece in item_pieces(item)])

    def _fit(
        self, session: int, items: Sequence[Item], options: api.Options
    ) -> tuple[Prompt, tuple[str, ...], int]:
        """The prompt, the ids of the items that had to be left out of it, and the room that there is for items."""
        layout = self._layout(items, options)
        room, hard = room_for(
            layout,
            context=self.context_tokens,
            reply=options.max_tokens or self.language.max_new_tokens,
            limit=options.keep_tokens,
            advised=self.language.conversation_tokens,
        )
        first = fit(
            items,
            layout,
            context=self.context_tokens,
            room=room,
            hard=hard,
            ratio=options.keep_ratio,
            floor=self._first.get(session, ""),
        )
        if first > layout.lead and not options.beside:
            self._first[session] = items[first].id
        return layout.prompt(first), tuple(item.id for item in items[layout.lead : first]), room

    def _layout(self, items: Sequence[Item], options: api.Options) -> Layout:
        return layout_turn(
            items,
            instructions=options.instructions,
            tools=options.tools,
            tool_choice=options.tool_choice,
            tokenizer=self.language.tokenizer,
            spoken=options.spoken,
            variant=self.language.variant,
            think=options.think,
            script=options.script,
        )

    def _with_room(
        self,
        context: Context,
        prompt: Prompt,
        sampling: Sampling,
        *,
        limit: int | None,
        both: int | None = None,
        modest: bool = False,
    ) -> Generation:
        """A generation for which prompt and reply are reserved; idle sessions lose theirs, the longest idle first.

        With a thought, `limit` is its own, and what is reserved holds the reply behind it too: `both` together. A
        `modest` one takes nothing from anybody.
        """
        reply = self.language.max_new_tokens if limit is None else limit
        if prompt.think:
            reply = reply + self.language.max_new_tokens if both is None else both
        need = len(prompt.slots) + len(prompt.forced) + reply
        while True:
            try:
                generation = self.language.generate(context, prompt, sampling, max_tokens=limit)
                context.sequence.reserve(min(need, self.language.max_positions))
                return generation
            except CapacityError:
                if modest or not self._evict():
                    raise

    def _evict(self) -> bool:
        """Forget the conversation that was used longest ago and is not being continued; it can be read again."""
        for session, context in self._contexts.items():
            if not self._live[session] and context.sequence.pages and context is not self._newest():
                context.truncate(0)
                return True
        return False

    def _newest(self) -> Context:
        return next(reversed(self._contexts.values()))

    def _voice(self, name: str) -> Voice:
        voices = self.token2wav.voices
        if name and name not in voices:
            raise InputError(
                f"There is no voice {name!r}.", remedy=f"The voices are: {', '.join(voices)}.", param="voice"
            )
        return voices[name] if name else next(iter(voices.values()))

    def _on_speech(self) -> AbstractContextManager[Any]:
        """Work inside goes to the speech stream; its order there is that of the calls."""
        return nullcontext() if self._speech_stream is None else torch.cuda.stream(self._speech_stream)

    def _warm_up(self) -> None:
        """One short turn, so that the first caller does not pay for lazy set-up; nothing of it remains."""
        options = api.Options(
            spoken=True, instructions="", tools=(), tool_choice="auto", voice="", temperature=None, top_p=None,
            top_k=None, repetition_penalty=None, max_tokens=4,
        )  # fmt: skip
        turn = Turn(-1, 0, (UserItem("warm-up", (TextContent("Hello."),)),), options, 0.0)
        self.encode([(-1, Piece(-1, np.zeros(16_000, np.float32)))])
        job = self.begin(turn)
        while not self.read(job, self.limits.slice):
            pass
        for _ in range(4):
            self.decode([job])
        for _ in range(2):  # the second step of a stream takes another path than the first
            self.vocode([Speech(job, [0] * self.wanted(job), last=False)])
        self.finish(job)
        self.close(-1)
