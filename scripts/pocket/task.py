"""What one sample of the corpus is: what is heard, in which conversation or task, and what the answer to it is.

It is the interface between the words (corpus.py and what it draws from), the sounds (gen_data.py) and the learning
(lm_data.py). It makes no words, no audio and no token ids. corpus.json holds these classes as objects
(`dataclasses.asdict`); `dialogue_of`, `task_of` and `sound_of` read them back.

corpus.json:
    train, test            list of Dialogue
    tasks, task_test       list of Task
    generic, generic_test  list of str: English sentences to be heard, for transcripts alone
    agent_generic          list of str: English sentences to be spoken aloud by the agent, beside its replies
    agent_spanish          list of str: the same in Spanish

Order of the caller bank (gen_data.py): `Dialogue.turns` one by one, then `heard` of the tasks that have one, then the
generic sentences. `heard_of` gives it. What the agent says (`said_of`): every spoken reply of training once.
Items that `Dialogue.history` holds have no audio.

Spelling: all words to be heard or said are lower case without digits. English has a-z and the apostrophe, Spanish
also á é í ó ú ü ñ. What is heard has no punctuation (a transcript has none); replies have "." "," "?" ":", in Spanish
"¿" too, and no other mark. Letters to be said by their names stand in runs ("c a t"), which `letter_runs` finds; a
letter alone is a word (a, i; Spanish a, e, o, u, y).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

STYLES = ("plain", "fast", "slow", "high", "low", "excited", "sad", "whisper")
BACKGROUNDS = ("bell", "siren", "rain", "bark", "music")
KINDS = ("speech", "noise", "silence", "babble", "foreign")
NAMES = (
    "asr", "asr_part", "asr_es", "s2tt", "s2st", "t2tt", "caption", "paralinguistic", "speak", "think", "base",
    "summary",
)  # fmt: skip

# Prompts that the family's models were taught (step-audio-2.md, 4.4), and those that our server sends.
ASR = "请记录下你所听到的语音内容。"
TRANSLATE = "Please listen carefully to this audio and then translate its content into {language}."
TRANSLATE_ALOUD = (
    "Please listen carefully to this audio and then translate its content into {language} speech."
)
TRANSLATE_ZH = "请仔细聆听这段语音，然后将其内容翻译成{language}。"
TRANSLATE_ALOUD_ZH = "请仔细聆听这段语音，然后将其内容翻译成{language}并用语音播报。"
DESCRIBE = "Please briefly explain the important events involved in this audio clip."
TALK_ZH = "请用语音与我交流。"
BASE_SPEAK = "Read this paragraph at a natural pace.\n"
BASE_SPEAK_ZH = "以自然的语速读出下面的文字。\n"
BASE_TRANSLATE = "Translate the following text into {language} and broadcast it with voice.\n"
BASE_TRANSLATE_ZH = "将下面的文本翻译成{language}，并用语音播报。\n"
SUMMARISE = (
    "\n\n\n请用口语化形式总结检索结果，简短地回答用户的问题。"  # a client may append it to a tool's output
)
LANGUAGES = {"en": ("English", "英文"), "es": ("Spanish", "西班牙文")}


@dataclass(frozen=True, slots=True)
class Sound:
    """One thing that is heard: one item of the caller bank.

    Attributes:
        text: the words, lower case; "" = nobody speaks (or only what is no English speech: see `kind`).
        language: "en" or "es", of the words.
        style: one of STYLES: how they are said. "high" and "low" are pitch. Every engine makes them all (numbers:
            voices.STYLE_RANGES); only RHVoice and SVOX Pico cannot widen or flatten their melody, so that there
            "excited" is fast and high, "sad" slow and low. A whisper is the voice's filter on noise, without pitch.
        background: "" or one of BACKGROUNDS, under the voice, or alone when `text` is "" and `kind` "silence".
        sex: "" = any, "female", "male".
        kind: "speech", or one of the other KINDS, which have no text ("foreign": speech in neither language).
        words: > 0: the recording breaks off after so many words of `whole`, which is what is synthesised, close to
            the last word's end; `text` is these words only. 0: nothing breaks off, `whole` is "".
        whole: see `words`.
    """

    text: str
    language: str = "en"
    style: str = "plain"
    background: str = ""
    sex: str = ""
    kind: str = "speech"
    words: int = 0
    whole: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool call of the agent: its result (JSON text) and the sentence spoken after it."""

    name: str
    arguments: dict[str, Any]
    result: str
    final: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer.

    Attributes:
        heard: what the caller says.
        reply: what the agent says; with a tool, before its call.
        intent: what it is about.
        slots: values that the reply must hold, by name.
        tool: the call that follows the reply.
        source: where the answer comes from: "" (the model's own knowledge, or the question itself), "prompt" (a fact
            that the instructions set), "history" (an earlier turn).
        language: of the reply.
    """

    heard: Sound
    reply: str
    intent: str
    slots: dict[str, str] = field(default_factory=dict)
    tool: Tool | None = None
    source: str = ""
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation.

    Attributes:
        intent: what it is mainly about.
        system: the instructions.
        tools: OpenAI tool objects, or None.
        turns: what is heard and learned, oldest first.
        history: (what the person said, what the agent said) of earlier turns, both read as text; not learned.
        summary: a summary of what was said before that, which stands in a leading system item behind the engine's own
            heading (voiceagent.core.condense.HEADING); "" = none.
        group: which part of the figures it counts for: "frontdesk", "callcentre", "facts", "smalltalk", "tools",
            "exercises", "memory", "unclear", "spanish".
        tested: what of it training never had: "sentence" (some turn's words; the default of the test), "template" (a
            wording), "value" (a fact's value or a tool's name), "fixed" (nothing: known phrases). "" in training.
    """

    intent: str
    system: str
    tools: list[dict[str, Any]] | None
    turns: list[Turn]
    history: list[list[str]] = field(default_factory=list)
    summary: str = ""
    group: str = "frontdesk"
    tested: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One sample that is not a dialogue: one human turn of audio or of text, and the answer.

    Attributes:
        name: one of NAMES. "base" is rendered without roles, as the Base variant's prompts are.
        instructions: the system prompt (for "base" the leading string).
        heard: the human turn's audio, or None.
        typed: its text; with audio, a question about it that stands behind the audio in the same turn.
        reply: what the model writes or says.
        spoken: whether the reply is speech with its text, else it is text.
        language: of the reply.
        thought: "think": what stands between `<think>` and `</think>`, without the line breaks around it.
        history, summary: as in `Dialogue`; of the task "summary", what is to be summed up.
        tested: what the figures should tell apart: "es>en", a style, a background, a boundary ...; "" = nothing.
    """

    name: str
    instructions: str
    heard: Sound | None
    typed: str
    reply: str
    spoken: bool
    language: str = "en"
    thought: str = ""
    history: list[list[str]] = field(default_factory=list)
    summary: str = ""
    tested: str = ""


def sound_of(made: Mapping[str, Any]) -> Sound:
    """A sound as corpus.json holds it."""
    return Sound(**made)


def turn_of(made: Mapping[str, Any]) -> Turn:
    """A turn as corpus.json holds it."""
    tool = Tool(**made["tool"]) if made["tool"] else None
    return Turn(**{**made, "heard": sound_of(made["heard"]), "tool": tool})


def dialogue_of(made: Mapping[str, Any]) -> Dialogue:
    """A dialogue as corpus.json holds it."""
    return Dialogue(**{**made, "turns": [turn_of(turn) for turn in made["turns"]]})


def task_of(made: Mapping[str, Any]) -> Task:
    """A task as corpus.json holds it."""
    return Task(**{**made, "heard": sound_of(made["heard"]) if made["heard"] else None})


def heard_of(corpus: Mapping[str, Any], *, test: bool = False) -> Iterator[Sound]:
    """Everything that is heard in training, or in the test: the caller bank's items in their order."""
    dialogues, tasks, generic = (
        ("test", "task_test", "generic_test") if test else ("train", "tasks", "generic")
    )
    for made in corpus[dialogues]:
        for turn in made["turns"]:
            yield sound_of(turn["heard"])
    for made in corpus[tasks]:
        if made["heard"]:
            yield sound_of(made["heard"])
    for text in corpus[generic]:
        yield Sound(text)


