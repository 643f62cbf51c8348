"""Measures the pocket language model on dialogues and sentences that training never heard, with greedy decoding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scripts.pocket.features import FeatureBank, cer_wer
from scripts.pocket.lm_data import check_bank, first_items, task_talk, tasks_by_name
from scripts.pocket.lm_scribe import Scribe, Talk
from scripts.pocket.scoring import engine, percent, rounded, same_intent, slots_right, tally
from scripts.pocket.task import ASR
from voiceagent.models.step_audio2.kv import PAGE, KvPool, KvSequence, page_bytes
from voiceagent.models.step_audio2.lm import Chunk, Step
from voiceagent.models.step_audio2.model import StepAudio2
from voiceagent.models.step_audio2.prompt import tool_call_ids

MAX_REPLY = 400
MAX_TRANSCRIPT = 64
BATCH = 256


class Hearing:
    """Feature banks as one: the items of the first, then those of the second."""

    def __init__(self, banks: Sequence[FeatureBank]) -> None:
        self.banks = banks
        self.starts = np.cumsum([0, *(bank.n for bank in banks)])
        self.frames = np.concatenate([bank.frames for bank in banks])

    def batch(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """mel (N, 128, T) and frames (N,) in the order of `numbers`."""
        for k, bank in enumerate(self.banks):
            if self.starts[k] <= numbers.min() and numbers.max() < self.starts[k + 1]:
                mel, frames = bank.batch(numbers - self.starts[k])
                return mel, frames
        width, device = int(self.frames[numbers].max()), self.banks[0].device
        mel = torch.zeros(len(numbers), 128, width, device=device)
        frames = torch.zeros(len(numbers), dtype=torch.int64, device=device)
        for k, bank in enumerate(self.banks):
            own = np.flatnonzero((numbers >= self.starts[k]) & (numbers < self.starts[k + 1]))
            if len(own):
                part, counts = bank.batch(numbers[own] - self.starts[k])
                rows = torch.from_numpy(own).to(device, non_blocking=True)
                mel[rows, :, : part.shape[2]] = part
                frames[rows] = counts
        return mel, frames


def embed_with_audio(
    model: StepAudio2, ids: Tensor, audio_rows: Tensor | None, counts: Tensor | None, *, patch: int
) -> Tensor:
    """Input embeddings of (B, T) ids; the patches, row by row, get the audio rows in order of appearance."""
    embeds = model.embed(ids)
    if audio_rows is None or counts is None:
        return embeds
    real = torch.arange(audio_rows.shape[1], device=ids.device) < counts[:, None]
    return embeds.masked_scatter((ids == patch)[..., None], audio_rows[real].to(embeds.dtype))


def read(
    model: StepAudio2, prompts: Sequence[Tensor], *, room: int
) -> tuple[KvPool, list[KvSequence], Tensor]:
    """Reads (T, hidden) prompts: the pages, with room for a reply each, and the last states (N, hidden)."""
    text, weight = model.config.text, model.lm_head.weight
    pages = sum(-(-(len(prompt) + room) // PAGE) for prompt in prompts)
    pool = KvPool(
        text, nbytes=pages * page_bytes(text, weight.dtype), device=weight.device, dtype=weight.dtype
    )
    sequences, states = [], []
    for prompt in prompts:
        sequence = pool.open()
        sequence.reserve(len(prompt) + room)
        chunk = Chunk.after(sequence, len(prompt), pool=pool, rotary=model.model.tables)
        states.append(model.model.extend(prompt, chunk)[-1])
        sequence.advance(len(prompt))
        sequences.append(sequence)
    return pool, sequences, torch.stack(states)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and what should come of it."""

    prompt: list[int]
    audio: list[int]
    name: str
    said: str
    reply: str
    call: list[int]
    slots: dict[str, str]
    voice: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model generated: text, speech codes, what follows the speech, and whether 1 text : 4 audio held."""

    text: str
    codes: list[int]
    tail: list[int]
    in_pattern: bool


class Exam:
    """The questions of one test bank."""

    def __init__(self, corpus: dict[str, Any], scribe: Scribe, bank: FeatureBank) -> None:
        self.scribe, self.bank, self.hearing = scribe, bank, Hearing([bank])
        self.dialogues: list[dict[str, Any]] = corpus["test"]
        self.first = first_items(self.dialogues)
        self.tasks = tasks_by_name(corpus["task_test"], first=int(self.first[-1]))
        heard = sum(task["heard"] is not None for task in corpus["task_test"])
        self.generic = range(int(self.first[-1]) + heard, bank.n)
        check_bank(corpus, scribe.ears.texts, test=True)
        self.patch = scribe.tokenizer.ids.audio_patch

    def questions(self, dialogues: int) -> Iterator[Question]:
        """Every turn of the first dialogues, and every reply after a tool result; the past is as it should be."""
        tokenizer = self.scribe.tokenizer
        for row, made in enumerate(self.dialogues[:dialogues]):
            talk = Talk(made["system"], made["tools"] or ())
            self.scribe.recall(talk, made["history"], summary=made["summary"])
            for k, turn in enumerate(made["turns"]):
                item = int(self.first[row]) + k
                self.scribe.hear(talk, item)
                tool = turn["tool"]
                call = []
                if tool is not None:
                    arguments = json.dumps(tool["arguments"], ensure_ascii=False)
                    call = tool_call_ids(tool["name"], arguments, tokenizer)  # type: ignore[arg-type]
                yield self._question(talk, item, turn["intent"], turn["reply"], call=call, turn=turn)
                language = turn["language"]
                if (language, turn["reply"]) not in self.scribe.speech:
                    break
                self.scribe.reply(talk, turn["reply"], language=language, call=tool)
                if tool is not None:
                    yield self._question(talk, item, f"after {tool['name']}", tool["final"])
                    if (language, tool["final"]) not in self.scribe.speech:
                        break
                    self.scribe.reply(talk, tool["final"], language=language)

    def _question(
        self,
        talk: Talk,
        item: int,
        name: str,
        reply: str,
        *,
        call: list[int] | None = None,
        turn: dict[str, Any] | None = None,
    ) -> Question:
        return Question(
            prompt=self.scribe.prompt(talk, spoken=True),
            audio=list(talk.audio),
            name=name,
            said=self.scribe.ears.texts[item],
            reply=reply,
            call=call or [],
            slots=turn["slots"] if turn else {},
            voice=self.bank.voices[item],
            kind=self.bank.kinds[item],
        )

    @torch.inference_mode()
    def answers(self, model: StepAudio2, questions: Sequence[Question], *, limit: int) -> list[list[int]]:
        """Greedy continuations, without the end token."""
        order = sorted(range(len(questions)), key=lambda i: len(questions[i].prompt))
        out: list[list[int]] = [[] for _ in questions]
        for start in range(0, len(order), BATCH):
            part = [questions[i] for i in order[start : start + BATCH]]
            for i, ids in zip(order[start : start + BATCH], self._decode(model, part, limit), strict=True):
                out[i] = ids
        return out

    def _decode(self, model: StepAudio2, questions: Sequence[Question], limit: int) -> list[list[int]]:
        device, eot = model.lm_head.weight.device, self.scribe.tokenizer.ids.eot
        width = max(len(question.prompt) for question in questions)
        ids = torch.zeros(len(questions), width, dtype=torch.int64)
        for row, question in enumerate(questions):
            ids[row, width - len(question.prompt) :] = torch.tensor(question.prompt)
        numbers = np.array([number for question in questions for number in question.audio], np.int64)
        rows = counts = None
        if len(numbers):
            mel, frames = self.hearing.batch(numbers)
            rows, counts = model.adapter(*model.encoder(mel, frames - 2))
        embeds = embed_with_audio(model, ids.to(device), rows, counts, patch=self.patch)
        prompts = [embeds[row, width - len(question.prompt) :] for row, question in enumerate(questions)]
        pool, sequences, states = read(model, prompts, room=limit)
        longest = max(len(sequence.pages) for sequence in sequences)
        tables = torch.tensor([s.pages + [0] * (longest - len(s.pages)) for s in sequences], device=device)
        past = torch.tensor([sequence.length for sequence in sequences], device=device)
        steps: list[Tensor] = []
        done = torch.zeros(len(questions), dtype=torch.bool, device=device)
        for step in range(limit):
            chosen = torch.where(done, eot, model.scores(states).argmax(-1))
            steps.append(chosen)
            done |= chosen == eot
            if step % 16 == 15 and bool(done.all()):
                break
            at = past + step
            places = tables.gather(1, at[:, None] // PAGE)[:, 0] * PAGE + at % PAGE
            new = Step(
                positions=at,
                places=places,
                tables=tables.int(),
                lengths=(at + 1).int(),
                pool=pool.tensor,
                rotary=model.model.tables,
            )
            states = model.model.extend(model.embed(chosen), new)
        generated: list[list[int]] = torch.stack(steps, 1).tolist()
        return [row[: row.index(eot)] if eot in row else row for row in generated]

    def understand(self, ids: list[int]) -> Answer:
        """Takes a generated reply apart."""
        special, tokenizer = self.scribe.tokenizer.ids, self.scribe.tokenizer
        ended = special.tts_end in ids
        stop = ids.index(special.tts_end) if ended else len(ids)
        speech, tail = ids[:stop], ids[stop + 1 :]
        text = tokenizer.decode(i for i in speech if i < special.audio_start)
        codes = [i - special.audio_0 for i in speech if special.audio_0 <= i < special.audio_pad]
        phase = all((i >= special.audio_0) == (at % 5 != 0) for at, i in enumerate(speech))
        return Answer(
            text if ended else text + " <no end>", codes, tail, ended and phase and len(speech) % 5 == 0
        )

    # ---- figures

    def replies(
        self, model: StepAudio2, *, dialogues: int, judge: Any = None
    ) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Figures over all turns, and every wrong reply."""
        questions = list(self.questions(dialogues))
        answers = [self.understand(ids) for ids in self.answers(model, questions, limit=MAX_REPLY)]
        pairs = list(zip(questions, answers, strict=True))
        right = [question.reply == answer.text for question, answer in pairs]
        figures: dict[str, Any] = {"turns": len(pairs), "reply_exact": percent(right)}
        clear = [(q, a) for q, a in pairs if q.name != "unclear"]
        figures["reply_exact_clear"] = percent(q.reply == a.text for q, a in clear)
        figures["intent"] = percent(same_intent(q, a.text) for q, a in clear)
        figures["slots"] = percent(ok for q, a in clear for ok in slots_right(q, a.text))
        figures["tool_calls"] = percent(q.call == a.tail for q, a in pairs if q.call)
        figures["needless_calls"] = percent(bool(a.tail) for q, a in pairs if not q.call)
        unclear = [(q, a) for q, a in pairs if q.name == "unclear"]
        figures["unclear"] = percent(q.reply == a.text for q, a in unclear)
        if unclear:
            sorry = unclear[0][0].reply
            figures["needless_sorry"] = percent(a.text == sorry for _, a in clear)
        figures["unclear_by_kind"] = tally((q.kind, q.reply == a.text) for q, a in unclear)
        figures["ta4"] = percent(a.in_pattern for _, a in pairs)
        figures["by_intent"] = tally((q.name, q.reply == a.text) for q, a in pairs)
        figures["by_engine"] = tally((engine(q.voice), q.reply == a.text) for q, a in clear)
        if judge is not None:
            heard = judge.texts_of([answer.codes or [0] for answer in answers])
            figures["own_speech_cer"], figures["own_speech_wer"] = rounded(
                cer_wer([a.text for a in answers], heard)
            )
        misses = [
            {
                "intent": q.name,
                "said": q.said or f"<{q.kind}>",
                "voice": q.voice,
                "right": q.reply,
                "got": a.text,
            }
            for (q, a), ok in zip(pairs, right, strict=True)
            if not ok
        ]
        return figures, misses

    def transcripts(self, model: StepAudio2, *, limit: int) -> dict[str, Any]:
        """Word error rates on the callers' turns and on generic sentences; how often noise gives no words."""
        kinds = np.array(self.bank.kinds)
        turns = np.arange(int(self.first[-1]))
        groups = {
            "asr_domain_wer": turns[kinds[turns] == "speech"][:limit],
            "asr_generic_wer": np.arange(self.generic.start, self.generic.stop)[:limit],
            "asr_no_speech_empty": turns[kinds[turns] != "speech"][:limit],
        }
        figures: dict[str, Any] = {}
        for name, items in groups.items():
            heard = self._transcribe(model, items.tolist())
            if name == "asr_no_speech_empty":
                figures[name] = percent(not text for text in heard)
            elif len(items):
                figures[name] = rounded(cer_wer([self.scribe.ears.texts[i] for i in items], heard))[1]
        return figures

    def other_tasks(self, model: StepAudio2, *, limit: int) -> dict[str, Any]:
        """Share of exact answers, and character errors, of each task but thoughts, which are asked for twice."""
        figures: dict[str, Any] = {}
        for name, listed in self.tasks.items():
            if name in ("think", "base"):
                continue
            questions = []
            for made, item in listed[:limit]:
                talk = task_talk(made)
                self.scribe.recall(talk, made["history"], summary=made["summary"])
                if item >= 0:
                    self.scribe.hear(talk, item, made["typed"])
                else:
                    self.scribe.read(talk, made["typed"])
                prompt = self.scribe.prompt(talk, spoken=talk.spoken)
                questions.append(Question(prompt, talk.audio, name, "", made["reply"], [], {}, "", ""))
            answers = [self._text(ids) for ids in self.answers(model, questions, limit=MAX_REPLY)]
            wanted = [question.reply for question in questions]
            figures[f"{name}_exact"] = percent(a == b for a, b in zip(answers, wanted, strict=True))
            figures[f"{name}_cer"] = rounded(cer_wer(wanted, answers))[0]
        return figures

    def _text(self, ids: list[int]) -> str:
        """The words of a reply, spoken or written."""
        return self.scribe.tokenizer.decode(i for i in ids if i < self.scribe.tokenizer.ids.audio_start)

    def _transcribe(self, model: StepAudio2, items: list[int]) -> list[str]:
        questions = []
        for item in items:
            talk = Talk(ASR, spoken=False)
            self.scribe.hear(talk, item)
            questions.append(
                Question(
                    self.scribe.prompt(talk, spoken=False), talk.audio, "asr", "", "", [], {}, "", "speech"
                )
            )
        return [self._text(ids) for ids in self.answers(model, questions, limit=MAX_TRANSCRIPT)]


def examine(
    model: StepAudio2, exams: dict[str, Exam], *, dialogues: int, transcripts: int, judge: Any = None
) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """All figures by test bank, and the wrong replies by test bank. The model's mode is restored."""
    training = model.training
    model.eval()
    figures: dict[str, Any] = {}
    misses: dict[str, list[dict[str, str]]] = {}
    for name, exam in exams.items():
        figures[name], misses[name] = exam.replies(model, dialogues=dialogues, judge=judge)
        figures[name] |= exam.transcripts(model, limit=transcripts)
        figures[name] |= exam.other_tasks(model, limit=transcripts)
    model.train(training)
    return figures, misses


def load_judge(path: Path, device: torch.device) -> Any:
    """The speech tokenizer with its CTC head, which reads words out of speech codes; None if it is not there."""
    if not path.exists():
        return None
    from scripts.pocket.speech_tokenizer_model import load_speech_tokenizer

    return load_speech_tokenizer(path, device)
