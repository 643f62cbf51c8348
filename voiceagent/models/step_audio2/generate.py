"""Runs the language model over many conversations: prompts are read in slices, replies are written together.

It knows no socket, no clock and no vocoder. All state of a conversation lies in its `Context`, all state of a reply in
its `Generation`; the pages of keys and values are shared. Everything is called from one thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from voiceagent.core.dictation import PLAIN, Dictation, TokenScore
from voiceagent.core.history import Piece
from voiceagent.errors import CheckpointError, InputError, VoiceAgentError
from voiceagent.models.step_audio2 import completeness
from voiceagent.models.step_audio2.checkpoint import INT8_ROWS, load_step_audio2, out_of_memory_named
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.decode import BUCKETS, Decoder, Next, Ticket
from voiceagent.models.step_audio2.kernels import int8
from voiceagent.models.step_audio2.kv import PAGE, KvPool, page_bytes
from voiceagent.models.step_audio2.listen import FRAMES, Listener
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, render_transcription
from voiceagent.models.step_audio2.read import SIZES, Reader
from voiceagent.models.step_audio2.reply import Generation as Generation
from voiceagent.models.step_audio2.reply import Later as Later
from voiceagent.models.step_audio2.sampling import GREEDY, Sampling
from voiceagent.models.step_audio2.scores import log_probabilities
from voiceagent.models.step_audio2.scribe import Scribe
from voiceagent.models.step_audio2.script import Allowed
from voiceagent.models.step_audio2.tokenizer import SpecialIds, TextTokenizer
from voiceagent.models.step_audio2.variant import Variant, find_variant

_CPU_KV_BYTES, _CPU_CONTEXTS = 1 << 30, 64  # at most this, and so many full contexts
_WEIGHTS = 0.5  # of loading; what the graphs take depends on whether their kernels are compiled
_MAX_NEW_TOKENS = 4096  # of a reply, where the checkpoint names no limit
_TRANSCRIPT_TOKENS = 256  # per piece of 25 s, as in the reference


@dataclass(frozen=True, slots=True, eq=False)
class LanguageModel:
    """The loaded network and tokenizer of a checkpoint.

    Attributes:
        network: encoder, adapter and language model.
        tokenizer: the checkpoint's.
        stops: ids that end a reply.
        defaults: the checkpoint's sampling, or the reference's.
        max_new_tokens: longest reply in tokens, unless a turn asks for less.
        conversation_tokens: behind longer conversations the checkpoint answers badly; None = it was taught on all
            lengths.
        variant: how conversations are rendered.
        pool: keys and values of all conversations.
        decoder: the pass that writes replies.
        reader: the pass that reads prompts.
        listener: the pass that encodes audio.
    """

    network: StepAudio2
    tokenizer: TextTokenizer
    stops: frozenset[int]
    defaults: Sampling
    max_new_tokens: int
    conversation_tokens: int | None
    variant: Variant
    pool: KvPool
    decoder: Decoder
    reader: Reader
    listener: Listener

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        variant: Variant | None = None,
        kv_bytes: int | None = None,
        max_batch: int = BUCKETS[-1],
        progress: Callable[[str, float], None] = lambda stage, share: None,
    ) -> LanguageModel:
        """Reads a checkpoint folder.

        Args:
            folder: the checkpoint.
            device: torch device of the network.
            dtype: its number type.
            variant: None = as the folder says.
            kv_bytes: memory for the keys and values of all conversations; None for half of what a GPU has left, or
                1 GiB on the CPU (where only what is used is taken).
            max_batch: replies that a pass writes at most; more take several passes.
            progress: takes what is being done ("weights", "kernels and graphs"), and the share of loading behind it.

        Raises:
            CheckpointError: a file or tensor is missing, damaged or does not fit the others.
            CapacityError: the memory does not suffice.
        """
        folder = Path(folder)
        tokenizer = TextTokenizer.from_folder(folder)
        network = load_step_audio2(
            folder, device=device, dtype=dtype, progress=lambda share: progress("weights", _WEIGHTS * share)
        )
        if (
            network.config.quantization == INT8_ROWS
            and torch.device(device).type == "cpu"
            and int8.available()
        ):
            network.pack_rows()
        vocabulary = network.config.text.vocab_size
        if tokenizer.size > vocabulary:
            raise CheckpointError(
                f"{folder}: the tokenizer knows {tokenizer.size} tokens, but vocab_size is {vocabulary}.",
                remedy="Use the tokenizer.json that belongs to this checkpoint.",
            )
        settings = _read_settings(folder / "generation_config.json")
        ids = tokenizer.ids
        masks = _masks(ids, torch.arange(vocabulary, device=device))
        pool = _make_pool(network, kv_bytes)
        decoder = Decoder(network, pool, masks, largest=max_batch)
        reader, listener = Reader(network, pool), Listener(network)
        if masks.is_cuda:
            _capture(decoder, reader, listener, max_batch=max_batch, progress=progress)
        variant = variant or find_variant(folder)
        stops = {ids.eot, ids.endoftext, ids.im_end, *network.config.eos_token_ids, *settings.stops}
        if variant is Variant.BASE:  # it knows no turns that could end
            stops = {tokenizer.eos}
        return cls(
            network=network,
            tokenizer=tokenizer,
            stops=frozenset(stops),
            defaults=settings.sampling,
            max_new_tokens=settings.max_new_tokens,
            conversation_tokens=settings.conversation_tokens,
            variant=variant,
            pool=pool,
            decoder=decoder,
            reader=reader,
            listener=listener,
        )

    @property
    def max_positions(self) -> int:
        """Prompt and reply together may not be longer than this."""
        return self.network.config.text.max_position_embeddings

    def sampling(
        self,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
    ) -> Sampling:
        """The checkpoint's sampling with what a turn asks for put in.

        Raises:
            InputError: a value is out of range.
        """
        asked = {
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return replace(self.defaults, **changes)

    def open(self) -> Context:
        """An empty context for one conversation; close it at the end."""
        return Context(self.network, self.pool, reader=self.reader, patch=self.tokenizer.ids.audio_patch)

    @torch.inference_mode()
    def encode(self, wanted: Sequence[tuple[Context, Piece]]) -> None:
        """Encodes pieces of heard audio, of any contexts; cheap for those that are encoded already.

        Raises:
            InputError: a piece is longer than 25 s; none was encoded.
        """
        new = [(context, piece) for context, piece in wanted if not context.holds(piece.id)]
        rows = self.listener.encode([torch.tensor(piece.audio) for _, piece in new])
        for (context, piece), encoded in zip(new, rows, strict=True):
            context.put(piece.id, encoded)

    def generate(
        self,
        context: Context,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        max_tokens: int | None = None,
    ) -> Generation:
        """A reply whose prompt is still to be read; it supersedes the context's last one. Computes nothing.

        Args:
            context: of this conversation; the prompt's audio must be encoded in it.
            prompt: from `prompt.render_turn`.
            sampling: None for the checkpoint's.
            max_tokens: limit of the reply, forced ids included; None for the checkpoint's.

        Raises:
            InputError: the prompt leaves no room for a reply (code "context_full").
            EngineError: a piece of the prompt was not encoded, or the prompt is empty or ends within audio.
            CapacityError: there are not enough free pages for the prompt (code "kv_full").
        """
        return self._generation(context, prompt, sampling or self.defaults, max_tokens=max_tokens)

    def decode(self, generations: Sequence[Generation]) -> list[int | Exception | Later | None]:
        """One step of each reply: its next id, None once it has ended, or what is wrong with it.

        On a GPU the following step is begun before this one has ended, so that the GPU never waits for the host. A
        reply that joins then is told `LATER`: it takes part in that following step.

        No reply may be named twice. An exception of the device is raised.
        """
        results: list[int | Exception | Later | None] = []
        fresh: dict[int, Next] = {}
        begun: dict[int, Ticket] = {}
        for at, generation in enumerate(generations):
            try:
                offered = generation.offer()
            except VoiceAgentError as problem:
                results.append(problem)
                continue
            results.append(None if isinstance(offered, Next | Ticket) else offered)
            if isinstance(offered, Next):
                fresh[at] = offered
                results[at] = Later.LATER
            elif isinstance(offered, Ticket):
                begun[at] = offered
        if not begun:
            begun, fresh = self._launch(generations, fresh), {}
        if self.decoder.ahead:
            self._begin(generations, begun, fresh)
        for at, ticket in begun.items():
            try:
                results[at] = generations[at].take(ticket.token())
            except VoiceAgentError as problem:
                results[at] = problem
        return results

    def _begin(
        self, generations: Sequence[Generation], begun: Mapping[int, Ticket], fresh: dict[int, Next]
    ) -> None:
        """Begins the pass behind one that was begun, with all who are in that one and all who join."""
        batch = dict(fresh)
        for at in begun:
            following = generations[at].ahead()
            if following is not None:
                batch[at] = following
        # If it fails, the ids of the pass before are still good: the next call meets the same error and raises it.
        with suppress(RuntimeError):
            self._launch(generations, batch)

    def _launch(self, generations: Sequence[Generation], batch: Mapping[int, Next]) -> dict[int, Ticket]:
        tickets = dict(zip(batch, self.decoder.launch(list(batch.values())), strict=True))
        for at, ticket in tickets.items():
            generations[at].board(ticket)
        return tickets

    def transcription(
        self,
        pieces: Sequence[Piece],
        *,
        how: Dictation = PLAIN,
        context: Context | None = None,
        kept: bool = False,
    ) -> Generation | None:
        """The model's greedy transcript of what it hears, to be stepped; None if there is nothing to hear.

        Args:
            pieces: consecutive pieces of one utterance.
            how: what is known of the speech.
            context: where they may be encoded already; it is not changed.
            kept: the transcript's own context stays when it ends, for `completeness` and `token_scores`, and is the
                caller's to close.
        """
        prompt = render_transcription(pieces, self.tokenizer, self.variant, how=how)
        if not any(isinstance(slot, AudioRow) for slot in prompt.slots):
            return None
        own = self.open() if context is None else context.blank()
        self.encode([(own, piece) for piece in pieces])
        return self._generation(
            own, prompt, GREEDY, max_tokens=_TRANSCRIPT_TOKENS * len(pieces), alone=not kept
        )

    def transcript(self, generation: Generation) -> str:
        """The text of a finished transcription, without the language tag that it may begin with."""
        scribe = Scribe(self.tokenizer)
        return "".join(map(scribe.feed, generation.ids)) + scribe.finish()

    def token_scores(self, generation: Generation) -> tuple[TokenScore, ...]:
        """How likely each token of a finished transcription (kept) was, those of its language tag left out.

        One pass over what was written: nothing is kept of the scores while it is.

        Raises:
            CapacityError: no pages are left (code "kv_full").
        """
        ids, scribe = generation.ids, Scribe(self.tokenizer)
        found = []
        for token, score in zip(
            ids, log_probabilities(generation.context, generation.slots, ids), strict=True
        ):
            scribe.feed(token)
            if scribe.begun and self.tokenizer.is_text(token):
                found.append(TokenScore(tuple(self.tokenizer.token_bytes(token)), score))
        return tuple(found)

    def completeness(self, pieces: Sequence[Piece], generation: Generation) -> float:
        """How likely nothing follows what these pieces say, of which `generation` is the finished transcript (kept).

        Raises:
            CapacityError: no pages are left (code "kv_full").
        """
        alone = self.open()
        try:
            return completeness.completeness(
                pieces,
                generation.ids,
                heard=generation.context,
                alone=alone,
                tokenizer=self.tokenizer,
                variant=self.variant,
                stops=self.stops,
            )
        finally:
            alone.close()

    def judge(self, pieces: Sequence[Piece]) -> tuple[str, float]:
        """The transcript of pieces, and how likely nothing follows: all that `completeness` needs, run to its end."""
        generation = self.transcription(pieces, kept=True)
        if generation is None:
            return "", 0.0
        while generation.step() is not None:
            pass
        try:
            return self.transcript(generation), self.completeness(pieces, generation)
        finally:
            generation.context.close()

    def transcribe(self, pieces: Sequence[Piece], *, context: Context | None = None) -> str:
        """`transcription`, run to its end; empty if there is nothing to hear."""
        generation = self.transcription(pieces, context=context)
        if generation is None:
            return ""
        while generation.step() is not None:
            pass
        return self.transcript(generation)

    def _generation(
        self,
        context: Context,
        prompt: Prompt,
        sampling: Sampling,
        *,
        max_tokens: int | None,
        alone: bool = False,
    ) -> Generation:
        """`alone`: the context is closed with the reply."""
        limit = self.max_new_tokens if max_tokens is None else max_tokens
        limit = min(self.max_positions - len(prompt.slots), limit)
        return Generation(self, context, prompt, sampling, limit=limit, alone=alone)


@dataclass(frozen=True, slots=True)
class _Settings:
    sampling: Sampling
    max_new_tokens: int
    stops: tuple[int, ...]
    conversation_tokens: int | None = None


def _read_settings(path: Path) -> _Settings:
    """`generation_config.json`, which may be absent; fields that are absent or null keep the reference's values."""
    if not path.exists():
        return _Settings(Sampling(), _MAX_NEW_TOKENS, ())
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = ("temperature", "top_p", "top_k", "repetition_penalty")
        given = {name: raw[name] for name in names if raw.get(name) is not None}
        if raw.get("do_sample") is False:
            given["temperature"] = 0.0
        stops = raw.get("eos_token_id")
        listed = stops if isinstance(stops, list) else [] if stops is None else [stops]
        limit = int(raw.get("max_new_tokens") or _MAX_NEW_TOKENS)
        length = raw.get("conversation_tokens")  # not one of the published names
        length = None if length is None else int(length)
        return _Settings(Sampling(**given), limit, tuple(int(stop) for stop in listed), length)
    except (OSError, ValueError, TypeError, AttributeError, InputError) as cause:
        raise CheckpointError(
            f"{path} cannot be used: {cause}", remedy="Repair or delete the file; it is optional."
        ) from cause


