"""Asks a packaged checkpoint what the held-out set holds, through the real runtime, and notes what came back.

It decides which questions there are and how they sound; what the notes amount to is figures.py's business. A job is a
small tuple that any process can do by itself: ("talk", bank, number), ("unclear", bank, kind, number),
("hear", bank, number), ("speak", text, codes).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import corpus
import dialogue
import gen_data
import grammar
import numpy as np
import synth
import torch
from numpy.typing import NDArray
from recogniser import Recogniser
from scipy.signal import resample_poly

from voiceagent.core.history import (
    AssistantItem,
    AudioContent,
    Item,
    Piece,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.prompt import render_turn
from voiceagent.models.step_audio2.token2wav import Token2Wav
from voiceagent.models.step_audio2.tokens import BrokenToolCall, SpeechCode, Splitter, TextDelta, ToolCall

BANKS = ("test_seen", "test_new")  # voices of the training family; an engine that training never heard
UNCLEAR_KINDS = ("noise", "silence", "babble", "foreign", "out_of_domain")
# What the server's VAD leaves around an utterance, less the 100 ms that the synthesised files have at both ends.
LEAD, TAIL = int(0.2 * synth.RATE), int(0.4 * synth.RATE)
LONGEST_REPLY = 450  # tokens, 14 s
REPLY_DIALOGUES, REPLY_SENTENCES = 6000, 3000  # what the judge's language model is counted from

Job = tuple[Any, ...]
Note = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """The held-out dialogues and generic sentences: those of the training data's corpus.json."""

    dialogues: list[dict[str, Any]]
    sentences: list[str]


@cache
def held_out() -> Held:
    """Drawn as corpus.build draws them, without the training part."""
    _, dialogues = corpus.make_dialogues(Random("1/dialogues"), train=0, test=corpus.TEST_DIALOGUES)
    _, sentences = corpus.make_generic(Random("1/generic"), train=0, test=corpus.TEST_GENERIC)
    return Held(dialogues, sentences)


@cache
def items(bank: str) -> list[gen_data.Item]:
    """Every utterance of a bank, as the training data's: turns of the dialogues, then generic sentences."""
    held = held_out()
    return gen_data.turn_items(held.dialogues, held.sentences, tag=bank, held_out=bank == "test_new")


def first_item(number: int) -> int:
    """Place of a dialogue's first utterance in its bank."""
    return sum(len(made["turns"]) for made in held_out().dialogues[:number])


def heard(item: gen_data.Item) -> NDArray[np.float32]:
    """An utterance as the server's VAD hands it over."""
    samples, _ = gen_data.make(item)
    return padded(samples, before=LEAD, after=TAIL)


def padded(samples: synth.Wave, *, before: int, after: int) -> NDArray[np.float32]:
    """As 16 kHz float32, with samples of silence around it."""
    audio = np.pad(samples, (before, after)).astype(np.float32) / 32768
    audio.flags.writeable = False
    return audio


@dataclass(slots=True)
class Call:
    """One conversation with the model: its history is what was really heard and said."""

    model: LanguageModel
    context: Context
    instructions: str
    tools: list[Any]
    history: list[Item] = field(default_factory=list)

    def listen(self, audio: NDArray[np.float32]) -> Piece:
        piece = Piece(id=len(self.history), audio=audio)
        self.context.encode(piece)
        self.history.append(UserItem(id="", content=(AudioContent(pieces=(piece,)),)))
        return piece

    def answer(self) -> Note:
        """The next reply: text, codes, calls, seconds; and the history goes on with it."""
        tokenizer = self.model.tokenizer
        prompt = render_turn(
            self.history, instructions=self.instructions, tools=self.tools, tool_choice="auto",
            tokenizer=tokenizer, spoken=True,
        )  # fmt: skip
        began = time.perf_counter()
        generation = self.model.generate(self.context, prompt, max_tokens=LONGEST_REPLY)
        splitter, text, codes, calls = Splitter(tokenizer, spoken=True), "", list[int](), list[Any]()
        while True:
            token = generation.step()
            for part in splitter.finish() if token is None else splitter.feed(token):
                if isinstance(part, TextDelta):
                    text += part.text
                elif isinstance(part, SpeechCode):
                    codes.append(part.code)
                elif isinstance(part, ToolCall | BrokenToolCall):
                    calls.append(part)
            if token is None:
                break
        raw = tuple(generation.ids)
        self.history.append(AssistantItem(id="", text=text, raw_ids=raw, audio_ids=tuple(codes), spoken=True))
        made = [call for call in calls if isinstance(call, ToolCall)]
        for call in made:
            self.history.append(ToolCallItem(id="", call_id="", name=call.name, arguments=call.arguments))
        return {
            "got": text,
            "codes": codes,
            "calls": [[c.name, json.loads(c.arguments)] for c in made],
            "broken": len(calls) - len(made),
            "ended": generation.reason,
            "tokens": len(raw),
            "seconds": round(time.perf_counter() - began, 3),
        }


