"""Training sequences of the pocket language model: what it reads, what it is to say, and how much each token counts.

Every sequence is rendered by the same code that renders prompts for inference. Pure Python and numpy, so that worker
processes can build sequences while the GPU trains; audio stays on the GPU and is named by its number here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    TextContent,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    cut_to_heard,
)
from voiceagent.models.step_audio2.mel import HOP_16K, TAIL_PAD
from voiceagent.models.step_audio2.prompt import ASR_INSTRUCTIONS, render, ta4_interleave, tool_call_ids
from voiceagent.models.step_audio2.tokenizer import TextTokenizer
from voiceagent.units import TOKEN_SAMPLES

# What one training sequence is: a transcript (more often at first, while the ear is weak), or one of the others.
ASR_FIRST, ASR_LAST = 0.45, 0.28
OTHERS = {"dialogue": 0.64, "text_in": 0.09, "text_out": 0.08, "speak": 0.19}
KINDS, CUMULATIVE = tuple(OTHERS), np.cumsum(list(OTHERS.values()))
ASR_AGENT_SHARE = 0.12  # of transcripts: the agent's own voice, so that the model can also judge what it says
ASR_GENERIC_SHARE = (
    0.45  # of the callers' transcripts: sentences of any words, which no context helps to hear
)
# How often a dialogue with such a turn is drawn, others once: what has many values, or hangs on a single word.
EMPHASIS = {
    "count": 4.0, "sum": 4.0, "repeat": 4.0, "spell": 3.0, "name": 3.0, "weather": 3.0,
    "time": 2.0, "order": 1.5, "cancel": 1.5, "change_booking": 1.5,
}  # fmt: skip
CUT_SHARE = 0.15  # of dialogues with several turns: an earlier reply was interrupted
DROP_SHARE = 0.1  # of those: before anything of it was heard
SPEAK_PHRASES = (
    "repeat after me {}", "say {}", "please say {}", "repeat {}", "please repeat after me {}", "can you say {}",
    "read this aloud: {}", "repeat after me: {}",
)  # fmt: skip
QUESTION_WORDS = frozenset(
    ("what", "when", "where", "who", "how", "is", "are", "do", "does", "can", "could", "will", "which", "why")
)

# Weights of the loss per target token.
W_REPLY_TEXT, W_ASR_TEXT, W_AUDIO, W_AUDIO_PAD = 3.0, 2.0, 1.0, 0.3
W_TEXT_PAD, W_FIRST_TEXT_PAD, W_TTS_END, W_CONTROL = 0.1, 1.5, 1.0, 2.0

_SILENCE = np.zeros(400_000, np.float32)
_SILENCE.flags.writeable = False


class CachedTokenizer:
    """The checkpoint's tokenizer, remembering what it has encoded: training meets the same strings again and again."""

    def __init__(self, folder: Path) -> None:
        self._plain = TextTokenizer.from_folder(folder)
        self.ids, self.size, self.decode = self._plain.ids, self._plain.size, self._plain.decode
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
    """The speech codes of every sentence that the agent has ever spoken, by its text."""

    def __init__(self, texts: Sequence[str], path: Path) -> None:
        with np.load(path) as saved:
            self._tokens, self._offsets = saved["tokens"], saved["offsets"]
        if len(self._offsets) != len(texts) + 1:
            raise ValueError(f"{path} holds {len(self._offsets) - 1} items, the agent's bank {len(texts)}")
        self._row = {text: i for i, text in enumerate(texts)}

    def __contains__(self, text: str) -> bool:
        return text in self._row

    def __getitem__(self, text: str) -> list[int]:
        row = self._row[text]
        codes: list[int] = self._tokens[self._offsets[row] : self._offsets[row + 1]].tolist()
        return codes