def _masks(ids: SpecialIds, number: torch.Tensor) -> torch.Tensor:
    """(n, vocabulary) bool: what may be chosen, a row for each of `Allowed`."""
    sets = {
        Allowed.SPOKEN: number <= ids.audio_pad,
        Allowed.WRITTEN: number < ids.audio_start,
        Allowed.SOUND: (number >= ids.audio_0) & (number <= ids.audio_pad),
        Allowed.CLOSING: (number == ids.tts_pad) | (number == ids.tts_end),
    }
    return torch.stack([sets[allowed] for allowed in Allowed])


def _capture(
    decoder: Decoder,
    reader: Reader,
    listener: Listener,
    *,
    max_batch: int,
    progress: Callable[[str, float], None],
) -> None:
    """Captures all passes; the first start on a machine compiles their kernels, which takes most of its time."""
    sizes = [size for size in BUCKETS if size <= max_batch]
    count, made = len(sizes) + len(SIZES) + len(FRAMES), -1

    def told() -> None:
        nonlocal made
        made += 1
        progress("kernels and graphs", _WEIGHTS + (1 - _WEIGHTS) * made / count)

    told()
    share = decoder.capture(sizes, told=told)
    reader.capture(share=share, told=told)
    listener.capture(share=share, told=told)


def _make_pool(network: StepAudio2, kv_bytes: int | None) -> KvPool:
    """The shared pages, on the network's device in its dtype."""
    weight, config = network.lm_head.weight, network.config.text
    context = page_bytes(config, weight.dtype) * -(-config.max_position_embeddings // PAGE)
    if kv_bytes is None and weight.is_cuda:
        kv_bytes = torch.cuda.mem_get_info(weight.device)[0] // 2
    elif kv_bytes is None:
        kv_bytes = max(context, min(_CPU_KV_BYTES, _CPU_CONTEXTS * context))
    with out_of_memory_named(weight.device, what=f"{kv_bytes / 1e9:.1f} GB of keys and values"):
        return KvPool(config, nbytes=kv_bytes, device=weight.device, dtype=weight.dtype)