class Examiner:
    """What one process needs to do any job; each network is loaded when it is first needed."""

    def __init__(self, folder: Path, scratch: Path, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.folder, self.scratch = folder, scratch
        self._loaded: dict[str, Any] = {}

    def do(self, job: Job) -> list[Note]:
        """Everything worth noting about a job."""
        kind, *rest = job
        return {"talk": self.talk, "unclear": self.unclear, "hear": self.hear, "speak": self.speak}[kind](
            *rest
        )

    def talk(self, bank: str, number: int) -> list[Note]:
        """A held-out dialogue, all its turns."""
        made = held_out().dialogues[number]
        start = first_item(number)
        return self.converse(bank, made, items(bank)[start : start + len(made["turns"])])

    def unclear(self, bank: str, kind: str, number: int) -> list[Note]:
        """One turn that nobody could understand, at the beginning of a call."""
        rng = Random(f"exam/{bank}/{kind}/{number}")
        text = ""
        while kind == "out_of_domain" and not (text and corpus.held_out(text)):
            text = grammar.out_of_domain(rng)
        turn = {"user": text, "reply": dialogue.UNCLEAR, "intent": "unclear", "slots": {}, "tool": None}
        system, tools = dialogue.system_prompt(rng), dialogue.tool_schemas(rng)
        voices = synth.held_out_voice(rng, number) if bank == "test_new" else synth.training_voice(rng)
        sound = "speech" if kind == "out_of_domain" else kind
        item = gen_data.Item(text, sound, voices, f"exam/{bank}/{kind}/{number}")
        made = {"system": system, "tools": tools, "turns": [turn]}
        return [note | {"extra": kind} for note in self.converse(bank, made, [item])]

    def hear(self, bank: str, number: int) -> list[Note]:
        """A generic sentence, to be written down."""
        text = held_out().sentences[number]
        item = items(bank)[first_item(len(held_out().dialogues)) + number]
        transcript = self._model().transcribe([Piece(id=0, audio=heard(item))])
        return [
            {"what": "hear", "bank": bank, "voice": item.voice.label(), "said": text, "heard": transcript}
        ]

    def speak(self, text: str, codes: list[int]) -> list[Note]:
        """A reply of the model's as the judges hear it, streamed, and as they hear the source voice."""
        began = time.perf_counter()
        own = self._stream(codes)
        spent = time.perf_counter() - began
        seconds = len(own) / 24_000
        source = self._synthesiser()(text, synth.Voice("flite", "slt"))
        judge = self._judge()
        at_16k = resample_poly(own.astype(np.float64), 2, 3).clip(-32768, 32767).astype(np.int16)
        note = {"what": "speak", "text": text, "own": judge(at_16k), "source": judge(source)}
        return [note | {"audio_s": round(seconds, 2), "rtf": round(spent / max(seconds, 0.04), 3)}]

    def converse(
        self,
        bank: str,
        made: dict[str, Any],
        heard_items: list[gen_data.Item],
        *,
        sounds: Sequence[NDArray[np.float32]] = (),
    ) -> list[Note]:
        """A dialogue in the form of corpus.json, each turn as its item or as `sounds` has it; a note per reply."""
        tools = [_Tool(**tool["function"]) for tool in made["tools"] or ()]
        model = self._model()
        call = Call(model, model.open(), made["system"], tools)
        notes: list[Note] = []
        for place, (turn, item) in enumerate(zip(made["turns"], heard_items, strict=True)):
            piece = call.listen(sounds[place] if sounds else heard(item))
            common = {
                "what": "reply", "bank": bank, "voice": item.voice.label(), "kind": item.kind, "said": item.text,
                "intent": turn["intent"], "slots": turn["slots"], "place": place,
            }  # fmt: skip
            transcript = model.transcribe([piece], context=call.context)
            tool = turn["tool"]
            wanted = [[tool["name"], tool["arguments"]]] if tool else []
            note = common | {"heard": transcript, "reply": turn["reply"], "wanted": wanted} | call.answer()
            notes.append(note)
            if tool is None:
                continue
            after = common | {
                "intent": f"after {tool['name']}",
                "reply": tool["final"],
                "wanted": [],
                "slots": {},
            }
            if note["calls"]:
                call.history.append(ToolResultItem(id="", call_id="", output=tool["result"]))
                notes.append(after | call.answer())
            else:
                notes.append(after | {"got": "<no call>", "codes": [], "calls": [], "broken": 0})
        return notes

    def _stream(self, codes: list[int]) -> NDArray[np.int16]:
        """Speech as the engine makes it: chunk by chunk, as the decoder asks for them."""
        decoder = self._decoder()
        state = decoder.open(next(iter(decoder.voices.values())))
        parts, at = [], 0
        while True:
            count = decoder.wanted(state)
            last = at + count >= len(codes)
            pcm, state = decoder.step(codes[at : at + count] if not last else codes[at:], state, last=last)
            parts.append(pcm)
            at += count
            if last:
                return np.concatenate(parts)

    def _once(self, name: str, make: Any) -> Any:
        if name not in self._loaded:
            self._loaded[name] = make()
        return self._loaded[name]

    def _model(self) -> LanguageModel:
        return self._once("model", lambda: LanguageModel.load(self.folder))

    def _decoder(self) -> Token2Wav:
        return self._once("decoder", lambda: Token2Wav.load(self.folder / "token2wav"))

    def _synthesiser(self) -> synth.Synthesiser:
        return self._once("synthesiser", synth.Synthesiser)

    def _judge(self) -> Recogniser:
        return self._once("judge", lambda: Recogniser(training_replies(), self.scratch))


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool as the prompt renderer takes it."""

    name: str
    description: str
    parameters: dict[str, Any]


def training_replies() -> list[str]:
    """A sample of what training had the agent say, another draw than the test set's, and every word that it knows."""
    dialogues, _ = corpus.make_dialogues(Random("judge"), train=REPLY_DIALOGUES, test=0)
    said = [turn["reply"] for made in dialogues for turn in made["turns"]]
    said += [turn["tool"]["final"] for made in dialogues for turn in made["turns"] if turn["tool"]]
    return [*said, *corpus.make_agent_generic(Random("judge"), count=REPLY_SENTENCES), *grammar.ALL_WORDS]
