"""What callers say beside any errand: greetings, thanks, small talk, and short answers. One answer each."""

from __future__ import annotations

from random import Random

import lexicon as lex
import values as val
from scene import LEADS, Scene
from task import Turn

FIXED: dict[str, tuple[str, str]] = {
    "how_are_you": (
        "how are you|how are you today|how is it going|how are you doing|are you well|how do you feel|"
        "how was your day|"
        "are you okay|how is your day",
        "i am doing great, thank you for asking.",
    ),
    "robot": (
        "are you a robot|are you human|what are you|am i talking to a machine|are you a real person|"
        "are you a computer|"
        "are you alive|is this a recording",
        "i am a computer program that can talk.",
    ),
    "capabilities": (
        "what can you do|what can you help me with|how can you help me|help|i need help|can you help me|"
        "what can i ask you|"
        "what do you know|what are you good at",
        "i can book tables, check orders, and answer questions.",
    ),
    "thanks": (
        "thank you|thanks a lot|thank you very much|thanks|many thanks|great thank you|thank you so much|"
        "perfect thanks|"
        "thank you for your help|that was very kind",
        "you are welcome.",
    ),
    "goodbye": (
        "goodbye|bye bye|see you later|good night|talk to you later|bye|have a nice day|that is all goodbye|"
        "thank you goodbye|i have to go now|see you tomorrow",
        "goodbye, have a nice day.",
    ),
    "yes": (
        "yes|yes please|sure|that is right|correct|yeah|yes that is correct|okay|exactly|of course|yes do it",
        "great, it is done.",
    ),
    "no": (
        "no|no thanks|that is all|nothing else|no thank you|nope|not now|no that is everything|nothing more",
        "okay, thank you for calling.",
    ),
    "never_mind": (
        "stop|never mind|forget it|stop it|stop talking|cancel that|be quiet|wait stop|oh never mind|"
        "it does not matter|"
        "please stop",
        "okay, no problem.",
    ),
    "wait": (
        "wait a moment|one moment please|hold on|just a second|give me a minute|wait please|hang on|one second",
        "sure, take your time.",
    ),
    "hear_me": (
        "can you hear me|are you there|is anybody there|do you hear me|hello can you hear me|are you still there|"
        "can you still hear me",
        "yes, i can hear you well.",
    ),
    "human": (
        "can i speak to a person|i want to talk to a human|get me a real person|connect me to an agent|"
        "let me speak to the boss|i want to speak to someone|give me a human please|"
        "i do not want to talk to a machine|"
        "is there a person i can talk to",
        "okay, i will connect you to a person.",
    ),
    "again": (
        "say that again in other words|i do not understand you|what do you mean|i do not understand|"
        "that makes no sense|"
        "i do not get it",
        "i am sorry. please ask me another way.",
    ),
    "slower": (
        "can you speak slower|please speak slowly|you are too fast|not so fast please|slow down please|"
        "could you talk more slowly",
        "okay, i will speak slowly.",
    ),
    "louder": (
        "can you speak louder|i can not hear you|you are too quiet|speak up please|a bit louder please|"
        "you are not loud enough",
        "okay, i will speak louder.",
    ),
    "joke": (
        "tell me a joke|do you know a joke|make me laugh|say something funny|another joke please|be funny",
        "why did the robot sleep? its battery was low.",
    ),
    "story": (
        "tell me a story|do you know a story|read me a story|i want to hear a story|tell us a story",
        "once a little boat found its way home.",
    ),
    "riddle": (
        "tell me a riddle|do you know a riddle|ask me a riddle|give me a riddle|i like riddles",
        "what has hands but can not clap? a clock.",
    ),
    "sing": (
        "can you sing|sing a song|sing something for me|please sing|do you sing|sing me a song",
        "i can not sing, but i like music.",
    ),
    "age": (
        "how old are you|what is your age|when were you born|when is your birthday|are you old|are you young",
        "i am very young, i was made this year.",
    ),
    "home": (
        "where do you live|where is your home|do you have a house|what is your home|where do you sleep",
        "i live in a computer.",
    ),
    "family": (
        "do you have a family|do you have children|are you married|do you have brothers|who are your parents|"
        "do you have friends",
        "i have no family, but many callers.",
    ),
    "sleep": (
        "do you sleep|are you tired|when do you rest|do you need a break|do you ever sleep|do you dream",
        "no, i never sleep.",
    ),
    "eat": (
        "do you eat|are you hungry|what do you like to eat|what is your favorite food|do you like pizza|"
        "do you drink coffee",
        "i do not eat, but soup sounds nice.",
    ),
    "color": (
        "what is your favorite color|which color do you like|do you have a favorite color|"
        "what color do you like best",
        "i like blue, like the sea.",
    ),
    "music": (
        "what music do you like|do you like music|what is your favorite song|which music do you like|"
        "do you listen to music",
        "i like quiet piano music.",
    ),
    "animal": (
        "what is your favorite animal|do you like animals|do you like dogs|do you have a pet|"
        "which animal do you like",
        "i like cats, they are so quiet.",
    ),
    "hobby": (
        "what do you do in your free time|do you have a hobby|what do you like to do|what is your hobby|"
        "what are your hobbies",
        "i like talking to people.",
    ),
    "languages": (
        "which languages do you speak|do you speak spanish|can you speak spanish|what languages do you know|"
        "how many languages do you speak|do you speak english",
        "i speak english and spanish.",
    ),
    "compliment": (
        "you are great|you are very nice|good job|well done|you are very helpful|i like you|you are the best|"
        "you have a nice voice|you are so kind|you are smart",
        "thank you, that is very kind.",
    ),
    "insult": (
        "you are stupid|you are bad|i hate you|you are useless|you are not helping|you are terrible|you are so slow|"
        "you do not help me",
        "i am sorry. i will try to do better.",
    ),
    "sad": (
        "i am sad|i feel bad|i am not happy|i had a bad day|today is a terrible day|i feel lonely|"
        "nobody likes me|i am unhappy",
        "i am sorry to hear that.",
    ),
    "happy": (
        "i am happy|i feel great|today is a good day|i had a great day|i am so happy today|i got good news|"
        "life is good",
        "that is wonderful to hear.",
    ),
    "tired": (
        "i am tired|i need some sleep|i did not sleep well|i am so tired today|i want to go to bed|i could not sleep",
        "then i hope you can rest soon.",
    ),
    "bored": (
        "i am bored|there is nothing to do|what should i do today|i am so bored|what can i do today",
        "how about a walk by the river?",
    ),
    "sick": (
        "i am sick|i have a cold|i do not feel well|i have a headache|my head hurts|i feel ill",
        "i am sorry. get well soon.",
    ),
    "birthday": (
        "today is my birthday|it is my birthday|i have my birthday today|i turn thirty today|"
        "we have a birthday today",
        "happy birthday to you.",
    ),
    "nice_weather": (
        "nice weather today|it is so hot today|it is cold outside|what a beautiful day|it is raining here|"
        "the sun is shining",
        "yes, i hope you enjoy the day.",
    ),
    "sorry": (
        "i am sorry|sorry|excuse me|sorry about that|i did not mean it|my mistake|forgive me",
        "that is all right.",
    ),
    "love": (
        "do you love me|i love you|will you marry me|do you like me|are you my friend",
        "i like talking to you.",
    ),
    "meaning": (
        "what is the meaning of life|why are we here|what is love|is there a god|what happens after death",
        "that is a big question for a small model.",
    ),
    "secret": (
        "tell me a secret|do you have a secret|can you keep a secret|what is your secret",
        "my secret is that i am very small.",
    ),
    "test": (
        "this is a test|testing one two three|just a test|test test|i am only testing you|is this thing on",
        "the test works, i can hear you.",
    ),
    "privacy": (
        "do you record this call|are you listening to me|who can hear this|is this call recorded|"
        "do you save what i say",
        "i only listen to answer you.",
    ),
    "news": (
        "what is new|is there any news|what happened today|tell me the news|did you hear the news",
        "i do not know the news, sorry.",
    ),
    "lunch": (
        "i am hungry|i want to eat something|i need some food|i could eat a horse|i have not eaten today",
        "you can book a table with me.",
    ),
    "music_on": (
        "play some music|play a song|turn on the radio|put on some music|can you play music",
        "i am sorry, i can not play music.",
    ),
    "lights": (
        "turn on the light|switch off the light|turn off the lights|it is dark in here|make it warmer",
        "i am sorry, i can not switch that.",
    ),
}  # fmt: skip
SMALL_TALK = ("how_are_you", "hear_me", "nice_weather", "test", "robot", "capabilities")
CLOSING = ("thanks", "goodbye", "no")
OPPOSITES = {
    "hot": "cold", "big": "small", "old": "young", "fast": "slow", "high": "low", "long": "short", "light": "dark",
    "good": "bad", "happy": "sad", "rich": "poor", "open": "closed", "full": "empty", "wet": "dry", "loud": "quiet",
    "early": "late", "easy": "difficult", "left": "right", "day": "night", "black": "white", "up": "down",
    "strong": "weak", "first": "last", "near": "far", "clean": "dirty", "hard": "soft", "thick": "thin",
    "summer": "winter", "north": "south", "east": "west", "yes": "no", "always": "never", "front": "back",
}  # fmt: skip