@dataclass(frozen=True, slots=True)
class Ears:
    """The audio that can be heard: numbers 0.. are the caller bank's items (versions in turn), then the agent bank's.

    Attributes:
        frames: log-mel frames of every item, all versions.
        caller_n, versions: size of the caller bank and how many versions of it there are.
        agent_n: items of the agent bank behind it (0 for a test bank).
        texts: transcript of each of the caller_n + agent_n utterances; "" where there is no English speech.
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
    """One conversation on its way to becoming token ids."""

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
        table[ids.tts_end] = W_TTS_END
        table[[ids.eot, ids.tool_call, ids.tool_call_end]] = W_CONTROL
        return table

    # ---- items

    def hear(self, talk: Talk, number: int) -> None:
        """A human turn of audio."""
        samples = int(self.ears.frames[number]) * HOP_16K - TAIL_PAD
        piece = Piece(id=len(talk.audio), audio=_SILENCE[: max(0, samples)])
        talk.audio.append(number)
        talk.items.append(UserItem(id="", content=(AudioContent(pieces=(piece,), transcript=None),)))

    def read(self, talk: Talk, text: str) -> None:
        """A human turn of text."""
        talk.items.append(UserItem(id="", content=(TextContent(text),)))

    def raw_reply(self, text: str, spoken: bool) -> list[int]:
        """The ids that the model is to generate for a reply, before any tool call."""
        text_ids = self.tokenizer.encode(text)
        return ta4_interleave(text_ids, self.speech[text], self.tokenizer.ids) if spoken else list(text_ids)

    def reply(self, talk: Talk, text: str, *, call: dict[str, Any] | None = None) -> None:
        """An assistant turn that is to be learned, with its tool call if there is one."""
        raw = self.raw_reply(text, talk.spoken)
        if call is not None:
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            raw = raw + tool_call_ids(call["name"], arguments, self.tokenizer)
        talk.items.append(_generated(text, raw, spoken=talk.spoken))
        talk.learn.append(True)
        if call is not None:
            talk.items.append(ToolCallItem(id="", call_id="", name=call["name"], arguments=arguments))
            talk.items.append(ToolResultItem(id="", call_id="", output=call["result"]))

    def cut_reply(self, talk: Talk, text: str, rng: np.random.Generator) -> None:
        """An assistant turn that was interrupted, cut as the session cuts it to what was heard; not to be learned."""
        codes = self.speech[text]
        if rng.random() < DROP_SHARE or len(codes) < 2:
            return
        heard = int(rng.integers(1, len(codes)))
        made = len(codes)
        if rng.random() < 0.5:  # the reply was still being generated when it was interrupted
            made = min(made, 4 * int(rng.integers(-(-heard // 4), -(-made // 4) + 1)))
        text_ids = (
            self.tokenizer.encode(text)[: -(-made // 4)] if made < len(codes) else self.tokenizer.encode(text)
        )
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
        cut = cut_to_heard(whole, heard * TOKEN_SAMPLES)
        talk.items.append(cut)
        talk.learn.append(False)

    # ---- ids

    def prompt(self, talk: Talk, *, spoken: bool) -> list[int]:
        """Token ids of the prompt as inference renders it, `<audio_patch>` for every row of audio."""
        patch = self.tokenizer.ids.audio_patch
        slots = render(
            talk.items,
            instructions=talk.instructions,
            tools=tool_specs(talk.tools),
            tokenizer=self.tokenizer,  # type: ignore[arg-type]
            spoken=spoken,
        )
        return [slot if slot.__class__ is int else patch for slot in slots]  # type: ignore[misc]

    def transcript(self, talk: Talk, text: str) -> Sample:
        """The prompt of a transcription and its text, which may be empty."""
        target = [*self.tokenizer.encode(text), self.tokenizer.ids.eot]
        prompt = self.prompt(talk, spoken=False)
        weights = np.zeros(len(prompt) + len(target), np.float32)
        weights[len(prompt) :] = W_ASR_TEXT
        return Sample(np.array(prompt + target, np.int32), weights, talk.audio)

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
                begin += int(ids[begin] == special.tts_start)
                weights[begin:end] = self._weights[ids[begin:end]]
        pads = np.flatnonzero(ids == special.tts_pad)
        first = pads[ids[pads - 5] != special.tts_pad]  # where the text ends and only sound goes on
        weights[first] *= W_FIRST_TEXT_PAD / W_TEXT_PAD
        return Sample(ids, weights, talk.audio)


def _generated(text: str, raw_ids: Sequence[int], *, spoken: bool) -> AssistantItem:
    """An assistant turn with the ids that the model is to generate."""
    return AssistantItem(id="", text=text, raw_ids=tuple(raw_ids), spoken=spoken)


def tool_specs(tools: Sequence[dict[str, Any]] | None) -> list[Any]:
    """OpenAI tool objects as the prompt renderer takes them."""
    functions = [tool.get("function", tool) for tool in tools or ()]
    return [
        SimpleNamespace(
            name=f["name"], description=f.get("description", ""), parameters=f.get("parameters", {})
        )
        for f in functions
    ]


def typed(text: str, rng: np.random.Generator) -> str:
    """What a caller says as somebody types it: often with a capital and a closing mark."""
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.5:
        text += "?" if text.split(" ")[0].lower() in QUESTION_WORDS else "."
    return text


class Teacher:
    """Draws training samples from the corpus."""

    def __init__(self, corpus: dict[str, Any], scribe: Scribe) -> None:
        self.scribe, self.ears = scribe, scribe.ears
        self.dialogues: list[dict[str, Any]] = corpus["train"]
        self.first_item = first_items(self.dialogues)
        self.emphasis = np.cumsum([emphasis(dialogue) for dialogue in self.dialogues])
        self.sentences = [text for text in corpus["agent_generic"] if text in scribe.speech]
        self.systems = sorted({dialogue["system"] for dialogue in self.dialogues})
        check_bank(self.dialogues, self.ears.texts)

    def draw(self, rng: np.random.Generator, *, progress: float = 0.0) -> Sample:
        """One sample of a random kind; `progress` of the training is 0 to 1."""
        if rng.random() < ASR_FIRST + (ASR_LAST - ASR_FIRST) * progress:
            return self.asr(rng)
        kind = KINDS[_pick(CUMULATIVE, rng)]
        if kind == "speak":
            return self.speak(rng)
        return self.dialogue(rng, text_in=kind == "text_in", spoken=kind != "text_out")

    def asr(self, rng: np.random.Generator) -> Sample:
        """Audio to its transcript; noise and foreign speech to nothing."""
        ears, talk = self.ears, Talk(ASR_INSTRUCTIONS, spoken=False)
        if ears.agent_n and rng.random() < ASR_AGENT_SHARE:
            item = int(rng.integers(ears.agent_n))
            self.scribe.hear(talk, ears.agent(item))
            text = ears.texts[ears.caller_n + item]
        else:
            generic = int(self.first_item[-1])  # the dialogues' turns lie before it
            any_words = rng.random() < ASR_GENERIC_SHARE and generic < ears.caller_n
            item = int(rng.integers(generic if any_words else 0, ears.caller_n))
            self.scribe.hear(talk, ears.caller(item, rng))
            text = ears.texts[item]
        return self.scribe.transcript(talk, text)

    def dialogue(self, rng: np.random.Generator, *, text_in: bool = False, spoken: bool = True) -> Sample:
        """A whole conversation with every reply to be learned; `text_in`: most human turns are typed."""
        row = _pick(self.emphasis, rng)
        made = self.dialogues[row]
        talk = Talk(made["system"], made["tools"] or (), spoken)
        turns = made["turns"]
        cut = -1
        if spoken and len(turns) > 1 and rng.random() < CUT_SHARE:
            cut = int(rng.integers(len(turns) - 1))
        for k, turn in enumerate(turns):
            if text_in and turn["user"] and rng.random() < 0.8:
                self.scribe.read(talk, typed(turn["user"], rng))
            else:
                self.scribe.hear(talk, self.ears.caller(int(self.first_item[row]) + k, rng))
            if k == cut and turn["tool"] is None:
                self.scribe.cut_reply(talk, turn["reply"], rng)
                continue
            self.scribe.reply(talk, turn["reply"], call=turn["tool"])
            if turn["tool"] is not None:
                self.scribe.reply(talk, turn["tool"]["final"])
        return self.scribe.sample(talk)

    def speak(self, rng: np.random.Generator) -> Sample:
        """A sentence that nobody answers with, to be repeated aloud."""
        text = self.sentences[int(rng.integers(len(self.sentences)))]
        asked = text if rng.random() < 0.3 else text.rstrip(".?")
        phrase = SPEAK_PHRASES[int(rng.integers(len(SPEAK_PHRASES)))].format(asked)
        talk = Talk(self.systems[int(rng.integers(len(self.systems)))])
        self.scribe.read(talk, phrase[:1].upper() + phrase[1:] if rng.random() < 0.3 else phrase)
        self.scribe.reply(talk, text)
        return self.scribe.sample(talk)


def emphasis(dialogue: dict[str, Any]) -> float:
    """How often a dialogue is drawn: as its hardest turn asks."""
    return max(EMPHASIS.get(turn["intent"], 1.0) for turn in dialogue["turns"])


def _pick(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    """An index with the probability of its part of the rising sums."""
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def first_items(dialogues: Sequence[dict[str, Any]]) -> NDArray[np.int64]:
    """Number of each dialogue's first utterance in its bank; the generic sentences begin at the last value."""
    return np.cumsum([0] + [len(dialogue["turns"]) for dialogue in dialogues])


