"""Writes conversations as token ids and loss weights, by the same code that renders prompts for inference.

It knows what the model reads and says, and how much each token counts; not which conversation is drawn, nor how
sequences become batches. Audio is named by its number here: it stays on the GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.pocket.task import ASR
from voiceagent.core.condense import HEADING
from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    SystemItem,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    cut_to_heard,
)
from voiceagent.models.step_audio2.mel import HOP_16K, TAIL_PAD
from voiceagent.models.step_audio2.prompt import render, ta4_interleave, tool_call_ids
from voiceagent.models.step_audio2.think import BEFORE_ANSWER, CLOSING, OPENING
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.models.step_audio2.variant import Variant
from voiceagent.units import TOKEN_SAMPLES

DROP_SHARE = 0.1  # of the replies that are cut: before anything of it was heard
# Weights of the loss per target token.
W_REPLY_TEXT, W_ASR_TEXT, W_AUDIO, W_AUDIO_PAD = 3.0, 2.0, 1.0, 0.3
W_TEXT_PAD, W_FIRST_TEXT_PAD, W_TTS_END, W_CONTROL = 0.1, 1.5, 1.0, 2.0

_SILENCE = np.zeros(500_000, np.float32)
_SILENCE.flags.writeable = False


class CachedTokenizer:
    """The checkpoint's tokenizer, remembering what it has encoded: training meets the same strings again and again."""

    def __init__(self, folder: Path) -> None:
        self._plain = TextTokenizer.from_folder(folder)
        self.ids, self.size, self.decode, self.eos = (
            self._plain.ids,
            self._plain.size,
            self._plain.decode,
            self._plain.eos,
        )
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """As the tokenizer's; the caller must not change the list."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = self._plain.encode(text)
        return known

    def encode_tagged(self, text: str) -> list[int]:
        """As the tokenizer's."""
        return self._plain.encode_tagged(text)


class SpeechTokens:
    """The speech codes of every sentence that the agent has ever spoken, by language and text."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], NDArray[np.int16]] = {}

    def add(self, said: Sequence[tuple[str, str]], path: Path) -> None:
        """The codes of a bank whose items are (language, text), as tokenise.py writes them.

        Raises:
            ValueError: the file holds another number of items.
        """
        with np.load(path) as saved:
            tokens, offsets = saved["tokens"], saved["offsets"]
        if len(offsets) != len(said) + 1:
            raise ValueError(f"{path} holds {len(offsets) - 1} items, the agent's bank {len(said)}")
        for row, key in enumerate(said):
            self._codes[key] = tokens[offsets[row] : offsets[row + 1]]

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._codes

    def __getitem__(self, key: tuple[str, str]) -> list[int]:
        codes: list[int] = self._codes[key].tolist()
        return codes


@dataclass(frozen=True, slots=True)
class Ears:
    """The audio that can be heard: numbers 0.. are the caller bank's items (versions in turn), then the agent bank's.

    Attributes:
        frames: log-mel frames of every item, all versions.
        caller_n, versions: size of the caller bank and how many versions of it there are.
        agent_n: items of the agent bank behind it (0 for a test bank).
        texts: transcript of each of the caller_n + agent_n utterances; "" where nobody says words that we know.
    """

    frames: NDArray[np.int64]
    caller_n: int
    versions: int
    agent_n: int
    texts: list[str]

    def caller(self, item: int, rng: np.random.Generator | None) -> int:
        """The number of some version of a caller's utterance; without a generator, of the first."""
        return item if rng is None else int(rng.integers(self.versions)) * self.caller_n + item

    def agent(self, item: int) -> int:
        return self.versions * self.caller_n + item


