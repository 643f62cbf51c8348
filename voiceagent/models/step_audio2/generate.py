"""Runs the language model over conversations: prefill with prefix reuse, then one token at a time.

It knows no socket, no clock and no vocoder. A `LanguageModel` is immutable and shared; all state of a conversation
lies in its `Context`, all state of a reply in its `Generation`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voiceagent.core.history import Piece
from voiceagent.errors import CheckpointError, EngineError, InputError
from voiceagent.models.step_audio2.checkpoint import load_step_audio2
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot, render_transcription
from voiceagent.models.step_audio2.sampling import GREEDY, Sampler, Sampling
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant, find_variant

_PREFILL_STEPS = 1024  # positions per forward pass: bounds the attention mask of a long prompt
_MAX_NEW_TOKENS = 4096  # of a reply, where the checkpoint names no limit
_TRANSCRIPT_TOKENS = 256  # per piece of 25 s, as in the reference
_LANGUAGE_TAG = re.compile(r"^\s*<[^<>\n]{1,16}>\s*")  # the model may begin a transcript with "<中文>"


@dataclass(frozen=True, slots=True)
class Prefill:
    """How many positions of a prompt the cache already held, and how many were computed."""

    reused: int
    computed: int


@dataclass(frozen=True, slots=True, eq=False)
class LanguageModel:
    """The loaded network and tokenizer of a checkpoint.

    Attributes:
        network: encoder, adapter and language model.
        tokenizer: the checkpoint's.
        stops: ids that end a reply.
        defaults: the checkpoint's sampling, or the reference's.
        max_new_tokens: longest reply in tokens, unless a turn asks for less.
        variant: how conversations are rendered.
    """

    network: StepAudio2
    tokenizer: TextTokenizer
    stops: frozenset[int]
    defaults: Sampling
    max_new_tokens: int
    variant: Variant
    _spoken_ids: Tensor
    _text_ids: Tensor

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        variant: Variant | None = None,
    ) -> LanguageModel:
        """Reads a checkpoint folder.

        Args:
            folder: the checkpoint.
            device: torch device of the network.
            dtype: its number type.
            variant: None = as the folder says.

        Raises:
            CheckpointError: a file or tensor is missing, damaged or does not fit the others.
        """
        folder = Path(folder)
        tokenizer = TextTokenizer.from_folder(folder)
        network = load_step_audio2(folder, device=device, dtype=dtype)
        vocabulary = network.config.text.vocab_size
        if tokenizer.size > vocabulary:
            raise CheckpointError(
                f"{folder}: the tokenizer knows {tokenizer.size} tokens, but vocab_size is {vocabulary}.",
                remedy="Use the tokenizer.json that belongs to this checkpoint.",
            )
        settings = _read_settings(folder / "generation_config.json")
        ids = tokenizer.ids
        number = torch.arange(vocabulary, device=device)
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
            variant=variant,
            _spoken_ids=number <= ids.audio_pad,
            _text_ids=number < ids.audio_start,
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
        """An empty context for one conversation."""
        return Context(self)

    def generate(
        self,
        context: Context,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        max_tokens: int | None = None,
    ) -> Generation:
        """Prefills what the context does not hold yet and begins a reply; supersedes the context's last one.

        Args:
            context: of this conversation; the prompt's audio must be encoded in it.
            prompt: from `prompt.render_turn`.
            sampling: None for the checkpoint's.
            max_tokens: limit of the reply, forced ids included; None for the checkpoint's.

        Raises:
            InputError: the prompt leaves no room for a reply (code "context_full").
            EngineError: a piece of the prompt was not encoded.
        """
        slots = (*prompt.slots, *prompt.forced)
        prefill = context.prepare(slots)
        sampler = Sampler(
            sampling or self.defaults,
            self._spoken_ids if prompt.spoken else self._text_ids,
            prompt=[slot for slot in slots if isinstance(slot, int)],
        )
        limit = min(
            self.max_positions - len(prompt.slots), self.max_new_tokens if max_tokens is None else max_tokens
        )
        return Generation(context, sampler, forced=prompt.forced, limit=limit, prefill=prefill)

    def transcription(self, pieces: Sequence[Piece], *, context: Context | None = None) -> Generation | None:
        """The model's greedy transcript of what it hears, to be stepped; None if there is nothing to hear.

        Args:
            pieces: consecutive pieces of one utterance.
            context: where they may be encoded already; it is not changed.
        """
        prompt = render_transcription(pieces, self.tokenizer, self.variant)
        if not any(isinstance(slot, AudioRow) for slot in prompt.slots):
            return None
        own = Context(self) if context is None else context.blank()
        for piece in pieces:
            own.encode(piece)
        return self.generate(own, prompt, GREEDY, max_tokens=_TRANSCRIPT_TOKENS * len(pieces))

    def transcript(self, generation: Generation) -> str:
        """The text of a finished transcription, without the language tag that it may begin with."""
        text = self.tokenizer.decode(filter(self.tokenizer.is_text, generation.ids))
        return _LANGUAGE_TAG.sub("", text).strip()

    def transcribe(self, pieces: Sequence[Piece], *, context: Context | None = None) -> str:
        """`transcription`, run to its end; empty if there is nothing to hear."""
        generation = self.transcription(pieces, context=context)
        if generation is None:
            return ""
        while generation.step() is not None:
            pass
        return self.transcript(generation)


class Context:
    """What the model holds of one conversation: encoded audio, and the key-value cache with the slots behind it.

    Not for two threads at once. `slots` and the cache always agree, also after an error.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.version = 0  #: grows with every `prepare`; an older generation must not go on
        self._rows: dict[int, Tensor] = {}
        self._slots: list[Slot] = []
        with torch.inference_mode():
            self._cache = model.network.new_cache()
        self._last: Tensor | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The positions in the cache."""
        return tuple(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of cache and encoded audio."""
        return self._cache.nbytes + sum(rows.nbytes for rows in self._rows.values())

    @torch.inference_mode()
    def encode(self, piece: Piece) -> None:
        """Encodes a piece of heard audio, once; cheap to call again.

        Raises:
            InputError: the piece is longer than 25 s.
        """
        if piece.id not in self._rows:
            self._rows[piece.id] = self.model.network.encode_audio(torch.tensor(piece.audio))

    def discard(self, piece_id: int) -> None:
        """Frees the rows of a piece that no prompt will name again."""
        self._rows.pop(piece_id, None)

    @torch.inference_mode()
    def prepare(self, slots: Sequence[Slot]) -> Prefill:
        """Makes the cache hold exactly `slots`: keeps the common beginning, drops the rest, computes what is new.

        May be called early with the beginning of a prompt, so that less is left to do when the person stops talking.

        Raises:
            InputError: there are more slots than the model has positions (code "context_full").
            EngineError: an audio row's piece was not encoded, or there is no slot.
        """
        if len(slots) >= self.model.max_positions:
            raise InputError(
                f"The conversation takes {len(slots)} positions and the model has {self.model.max_positions}.",
                code="context_full",
                remedy="Delete older items or start a new session.",
            )
        missing = {slot.piece for slot in slots if isinstance(slot, AudioRow)} - self._rows.keys()
        if missing or not slots:
            raise EngineError(
                f"The audio pieces {sorted(missing)} were not encoded."
                if missing
                else "The prompt is empty.",
                code="bad_prompt",
            )
        self.version += 1
        # The last slot is computed again even if it is there: the reply begins with its hidden state.
        keep = min(_common(self._slots, slots), len(slots) - 1)
        self._cache.truncate(keep)
        del self._slots[keep:]
        for start in range(keep, len(slots), _PREFILL_STEPS):
            self._extend(slots[start : start + _PREFILL_STEPS])
        return Prefill(reused=keep, computed=len(slots) - keep)

    def fork(self) -> Context:
        """An independent context that holds the same."""
        twin = self.blank()
        with torch.inference_mode():
            twin._cache = self._cache.fork()
        twin._slots, twin._last, twin.version = list(self._slots), self._last, self.version
        return twin

    def blank(self) -> Context:
        """An empty context that has the same audio encoded."""
        twin = Context(self.model)
        twin._rows = dict(self._rows)
        return twin

    def scores(self) -> Tensor:
        """(vocabulary,) float32 scores of what follows the last slot."""
        assert self._last is not None, "prepare comes first"
        return self.model.network.logits(self._last)

    def push(self, token: int) -> None:
        """Appends one generated id."""
        self._extend((token,))

    def _extend(self, slots: Sequence[Slot]) -> None:
        """One forward pass over new positions; on an error neither slots nor cache have moved."""
        hidden = self.model.network.hidden(self._embed(slots)[None], self._cache)
        self._last = hidden[0, -1]
        self._slots += slots

    def _embed(self, slots: Sequence[Slot]) -> Tensor:
        """(n, hidden) input embeddings: token embeddings, overwritten by the rows of heard audio."""
        network, patch = self.model.network, self.model.tokenizer.ids.audio_patch
        ids = [patch if isinstance(slot, AudioRow) else slot for slot in slots]
        embeds = network.embed(torch.tensor(ids, device=network.lm_head.weight.device))
        heard = [(at, slot) for at, slot in enumerate(slots) if isinstance(slot, AudioRow)]
        for piece, run in groupby(heard, key=lambda pair: pair[1].piece):
            places, rows = zip(*((at, slot.row) for at, slot in run), strict=True)
            embeds[list(places)] = self._rows[piece][list(rows)]
        return embeds