def check_bank(dialogues: Sequence[dict[str, Any]], texts: Sequence[str]) -> None:
    """Fails unless the bank's utterances are the dialogues' turns, in order."""
    spoken = [turn["user"] for dialogue in dialogues for turn in dialogue["turns"]]
    for i, (said, text) in enumerate(zip(spoken, texts, strict=False)):
        if said != text:
            raise ValueError(f"utterance {i} of the bank is {text!r}, of the corpus {said!r}")
    if len(spoken) > len(texts):
        raise ValueError(f"the bank has {len(texts)} utterances, the corpus {len(spoken)}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of similar length, right-padded with id 0. Places count through the flattened batch.

    Attributes:
        ids: (B, T) int32.
        learned: (L,) int64 places whose next id is learned; weights: (L,) float32 of that id.
        patches: (P,) int64 places of `<audio_patch>`.
        audio: (N,) int64 numbers of what is heard, in order of appearance; each has its run of patches.
    """

    ids: torch.Tensor
    learned: torch.Tensor
    weights: torch.Tensor
    patches: torch.Tensor
    audio: torch.Tensor

    def pin_memory(self) -> Batch:
        """A copy that the GPU can fetch while the CPU goes on."""
        return Batch(*(getattr(self, name).pin_memory() for name in self.__slots__))


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Endless batches of samples of similar length, at most `tokens` padded tokens each.

    `progress` is a shared tensor of one number, which the training process moves from 0 to 1.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        tokens: int,
        pool: int = 2500,
        seed: int = 0,
        progress: torch.Tensor | None = None,
    ) -> None:
        self.teacher, self.tokens, self.pool, self.seed = teacher, tokens, pool, seed
        self.progress = torch.zeros(1) if progress is None else progress

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        patch = self.teacher.scribe.tokenizer.ids.audio_patch
        while True:
            progress = min(1.0, float(self.progress[0]))
            drawn = [self.teacher.draw(rng, progress=progress) for _ in range(self.pool)]
            drawn.sort(key=lambda sample: len(sample.ids) + 8 * rng.random())
            groups = self._groups(drawn)
            for k in rng.permutation(len(groups)):
                yield collate(groups[k], patch=patch)

    def _groups(self, drawn: list[Sample]) -> list[list[Sample]]:
        """Neighbours, as many as fit into a batch."""
        groups, start = [], 0
        while start < len(drawn):
            stop = start + 1
            longest = len(drawn[start].ids)
            while stop < len(drawn) and stop - start < 512:
                longest = max(longest, len(drawn[stop].ids))
                if (stop + 1 - start) * longest > self.tokens:
                    break
                stop += 1
            groups.append(drawn[start:stop])
            start = stop
        return groups


def collate(samples: Sequence[Sample], *, patch: int) -> Batch:
    """One batch; everything that hangs on the values is looked up here, so that the GPU need not be asked."""
    width = -(-max(len(sample.ids) for sample in samples) // 8) * 8
    ids = np.zeros((len(samples), width), np.int32)
    weights = np.zeros((len(samples), width), np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, : len(sample.ids)] = sample.weights
    following = weights.reshape(-1)
    learned = np.flatnonzero(following[1:])  # no row begins with a weight, so none reaches into the next row
    audio = np.array([number for sample in samples for number in sample.audio], np.int64)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(learned),
        torch.from_numpy(following[learned + 1]),
        torch.from_numpy(np.flatnonzero(ids == patch)),
        torch.from_numpy(audio),
    )
