"""Asks a packaged checkpoint through the runtime that the server uses, and notes what came back. Judges nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
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
)
from voiceagent.models.step_audio2.context import Context
from voiceagent.models.step_audio2.generate import LanguageModel
from voiceagent.models.step_audio2.prompt import Prompt, render_answer, render_turn
from voiceagent.models.step_audio2.think import ThoughtReader
from voiceagent.models.step_audio2.tokens import BrokenToolCall, SpeechCode, Splitter, TextDelta, ToolCall
from voiceagent.models.step_audio2.variant import Variant

LONGEST_REPLY = 450  # tokens, 14 s
LONGEST_THOUGHT = 120

Note = dict[str, Any]
Sound = NDArray[np.float32]


@dataclass(slots=True)
class Call:
    """One conversation with the model: its history is what was really heard and said."""

    model: LanguageModel
    context: Context
    instructions: str
    tools: list[Any]
    history: list[Item] = field(default_factory=list)

    def listen(self, audio: Sound, question: str = "") -> None:
        """A turn of audio, and a question about it."""
        piece = Piece(id=len(self.history), audio=audio)
        self.model.encode([(self.context, piece)])
        asked = (TextContent(question),) if question else ()
        self.history.append(UserItem(id="", content=(AudioContent(pieces=(piece,)), *asked)))

    def read(self, text: str) -> None:
        self.history.append(UserItem(id="", content=(TextContent(text),)))

    def recall(self, exchanges: Sequence[Sequence[str]], summary: str = "") -> None:
        """What was said before, as text."""
        if summary:
            self.history.append(SystemItem(id="", text=HEADING + summary))
        for person, agent in exchanges:
            self.read(person)
            self.history.append(AssistantItem(id="", text=agent, spoken=False))

    def prompt(self, *, spoken: bool, think: bool = False, base: bool = False) -> Prompt:
        return render_turn(
            self.history, instructions=self.instructions, tools=self.tools, tool_choice="auto",
            tokenizer=self.model.tokenizer, spoken=spoken, think=think,
            variant=Variant.BASE if base else Variant.THINK if think else Variant.CHAT,
        )  # fmt: skip

    def answer(self, prompt: Prompt) -> Note:
        """The reply to a prompt: text, codes, calls, seconds of this process; and the history goes on with it."""
        began = time.process_time()
        generation = self.model.generate(self.context, prompt, max_tokens=LONGEST_REPLY)
        splitter = Splitter(self.model.tokenizer, spoken=prompt.spoken)
        text, codes, calls = "", list[int](), list[Any]()
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
        raw, spoken = tuple(generation.ids), prompt.spoken
        self.history.append(
            AssistantItem(id="", text=text, raw_ids=raw, audio_ids=tuple(codes), spoken=spoken)
        )
        made = [call for call in calls if isinstance(call, ToolCall)]
        for call in made:
            self.history.append(ToolCallItem(id="", call_id="", name=call.name, arguments=call.arguments))
        return {
            "got": text.strip(),
            "codes": codes,
            "calls": [[c.name, json.loads(c.arguments)] for c in made],
            "broken": len(calls) - len(made),
            "ended": generation.reason,
            "seconds": round(time.process_time() - began, 3),
        }

    def think(self, prompt: Prompt) -> str:
        """What the model thinks before it answers."""
        generation, reader = (
            self.model.generate(self.context, prompt, max_tokens=LONGEST_THOUGHT),
            ThoughtReader(),
        )
        while not reader.closed and (token := generation.step()) is not None:
            reader.feed(self.model.tokenizer.token_bytes(token))
        if not reader.closed:
            reader.close()
        return reader.text


class Asker:
    """Asks one model; the sounds are given."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def transcript(self, audio: Sound, *, judged: bool = False) -> Note:
        """What is heard, and how likely it is that nothing follows."""
        pieces = [Piece(id=0, audio=audio)]
        generation = self.model.transcription(pieces, kept=True)
        if generation is None:
            return {"heard": ""}
        try:
            while generation.step() is not None:
                pass
            note: Note = {"heard": self.model.transcript(generation)}
            if judged:
                note["complete"] = round(self.model.completeness(pieces, generation), 5)
            return note
        finally:
            generation.context.close()

    def talk(self, made: Note, sounds: Sequence[Sound], voices: Sequence[str]) -> list[Note]:
        """A dialogue in the form of corpus.json: a note per reply, and one per reply behind a tool's result."""
        tools = [_Tool(**tool["function"]) for tool in made["tools"] or ()]
        context = self.model.open()
        call = Call(self.model, context, made["system"], tools)
        call.recall(made["history"], made["summary"])
        notes: list[Note] = []
        try:
            for place, (turn, audio) in enumerate(zip(made["turns"], sounds, strict=True)):
                notes += self._turn(call, turn, audio, {"place": place, "voice": voices[place]})
        finally:
            context.close()
        return [note | {"group": made["group"]} for note in notes]

    def _turn(self, call: Call, turn: Note, audio: Sound, known: Note) -> list[Note]:
        call.listen(audio)
        tool, heard = turn["tool"], turn["heard"]
        common = known | {
            "what": "reply", "kind": heard["kind"], "said": heard["text"], "intent": turn["intent"],
            "slots": turn["slots"], "source": turn["source"], "language": turn["language"],
        }  # fmt: skip
        wanted = [[tool["name"], tool["arguments"]]] if tool else []
        note = common | self.transcript(audio) | {"reply": turn["reply"], "wanted": wanted}
        note |= call.answer(call.prompt(spoken=True))
        if tool is None:
            return [note]
        after = common | {
            "intent": f"after {tool['name']}",
            "reply": tool["final"],
            "wanted": [],
            "slots": {},
        }
        if not note["calls"]:
            return [note, after | {"got": "<no call>", "codes": [], "calls": [], "broken": 0}]
        call.history.append(ToolResultItem(id="", call_id="", output=tool["result"]))
        return [note, after | call.answer(call.prompt(spoken=True))]

    def task(self, made: Note, audio: Sound | None) -> Note:
        """One task by its own prompt."""
        heard = made["heard"] or {}
        note: Note = {
            "what": made["name"], "reply": made["reply"], "language": made["language"], "tested": made["tested"],
            "said": heard.get("text", made["typed"]), "style": heard.get("style", ""),
        }  # fmt: skip
        hears = made["name"].startswith("asr") and audio is not None
        if hears and made["instructions"] == ASR:
            return note | self.transcript(audio, judged=True)
        context = self.model.open()
        try:
            call = Call(self.model, context, made["instructions"], [])
            call.recall(made["history"], made["summary"])
            if audio is not None:
                call.listen(audio, made["typed"])
            else:
                call.read(made["typed"])
            if made["thought"]:
                return note | {"thought": made["thought"]} | self._thought(call, spoken=made["spoken"])
            note |= call.answer(call.prompt(spoken=made["spoken"], base=made["name"] == "base"))
            return note | ({"heard": note.pop("got")} if hears else {})  # a transcript with hints
        finally:
            context.close()

    def _thought(self, call: Call, *, spoken: bool) -> Note:
        if self.model.variant is not Variant.THINK:
            return {"got": "<cannot think>", "thinks": "", "codes": []}
        opened = call.prompt(spoken=spoken, think=True)
        thinks = call.think(opened)
        prompt = render_answer(opened, thinks, tokenizer=self.model.tokenizer, spoken=spoken)
        return call.answer(prompt) | {"thinks": thinks.strip()}


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool as the prompt renderer takes it."""

    name: str
    description: str
    parameters: dict[str, Any]
