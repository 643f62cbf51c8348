"""One reply: its prompt is read in slices, then it is written token by token. It knows no text and no rendering."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from voiceagent.errors import CapacityError, EngineError
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.decode import Next, Ticket
from voiceagent.models.step_audio2.prompt import AudioRow, Prompt, Slot
from voiceagent.models.step_audio2.sampling import Draws, Sampling
from voiceagent.models.step_audio2.script import Allowed

if TYPE_CHECKING:
    from voiceagent.models.step_audio2.generate import LanguageModel


class Later(Enum):
    """The reply joins the pass that is begun next; ask again."""

    LATER = auto()


@dataclass(frozen=True, slots=True)
class Prefill:
    """How many positions of a prompt the context already held, and how many are to be computed.

    `ahead` of the reused ones were computed for this prompt, only before it was asked for.
    """

    reused: int
    computed: int
    ahead: int = 0


class Generation:
    """One reply: its prompt is read in slices, then it is written token by token.

    Attributes:
        context: the conversation.
        ids: what was generated so far, forced ids included, without the id that ended it.
        reason: None while it runs; "stop" when the model ended it, "length" at the limit, "closed" by `close`.
        prefill: what the prompt costs.
    """

    def __init__(
        self,
        model: LanguageModel,
        context: Context,
        prompt: Prompt,
        sampling: Sampling,
        *,
        limit: int,
        alone: bool = False,
    ) -> None:
        self.context = context
        self.ids: list[int] = []
        self.reason: str | None = None
        self._row: int | None = None
        self._drawn: list[float] = []  # random numbers of the next steps, as far as they are drawn
        self._begun: list[tuple[Ticket, int]] = []  # passes that were begun for it, and the position of each
        self._model, self._prompt, self._sampling = model, prompt, sampling
        self._limit, self._alone = limit, alone
        self._draws = Draws(sampling.seed)
        self._slots = (*prompt.slots, *prompt.forced)
        # The last slot is left to the first step, whose scores say what follows it.
        kept = context.begin(self._slots, keep=len(self._slots) - 1)
        self.prefill = Prefill(kept, computed=len(self._slots) - kept, ahead=context.take_early())
        self._version = context.version
        last = self._slots[-1]
        if isinstance(last, AudioRow):
            raise EngineError("A prompt cannot end within heard audio.", code="bad_prompt")
        self._token = last

    def __del__(self) -> None:
        self.close()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What its prompt holds, forced ids included."""
        return self._slots

    @property
    def ready(self) -> bool:
        """Whether the prompt is read."""
        return self.context.sequence.length >= len(self._slots) - 1

    def read(self, positions: int) -> bool:
        """Computes up to `positions` more positions of the prompt; whether it is all read now.

        Raises:
            EngineError: the context has been given another prompt since.
        """
        self._check()
        self.context.read(self._slots[:-1], positions=positions)
        return self.ready

    def step(self) -> int | None:
        """The next id, or None once the reply has ended (see `reason`); reads what is left of the prompt first.

        Raises:
            EngineError: the context has been given another prompt since, or the scores are not numbers.
            CapacityError: there is no page left (code "kv_full").
        """
        if self.reason is None and not self.ready:
            self.read(len(self._slots))
        result = self._model.decode([self])[0]
        while isinstance(result, Later):
            result = self._model.decode([self])[0]
        if isinstance(result, Exception):
            raise result
        return result

    def fork(self) -> Generation:
        """An independent copy, with a context of its own, that goes on from here."""
        twin = copy(self)
        twin._row, twin._begun = None, []
        twin.context = self.context.fork()
        twin.ids, twin._draws, twin._drawn = list(self.ids), self._draws.fork(), list(self._drawn)
        return twin

    def close(self) -> None:
        """Gives back what the reply holds beside its context; it cannot go on. May be called again."""
        row, self._row = self._row, None
        self._begun.clear()
        if row is not None:
            self._model.decoder.close(row)
        self.reason = self.reason or "closed"
        if self._alone:
            self.context.close()

    def offer(self) -> Next | Ticket | int | None:
        """The next id where it is known already, None where the reply has ended, else what a pass has to compute.

        A ticket stands for a pass that was begun for it.

        Raises:
            EngineError: as `step`, or the prompt is not read (code "not_read").
            CapacityError: no page or no row is left.
        """
        if self.reason is None and len(self.ids) >= self._limit:
            self._end("length")
        if self.reason is not None:
            return None
        self._check()
        if len(self.ids) < len(self._prompt.forced):
            self.ids.append(self._prompt.forced[len(self.ids)])  # in the pages already, or next to be fed
            return self.ids[-1]
        if not self.ready:
            raise EngineError("The prompt has not been read.", code="not_read")
        if self._begun and self._begun[0][1] == self.context.sequence.length:
            return self._begun[0][0]
        self._begun.clear()
        return self._next()

    def ahead(self) -> Next | None:
        """What the pass after the one that was begun has to compute, if the reply may go on and there is room."""
        known = len(self.ids) + len(self._begun)
        if self.reason is not None or len(self._begun) > 1 or known >= self._limit:
            return None
        try:
            return self._next()
        except CapacityError:
            return None

    def board(self, ticket: Ticket) -> None:
        """Takes note that a pass was begun with what `offer` or `ahead` said."""
        self._begun.append((ticket, self.context.sequence.length + len(self._begun)))

    def _next(self) -> Next:
        sequence, before = self.context.sequence, len(self._begun)
        position = sequence.length + before
        sequence.reserve(position + 1)
        if self._row is None:
            seen = {slot for slot in self._slots if isinstance(slot, int)}
            self._row = self._model.decoder.open(self._sampling, seen=seen.union(self.ids))
        while len(self._drawn) <= before:
            self._drawn.append(self._draws.next())
        token = self._given(len(self.ids) + before - 1) if before else self._token
        return Next(self._row, sequence, position, token, self._drawn[before], self._allowed(before))

    def _given(self, at: int) -> int | None:
        """The id at place `at` of the reply, where a script says it."""
        return None if self._prompt.script is None else self._prompt.script.given(at)

    def _allowed(self, before: int) -> Allowed:
        """What may be chosen by the pass behind `before` passes that were begun."""
        if self._prompt.script is not None:
            return self._prompt.script.allowed(len(self.ids) + before)
        return Allowed.SPOKEN if self._prompt.spoken else Allowed.WRITTEN

    def take(self, token: int | None) -> int | None:
        """What the pass has chosen: the id, or None if it ends the reply.

        Raises:
            EngineError: the scores were not numbers.
        """
        if token is None:
            self._begun.clear()
            raise EngineError(
                "The language model's scores are not numbers.",
                code="model_failed",
                remedy="Check the checkpoint, or use float32 or bfloat16 weights.",
            )
        self.context.hold((self._token,))
        del self._begun[:1], self._drawn[:1]
        given = self._given(len(self.ids))
        token = token if given is None else given
        script = self._prompt.script
        if token in self._model.stops or (script is not None and token == script.end):
            self._end("stop")
            return None
        self._token = token
        self.ids.append(token)
        return token

    def _end(self, reason: str) -> None:
        self.reason = reason
        self.close()

    def _check(self) -> None:
        if self.context.version != self._version:
            raise EngineError("The reply was superseded by a newer one.", code="superseded")
