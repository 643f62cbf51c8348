"""Tasks about how something sounds: descriptions of a recording, questions about it, answers that mind the voice."""

from __future__ import annotations

from random import Random

import facts
import smalltalk
import task
from scene import Scene
from task import Sound, Task

HOW = {
    "plain": "normally", "fast": "fast", "slow": "slowly", "high": "with a high voice", "low": "with a low voice",
    "excited": "excitedly", "sad": "sadly", "whisper": "in a whisper",
}  # fmt: skip
BEHIND = {
    "bell": "a bell rings", "siren": "a siren wails", "rain": "it rains", "bark": "a dog barks",
    "music": "music plays",
}  # fmt: skip
WHAT = {"bell": "a bell", "siren": "a siren", "rain": "rain", "bark": "a dog", "music": "music"}
NO_SPEECH = {
    "noise": "there is noise. nobody speaks.", "silence": "it is silent.", "babble": "many people speak at once.",
    "foreign": "somebody speaks a foreign language.",
}  # fmt: skip
DESCRIBE_WORDS = (
    task.DESCRIBE,
    task.DESCRIBE,
    task.DESCRIBE,
    "Describe this recording.",
    "Describe what you hear.",
)
ANSWER = "You are a helpful assistant."

TALK = (
    task.TALK_ZH, task.TALK_ZH, "Talk with me by voice and mind how I sound.",
    "Listen to how the caller sounds and answer to that, too.",
)  # fmt: skip
MINDED = {
    "plain": "", "fast": "no need to hurry.", "slow": "take your time.", "excited": "you sound excited.",
    "sad": "you sound sad, i am sorry.", "whisper": "i will be quiet, too.", "high": "", "low": "",
}  # fmt: skip
SOUNDS = {
    "plain": "you sound calm.", "fast": "you speak very fast.", "slow": "you speak slowly.",
    "excited": "you sound excited.", "sad": "you sound sad.", "whisper": "you are whispering.",
    "high": "your voice is high.", "low": "your voice is low.",
}  # fmt: skip


def description(sound: Sound) -> str:
    """What can be heard, in its one form."""
    if not sound.text:
        if sound.background:
            return f"{BEHIND[sound.background]}. nobody speaks."
        return NO_SPEECH[sound.kind]
    who, pronoun = ("a woman", "she") if sound.sex == "female" else ("a man", "he")
    behind = f", while {BEHIND[sound.background]}" if sound.background else ""
    spanish = " in spanish" if sound.language == "es" else ""
    return f"{who} speaks{spanish} {HOW[sound.style]}{behind}. {pronoun} says: {sound.text}."


def scene_of(rng: Random, text: str, language: str = "en") -> Sound:
    """Something to be described: a speaker with everything set, now and then nobody."""
    pick = rng.random()
    if pick < 0.08:
        return Sound("", kind="silence", background=rng.choice(task.BACKGROUNDS))
    if pick < 0.14:
        return Sound("", kind=rng.choice(tuple(NO_SPEECH)))
    style = "plain" if rng.random() < 0.25 else rng.choice(task.STYLES)
    background = rng.choice(task.BACKGROUNDS) if rng.random() < 0.45 else ""
    return Sound(text, language, style, background, rng.choice(("female", "male")))


def caption(rng: Random, text: str, language: str = "en") -> Task:
    """A description."""
    sound = scene_of(rng, text, language)
    tested = " ".join(filter(None, (sound.sex, sound.style if sound.text else sound.kind, sound.background)))
    return Task(
        "caption", rng.choice(DESCRIBE_WORDS), sound, "", description(sound), spoken=False, tested=tested
    )


def question(rng: Random, text: str) -> Task:
    """A question in text behind a recording."""
    sound = scene_of(rng, text)
    asked = rng.choice(("who", "how", "behind", "words"))
    if asked == "behind":
        typed = rng.choice(
            ("What is in the background?", "What can be heard in the background?", "Which noise is there?")
        )
        reply = f"{WHAT[sound.background]}." if sound.background else "nothing."
    elif not sound.text:
        typed, reply = rng.choice(("Does anybody speak?", "Is there speech?")), NOBODY[sound.kind]
    elif asked == "who":
        typed = rng.choice(("Is the speaker a man or a woman?", "Who is speaking?", "Who speaks?"))
        reply = "a woman." if sound.sex == "female" else "a man."
    elif asked == "how":
        typed = rng.choice(("How does the speaker sound?", "How does the person speak?", "How is it said?"))
        reply = f"{HOW[sound.style]}."
    else:
        typed = rng.choice(("What does the speaker say?", "What is said?", "What are the words?"))
        reply = f"{sound.text}."
    return Task("caption", ANSWER, sound, typed, reply, spoken=False, tested=f"question {asked}")


NOBODY = {
    "noise": "no.",
    "silence": "no.",
    "babble": "yes, many people.",
    "foreign": "yes, in a foreign language.",
}
ASK_SOUND = (
    "how do i sound|what do you hear in my voice|can you hear how i feel|how is my voice|what is my voice like|"
    "do you hear how i am speaking|tell me how i sound"
)
ASK_SEX = "am i a man or a woman|can you hear if i am a man or a woman|do i sound like a man or a woman"
ASK_BEHIND = (
    "what do you hear in the background|what is that noise|do you hear that|what can you hear behind me|"
    "what is that sound|which sound is that"
)


def paralinguistic(scene: Scene) -> Task:
    """A spoken answer that hangs on how something was said."""
    rng, pick = scene.rng, scene.rng.random()
    instructions = rng.choice(TALK)
    style = rng.choice(("plain", "plain", "fast", "slow", "excited", "sad", "whisper"))
    background, sex = "", ""
    if pick < 0.15:
        style = rng.choice(task.STYLES)
        text, reply, tested = scene.pick(ASK_SOUND), SOUNDS[style], style
    elif pick < 0.25:
        sex = rng.choice(("female", "male"))
        text, tested = scene.pick(ASK_SEX), sex
        reply = "you sound like a woman." if sex == "female" else "you sound like a man."
        style = "plain"
    elif pick < 0.4:
        background = rng.choice((*task.BACKGROUNDS, ""))
        text, tested, style = scene.pick(ASK_BEHIND), background or "nothing", "plain"
        reply = f"i hear {WHAT[background]}." if background else "i hear nothing but you."
    else:
        text, answer = _talk(scene)
        reply, tested = f"{MINDED[style]} {answer}".strip(), style
    sound = Sound(text, "en", style, background, sex)
    return Task("paralinguistic", instructions, sound, "", reply, spoken=True, tested=tested)


def _talk(scene: Scene) -> tuple[str, str]:
    """A question whose answer is always the same, and the answer."""
    if scene.chance(0.7):
        phrasings, reply = smalltalk.FIXED[scene.rng.choice(sorted(smalltalk.FIXED))]
        return scene.pick(phrasings), reply
    fact = facts.FACTS[scene.rng.choice(sorted(name for name, each in facts.FACTS.items() if each.default))]
    return scene.pick(fact.asks), fact.reply.format(value=fact.default)