def fixed(scene: Scene, intent: str) -> list[Turn]:
    """A fixed phrase and its answer."""
    phrasings, reply = FIXED[intent]
    user = scene.pick(phrasings)
    if scene.chance(0.3):
        user = f"{scene.rng.choice(LEADS[:12])} {user}"
    return [scene.turn(user, reply, intent)]


def any_fixed(scene: Scene) -> list[Turn]:
    return fixed(scene, scene.rng.choice(sorted(FIXED)))


def name_memory(scene: Scene) -> list[Turn]:
    """A name, and what it was."""
    name = scene.rng.choice(lex.NAMES)
    user = scene.pick(
        "my name is {name}|i am {name}|hello this is {name}|call me {name}|um my name is {name}|"
        "hi my name is {name}|hello i am {name}|good morning my name is {name}|{name} is my name|"
        "you can call me {name}",
        name=name,
    )
    turns = [scene.turn(user, f"nice to meet you, {name}.", "name", {"name": name})]
    asks = (
        "what is my name|do you remember my name|who am i|do you know my name|tell me my name|um what is my name|"
        "what was my name"
    )
    if scene.chance(0.75):
        if scene.chance(0.3):
            turns += any_fixed(scene)
        elif scene.chance(0.2):
            name = scene.rng.choice(lex.NAMES)
            user = scene.pick(
                "no my name is {name}|no i said {name}|sorry i am {name}|not quite it is {name}", name=name
            )
            turns.append(
                scene.turn(
                    user, f"nice to meet you, {name}.", "name_repair", {"name": name}, source="history"
                )
            )
        turns.append(
            scene.turn(
                scene.pick(asks), f"your name is {name}.", "name_memory", {"name": name}, source="history"
            )
        )
    elif scene.chance(0.3):
        turns = [
            scene.turn(scene.pick(asks), "sorry, i do not know your name.", "name_memory", source="history")
        ]
    return turns