class Generation:
    """One reply, token by token.

    Attributes:
        ids: what was generated so far, forced ids included, without the id that ended it.
        reason: None while it runs; "stop" when the model ended it, "length" at the limit.
        prefill: what the prompt cost.
    """

    def __init__(
        self, context: Context, sampler: Sampler, *, forced: Sequence[int], limit: int, prefill: Prefill
    ) -> None:
        self.context = context
        self.ids: list[int] = []
        self.reason: str | None = None
        self.prefill = prefill
        self._sampler = sampler
        self._forced = tuple(forced)
        self._limit = limit
        self._version = context.version

    @torch.inference_mode()
    def step(self) -> int | None:
        """The next id, or None once the reply has ended (see `reason`).

        Raises:
            EngineError: the context has been prepared for something else since, or the scores are not numbers.
        """
        if self.reason is None and len(self.ids) >= self._limit:
            self.reason = "length"
        if self.reason is not None:
            return None
        if self.context.version != self._version:
            raise EngineError("The reply was superseded by a newer one.", code="superseded")
        if len(self.ids) < len(self._forced):
            token = self._forced[len(self.ids)]  # in the cache already
        else:
            if len(self.ids) > len(self._forced):
                self.context.push(self.ids[-1])
            token = self._sampler.choose(self.context.scores())
            if token in self.context.model.stops:
                self.reason = "stop"
                return None
        self.ids.append(token)
        return token

    def fork(self) -> Generation:
        """An independent copy, with a context of its own, that goes on from here."""
        twin = Generation(
            self.context.fork(),
            self._sampler.fork(),
            forced=self._forced,
            limit=self._limit,
            prefill=self.prefill,
        )
        twin.ids, twin.reason = list(self.ids), self.reason
        return twin


@dataclass(frozen=True, slots=True)
class _Settings:
    sampling: Sampling
    max_new_tokens: int
    stops: tuple[int, ...]


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
        return _Settings(Sampling(**given), limit, tuple(int(stop) for stop in listed))
    except (OSError, ValueError, TypeError, AttributeError, InputError) as cause:
        raise CheckpointError(
            f"{path} cannot be used: {cause}", remedy="Repair or delete the file; it is optional."
        ) from cause


def _common(held: Sequence[Slot], wanted: Sequence[Slot]) -> int:
    """Length of the common beginning."""
    for at, (left, right) in enumerate(zip(held, wanted, strict=False)):
        if left != right:
            return at
    return min(len(held), len(wanted))