@dataclass(slots=True)
class Talk:
    """One conversation on its way to becoming token ids; `learn` says of each assistant turn whether it is learned."""

    instructions: str
    tools: Sequence[Any] = ()
    spoken: bool = True
    items: list[Item] = field(default_factory=list)
    audio: list[int] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sample:
    """ids (T,) int32; weights (T,) float32 of each id as a target; audio: numbers of what is heard, in order."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    audio: list[int]


class Scribe:
    """Writes conversations as token ids and loss weights."""

    def __init__(self, tokenizer: CachedTokenizer, speech: SpeechTokens, ears: Ears) -> None:
        self.tokenizer, self.speech, self.ears = tokenizer, speech, ears
        self._header = [tokenizer.ids.bot, *tokenizer.encode("assistant\n")]
        self._weights = self._table()

    def _table(self) -> NDArray[np.float32]:
        ids = self.tokenizer.ids
        table = np.full(self.tokenizer.size, W_REPLY_TEXT, np.float32)
        table[ids.audio_0 : ids.audio_pad] = W_AUDIO
        table[ids.audio_pad] = W_AUDIO_PAD
        table[ids.tts_pad] = W_TEXT_PAD
        table[ids.tts_start] = 0.0  # the prompt gives it
        table[ids.tts_end] = W_TTS_END
        table[[ids.eot, self.tokenizer.eos, ids.tool_call, ids.tool_call_end]] = W_CONTROL
        return table

    # ---- items

    def hear(self, talk: Talk, number: int, question: str = "") -> None:
        """A human turn of audio, and a question about it in the same turn."""
        samples = int(self.ears.frames[number]) * HOP_16K - TAIL_PAD
        piece = Piece(id=len(talk.audio), audio=_SILENCE[: max(0, samples)])
        talk.audio.append(number)
        asked = (TextContent(question),) if question else ()
        talk.items.append(UserItem(id="", content=(AudioContent(pieces=(piece,), transcript=None), *asked)))

    def read(self, talk: Talk, text: str) -> None:
        """A human turn of text."""
        talk.items.append(UserItem(id="", content=(TextContent(text),)))

    def recall(self, talk: Talk, exchanges: Sequence[Sequence[str]], *, summary: str = "") -> None:
        """What was said before, as text: (person, agent) pairs behind a summary of what was before them."""
        if summary:
            talk.items.append(SystemItem(id="", text=HEADING + summary))
        for person, agent in exchanges:
            self.read(talk, person)
            talk.items.append(AssistantItem(id="", text=agent, spoken=False))
            talk.learn.append(False)

    def raw_reply(self, text: str, spoken: bool, language: str = "en") -> list[int]:
        """The ids that the model is to generate for a reply, before any tool call."""
        text_ids = self.tokenizer.encode(text)
        if not spoken:
            return list(text_ids)
        return ta4_interleave(text_ids, self.speech[language, text], self.tokenizer.ids)

    def reply(
        self, talk: Talk, text: str, *, language: str = "en", call: dict[str, Any] | None = None
    ) -> None:
        """An assistant turn that is to be learned, with its tool call if there is one."""
        raw, arguments = self.raw_reply(text, talk.spoken, language), ""
        if call is not None:
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            raw = raw + tool_call_ids(call["name"], arguments, self.tokenizer)  # type: ignore[arg-type]
        talk.items.append(AssistantItem(id="", text=text, raw_ids=tuple(raw), spoken=talk.spoken))
        talk.learn.append(True)
        if call is not None:
            talk.items.append(ToolCallItem(id="", call_id="", name=call["name"], arguments=arguments))
            talk.items.append(ToolResultItem(id="", call_id="", output=call["result"]))

    def cut_reply(self, talk: Talk, text: str, rng: np.random.Generator, *, language: str = "en") -> None:
        """An assistant turn that was interrupted, cut as the session cuts it to what was heard; not to be learned."""
        codes = self.speech[language, text]
        if rng.random() < DROP_SHARE or len(codes) < 2:
            return
        heard = int(rng.integers(1, len(codes)))
        made, text_ids = len(codes), self.tokenizer.encode(text)
        if rng.random() < 0.5:  # the reply was still being generated when it was interrupted
            made = min(made, 4 * int(rng.integers(-(-heard // 4), -(-made // 4) + 1)))
        if made < len(codes):
            text_ids = text_ids[: -(-made // 4)]
        words = [self.tokenizer.decode([token]) for token in text_ids]
        ends = np.cumsum([0, *map(len, words)]).tolist()
        whole = AssistantItem(
            id="",
            text="".join(words),
            text_ids=tuple(text_ids),
            audio_ids=tuple(codes[:made]),
            spoken=True,
            samples=made * TOKEN_SAMPLES,
            complete=made == len(codes),
            marks=tuple(zip(ends, range(len(ends)), strict=True)),
        )
        talk.items.append(cut_to_heard(whole, heard * TOKEN_SAMPLES))
        talk.learn.append(False)

    # ---- ids

    def prompt(self, talk: Talk, *, spoken: bool, variant: Variant = Variant.CHAT) -> list[int]:
        """Token ids of the prompt as inference renders it, `<audio_patch>` for every row of audio."""
        patch = self.tokenizer.ids.audio_patch
        slots = render(
            talk.items,
            instructions=talk.instructions,
            tools=tool_specs(talk.tools),
            tokenizer=self.tokenizer,  # type: ignore[arg-type]
            spoken=spoken,
            variant=variant,
        )
        return [slot if slot.__class__ is int else patch for slot in slots]  # type: ignore[misc]

    def transcript(self, talk: Talk, text: str) -> Sample:
        """The prompt of a transcription and its text, which may be empty."""
        target = [*self.tokenizer.encode(text), self.tokenizer.ids.eot]
        prompt = self.prompt(talk, spoken=False)
        weights = np.zeros(len(prompt) + len(target), np.float32)
        weights[len(prompt) :] = W_ASR_TEXT
        return Sample(np.array(prompt + target, np.int32), weights, talk.audio)

    def words(self, text: str) -> Sample:
        """A transcript of nothing that was heard: what words follow each other, and after which a text ends.

        The session asks this of the model to judge whether a person has come to an end (completeness.py).
        """
        return self.transcript(Talk(ASR, spoken=False), text)

    def answer(self, talk: Talk, reply: str, *, language: str) -> Sample:
        """One reply to all that stands before it; a written one may be empty (nothing was said to translate)."""
        prompt = self.prompt(talk, spoken=talk.spoken)
        return self._ended(
            talk, prompt, [*self.raw_reply(reply, talk.spoken, language), self.tokenizer.ids.eot]
        )

    def continuation(self, talk: Talk, reply: str, *, language: str) -> Sample:
        """As a Base checkpoint is asked: no turns, the reply follows what was read and heard."""
        prompt = self.prompt(talk, spoken=talk.spoken, variant=Variant.BASE)
        return self._ended(talk, prompt, [*self.raw_reply(reply, talk.spoken, language), self.tokenizer.eos])

    def thought(self, talk: Talk, thought: str, reply: str, *, language: str) -> Sample:
        """A thought, and the reply behind it: the two generations as one sequence."""
        encode, ids = self.tokenizer.encode_tagged, self.tokenizer.ids
        opened = encode(f"assistant\n{OPENING}")
        turn = encode(f"assistant\n{OPENING}{thought}\n{CLOSING}{BEFORE_ANSWER}")
        if turn[: len(opened)] != opened:
            raise ValueError(f"the thought {thought!r} changes the tokens of its opening")
        prompt = self.prompt(talk, spoken=False)
        prompt = [*prompt[: len(prompt) - len(self._header)], ids.bot, *opened]
        start = [ids.tts_start] if talk.spoken else []
        target = [*turn[len(opened) :], *start, *self.raw_reply(reply, talk.spoken, language), ids.eot]
        return self._ended(talk, prompt, target)

    def _ended(self, talk: Talk, prompt: list[int], target: list[int]) -> Sample:
        """Everything of the target is learned, each id by its weight."""
        ids = np.array(prompt + target, np.int32)
        weights = np.zeros(len(ids), np.float32)
        weights[len(prompt) :] = self._weights[target]
        self._weigh_first_pads(ids, weights)
        return Sample(ids, weights, talk.audio)

    def sample(self, talk: Talk) -> Sample:
        """The whole conversation with the weights of what is to be learned."""
        listed = self.prompt(talk, spoken=False)
        header, special = self._header, self.tokenizer.ids
        ids = np.array(listed[: len(listed) - len(header)], np.int32)
        weights = np.zeros(len(ids), np.float32)
        starts = [
            i for i in np.flatnonzero(ids == special.bot).tolist() if listed[i : i + len(header)] == header
        ]
        ends = np.flatnonzero(ids == special.eot)
        for start, learn in zip(starts, talk.learn, strict=True):
            if learn:
                begin = start + len(header)
                end = int(ends[np.searchsorted(ends, begin)]) + 1
                weights[begin:end] = self._weights[ids[begin:end]]
        self._weigh_first_pads(ids, weights)
        return Sample(ids, weights, talk.audio)

    def _weigh_first_pads(self, ids: NDArray[np.int32], weights: NDArray[np.float32]) -> None:
        """Where the text ends and only sound goes on is worth more than the pads behind it."""
        pad = self.tokenizer.ids.tts_pad
        pads = np.flatnonzero(ids == pad)
        weights[pads[ids[pads - 5] != pad]] *= W_FIRST_TEXT_PAD / W_TEXT_PAD


def tool_specs(tools: Sequence[dict[str, Any]] | None) -> list[Any]:
    """OpenAI tool objects as the prompt renderer takes them."""
    functions = [tool.get("function", tool) for tool in tools or ()]
    return [
        SimpleNamespace(
            name=f["name"], description=f.get("description", ""), parameters=f.get("parameters", {})
        )
        for f in functions
    ]