def likes(scene: Scene) -> list[Turn]:
    """Something that the caller tells and asks for again."""
    rng, kind = scene.rng, scene.rng.choice(("color", "city", "animal", "day", "number"))
    value = {
        "color": lambda r: r.choice(val.COLORS), "city": lambda r: r.choice(lex.CITIES),
        "animal": lambda r: r.choice(ANIMALS), "day": lambda r: r.choice(lex.DAYS),
        "number": lambda r: lex.number_words(r.randint(0, 99)),
    }[kind](rng)  # fmt: skip
    user = scene.pick(
        "my favorite {kind} is {value}|the {kind} that i like is {value}|i like the {kind} {value} best|"
        "please remember my favorite {kind} is {value}",
        kind=kind, value=value,
    )  # fmt: skip
    turns = [
        scene.turn(user, f"okay, your favorite {kind} is {value}.", "likes", {"kind": kind, "value": value})
    ]
    if scene.chance(0.7):
        if scene.chance(0.4):
            turns += any_fixed(scene)
        user = scene.pick(
            "what is my favorite {kind}|which {kind} do i like|do you remember my favorite {kind}|"
            "tell me my favorite {kind}",
            kind=kind,
        )
        reply = f"your favorite {kind} is {value}."
        turns.append(scene.turn(user, reply, "likes_memory", {"value": value}, source="history"))
    return turns


ANIMALS = lex.split(
    "dog cat horse bear wolf fox lion tiger elephant monkey rabbit mouse snake frog duck cow pig sheep"
)


def calendar(scene: Scene) -> list[Turn]:
    """The day after monday, the month before may, the opposite of hot."""
    pick = scene.rng.random()
    if pick < 0.35:
        names, at, kind = lex.DAYS, scene.rng.randrange(7), "day"
    elif pick < 0.65:
        names, at, kind = val.MONTHS, scene.rng.randrange(12), "month"
    else:
        word, other = scene.rng.choice(sorted(OPPOSITES.items()))
        user = scene.ask(
            "what is the opposite of {word}|tell me the opposite of {word}|what is not {word}", word=word
        )
        return [scene.turn(user, f"the opposite of {word} is {other}.", "opposite", {"word": word})]
    step = scene.rng.choice((1, -1))
    user = scene.ask(
        "what comes {side} {name}|which {kind} is {side} {name}|what {kind} comes {side} {name}|"
        "tell me the {kind} {side} {name}",
        side="after" if step == 1 else "before", name=names[at], kind=kind,
    )  # fmt: skip
    answer = names[(at + step) % len(names)]
    return [scene.turn(user, f"it is {answer}.", f"next_{kind}", {"value": answer})]


def greeting_word(rng: Random) -> str:
    """A word to open a call with."""
    return rng.choice(("hello", "hi", "good morning", "good afternoon", "good evening", "hello there", "hey"))