def said_of(corpus: Mapping[str, Any], language: str, *, test: bool = False) -> list[str]:
    """Every sentence that the agent says in a language, once: in training, then the generic ones; or in the test.

    Text replies (transcripts, captions ...) are not among them. Many answers of the test are training's too.
    """
    said: dict[str, None] = {}
    for made in corpus["test" if test else "train"]:
        for turn in made["turns"]:
            if turn["language"] == language:
                said[turn["reply"]] = None
                if turn["tool"]:
                    said[turn["tool"]["final"]] = None
    for made in corpus["task_test" if test else "tasks"]:
        if made["spoken"] and made["language"] == language:
            said[made["reply"]] = None
    if not test:
        said |= dict.fromkeys(corpus["agent_generic" if language == "en" else "agent_spanish"])
    said.pop("", None)
    return list(said)


def letter_runs(text: str) -> Iterator[tuple[int, int]]:
    """(begin, end) in words of every run of letters that are spelled out: "c a t", but not "i a" or "y a".

    A run has at least two letters, and one of them is no word of its own, or it has at least three.
    """
    words = [word.strip(".,?:") for word in text.split()]
    begin = 0
    while begin < len(words):
        end = begin
        while end < len(words) and len(words[end]) == 1:
            end += 1
        if end - begin >= 3 or (end - begin == 2 and not set(words[begin:end]) <= set("aeiouy")):
            yield begin, end
        begin = max(end, begin + 1)
